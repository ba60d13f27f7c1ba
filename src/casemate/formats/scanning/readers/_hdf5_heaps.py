"""HDF5's heaps and trees: groups and attributes that are too many for a header, and values of any length.

Source: "HDF5 File Format Specification Version 3.0", sections III.A (trees), III.D to III.G (heaps).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.readers._hdf5_file import Cursor, Hdf5

__all__ = ["Fractal", "chunks_of", "fractal_at", "global_object", "local_heap", "records_of", "symbol_nodes"]

_NODES: Final = 1_000_000
_DEEP: Final = 64
_KEPT: Final = 100_000
_HUGE: Final = 1  # the type of the tree that lists huge objects


def local_heap(file: Hdf5, address: int) -> Cursor:
    """The bytes of a local heap, where names are kept; raises `Damaged`."""
    head = file.signed(address, b"HEAP", 4 + 2 * file.long + file.wide)
    head.take(4)
    size = head.number(file.long)
    head.take(file.long)
    data = file.address(head)
    if data is None:
        raise Damaged("expected the address of a heap's data, got none", head.start)
    return file.cut(data, size)


def symbol_nodes(file: Hdf5, address: int) -> Iterator[int]:
    """Addresses of the symbol nodes below an old tree of a group; raises `Damaged`."""
    for _, child in _old_tree(file, address, 0, file.long):
        yield child


def chunks_of(file: Hdf5, address: int, rank: int) -> Iterator[tuple[int, int, int]]:
    """Address, size in bytes and skipped filters (a mask) of each chunk below an old tree; raises `Damaged`."""
    for key, child in _old_tree(file, address, 1, 8 + 8 * (rank + 1)):
        yield child, int.from_bytes(key[:4], "little"), int.from_bytes(key[4:8], "little")


def _old_tree(file: Hdf5, address: int, kind: int, key: int) -> Iterator[tuple[bytes, int]]:
    """The keys and children of all leaves of a tree of version 1."""
    todo: list[int] = [address]
    seen: set[int] = set()
    while todo:
        file.desk.meter.tick()
        here = todo.pop()
        if here in seen or len(seen) > _NODES:
            raise Damaged("expected a tree, got a circle", file.base + here)
        seen.add(here)
        head = file.signed(here, b"TREE", 4 + 2 * file.wide)
        found, level, used = head.number(1), head.number(1), head.number(2)
        if found != kind:
            raise Damaged(f"expected a tree of type {kind}, got {found}", head.start)
        body = file.cut(here + 8 + 2 * file.wide, used * (key + file.wide))
        below = []
        for _ in range(used):
            name, child = body.take(key), file.address(body)
            if child is None:
                raise Damaged("expected the address of a tree's child, got none", body.start + body.at)
            if level:
                below.append(child)
            else:
                yield name, child
        todo += reversed(below)


def records_of(file: Hdf5, address: int) -> Iterator[tuple[int, bytes]]:
    """The type and bytes of every record of a tree of version 2; raises `Damaged`."""
    head = file.signed(address, b"BTHD", 20 + file.wide + file.long)
    head.take(1)
    kind, node, record, depth = head.number(1), head.number(4), head.number(2), head.number(2)
    head.take(2)
    root, count = file.address(head), head.number(2)
    if root is None:
        return
    if not record or depth > _DEEP or node < 10 + record:
        raise Damaged("expected a tree with records that fit in its nodes", head.start)
    most = [(node - 10) // record]  # records in a node of each level, and below it with its own, from the leaves up
    total = list(most)
    pointers = [0]
    for level in range(1, depth + 1):
        pointers.append(file.wide + _enough(most[0]) + (_enough(total[-1]) if level > 1 else 0))
        most.append(max(0, node - 10 - pointers[-1]) // (record + pointers[-1]))
        total.append((most[-1] + 1) * total[-1] + most[-1])
    todo, seen = [(root, count, depth)], {root}
    while todo:
        file.desk.meter.tick()
        here, held, level = todo.pop()
        body = file.signed(here, b"BTIN" if level else b"BTLF", 2 + held * record + (held + 1) * pointers[level])
        body.take(2)
        yield from ((kind, body.take(record)) for _ in range(held))
        for _ in range(held + 1 if level else 0):
            child, below = file.address(body), body.number(_enough(most[0]))
            body.take(_enough(total[level - 1]) if level > 1 else 0)
            if child is None or child in seen or len(seen) > _NODES:
                raise Damaged("expected a tree, got a circle", body.start + body.at)
            seen.add(child)
            todo.append((child, below, level - 1))


def _enough(limit: int) -> int:
    """Bytes that hold every number up to `limit`."""
    return max(0, limit.bit_length() - 1) // 8 + 1


@dataclass(frozen=True, slots=True)
class Fractal:
    """A fractal heap: objects are found in it by their ids. Sizes in bytes."""

    file: Hdf5
    bits: int  # of an offset in the heap
    checksum: bool
    lengths: int  # bytes of an object's length in its id
    width: int
    start: int
    largest: int
    root: int | None
    rows: int
    huge: int | None
    id_size: int

    def found(self, name: bytes) -> Cursor:
        """The object of an id; raises `Damaged` where it cannot be followed."""
        how = (name[0] >> 4) & 3 if name else 3
        if how == 0:
            cursor = Cursor(name[1:], 0)
            offset, size = cursor.number((self.bits + 7) // 8), cursor.number(self.lengths)
            return self.file.cut(self._block(offset), size)
        if how == 1:
            return self._huge(name)
        if how == 2 and self.id_size <= 17:
            return Cursor(name[1 : 2 + (name[0] & 15)], 0)
        raise Damaged(f"expected an object of a heap, got the id {name.hex()}")

    def _huge(self, name: bytes) -> Cursor:
        file = self.file
        if file.wide + file.long <= self.id_size - 1:  # the id itself says where it is
            cursor = Cursor(name[1:], 0)
            return file.cut(cursor.number(file.wide), cursor.number(file.long))
        wanted = int.from_bytes(name[1 : 1 + min(file.long, self.id_size - 1)], "little")
        for kind, record in records_of(file, self.huge) if self.huge is not None else ():
            cursor = Cursor(record, 0)
            address, size, key = cursor.number(file.wide), cursor.number(file.long), cursor.number(file.long)
            if kind == _HUGE and key == wanted:
                return file.cut(address, size)
        raise Damaged(f"expected a huge object of the id {name.hex()}, got none")

    def _block(self, offset: int) -> int:
        """The address of byte `offset` of the heap's space, which doubles from row to row."""
        here, rows = self.root, self.rows
        for _ in range(_DEEP):
            if here is None:
                break
            if not rows:
                self.file.signed(here, b"FHDB", 0)
                return here + offset
            row, column, size, first = self._cell(offset)
            if row >= rows:
                break
            at = here + 5 + self.file.wide + (self.bits + 7) // 8 + (row * self.width + column) * self.file.wide
            self.file.signed(here, b"FHIB", 0)
            here = self.file.address(self.file.cut(at, self.file.wide))
            offset -= first
            rows = 0 if size <= self.largest else (size // (self.start * self.width)).bit_length()
        raise Damaged(f"expected byte {offset} of a heap in one of its blocks")

    def _cell(self, offset: int) -> tuple[int, int, int, int]:
        """Row, column, size and first byte of the block that holds an offset."""
        wide = self.start * self.width
        row = (offset // wide).bit_length()
        size = self.start << max(0, row - 1)
        begin = wide << (row - 1) if row else 0
        column = (offset - begin) // size
        return row, column, size, begin + column * size


def fractal_at(file: Hdf5, address: int) -> Fractal:
    """The fractal heap at an address; raises `Damaged`, also where its blocks are filtered."""
    wide, long = file.wide, file.long
    head = file.signed(address, b"FRHP", 1 + 2 + 2 + 1 + 4 + 12 * long + 3 * wide + 2 + 2 + 2 + 2)
    head.take(1)
    id_size, filters, flags, managed = head.number(2), head.number(2), head.number(1), head.number(4)
    head.take(long)
    huge = file.address(head)
    head.take(long + wide + 8 * long)
    width, start, largest = head.number(2), head.number(long), head.number(long)
    bits = head.number(2)
    head.take(2)
    root, rows = file.address(head), head.number(2)
    if filters:
        raise Damaged("expected a heap without filters", head.start)
    if not width or not start or largest < start or bits > 64:
        raise Damaged("expected a heap with blocks", head.start)
    lengths = min(_enough(largest), _enough(managed))
    return Fractal(file, bits, bool(flags & 2), lengths, width, start, largest, root, rows, huge, id_size)


def global_object(file: Hdf5, address: int, index: int) -> Cursor:
    """An object of a global heap collection; raises `Damaged` where it is not there."""
    known = file.collections.get(address)
    if known is None:
        if sum(len(item) for item in file.collections.values()) > _KEPT:
            file.collections.clear()
        known = file.collections[address] = dict(_collection(file, address))
    if index not in known:
        raise Damaged(f"expected object {index} of a global heap, got none", file.base + address)
    return file.cut(*known[index])


def _collection(file: Hdf5, address: int) -> Iterator[tuple[int, tuple[int, int]]]:
    head = file.signed(address, b"GCOL", 4 + file.long)
    head.take(4)
    finish = address + head.number(file.long)
    lead = 8 + file.long
    here = address + lead
    while here + lead <= finish:
        file.desk.meter.tick()
        entry = file.cut(here, lead)
        found = entry.number(2)
        entry.take(6)
        size = entry.number(file.long)
        if not found:  # the free space at the end
            return
        yield found, (here + lead, size)
        here += lead + (size + 7) // 8 * 8
