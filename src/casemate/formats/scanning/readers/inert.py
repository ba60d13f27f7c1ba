"""Formats that are mere data: images, Parquet, Arrow. What follows an image's end is looked at.

The one way in which such a file runs code: Arrow's extension types of Python, which are pickles in the schema
(CVE-2023-47248).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator

from casemate.formats.scanning.desk import Damaged, Desk, Reader, begins
from casemate.formats.scanning.readers._signs import SUSPICIOUS, noted
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_PICKLED = b"arrow.py_extension_type"
_SCHEMA = re.compile(rb"ARROW:schema[\x00-\x1f\x80-\xff]{1,8}([A-Za-z0-9+/=]{16,})")
_JPEG_NEXT = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_BARE = frozenset(range(0xD0, 0xD8)) | {0x01}


def _image(name: str, claims: Callable[[Source], bool], end: Callable[[Source, Desk], int], firsts: bytes) -> Reader:
    """A reader of images that end at the byte that `end` gives."""

    def read(source: Source, desk: Desk) -> Iterator[Sign]:
        at = end(source, desk)
        if at > source.size:
            raise Damaged(f"expected an image of {at} bytes, got {source.size}", source.size)
        if source.read(at).strip(b"\0\n"):
            what = f"{source.size - at} bytes after the end of the image"
            why = "no viewer shows them: they are there for somebody else"
            yield noted(source, SUSPICIOUS, "image/trailing", what, why=why, mend="save the image anew", at=at)
            yield from desk.look(source.part(f"after {at}", at))

    return Reader(name, claims, read, firsts=firsts)


def _png(source: Source, desk: Desk) -> int:
    at = 8
    while True:
        desk.meter.tick()
        head = source.read(at, 8)
        if len(head) < 8:
            raise Damaged("expected a chunk of PNG, got the end of the file", at)
        at += 12 + int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND":
            return at


def _jpeg(source: Source, desk: Desk) -> int:
    at = 2
    while True:
        desk.meter.tick()
        head = source.read(at, 4)
        if len(head) < 2 or head[0] != 0xFF:
            raise Damaged("expected a marker of JPEG", at)
        if head[1] == 0xD9:
            return at + 2
        if head[1] == 0xFF or head[1] in _BARE:
            at += 1 if head[1] == 0xFF else 2
            continue
        at += 2 + int.from_bytes(head[2:4], "big")
        if head[1] == 0xDA:
            found = _JPEG_NEXT.search(source.data, min(at, source.size))
            if found is None:
                raise Damaged("expected the end of a JPEG, got the end of the file", source.size)
            at = found.start()


def _gif(source: Source, desk: Desk) -> int:
    def table(packed: int) -> int:
        return 3 << ((packed & 7) + 1) if packed & 0x80 else 0

    head = source.read(0, 13)
    if len(head) < 13:
        raise Damaged("expected a header of GIF", len(head))
    at = 13 + table(head[10])
    while True:
        desk.meter.tick()
        kind = source.read(at, 10)
        if kind[:1] == b"\x3b":
            return at + 1
        if kind[:1] == b"\x21":
            at += 2
        elif kind[:1] == b"\x2c" and len(kind) == 10:
            at += 11 + table(kind[9])
        else:
            raise Damaged("expected a block of GIF", at)
        while size := source.read(at, 1):
            at += 1 + size[0]
            if not size[0]:
                break


def _riff(source: Source, desk: Desk) -> int:
    desk.meter.tick()
    size = 8 + int.from_bytes(source.head[4:8], "little")
    return size + size % 2 if size < source.size else size


def _is_riff(source: Source) -> bool:
    return source.head[:4] == b"RIFF" and source.head[8:12] in (b"WEBP", b"WAVE")


def _is_parquet(source: Source) -> bool:
    return source.size >= 12 and source.head.startswith(b"PAR1") and source.read(source.size - 4) == b"PAR1"


def _read_parquet(source: Source, desk: Desk) -> Iterator[Sign]:
    length = int.from_bytes(source.read(source.size - 8, 4), "little")
    if length > min(source.size - 12, desk.limits.text):
        raise Damaged(f"expected a footer within the file, got {length} bytes", source.size - 8)
    footer = source.read(source.size - 8 - length, length)
    yield from _pickled(source, footer)
    for found in _SCHEMA.finditer(footer):
        try:
            yield from _pickled(source, base64.b64decode(found[1]))
        except binascii.Error as error:
            raise Damaged("expected a schema in base 64", found.start()) from error


def _read_arrow(source: Source, desk: Desk) -> Iterator[Sign]:
    """The schema at the start, and in a file the footer, which holds it again."""
    start = 8 if source.head.startswith(b"ARROW1") else 0
    lead = source.read(start, 8)
    length = int.from_bytes(lead[4:8] if lead[:4] == b"\xff" * 4 else lead[:4], "little")
    if length > min(source.size, desk.limits.text):
        raise Damaged(f"expected a schema within the file, got {length} bytes", start)
    yield from _pickled(source, source.read(start, length + 8))
    if start:
        tail = source.read(source.size - 10)
        size = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"ARROW1" or size > min(source.size, desk.limits.text):
            raise Damaged("expected a footer of Arrow's", source.size - 10)
        yield from _pickled(source, source.read(source.size - 10 - size, size))


def _pickled(source: Source, text: bytes) -> Iterator[Sign]:
    if _PICKLED in text:
        why = "pyarrow before 14.0.1 unpickles it when the file is read (CVE-2023-47248)"
        what = "an extension type that is a pickle in the schema"
        yield noted(source, SUSPICIOUS, "arrow/pickled-type", what, why=why, mend="write it with a plain schema", at=0)


def _is_arrow(source: Source) -> bool:
    head = source.head
    if head.startswith(b"ARROW1\0\0"):
        return True
    length = int.from_bytes(head[4:8], "little")
    return not source.inert and head[:4] == b"\xff" * 4 and 16 <= length < source.size and not length % 8


READERS = (
    _image("png", begins(b"\x89PNG\r\n\x1a\n"), _png, b"\x89"),
    _image("jpeg", begins(b"\xff\xd8\xff"), _jpeg, b"\xff"),
    _image("gif", begins(b"GIF87a", b"GIF89a"), _gif, b"G"),
    _image("riff", _is_riff, _riff, b"R"),
    Reader("parquet", _is_parquet, _read_parquet, firsts=b"P"),
    Reader("arrow", _is_arrow, _read_arrow, firsts=b"A\xff"),
)
