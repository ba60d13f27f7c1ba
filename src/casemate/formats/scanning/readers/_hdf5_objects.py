"""HDF5's objects: the links of a group, the attributes of an object, the types and texts of values.

Source: "HDF5 File Format Specification Version 3.0", sections III.B, III.C and IV.A.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.readers import _hdf5_heaps as heaps
from casemate.formats.scanning.readers._hdf5_file import Cursor, Hdf5, Message, shared_message
from casemate.formats.scanning.readers._hdf5_kinds import Kind, kind_of

__all__ = [
    "EXTERNAL",
    "HARD",
    "SOFT",
    "Attribute",
    "Link",
    "attribute_of",
    "dense",
    "link_of",
    "named",
    "old_links",
    "space_of",
    "values_of",
]

HARD: Final = 0
SOFT: Final = 1
EXTERNAL: Final = 64
_SYMBOLIC: Final = 2  # the cache type of a soft link in an old group
_NAME: Final = 1 << 16  # bytes of one
_MOST: Final = 1 << 22  # values of one attribute or data set that are looked at


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a group: `kind` 0 hard (to `address`), 1 soft, 64 external, 65 and more user-defined (`value`)."""

    name: str
    kind: int
    address: int | None = None
    value: bytes = b""
    at: int = 0


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute: its name, what its values are, how many, and where they lie in the source."""

    name: str
    kind: Kind
    count: int
    data: Cursor


def link_of(file: Hdf5, cursor: Cursor) -> Link:
    """A link message; raises `Damaged`."""
    at = cursor.start
    version, flags = cursor.number(1), cursor.number(1)
    if version != 1:
        raise Damaged(f"expected a link of version 1, got {version}", at)
    kind = cursor.number(1) if flags & 8 else HARD
    cursor.take((8 if flags & 4 else 0) + (1 if flags & 0x10 else 0))
    name = _text(cursor.take(cursor.number(1 << (flags & 3))))
    if kind == HARD:
        return Link(name, kind, file.address(cursor), at=at)
    return Link(name, kind, None, cursor.take(cursor.number(2)), at)


def old_links(file: Hdf5, message: Message) -> Iterator[Link]:
    """The links of a group with a symbol table; raises `Damaged`."""
    cursor = Cursor(file.source.read(message.at, message.size), message.at)
    tree, heap = file.address(cursor), file.address(cursor)
    if tree is None or heap is None:
        raise Damaged("expected the addresses of a group's tree and heap, got none", message.at)
    names = heaps.local_heap(file, heap)
    for node in heaps.symbol_nodes(file, tree):
        file.desk.meter.tick()
        head = file.signed(node, b"SNOD", 4)
        head.take(2)
        count, step = head.number(2), 2 * file.wide + 24
        body = file.cut(node + 8, count * step)
        for _ in range(count):
            file.desk.meter.tick()
            at = body.start + body.at
            name, target = named(names, body.number(file.wide)), file.address(body)
            cached = body.number(4)
            body.take(4)
            scratch = body.take(16)
            if cached == _SYMBOLIC:
                value = named(names, int.from_bytes(scratch[:4], "little"))
                yield Link(name, SOFT, None, value.encode(), at)
            else:
                yield Link(name, HARD, target, b"", at)


def dense(file: Hdf5, message: Message, *, attributes: bool) -> Iterator[Cursor]:
    """The link or attribute messages that an info message leads to in a heap; raises `Damaged`."""
    cursor = Cursor(file.source.read(message.at, message.size), message.at)
    cursor.take(1)
    flags = cursor.number(1)
    cursor.take((2 if attributes else 8) if flags & 1 else 0)
    heap, by_name = file.address(cursor), file.address(cursor)
    by_order = file.address(cursor) if flags & 2 else None
    tree = by_name if by_name is not None else by_order
    if heap is None:
        return
    if tree is None:
        raise Damaged("expected a tree of the names in a heap, got none", message.at)
    fractal = heaps.fractal_at(file, heap)
    leads = {5: 4, 6: 8, 8: 0, 9: 0}  # bytes of a record before its id, by the tree's type
    for kind, record in heaps.records_of(file, tree):
        if kind not in leads:
            raise Damaged(f"expected a tree of names, got type {kind}", file.base + tree)
        if kind > 6 and (len(record) <= fractal.id_size or record[fractal.id_size] & 2):
            raise Damaged("expected an attribute, got one in the heap of shared messages", file.base + tree)
        yield fractal.found(record[leads[kind] :][: fractal.id_size])


def attribute_of(file: Hdf5, cursor: Cursor) -> Attribute:
    """An attribute message; raises `Damaged`."""
    at = cursor.start
    version, flags = cursor.number(1), cursor.number(1)
    if version not in (1, 2, 3):
        raise Damaged(f"expected an attribute of version 1 to 3, got {version}", at)
    sizes = [cursor.number(2) for _ in range(3)]
    cursor.take(1 if version == 3 else 0)
    name, kind, space = (_padded(cursor, size, padded=version == 1) for size in sizes)
    if version > 1 and flags & 1:
        kind = _shared(file, kind, 3)
    if version > 1 and flags & 2:
        space = _shared(file, space, 1)
    count = math.prod(space_of(file, space))
    return Attribute(_text(name.data.split(b"\0", 1)[0]), kind_of(kind), count, _rest(cursor))


def _shared(file: Hdf5, cursor: Cursor, wanted: int) -> Cursor:
    found = shared_message(file, wanted, cursor.start, len(cursor.data))
    return Cursor(file.source.read(found.at, found.size), found.at)


def _rest(cursor: Cursor) -> Cursor:
    at = cursor.start + cursor.at
    return Cursor(cursor.take(cursor.left), at)


def _padded(cursor: Cursor, size: int, *, padded: bool) -> Cursor:
    at = cursor.start + cursor.at
    data = cursor.take(size)
    if padded:
        cursor.take(min(-size % 8, cursor.left))
    return Cursor(data, at)


def space_of(file: Hdf5, cursor: Cursor) -> tuple[int, ...]:
    """The sizes of a data space, `()` for a single value and `(0,)` for none; raises `Damaged`."""
    version, rank, flags = cursor.number(1), cursor.number(1), cursor.number(1)
    if version not in (1, 2):
        raise Damaged(f"expected a data space of version 1 or 2, got {version}", cursor.start)
    kind = cursor.number(1)
    cursor.take(4 if version == 1 else 0)
    if version == 2 and kind == 2:
        return (0,)
    sizes = tuple(cursor.number(file.long) for _ in range(rank))
    cursor.take(min(cursor.left, rank * file.long if flags & 1 else 0))
    return sizes


def values_of(file: Hdf5, kind: Kind, count: int, data: Cursor) -> Iterator[tuple[int, bytes]]:
    """Where each value of text or bytes lies in the source, and the value; all fixed ones at once.

    Raises `Damaged` where they are not in the file.
    """
    at, block = data.start + data.at, data.take(min(count * kind.size, data.left) if kind.size else 0)
    if not kind.varied or kind.texts:
        yield at, block
    if not kind.varied:
        return
    if count * len(kind.varied) > _MOST or count * kind.size > len(block):
        raise Damaged(f"expected {count} values in the file, got {len(block)} bytes", data.start)
    for value in range(count):
        file.desk.meter.tick()
        for place, inner in kind.varied:
            here = Cursor(block[value * kind.size + place :][: 8 + file.wide], at)
            length, heap, index = here.number(4), file.address(here), here.number(4)
            if length and heap:
                found = heaps.global_object(file, heap, index)
                if inner.varied:
                    yield from values_of(file, inner, min(length, found.left // inner.size), found)
                else:
                    yield found.start, found.take(min(length * inner.size, found.left))


def named(names: Cursor, offset: int) -> str:
    """The name at a byte of a local heap; raises `Damaged`."""
    end = names.data.find(b"\0", offset, offset + _NAME)
    if end < 0:
        raise Damaged(f"expected a name at byte {offset} of a heap", names.start)
    return _text(names.data[offset:end])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
