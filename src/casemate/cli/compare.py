"""`casemate compare`: what differs between two runs, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["compare"]


def compare(
    a: Annotated[Path, typer.Argument(help="The folder of the first report.")],
    b: Annotated[Path, typer.Argument(help="The folder of the second report.")],
) -> int:
    """Show what differs between two reports, with intervals."""
    from casemate import _compare
    from casemate.cli._show import columns, show
    from casemate.report.words import number

    rows = _compare.compare(a, b)
    table = columns("what", "A", "B", "B - A", "interval", "rows", "differs")
    for row in rows:
        where = ", ".join(part for part in (row.about, row.at) if part)
        interval = f"[{number(row.low)}, {number(row.high)}]"
        ends = (number(row.a), number(row.b), f"{'+' if row.value > 0 else ''}{number(row.value)}")
        pairing = f"{row.n:,} {'paired' if row.paired else 'apart'}" if row.n else ""
        what = f"{row.metric}\n  {where}" if where else row.metric
        table.add_row(what, *ends, interval, pairing, "yes" if row.clear else "unclear")
    if not rows:
        show("The two reports share no measurement.")
    else:
        show(
            table,
            "",
            "paired: the same samples in both; apart: two independent measurements, so the interval is wider.",
        )
    return 0
