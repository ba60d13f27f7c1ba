"""HDF5's data sets: how large they are, where they lie, and the texts and bytes in them.

Numbers are left alone; texts and bytes are looked at, as PyTables and others unpickle them.
Source: "HDF5 File Format Specification Version 3.0", section IV.A.2.i.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.readers import _hdf5_heaps as heaps
from casemate.formats.scanning.readers import _hdf5_objects as objects
from casemate.formats.scanning.readers import keras, pickles
from casemate.formats.scanning.readers._hdf5_chunks import KNOWN, Chunk, new_chunks, old_chunks, unfiltered
from casemate.formats.scanning.readers._hdf5_file import Cursor, Hdf5, Message
from casemate.formats.scanning.readers._hdf5_kinds import Kind
from casemate.formats.scanning.readers._signs import MALICIOUS, noted, shown
from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source

__all__ = ["OUT_WHY", "Entity", "Scan", "data_signs", "hidden"]

_DECLARED: Final = (
    1 << 32
)  # bytes that a data set may have whatever its file has, as Keras has it (GHSA-xfhx-r7ww-5995)
OUT_WHY: Final = "reading the model reads another file of the machine, and its content becomes part of the model"
_OUT_MEND: Final = "copy the data into the file with a tool that does not follow it, or do without"
# What imports nothing is harmless: no pickle imports without one of these bytes, and each ends with a point.
_IMPORTS: Final = re.compile(rb"[\n\x80\x82-\x84\x93]")
_PACKED: Final = (b"PK\3\4", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"x\x01", b"x\x9c", b"x\xda")
_BEGIN: Final = re.compile(
    rb"\x80[\1-\5]|c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n|\(|PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|x[\x01\x9c\xda]"
)
_WHOLE: Final = (3, 5)  # classes whose values are texts or bytes as a whole
_MANY: Final = 10_000
_PIECE: Final = 1 << 20  # bytes that are read at once


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
    kind: Kind | None = None
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
    if size > max(_DECLARED, limits.ratio * file.source.size):
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
        yield from _chunked(scan, one, old_chunks(file, file.address(cursor), rank - 1))
    elif how == 2:
        yield from _chunked(scan, one, new_chunks(file, cursor, one.space or (), filtered=bool(one.filters)))
    elif how == 3:
        yield from _virtual(scan, one, cursor)
    else:
        raise Damaged(f"expected a layout of type 0 to 3, got {how}", cursor.start)


def _old_layout(scan: Scan, one: Entity, state: tuple[Cursor, int, int]) -> Iterator[Sign]:
    cursor, rank, how = state
    address = scan.file.address(cursor) if how in (1, 2) else None
    if how == 2:
        yield from _chunked(scan, one, old_chunks(scan.file, address, rank - 1))
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
    kind, at = one.kind, file.base + address
    if kind is None or not (kind.held or kind.size == 1):
        return
    if not kind.held:
        inert = file.source.read(at, 1) != b"{" or not keras.looks_like_config(
            file.source.read(at, min(length, _PIECE))
        )
        yield from file.desk.look(file.source.part(one.path, at, length, inert=inert))
        return
    step = max(1, _PIECE // max(1, kind.size)) * max(1, kind.size)
    for start in range(0, length, step):
        file.desk.meter.tick()
        yield from _stretch(scan, one, file.cut(address + start, min(step, length - start)))


def _stretch(scan: Scan, one: Entity, cursor: Cursor) -> Iterator[Sign]:
    """Values of text or bytes that were read."""
    kind, file = one.kind, scan.file
    if kind is None or not (kind.held or kind.size == 1):
        return
    count = cursor.left // max(1, kind.size)
    for _, data in objects.values_of(file, kind, count, cursor):
        yield from hidden(scan, one.path, data, kind)


def hidden(scan: Scan, label: str, data: bytes, kind: Kind) -> Iterator[Sign]:
    """Signs of texts or bytes that a program may unpickle or unpack; most are neither, and cost one search."""
    source, step = scan.file.source, kind.size if kind.texts else 0
    path = (*source.path, label)
    if keras.looks_like_config(data):
        yield from scan.file.desk.look(Source(source.file, data.rstrip(b"\0"), path))
    told = 0
    for at in _starts(data, kind, step):
        scan.file.desk.meter.tick()
        whole = kind.number in _WHOLE and step
        inside = Source(source.file, data[at : at + step if whole else None].rstrip(b"\0"), path, inert=True)
        pickled = b"." in inside.data and any(reader.claims(inside) for reader in pickles.READERS)
        if pickled or inside.head.startswith(_PACKED):
            yield from scan.file.desk.look(inside)
            told += 1
        if told > _MANY:  # the file is full of them: the limits of the desk would end it anyway
            raise Damaged(f"expected texts, got more than {_MANY} pickles or archives in {shown(label)}")


def _starts(data: bytes, kind: Kind, step: int) -> Iterator[int]:
    """Bytes at which a pickle or an archive may begin: with a value, and in records anywhere."""
    if (not step or kind.varied) and (_BEGIN.match(data) or (b"." in data and _IMPORTS.search(data))):
        yield 0
    if not step:
        return
    last = -1
    for found in _BEGIN.finditer(data):
        at = found.start()
        if kind.number in _WHOLE:
            if at % step or at == last:
                continue
            last = at
        yield at


def _chunked(scan: Scan, one: Entity, chunks: Iterator[Chunk]) -> Iterator[Sign]:
    """Data in chunks: texts are read; bytes only if the first chunk begins as something that is loaded does."""
    kind = one.kind
    if kind is None or not (kind.held or kind.size == 1):
        return
    whole = bytearray()
    for address, size, mask in chunks:
        scan.file.desk.meter.tick()
        cursor = scan.file.cut(address, size)
        if not kind.held and not whole and not _worth(one, mask, cursor):
            return
        data = unfiltered(scan.file, cursor.data, (one.filters, mask, kind.size), cursor.start)
        if kind.held:
            yield from _stretch(scan, one, Cursor(data, cursor.start))
        elif not whole and not _BEGIN.match(data):
            return
        else:
            scan.file.desk.meter.expand(len(data))
            whole += data
    if whole:
        yield from _stretch(scan, one, Cursor(bytes(whole), scan.file.base))


def _worth(one: Entity, mask: int, cursor: Cursor) -> bool:
    """Whether a chunk of single bytes has to be unpacked to say what it begins with: images need not be known."""
    known = all(mask >> i & 1 or number in KNOWN for i, number in enumerate(one.filters))
    return known and (bool(one.filters) or _BEGIN.match(cursor.data) is not None)


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
