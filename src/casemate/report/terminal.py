"""The verdict on a terminal: what was found, what is unclear, what was not tested, the gates, the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, final

from casemate.core.evidence import Evidence, Quantity
from casemate.core.judgement import Status, severity_range
from casemate.core.outcome import Clean, Failed, Finding, Inconclusive, Severity, Skipped
from casemate.core.report import Report
from casemate.report import words

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.table import Table

__all__ = ["Visible", "verdict_table"]

_COLOUR: Mapping[Severity, str] = {
    Severity.CRITICAL: "bold red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.NONE: "dim",
}
_STATUS: Mapping[Status, tuple[str, str]] = {
    Status.PASSED: ("passed", "green"),
    Status.FAILED: ("FAILED", "bold red"),
    Status.UNDECIDED: ("undecided", "magenta"),
}
_REASONS = 3  # parts of a gate's reason; likewise
_SHOWN = 6  # measurements of one finding; the others are in the report


def verdict_table(report: Report, *, verbose: bool = False) -> RenderableType:
    """The whole verdict as one renderable; `verbose` lists what is otherwise counted."""
    from rich.console import Group
    from rich.text import Text

    accepted = set(report.ruling.accepted)
    parts: list[RenderableType] = []
    found = [o for o in report.findings if o.id not in accepted]
    if found:
        parts += [_heading("Findings", len(found)), _findings(found, verbose=verbose), Text()]
    unclear = [o for o in report.outcomes if isinstance(o, Inconclusive)]
    if unclear:
        parts += [_heading("Inconclusive", len(unclear)), _unclear(unclear), Text()]
    if report.untested:
        parts += [_heading("Not tested", len(report.untested)), _untested(report.untested, verbose=verbose), Text()]
    parts += _passes(report, verbose=verbose)
    parts += [_heading("Gates", len(report.ruling.gates)), _gates(report, verbose=verbose), Text()]
    return Visible(Group(*parts, _verdict(report)))


@final
class Visible:
    """A renderable whose texts hold no control character: a class's name cannot move the cursor or colour a line."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield the segments of the renderable, their texts made visible."""
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else segment._replace(text=words.visible(segment.text))


def _heading(title: str, count: int) -> RenderableType:
    from rich.text import Text

    return Text.assemble((title, "bold"), f" ({count})")


def _grid(*ratios: int | None) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0), expand=False)
    table.add_column(width=2)
    for ratio in ratios:
        table.add_column(overflow="fold", ratio=ratio)
    return table


def _findings(found: Sequence[Finding], *, verbose: bool) -> RenderableType:
    from rich.text import Text

    table = _grid(None, 1)
    for finding in found:
        colour = _COLOUR[finding.severity]
        title = Text.assemble(words.sentence(finding.title), ("  " + words.notation(finding.about), "dim"))
        table.add_row("", Text(str(finding.severity), colour), title)
        items = [item for item in finding.evidence if item.quantity is not Quantity.NOTE]
        for item in words.in_order(items if verbose else _gravest(items)):
            table.add_row("", "", _measurement(item))
        if len(items) > _SHOWN and not verbose:
            table.add_row("", "", Text(f"and {len(items) - _SHOWN} more", "dim"))
        table.add_row("", "", Text(finding.id, "dim"))
    return table


def _gravest(items: Sequence[Evidence]) -> list[Evidence]:
    """The measurements that decided, where not all are shown."""
    return sorted(items, key=lambda item: [s.rank for s in severity_range(item)], reverse=True)[:_SHOWN]


def _measurement(item: Evidence) -> RenderableType:
    from rich.text import Text

    told = words.told(item)
    rest = ", ".join(part for part in (words.place(item), words.size(item)) if part)
    return Text.assemble((told, "bold"), f"  {rest}" if rest else "")


def _unclear(unclear: Sequence[Inconclusive]) -> RenderableType:
    from rich.text import Text

    table = _grid(None, 1)
    for outcome in unclear:
        table.add_row(
            "",
            Text(f"could be {outcome.could_be}", "magenta"),
            Text.assemble(words.notation(outcome.about), ("  " + outcome.plugin, "dim")),
        )
        for item in words.in_order(_gravest(outcome.evidence)):
            table.add_row("", "", _measurement(item))
        table.add_row("", "", Text(words.full(outcome.need)))
    return table


def _untested(untested: Sequence[Skipped | Failed], *, verbose: bool) -> RenderableType:
    from rich.text import Text

    table = _grid(None, 1)
    if verbose:
        for outcome in untested:
            why = outcome.detail if isinstance(outcome, Skipped) else f"it broke: {outcome.error}"
            table.add_row("", Text(outcome.plugin), Text(why))
        return table
    for outcome in untested:  # what broke is never folded away
        if isinstance(outcome, Failed):
            table.add_row("", Text("broke", "red"), Text(f"{outcome.plugin}: {outcome.error}"))
    counts = Counter(outcome.reason for outcome in untested if isinstance(outcome, Skipped))
    for reason, count in sorted(counts.items()):
        names = sorted({o.plugin for o in untested if isinstance(o, Skipped) and o.reason is reason})
        table.add_row("", Text(str(count)), Text.assemble(words.SKIPPED[reason], ("  " + ", ".join(names), "dim")))
    return table


def _passes(report: Report, *, verbose: bool) -> list[RenderableType]:
    from rich.text import Text

    clean = [o for o in report.outcomes if isinstance(o, Clean)]
    judged = [o for o in clean if any(item.quantity is not Quantity.NOTE for item in o.evidence)]
    parts: list[RenderableType] = []
    if judged:
        parts.append(_heading("Passed", len(judged)))
        if verbose:
            table = _grid(None, 1)
            for outcome in judged:
                for item in words.in_order(outcome.evidence):
                    table.add_row("", Text(words.notation(outcome.about) or outcome.plugin), _measurement(item))
            parts.append(table)
        parts.append(Text())
    accepted = [finding for finding in report.findings if finding.id in report.ruling.accepted]
    if accepted:
        table = _grid(None, 1)
        for finding in accepted:
            table.add_row(
                "",
                Text(str(finding.severity), "dim"),
                Text.assemble(words.sentence(finding.title), ("  " + finding.id, "dim")),
            )
        parts += [_heading("Accepted", len(accepted)), table, Text()]
    return parts


def _gates(report: Report, *, verbose: bool) -> RenderableType:
    from rich.text import Text

    table = _grid(None, 1)
    for gate in report.ruling.gates:
        word, colour = _STATUS[gate.status]
        why = words.notation(gate.reason if verbose else _short(gate.reason))
        table.add_row("", Text(word, colour), Text.assemble(words.notation(gate.gate), ("  " + why, "dim")))
    return table


def _short(reason: str) -> str:
    parts = reason.split("; ")
    return reason if len(parts) <= _REASONS else "; ".join(parts[:_REASONS]) + f"; and {len(parts) - _REASONS} more"


def _verdict(report: Report) -> RenderableType:
    from rich.text import Text

    return Text.assemble((words.VERDICT[report.ruling.status], _STATUS[report.ruling.status][1]))
