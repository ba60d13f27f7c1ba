"""GGUF, versions 1 to 3, in both byte orders: keys with values, tensors' places, then the tensors, which are not read.

The format runs no code itself; its chat template is a program of Jinja's (`jinja_templates`), and lengths that lie have
made its readers write beyond their memory (CVE-2024-23496 and its kin).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from casemate.formats.scanning.desk import Damaged, Desk, Reader, begins
from casemate.formats.scanning.readers._few import few
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, UNKNOWN, noted, shown
from casemate.formats.scanning.readers.jinja_templates import embedded_signs, template_signs
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_DEEPEST = 8  # arrays in arrays
_TEXTS = 1000  # that are kept
_LONGEST_KEY = 65535
_TYPES = {  # elements and bytes of a block, by the number of ggml's type
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    4: (16, 10), 5: (16, 12), 31: (32, 18), 32: (32, 18), 33: (32, 18), 36: (32, 18), 37: (32, 18), 38: (32, 18),
}  # fmt: skip
_ABSURD = 1 << 31  # a count or length that no cut file explains
_FILL = 1 << 20  # bytes of a gap that are read at once
_FILLED = 4096  # zeros more than the alignment, which some writers leave
_DIMENSIONS = 4  # that ggml has room for
_KINDS = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
_MEND = "take the model from its first publisher; do not load this file"


class _Lie(Damaged):
    """A length that was chosen to make a reader set aside, or write beyond, its memory."""


@dataclass(slots=True)
class _Walk:
    """Where reading stands, in which byte order and version; texts that are worth a look."""

    source: Source
    desk: Desk
    at: int = 4
    order: str = "<"
    version: int = 3
    alignment: int = 32
    texts: list[tuple[str, int, int]] = field(default_factory=list)

    def need(self, n: int, what: str) -> int:
        """The offset of `n` bytes that are then passed over."""
        if n > self.source.size - self.at:
            raise Damaged(f"expected {n} bytes of {what}, got {self.source.size - self.at}", self.at)
        at, self.at = self.at, self.at + n
        return at

    def number(self, form: str, what: str) -> int:
        """One number."""
        size = struct.calcsize("<" + form)
        found: int = struct.unpack(self.order + form, self.source.read(self.need(size, what), size))[0]
        return found

    def size(self, what: str) -> int:
        """A length or count, as wide as the version has it."""
        return self.number("I" if self.version == 1 else "Q", what)

    def text(self, what: str) -> tuple[int, int]:
        """Where a string lies, and its length."""
        length = self.size(f"the length of {what}")
        if length >= _ABSURD and length > self.source.size:
            raise _Lie(f"claims {length} bytes of {what} in a file of {self.source.size} bytes", self.at)
        return self.need(length, what), length

    def name(self, what: str) -> str:
        """A key or a tensor's name."""
        at, length = self.text(what)
        if length > _LONGEST_KEY:
            raise Damaged(f"expected {what} of at most {_LONGEST_KEY} bytes, got {length}", at)
        return self.source.read(at, length).decode("utf-8", "backslashreplace")


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    try:
        yield from _parts(source, desk)
    except _Lie as error:  # CVE-2024-21802, -21825, -21836, -23496, -23605 of llama.cpp
        yield _lies(source, str(error), error.offset or 0)
        raise Damaged(f"expected lengths within the file, got a file that {error}", error.offset) from None


def _parts(source: Source, desk: Desk) -> Iterator[Sign]:
    walk = _Walk(source, desk)
    walk.version = walk.number("I", "the version")
    if walk.version & 0xFFFF == 0 and walk.version:
        walk.order, walk.version = ">", int.from_bytes(source.read(4, 4), "big")
    if walk.version not in (1, 2, 3):
        raise Damaged(f"expected version 1, 2 or 3 of GGUF, got {walk.version}", 4)
    tensors, pairs = walk.size("the count of tensors"), walk.size("the count of keys")
    smallest = 8 if walk.version == 1 else 12
    for count, what in ((tensors, "tensors"), (pairs, "keys")):
        if count > source.size // smallest:
            if count >= _ABSURD // smallest:
                raise _Lie(f"claims {count} {what} in a file of {source.size} bytes", 8)
            raise Damaged(f"expected at most {source.size // smallest} {what}, got {count}", 8)
    seen: set[str] = set()
    for _ in range(pairs):
        yield from _pair(walk, seen)
    yield from few(_tensors(walk, tensors))


def _lies(source: Source, what: str, at: int) -> Sign:
    why = "a reader that believes it sets that memory aside, or writes beyond what it has"
    return noted(source, MALICIOUS, "gguf/length", f"a file that {what}", why=why, mend=_MEND, at=at)


def _pair(walk: _Walk, seen: set[str]) -> Iterator[Sign]:
    walk.desk.meter.tick()
    key, at = walk.name("a key"), walk.at
    if key in seen:
        why = "readers differ in which of its values they take"
        yield noted(walk.source, SUSPICIOUS, "gguf/same-key", f"the key {shown(key)} twice", why=why, mend=_MEND, at=at)
    seen.add(key)
    kind = walk.number("I", "the type of a value")
    walk.texts.clear()
    if key == "general.alignment" and kind == 4:
        walk.alignment = walk.number("I", key)
    else:
        yield from _value(walk, key, kind, 0)
    yield from _texts(walk)


def _texts(walk: _Walk) -> Iterator[Sign]:
    """Signs of the texts that were met; those of an array of millions would outgrow the memory."""
    for name, start, length in walk.texts:
        yield from _text(walk, name, start, length)
    walk.texts.clear()


def _value(walk: _Walk, key: str, kind: int, depth: int) -> Iterator[Sign]:
    if kind in _WIDTHS:
        walk.need(_WIDTHS[kind], shown(key))
    elif kind == _STRING:
        walk.texts.append((key, *walk.text(shown(key))))
    elif kind == _ARRAY and depth < _DEEPEST:
        yield from _array(walk, key, depth)
    else:
        raise Damaged(f"expected a type of GGUF's for {shown(key)}, got {kind}", walk.at)


def _array(walk: _Walk, key: str, depth: int) -> Iterator[Sign]:
    kind, at = walk.number("I", "the type of an array"), walk.at
    count = walk.size("the length of an array")
    least = _WIDTHS.get(kind, 4 if walk.version == 1 else 8)
    if count * least > walk.source.size - walk.at:
        if count * least >= _ABSURD:
            raise _Lie(f"claims {count} values of {shown(key)} with {walk.source.size - walk.at} bytes left", at)
        raise Damaged(f"expected {count} values of {shown(key)}, got the end of the file", at)
    if kind in _WIDTHS:
        walk.need(count * least, shown(key))
        return
    tokens = key.startswith("tokenizer.ggml.") and "template" not in key
    for index in range(count):
        if index % 1024 == 0:
            walk.desk.meter.tick()
        if kind == _STRING and tokens:
            walk.text(shown(key))  # a vocabulary holds any word, and none of them is run
        else:
            yield from _value(walk, f"{key}[{index}]", kind, depth + 1)
            if len(walk.texts) >= _TEXTS:
                yield from _texts(walk)


def _text(walk: _Walk, key: str, at: int, length: int) -> Iterator[Sign]:
    if length > walk.desk.limits.text:
        raise Damaged(f"expected a text of at most {walk.desk.limits.text} bytes for {shown(key)}, got {length}", at)
    text = walk.source.read(at, length).decode("utf-8", "replace")
    name = key.split("[", 1)[0].lower()
    part = walk.source.part(shown(key), at, length)
    if "chat_template" in name and not (name.endswith("chat_templates") and "{" not in text):  # their names alone
        yield from template_signs(part, text, walk.desk)
    else:
        yield from secrets_in(walk.source, text, shown(key))
        yield from embedded_signs(part, text, walk.desk, rendered="template" in name or "prompt" in name)


@dataclass(frozen=True, slots=True, order=True)
class _Extent:
    """Where a tensor lies behind the header, in bytes."""

    first: int
    end: int
    name: str
    kind: int


def _tensors(walk: _Walk, count: int) -> Iterator[Sign]:
    extents: list[_Extent] = []
    for _ in range(count):
        walk.desk.meter.tick()
        extents.append(_extent(walk))
    alignment = walk.alignment
    if not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise Damaged(f"expected an alignment that is a power of two, got {alignment}", walk.at)
    start = -(-walk.at // alignment) * alignment
    room = max(0, walk.source.size - start)
    names: set[str] = set()
    for item in extents:
        walk.desk.meter.tick()
        numbers = f"{walk.order}{_KINDS.get(item.kind, f'ggml {item.kind}')}"
        walk.desk.tensor(walk.source, start + item.first, item.end - item.first, numbers, name=item.name)
        if item.end > room:
            what = f"the tensor {shown(item.name)} ends at byte {item.end} of {room}"
            yield _odd(walk, what, "a reader that believes it reads beyond its memory", start)
        if item.name in names:
            yield _odd(
                walk, f"two tensors named {shown(item.name)}", "readers differ in which of them they take", start
            )
        names.add(item.name)
    yield from _between(walk, extents, start)


def _extent(walk: _Walk) -> _Extent:
    """What the header says of one tensor."""
    name, at = walk.name("the name of a tensor"), walk.at
    dimensions = walk.number("I", "the number of dimensions")
    if dimensions > _DIMENSIONS:
        raise _Lie(f"claims {dimensions} dimensions of {shown(name)}, where readers have room for {_DIMENSIONS}", at)
    elements = 1
    for _ in range(dimensions):
        elements *= walk.size("a dimension")
    kind, offset = walk.number("I", "the type of a tensor"), walk.number("Q", "the place of a tensor")
    block, width = _TYPES.get(kind, (1, 0))
    end = offset + (elements + block - 1) // block * width
    if max(elements, end) >= 1 << 63:  # the product wraps around in 64 bits
        raise _Lie(f"claims {elements} numbers of {shown(name)} from byte {offset}", at)
    return _Extent(offset, end, name, kind)


def _odd(walk: _Walk, what: str, why: str, at: int) -> Sign:
    return noted(walk.source, SUSPICIOUS, "gguf/tensor", what, why=why, mend=_MEND, at=at)


def _between(walk: _Walk, extents: list[_Extent], start: int) -> Iterator[Sign]:
    """Bytes that belong to no tensor, and bytes that belong to two."""
    unread = sorted({item.kind for item in extents if item.kind not in _TYPES})
    if unread:
        why = "how long their tensors are is not known, nor whether anything lies behind them"
        what = f"tensors of the types {unread} of ggml"
        yield noted(walk.source, UNKNOWN, "gguf/type", what, why=why, mend="look at it with llama.cpp", at=start)
        return
    at, last = walk.at, ""
    for item in sorted(extents):
        walk.desk.meter.tick()
        first = start + item.first
        if last and first < at and item.end > item.first:
            yield _odd(walk, f"the tensors {shown(last)} and {shown(item.name)} overlap", "no writer makes that", first)
        yield from _behind(walk, at, min(first, walk.source.size), "between the tensors")
        at, last = max(at, start + item.end), item.name
    yield from _behind(walk, at, walk.source.size, "after the last tensor")


def _behind(walk: _Walk, at: int, end: int, where: str) -> Iterator[Sign]:
    """Bytes that no tensor has; zeros fill up what has to be aligned."""
    source = walk.source
    first = source.read(at, min(end - at, _FILL)) if at < end else b""
    if not first or (len(first) == end - at < walk.alignment + _FILLED and not first.strip(b"\0")):
        return
    skipped = len(first) - len(first.lstrip(b"\0")) if first.strip(b"\0") else 0
    what = f"{end - at} bytes {where}"
    why = "no tensor has them: they are there for somebody else"
    yield noted(source, SUSPICIOUS, "gguf/trailing", what, why=why, mend=_MEND, at=at)
    yield from walk.desk.look(source.part(f"after {at + skipped}", at + skipped, end - at - skipped))


READERS = (Reader("gguf", begins(b"GGUF"), _read, firsts=b"G"),)
