"""HDF5: what leads out of the file, what hides in it, and the Keras models and pickles in its attributes.

Read by an own bounded parser, as hostile files crash the C library. Data sets of numbers are not read; texts and bytes
are looked at, as PyTables and others unpickle them.
Source: "HDF5 File Format Specification Version 3.0".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers import _hdf5_heaps as heaps
from casemate.formats.scanning.readers import _hdf5_objects as objects
from casemate.formats.scanning.readers import keras
from casemate.formats.scanning.readers._few import few
from casemate.formats.scanning.readers._hdf5_data import OUT_WHY, Entity, Scan, data_signs, hidden
from casemate.formats.scanning.readers._hdf5_file import Cursor, Message, hdf5_of, messages_of, superblock_at
from casemate.formats.scanning.readers._hdf5_kinds import kind_of
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, UNREADABLE, noted, shown
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_SPACE, _LINKS, _TYPE, _LINK, _EXTERNAL, _LAYOUT, _FILTERS, _ATTRIBUTE = 1, 2, 3, 6, 7, 8, 0xB, 0xC
_SYMBOLS, _DRIVER, _ATTRIBUTES = 0x11, 0x14, 0x15
_KNOWN: Final = frozenset(range(0x19))
_FILTERS_KNOWN: Final = {  # built in, h5py's, PyTables' and those of the plug-in package that most files use
    *range(1, 7), 305, 307, 32000, 32001, 32004, 32008, 32013, 32015, 32017, 32024, 32026,
}  # fmt: skip
_CONFIGS: Final = ("model_config", "training_config")
_PATH: Final = 200  # characters of a path that are kept
_STEP: Final = 1 << 20
_TODO: Final = 500_000
_TOLD: Final = 20  # signs of damage that are worth telling


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    yield from few(_all(source, desk))


def _all(source: Source, desk: Desk) -> Iterator[Sign]:
    file = hdf5_of(source, desk)
    scan = Scan(file)
    yield from _around(scan)
    if file.extension is not None:
        scan.todo.append((file.extension, "(superblock)"))
    scan.todo.append((file.root, ""))
    while scan.todo:
        address, path = scan.todo.pop()
        if address in scan.seen:
            continue
        scan.seen.add(address)
        desk.meter.tick()
        desk.meter.enter()
        yield from _object(scan, address, path)
    if file.end > source.size:
        raise Damaged(f"expected a file of {file.end} bytes, got {source.size}", source.size)


def _around(scan: Scan) -> Iterator[Sign]:
    """What lies before the superblock and behind the end that it tells, and data that is spread over several files."""
    source, file = scan.file.source, scan.file
    if not _blank(scan, 0, file.base):
        yield from file.desk.look(source.part("user block", 0, file.base))
    if not _blank(scan, file.end, source.size):
        why = "no library reads it: it is there for somebody else"
        what = f"{source.size - file.end} bytes behind the end of the file"
        yield scan.sign(SUSPICIOUS, "hdf5/trailing", what, why, file.end)
        yield from file.desk.look(source.part("behind the end", file.end))
    if file.driver is not None:
        what = "a file that is spread over several others"
        yield scan.sign(SUSPICIOUS, "hdf5/other-file", what, OUT_WHY, file.base)


def _blank(scan: Scan, start: int, end: int) -> bool:
    """Whether nothing but zeros lies between two bytes of the source."""
    for at in range(max(0, start), end, _STEP):
        scan.file.desk.meter.tick()
        if scan.file.source.read(at, min(_STEP, end - at)).strip(b"\0"):
            return False
    return True


def _object(scan: Scan, address: int, path: str) -> Iterator[Sign]:
    """Signs of one object; damage is told and the next message is read."""
    one = Entity(path)
    try:
        for message in messages_of(scan.file, address):
            try:
                yield from _message(scan, one, message)
            except Damaged as error:
                yield from _broken(scan, path, error)
        yield from data_signs(scan, one)
    except Damaged as error:
        yield from _broken(scan, path, error)


def _broken(scan: Scan, path: str, error: Damaged) -> Iterator[Sign]:
    scan.damaged += 1
    if scan.damaged <= _TOLD:
        what = f"{shown(path or '/')}: {error}"
        why = "what could not be read to its end could not be judged"
        yield noted(
            scan.file.source, UNREADABLE, "hdf5/damaged", what, why=why, mend="get the file again", at=error.offset
        )


def _message(scan: Scan, one: Entity, message: Message) -> Iterator[Sign]:
    file, kind = scan.file, message.kind
    cursor = Cursor(file.source.read(message.at, message.size), message.at)
    if kind == _SYMBOLS:
        for link in objects.old_links(file, message):
            yield from _link(scan, one, link)
    elif kind == _LINK:
        yield from _link(scan, one, objects.link_of(file, cursor))
    elif kind == _LINKS:
        for found in objects.dense(file, message, attributes=False):
            yield from _link(scan, one, objects.link_of(file, found))
    elif kind == _ATTRIBUTE:
        yield from _attribute(scan, one, objects.attribute_of(file, cursor))
    elif kind == _ATTRIBUTES:
        for found in objects.dense(file, message, attributes=True):
            yield from _attribute(scan, one, objects.attribute_of(file, found))
    else:
        yield from _describing(scan, one, message, cursor)


def _describing(scan: Scan, one: Entity, message: Message, cursor: Cursor) -> Iterator[Sign]:
    """Messages that say what a data set is."""
    if message.kind == _SPACE:
        one.space = objects.space_of(scan.file, cursor)
    elif message.kind == _TYPE:
        one.kind = kind_of(cursor)
    elif message.kind == _LAYOUT:
        one.layout = message
    elif message.kind == _FILTERS:
        yield from _filtered(scan, one, cursor)
    elif message.kind == _EXTERNAL:
        yield from _stored_elsewhere(scan, one, cursor)
    elif message.kind == _DRIVER and one.path == "(superblock)":
        what = "a file that is spread over several others"
        yield scan.sign(SUSPICIOUS, "hdf5/other-file", what, OUT_WHY, message.at)
    elif message.kind not in _KNOWN:
        what = f"{shown(one.path or '/')}: a message of type {message.kind}, which no library writes"
        yield scan.sign(SUSPICIOUS, "hdf5/message", what, "nobody knows what reads it", message.at)


def _link(scan: Scan, one: Entity, link: objects.Link) -> Iterator[Sign]:
    path = f"{one.path}/{link.name}"[-_PATH:]
    if link.kind == objects.HARD:
        if link.address is None:
            raise Damaged(f"expected the address of {shown(path)}, got none", link.at)
        if link.address not in scan.seen:
            scan.todo.append((link.address, path))
        if len(scan.todo) > _TODO:
            raise Damaged(f"expected at most {_TODO} links at once, got more", link.at)
    elif link.kind == objects.EXTERNAL:
        where = b" in ".join(reversed(link.value[1:].split(b"\0")[:2]))
        what = f"{shown(path)} is a link to {shown(where)}"
        yield scan.sign(MALICIOUS, "hdf5/external-link", what, OUT_WHY, link.at)
    elif link.kind > objects.EXTERNAL:
        what = f"{shown(path)} is a link of type {link.kind}, which only a program of somebody's own follows"
        yield scan.sign(SUSPICIOUS, "hdf5/user-link", what, "nobody knows where it leads", link.at)
    elif link.kind != objects.SOFT:
        raise Damaged(f"expected a link, got type {link.kind}", link.at)


def _attribute(scan: Scan, one: Entity, found: objects.Attribute) -> Iterator[Sign]:
    if not (found.kind.held or found.kind.size == 1):
        return
    source, desk = scan.file.source, scan.file.desk
    label = f"{one.path or '/'}@{found.name}"
    for at, data in objects.values_of(scan.file, found.kind, found.count, found.data):
        inside = Source(source.file, data.rstrip(b"\0"), (*source.path, label))
        if keras.looks_like_config(inside.data):
            desk.meter.expand(len(data))
            desk.formats["keras-config"] = None
            yield from keras.config_signs(inside, desk)
        elif found.name in _CONFIGS and data.strip(b"\0 \n") not in (b"", b"null", b"{}"):
            raise Damaged(f"expected JSON of a Keras model in {shown(label)}, got {shown(data[:40])}", at)
        else:
            yield from hidden(scan, label, data, found.kind)


def _filtered(scan: Scan, one: Entity, cursor: Cursor) -> Iterator[Sign]:
    version, count = cursor.number(1), cursor.number(1)
    cursor.take(6 if version == 1 else 0)
    found = []
    for _ in range(count):
        number = cursor.number(2)
        length = cursor.number(2) if version == 1 or number >= 256 else 0
        cursor.take(2)
        values = cursor.number(2)
        name = cursor.take(length)
        cursor.take(-length % 8 if version == 1 else 0)
        cursor.take(4 * values + (4 if version == 1 and values % 2 else 0))
        found.append(number)
        if number not in _FILTERS_KNOWN:
            what = f"{shown(one.path)} needs the filter {number} {shown(name.rstrip(bytes(1)))}".rstrip()
            why = "reading the data loads a native library by that number from the plug-in folders"
            yield scan.sign(SUSPICIOUS, "hdf5/filter", what, why, cursor.start)
    one.filters = tuple(found)


def _stored_elsewhere(scan: Scan, one: Entity, cursor: Cursor) -> Iterator[Sign]:
    file = scan.file
    cursor.take(6)
    used, heap = cursor.number(2), file.address(cursor)
    if heap is None:
        raise Damaged("expected the names of other files, got none", cursor.start)
    names = heaps.local_heap(file, heap)
    for _ in range(used):
        name = objects.named(names, cursor.number(file.long))
        cursor.take(2 * file.long)
        what = f"the data of {shown(one.path)} lies in {shown(name)}"
        yield scan.sign(MALICIOUS, "hdf5/other-file", what, OUT_WHY, cursor.start)


def _claims(source: Source) -> bool:
    """A superblock; behind another format's first bytes only where that is no archive, whose reader finds it too."""
    at = superblock_at(source)
    return at is not None and (at == 0 or not (source.head[:4] == b"PK\3\4" or source.head[257:262] == b"ustar"))


READERS = (Reader("hdf5", _claims, _read),)
