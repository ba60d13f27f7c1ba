"""UBJSON, as XGBoost writes it: walked over without making anything of it, each length held against the bytes left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from casemate.formats.scanning.desk import Damaged, Desk
from casemate.formats.scanning.source import Source

__all__ = ["Lies", "texts_of"]

_WIDTHS: Final = {
    b"Z": 0, b"N": 0, b"T": 0, b"F": 0, b"i": 1, b"U": 1, b"C": 1, b"I": 2, b"l": 4, b"d": 4, b"L": 8, b"D": 8,
}  # fmt: skip
_COUNTS: Final = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8}
_DEEPEST: Final = 200


class Lies(Exception):  # an inner signal: the reader makes a sign of it
    """A length that the file cannot hold, and where it stands."""

    def __init__(self, count: int, offset: int) -> None:
        self.offset = offset
        super().__init__(f"claims {count} values where fewer bytes are left")


class _Cursor:
    def __init__(self, source: Source, desk: Desk) -> None:
        self.source, self.desk, self.at, self.seen = source, desk, 0, 0

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        self.seen += 1
        if self.seen % 1024 == 0:
            self.desk.meter.tick()
        found = self.source.read(self.at, n)
        if len(found) < n:
            raise Damaged(f"expected {n} bytes of UBJSON, got the end of the file", self.at)
        self.at += n
        return found

    def skip(self, n: int) -> None:
        """Pass over `n` bytes."""
        if n > self.source.size - self.at:
            raise Lies(n, self.at)
        self.at += n

    def count(self, kind: bytes | None = None) -> int:
        """A length, with its own type before it."""
        kind = kind or self.take(1)
        if kind not in _COUNTS:
            raise Damaged(f"expected the type of a length in UBJSON, got {kind!r}", self.at)
        found = int.from_bytes(self.take(_COUNTS[kind]), "big", signed=kind != b"U")
        if found < 0 or found > self.source.size:
            raise Lies(found, self.at)
        return found

    def text(self, n: int) -> str:
        """A text of `n` bytes."""
        if n > min(self.source.size - self.at, self.desk.limits.text):
            raise Lies(n, self.at)
        return self.take(n).decode("utf-8", "replace")


def texts_of(source: Source, desk: Desk) -> Iterator[tuple[int, str]]:
    """Keys and texts with where they end; at the end of the document one with an empty text, whose place is its end.

    Raises `Damaged` for what is no UBJSON, `Lies` for a length that cannot be.
    """
    cursor = _Cursor(source, desk)
    open_now: list[tuple[bytes, int | None, bytes | None]] = []  # kind, values left, type of all values
    while True:
        kind = _next(cursor, open_now)
        if kind is None:
            yield cursor.at, ""
            return
        if open_now and open_now[-1][0] == b"{" and kind not in (b"}",):
            yield cursor.at, cursor.text(cursor.count(kind))
            fixed = open_now[-1][2]
            kind = fixed if fixed is not None else _marker(cursor)
        if kind in _WIDTHS:
            cursor.skip(_WIDTHS[kind])
        elif kind in (b"S", b"H"):
            yield cursor.at, cursor.text(cursor.count())
        elif kind in (b"{", b"["):
            _open(cursor, kind, open_now)
        else:
            raise Damaged(f"expected a type of UBJSON, got {kind!r}", cursor.at - 1)
        if not open_now:
            yield cursor.at, ""
            return


def _marker(cursor: _Cursor) -> bytes:
    """The next marker, without those that mean nothing."""
    while (kind := cursor.take(1)) == b"N":
        pass
    return kind


def _next(cursor: _Cursor, open_now: list[tuple[bytes, int | None, bytes | None]]) -> bytes | None:
    """The marker of the next value or key, after closing what has ended; `None` at the end of the document."""
    while open_now:
        container, left, fixed = open_now[-1]
        if left is not None:
            if left == 0:
                open_now.pop()
                continue
            open_now[-1] = container, left - 1, fixed
            return fixed if fixed is not None and container == b"[" else _marker(cursor)
        kind = _marker(cursor)
        if kind != (b"]" if container == b"[" else b"}"):
            return kind
        open_now.pop()
    return None if cursor.at else _marker(cursor)


def _open(cursor: _Cursor, kind: bytes, open_now: list[tuple[bytes, int | None, bytes | None]]) -> None:
    if len(open_now) >= _DEEPEST:
        raise Damaged(f"expected UBJSON of at most {_DEEPEST} levels, got more", cursor.at)
    fixed: bytes | None = None
    left: int | None = None
    if cursor.source.read(cursor.at, 1) == b"$":
        cursor.skip(1)
        fixed = cursor.take(1)
        if cursor.source.read(cursor.at, 1) != b"#":
            raise Damaged("expected a length after the type of a container in UBJSON", cursor.at)
    if cursor.source.read(cursor.at, 1) == b"#":
        cursor.skip(1)
        left = cursor.count()
    if kind == b"[" and fixed in _WIDTHS and left is not None:
        cursor.skip(left * _WIDTHS[fixed])  # numbers, which nobody has to read
        if not _WIDTHS[fixed] and left > 1 << 24:
            raise Lies(left, cursor.at)
        return
    open_now.append((kind, left, fixed))
