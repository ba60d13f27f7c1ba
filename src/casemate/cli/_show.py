"""Printing: renderables to stdout in the width and colours it offers, and quietly nowhere when its reader has gone."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["columns", "show"]

_BLANKS = re.compile(r"[ ]+$", re.MULTILINE)
_WIDTH = 160  # where there is no terminal to ask


def show(*renderables: RenderableType) -> None:
    """Print; a closed pipe never changes the exit code."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        for renderable in renderables:
            console.print(renderable, soft_wrap=isinstance(renderable, str))  # text is to be copied: never broken
    try:
        sys.stdout.write(_BLANKS.sub("", captured.get()))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def columns(*headers: str) -> Table:
    """A table with a rule under its headers and no other ink."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    return table
