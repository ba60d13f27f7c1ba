"""The wire format of Protocol Buffers, read without a schema: fields with their offsets, nothing copied, no recursion.

Mirrors what the official parsers take: a field may come in any order and more than once (messages merge, so all of them
count), unknown numbers are skipped, and a known number with another wire type is unknown too.
Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol, cast

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.readers._plain import is_text
from casemate.formats.scanning.source import Source

__all__ = ["BYTES", "MESSAGES_DEEP", "VARINT", "Field", "Outline", "Peek", "Ticks", "fields_of", "peek_of", "text_at"]

VARINT: Final = 0
BYTES: Final = 2
MESSAGES_DEEP: Final = 100  # the official parsers refuse messages that nest deeper
_GROUP: Final = 3
_GROUP_END: Final = 4
_GROUPED: Final = 10_000  # fields of a group
_FIXED: Final = {1: 8, 5: 4}
_TEXT: Final = 4096
_OFTEN: Final = 255

_PEEKED: Final = 500_000  # fields
_TRIED: Final = 64  # of one field
_BEYOND_CHANCE: Final = 20_000  # fields: other bytes do not read as so many

Data = bytes | memoryview


class Field(NamedTuple):
    """One field: its number and wire type, the value of a varint (else 0), where it begins, where its content lies."""

    number: int
    wire: int
    value: int
    at: int
    start: int
    end: int


Outline = dict[tuple[int, int], list[Field]]


class Ticks(Protocol):
    """What is told of every few fields, and raises where they are too many."""

    def tick(self) -> None:
        """Some fields more."""


def fields_of(data: Data, start: int, end: int, meter: Ticks) -> Iterator[Field]:
    """The fields of the message in `data[start:end]`, in their order.

    Raises `Damaged` where they end in the middle of one or are no such message, `LimitReached` when time is up.
    """
    at, count = start, 0
    while at < end:
        count += 1
        if not count & _OFTEN:
            meter.tick()
        begin, tag = at, data[at]
        at += 1
        if tag > 127:
            tag, at = _varint(data, begin, end)
        number, wire = tag >> 3, tag & 7
        if not number or tag >> 32:
            raise Damaged(f"expected a field of a protobuf message, got the tag {tag}", begin)
        if wire == VARINT:
            value, after = _varint(data, at, end)
            yield Field(number, wire, value, begin, at, after)
        elif wire == BYTES:
            size, at = _varint(data, at, end)
            after = at + size
            if after > end:
                raise Damaged(f"expected {size} bytes of field {number}, got {end - at}", begin)
            yield Field(number, wire, 0, begin, at, after)
        else:
            after = _past_group(data, at, end, number, meter) if wire == _GROUP else at + _FIXED.get(wire, 1 << 63)
            if after > end:
                raise Damaged(f"expected a field of a protobuf message, got wire type {wire}", begin)
            yield Field(number, wire, 0, begin, at, after)
        at = after


def _past_group(data: Data, at: int, end: int, number: int, meter: Ticks) -> int:
    """The byte after a group, which parsers still skip though nothing has written one since 2008."""
    begin, opened = at, [number]
    for count in range(_GROUPED):
        if not count & _OFTEN:
            meter.tick()
        tag, at = _varint(data, at, end)
        wire = tag & 7
        if wire == _GROUP:
            opened.append(tag >> 3)
        elif wire == _GROUP_END:
            if opened.pop() != tag >> 3:
                break
            if not opened:
                return at
        elif wire == VARINT:
            at = _varint(data, at, end)[1]
        elif wire == BYTES:
            size, at = _varint(data, at, end)
            at += size
        else:
            at += _FIXED.get(wire, 1 << 63)
    raise Damaged("expected the end of a group of fields", begin)


class Peek:
    """A source's first fields, for readers that want to know whether it is theirs; `said`: what each found it to be.

    All of them together look at so many fields, and no more. `cut`: something was left out, so that what shows nothing
    may still be a model.
    """

    def __init__(self, source: Source) -> None:
        self.data = source.data
        self.size = source.size
        self.said: dict[str, str] = {}
        self.cut = False
        self._source = source
        self._left = _PEEKED
        self._top: Outline | None = None

    def tick(self) -> None:
        """Count fields."""
        self._left -= _OFTEN + 1
        if self._left < 0:
            raise _SpentError

    def outline(self, start: int, end: int) -> Outline:
        """The fields by (number, wire type), the first of each; empty where they are no message. Never raises."""
        whole = not start and end == self.size
        if whole and self._top is not None:
            return self._top
        found = {} if whole and _is_none(self.data, end) else self._outline(start, end)
        if whole:
            self._top = found
        return found

    def _outline(self, start: int, end: int) -> Outline:
        found: Outline = {}
        count = 0
        self._left -= 1
        try:
            for field in fields_of(self.data, start, end, self):
                count += 1
                same = found.setdefault((field.number, field.wire), [])
                if len(same) <= _TRIED:
                    same.append(field)
        except _SpentError:
            self.cut = True
        except Damaged:
            return found if count > _BEYOND_CHANCE else {}
        return found

    def only(self, outline: Outline, number: int) -> list[Field]:
        """The messages of a field that comes once: parsers merge several, and so many are there to hide one."""
        found = outline.get((number, BYTES), [])
        self.cut |= len(found) > _TRIED
        return found[:_TRIED]

    def some(self, outline: Outline, number: int) -> list[Field]:
        """The first messages of a field that comes often."""
        return outline.get((number, BYTES), [])[:_TRIED]

    def decided(self, reader: str, kind: str) -> str:
        """Keep what a reader found it to be; raises `Damaged` where it found nothing and not all was looked at.

        A text may read as fields for long. It is left to the readers of texts, which take no byte 0x12 in it: without
        that, nodes of ONNX have no outputs, and those of TensorFlow no operation.
        """
        if not kind and self.cut and not (self._source.head.isascii() and is_text(self._source)):
            raise Damaged("expected a message that shows what it is, got too many fields", 0)
        self.said[reader] = kind
        return kind


def peek_of(source: Source) -> Peek:
    """What all readers of messages share about a source."""
    if source.outline is None:
        source.outline = Peek(source)
    return cast(Peek, source.outline)


def _is_none(data: Data, end: int) -> bool:
    """Whether one of the first three fields is none: so it is in most files of other formats, and quickly seen."""
    at = 0
    for _ in range(3):
        if end - at < 12:  # a tag and a number, at most
            return False
        tag = data[at]
        at += 1
        if tag > 127:
            if data[at] > 127:
                return False
            tag += (data[at] << 7) - 128
            at += 1
        wire = tag & 7
        if tag < 8 or (wire > BYTES and wire != _GROUP and wire not in _FIXED):
            return True
        if wire != VARINT:
            return False
        last = at + 9
        while data[at] > 127:
            if at == last:
                return True
            at += 1
        at += 1
    return False


class _SpentError(Exception):  # enough fields were looked at
    pass


def text_at(data: Data, field: Field, most: int = _TEXT) -> str:
    """The text of a field, cut to `most` bytes; what is no UTF-8 is shown escaped."""
    return bytes(data[field.start : min(field.end, field.start + most)]).decode("utf-8", "backslashreplace")


def _varint(data: Data, at: int, end: int) -> tuple[int, int]:
    if at < end and data[at] < 128:
        return data[at], at + 1
    value = shift = 0
    for here in range(at, min(end, at + 10)):
        byte = data[here]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, here + 1
        shift += 7
    raise Damaged("expected a varint, got more bytes than it can have or the end", at)
