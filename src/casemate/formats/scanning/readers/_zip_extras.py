"""What a zip tells of its members beside names and sizes: extra fields and comments, where other names and data hide.

Source: APPNOTE.TXT 6.3.10, sections 4.5 and 4.6.9.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from casemate.formats.scanning.desk import Desk
from casemate.formats.scanning.readers._members import climbs
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.readers._zip_layout import Entry, Local
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["beside"]

_NAME = 0x7075
_SHORTEST = 16  # bytes: times, sizes and owners take less, and no payload does
_LOADED = re.compile(rb"\x80[\x01-\x05]|PK\x03\x04|\x1f\x8b\x08|\x7fELF|c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n")
_TRIED = 8  # places of one stretch
_MEND = "unpack it where nothing is run, look at every member, and pack it anew"


def beside(source: Source, desk: Desk, entry: Entry, local: Local) -> Iterator[Sign]:
    """Signs of a member's extra fields and comment: a second name, and what somebody loads from there."""
    at, extra, note = entry.more
    for start, size in ((at, extra), (local.data_at - local.extra, local.extra)):
        if size >= _SHORTEST:
            yield from _named(source, entry, start, source.read(start, size))
            yield from _hidden(source, desk, start, size)
    if note >= _SHORTEST:
        yield from _hidden(source, desk, at + extra, note)


def _hidden(source: Source, desk: Desk, start: int, size: int) -> Iterator[Sign]:
    for count, found in enumerate(_LOADED.finditer(source.read(start, size))):
        if count == _TRIED:
            return
        at = start + found.start()
        yield from desk.look(source.part(f"extra bytes at {at}", at, start + size - at, inert=True))


def _named(source: Source, entry: Entry, start: int, fields: bytes) -> Iterator[Sign]:
    """A name in Unicode, which readers take instead of the other one if its checksum is right."""
    at = 0
    while at + 9 <= len(fields):
        kind, size = struct.unpack_from("<2H", fields, at)
        value = fields[at + 4 : at + 4 + size]
        if kind == _NAME and len(value) > 5 and value[1:5] == zlib.crc32(entry.name).to_bytes(4, "little"):
            name = value[5:].decode("utf-8", "backslashreplace")
            why = "whoever unpacks it writes outside the folder that was meant"
            if reason := climbs(name):
                what = f"a member with a second name that {reason}: {shown(name)}"
                yield noted(source, MALICIOUS, "zip/path", what, why=why, mend=_MEND, at=start)
            elif not _spells(entry.name, name):
                what = f"a member listed as {shown(entry.name)} with a second name {shown(name)}"
                why = "some tools take the one and some the other"
                yield noted(source, SUSPICIOUS, "zip/two-names", what, why=why, mend=_MEND, at=start)
        at += 4 + size


def _spells(plain: bytes, name: str) -> bool:
    """Whether a plain name can stand for one in Unicode: it has all its letters that need no accents, in order."""
    left = iter(plain)
    return all(byte in left for byte in name.encode("ascii", "ignore"))
