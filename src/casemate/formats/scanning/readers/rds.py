"""R's `.rds` and `.rda`: no verdict on what an R model does, but code that R runs as soon as it reads is found.

A promise in a file that was never forced is evaluated when the value is first touched (CVE-2024-27322, R < 4.4).
Format: R Internals, section 1.8, "Serialization Formats"; only the binary form that R writes by default is read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, UNKNOWN, noted, shown
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_HEAD = re.compile(rb"(?:RD[AX][23]\n)?(?:X\n\0\0\0[\2\3]|A\n[23]\n\d{5,7}\n|B\n[\2\3]\0\0\0)")
_DEEPEST = 200  # R's own models stay below forty
_PAIRS = frozenset({2, 3, 5, 6, 239, 240})  # lists, closures, promises, calls: attributes, tag, first, rest
_BARE = frozenset({0, 25, *range(241, 247), *range(250, 255)})
_SEVERAL = {1: 1, 4: 4, 22: 2, 23: 0, 238: 3}
_WIDTHS = {10: 4, 13: 4, 14: 8, 15: 16, 24: 1}
_UNBOUND, _GLOBAL = 252, 253
_KINDS = {3: "a function", 5: "a promise", 21: "compiled code", 22: "an external pointer"}


class _Walk:
    """One value after the other; `found` is what is code: its kind, its byte, the names in it."""

    def __init__(self, source: Source, desk: Desk, at: int) -> None:
        self.source, self.desk, self.at = source, desk, at
        self.found: list[tuple[int, int]] = []
        self.unforced: list[int] = []
        self.names: list[str] = []

    def word(self) -> int:
        """The next 32-bit number."""
        data = self.source.read(self.at, 4)
        if len(data) < 4:
            raise Damaged("expected a value of R's, got the end of the file", self.at)
        self.at += 4
        return int(struct.unpack(">i", data)[0])

    def count(self) -> int:
        """A length, which may take three words."""
        first = self.word()
        if first == -1:
            first = self.word() << 32 | self.word() & 0xFFFFFFFF
        if first < 0 or first > self.source.size:
            raise Damaged(f"expected a length within the file, got {first}", self.at - 4)
        return first

    def skip(self, n: int) -> None:
        """Leave out `n` bytes of numbers."""
        if n > self.source.size - self.at:
            raise Damaged(f"expected {n} bytes, got {self.source.size - self.at}", self.at)
        self.at += n

    def value(self, depth: int = 0) -> int:
        """Read one value to its end; gives its type."""
        self.desk.meter.tick()
        if depth > _DEEPEST:
            raise Damaged("expected values nested less deep", self.at)
        while True:  # the rest of a list is no deeper than its first
            at, flags = self.at, self.word()
            kind = flags & 0xFF
            if kind not in _PAIRS:
                self._single(kind, flags, depth)
                return kind
            self._pair(kind, flags, at, depth)
            if kind == 5:
                return kind

    def _pair(self, kind: int, flags: int, at: int, depth: int) -> None:
        """Attributes, tag and first of a pair; of a promise its environment, value and expression."""
        if kind in (3, 5):
            self.found.append((kind, at))
        if flags & 0x200 or kind in (239, 240):
            self.value(depth + 1)
        inside = [self.value(depth + 1)] if flags & 0x400 else []
        inside.append(self.value(depth + 1))
        if kind == 5:
            rest = self.value(depth + 1)
            if len(inside) == 2 or {_UNBOUND, _GLOBAL} & {inside[0], rest}:
                self.unforced.append(at)

    def _single(self, kind: int, flags: int, depth: int) -> None:
        if kind in _KINDS:
            self.found.append((kind, self.at - 4))
        if kind == 9:
            self._text()
        elif kind in _WIDTHS:
            self.skip(self.count() * _WIDTHS[kind])
        else:
            self._compound(kind, flags, depth)
        if flags & 0x200 and kind not in (4, 9):
            self.value(depth + 1)

    def _compound(self, kind: int, flags: int, depth: int) -> None:
        if kind in (16, 19, 20, 247, 248, 249):  # vectors of values; those from 247 have a word before their length
            if kind >= 247:
                self.word()
            self._several(self.count(), depth)
        elif kind in _SEVERAL:
            if kind == 4:  # environment: locked, then enclosure, frame, hash, attributes
                self.word()
            self._several(_SEVERAL[kind], depth)
        elif kind in (7, 8):
            self.skip(self.count())
        elif kind == 255:
            self.skip(0 if flags >> 8 else 4)
        elif kind not in _BARE:
            raise Damaged(f"expected a type of R's that is read, got {kind}", self.at - 4)

    def _several(self, n: int, depth: int) -> None:
        for _ in range(n):
            self.value(depth + 1)

    def _text(self) -> None:
        length = self.word()
        if length < 0:
            return
        text = self.source.read(self.at, min(length, 64))
        self.skip(length)
        if len(self.names) < 10_000:
            self.names.append(text.decode("utf-8", "replace"))


def _claims(source: Source) -> bool:
    return _HEAD.match(source.head) is not None


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    yield noted(
        source, UNKNOWN, "rds/not-judged", "data of R, whose functions and calls nothing here judges",
        why="what cannot be read cannot be judged", mend="export the model as PMML or ONNX", at=0,
    )  # fmt: skip
    head = _HEAD.match(source.head)
    if head is None or b"X\n" not in head[0]:
        raise Damaged("R's binary form of this machine or its text form, which is not read", 0)
    walk = _Walk(source, desk, head.end())
    broken: Damaged | None = None
    try:
        walk.skip(8)
        if head[0].endswith(b"\3"):
            walk.skip(walk.count())  # the native encoding's name
        walk.value()
    except Damaged as error:  # what was seen before stays true
        broken = error
    yield from _code(source, walk)
    if broken is not None:
        raise broken


def _code(source: Source, walk: _Walk) -> Iterator[Sign]:
    names = ", ".join(dict.fromkeys(shown(name) for name in walk.names[:6]))
    for at in walk.unforced[:1]:
        what = f"a promise that was never forced, among the names {names}"
        why = "R evaluates it as soon as the value is touched (CVE-2024-27322)"
        yield noted(source, MALICIOUS, "rds/promise", what, why=why, mend="do not read it with R", at=at)
    for kind in dict.fromkeys(kind for kind, _ in walk.found if kind != 5 or not walk.unforced):
        at = next(at for other, at in walk.found if other == kind)
        why = "it runs when the model is used"
        mend = "read it as you would a program from a stranger"
        yield noted(source, SUSPICIOUS, "rds/code", f"{_KINDS[kind]} of R", why=why, mend=mend, at=at)


READERS = (Reader("rds", _claims, _read, firsts=b"RXAB"),)
