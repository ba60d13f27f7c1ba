"""Printing: renderables to stdout in the width and colours it offers, and quietly nowhere when its reader has gone."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["again", "columns", "printed", "show", "width_of"]

_BLANKS = re.compile(r"[ ]+$", re.MULTILINE)
_WIDTH = 160  # where there is no terminal to ask


def show(*renderables: RenderableType) -> None:
    """Print; nothing that a name holds moves the cursor, and a closed pipe never changes the exit code."""
    from rich.console import Console

    from casemate.report.terminal import Visible

    console = Console(file=sys.stdout, width=_given_width(), highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        for renderable in renderables:
            console.print(
                Visible(renderable), soft_wrap=isinstance(renderable, str)
            )  # text is to be copied: never broken
    try:
        sys.stdout.write(_BLANKS.sub("", captured.get()))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def width_of() -> int:
    """The columns of what `show` prints to."""
    from rich.console import Console

    return Console(file=sys.stdout, width=_given_width()).width


def _given_width() -> int | None:
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH


def printed(data: bytes) -> None:
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


def columns(*headers: str, whole: tuple[str, ...] = ()) -> Table:
    """A table with a rule under its headers and no other ink; the columns `whole` are never broken."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=header in whole)
    return table


def again(command: str, name: str, report: Path, *, config: str = "", said: Sequence[str] = ()) -> str:
    """The line that asks `command` about the finding `name`, from this folder; what is a default is left out.

    `said` are the flags that the user gave and has to give again.

    >>> again("replay", "evasion/standard#ec6b", Path("out/report"), config="casemate.toml")
    "casemate replay 'evasion/standard#ec6b' --report out/report"
    """
    words = ["casemate", command, name]
    words += ["--report", str(report)] if report != Path("casemate-report") else []
    words += ["--config", config] if config not in ("", "casemate.toml") else []
    return shlex.join([*words, *said])
