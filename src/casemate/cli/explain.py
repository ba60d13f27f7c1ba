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

    from casemate.core.evidence import Evidence
    from casemate.core.outcome import Finding, Outcome, Threat
    from casemate.core.plugin import Plugin
    from casemate.core.report import Report

__all__ = ["explain"]

_NOTES = 6  # notes that are listed where there is nothing else to tell


def explain(
    finding: Annotated[str, typer.Argument(help="The id of a finding, the beginning of one, or the id of a plug-in.")],
    report: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("casemate-report"),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List the notes too, which are not judged.")] = False,
) -> int:
    """Say what a finding means and how it was measured."""
    from casemate.cli._show import show

    written = (report / "report.json" if report.is_dir() else report).is_file()
    told = _from_report(report, finding, verbose=verbose) if written else []
    if not told:
        told = _from_catalogue(finding, "" if written else f"there is no report in {report}")
    show(*told)
    return 0


def _from_report(folder: Path, name: str, *, verbose: bool) -> list[RenderableType]:
    from casemate._replay import report_in
    from casemate.report import words

    report = report_in(folder)
    found = _named(report, name)
    judged = [outcome for outcome in found if not _noted(outcome)]
    told: list[RenderableType] = []
    for outcome in found if verbose else judged or found:
        told += [*_explained(report, outcome, folder, verbose=verbose), ""]
    notes = sum(len(outcome.evidence) for outcome in found if _noted(outcome))
    if judged and notes and not verbose:
        return [*told, f"{words.counted(notes, 'note')}, measured and not judged: -v lists them."]
    return told[:-1]


def _noted(outcome: Outcome) -> bool:
    """Whether an outcome holds notes and nothing else."""
    from casemate.core.evidence import Quantity

    return bool(outcome.evidence) and all(item.quantity is Quantity.NOTE for item in outcome.evidence)


def _named(report: Report, name: str) -> Sequence[Outcome]:
    found = [f for f in report.findings if f.id.startswith(name) or f.fingerprint.startswith(name)]
    exact = [o for o in report.outcomes if o.plugin == name]
    if exact or len(found) <= 1:
        return exact or found
    ids = ", ".join(f.id for f in found)
    raise UsageError(f"expected the beginning of one id, got {name!r}, which begins {len(found)}: write out {ids}")


def _explained(report: Report, outcome: Outcome, folder: Path, *, verbose: bool) -> list[RenderableType]:
    from casemate.core.outcome import Finding
    from casemate.report import words

    facts = report.plugins.get(outcome.plugin)
    table = _grid()
    head, label, why = _head(outcome)
    if why:
        table.add_row(label, why)
    if facts is not None:
        _threat(table, facts.threat)
    _measured(table, outcome, verbose=verbose)
    if facts is not None:
        table.add_row("source", words.sentence(facts.source))
    if not isinstance(outcome, Finding):
        return [head, table]
    if outcome.mend:
        table.add_row("mend", words.full(outcome.mend))
    return [head, table, *_again(report, outcome, folder)]


def _head(outcome: Outcome) -> tuple[RenderableType, str, str]:
    """What an outcome is; then the label and the words of what is to be known first, if there is such a thing."""
    from rich.text import Text

    from casemate.core.outcome import Failed, Finding, Inconclusive, Skipped
    from casemate.report import words

    if isinstance(outcome, Finding):
        title = f"{outcome.severity}: {words.sentence(outcome.title)}"
        return Text.assemble((title, "bold"), f"\n{outcome.about}", f"\n{outcome.id}"), "", ""
    if isinstance(outcome, Inconclusive):
        head = f"inconclusive, could be {outcome.could_be}: {outcome.about}"
        return Text(head, "bold"), "decides", words.full(outcome.need)
    if isinstance(outcome, Skipped):
        return Text(f"not tested: {outcome.plugin}", "bold"), "why", words.full(outcome.detail)
    if isinstance(outcome, Failed):
        return Text(f"broke: {outcome.plugin}", "bold"), "error", outcome.error
    return Text(f"{'noted' if _noted(outcome) else 'clean'}: {outcome.about or outcome.plugin}", "bold"), "", ""


def _again(report: Report, finding: Finding, folder: Path) -> list[RenderableType]:
    """How to measure a finding again; a line of its own, so that it can be copied whole."""
    from casemate.cli._show import again

    if not any(item.files for item in finding.evidence):
        return ["", f"Nothing was kept to replay: the same audit with --seed {report.seed} measures it again."]
    here = Path("casemate.toml").is_file()
    line = again("replay", finding.id, folder, config="" if here else "CONFIG")
    return ["", f"  {line}", *([] if here else ["  (CONFIG is the casemate.toml of the audit)"])]


def _measured(table: Table, outcome: Outcome, *, verbose: bool) -> None:
    from casemate.report import words

    items = words.in_order(outcome.evidence)
    shown = items if verbose or not _noted(outcome) else items[:_NOTES]
    label = "measured"
    for metric in dict.fromkeys(item.metric for item in shown):
        table.add_row(label, metric)
        label = ""
        for item in shown:
            if item.metric == metric:
                table.add_row("", _line(item))
    if len(items) > len(shown):
        table.add_row("", f"and {words.counted(len(items) - len(shown), 'note')} more: -v lists them")
    for how in dict.fromkeys("; ".join(part for part in (item.method, words.recipe(item)) if part) for item in shown):
        table.add_row("how", how)
    for errs in dict.fromkeys(item.errs for item in shown):
        table.add_row("errs", words.MEANING[errs])


def _line(item: Evidence) -> str:
    from casemate.report import words

    where = ", ".join(part for part in (words.place(item), words.size(item)) if part)
    return f"  {words.told(item)}{f'  {where}' if where else ''}"


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
