"""`casemate scan`: whether a file is safe to load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from casemate.artifacts.scans import Scan
    from casemate.formats.scanning.signs import Scanned

__all__ = ["FailOn", "Form", "scan"]


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
    with progress() as tell:
        found = scans.scan_paths(
            paths,
            allowances=allowed,
            lock=held,
            fail_on=Level(fail_on.value),
            digest=form is not Form.TEXT,
            weights=weights,
            told=lambda done, total: tell("scan", done, total),
        )
    if write_lock is not None:
        atomic.write(write_lock, locks.lock_of(found.files).dump())
    if form is Form.TEXT and output is None:
        _show(found, verbose=verbose)
    else:
        _write(found, form, output, verbose=verbose)
    return found.exit_code


def _write(found: Scan, form: Form, output: Path | None, *, verbose: bool) -> None:
    from importlib.metadata import version

    from casemate.cli._show import printed
    from casemate.errors import UsageError
    from casemate.formats import atomic
    from casemate.report import scan_json, scan_sarif

    if form is Form.TEXT:
        text = "\n".join(_lines(found, verbose=verbose)) + "\n"
    else:
        text = scan_json.render(found) if form is Form.JSON else scan_sarif.render(found, version=version("casemate"))
    if output is None:
        printed(text.encode("utf-8", "backslashreplace"))
        return
    if output.is_dir():
        raise UsageError(f"expected a file for the scan, got the folder {output}: name a file in it")
    atomic.write(output, text.encode("utf-8", "backslashreplace"))


def _show(found: Scan, *, verbose: bool) -> None:
    from rich.text import Text

    from casemate.cli._show import show

    styles = {"malicious": "bold red", "suspicious": "yellow", "unreadable": "magenta", "unknown": "magenta"}
    lines = []
    for line in _lines(found, verbose=verbose):
        word = line.split(" ", 1)[0]
        lines.append(Text(line, style=styles.get(word, "")) if word in styles else Text(line))
    show(*lines)


def _lines(found: Scan, *, verbose: bool) -> list[str]:
    """The scan in lines: bad files first, each with its signs; then the counts and the verdict."""
    from casemate.formats.scanning.signs import Level

    order = list(Level)
    lines: list[str] = []
    for scanned in sorted(found.files, key=lambda item: (order.index(item.level), item.path)):
        if scanned.level is not Level.CLEAN or verbose:
            lines += _file(scanned)
    if verbose:
        for sign, item in found.allowed:
            lines += [f"allowed     {_plain(sign.subject)} in {_plain(str(sign.place))} until {item.until}"]
            lines += [f"            {_plain(item.reason)}"]
    lines += [f"not looked into: {_plain(folder)}" for folder in found.left_out]
    counts = {level: sum(item.level is level for item in found.files) for level in Level}
    told = ", ".join(f"{count:,} {level}" for level, count in counts.items() if count) or "nothing to scan"
    verdict = {0: "passed", 1: "failed", 3: "undecided"}[found.exit_code]
    allowed = f"; {len(found.allowed)} allowed by the policy" if found.allowed else ""
    lines.append(f"{verdict}: {len(found.files):,} file{'s' if len(found.files) != 1 else ''}, {told}{allowed}")
    return lines


def _file(scanned: Scanned) -> list[str]:
    lines = [f"{scanned.level:<11} {_plain(scanned.path)}  ({', '.join(scanned.formats) or 'no known format'})"]
    for sign in scanned.signs:
        where = str(sign.place).removeprefix(sign.place.file).removeprefix("!/").strip()
        lines.append(f"  {sign.level:<10} {_plain(sign.what)}" + (f"  [{_plain(where)}]" if where else ""))
        lines.append(f"             {_plain(sign.why)}")
        lines.append(f"             {_plain(sign.mend)}  ({sign.rule}, {sign.certainty})")
    return lines


def _plain(text: str) -> str:
    """Text from a file, with nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text)
