"""A zip file's own account of itself: the directories at its end, and the headers before each member."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from casemate.formats.scanning.desk import Desk
from casemate.formats.scanning.limits import LimitReached
from casemate.formats.scanning.source import Source

__all__ = ["Directory", "Entry", "Local", "directories", "ends", "entries_of", "local_at"]

_TAIL = 22 + 0xFFFF
_END, _END64, _LOCATOR = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_LISTED, _LOCAL = b"PK\1\2", b"PK\3\4"
_END_FORM = struct.Struct("<4s4H2LH")
_END64_FORM = struct.Struct("<4sQ2H2L4Q")
_LISTED_FORM = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL_FORM = struct.Struct("<4s5H3L2H")
_FULL, _FULL16 = 0xFFFFFFFF, 0xFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """A member as the directory tells it: `at` is the byte of its local header, `mode` its Unix mode or 0.

    `more`: first byte and length of its extra fields in the directory, and the length of its comment after them.
    """

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    at: int
    mode: int
    more: tuple[int, int, int] = field(default=(0, 0, 0), compare=False)


@dataclass(frozen=True, slots=True)
class Local:
    """A member as the header before it tells it: its bytes begin at `data_at`, `extra` bytes of fields before it."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    at: int
    data_at: int
    extra: int = 0


@dataclass(frozen=True, slots=True)
class Directory:
    """One list of members: at bytes `start` to `end`; its end record at `record` to `finish`, the comment included.

    `shift` is how far the offsets in it are off (bytes put before the zip); `count` how many members it claims.
    """

    start: int
    end: int
    record: int
    finish: int
    shift: int
    count: int
    comment: int


def ends(source: Source) -> Iterator[int]:
    """Bytes at which an end record may begin, in the order in which tools try them: the last first."""
    base = max(0, source.size - _TAIL)
    tail = source.read(base)
    at = len(tail)
    while (at := tail.rfind(_END, 0, at)) >= 0:
        if at + _END_FORM.size <= len(tail):
            yield base + at


def directories(source: Source) -> list[Directory]:
    """All lists of members that an end record in the tail points at, the one most tools read first."""
    found: dict[int, Directory] = {}
    for record in ends(source):
        for item in _candidates(source, record):
            found.setdefault(item.start, item)
        if len(found) > 64:  # no two tools differ so often
            break
    return list(found.values())


def _candidates(source: Source, record: int) -> Iterator[Directory]:
    _, _, _, _, count, size, offset, note = _END_FORM.unpack(source.read(record, _END_FORM.size))
    comment = min(note, source.size - record - _END_FORM.size)
    finish = record + _END_FORM.size + comment
    claims = [(count, size, offset, record, record)]
    if wide := _wide(source, record):
        claims.insert(0, wide)
    for many, length, where, until, first in claims:
        for start in dict.fromkeys((until - length, where)):
            if 0 <= start <= record and _begins_directory(source, start, length, until):
                end = min(start + length, record)
                yield Directory(start, end, first, finish, start - where, many, comment)


def _begins_directory(source: Source, start: int, length: int, until: int) -> bool:
    """Whether a list begins there; how many members it claims is no matter, for Python does not ask."""
    return source.read(start, 4) == _LISTED or (start == until and not length)


def _wide(source: Source, record: int) -> tuple[int, int, int, int, int] | None:
    """Count, size, offset, end and first byte of the zip64 record, where there is one."""
    locator = record - 20
    if locator < 0 or source.read(locator, 4) != _LOCATOR:
        return None
    (told,) = struct.unpack("<Q", source.read(locator + 8, 8))
    for at in (locator - _END64_FORM.size, told):
        head = source.read(at, _END64_FORM.size) if 0 <= at < locator else b""
        if len(head) == _END64_FORM.size and head.startswith(_END64):
            fields = _END64_FORM.unpack(head)
            return fields[7], fields[8], fields[9], at, at
    return None


def entries_of(source: Source, directory: Directory, desk: Desk) -> tuple[list[Entry], int]:
    """The members of a directory, and the byte after its last; raises `LimitReached` for too many."""
    found, at = [], directory.start
    data = memoryview(source.data)
    size = _LISTED_FORM.size
    while at + size <= directory.record and data[at : at + 4] == _LISTED:
        fields = _LISTED_FORM.unpack(data[at : at + size])
        system, flags, method, crc, packed, full = fields[2], *fields[5:7], *fields[9:12]
        name, extra, note = fields[12:15]
        outer, where = fields[17:19]
        more = bytes(data[at + size + name : at + size + name + extra])
        full, packed, where = _widened(more, full, packed, where)
        found.append(
            Entry(
                bytes(data[at + size : at + size + name]), flags, method, crc, packed, full,
                where + directory.shift, outer >> 16 if system in (3, 19) or outer >> 16 else 0,
                (at + size + name, extra, note),
            )
        )  # fmt: skip
        at += size + name + extra + note
        if len(found) > desk.limits.members:
            raise LimitReached("limits/members", f"lists more than {desk.limits.members:,} members")
        if not len(found) % 4096:
            desk.meter.tick()
    return found, at


def _widened(extra: bytes, *values: int) -> list[int]:
    """Values of which those that are all ones are told by the zip64 field."""
    found, at = list(values), 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            for i, value in enumerate(found):
                if value == _FULL and len(field) >= 8:
                    found[i], field = int.from_bytes(field[:8], "little"), field[8:]
        at += 4 + length
    return found


def local_at(source: Source, at: int) -> Local | None:
    """The header at byte `at`, where there is one."""
    head = source.read(at, _LOCAL_FORM.size) if 0 <= at < source.size else b""
    if len(head) < _LOCAL_FORM.size or not head.startswith(_LOCAL):
        return None
    _, _, flags, method, _, _, crc, packed, full, name, extra = _LOCAL_FORM.unpack(head)
    begin = at + _LOCAL_FORM.size
    full, packed = _widened(source.read(begin + name, extra), full, packed)
    return Local(source.read(begin, name), flags, method, crc, packed, full, at, begin + name + extra, extra)
