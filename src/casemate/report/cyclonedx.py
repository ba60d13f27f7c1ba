"""CycloneDX 1.7: a bill of materials of the model, with a model card of what was measured.

The model is the component that the bill is about, each split of its data a component beside it. Every measurement is a
performance metric with its interval. Findings are vulnerabilities, save for two rooms: unequal treatment is a fairness
assessment, and a mistake in the set-up a limitation, as is what was not tested. On demand the model's files stand
inside it and the packages of an environment beside it; without a report these are all there is.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from casemate.artifacts.bom import file_components
from casemate.core.evidence import Evidence
from casemate.core.outcome import Failed, Finding, Severity
from casemate.core.report import Report
from casemate.formats import canonical, digests
from casemate.formats.manifest import Manifest
from casemate.report import acceptance, words
from casemate.report import json as report_json

__all__ = ["render", "render_files"]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:casemate:report")
_MODEL = "model"
_FAIRNESS, _SETUP = "fairness", "preflight"


def render(report: Report, *, files: Manifest | None = None, packages: Sequence[Mapping[str, Any]] = ()) -> str:
    """The bill in JSON; equal reports, files and packages have equal serial numbers.

    `files` are those that hold the model, `packages` the components of the environment.
    """
    bill: dict[str, Any] = {
        **_head(report_json.digest(report), files, packages),
        "metadata": {**_moment(report), "tools": {"components": _tools(report)}, "component": _model(report, files)},
        "components": [*(_data(report, name) for name in sorted(report.data)), *packages],
        "dependencies": [{"ref": _MODEL, "dependsOn": [_ref(name) for name in sorted(report.data)]}],
        "vulnerabilities": [_vulnerability(report, f) for f in report.findings if _room(f) not in (_FAIRNESS, _SETUP)],
    }
    return canonical.dumps_pretty(bill).decode()


def render_files(name: str, files: Manifest, *, version: str, packages: Sequence[Mapping[str, Any]] = ()) -> str:
    """The bill of a model of which nothing but its files is known; `version` is that of Casemate, which made it.

    It has no time of its own: equal files and packages give equal bytes.
    """
    tool = {"type": "application", "name": "casemate", "version": version}
    card = {"considerations": {"technicalLimitations": ["Nothing was measured: this bill is made of the files alone."]}}
    bill: dict[str, Any] = {
        **_head(name, files, packages),
        "metadata": {
            "tools": {"components": [tool]},
            "component": {
                "type": "machine-learning-model",
                "bom-ref": _MODEL,
                "name": name,
                **_whole(files),
                "modelCard": card,
            },
        },
        "components": list(packages),
    }
    return canonical.dumps_pretty(bill).decode()


def _head(subject: str, files: Manifest | None, packages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    listed = [files.digest] if files is not None else []
    told = canonical.digest([subject, *listed, *packages]) if files is not None or packages else subject
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, told)}",
        "version": 1,
    }


def _whole(files: Manifest) -> dict[str, Any]:
    """The files of a model: the hash of a lone one is the model's own; a folder has none but its manifest's."""
    alone = files.entries[0] if len(files.entries) == 1 else None
    hashes = {"hashes": [{"alg": "SHA-256", "content": digests.hex_of(alone.digest)}]} if alone else {}
    return {
        **hashes,
        "components": file_components(files),
        "properties": [{"name": "casemate:manifest", "value": files.digest}],
    }


def _moment(report: Report) -> dict[str, str]:
    try:
        moment = dt.datetime.fromisoformat(report.timings.created).astimezone(dt.UTC)
    except ValueError:
        return {}
    return {"timestamp": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}


def _tools(report: Report) -> list[dict[str, Any]]:
    main = {"type": "application", "name": "casemate", "version": report.versions.get("casemate", "")}
    rest = [{"type": "library", "name": n, "version": v} for n, v in sorted(report.versions.items()) if n != "casemate"]
    return [main, *(item for item in rest if item["name"] != "platform")]


def _model(report: Report, files: Manifest | None) -> dict[str, Any]:
    whole = {} if files is None else _whole(files)
    facts = {"verdict": str(report.ruling.status), "bundle": report.bundle, "seed": str(report.seed)}
    facts |= {"fingerprint": report.model}  # of what was loaded: no hash of a file, so it stands among no hashes
    facts |= {f"gate: {gate.gate}": f"{gate.status}: {gate.reason}" for gate in report.ruling.gates}
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": report.name,
        **whole,
        "modelCard": {
            "modelParameters": {
                "datasets": [{"ref": _ref(name)} for name in sorted(report.data)],
                "inputs": [{"format": text} for text in sorted({_shape(report, name) for name in report.data})],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(report)},
            "considerations": _considerations(report),
        },
        "properties": [
            *({"name": f"casemate:{key}", "value": value} for key, value in facts.items() if value),
            *whole.get("properties", ()),
        ],
    }


def _data(report: Report, name: str) -> dict[str, Any]:
    facts = report.data[name]
    about = [
        {"name": f"casemate:{name}", "value": value}
        for name, value in (("rows", str(facts.rows)), ("kind", facts.kind), ("digest", facts.digest))
    ]
    return {
        "type": "data",
        "bom-ref": _ref(name),
        "name": f"{name} data of {report.name}",
        "data": [{"type": "dataset", "name": name, "contents": {"properties": about}}],
    }


def _ref(name: str) -> str:
    return f"data/{name}"


def _shape(report: Report, name: str) -> str:
    facts = report.data[name]
    return f"{facts.kind} {' x '.join(map(str, facts.shape))}".strip()


def _metrics(report: Report) -> list[dict[str, Any]]:
    return [_metric(item) for outcome in report.outcomes for item in words.in_order(outcome.evidence)]


def _metric(item: Evidence) -> dict[str, Any]:
    """One measurement; which way it errs stands beside where it was made, for the format has no field for it."""
    places = [f"{key} = {item.at[key]}" for key in sorted(item.at)]  # with the ids of report.json
    where = ", ".join(part for part in (item.about, *places, words.size(item)) if part)
    errs = words.DIRECTION[item.errs]
    metric: dict[str, Any] = {"type": item.metric, "value": _number(item.value)}
    if where or errs:
        metric["slice"] = f"{where}{f' ({errs})' if errs else ''}".strip()
    if item.low != item.high:
        metric["confidenceInterval"] = {"lowerBound": _number(item.low), "upperBound": _number(item.high)}
    return metric


def _number(value: float) -> str:
    return canonical.dumps(value).decode()


def _considerations(report: Report) -> dict[str, Any]:
    limits = [f"{words.sentence(f.title)}: {f.about}" for f in report.findings if _room(f) == _SETUP]
    for outcome in report.untested:
        why = f"it broke: {outcome.error}" if isinstance(outcome, Failed) else outcome.detail
        limits.append(f"{outcome.plugin} was not tested: {why}")
    unequal = [
        {"groupAtRisk": f.about, "harms": _told(f), **({"mitigationStrategy": f.mend} if f.mend else {})}
        for f in report.findings
        if _room(f) == _FAIRNESS
    ]
    found: Mapping[str, list[Any]] = {
        "technicalLimitations": [*limits, *report.notes],
        "fairnessAssessments": unequal,
    }
    return {name: items for name, items in found.items() if items}


def _vulnerability(report: Report, finding: Finding) -> dict[str, Any]:
    rating = {"source": {"name": "Casemate"}, "severity": str(finding.severity), "method": "other"}
    found: dict[str, Any] = {
        "bom-ref": finding.id,
        "id": finding.id,
        "source": {"name": "Casemate"},
        "ratings": [rating],
        "description": _told(finding),
        "affects": [{"ref": _MODEL}],
        "analysis": {"state": "exploitable"},
    }
    if finding.mend:
        found["recommendation"] = finding.mend
    accepted = acceptance(report, finding)
    if accepted is not None:
        why = f"accepted until {accepted.until.isoformat()}: {accepted.reason}"
        found["analysis"] |= {"response": ["will_not_fix"], "detail": why}
    if finding.severity is not finding.could_be and finding.could_be is not Severity.NONE:
        rating["justification"] = f"at the other end of the interval it is {finding.could_be}"
    return found


def _told(finding: Finding) -> str:
    return f"{words.sentence(finding.title)} ({finding.about})"


def _room(finding: Finding) -> str:
    return finding.plugin.partition("/")[0]
