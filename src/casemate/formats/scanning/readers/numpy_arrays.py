"""numpy's `.npy`: a header in Python's notation, then numbers; or, for arrays of objects, a pickle.

numpy loads the pickle with `allow_pickle=True`, as joblib and older numpy do by default.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from casemate.formats.scanning.desk import Damaged, Desk, Reader, begins
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS", "Header", "header_of", "plain_size"]

_MAGIC = b"\x93NUMPY"
_LONGEST = 1 << 16  # bytes of a header; numpy itself stops at 10,000 characters
_SCALAR = re.compile(r"[<>=|]?([a-zA-Z?])(\d*)(?:\[[\w/ ]*\])?")
_LONG = re.compile(r"(?<=\d)L(?=[,)])")  # how Python 2 wrote long sizes
_UNITS = {"U": 4, "a": 1, "S": 1, "V": 1}
_KINDS = "?bBiufcmMSUVa"
_PICKLE = re.compile(rb"\n(?=\x80[\x01-\x05]|c[A-Za-z_][\w.]*\n|\()")  # what follows a header
_TRIED = 16
_LARGEST = 1 << 62  # bytes: what no machine holds


@dataclass(frozen=True, slots=True)
class Header:
    """What a header tells: bytes until the array, bytes of the array, whether it holds pickled objects, and of what.

    `kind` is empty for arrays of records.
    """

    start: int
    size: int
    objects: bool
    kind: str = ""
    shape: tuple[int, ...] = ()


def plain_size(head: bytes) -> int | None:
    """Bytes of a whole `.npy` file of plain numbers by its first bytes; `None` for anything else."""
    if not head.startswith(_MAGIC):
        return None
    try:
        header = header_of(head)
    except Damaged:
        return None
    return None if header.objects else header.start + header.size


def header_of(head: bytes) -> Header:
    """What the header at the start of some bytes tells; raises `Damaged`."""
    if len(head) < 10:
        raise Damaged("expected a header of numpy's, got the end of the file", len(head))
    version = head[6], head[7]
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise Damaged(f"expected version 1, 2 or 3 of numpy's format, got {version[0]}.{version[1]}", 6)
    start, form = (10, "<H") if version == (1, 0) else (12, "<I")
    if len(head) < start:
        raise Damaged("expected a header of numpy's, got the end of the file", len(head))
    (length,) = struct.unpack_from(form, head, 8)
    if length > _LONGEST:
        raise Damaged(f"expected a header of at most {_LONGEST} bytes, got {length}", 8)
    if start + length > len(head):
        raise Damaged(f"expected a header of {length} bytes, got {len(head) - start}", 8)
    told = _literal(head[start : start + length].decode("utf-8" if version == (3, 0) else "latin-1", "replace"))
    width, objects = _width(told["descr"], 0)
    size = math.prod(told["shape"]) * width
    if size > _LARGEST:
        raise Damaged(f"an array of shape {shown(str(told['shape']))}, which no machine holds", start)
    kind = told["descr"] if isinstance(told["descr"], str) else ""
    return Header(start + length, size, objects, kind, told["shape"])


def _literal(text: str) -> dict[str, Any]:
    try:
        told = ast.literal_eval(_LONG.sub("", text.strip("\0 \n")))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise Damaged(f"expected a dict as numpy writes it, got {shown(text[:60])}", 10) from error
    if not isinstance(told, dict) or set(told) != {"descr", "fortran_order", "shape"}:
        raise Damaged(f"expected descr, fortran_order and shape, got {shown(text[:60])}", 10)
    shape = told["shape"]
    if not isinstance(shape, tuple) or len(shape) > 64 or any(type(n) is not int or n < 0 for n in shape):
        raise Damaged(f"expected a shape of whole numbers, got {shown(str(shape))}", 10)
    return told


def _width(kind: Any, depth: int) -> tuple[int, bool]:
    """Bytes of one element, and whether it holds objects."""
    if depth > 32:
        raise Damaged("expected a type of fewer than 32 levels", 10)
    if isinstance(kind, str):
        return _scalar(kind)
    if isinstance(kind, tuple) and len(kind) == 2:  # an array within each element
        width, objects = _width(kind[0], depth + 1)
        return width * _count(kind[1]), objects
    if not isinstance(kind, list):
        raise Damaged(f"expected a type as numpy writes it, got {shown(repr(kind))}", 10)
    total, any_objects = 0, False
    for item in kind:
        if not isinstance(item, tuple) or len(item) not in (2, 3):
            raise Damaged(f"expected a field as numpy writes it, got {shown(repr(item))}", 10)
        width, objects = _width(item[1], depth + 1)
        total += width * (_count(item[2]) if len(item) == 3 else 1)
        any_objects |= objects
    return total, any_objects


def _count(shape: Any) -> int:
    dims = shape if isinstance(shape, tuple) else (shape,)
    if len(dims) > 64 or any(type(n) is not int or n < 0 for n in dims):
        raise Damaged(f"expected a shape of whole numbers, got {shown(repr(shape))}", 10)
    return math.prod(dims)


def _scalar(text: str) -> tuple[int, bool]:
    found = _SCALAR.fullmatch(text)
    if found is None or len(text) > 64:
        raise Damaged(f"expected a type as numpy writes it, got {shown(text)}", 10)
    letter, digits = found[1], found[2]
    if letter == "O":
        return 8, True
    if letter not in _KINDS or not (digits or letter in "SUVa?"):
        raise Damaged(f"expected a type as numpy writes it, got {shown(text)}", 10)
    return (int(digits) if digits else int(letter == "?")) * _UNITS.get(letter, 1), False


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    try:
        header = header_of(source.read(0, _LONGEST + 12))
    except Damaged:  # numpy takes more ways to write a type than it writes, and unpickles what is one of objects
        for found in itertools.islice(_PICKLE.finditer(source.read(0, _LONGEST << 1)), _TRIED):
            yield from desk.look(source.part(f"objects at {found.end()}", found.end(), inert=True))
        raise
    rest = source.size - header.start
    if header.objects:
        yield from desk.look(source.part("objects", header.start))
        if not rest:
            raise Damaged("expected a pickle of the array's objects, got the end of the file", header.start)
        return
    if header.size > rest:
        if header.size > max(desk.limits.expanded, 1000 * source.size):
            what = f"an array that claims {header.size} bytes in a file of {source.size}"
            why = "whoever loads it sets that memory aside first"
            yield noted(source, MALICIOUS, "npy/size", what, why=why, mend="do not load it", at=header.start)
        raise Damaged(f"expected {header.size} bytes of numbers, got {rest}", header.start)
    desk.tensor(source, header.start, header.size, header.kind, name="array", shape=header.shape)
    if header.size < rest:
        yield from _after(source, desk, header.start + header.size)


def _after(source: Source, desk: Desk, at: int) -> Iterator[Sign]:
    """What follows the numbers: a further array, which numpy reads by a further call, or something foreign."""
    if source.read(at, len(_MAGIC)) != _MAGIC:
        what = f"{source.size - at} bytes after the end of the array"
        why = "numpy does not read them: they are there for somebody else"
        yield noted(source, SUSPICIOUS, "npy/trailing", what, why=why, mend="save the array anew", at=at)
    yield from desk.look(source.part(f"after {at}", at))


READERS = (Reader("npy", begins(_MAGIC), _read, firsts=_MAGIC[:1]),)
