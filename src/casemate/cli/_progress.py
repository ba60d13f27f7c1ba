"""Progress on stderr: bars on a terminal, lines elsewhere; silent for the first two seconds.

The time left is that of the plug-in at work, from the shards that it has finished: what the plug-ins after it will
take, nobody has measured yet.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

__all__ = ["Pace", "progress", "spoken"]

_QUIET = 2.0  # seconds before anything is shown
_EVERY = 10.0  # seconds between two lines where there is no terminal
_ENOUGH = 2  # shards that make a pace: in a pool the first alone would tell the time of several

Progress = Callable[[str, int, int], None]


@contextmanager
def progress() -> Iterator[Progress]:
    """A function `(plug-in, done, total)` that shows how far an audit is; `audit` in place of a plug-in counts them."""
    if sys.stderr.isatty():
        with _bars() as update:
            yield update
    else:
        yield _lines()


@dataclass(slots=True)
class Pace:
    """How long what is told of (`done` of `total` shards of a plug-in) will still take.

    Shards that a resumed run finds finished are no work and set no pace; a plug-in that begins another round of shards
    is measured anew.
    """

    clock: Callable[[], float] = field(default_factory=lambda: time.monotonic)
    _round: tuple[str, int] = ("", 0)
    _first: tuple[float, int] = (0.0, 0)
    _last: tuple[float, int] = (0.0, 0)

    def tell(self, name: str, done: int, total: int) -> None:
        """Note that so many shards are finished now."""
        now = self.clock()
        if (name, total) != self._round or done < self._last[1]:
            self._round, self._first = (name, total), (now, done)
        self._last = (now, done)

    def left(self) -> float | None:
        """Seconds that are left, `None` while too little is known; between two shards it counts down, never below 0."""
        (begun, before), (latest, done), total = self._first, self._last, self._round[1]
        if done - before < _ENOUGH or done >= total:
            return None
        each = (latest - begun) / (done - before)
        return max(0.0, each * (total - done) - (self.clock() - latest))


def spoken(seconds: float | None) -> str:
    """A time left as people say it, in steps that do not flicker.

    >>> spoken(None), spoken(2.0), spoken(38.0), spoken(95.0), spoken(5000.0)
    ('', 'a few seconds left', 'about 40 s left', 'about 2 min left', 'about 1 h 23 min left')
    """
    if seconds is None:
        return ""
    if seconds <= 7.5:
        return "a few seconds left"
    if seconds < 57.5:
        return f"about {5 * round(seconds / 5)} s left"
    minutes = max(1, round(seconds / 60))
    return f"about {minutes} min left" if minutes < 60 else f"about {minutes // 60} h {minutes % 60} min left"


@contextmanager
def _bars() -> Iterator[Progress]:
    """Two lines that stay where they are: the audit as a whole, and the plug-in at work."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    pace = Pace()
    described = TextColumn("{task.description}")
    layout = (SpinnerColumn(), described, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _left_column(pace))
    bars = Bars(*layout, console=Console(stderr=True), transient=True)
    whole = bars.add_task("audit", total=None, visible=False)
    current = bars.add_task("", total=None, visible=False, work=True)
    shown = ""

    def update(name: str, done: int, total: int) -> None:
        nonlocal shown
        if name == "audit":
            bars.update(whole, completed=done, total=total, visible=True)
            return
        pace.tell(name, done, total)
        if name != shown:
            shown = name
            bars.reset(current, description=name, total=total, completed=done, visible=True, work=True)
        bars.update(current, completed=done, total=total)

    start = threading.Timer(_QUIET, bars.start)
    start.daemon = True
    start.start()
    try:
        yield update
    finally:
        start.cancel()
        start.join()
        bars.stop()


def _left_column(pace: Pace) -> ProgressColumn:
    from rich.progress import ProgressColumn as Column
    from rich.progress import Task
    from rich.text import Text

    class Left(Column):
        def render(self, task: Task) -> Text:
            return Text(spoken(pace.left()) if task.fields.get("work") else "")

    return Left()


def _lines() -> Progress:
    """A line where a plug-in begins (or goes on, once the quiet is over), then one every ten seconds at most."""
    begun = last = time.monotonic()
    pace = Pace()
    told: set[str] = set()
    place = ""

    def update(name: str, done: int, total: int) -> None:
        nonlocal last, place
        if name == "audit":
            place = f"{done + 1}/{total} " if done < total else ""
            return
        pace.tell(name, done, total)
        now = time.monotonic()
        if now - begun < _QUIET or (name in told and now - last < _EVERY):
            return
        told.add(name)
        last = now
        left = spoken(pace.left())
        print(f"{place}{name}: {done:,} of {total:,}{f', {left}' if left else ''}", file=sys.stderr, flush=True)

    return update
