"""HDF5's data types: how many bytes a value takes, and where text, bytes and references lie in it.

Source: "HDF5 File Format Specification Version 3.0", section IV.A.2.d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.readers._hdf5_file import Cursor

__all__ = ["Kind", "kind_of"]

_STRING, _OPAQUE, _COMPOUND, _REFERENCE, _ENUM, _VARIED, _ARRAY, _COMPLEX = 3, 5, 6, 7, 8, 9, 10, 11
_PLAIN: Final = {0: 4, 1: 12, 2: 2, _STRING: 0, 4: 4, _REFERENCE: 0}  # bytes that follow the size
_DEEPEST: Final = 16
_MOST: Final = 4096  # references in one value


@dataclass(frozen=True, slots=True)
class Kind:
    """A data type: its class, the bytes of one value, whether text or bytes of a fixed length lie in it.

    `varied`: at which byte of a value a reference to the global heap lies, and the type of what is there.
    """

    number: int
    size: int
    texts: bool = False
    varied: tuple[tuple[int, Kind], ...] = ()

    @property
    def held(self) -> bool:
        """Values have text or bytes that a program may make something of, not only numbers."""
        return self.texts or bool(self.varied)


def kind_of(cursor: Cursor, depth: int = 0) -> Kind:
    """The data type at a cursor, which is moved behind it; raises `Damaged`."""
    head, bits, size = cursor.number(1), cursor.number(3), cursor.number(4)
    number, version = head & 15, head >> 4
    if depth > _DEEPEST:
        raise Damaged(f"expected types less than {_DEEPEST} deep in each other", cursor.start)
    if number in _PLAIN:
        cursor.take(_PLAIN[number])
        return Kind(number, size, number == _STRING)
    if number == _OPAQUE:
        cursor.take(bits & 0xFF)
        return Kind(number, size, texts=True)
    if number == _COMPOUND:
        return _compound(cursor, Kind(number, size), (bits & 0xFFFF, version, depth))
    if number == _ENUM:
        return _enumerated(cursor, Kind(number, size), (bits & 0xFFFF, version, depth))
    if number == _VARIED:
        return Kind(number, size, varied=((0, kind_of(cursor, depth + 1)),))
    if number == _ARRAY:
        return _array(cursor, size, version, depth)
    if number == _COMPLEX:
        kind_of(cursor, depth + 1)
        return Kind(number, size)
    raise Damaged(f"expected a data type of class 0 to 11, got {number}", cursor.start)


def _compound(cursor: Cursor, kind: Kind, told: tuple[int, int, int]) -> Kind:
    """A record of `told[0]` fields."""
    count, version, depth = told
    texts, varied = False, list[tuple[int, Kind]]()
    for _ in range(count):
        length = len(cursor.name()) + 1
        cursor.take(-length % 8 if version < 3 else 0)
        at = cursor.number(4 if version < 3 else max(0, kind.size.bit_length() - 1) // 8 + 1)
        many = 1
        if version == 1:  # a field can be an array by itself
            rank = cursor.number(1)
            cursor.take(11)
            many = math.prod([cursor.number(4) for _ in range(4)][:rank])
        field = _repeated(kind_of(cursor, depth + 1), many, cursor)
        texts |= field.texts
        varied += [(at + place, inner) for place, inner in field.varied]
        if len(varied) > _MOST:
            raise Damaged(f"expected at most {_MOST} references in one value, got more", cursor.start)
    return Kind(kind.number, kind.size, texts, tuple(varied))


def _enumerated(cursor: Cursor, kind: Kind, told: tuple[int, int, int]) -> Kind:
    count, version, depth = told
    base = kind_of(cursor, depth + 1)
    for _ in range(count):
        length = len(cursor.name()) + 1
        cursor.take(-length % 8 if version < 3 else 0)
    cursor.take(count * base.size)
    return kind


def _array(cursor: Cursor, size: int, version: int, depth: int) -> Kind:
    rank = cursor.number(1)
    cursor.take(3 if version < 3 else 0)
    many = math.prod(cursor.number(4) for _ in range(rank))
    cursor.take(4 * rank if version < 3 else 0)
    base = kind_of(cursor, depth + 1)
    found = _repeated(base, many, cursor)
    return Kind(_ARRAY, size, found.texts or base.size == 1, found.varied)


def _repeated(base: Kind, many: int, cursor: Cursor) -> Kind:
    """`many` values of a type after each other."""
    if len(base.varied) * many > _MOST:
        raise Damaged(f"expected at most {_MOST} references in one value, got more", cursor.start)
    if not base.varied:
        return base
    varied = tuple((i * base.size + at, inner) for i in range(many) for at, inner in base.varied)
    return Kind(base.number, base.size, base.texts, varied)
