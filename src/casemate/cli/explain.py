"""`casemate explain`: what a finding means, how it was measured, how to measure it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from casemate.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from casemate.core.outcome import Outcome, Threat
    from casemate.core.plugin import Plugin
    from casemate.core.report import Report

__all__ = ["explain"]


def explain(
    finding: Annotated[str, typer.Argument(help="The id of a finding, the beginning of one, or the id of a plug-in.")],
    report: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("casemate-report"),
) -> int:
    """Say what a finding means and how it was measured."""
    from casemate.cli._show import show

    written = (report / "report.json" if report.is_dir() else report).is_file()
    told = _from_report(report, finding) if written else []
    if not told:
        told = _from_catalogue(finding, "" if written else f"there is no report in {report}")
    show(*told)
    return 0


def _from_report(folder: Path, name: str) -> list[RenderableType]:
    from casemate._replay import report_in

    report = report_in(folder)
    told: list[RenderableType] = []
    for outcome in _named(report, name):
        told += [*_explained(report, outcome), ""]
    return told[:-1]


def _named(report: Report, name: str) -> Sequence[Outcome]:
    found = [f for f in report.findings if f.id.startswith(name) or f.fingerprint.startswith(name)]
    exact = [o for o in report.outcomes if o.plugin == name]
    if exact or len(found) <= 1:
        return exact or found
    ids = ", ".join(f.id for f in found)
    raise UsageError(f"expected the beginning of one id, got {name!r}, which begins {len(found)}: write out {ids}")


def _explained(report: Report, outcome: Outcome) -> list[RenderableType]:
    from rich.text import Text

    from casemate.core.outcome import Clean, Failed, Finding, Inconclusive, Skipped
    from casemate.report import words

    facts = report.plugins.get(outcome.plugin)
    table = _grid()
    if isinstance(outcome, Finding):
        head = Text.assemble((f"{outcome.severity}: {words.sentence(outcome.title)}", "bold"), f"\n{outcome.id}")
    elif isinstance(outcome, Inconclusive):
        head = Text(f"inconclusive, could be {outcome.could_be}: {outcome.about}", "bold")
        table.add_row("decides", outcome.need)
    elif isinstance(outcome, Skipped):
        head = Text(f"not tested: {outcome.plugin}", "bold")
        table.add_row("why", outcome.detail)
    elif isinstance(outcome, Failed):
        head = Text(f"broke: {outcome.plugin}", "bold")
        table.add_row("error", outcome.error)
    elif isinstance(outcome, Clean):
        head = Text(f"clean: {outcome.about or outcome.plugin}", "bold")
    if facts is not None:
        _threat(table, facts.threat)
    _measured(table, outcome)
    if facts is not None:
        table.add_row("source", facts.source)
    if isinstance(outcome, Finding):
        if outcome.mend:
            table.add_row("mend", outcome.mend)
        table.add_row("again", f"casemate replay '{outcome.id}'")
    return [head, table]


def _measured(table: Table, outcome: Outcome) -> None:
    from casemate.report import words

    methods = dict.fromkeys((item.method, item.interval, item.confidence, item.errs) for item in outcome.evidence)
    for item in outcome.evidence:
        where = ", ".join(part for part in (words.place(item), words.size(item)) if part)
        table.add_row("measured", f"{item.metric}: {words.told(item)}{f'  ({where})' if where else ''}")
    for method, interval, confidence, _ in methods:
        how = f"; {confidence * 100:g} % interval: {interval.replace('_', ' ')}" if confidence < 1 else ""
        table.add_row("how", f"{method}{how}")
    for errs in dict.fromkeys(errs for *_, errs in methods):
        table.add_row("errs", words.MEANING[errs])


def _from_catalogue(name: str, otherwise: str) -> list[RenderableType]:
    from rich.text import Text

    from casemate import catalog

    wanted = name.partition("#")[0]
    found = [plugin for plugin in catalog.plugins() if plugin.id == wanted]
    if not found or "#" in name:
        why = otherwise or "the report has no such finding"
        raise UsageError(
            f"expected the id of a finding or of a plug-in, got {name!r} ({why}): "
            "`casemate list plugins` shows the plug-ins; name another report with --report"
        )
    told: list[RenderableType] = []
    for plugin in found:
        told += [Text.assemble((plugin.id, "bold"), f" ({plugin.kind})\n{plugin.summary}"), _plugin(plugin), ""]
    return told[:-1]


def _plugin(plugin: Plugin) -> Table:
    table = _grid()
    _threat(table, plugin.threat)
    table.add_row("needs", ", ".join(sorted(plugin.needs)) or "nothing")
    for metric in plugin.metrics:
        table.add_row("metric", f"{metric.name}: {metric.says or metric.quantity}")
    if plugin.requires:
        table.add_row("requires", ", ".join(plugin.requires))
    table.add_row("source", plugin.source)
    return table


def _threat(table: Table, threat: Threat) -> None:
    from casemate.report import words

    table.add_row("threat", threat.title)
    for title, ids in words.names(threat):
        table.add_row("", f"{title}: {ids}")


def _grid() -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=10, justify="right", style="dim")
    table.add_column(overflow="fold")
    return table
