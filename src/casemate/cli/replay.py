"""`casemate replay`: measure a finding again, in this fresh process, from what its audit kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from casemate.core.evidence import Evidence

__all__ = ["replay"]


def replay(
    finding: Annotated[str, typer.Argument(help="The id of a finding, the beginning of one, or the id of a plug-in.")],
    report: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("casemate-report"),
    config: Annotated[Path, typer.Option(help="The configuration of the audit.")] = Path("casemate.toml"),
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a model that may run code, whatever its scan says.")
    ] = False,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Load it in a process without network, files and children.")
    ] = False,
    i_am_authorised: Annotated[
        bool, typer.Option("--i-am-authorised", help="The endpoint in [model] url may be attacked.")
    ] = False,
) -> int:
    """Measure a finding again; exit 1 when it does not hold."""
    from casemate._replay import outcome_named, report_in
    from casemate._replay import replay as measure_again
    from casemate.cli._settings import loaded_case
    from casemate.cli._show import columns, show
    from casemate.report import words

    outcome_named(report_in(report), finding)  # a wrong name is told before a model is loaded
    rows = measure_again(report, finding, loaded_case(config, trust=trust, authorised=i_am_authorised, isolate=isolate))
    table = columns("what", "before", "now", "holds", whole=("before", "now", "holds"))
    before = {id(row.before): row for row in rows}
    for row in (before[id(item)] for item in words.in_order(row.before for row in rows)):
        where = ", ".join(words.parts(row.before))
        what = f"{row.before.metric}\n  {where}" if where else row.before.metric
        now = _lines(row.now) if row.now is not None else "not measured"
        table.add_row(what, _lines(row.before), now, "yes" if row.holds else "NO")
    holds = bool(rows) and all(row.holds for row in rows)
    show(table, "", "It holds." if holds else "It does not hold: the measurement came out otherwise.")
    return 0 if holds else 1


def _lines(item: Evidence) -> str:
    """A value above its interval: narrow enough for two of them in 80 columns."""
    from casemate.report import words

    return "\n".join(part for part in (words.value(item), words.interval(item)) if part)
