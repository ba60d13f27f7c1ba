"""HDF5's chunks: the pieces that a data set is cut into, by each of the indexes that list them, and their filters.

Source: "HDF5 File Format Specification Version 3.0", sections III.A.1, III.A.2, VII.A to VII.D; LZF by its C source.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.readers import _hdf5_heaps as heaps
from casemate.formats.scanning.readers._hdf5_file import Cursor, Hdf5

__all__ = ["KNOWN", "Chunk", "new_chunks", "old_chunks", "unfiltered"]

_SINGLE, _IMPLICIT, _FIXED, _EXTENSIBLE, _TREE = range(1, 6)
_DEFLATE, _SHUFFLE, _FLETCHER, _LZF = 1, 2, 3, 32000
KNOWN: Final = frozenset({_DEFLATE, _SHUFFLE, _FLETCHER, _LZF})  # filters that are undone here
_STEP: Final = 1 << 20
_TREES: Final = (10, 11)  # of chunks without filters, and with
_BITS: Final = 64

Chunk = tuple[int, int, int]  # address, size in bytes, filters that are skipped (a mask)


def old_chunks(file: Hdf5, address: int | None, rank: int) -> Iterator[Chunk]:
    """The chunks below a tree of version 1, in their order, none without an address; raises `Damaged`."""
    if address is not None:
        yield from heaps.chunks_of(file, address, rank)


def new_chunks(file: Hdf5, cursor: Cursor, space: tuple[int, ...], *, filtered: bool) -> Iterator[Chunk]:
    """The chunks of a layout of version 4, by whatever index; raises `Damaged`."""
    flags, rank, wide = cursor.number(1), cursor.number(1), cursor.number(1)
    sizes = [cursor.number(wide) for _ in range(rank)]
    index, size = cursor.number(1), math.prod(sizes)
    if not size:
        raise Damaged("expected chunks that hold something", cursor.start)
    if index == _SINGLE:
        told = (cursor.number(file.long), cursor.number(4)) if flags & 2 else (size, 0)
        yield from ((at, *told) for at in (file.address(cursor),) if at is not None)
        return
    cursor.take({_IMPLICIT: 0, _FIXED: 1, _EXTENSIBLE: 5, _TREE: 6}.get(index, 0))
    address = file.address(cursor)
    if address is None:
        return
    if index == _IMPLICIT:
        count = math.prod(-(-side // part) for side, part in zip(space, sizes, strict=False))
        for at in range(count):
            file.desk.meter.tick()
            yield address + at * size, size, 0
    elif index == _FIXED:
        yield from _listed(file, _fixed(file, address), size, filtered=filtered)
    elif index == _EXTENSIBLE:
        yield from _listed(file, _extensible(file, address), size, filtered=filtered)
    elif index == _TREE:
        yield from _treed(file, address, size, rank - 1)
    else:
        raise Damaged(f"expected an index of chunks of type 1 to 5, got {index}", cursor.start)


def _listed(file: Hdf5, stretches: Iterator[tuple[Cursor, int]], size: int, *, filtered: bool) -> Iterator[Chunk]:
    """The chunks told by entries of so many bytes each; chunks that were never written have no address."""
    for stretch, width in stretches:
        if width < file.wide + (5 if filtered else 0):
            raise Damaged(f"expected an entry for a chunk, got {width} bytes", stretch.start)
        while stretch.left >= width:
            file.desk.meter.tick()
            at = file.address(stretch)
            length = stretch.number(width - file.wide - 4) if filtered else size
            mask = stretch.number(4) if filtered else 0
            if not filtered:
                stretch.take(width - file.wide)
            if at is not None:
                yield at, length, mask


def _treed(file: Hdf5, address: int, size: int, rank: int) -> Iterator[Chunk]:
    for kind, record in heaps.records_of(file, address):
        if kind not in _TREES:
            raise Damaged(f"expected a tree of chunks, got type {kind}", file.base + address)
        entry = Cursor(record, file.base + address)
        at, length, mask = file.address(entry), size, 0
        if kind == _TREES[1]:
            length, mask = entry.number(max(0, len(record) - file.wide - 4 - 8 * rank)), entry.number(4)
        if at is not None:
            yield at, length, mask


def _fixed(file: Hdf5, address: int) -> Iterator[tuple[Cursor, int]]:
    """The stretches of entries of a fixed array, and the bytes of one entry."""
    head = file.signed(address, b"FAHD", 4 + file.long + file.wide)
    head.take(2)
    width, bits, count = head.number(1), head.number(1), head.number(file.long)
    block = file.address(head)
    if block is None:
        return
    if bits >= _BITS or not width or count * width > file.source.size:
        raise Damaged(f"expected an index of {count} chunks within the file", head.start)
    lead = 6 + file.wide
    file.signed(block, b"FADB", 0)
    page = 1 << bits
    if count <= page:
        yield file.cut(block + lead, count * width), width
        return
    pages = -(-count // page)
    made = file.cut(block + lead, -(-pages // 8)).data
    at = block + lead + len(made) + 4
    for number in range(pages):
        held = min(page, count - number * page)
        if _is_set(file, made, number):
            yield file.cut(at, held * width), width
        at += page * width + 4


def _is_set(file: Hdf5, bits: bytes, number: int) -> bool:
    """Whether a bit is set, counted from the highest of the first byte."""
    file.desk.meter.tick()
    return bool(bits[number >> 3] & (0x80 >> (number & 7)))


def _extensible(file: Hdf5, address: int) -> Iterator[tuple[Cursor, int]]:
    """The stretches of entries of an extensible array, whose blocks double in size from time to time."""
    head = file.signed(address, b"EAHD", 8 + 6 * file.long + file.wide)
    head.take(2)
    width, bits, first, least, pointers, page_bits = (head.number(1) for _ in range(6))
    head.take(6 * file.long)
    index = file.address(head)
    if index is None:
        return
    if not width or not least or not pointers or bits > _BITS or least & (least - 1) or pointers & (pointers - 1):
        raise Damaged("expected the sizes of an extensible array's blocks", head.start)
    rows = max(0, 1 + bits - (least.bit_length() - 1))  # super blocks in all, the first of which lie in the index
    direct = 2 * (pointers.bit_length() - 1)
    body = file.signed(index, b"EAIB", 2 + file.wide + first * width + (2 * (pointers - 1)) * file.wide)
    body.take(2 + file.wide)
    yield Cursor(body.take(first * width), body.start + body.at), width
    shape = (width, -(-bits // 8), page_bits)
    for row in range(min(direct, rows)):
        for _ in range(1 << row // 2):
            block = file.address(body)
            if block is not None:
                yield from _data_block(file, block, least << (row + 1) // 2, (*shape, None))
    tail = file.cut(index + 4 + len(body.data) - 4, max(0, rows - direct) * file.wide)
    for row in range(direct, rows):
        block = file.address(tail)
        if block is not None:
            yield from _super_block(file, block, (row, least), shape)


def _super_block(
    file: Hdf5, address: int, row_of: tuple[int, int], shape: tuple[int, int, int]
) -> Iterator[tuple[Cursor, int]]:
    (row, least), (_, offsets, page_bits) = row_of, shape
    blocks, held = 1 << row // 2, least << (row + 1) // 2
    file.signed(address, b"EASB", 0)
    at = address + 6 + file.wide + offsets
    pages = held >> page_bits if held > 1 << page_bits else 0
    told = blocks * -(-pages // 8)  # bytes that say which pages of all blocks were made
    if told + blocks * file.wide > file.source.size:
        raise Damaged(f"expected {blocks} blocks of an extensible array within the file", file.base + address)
    bits = file.cut(at, told).data
    places = file.cut(at + told, blocks * file.wide)
    for number in range(blocks):
        block = file.address(places)
        if block is not None:
            made = (first for first in range(number * pages, (number + 1) * pages) if _is_set(file, bits, first))
            yield from _data_block(file, block, held, (*shape, (page - number * pages for page in made)))


def _data_block(
    file: Hdf5, address: int, held: int, shape: tuple[int, int, int, Iterable[int] | None]
) -> Iterator[tuple[Cursor, int]]:
    """A block of `held` entries, in pages if they are many; the numbers of those that were made are given."""
    width, offsets, page_bits, made = shape
    file.signed(address, b"EADB", 0)
    at, page = address + 6 + file.wide + offsets, 1 << page_bits
    if held <= page:
        yield file.cut(at, held * width), width
        return
    if made is None:
        raise Damaged("expected a block without pages in the index itself", file.base + address)
    for number in made:
        yield file.cut(at + 4 + number * (page * width + 4), page * width), width


def unfiltered(file: Hdf5, data: bytes, how: tuple[tuple[int, ...], int, int], at: int) -> bytes:
    """A chunk's bytes as they were before its filters; `how`: the filters, those skipped, bytes of one value.

    Raises `Damaged`, also for filters that nothing here knows, and `LimitReached` for a bomb.
    """
    filters, mask, width = how
    for index, number in reversed(list(enumerate(filters))):
        if mask >> index & 1:
            continue
        if number == _DEFLATE:
            data = _inflated(file, data, at)
        elif number == _SHUFFLE:
            data = _unshuffled(data, width)
        elif number == _FLETCHER:
            data = data[:-4]
        elif number == _LZF:
            data = _unpacked(file, data, at)
        else:
            raise Damaged(f"expected a chunk of texts without the filter {number}", at)
    return data


def _inflated(file: Hdf5, data: bytes, at: int) -> bytes:
    unpacker = zlib.decompressobj()
    out = bytearray()
    try:
        while data and not unpacker.eof:
            step = unpacker.decompress(data, _STEP)
            file.desk.meter.expand(len(step))
            out += step
            data = unpacker.unconsumed_tail
    except zlib.error as error:
        raise Damaged(f"expected a chunk that inflates ({error})", at) from error
    return bytes(out)


def _unshuffled(data: bytes, width: int) -> bytes:
    if width < 2:
        return data
    count = len(data) // width
    out = bytearray(data)
    for place in range(width):
        out[place : count * width : width] = data[place * count : (place + 1) * count]
    return bytes(out)


def _unpacked(file: Hdf5, data: bytes, at: int) -> bytes:
    """A chunk packed by LZF: runs of bytes, and repetitions of what came before."""
    out, here = bytearray(), 0
    file.desk.meter.expand(len(data))
    try:
        while here < len(data):
            control = data[here]
            here += 1
            if control < 32:
                out += data[here : here + control + 1]
                here += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[here]
                here += 1
            start = len(out) - ((control & 31) << 8 | data[here]) - 1
            here += 1
            if start < 0:
                raise Damaged("expected a chunk packed by LZF", at)
            file.desk.meter.expand(length)
            file.desk.meter.tick()
            piece = out[start : start + length + 2]
            out += (piece * (length + 2))[: length + 2]
    except IndexError as error:
        raise Damaged("expected a chunk packed by LZF", at) from error
    return bytes(out)
