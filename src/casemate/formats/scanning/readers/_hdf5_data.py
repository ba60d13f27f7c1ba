"""HDF5's data sets: how large they are, where they lie, and the texts and bytes in them.

Numbers are left alone; texts and bytes are looked at, as PyTables and others unpickle them.
Source: "HDF5 File Format Specification Version 3.0", section IV.A.2.i.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.readers import _hdf5_heaps as heaps
from casemate.formats.scanning.readers import _hdf5_objects as objects
from casemate.formats.scanning.readers import pickles
from casemate.formats.scanning.readers._hdf5_file import Cursor, Hdf5, Message
from casemate.formats.scanning.readers._signs import MALICIOUS, noted, shown
from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source

__all__ = ["OUT_WHY", "Entity", "Scan", "data_signs", "hidden"]

_VALUES: Final = 1 << 20  # bytes of one attribute that are looked at at once
OUT_WHY: Final = "reading the model reads another file of the machine, and its content becomes part of the model"
_OUT_MEND: Final = "copy the data into the file with a tool that does not follow it, or do without"
# What imports nothing is harmless: no pickle imports without one of these bytes, and each ends with a point.
_IMPORTS: Final = re.compile(rb"[\n\x80\x82-\x84\x93]")
_PACKED: Final = (b"PK\3\4", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"x\x01", b"x\x9c", b"x\xda")


@dataclass(slots=True)
class Scan:
    """One file while it is read: the objects that were seen, those to come, how much damage was told."""

    file: Hdf5
    seen: set[int] = field(default_factory=set)
    todo: list[tuple[int, str]] = field(default_factory=list)
    damaged: int = 0

    def sign(self, level: Level, rule: str, what: str, why: str, at: int) -> Sign:
        """A sign with the usual advice."""
        return noted(self.file.source, level, rule, what, why=why, mend=_OUT_MEND, at=at)


@dataclass(slots=True)
class Entity:
    """What the messages of one object said, as far as they belong together."""

    path: str
    space: tuple[int, ...] | None = None
    kind: objects.Kind | None = None
    layout: Message | None = None
    filters: tuple[int, ...] = ()


def data_signs(scan: Scan, one: Entity) -> Iterator[Sign]:
    """A data set: its size, where it lies, and its texts and bytes."""
    if one.layout is None:
        return
    file, message = scan.file, one.layout
    cursor = Cursor(file.source.read(message.at, message.size), message.at)
    kind, space = one.kind, one.space
    if kind is None or space is None:
        raise Damaged("expected a data set with a type and a space", message.at)
    size = math.prod(space) * kind.size
    limits = file.desk.limits
    if size > max(limits.expanded, limits.ratio * file.source.size):
        what = f"{shown(one.path)} has {'x'.join(map(str, space))} values in a file of {file.source.size} bytes"
        yield scan.sign(MALICIOUS, "hdf5/bomb", what, "reading it takes more memory than any machine has", message.at)
        return
    version = cursor.number(1)
    if version < 3:
        rank, how = cursor.number(1), cursor.number(1)
        cursor.take(5)
        yield from _old_layout(scan, one, (cursor, rank, how))
    else:
        yield from _laid_out(scan, one, (cursor, version, cursor.number(1)))


def _laid_out(scan: Scan, one: Entity, state: tuple[Cursor, int, int]) -> Iterator[Sign]:
    """The layouts of version 3 and 4: in the header, in one piece, in chunks, from other data sets."""
    (cursor, version, how), file = state, scan.file
    if how == 0:
        length = cursor.number(2)
        yield from _stretch(scan, one, Cursor(cursor.take(length), cursor.start + cursor.at - length))
    elif how == 1:
        address, length = file.address(cursor), cursor.number(file.long)
        if address is not None and length:
            yield from _contiguous(scan, one, address, length)
    elif how == 2 and version == 3:
        rank = cursor.number(1)
        yield from _chunked(scan, one, file.address(cursor), rank - 1)
    elif how == 2:
        yield from _new_chunks(scan, one, cursor)
    elif how == 3:
        yield from _virtual(scan, one, cursor)
    else:
        raise Damaged(f"expected a layout of type 0 to 3, got {how}", cursor.start)


def _old_layout(scan: Scan, one: Entity, state: tuple[Cursor, int, int]) -> Iterator[Sign]:
    cursor, rank, how = state
    address = scan.file.address(cursor) if how in (1, 2) else None
    if how == 2:
        yield from _chunked(scan, one, address, rank - 1)
    elif how == 1 and address is not None and one.kind is not None and one.space is not None:
        yield from _contiguous(scan, one, address, math.prod(one.space) * one.kind.size)
    elif how == 0:
        cursor.take(4 * rank)
        length = cursor.number(4)
        yield from _stretch(scan, one, Cursor(cursor.take(length), cursor.start + cursor.at - length))


def _contiguous(scan: Scan, one: Entity, address: int, length: int) -> Iterator[Sign]:
    file = scan.file
    if file.base + address + length > file.source.size:
        raise Damaged(f"expected {length} bytes of data at address {address}", file.base + address)
    if one.kind is not None and (one.kind.held or one.kind.size == 1):
        at = file.base + address
        if one.kind.varied:
            yield from _stretch(scan, one, file.cut(address, length))
        else:
            yield from file.desk.look(file.source.part(one.path, at, length, inert=True))


def _stretch(scan: Scan, one: Entity, cursor: Cursor) -> Iterator[Sign]:
    """Values of text or bytes that were read."""
    kind, file = one.kind, scan.file
    if kind is None or not (kind.held or kind.size == 1):
        return
    count = cursor.left // max(1, kind.size)
    for _, data in objects.values_of(file, kind, count, cursor):
        yield from hidden(scan, one.path, data)


def hidden(scan: Scan, label: str, data: bytes) -> Iterator[Sign]:
    """Signs of a text or bytes that a program may unpickle or unpack; most are neither, and cost one search."""
    source, data = scan.file.source, data.rstrip(b"\0")
    inside = Source(source.file, data, (*source.path, label), inert=True)
    pickled = b"." in data and _IMPORTS.search(data) and any(reader.claims(inside) for reader in pickles.READERS)
    if pickled or data.startswith(_PACKED):
        yield from scan.file.desk.look(inside)


def _chunked(scan: Scan, one: Entity, address: int | None, rank: int) -> Iterator[Sign]:
    """Chunks below an old tree; those of numbers are left alone."""
    if address is None or one.kind is None or not one.kind.held:
        return
    for where, size, mask in heaps.chunks_of(scan.file, address, rank):
        yield from _chunk(scan, one, scan.file.cut(where, size), mask)


def _chunk(scan: Scan, one: Entity, cursor: Cursor, mask: int) -> Iterator[Sign]:
    at = cursor.start
    data = cursor.take(cursor.left)
    for index, number in reversed(list(enumerate(one.filters))):
        if mask >> index & 1:
            continue
        data = _unfiltered(scan, one, (number, data, at))
    yield from _stretch(scan, one, Cursor(data, at))


def _unfiltered(scan: Scan, one: Entity, state: tuple[int, bytes, int]) -> bytes:
    number, data, at = state
    if number == 1:
        unpacker = zlib.decompressobj()
        out = bytearray()
        try:
            while data and not unpacker.eof:
                step = unpacker.decompress(data, _VALUES)
                scan.file.desk.meter.expand(len(step))
                out += step
                data = unpacker.unconsumed_tail
        except zlib.error as error:
            raise Damaged(f"expected a chunk that inflates ({error})", at) from error
        return bytes(out)
    if number == 3:
        return data[:-4]
    width = one.kind.size if one.kind is not None else 1
    if number == 2 and width > 1:
        count = len(data) // width
        planes = [data[i * count : (i + 1) * count] for i in range(width)]
        return b"".join(map(bytes, zip(*planes, strict=True))) + data[count * width :]
    if number == 2:
        return data
    raise Damaged(f"expected a chunk of texts without the filter {number}", at)


def _new_chunks(scan: Scan, one: Entity, cursor: Cursor) -> Iterator[Sign]:
    """Chunks of layout version 4: a single one is followed, and texts in all others cannot be."""
    if one.kind is None or not one.kind.held:
        return
    file = scan.file
    flags, rank, wide = cursor.number(1), cursor.number(1), cursor.number(1)
    sizes = [cursor.number(wide) for _ in range(rank)]
    index = cursor.number(1)
    if index != 1:
        raise Damaged(f"expected texts in one chunk or below an old tree, got an index of type {index}", cursor.start)
    size, mask = math.prod(sizes), 0
    if flags & 2:
        size, mask = cursor.number(file.long), cursor.number(4)
    address = file.address(cursor)
    if address is not None:
        yield from _chunk(scan, one, file.cut(address, size), mask)


def _virtual(scan: Scan, one: Entity, cursor: Cursor) -> Iterator[Sign]:
    """A data set that is put together from others; one from this very file is named `.`."""
    file = scan.file
    heap, index = file.address(cursor), cursor.number(4)
    if heap is None:
        return
    block = heaps.global_object(file, heap, index)
    version, count = block.number(1), block.number(file.long)
    first = block.data[block.at : block.at + 64].split(b"\0", 1)[0]
    if version == 0 and count == 1 and first == b".":
        return
    what = f"{shown(one.path)} is put together from {count} data sets, the first in {shown(first)}"
    yield scan.sign(MALICIOUS, "hdf5/other-file", what, OUT_WHY, block.start)
