"""safetensors: a header of JSON with names, types and offsets, then the tensors' bytes, of which nothing is read.

The format runs no code; what can hide is bytes that belong to no tensor, two tensors in the same bytes, two readings of
one header, or a header that makes its reader set aside all memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._json import Twice, every, parsed_json
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_MOST = 100_000_000  # bytes of a header that the library itself accepts
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "I64": 64, "U64": 64,
    "F64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_HEADER = re.compile(rb'\s*\{\s*"[^"\x00-\x1f]*"\s*:')
_MEND = "save the tensors anew from where they were made"
_HIDES = "one tool reads other tensors from it than the next"


def _claims(source: Source) -> bool:
    head = source.head
    if source.inert or len(head) < 9 or head[8:9] not in b"{ \t\r\n":
        return False
    if source.name.endswith(".safetensors"):
        return head[8:].lstrip()[:1] == b"{"
    length = int.from_bytes(head[:8], "little")  # a brace alone has one of 256 files of numbers
    return (length <= source.size and head[8:].lstrip()[:1] == b"{") or _HEADER.match(head, 8) is not None


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    length = int.from_bytes(source.head[:8], "little")
    if length > _MOST or length > source.size - 8:
        if length > max(_MOST, 1000 * source.size):
            why = "a reader that believes it sets that memory aside"
            yield noted(
                source,
                MALICIOUS,
                "safetensors/header-size",
                f"a header of {length:.3g} bytes",
                why=why,
                mend=_MEND,
                at=0,
            )
        raise Damaged(f"expected a header of at most {max(0, source.size - 8)} bytes, got {length}", 0)
    if length > desk.limits.text:
        raise Damaged(f"expected a header of at most {desk.limits.text} bytes, got {length}", 0)
    try:
        text = source.read(8, length).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Damaged("expected a header in UTF-8", 8 + error.start) from None
    try:
        header = parsed_json(text, deepest=16)
    except Damaged as error:
        raise Damaged(str(error), 8 + (error.offset or 0)) from None
    if not isinstance(header, dict):
        raise Damaged("expected a header that is an object", 8)
    yield from _twice(source, header)
    yield from _metadata(source, header.pop("__metadata__", {}), desk)
    yield from _tensors(source, header, 8 + length, desk)


def _twice(source: Source, header: dict[str, Any]) -> Iterator[Sign]:
    for name, told in header.items():
        inside = [key for key, value in told.items() if type(value) is Twice] if isinstance(told, dict) else []
        for key in [name] if type(told) is Twice else [f"{name}.{item}" for item in inside]:
            what = f"{shown(key)} is in the header twice"
            yield noted(source, SUSPICIOUS, "safetensors/same-name", what, why=_HIDES, mend=_MEND, at=8)


def _metadata(source: Source, metadata: Any, desk: Desk) -> Iterator[Sign]:
    for path, value in every(metadata, desk.meter.tick):
        if isinstance(value, str):
            yield from secrets_in(source, value, shown("__metadata__." + ".".join(map(str, path))))
    if not isinstance(metadata, dict) or not all(isinstance(value, str | Twice) for value in metadata.values()):
        yield _odd(source, "safetensors/metadata", "metadata that is not text by name")


def _tensors(source: Source, header: dict[str, Any], start: int, desk: Desk) -> Iterator[Sign]:
    spans: list[tuple[int, int, str]] = []
    room = source.size - start
    for name, told in header.items():
        desk.meter.tick()
        for entry in told if type(told) is Twice else (told,):
            first, last, fault = _entry(entry)
            if not fault and last > room:
                fault = f"ends at byte {last} of {room}"
            if fault:
                yield _odd(source, "safetensors/tensor", f"{shown(name)} {fault}")
            else:
                spans.append((first, last, name))
                shape = tuple(entry["shape"])
                desk.tensor(source, start + first, last - first, entry["dtype"], name=name, shape=shape)
    yield from _layout(source, sorted(spans), start, desk)


def _entry(entry: Any) -> tuple[int, int, str]:
    """A tensor's first byte and the one after its last, and what is wrong with it."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return 0, 0, "is not described by dtype, shape and data_offsets"
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not _whole(shape) or not _whole(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return 0, 0, "has a shape or offsets that are no whole numbers in order"
    if not isinstance(dtype, str):
        return 0, 0, "has a type that is no text"
    first, last = offsets
    bits = _BITS.get(dtype)
    if bits is None:
        return first, last, f"has the type {shown(dtype)}, which is not known"
    size = math.prod(shape) * bits if len(shape) <= 64 else -1
    fault = "" if size == 8 * (last - first) else f"has {last - first} bytes, which is not what its shape and type take"
    return first, last, fault


def _whole(numbers: Any) -> bool:
    return type(numbers) is list and all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)


def _layout(source: Source, spans: list[tuple[int, int, str]], start: int, desk: Desk) -> Iterator[Sign]:
    at = 0
    for first, last, name in spans:
        if first < at and last > first:
            yield _odd(source, "safetensors/overlap", f"{shown(name)} shares bytes with another tensor")
        if first > at:
            yield from _between(source, start + at, start + first, desk)
        at = max(at, last)
    if start + at < source.size:
        yield from _between(source, start + at, source.size, desk)


def _between(source: Source, start: int, end: int, desk: Desk) -> Iterator[Sign]:
    place = "after the last tensor" if end == source.size else "between tensors"
    rule = "safetensors/trailing" if end == source.size else "safetensors/gap"
    yield _odd(
        source, rule, f"{end - start} bytes {place}", start, "no tensor has them: they are there for somebody else"
    )
    yield from desk.look(source.part(f"{start}", start, end - start))


def _odd(source: Source, rule: str, what: str, at: int = 8, why: str = _HIDES) -> Sign:
    return noted(source, SUSPICIOUS, rule, what, why=why, mend=_MEND, at=at)


READERS = (Reader("safetensors", _claims, _read),)
