"""Zip archives, read by every way in which some tool reads them.

Tools differ in what they believe: the directory at the end (Python, torch), the header before each member (streaming
tools), the first or the last of two members of one name. So all of them are read, each disagreement is a sign, and
what lies between, before and after the members is looked at too.
"""

from __future__ import annotations

import mmap
import re
import stat
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers import _zip_layout as layout
from casemate.formats.scanning.readers import numpy_arrays, tars, torch_zips
from casemate.formats.scanning.readers._members import Links, climbs, leaves, special
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, UNREADABLE, noted, shown
from casemate.formats.scanning.readers._zip_contents import DEFLATED, STORED, Content, content_of
from casemate.formats.scanning.readers._zip_extras import beside
from casemate.formats.scanning.signs import Level, Sign, beyond_chance
from casemate.formats.scanning.source import Source

__all__ = ["READERS", "text_of"]

_CHUNK = 1 << 20
_CHECKED = 1 << 26  # bytes: checksums of longer stored members would cost reading tensors
_PATH = 4096  # bytes: no system follows a longer link
_TARGET = re.compile(rb"[\x20-\x7e]+")
_MARK = re.compile(rb"PK(?:\x03\x04|\x01\x02|\x05\x06|\x07\x08)")
_WHOLE = re.compile(rb"\x80[\x01-\x05]|\x89HDF\r\n\x1a\n|\x93NUMPY")  # read whole by their own readers
_ODD = "no packer writes this: it is made so that one tool sees another archive than the next"
_REPACK = "unpack it where nothing is run, look at every member, and pack it anew"


@dataclass(slots=True)
class _Zip:
    """What is known of one zip while it is read: stretches that are accounted for, checksums that are wrong."""

    source: Source
    desk: Desk
    entries: list[layout.Entry]
    spans: list[tuple[int, int]] = field(default_factory=list)
    checked: int = 0
    wrong: list[str] = field(default_factory=list)
    tensors: frozenset[str] = frozenset()
    scripts: frozenset[str] = frozenset()
    links: Links = field(default_factory=Links)

    def sign(self, level: Level, rule: str, what: str, at: int, why: str = _ODD) -> Sign:
        """A sign with the usual advice."""
        return noted(self.source, level, rule, what, why=why, mend=_REPACK, at=at)


def text_of(name: bytes) -> str:
    """A member's name, as most tools show it."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437")


def _claims(source: Source) -> bool:
    if source.head.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08PK\3\4")):
        return True
    return not source.inert and bool(layout.directories(source))  # looking at each tensor's end would cost its pages


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    lists = layout.directories(source)
    if not lists:
        at = yield from _walked(_Zip(source, desk, []), 0, source.size, hidden=False)
        if 0 < at < source.size:
            yield from desk.look(source.part(f"bytes at {at}", at))
        raise Damaged("expected a zip with a directory at its end, got none", source.size)
    state = _Zip(source, desk, [])
    yield from _listed(state, lists)
    names = [text_of(entry.name) for entry in state.entries]
    state.scripts = torch_zips.scripts(names)
    state.tensors = torch_zips.tensors(names, lambda wanted: _small(state, names.index(wanted)))
    if state.tensors and not desk.weights:
        _leap(source)
    yield from torch_zips.about(source, names)
    yield from _named_twice(state, names)
    seen: set[tuple[int, int, int, bytes]] = set()
    for entry, name in zip(state.entries, names, strict=True):
        desk.meter.tick()
        key = (entry.at, entry.method, entry.packed, entry.name)
        if key not in seen:  # a second directory repeats most of the first
            seen.add(key)
            yield from _entry(state, entry, name)
    yield from _checksums(state, names)
    yield from _overlapping(state)
    yield from _between(state, lists)


def _leap(source: Source) -> None:
    """Tell the system that a mapped file is read here and there: reading ahead would read the tensors."""
    mapped = memoryview(source.data).obj
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)


def _listed(state: _Zip, lists: list[layout.Directory]) -> Iterator[Sign]:
    """Take in the members of all directories, and what their records take up."""
    first: dict[layout.Entry, None] | None = None
    for item in lists:
        entries, end = layout.entries_of(state.source, item, state.desk)
        if first is not None and any(_holds(state.source, entry, item.record) for entry in state.entries):
            continue  # the record of a zip that lies in this one as a member, which is read as such
        if first is not None and set(entries) != set(first):
            yield state.sign(SUSPICIOUS, "zip/two-directories", "two directories that list other members", item.start)
        first = dict.fromkeys(entries) if first is None else first
        if len(entries) % (1 << 16) != item.count % (1 << 16):
            what = f"a directory that claims {item.count} members and lists {len(entries)}"
            yield state.sign(SUSPICIOUS, "zip/count", what, item.record)
        state.entries = list(dict.fromkeys([*state.entries, *entries])) if state.entries else entries
        state.spans += [(item.start, max(end, item.start)), (item.record, item.finish)]
        if item.comment:
            note = state.source.part("comment of the zip", item.finish - item.comment, item.comment)
            yield from state.desk.look(note)


def _holds(source: Source, entry: layout.Entry, at: int) -> bool:
    local = layout.local_at(source, entry.at) if entry.at < at else None
    return local is not None and local.data_at <= at < local.data_at + entry.packed


def _named_twice(state: _Zip, names: list[str]) -> Iterator[Sign]:
    for name, count in Counter(names).items():
        if count > 1:
            what = f"{count} members named {shown(name)}"
            why = "one tool reads the first, another the last: what is checked need not be what is loaded"
            yield state.sign(SUSPICIOUS, "zip/same-name", what, 0, why)


def _entry(state: _Zip, entry: layout.Entry, name: str) -> Iterator[Sign]:
    yield from _outside(state, entry, name)
    local = layout.local_at(state.source, entry.at)
    if local is None:
        what = f"{shown(name)}: no header at byte {entry.at}, where the directory says"
        yield state.sign(UNREADABLE, "zip/no-header", what, entry.at, "what could not be read could not be judged")
        return
    yield from _disagreements(state, entry, local)
    state.spans.append((local.at, _after(state.source, entry, local)))
    if name.endswith("/") and not entry.packed:
        return
    for told in _readings(entry, local):
        yield from _member(state, told, local, name)
    yield from beside(state.source, state.desk, entry, local)


def _readings(entry: layout.Entry, local: layout.Local) -> Iterator[layout.Entry]:
    """The member as the directory has it, and as its own header has it where that differs."""
    yield entry
    silent = local.flags & 8 or not local.packed
    packed, size = (entry.packed, entry.size) if silent else (local.packed, local.size)
    if (local.method, packed) != (entry.method, entry.packed):
        yield replace(entry, method=local.method, packed=packed, size=size)


def _outside(state: _Zip, entry: layout.Entry, name: str) -> Iterator[Sign]:
    why = "whoever unpacks it writes outside the folder that was meant"
    if reason := climbs(name):
        yield state.sign(MALICIOUS, "zip/path", f"a member whose name {reason}: {shown(name)}", entry.at, why)
    elif reason := state.links.behind(name):
        level = MALICIOUS if "out of" in reason else SUSPICIOUS
        yield state.sign(level, "zip/path", f"a member that {reason}: {shown(name)}", entry.at, why)
    elif "\\" in name:
        what = f"a member whose name has backslashes: {shown(name)}"
        yield state.sign(SUSPICIOUS, "zip/backslash", what, entry.at, "systems disagree on what folder it lies in")
    if kind := special(entry.mode):
        yield state.sign(MALICIOUS, "zip/device", f"{shown(name)} is {kind}", entry.at, "no model needs a device")


def _disagreements(state: _Zip, entry: layout.Entry, local: layout.Local) -> Iterator[Sign]:
    who = shown(entry.name)
    if entry.name != local.name:
        what = f"a member listed as {who} whose own header says {shown(local.name)}"
        yield state.sign(MALICIOUS, "zip/two-names", what, local.at)
        if reason := climbs(text_of(local.name)):
            yield state.sign(MALICIOUS, "zip/path", f"a header whose name {reason}: {shown(local.name)}", local.at)
    pairs = [("method", entry.method, local.method), ("encryption flag", entry.flags & 1, local.flags & 1)]
    streamed = local.flags & 8  # sizes and checksum follow the data
    if not (streamed and not local.packed | local.size | local.crc):
        pairs += [("packed size", entry.packed, local.packed), ("size", entry.size, local.size)]
    for label, listed, told in pairs:
        if listed != told and not (streamed and told in (0, 0xFFFFFFFF)):
            what = f"{who}: the directory says {label} {listed}, the member's own header {told}"
            yield state.sign(SUSPICIOUS, "zip/headers-differ", what, local.at)


def _after(source: Source, entry: layout.Entry, local: layout.Local) -> int:
    """The byte after a member: after its data, and its sizes where they follow."""
    end = local.data_at + entry.packed
    if end >= source.size:
        return end
    tail = source.read(end, 24)
    signed = tail.startswith(b"PK\7\x08")
    if not signed and not (local.flags & 8 and tail[:4] == entry.crc.to_bytes(4, "little")):
        return end
    rest = tail[8:] if signed else tail[4:20]
    wide = rest == entry.packed.to_bytes(8, "little") + entry.size.to_bytes(8, "little")
    return end + (4 if signed else 0) + (20 if wide else 12)


def _member(state: _Zip, entry: layout.Entry, local: layout.Local, name: str) -> Iterator[Sign]:
    """Look at what a member holds."""
    source, desk, method = state.source, state.desk, entry.method
    if local.data_at + entry.packed > source.size:
        what = f"{shown(name)} claims {entry.packed} bytes, and {max(0, source.size - local.data_at)} follow"
        yield state.sign(UNREADABLE, "zip/cut-short", what, local.at, "what is missing could not be judged")
    if method == DEFLATED and not desk.weights and _plain_array(state, entry, local, name):
        return
    inert = name in state.tensors
    got = content_of(source, local.data_at, entry, method, desk)
    sealed = bool((entry.flags | local.flags) & 1) and not _false_seal(entry, method, got)
    yield from _faults(state, entry, local, (name, sealed, got))
    inert = inert or torch_zips.formality(name, got.data)
    if stat.S_ISLNK(entry.mode):  # a note for who unpacks it; who reads it in place takes it for any member
        yield from _link(state, entry, name, bytes(got.data[:_PATH]))
        inert = inert or (len(got.data) < _PATH and _TARGET.fullmatch(got.data) is not None)
    inside = Source(source.file, got.data, (*source.path, name), inert=inert)
    inside.script = name in state.scripts
    if not inert and inside.size <= _CHECKED and not got.fault:
        state.checked += 1
        if zlib.crc32(got.data) != entry.crc:
            state.wrong.append(name)
    if name in state.tensors:
        desk.storage(inside)
        yield from beyond_chance(desk.look(inside))
    else:
        yield from desk.look(inside)
    if got.fault:  # a method can be claimed that is not the one
        yield from desk.look(source.part(f"{name} as it lies", local.data_at, entry.packed, inert=True))
    if got.rest:
        yield from desk.look(source.part(f"after {name}", local.data_at + entry.packed - got.rest, got.rest))


def _false_seal(entry: layout.Entry, method: int, got: Content) -> bool:
    """Whether what is marked as encrypted is not: an encrypted member has twelve bytes more, and does not inflate."""
    return method in (STORED, DEFLATED) and not got.fault and len(got.data) == entry.size


def _faults(state: _Zip, entry: layout.Entry, local: layout.Local, what: tuple[str, bool, Content]) -> Iterator[Sign]:
    """Encryption that is claimed, that is real, sizes that lie, and methods that nothing here unpacks."""
    name, sealed, got = what
    who, at = shown(name), local.at
    lost = "what could not be read could not be judged"
    if sealed:
        yield state.sign(UNREADABLE, "zip/encrypted", f"{who} is encrypted", at, lost)
        return
    if (entry.flags | local.flags) & 1:
        why = "tools that obey the mark cannot check it, torch ignores it and loads it (CVE-2025-1945)"
        yield state.sign(MALICIOUS, "zip/false-encryption", f"{who} is marked as encrypted and is not", at, why)
    if got.fault:
        yield state.sign(UNREADABLE, "zip/member", f"{who}: {got.fault}", at, lost)
    elif len(got.data) != entry.size:
        told = f"{who} claims {entry.size} bytes and unpacks to {len(got.data)}"
        yield state.sign(SUSPICIOUS, "zip/size", told, at)
    if got.rest:
        told = f"{who}: {got.rest} bytes follow the end of its stream"
        yield state.sign(SUSPICIOUS, "zip/slack", told, at, "no tool shows them, and a second reader may find them")


def _plain_array(state: _Zip, entry: layout.Entry, local: layout.Local, name: str) -> bool:
    """Whether a member is a numpy array of plain numbers from end to end, which need not be unpacked to be known."""
    if (entry.flags | local.flags) & 1 or not entry.size or entry.size > state.desk.limits.expanded:
        return False
    try:
        packed = state.source.read(local.data_at, min(entry.packed, 1 << 16))
        head = zlib.decompressobj(-15).decompress(packed, 1 << 16)
    except zlib.error:
        return False
    if len(head) >= entry.size or numpy_arrays.plain_size(head) != entry.size:
        return False
    state.desk.meter.enter()
    state.desk.formats["npy"] = None
    state.desk.members.append(("!/".join((*state.source.path, name)), entry.size))
    return True


def _link(state: _Zip, entry: layout.Entry, name: str, target: bytes) -> Iterator[Sign]:
    if reason := leaves(name, text_of(target)) or state.links.add(name, text_of(target)):
        what = f"{shown(name)} links to {shown(target)}, which {reason}"
        why = "whoever unpacks it and then reads or writes there reaches files outside the folder"
        yield state.sign(MALICIOUS, "zip/link", what, entry.at, why)


def _checksums(state: _Zip, names: list[str]) -> Iterator[Sign]:
    """Wrong checksums; torch can be told not to compute them, and then all of its are."""
    skipped = len(state.wrong) == state.checked and torch_zips.is_torch(names)
    for name in [] if skipped else state.wrong:
        what = f"{shown(name)} does not have the checksum that is told"
        why = "it was changed after it was packed; Python refuses it and torch loads it"
        yield state.sign(SUSPICIOUS, "zip/checksum", what, 0, why)


def _overlapping(state: _Zip) -> Iterator[Sign]:
    spans = sorted(set(state.spans))
    shared = sum(spans[i + 1][0] < spans[i][1] for i in range(len(spans) - 1))
    if shared:
        what = f"{shared} stretches that lie in each other"
        why = "members that share bytes unpack to far more than the file holds, or to something else in each tool"
        yield state.sign(MALICIOUS, "zip/overlap", what, spans[0][0], why)


def _between(state: _Zip, lists: list[layout.Directory]) -> Iterator[Sign]:
    """Bytes that belong to no member."""
    source, at = state.source, 0
    finish = max(item.finish for item in lists)
    whole = bool(_WHOLE.match(source.head)) or tars.is_tar(source)
    if whole and finish < source.size:
        return  # a zip within another format, whose own reader reads all of it
    for start, end in [*sorted(state.spans), (source.size, source.size)]:
        if start > at and not _zeros(state, at, start):
            at = yield from _walked(state, at, start, hidden=True)
            if at < start and not _zeros(state, at, start):
                yield from _stray(state, (at, start), finish)
        at = max(at, end)


def _stray(state: _Zip, gap: tuple[int, int], finish: int) -> Iterator[Sign]:
    at, end = gap
    place = "before" if not at else "after" if at >= finish else "between"
    label = {"before": "before the zip", "after": "after the zip", "between": f"unlisted bytes at {at}"}[place]
    what = f"{end - at} bytes {place} the members of a zip"
    why = "a file that is two things at once: each tool loads another of them"
    yield state.sign(SUSPICIOUS, f"zip/bytes-{place}", what, at, why)
    if (at, end) != (0, state.source.size):
        yield from state.desk.look(state.source.part(label, at, end - at))


def _walked(state: _Zip, at: int, end: int, *, hidden: bool) -> Generator[Sign, None, int]:
    """Members by their own headers, one after the other; returns the byte after the last."""
    while at < end and (local := layout.local_at(state.source, at)) is not None:
        state.desk.meter.tick()
        name = text_of(local.name)
        if hidden:
            what = f"{shown(name)} is in no directory"
            why = "tools that read a zip as a stream see it, the others do not"
            yield state.sign(SUSPICIOUS, "zip/hidden-member", what, at, why)
        entry = _as_listed(state, local, end)
        yield from _outside(state, entry, name)
        after = min(end, max(_after(state.source, entry, local), at + 30))
        if not (name.endswith("/") and not entry.packed):
            yield from _member(state, entry, local, name)
        at = after
    return at


def _as_listed(state: _Zip, local: layout.Local, end: int) -> layout.Entry:
    packed, size = local.packed, local.size
    if local.flags & 8 and not packed:  # it ends where the next record begins, for all that its header tells
        found = _MARK.search(state.source.data, min(local.data_at, end), end)
        packed = max(0, (found.start() if found else end) - local.data_at)
        size = packed if local.method == STORED else 0
    return layout.Entry(local.name, local.flags, local.method, local.crc, packed, size, local.at, 0)


def _zeros(state: _Zip, at: int, end: int) -> bool:
    for start in range(at, end, _CHUNK):
        state.desk.meter.tick()
        if state.source.read(start, min(_CHUNK, end - start)).strip(b"\0"):
            return False
    return True


def _small(state: _Zip, index: int) -> bytes:
    """A member that torch reads first, empty where it cannot be read."""
    entry = state.entries[index]
    local = layout.local_at(state.source, entry.at)
    if local is None or entry.size > state.desk.limits.text:
        return b""
    return bytes(content_of(state.source, local.data_at, entry, entry.method, state.desk).data)


READERS = (Reader("zip", _claims, _read),)
