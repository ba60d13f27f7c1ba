"""`casemate report`: the report of a run in another format."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from casemate.core.report import Report

__all__ = ["Format", "report"]


class Format(StrEnum):
    """The formats of a report."""

    HTML = "html"
    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"
    MARKDOWN = "markdown"
    CYCLONEDX = "cyclonedx"


def report(
    run: Annotated[str, typer.Argument(help="The folder of a report, or the id of a run.")] = "casemate-report",
    form: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.MARKDOWN,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; else it is printed.")] = None,
    config: Annotated[Path, typer.Option(help="The file that SARIF's findings point into.")] = Path("casemate.toml"),
    store: Annotated[str, typer.Option(help="Where runs are kept: a folder or a database URL.")] = ".casemate",
) -> int:
    """Write the report of a run in another format."""
    from casemate.report import rendered

    found, folder = _found(run, store)
    data = rendered(found, str(form), config=config, folder=folder)
    if output is None:
        _print(data)
        return 0
    from casemate.errors import UsageError
    from casemate.formats import atomic

    if output.is_dir():
        raise UsageError(f"expected a file for the report, got the folder {output}: name a file in it")
    atomic.write(output, data)
    return 0


def _found(run: str, store: str) -> tuple[Report, Path]:
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


def _print(data: bytes) -> None:
    """Print bytes as they are, whatever the terminal's encoding; a closed pipe is no error, a full disk is."""
    from casemate.errors import UsageError

    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UsageError(
                f"expected to be able to print the report, got {error.strerror}: free some space, or name an --output"
            ) from error
