"""`casemate scan`: whether a file is safe to load."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from casemate.artifacts.scans import Scan

__all__ = ["FailOn", "Form", "scan"]

_WIDTH = 100  # of text in a file


class Form(StrEnum):
    """The formats of a scan."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


class FailOn(StrEnum):
    """The least level that fails a scan."""

    MALICIOUS = "malicious"
    SUSPICIOUS = "suspicious"


def scan(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders, patterns; - for stdin.")],
    form: Annotated[Form, typer.Option("--format", "-f", help="What to write.")] = Form.TEXT,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; else it is printed.")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="The least level that fails.")] = FailOn.SUSPICIOUS,
    policy: Annotated[Path | None, typer.Option(help="A TOML file of names that you allow.")] = None,
    lock: Annotated[Path | None, typer.Option(help="Report what is new since this lock was written.")] = None,
    write_lock: Annotated[Path | None, typer.Option(help="Write what the files hold now as a lock.")] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Read the weights too: slow.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show clean files and allowed signs too.")] = False,
) -> int:
    """Say whether model files are safe to load, without loading them."""
    from casemate.artifacts import allowances, locks, scans
    from casemate.cli._progress import progress
    from casemate.formats import atomic
    from casemate.formats.scanning.signs import Level

    allowed = allowances.read_allowances(policy) if policy is not None else ()
    held = locks.read_lock(lock) if lock is not None else None
    begun = time.monotonic()
    with progress() as tell:
        try:
            found = scans.scan_paths(
                paths,
                allowances=allowed,
                lock=held,
                fail_on=Level(fail_on.value),
                digest=form is not Form.TEXT,
                weights=weights,
                told=lambda done, total: tell("scan", done, total),
            )
            code, total = found.exit_code, None
        except scans.Interrupted as interruption:
            if form is not Form.TEXT or output is not None:  # half a file of results would be taken for a whole one
                raise
            found, code, total, write_lock = interruption.scan, 130, interruption.total, None
    if write_lock is not None:
        atomic.write(write_lock, locks.lock_of(found.files).dump())
    if form is Form.TEXT:
        _text(found, output, total, seconds=time.monotonic() - begun, verbose=verbose)
    else:
        _write(found, form, output)
    return code


def _text(found: Scan, output: Path | None, total: int | None, *, seconds: float, verbose: bool) -> None:
    from casemate.cli._show import show, width_of
    from casemate.report import scan_text

    width = width_of() if output is None else _WIDTH
    lines = scan_text.render(found, width=width, seconds=seconds, total=total, verbose=verbose)
    if output is None:
        show(*lines)
    else:
        _save("".join(f"{line.plain.rstrip()}\n" for line in lines), output)


def _write(found: Scan, form: Form, output: Path | None) -> None:
    from importlib.metadata import version

    from casemate.cli._show import printed
    from casemate.report import scan_json, scan_sarif

    text = scan_json.render(found) if form is Form.JSON else scan_sarif.render(found, version=version("casemate"))
    if output is None:
        printed(text.encode())
    else:
        _save(text, output)


def _save(text: str, output: Path) -> None:
    from casemate.errors import UsageError
    from casemate.formats import atomic

    if output.is_dir():
        raise UsageError(f"expected a file for the scan, got the folder {output}: name a file in it")
    atomic.write(output, text.encode("utf-8", "backslashreplace"))
