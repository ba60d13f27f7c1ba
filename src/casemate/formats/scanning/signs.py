"""What a scan can say: signs with their place, and the verdict over them."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Certainty", "Level", "Place", "Scanned", "Sign", "Used", "beyond_chance", "worst"]


class Level(enum.StrEnum):
    """How bad a sign is, and thereby the verdict over a file; from worst to best.

    `MALICIOUS`: does what no model needs. `SUSPICIOUS`: not known to be harmless. `UNREADABLE`: could not be read to
    its end. `UNKNOWN`: no reader knows the format. `CLEAN`: read to its end, and all of it is known to be harmless.
    """

    MALICIOUS = "malicious"
    SUSPICIOUS = "suspicious"
    UNREADABLE = "unreadable"
    UNKNOWN = "unknown"
    CLEAN = "clean"


class Certainty(enum.StrEnum):
    """How sure a sign is that it sees what it says."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


@dataclass(frozen=True, slots=True)
class Place:
    """Where: the file as the user named it, the members down to it joined by `!/`, the offset there in bytes.

    `opcode` is set for pickles, and in containers `offset` counts from the start of the innermost member.
    """

    file: str
    member: str = ""
    offset: int | None = None
    opcode: str = ""

    def __str__(self) -> str:
        """One line for people."""
        where = f"{self.file}!/{self.member}" if self.member else self.file
        where += "" if self.offset is None else f" at byte {self.offset}"
        return where + (f" ({self.opcode})" if self.opcode else "")


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that was seen: `what` it is, `why` that is dangerous, and what to do (`mend`).

    `rule` is `format/what-it-looks-for`, lasting, as SARIF needs it; `level` is never `CLEAN`; `subject` is the
    `module.name` that it is about, where it is about one, so that a policy can allow it.
    """

    level: Level
    rule: str
    what: str
    place: Place
    why: str
    mend: str
    certainty: Certainty = Certainty.CERTAIN
    subject: str = ""


class Used(NamedTuple):
    """A name that a file makes its reader import and, with `called`, call; what a lock remembers."""

    member: str
    module: str
    name: str
    called: bool = False


@dataclass(frozen=True, slots=True)
class Scanned:
    """All that is known of one file after its scan; plain data.

    `formats` are those that were recognised, by content; `members` the parts inside with their sizes in bytes;
    `digest` is `sha256:<hex>` of the bytes that were scanned, empty where it was not asked for.
    """

    path: str
    size: int
    formats: tuple[str, ...]
    signs: tuple[Sign, ...]
    used: tuple[Used, ...] = ()
    members: tuple[tuple[str, int], ...] = ()
    digest: str = ""

    @property
    def level(self) -> Level:
        """The verdict: that of the worst sign."""
        return worst(sign.level for sign in self.signs)


_NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*\.[A-Za-z_]\w{2,}", re.ASCII)


def beyond_chance(signs: Iterable[Sign]) -> Iterator[Sign]:
    """Signs of bytes that are numbers, unless they merely look like a pickle: one that does harm names something.

    Of a thousand tensors, one begins with what the machine can follow for a while.
    """
    seen = list(signs)
    if any(not sign.rule.startswith("pickle/") or _NAME.fullmatch(sign.subject) for sign in seen):
        yield from seen


_ORDER = {level: rank for rank, level in enumerate(Level)}


def worst(levels: Iterable[Level]) -> Level:
    """The worst of some levels; `CLEAN` of none."""
    return min(levels, key=_ORDER.__getitem__, default=Level.CLEAN)
