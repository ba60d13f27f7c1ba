"""TFRecord: records with their lengths and checksums, as TensorBoard's event files beside a model; mere data.

What loads it gets the bytes of each record and nothing else, so that only the frame is read: a length in 8 bytes, its
checksum, the record, its checksum.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_HEAD, _FOOT = 12, 4  # bytes around a record


@cache
def _table() -> tuple[int, ...]:
    """CRC-32C of each byte (Castagnoli's polynomial)."""
    found = list(range(256))
    for _ in range(8):
        found = [rest >> 1 ^ (0x82F63B78 if rest & 1 else 0) for rest in found]
    return tuple(found)


def _masked(data: bytes) -> bytes:
    """The checksum of some bytes as TFRecord writes it: turned by 15 bits, with a constant added."""
    rest, table = 0xFFFFFFFF, _table()
    for byte in data:
        rest = table[(rest ^ byte) & 0xFF] ^ rest >> 8
    rest ^= 0xFFFFFFFF
    turned = (rest >> 15 | rest << 17) + 0xA282EAD8
    return (turned & 0xFFFFFFFF).to_bytes(4, "little")


def _claims(source: Source) -> bool:
    head = source.head
    return not source.inert and head[4:8] == bytes(4) and len(head) >= _HEAD and _masked(head[:8]) == head[8:_HEAD]


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    at = 0
    while at < source.size:
        desk.meter.tick()
        head = source.read(at, _HEAD)
        if len(head) < _HEAD or _masked(head[:8]) != head[8:]:
            raise Damaged("expected the length of a record with its checksum", at)
        at += _HEAD + int.from_bytes(head[:8], "little") + _FOOT
    if at > source.size:
        raise Damaged(f"expected a record that ends at byte {at}, got the end of the file", source.size)
    yield from ()


READERS = (Reader("tfrecord", _claims, _read),)
