"""The report that a command is about: in a folder, or of a run by its id."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from casemate.core.report import Report

__all__ = ["report_named"]


def report_named(run: str, store: str) -> tuple[Report, Path]:
    """The report and its folder: of a folder (or the path of a report.json), else of a run in the store."""
    from casemate._replay import report_in

    place = Path(run)
    if not place.exists() and (row := _row(run, store)) is not None:
        return row
    return report_in(place), place if place.is_dir() else place.parent


def _row(run: str, store: str) -> tuple[Report, Path] | None:
    """The report of a run by its id or `last`; nothing where the store holds no such run.

    Raises `UsageError` for a run that is not finished, wrote no report, or whose report was written over.
    """
    from casemate._replay import report_in
    from casemate.errors import UsageError
    from casemate.store import open_store

    if "://" not in store and not Path(store).is_dir():
        return None
    opened = open_store(store)
    try:
        rows = [row for row in opened.runs() if run in (row.id, "last")]
    finally:
        opened.close()
    if not rows:
        return None
    row = rows[-1]
    if row.state == "running" or not row.output:
        what = "one that is not finished" if row.state == "running" else "one that wrote none"
        raise UsageError(f"expected a run with a report, got {what} ({row.id}): `casemate list runs` shows all")
    found = report_in(Path(row.output))
    if found.timings.run != row.id:
        raise UsageError(
            f"expected the report of run {row.id} in {row.output}, got that of run {found.timings.run or 'none'}: "
            "audit again with an --output of its own"
        )
    return found, Path(row.output)
