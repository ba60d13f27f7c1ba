"""Replay: measure a finding again from the witnesses and per-sample results that its audit kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.evidence import Evidence
from casemate.core.facets import PluginKind
from casemate.core.lab import Lab, Stored
from casemate.core.outcome import Finding, Outcome
from casemate.core.plugin import Plugin
from casemate.core.report import Report
from casemate.errors import IntegrityError, Unavailable, UsageError
from casemate.executors import fixed_threads
from casemate.formats import arrays
from casemate.formats.digests import sha256_bytes

__all__ = ["Replayed", "kept_arrays", "outcome_named", "replay", "report_in"]

_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Replayed:
    """One measurement before and now; `holds` when value and interval agree to 1e-9."""

    before: Evidence
    now: Evidence | None

    @property
    def holds(self) -> bool:
        """Whether the measurement came out the same."""
        if self.now is None:
            return False
        pairs = zip(_numbers(self.before), _numbers(self.now), strict=True)
        return all(abs(a - b) <= _TOLERANCE * max(1.0, abs(a)) for a, b in pairs)


def replay(folder: Path, name: str, case: Case, *, plugins: tuple[Plugin, ...] | None = None) -> list[Replayed]:
    """Measure an outcome again on the model of `case`: attacks from witnesses, statistics from per-sample results.

    Raises `UsageError` for a case other than the report's or an unknown name, `IntegrityError` for files that changed,
    `Unavailable` for a plug-in that keeps nothing to replay.
    """
    report = report_in(folder)
    outcome = outcome_named(report, name)
    plugin = _probe(outcome.plugin, plugins)
    if plugin.replay is None:
        raise Unavailable(
            f"expected a probe that can be replayed, got {plugin.id}: run its audit again with the same seed"
        )
    _same_case(report, case)
    files = sorted({digest for item in outcome.evidence for digest in item.files})
    kept = kept_arrays(folder, report, files)
    options = plugin.options(**_tuples(report.plugins[plugin.id].options))
    lab = Lab(plugin.id, report.seed, options, meter=Meter(), threads=int(report.settings["threads"]))
    with fixed_threads(lab.threads):
        now = {_subject(item): item for item in plugin.replay(case, kept, lab)}
    return [Replayed(item, now.get(_subject(item))) for item in outcome.evidence]


def report_in(folder: Path) -> Report:
    """The report in a folder (or at the path of a report.json)."""
    from casemate.report import json as report_json

    path = folder / "report.json" if folder.is_dir() else folder
    if not path.is_file():
        raise UsageError(
            f"expected a report.json in {folder}, got none: run `casemate audit`, or name its --report folder"
        )
    return report_json.loads(path.read_bytes())


def outcome_named(report: Report, name: str) -> Outcome:
    """The finding with an id, the beginning of one, or the only measured outcome of a plug-in."""
    by_id = [o for o in report.outcomes if isinstance(o, Finding) and o.id.startswith(name)]
    by_print = [o for o in report.outcomes if isinstance(o, Finding) and o.fingerprint.startswith(name)]
    by_plugin = [o for o in report.outcomes if o.plugin == name and o.evidence]
    for found in (by_id, by_print, by_plugin):
        if len(found) == 1:
            return found[0]
    ids = [o.id for o in report.findings]
    raise UsageError(
        f"expected the id of one finding ({', '.join(ids) or 'this report has none'}), got {name!r}: write it out"
    )


def kept_arrays(folder: Path, report: Report, digests: list[str]) -> dict[str, Stored]:
    """Files of evidence by the name under which the probe kept them, each checked against its digest."""
    base = folder if folder.is_dir() else folder.parent
    found: dict[str, Stored] = {}
    for digest in digests:
        name = report.files.get(digest)
        path = base / (name or "")
        if name is None or not path.resolve().is_relative_to(base.resolve()):
            raise IntegrityError(
                f"expected evidence in files beside the report, got {name or digest[:19]}: the report was changed"
            )
        if not path.is_file():
            raise Unavailable(f"expected the file of evidence {name}, got none: it was removed")
        data = path.read_bytes()
        if sha256_bytes(data) != digest:
            raise IntegrityError(
                f"expected the evidence that was measured in {path.name}, got other bytes: audit again"
            )
        found[path.name.rsplit(".", 2)[0]] = arrays.unpack(data)
    return found


def _probe(name: str, plugins: tuple[Plugin, ...] | None) -> Plugin:
    from casemate import catalog

    known = catalog.plugins() if plugins is None else plugins
    found = [p for p in known if p.id == name and p.kind is PluginKind.PROBE]
    if not found:
        raise UsageError(f"expected a probe, got {name}: only what an installed probe measured can be replayed")
    return found[0]


def _same_case(report: Report, case: Case) -> None:
    digest = case.model.digest if case.model else ""
    if digest != report.model:
        raise UsageError(
            f"expected the model {report.model[:19]} of the report, got {digest[:19]}: name the same model"
        )
    for name, facts in report.data.items():
        data = case.splits.parts().get(name)
        if data is None or data.digest != facts.digest:
            raise UsageError(f"expected the {name} data of the report, got other data: name the same file")


def _tuples(options: Any) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in dict(options).items()}


def _subject(item: Evidence) -> tuple[str, str, frozenset[tuple[str, object]]]:
    return item.metric, item.about, frozenset(item.at.items())  # 1 in JSON is 1.0 in a probe


def _numbers(item: Evidence) -> tuple[float, float, float]:
    return item.value, item.low, item.high
