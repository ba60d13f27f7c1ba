"""HDF5's skeleton: the superblock, object headers with their messages, and addresses that are checked before each read.

Source: "HDF5 File Format Specification Version 3.0", sections II and IV.A.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from casemate.formats.scanning.desk import Damaged, Desk
from casemate.formats.scanning.source import Source

__all__ = ["MAGIC", "Cursor", "Hdf5", "Message", "hdf5_of", "messages_of", "shared_message", "superblock_at"]

MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_CONTINUED: Final = 0x10
_SHARED: Final = 0x02
_PIECE: Final = 1 << 26  # bytes that are read at once
_BLOCKS: Final = 10_000  # continuations of one header


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an object header: its type, and where its content lies (from the start of the source)."""

    kind: int
    at: int
    size: int


class Cursor:
    """Little-endian numbers one after the other; raises `Damaged` past the end of its bytes, which begin at `start`."""

    __slots__ = ("at", "data", "start")

    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.start = start
        self.at = 0

    @property
    def left(self) -> int:
        """Bytes that follow."""
        return len(self.data) - self.at

    def take(self, n: int) -> bytes:
        """The next `n` bytes; raises `Damaged` where fewer are left."""
        if n > self.left:
            raise Damaged(f"expected {n} bytes of HDF5, got {self.left}", self.start + self.at)
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, n: int) -> int:
        """The next `n` bytes as a number; raises `Damaged` where fewer are left."""
        return int.from_bytes(self.take(n), "little")

    def name(self) -> bytes:
        """The bytes before the next NUL, which is passed; raises `Damaged` where there is none."""
        begin, end = self.at, self.data.find(b"\0", self.at)
        if end < 0:
            raise Damaged("expected a name that ends with NUL", self.start + begin)
        self.at = end + 1
        return self.data[begin:end]


@dataclass(slots=True)
class Hdf5:
    """An open file: where its addresses count from, how wide they are, its root, and the addresses of other parts."""

    source: Source
    desk: Desk
    base: int
    wide: int  # bytes of an address
    long: int  # bytes of a length
    root: int = 0
    end: int = 0
    extension: int | None = None
    driver: int | None = None
    collections: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)

    def cut(self, address: int, n: int) -> Cursor:
        """`n` bytes at an address; raises `Damaged` where they are not all in the file."""
        at = self.base + address
        if n > _PIECE:
            raise Damaged(f"expected at most {_PIECE} bytes in one piece, got {n}", at)
        if n < 0 or at + n > self.source.size:
            raise Damaged(f"expected {n} bytes at address {address}, got a file of {self.source.size}", at)
        return Cursor(self.source.read(at, n), at)

    def address(self, cursor: Cursor) -> int | None:
        """The next address, `None` where it is undefined (all bits set)."""
        value = cursor.number(self.wide)
        return None if value == (1 << (8 * self.wide)) - 1 else value

    def signed(self, address: int, magic: bytes, n: int) -> Cursor:
        """`n` bytes after a four-letter mark; raises `Damaged` where it is not there."""
        cursor = self.cut(address, n + 4)
        if (got := cursor.take(4)) != magic:
            raise Damaged(f"expected {magic.decode()}, got {got!r}", cursor.start)
        return cursor


def superblock_at(source: Source) -> int | None:
    """Where the superblock begins: at 0, 512, 1024, 2048, ...; `None` where it does not."""
    if source.head.startswith(MAGIC):
        return 0
    at = 512
    while not source.inert and at + 8 <= source.size:
        if source.read(at, 8) == MAGIC:
            return at
        at *= 2
    return None


def hdf5_of(source: Source, desk: Desk) -> Hdf5:
    """The superblock, read.

    Raises `Damaged` for versions that nobody has written, and widths that no library reads.
    """
    at = superblock_at(source) or 0
    cursor = Cursor(source.read(at, 160), at)
    cursor.take(8)
    version = cursor.number(1)
    if version > 3:
        raise Damaged(f"expected a superblock of version 0 to 3, got {version}", at + 8)
    cursor.take(4 if version < 2 else 0)
    file = Hdf5(source, desk, at, cursor.number(1), cursor.number(1))
    if file.wide not in (2, 4, 8) or file.long not in (2, 4, 8):
        raise Damaged(f"expected widths of 2, 4 or 8 bytes, got {file.wide} and {file.long}", at)
    cursor.take({0: 9, 1: 13}.get(version, 1))
    base = file.address(cursor)
    extra = file.address(cursor)  # free space (never used) before version 2, then the superblock's extension
    end = file.address(cursor)
    if version < 2:
        file.driver = file.address(cursor)
        cursor.take(file.wide)
    else:
        file.extension = extra
    root = file.address(cursor)
    if base is None or end is None or root is None:
        raise Damaged("expected the addresses of the root and the end, got none", at)
    file.base = at  # what the library does when the two differ: the file was moved behind a user block
    file.root = root
    file.end = end - (base - at)
    if file.end <= cursor.start + cursor.at:
        raise Damaged(f"expected an end behind the superblock, got {file.end}", at)
    return file


def messages_of(file: Hdf5, address: int) -> Iterator[Message]:
    """The messages of the object header at an address, shared ones resolved.

    Raises `Damaged` where they cannot be followed, among them continuations that repeat.
    """
    for kind, flags, at, size in _raw(file, address):
        if flags & _SHARED and kind != _CONTINUED:
            yield shared_message(file, kind, at, size)
        else:
            yield Message(kind, at, size)


def _raw(file: Hdf5, address: int) -> Iterator[tuple[int, int, int, int]]:
    head = file.cut(address, 16) if file.source.size - file.base - address >= 16 else file.cut(address, 12)
    new = head.data[:4] == b"OHDR"
    blocks = [_first_new(file, address, head) if new else _first_old(address, head)]
    order = 2 if new and head.data[5] & 4 else 0
    seen: set[int] = set()
    while blocks:
        file.desk.meter.tick()
        where, size = blocks.pop()
        if where in seen or len(seen) > _BLOCKS:
            raise Damaged("expected a header whose parts follow each other, got a circle", file.base + where)
        seen.add(where)
        for kind, flags, at, length in _listed(file, file.cut(where, size), new=new, order=order):
            yield kind, flags, at, length
            if kind == _CONTINUED:
                blocks.append(_next(file, Cursor(file.source.read(at, length), at), new=new))


def _first_old(address: int, head: Cursor) -> tuple[int, int]:
    if head.data[0] != 1:
        raise Damaged(f"expected an object header, got {head.data[:4]!r}", head.start)
    return address + 16, int.from_bytes(head.data[8:12], "little")


def _first_new(file: Hdf5, address: int, head: Cursor) -> tuple[int, int]:
    version, flags = head.data[4:6]
    if version != 2:
        raise Damaged(f"expected an object header of version 2, got {version}", head.start)
    lead = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    size = int.from_bytes(file.cut(address + lead, width).data, "little")
    return address + lead + width, size


def _next(file: Hdf5, cursor: Cursor, *, new: bool) -> tuple[int, int]:
    address, size = file.address(cursor), cursor.number(file.long)
    if address is None:
        raise Damaged("expected the address of a continuation, got none", cursor.start)
    if not new:
        return address, size
    file.signed(address, b"OCHK", 0)
    return address + 4, size - 8  # less its mark and its checksum


def _listed(file: Hdf5, block: Cursor, *, new: bool, order: int) -> Iterator[tuple[int, int, int, int]]:
    lead = 4 + order if new else 8
    while block.left >= lead:
        if new:
            kind, size, flags = block.number(1), block.number(2), block.number(1)
            block.take(order)
        else:
            kind, size, flags = block.number(2), block.number(2), block.number(1)
            block.take(3)
        at = block.start + block.at
        block.take(size)
        yield kind, flags, at, size


def shared_message(file: Hdf5, kind: int, at: int, size: int) -> Message:
    """The message that a shared one stands for: it lies in the header of a committed object; raises `Damaged`."""
    cursor = Cursor(file.source.read(at, size), at)
    version, how = cursor.number(1), cursor.number(1)
    cursor.take(6 if version == 1 else 0)
    if version not in (1, 2, 3) or (version == 3 and how == 1):
        raise Damaged("expected a message that is shared by its object, got one in the heap of shared messages", at)
    address = file.address(cursor)
    if address is not None:
        for found, flags, start, length in _raw(file, address):
            if found == kind and not flags & _SHARED:
                return Message(kind, start, length)
    raise Damaged(f"expected the shared message of type {kind}, got an object without", at)
