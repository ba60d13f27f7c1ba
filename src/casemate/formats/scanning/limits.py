"""How much work and memory a file may cost: said before anything is allocated, told when it is reached."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["LimitReached", "Limits", "Meter"]

MIB = 1 << 20
_GLANCE = 0.02  # seconds between two looks at the processor's clock, which can cost a tenth of a small file


class LimitReached(Exception):  # an inner signal: the desk turns it into a sign
    """A limit is used up: `rule` says which, the message what was found."""

    def __init__(self, rule: str, message: str) -> None:
        self.rule = rule
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost.

    `seconds` of the processor, `seconds_per_mib` of its own size more, and `seconds_per_weighed_mib` of tensors that
    are read; `expanded` bytes in all that compressed parts may unpack to, and `ratio` times the file's own size (only
    above `small` bytes); `members` in all containers together; `depth` of containers in each other; `text` bytes of one
    text that is parsed (JSON, a template, source code).
    """

    seconds: float = 3.5
    seconds_per_mib: float = 0.02
    seconds_per_weighed_mib: float = 0.5
    expanded: int = 8192 * MIB
    ratio: int = 200
    small: int = 64 * MIB
    members: int = 200_000
    depth: int = 8
    text: int = 64 * MIB


@dataclass(slots=True)
class Meter:
    """What one file has cost so far, held against its limits.

    `size`: the file's own bytes; `weighed`: bytes of tensors that are read as weights are checked, which takes time.
    """

    limits: Limits
    size: int
    started: float = field(default_factory=time.thread_time)
    looked: float = field(default_factory=time.monotonic)
    expanded: int = 0
    members: int = 0
    weighed: int = 0

    @property
    def _work(self) -> int:
        """Bytes that are worth time: each of a tensor twice at most, though headers can name it a million times."""
        return self.size + min(self.weighed, self.size + self.expanded)

    @property
    def _allowed(self) -> float:
        limits, weighed = self.limits, self._work - self.size
        return limits.seconds + (limits.seconds_per_mib * self.size + limits.seconds_per_weighed_mib * weighed) / MIB

    def tick(self) -> None:
        """Raise `LimitReached` when the time is up.

        Time of the processor in the thread that made this meter, which has to be the one that reads: a busy machine or
        a slow disk changes no verdict, and the files are local, so nobody waits for ever for one. It is asked for only
        every 20 ms of the clock on the wall, which is cheap and never behind it.
        """
        now = time.monotonic()
        if now - self.looked < min(_GLANCE, self.limits.seconds):
            return
        self.looked = now
        spent = time.thread_time() - self.started
        if spent > self.limits.seconds and spent > self._allowed:
            raise LimitReached("limits/time", f"reading took more than {self._allowed:.3g} s")

    def expand(self, n: int) -> None:
        """Charge `n` bytes that are about to be unpacked; raises `LimitReached` for a bomb."""
        self.expanded += n
        most = min(self.limits.expanded, max(self.limits.small, self.limits.ratio * self.size))
        if self.expanded > most:
            raise LimitReached("limits/expanded", f"unpacks to more than {most / MIB:.0f} MiB")

    def enter(self, n: int = 1) -> None:
        """Charge `n` members of a container; raises `LimitReached` for too many."""
        self.members += n
        if self.members > self.limits.members:
            raise LimitReached("limits/members", f"holds more than {self.limits.members:,} members")
