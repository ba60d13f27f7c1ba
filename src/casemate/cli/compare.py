"""`casemate compare`: what differs between two runs, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from casemate._compare import Difference

__all__ = ["compare"]

_ALWAYS = ".clean_accuracy"  # a note, and the first thing that is asked of two models


def compare(
    a: Annotated[Path, typer.Argument(help="The folder of the first report.")],
    b: Annotated[Path, typer.Argument(help="The folder of the second report.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.html", help="Write the comparison as a page too.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show notes, and what is the same in both.")] = False,
) -> int:
    """Show what differs between two reports, with intervals."""
    from casemate import _compare
    from casemate.cli._show import columns, show
    from casemate.report import words

    rows = _compare.compare(a, b)
    if output is not None:
        _write(rows.page(), output)
    if not rows:
        show("The two reports share no measurement.")
        return 0
    asked = [row for row in rows if verbose or not row.noted or row.metric.endswith(_ALWAYS)]
    shown = [row for row in asked if verbose or not row.same]
    table = columns("what", "A", "B", "B - A", "", whole=("A", "B", "B - A", ""))
    for row in shown:
        table.add_row(*_cells(row))
    hidden = {"measurement": len(asked) - len(shown), "note": len(rows) - len(asked)}
    told = [words.counted(count, word) for word, count in hidden.items() if count]
    show(*([table, ""] if shown else ["No judged measurement differs."]), *_legend(shown))
    if told:
        show(f"Not shown: {' that came out the same and '.join(told) if len(told) > 1 else told[0]}; -v shows all.")
    return 0


def _cells(row: Difference) -> tuple[str, str, str, str, str]:
    from casemate.report.words import number, subject

    where = ", ".join(part for part in (subject(row.about, row.metric), row.at) if part)
    pairing = f"n = {row.n:,}{', paired' if row.paired else ''}" if row.n else ""
    what = "\n  ".join(part for part in (row.metric, where, pairing) if part)
    change = f"{'+' if row.value > 0 else ''}{number(row.value)}\n[{number(row.low)}, {number(row.high)}]"
    verdict = "same" if row.same else "differs" if row.differs else "unclear"
    return what, number(row.a), number(row.b), change, verdict if row.p is None else f"{verdict}\np = {number(row.p)}"


def _write(page: str, path: Path) -> None:
    from casemate.errors import UsageError
    from casemate.formats import atomic

    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"expected --output FILE.html, got {path}: a comparison is written as a page only")
    atomic.write(path, page.encode())


def _legend(rows: list[Difference]) -> list[str]:
    """What the words of the table mean, as far as they are in it."""
    from casemate._compare import LEVEL

    lines = []
    if any(row.p is not None for row in rows):
        lines += ["p: McNemar's exact test on the samples that are in both, adjusted by Holm over all such rows;"]
        lines += [f"   `differs` at {LEVEL} or below, so that even one wrong `differs` among them is unlikely."]
    if any(row.p is None for row in rows):
        lines += ["without p: `differs` where the 95 % interval of B - A excludes 0, each row for itself."]
    if any(not row.paired for row in rows):
        lines += ["not paired: two independent measurements, so the interval is wider than it need be."]
    if not all(row.differs for row in rows):
        lines += ["unclear: from these samples the two cannot be told apart."]
    return lines
