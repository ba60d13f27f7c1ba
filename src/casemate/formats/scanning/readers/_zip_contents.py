"""What a member of a zip holds, by each method that Python and torch unpack."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from dataclasses import dataclass

from casemate.formats.scanning.desk import Desk
from casemate.formats.scanning.readers import _zstd
from casemate.formats.scanning.readers._members import Decoder, Heap, Inflater, pour
from casemate.formats.scanning.readers._zip_layout import Entry
from casemate.formats.scanning.source import Source

__all__ = ["DEFLATED", "STORED", "Content", "content_of"]

STORED, DEFLATED, _BZIP2, _LZMA, _ZSTD = 0, 8, 12, 14, 93
_NAMES = {9: "Deflate64", 95: "XZ", 97: "WavPack", 98: "PPMd", 99: "AES encryption"}
_MEMORY = 1 << 27  # bytes of dictionary that an LZMA stream may ask for


@dataclass(frozen=True, slots=True)
class Content:
    """What was unpacked, why no more of it, and how many packed bytes follow the end of its stream."""

    data: bytes | memoryview
    fault: str = ""
    rest: int = 0


def content_of(source: Source, at: int, entry: Entry, method: int, desk: Desk) -> Content:
    """The bytes of a member whose packed bytes begin at `at`; stored ones are not copied.

    Raises `LimitReached` for a bomb.
    """
    view = memoryview(source.data)
    if method == STORED:
        length = max(entry.packed, entry.size) if not entry.flags & 1 else entry.packed
        return Content(view[at : at + length])
    packed = view[at : at + entry.packed]
    with Heap() as heap:
        if method == _ZSTD:
            end, fault = _zstd.unpacked(packed, 0, desk, heap)
            return Content(heap.done(), fault, 0 if fault else len(packed) - end)
        try:
            make, skipped = _decoder(packed, method)
        except (lzma.LZMAError, ValueError, IndexError) as error:
            return Content(b"", f"the stream is damaged ({error})")
        if make is None:
            name = _NAMES.get(method, "unknown")
            return Content(b"", f"packed by method {method} ({name}), which nothing here unpacks: pack it with deflate")
        end, fault = pour(make, packed, skipped, desk, heap)
        if method == _LZMA and heap.size == entry.size and end == len(packed):
            fault = ""  # its end may be told by the size alone
        return Content(heap.done(), fault, 0 if fault else len(packed) - end)


def _decoder(packed: memoryview, method: int) -> tuple[Callable[[], Decoder] | None, int]:
    """What makes its unpacker, and how many bytes come before its stream."""
    if method == DEFLATED:
        return lambda: Inflater(-15), 0
    if method == _BZIP2:
        return bz2.BZ2Decompressor, 0
    if method == _LZMA:
        length = packed[2] | packed[3] << 8
        options = packed[4 : 4 + length]
        first, size = options[0], int.from_bytes(options[1:5], "little")
        if size > _MEMORY:
            raise ValueError("it asks for too large a dictionary")
        rest, pb = divmod(first, 45)[::-1]
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": size, "pb": pb, "lp": rest // 9, "lc": rest % 9}]
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters), 4 + length
    return None, 0
