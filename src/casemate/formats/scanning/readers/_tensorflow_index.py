"""The index of a TensorFlow checkpoint: a sorted table of names, each with where its values lie in the shards.

Sources: LevelDB's `table_format.md`, TensorFlow's `tensor_bundle.proto`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from casemate.formats.scanning.desk import Damaged, Desk
from casemate.formats.scanning.readers._protobuf import BYTES, VARINT, fields_of
from casemate.formats.scanning.readers._signs import SUSPICIOUS, noted, shown
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["index_signs", "is_index"]

_MAGIC: Final = bytes.fromhex("57fb808b247547db")
_FOOTER: Final = 48
_LARGEST: Final = 1 << 48
_DIMENSIONS: Final = 300  # no tensor has a tenth of it


def is_index(source: Source) -> bool:
    """Whether it ends as a sorted table does."""
    return not source.inert and source.size >= _FOOTER and source.read(source.size - 8) == _MAGIC


def index_signs(source: Source, desk: Desk) -> Iterator[Sign]:
    """Signs of each entry; raises `Damaged` where the table cannot be read."""
    footer = source.read(source.size - _FOOTER, _FOOTER)
    at = _number(footer, _number(footer, 0)[1])[1]  # behind the handle of the filters
    offset, at = _number(footer, at)
    size, _ = _number(footer, at)
    for _, handle in _entries(source, desk, offset, size):
        begin, after = _number(handle, 0)
        for key, value in _entries(source, desk, begin, _number(handle, after)[0]):
            if key:  # the entry without a name is the header
                yield from _entry(source, desk, key, value)


def _entry(source: Source, desk: Desk, key: bytes, value: bytes) -> Iterator[Sign]:
    sizes, told = [], {3: 0, 4: 0, 5: 0}
    for found in fields_of(value, 0, len(value), desk.meter):
        if found.wire == VARINT and found.number in told:
            told[found.number] = found.value
        elif (found.number, found.wire) == (2, BYTES):
            for dim in fields_of(value, found.start, found.end, desk.meter):
                if (dim.number, dim.wire) == (2, BYTES):
                    inner = fields_of(value, dim.start, dim.end, desk.meter)
                    sizes += [item.value for item in inner if (item.number, item.wire) == (1, VARINT)]
    if max(told.values()) >= _LARGEST or math.prod(sizes[:_DIMENSIONS]) >= _LARGEST:
        what = f"{shown(key)} has {'x'.join(map(str, sizes[:8]))} values in {told[5]} bytes at {told[4]}"
        why = "restoring it takes more memory than any machine has, or reads beyond its file"
        yield noted(source, SUSPICIOUS, "tensorflow/size", what, why=why, mend="do not restore it", at=0)


def _entries(source: Source, desk: Desk, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of one block."""
    block = source.read(offset, size + 1)
    if len(block) != size + 1 or size < 4:
        raise Damaged(f"expected a block of {size} bytes", offset)
    if block[-1]:
        raise Damaged(f"expected a block that is not compressed, got the method {block[-1]}", offset + size)
    end = size - 4 - 4 * int.from_bytes(block[size - 4 : size], "little")
    at, key = 0, b""
    while at < end:
        desk.meter.tick()
        shared, at = _number(block, at)
        fresh, at = _number(block, at)
        length, at = _number(block, at)
        if shared > len(key) or at + fresh + length > end:
            raise Damaged("expected an entry within its block", offset + at)
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + length]
        at += fresh + length


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Damaged("expected a number of a sorted table", at)
