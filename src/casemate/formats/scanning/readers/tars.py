"""Tar archives, of every dialect, read header by header; nothing is extracted."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers import _torch_tars
from casemate.formats.scanning.readers._members import Links, climbs, leaves
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS", "is_tar"]

_BLOCK = 512
_CHUNK = 1 << 20
_RECORD = re.compile(rb"(\d{1,10}) ([^=]{1,1000})=")
_DEVICES = {b"3": "a character device", b"4": "a block device", b"6": "a pipe"}
_LINKS = {b"1": "hard", b"2": "symbolic"}
_NEXT = (b"x", b"g", b"X", b"L", b"K")
_NAMING = ("path", "linkpath", "GNU.sparse.name", "size")
_RIVALS = 100
_LONGEST = 1 << 20  # bytes about one member: what is split into the parts of a path takes fifty times as much
_WIDE = 8**11  # bytes: sizes from here do not fit the header, and are told elsewhere


@dataclass(frozen=True, slots=True)
class _Header:
    """One header: `size` bytes of content follow it."""

    name: str
    target: str
    kind: bytes
    size: int
    at: int


@dataclass(slots=True)
class _Told:
    """What earlier headers tell of the next member, and of all that follow."""

    once: dict[str, str] = field(default_factory=dict)
    always: dict[str, str] = field(default_factory=dict)
    rivals: list[str] = field(default_factory=list)

    def tell(self, key: str, value: str, *, always: bool = False) -> None:
        """Take in one thing; a second that differs is kept too, for tools do not agree on which of them counts."""
        known = self.always if always else self.once
        if key in _NAMING and known.get(key, value) != value and len(self.rivals) < _RIVALS:
            self.rivals.append(known[key])
        known[key] = value

    def forget(self) -> None:
        """The next member has come."""
        self.once = {}
        self.rivals = []

    def get(self, *keys: str) -> str | None:
        """The first that is told."""
        both = {**self.always, **self.once}
        return next((both[key] for key in keys if key in both), None)


def is_tar(source: Source) -> bool:
    """Whether it begins with a header of tar, by its checksum, without which no tool goes on."""
    return len(source.head) >= _BLOCK and source.head[0] != 0 and _sums(source.head[:_BLOCK])


def _sums(head: bytes) -> bool:
    """Whether a block's checksum is that of a header, as unsigned or, in old tools, signed bytes."""
    told = _octal(head[148:156]) if head[148] < 128 else None
    if told is None:
        return False
    rest = head[:148] + b" " * 8 + head[156:]
    return told in (sum(rest), sum(rest) - 256 * sum(byte > 127 for byte in rest))


def _octal(data: bytes) -> int | None:
    """A number as Python reads it, which takes any white space around it; `None` for none."""
    try:
        return int(data.partition(b"\0")[0].decode("ascii").strip() or "0", 8)
    except ValueError:
        return None


def _number(data: bytes, at: int) -> int:
    value: int | None
    if data[0] & 0x80:
        value = int.from_bytes(data, "big", signed=data[0] == 0xFF)
        value = value if data[0] == 0xFF else value & ~(0x80 << 8 * (len(data) - 1))
    else:
        value = _octal(data)
    if value is None or value < 0:
        raise Damaged(f"expected a size, got {shown(data)}", at)
    return value


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()


def _header(source: Source, at: int) -> _Header | None:
    """The header at byte `at`; `None` where the archive ends."""
    head = source.read(at, _BLOCK)
    if not head.strip(b"\0"):
        return None
    if len(head) < _BLOCK or not _sums(head):
        raise Damaged("expected a header of tar with its checksum", at)
    name = _text(head[:100])
    prefix = _text(head[345:500]) if head[257:263] == b"ustar\0" else ""
    return _Header(
        f"{prefix}/{name}" if prefix else name, _text(head[157:257]), head[156:157], _number(head[124:136], at), at
    )


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    at, told, names, links = 0, _Told(), set[str](), Links()
    broken: Damaged | None = None
    while True:
        desk.meter.tick()
        try:
            header = _header(source, at)
            if header is None:
                break
            if header.kind in _NEXT:
                at = _about_next(source, header, told)
                continue
            yield from _twice(source, header, told, names)
            at = yield from _one(source, desk, header, told, links)
        except Damaged as error:  # where one tool stops another goes on
            broken = broken or error
            at = yield from _resumed(source, desk, at)
        told.forget()
    yield from _after(source, desk, at)
    if broken is not None:
        raise broken


def _resumed(source: Source, desk: Desk, at: int) -> Generator[Sign, None, int]:
    """Look at what follows a broken header; returns the byte of the next whole one, or the end."""
    start = at = at + _BLOCK * _sums(source.read(at, _BLOCK).ljust(_BLOCK, b"\0"))
    while at < source.size and not _sums(source.read(at, _BLOCK).ljust(_BLOCK, b"\0")):
        desk.meter.tick()
        at += _BLOCK
    if start < source.size:
        yield from desk.look(source.part(f"after {start}", start, at - start))
    return at


def _twice(source: Source, header: _Header, told: _Told, names: set[str]) -> Iterator[Sign]:
    name = told.get("GNU.sparse.name", "path") or header.name
    if name in names and header.kind not in (b"5", b"1", b"2"):
        what = f"two members named {shown(name)}"
        yield _sign(source, "tar/same-name", what, "the later one replaces the first when it is unpacked", header.at)
    names.add(name)


def _after(source: Source, desk: Desk, at: int) -> Iterator[Sign]:
    """What follows the end of the archive: zeros, or an archive that only some tools go on to."""
    for start in range(at, source.size, _CHUNK):
        desk.meter.tick()
        chunk = source.read(start, _CHUNK)
        rest = chunk.lstrip(b"\0")
        if rest:
            begin = (start + len(chunk) - len(rest)) // _BLOCK * _BLOCK
            what = f"{source.size - begin} bytes after the end of the archive"
            yield _sign(source, "tar/trailing", what, "some tools stop before them and others go on", begin)
            if begin:
                yield from desk.look(source.part(f"after {begin}", begin))
            return


def _sign(source: Source, rule: str, what: str, why: str, at: int) -> Sign:
    return noted(
        source, SUSPICIOUS, rule, what, why=why, mend="unpack it where nothing is run, and pack it anew", at=at
    )


def _about_next(source: Source, header: _Header, told: _Told) -> int:
    """Take in a header that tells of the next member; returns the byte after it."""
    start, size = header.at + _BLOCK, header.size
    if size > min(source.size - start, _LONGEST):
        raise Damaged(
            f"expected at most {min(source.size - start, _LONGEST)} bytes about the next member, got {size}", start
        )
    data = source.read(start, size)
    if header.kind in (b"L", b"K"):
        told.tell("path" if header.kind == b"L" else "linkpath", _text(data))
    else:
        for key, value in _records(data, start):
            told.tell(key, value, always=header.kind == b"g")
    return start + _padded(size)


def _records(data: bytes, start: int) -> list[tuple[str, str]]:
    """The records of an extended header, each of which tells its own length."""
    found, at = [], 0
    while at < len(data) and data[at]:
        match = _RECORD.match(data, at)
        length = int(match[1]) if match else 0
        if match is None or at + length > len(data) or match.end() >= at + length:
            raise Damaged("expected a record of an extended header", start + at)
        key = match[2].decode("utf-8", "replace")
        value = data[match.end() : at + length - 1].decode("utf-8", "surrogateescape")
        found.append((key, value.encode("utf-8", "replace").decode()))
        at += length
    return found


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _one(source: Source, desk: Desk, header: _Header, told: _Told, links: Links) -> Generator[Sign, None, int]:
    """One member; returns the byte after it."""
    name = told.get("GNU.sparse.name", "path") or header.name
    yield from _names(source, header, told, name)
    yield from _behind(source, header, name, links)
    start = header.at + _BLOCK
    folder = header.kind == b"5" or (
        header.kind == b"\0" and name.endswith("/")
    )  # the second is how old tools wrote it
    if header.kind in _LINKS or header.kind in _DEVICES or folder:
        yield from _no_file(source, header, name, told.get("linkpath") or header.target, links)
        return start
    start += _sparse(source, header)
    if header.kind == b"S" or told.get("GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.numblocks") is not None:
        what = f"{shown(name)} is stored with holes"
        yield _sign(source, "tar/sparse", what, "what it is put together to is not what lies here in one piece", start)
        if told.get("GNU.sparse.major"):
            yield from desk.look(source.part(f"{name} after its map", start + _BLOCK, header.size, inert=True))
    size = header.size
    if (wide := told.get("size")) is not None:
        if not wide.isdecimal() or len(wide) > 20:
            raise Damaged(f"expected a size, got {shown(wide)}", header.at)
        size = int(wide)
        if size != header.size and size < _WIDE:
            what = f"{shown(name)}: the extended header says {size} bytes, the header {header.size}"
            yield _sign(source, "tar/two-sizes", what, "each tool goes on at another place", header.at)
            yield from desk.look(source.part(f"{name} as the header tells it", start))
    held = min(size, max(0, source.size - start))
    inside = source.part(name, start, held)
    yield from _torch_tars.look(inside, desk) if _torch_tars.claims(inside) else desk.look(inside)
    if held < size:
        raise Damaged(f"{shown(name)}: expected {size} bytes, got {held}", start)
    return start + _padded(size)


def _sparse(source: Source, header: _Header) -> int:
    """Bytes of further headers that a sparse member of old GNU tar has."""
    if header.kind != b"S":
        return 0
    more, at = source.read(header.at + 482, 1), header.at + _BLOCK
    while more not in (b"\0", b""):
        more = source.read(at + 504, 1)
        at += _BLOCK
    return at - header.at - _BLOCK


def _named(source: Source, header: _Header, name: str) -> Iterator[Sign]:
    if reason := climbs(name):
        what = f"a member whose name {reason}: {shown(name)}"
        why = "whoever unpacks it writes outside the folder that was meant"
        yield noted(source, MALICIOUS, "tar/path", what, why=why, mend="do not unpack it", at=header.at)


def _names(source: Source, header: _Header, told: _Told, name: str) -> Iterator[Sign]:
    """Every name that is told of a member: its own, and those that other tools take."""
    yield from _named(source, header, name)
    for rival in dict.fromkeys([*told.rivals, *([header.name] if climbs(header.name) else [])]):
        if rival != name:
            yield from _named(source, header, rival)
    if told.rivals:
        what = f"{shown(name)} of which the headers before it tell two different things, {shown(told.rivals[0])} too"
        yield _sign(source, "tar/two-names", what, "some tools take the first and others the last", header.at)


def _behind(source: Source, header: _Header, name: str, links: Links) -> Iterator[Sign]:
    if reason := links.behind(name):
        what, why = f"a member that {reason}: {shown(name)}", "whoever unpacks it writes where an earlier link leads"
        level = MALICIOUS if "out of" in reason else SUSPICIOUS
        yield noted(source, level, "tar/path", what, why=why, mend="do not unpack it", at=header.at)


def _no_file(source: Source, header: _Header, name: str, target: str, links: Links) -> Iterator[Sign]:
    """Links, devices and folders, which have no content."""
    if header.kind in _DEVICES:
        what, why = f"{shown(name)} is {_DEVICES[header.kind]}", "no model needs a device"
        yield noted(source, MALICIOUS, "tar/device", what, why=why, mend="do not unpack it", at=header.at)
    reason = leaves(name, target, hard=header.kind == b"1") if header.kind in _LINKS else ""
    if header.kind == b"2":
        reason = reason or links.add(name, target)
    if reason:
        what = f"{shown(name)} is a {_LINKS[header.kind]} link to {shown(target)}, which {reason}"
        why = "whoever unpacks it and then reads or writes there reaches files outside the folder"
        yield noted(source, MALICIOUS, "tar/link", what, why=why, mend="do not unpack it", at=header.at)
    if header.size:
        what = f"{shown(name)} has no content and claims {header.size} bytes"
        yield _sign(source, "tar/size", what, "each tool goes on at another place", header.at)


READERS = (Reader("tar", is_tar, _read),)
