"""LZ4 frames, unpacked without a library: the format is a page long (lz4_Frame_format.md and lz4_Block_format.md)."""

from __future__ import annotations

from casemate.formats.scanning.desk import Desk
from casemate.formats.scanning.readers._members import Heap

__all__ = ["MAGIC", "unpacked"]

MAGIC = b"\x04\x22\x4d\x18"
_WINDOW = 1 << 16  # bytes back that a match can reach
_RAW = 1 << 31
_BLOCKS = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}
_SHORTEST = 4  # bytes of a match


def unpacked(data: memoryview, at: int, desk: Desk, heap: Heap) -> tuple[int, str]:
    """Unpack the frame at byte `at` into `heap`: the byte after it, and what is wrong with it.

    Checksums are not checked: a wrong one changes nothing that is read. Raises `LimitReached` for a bomb.
    """
    flags, most = bytes(data[at + 4 : at + 5]), _BLOCKS.get(data[at + 5] >> 4 & 7 if len(data) > at + 5 else 0)
    if not flags or flags[0] >> 6 != 1 or most is None:
        return at, "a frame of an unknown version"
    if flags[0] & 1:
        return at, "a frame that needs a dictionary of its own"
    at += 7 + (8 if flags[0] & 8 else 0)
    linked, checked = not flags[0] & 0x20, bool(flags[0] & 0x10)
    window = b""
    while True:
        word = bytes(data[at : at + 4])
        if len(word) < 4:
            return at, "the stream is cut short"
        size = int.from_bytes(word, "little")
        at += 4
        if not size:
            return at + (4 if flags[0] & 4 else 0), ""
        packed = bytes(data[at : at + (size & ~_RAW)])
        if size & ~_RAW > most or len(packed) < size & ~_RAW:
            return at, "the stream is cut short, or a block is too long"
        out = packed if size & _RAW else _block(packed, window, most)
        if out is None:
            return at, "a block is damaged"
        desk.meter.expand(len(out))
        desk.meter.tick()
        heap.add(out)
        window = (window + out)[-_WINDOW:] if linked else b""
        at += len(packed) + (4 if checked else 0)


def _block(packed: bytes, window: bytes, most: int) -> bytes | None:
    """The bytes of one block of at most `most`; `None` where it is damaged."""
    out, base, at, end = bytearray(window), len(window), 0, len(packed)
    while at < end:
        token = packed[at]
        literals, at = _length(packed, at + 1, token >> 4)
        out += packed[at : at + literals]
        at += literals
        if at == end:
            break
        if at + 2 > end:
            return None
        back = packed[at] | packed[at + 1] << 8
        length, at = _length(packed, at + 2, token & 15)
        length += _SHORTEST
        if not 0 < back <= len(out) or len(out) + length - base > most:
            return None
        start = len(out) - back
        out += out[start : start + length] if back >= length else (out[start:] * (length // back + 1))[:length]
    return bytes(out[base:]) if at == end and len(out) - base <= most else None


def _length(packed: bytes, at: int, first: int) -> tuple[int, int]:
    """A length whose first four bits are given, and the byte after it."""
    if first < 15:
        return first, at
    while at < len(packed):
        first += packed[at]
        at += 1
        if packed[at - 1] != 255:
            break
    return first, at
