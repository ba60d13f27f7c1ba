"""SARIF 2.1.0: findings for code scanning, as OASIS Standard "Static Analysis Results Interchange Format 2.1.0".

Every plug-in of the plan is a rule, found something or not. A finding is a result of kind `fail`; what the samples
could not decide is one of kind `open` (section 3.27.9: not enough information); an accepted finding is suppressed.
What was not tested is a notification of the invocation. A model has no lines, so a result points into casemate.toml.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from casemate.core.evidence import Quantity
from casemate.core.outcome import Failed, Finding, Inconclusive, Outcome, Severity, Skipped
from casemate.core.report import PluginFacts, Report
from casemate.formats import canonical
from casemate.report import acceptance, words

__all__ = ["SCHEMA", "render", "unlinked", "uri_of"]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
"""Where the schema of SARIF 2.1.0 is published."""
_LEVEL: Mapping[Severity, str] = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.NONE: "none",
}
_SCORE: Mapping[Severity, str] = {  # code scanning's scale: over 9 critical, from 7 high, from 4 medium, below it low
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.5",
    Severity.LOW: "2.0",
}
_PRINT = "casemateFinding/v1"
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_LINK = re.compile(r"\](?=\()")


def render(report: Report, *, config: Path | None = None) -> str:
    """The log, with results that point to the section of their plug-in in `config` (default `casemate.toml`).

    Fingerprints, rules and messages of equal reports are equal; only times and the id of the run differ.
    """
    names = sorted({*report.plugins, *(outcome.plugin for outcome in report.outcomes)})
    place = _Place(config or Path("casemate.toml"))
    run = {
        "tool": {"driver": _driver(report, names)},
        "automationDetails": {"id": f"casemate/{quote(report.name, safe='')}/{report.timings.run}"},
        "invocations": [_invocation(report, names)],
        "artifacts": [{"location": {"uri": place.uri}, "roles": ["analysisTarget"], "mimeType": "application/toml"}],
        "results": [_result(report, o, names, place) for o in _told(report)],
        "properties": {
            "verdict": str(report.ruling.status),
            "bundle": report.bundle,
            "model": report.model,
            "data": {name: facts.digest for name, facts in report.data.items()},
            "seed": report.seed,
            "settings": report.settings,
            "notes": list(report.notes),
        },
    }
    return canonical.dumps_pretty({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}).decode()


class _Place:
    """The configuration as a place: its address, and the line where a plug-in has its section."""

    def __init__(self, path: Path) -> None:
        self.uri = uri_of(path)
        try:
            self._lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):  # a report is rendered wherever it lies
            self._lines = []

    def line(self, plugin: str) -> int:
        """The line of `[probe."room/name"]`, else of `[model]`, else the first."""
        names = rf"\[\s*probe\s*\.\s*[\"']{re.escape(plugin)}[\"']\s*\]", r"\[\s*model\s*\]"
        for name in names:
            for number, text in enumerate(self._lines, start=1):
                if re.match(rf"\s*{name}", text):
                    return number
        return 1

    def location(self, outcome: Finding | Inconclusive) -> dict[str, Any]:
        """Where a result is: a region of the file, and the measured thing by name."""
        region = {"startLine": self.line(outcome.plugin)}
        return {
            "physicalLocation": {"artifactLocation": {"uri": self.uri, "index": 0}, "region": region},
            "logicalLocations": [{"fullyQualifiedName": f"{outcome.plugin}: {outcome.about}"}],
        }


def uri_of(path: Path) -> str:
    """Relative to the current folder where it lies below it, so that it names a file of the repository."""
    whole = path.absolute()
    return quote(whole.relative_to(Path.cwd()).as_posix()) if whole.is_relative_to(Path.cwd()) else whole.as_uri()


def _told(report: Report) -> list[Finding | Inconclusive]:
    unclear = [outcome for outcome in report.outcomes if isinstance(outcome, Inconclusive)]
    return [*report.findings, *sorted(unclear, key=lambda o: (o.plugin, o.about))]


# --------------------------------------------------------------------------------------------------------------- rules


def _driver(report: Report, names: list[str]) -> dict[str, Any]:
    version = report.versions.get("casemate", "")
    reasons = sorted({_reason(outcome) for outcome in report.untested})
    driver = {
        "name": "Casemate",
        "fullName": f"Casemate {version}".strip(),
        "rules": [_rule(report, name) for name in names],
        "notifications": [{"id": reason, "shortDescription": {"text": _WHY[reason]}} for reason in reasons],
    }
    return {**driver, "version": version} if version else driver


def _rule(report: Report, name: str) -> dict[str, Any]:
    facts = report.plugins.get(name)
    found = [o.severity for o in report.findings if o.plugin == name]
    worst = max(found, key=lambda severity: severity.rank, default=Severity.NONE)
    room = name.partition("/")[0]
    rule: dict[str, Any] = {
        "id": name,
        "name": "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", name)),
        "shortDescription": {"text": unlinked(words.full(facts.title)) if facts else name},
        "help": _help(name, facts),
        "properties": {"tags": _tags(room, facts)},
    }
    if worst is not Severity.NONE:
        rule["properties"]["security-severity"] = _SCORE[worst]
    if facts and (paper := _ARXIV.search(facts.source)):
        rule["helpUri"] = f"https://arxiv.org/abs/{paper[1]}"
    return rule


def _help(name: str, facts: PluginFacts | None) -> dict[str, str]:
    lines = [f"`casemate explain {name}` says what its findings mean, how they were measured and how to mend them."]
    if facts:
        ids = "; ".join(f"{title}: {found}" for title, found in words.names(facts.threat))
        lines[:0] = [words.full(facts.title), words.full(facts.threat.title), *([f"{ids}."] if ids else [])]
        lines.append(f"Source: {words.full(facts.source)}")
    text = unlinked("\n\n".join(lines))
    return {"text": text, "markdown": text}


def _tags(room: str, facts: PluginFacts | None) -> list[str]:
    threat = facts.threat if facts else None
    ids = [f"{title} {found}" for title, found in words.names(threat)] if threat else []
    return list(dict.fromkeys(["security", room, *([threat.name] if threat else []), *ids]))


# ------------------------------------------------------------------------------------------------------------- results


def _result(report: Report, outcome: Finding | Inconclusive, names: list[str], place: _Place) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": outcome.plugin,
        "ruleIndex": names.index(outcome.plugin),
        "message": {"text": _message(outcome)},
        "locations": [place.location(outcome)],
        "suppressions": [],  # section 3.27.23: on all results of a run, or on none
        "properties": {"about": outcome.about, "could_be": str(outcome.could_be), "evidence": _numbers(outcome)},
    }
    if isinstance(outcome, Inconclusive):
        return {**result, "kind": "open", "level": "none"}
    accepted = acceptance(report, outcome)
    if accepted is not None:
        why = f"Accepted until {accepted.until.isoformat()}: {accepted.reason}"
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": why}]
    result["properties"] |= {"finding": outcome.id, "severity": str(outcome.severity), "mend": outcome.mend}
    return {
        **result,
        "kind": "fail",
        "level": _LEVEL[outcome.severity],
        "partialFingerprints": {_PRINT: outcome.fingerprint},
    }


def _message(outcome: Finding | Inconclusive) -> str:
    title = outcome.title if isinstance(outcome, Finding) else f"undecided, could be {outcome.could_be}"
    lines = [f"{words.sentence(title)} ({words.notation(outcome.about)})."]
    judged = words.in_order(item for item in outcome.evidence if item.quantity is not Quantity.NOTE)
    parts = ((words.told(item), words.place(item), words.size(item)) for item in judged)
    lines += [", ".join(filter(None, measured)) for measured in parts]
    last = outcome.mend if isinstance(outcome, Finding) else outcome.need
    return unlinked("\n".join([*lines, *([words.full(last)] if last else [])]))


def _numbers(outcome: Finding | Inconclusive) -> list[dict[str, Any]]:
    return [
        {
            "metric": item.metric,
            "at": dict(item.at),
            "value": item.value,
            "low": item.low,
            "high": item.high,
            "confidence": item.confidence,
            "n": item.n,
            "errs": str(item.errs),
        }
        for item in words.in_order(outcome.evidence)
    ]


def unlinked(text: str) -> str:
    """A message in which nothing that a model or data set is called becomes a link (section 3.11.6)."""
    return _LINK.sub("] ", text)


# ---------------------------------------------------------------------------------------------------------- invocation

_WHY: Mapping[str, str] = {
    "broke": "A plug-in broke.",
    **{str(reason): words.full(why) for reason, why in words.SKIPPED.items()},
}


def _reason(outcome: Skipped | Failed) -> str:
    return "broke" if isinstance(outcome, Failed) else str(outcome.reason)


def _invocation(report: Report, names: list[str]) -> dict[str, Any]:
    broken = [outcome for outcome in report.outcomes if isinstance(outcome, Failed)]
    skipped = [outcome for outcome in report.outcomes if isinstance(outcome, Skipped)]
    return {
        "executionSuccessful": not broken,
        "exitCode": report.ruling.exit_code,
        "exitCodeDescription": words.VERDICT[report.ruling.status],
        "toolExecutionNotifications": _notifications(broken, names),
        "toolConfigurationNotifications": _notifications(skipped, names),
        **_times(report),
    }


def _notifications(outcomes: Iterable[Outcome], names: list[str]) -> list[dict[str, Any]]:
    found = []
    for outcome in outcomes:
        assert isinstance(outcome, Skipped | Failed)
        why = outcome.detail if isinstance(outcome, Skipped) else f"it broke: {outcome.error}"
        ignorable = isinstance(outcome, Skipped) and _reason(outcome) == "not_applicable"
        found.append(
            {
                "descriptor": {"id": _reason(outcome)},
                "associatedRule": {"id": outcome.plugin, "index": names.index(outcome.plugin)},
                "level": "error" if isinstance(outcome, Failed) else "note" if ignorable else "warning",
                "message": {"text": unlinked(f"{outcome.plugin} was not tested: {why}")},
            }
        )
    return found


def _times(report: Report) -> dict[str, str]:
    """Start and end in UTC; nothing for a report whose timings were taken out."""
    try:
        end = dt.datetime.fromisoformat(report.timings.created).astimezone(dt.UTC)
    except ValueError:
        return {}
    start = end - dt.timedelta(seconds=round(report.timings.seconds))
    return {f"{name}TimeUtc": f"{moment:%Y-%m-%dT%H:%M:%SZ}" for name, moment in (("start", start), ("end", end))}
