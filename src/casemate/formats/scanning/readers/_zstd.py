"""Frames of Zstandard: where each ends, by its own account, so that what follows it is known; unpacked by `zstandard`.

Source: RFC 8878, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator

from casemate.formats.scanning.desk import Desk
from casemate.formats.scanning.readers._members import Heap

__all__ = ["MAGICS", "asides", "unpacked"]

_MAGIC = b"\x28\xb5\x2f\xfd"
_ASIDES = tuple(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
MAGICS = (_MAGIC, *_ASIDES)
_MEMORY = 1 << 27  # bytes of dictionary that a frame may ask for
_STEP = 1 << 18
_MOST = 10_000
_RAW_OF_ONE = 1  # the type of a block that is one byte, many times


def unpacked(data: memoryview, at: int, desk: Desk, heap: Heap) -> tuple[int, str]:
    """Unpack the frame at byte `at` into `heap`: the byte after it, and what is wrong with it.

    Raises `LimitReached` for a bomb.
    """
    import zstandard

    end = _end(data, at, desk)
    if data[at : at + 4] != _MAGIC:
        return end, "" if end <= len(data) else "a frame that is cut short"
    reader = zstandard.ZstdDecompressor(max_window_size=_MEMORY).stream_reader(data[at:end], read_across_frames=False)
    try:
        while out := reader.read(_STEP):
            desk.meter.expand(len(out))
            desk.meter.tick()
            heap.add(out)
    except zstandard.ZstdError as error:
        return min(end, len(data)), f"the stream is damaged ({error})"
    return min(end, len(data)), "" if end <= len(data) else "the stream is cut short"


def asides(data: memoryview, desk: Desk) -> Iterator[tuple[int, int]]:
    """First byte and length of what lies in frames that are to be skipped, the first of them."""
    at = 0
    for _ in range(_MOST):
        if bytes(data[at : at + 4]) not in MAGICS:
            return
        end = _end(data, at, desk)
        if data[at : at + 4] != _MAGIC and end - at > 8:
            yield at + 8, end - at - 8
        at = end


def _end(data: memoryview, at: int, desk: Desk) -> int:
    """The byte after a frame, which may lie behind the end of the data."""
    if data[at : at + 4] != _MAGIC:
        return at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    told = data[at + 4] if at + 4 < len(data) else 0
    single = bool(told & 0x20)
    at += 5 + (not single) + (0, 1, 2, 4)[told & 3] + (int(single), 2, 4, 8)[told >> 6]
    last = False
    while not last:
        desk.meter.tick()
        if at + 3 > len(data):
            return len(data) + 1
        head = int.from_bytes(data[at : at + 3], "little")
        last = bool(head & 1)
        at += 3 + (1 if head >> 1 & 3 == _RAW_OF_ONE else head >> 3)
    return at + (4 if told & 4 else 0)
