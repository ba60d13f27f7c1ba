"""Progress on stderr: bars on a terminal, lines elsewhere; silent for the first two seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress"]

_QUIET = 2.0  # seconds before anything is shown
_EVERY = 10.0  # seconds between two lines where there is no terminal

Progress = Callable[[str, int, int], None]


@contextmanager
def progress() -> Iterator[Progress]:
    """A function `(plug-in, done, total)` that shows how far an audit is."""
    if sys.stderr.isatty():
        with _bars() as update:
            yield update
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    layout = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Bars(*layout, console=Console(stderr=True), transient=True)
    tasks: dict[str, TaskID] = {}

    def update(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=total)
        bars.update(tasks[name], completed=done, total=total)

    start = threading.Timer(_QUIET, bars.start)
    start.daemon = True
    start.start()
    try:
        yield update
    finally:
        start.cancel()
        start.join()
        bars.stop()


def _lines() -> Progress:
    """A line where a plug-in begins (or goes on, once the quiet is over), then one every ten seconds at most."""
    begun = last = time.monotonic()
    told: set[str] = set()

    def update(name: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - begun < _QUIET or (name in told and now - last < _EVERY):
            return
        told.add(name)
        last = now
        print(f"{name}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    return update
