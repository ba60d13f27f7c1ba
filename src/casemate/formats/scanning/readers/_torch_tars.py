"""The members of the tar that torch 0.1 wrote: pickles with raw numbers between them.

`storages`: a count; for each a pickle of (key, location, type), a length and the numbers; then the views.
`tensors`: a count; for each a pickle of (key, storage, type), the number of dimensions, sizes, strides, an offset.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Iterator

from casemate.formats.scanning.desk import Damaged, Desk
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["claims", "look"]

_LONGEST = 1 << 16  # bytes of a pickle that describes one tensor
_MOST = 1 << 20  # tensors
_WIDTHS = {"Double": 8, "Float": 4, "Half": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1}


def claims(source: Source) -> bool:
    """Whether a member is one that holds raw numbers, by the name under which torch looks for it."""
    return source.path[-1].removeprefix("./") in ("storages", "tensors") and source.head[:1] == b"\x80"


def look(source: Source, desk: Desk) -> Iterator[Sign]:
    """Signs of each of the pickles; the numbers between them are left out. Raises `Damaged`."""
    storages = source.path[-1].endswith("storages")
    end, count, _ = _pickle(source, 0)
    yield from desk.look(source.part("0", 0, end))
    if not isinstance(count, int) or not 0 <= count <= _MOST:
        raise Damaged(f"expected a number of tensors, got {count!r:.40}", 0)
    at = end
    for _ in range(count):
        desk.meter.tick()
        end, _, kind = _pickle(source, at)
        yield from desk.look(source.part(str(at), at, end - at))
        at = _after_storage(source, end, kind) if storages else _after_tensor(source, end)
    if at < source.size:
        yield from desk.look(source.part(str(at), at))


def _pickle(source: Source, at: int) -> tuple[int, object, str]:
    """The byte after a pickle, its first number, and the type of storage that it names."""
    number: object = None
    kind = ""
    try:
        for opcode, value, position in pickletools.genops(io.BytesIO(source.read(at, _LONGEST))):
            if number is None and type(value) is int and opcode.name.startswith(("BININT", "INT", "LONG")):
                number = value
            if isinstance(value, str) and value.endswith("Storage"):
                kind = value.replace(".", " ").split()[-1].removesuffix("Storage")
            if opcode.name == "STOP" and position is not None:
                return at + position + 1, number, kind
    except (ValueError, struct.error, UnicodeDecodeError, IndexError, OverflowError) as error:
        raise Damaged(f"expected a pickle that describes a tensor ({error})"[:160], at) from error
    raise Damaged("expected a pickle that ends with STOP", at)


def _after_storage(source: Source, at: int, kind: str) -> int:
    length = source.read(at, 8)
    if len(length) < 8 or kind not in _WIDTHS:
        raise Damaged(f"expected the numbers of a storage, got the type {kind[:40]!r}", at)
    return _within(source, at + 8 + int.from_bytes(length, "little") * _WIDTHS[kind], at)


def _after_tensor(source: Source, at: int) -> int:
    dimensions = int.from_bytes(source.read(at, 4), "little")
    return _within(source, at + 8 + 16 * dimensions + 8, at)


def _within(source: Source, end: int, at: int) -> int:
    if end > source.size:
        raise Damaged(f"expected {end - at} bytes of numbers, got {source.size - at}", at)
    return end
