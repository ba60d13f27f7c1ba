"""The folder of a report: whether it can be written, and both files at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from casemate.core.report import Report
from casemate.errors import UsageError
from casemate.formats import atomic

__all__ = ["refuse_unwritable", "write_report"]


def refuse_unwritable(folder: Path) -> None:
    """Raise `UsageError` for a folder that no report can be written to: hours of work must not end there.

    What is tried is gone again at once.
    """
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise UsageError(f"expected a folder for the report, got the file {place}: choose another --output")
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise UsageError(
            f"expected to be able to write below {place}, got {error.strerror or error}: choose another --output"
        ) from error


def write_report(report: Report, folder: Path) -> None:
    """Write report.html and report.json, both or neither; the page shows the exhibits among the evidence in the folder.

    What can fail (rendering, a full disk) comes before the first takes its place. Raises `UsageError` where the folder
    cannot be written.
    """
    from casemate.report import html
    from casemate.report import json as report_json
    from casemate.report.exhibits import load_exhibits

    page = html.render(report, load_exhibits(report, folder))
    ready = {"report.html": page.encode(), "report.json": report_json.dumps(report)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"expected to be able to write {folder}, got {error.strerror or error}: choose another --output"
        ) from error
    waiting = {name: folder / f".{name}.new" for name in ready}
    try:
        for name, data in ready.items():
            atomic.write(waiting[name], data)
        for name, path in waiting.items():
            path.replace(folder / name)
    finally:
        for path in waiting.values():
            path.unlink(missing_ok=True)
