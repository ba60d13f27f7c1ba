"""A sealed container of named arrays and small values: shard results, per-sample evidence, calibrations, resources.

Layout, all integers little-endian::

    8 bytes    magic "CMARRAY1"
    32 bytes   SHA-256 of everything after it
    4 bytes    length of the header
    header     JSON: {"entries": {name: {"kind": ..., ...}, ...}, "version": 1}, keys in canonical order
    payload    the arrays' bytes in C order, one after the other, nothing between or behind them

No time, no compression, no pickle: equal input gives equal bytes on every machine and in every year. The seal finds
damage, not malice (anyone can compute it); what a forged header claims is checked against the bytes that are really
there before anything is allocated.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from casemate.errors import FormatError
from casemate.formats import canonical

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from casemate.formats.canonical import Json

__all__ = ["MAX_ENTRIES", "MAX_HEADER", "Unpacked", "pack", "unpack"]

MAX_ENTRIES = 100_000
"""Most names in one container."""
MAX_HEADER = 16 << 20
"""Longest header in bytes: names, shapes and all values that are not arrays."""

Unpacked: TypeAlias = "NDArray[np.generic] | Json"
"""One value of a container."""

_MAGIC = b"CMARRAY1"
_PREFIX = len(_MAGIC) + 32 + 4
_DTYPE = re.compile(
    r"\|b1|\|[iu]1|[<>][iu][248]|[<>]f[248]|[<>]c(8|16)|[<>]U[1-9][0-9]{0,8}|\|S[1-9][0-9]{0,8}"
    r"|[<>][Mm]8(\[([1-9][0-9]{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
_FIELDS = {
    "texts": {"shape", "size"},
    "array": {"dtype", "shape"},
    "int": {"value"},
    "float": {"value"},
    "json": {"value"},
}


def pack(values: Mapping[str, object]) -> bytes:
    """Seal named values into bytes that do not depend on the order of names.

    Takes arrays of booleans, integers, floats, complex numbers, dates, `U` and `S` text (any shape, strides and byte
    order), texts of any length (`StringDType`), `int` of any size, `float` with NaN and infinities, `str`, `bool`,
    None, and JSON lists and dicts (tuples become lists). Numpy scalars come back as Python's. Law:
    `unpack(pack(x)) == x`, with the same dtypes, shapes and bits.

    Raises `FormatError` for object, structured, masked or extended-precision arrays, and for what `canonical.dumps`
    refuses inside JSON.
    """
    entries: dict[str, dict[str, object]] = {}
    payload: list[bytes] = []
    for name in sorted(_checked_names(values), key=canonical.key_order):
        value = values[name]
        entries[name] = _entry(name, value)
        if isinstance(value, np.ndarray):
            payload.append(_encoded(value) if value.dtype.kind == "T" else value.tobytes(order="C"))
    header = canonical.dumps({"entries": entries, "version": 1}, keep_float=True)
    if len(header) > MAX_HEADER:
        raise FormatError(f"expected a header within {MAX_HEADER} bytes, got {len(header)}: store long lists as arrays")
    pieces = [len(header).to_bytes(4, "little"), header, *payload]
    seal = hashlib.sha256()
    for piece in pieces:
        seal.update(piece)
    return b"".join([_MAGIC, seal.digest(), *pieces])


def unpack(data: bytes) -> dict[str, Unpacked]:
    """Read a container's values, in canonical order of names; arrays are writable copies.

    Memory stays in proportion to `len(data)`. Raises `FormatError` for anything that `pack` did not write: a cut or
    changed byte, a version this release does not know, claims that the bytes do not bear out.
    """
    if len(data) < _PREFIX or data[:8] != _MAGIC:
        raise FormatError(f"expected a container starting with {_MAGIC!r}, got {data[:8]!r}: check which file this is")
    view = memoryview(data)
    if hashlib.sha256(view[40:]).digest() != view[8:40]:
        raise FormatError(
            "expected the bytes that were sealed, got others: the file is damaged or cut short, make it again"
        )
    length = int.from_bytes(view[40:44], "little")
    if length > min(MAX_HEADER, len(data) - _PREFIX):
        raise FormatError(
            f"expected a header within the file and {MAX_HEADER} bytes, got {length}: make the file again"
        )
    entries = _read_header(bytes(view[_PREFIX : _PREFIX + length]))
    rest = view[_PREFIX + length :]
    result: dict[str, Unpacked] = {}
    for name, entry in entries.items():
        result[name], used = _read_entry(name, entry, rest)
        rest = rest[used:]
    if len(rest):
        raise FormatError(f"expected nothing after the last array, got {len(rest)} bytes: make the file again")
    return result


def _checked_names(values: Mapping[str, object]) -> Mapping[str, object]:
    if len(values) > MAX_ENTRIES:
        raise FormatError(f"expected at most {MAX_ENTRIES} names, got {len(values)}: stack the arrays")
    for name in values:
        if not isinstance(name, str):
            raise FormatError(
                f"expected names that are str, got {type(name).__name__} {name!r:.40}: convert them with str()"
            )
    return values


def _entry(name: str, value: object) -> dict[str, object]:
    if isinstance(value, np.ndarray) and value.dtype.kind == "T":
        return {"kind": "texts", "shape": list(value.shape), "size": len(_encoded(value))}
    if isinstance(value, np.ndarray):
        _refuse_odd_array(name, value)
        return {"kind": "array", "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.bool | np.integer | np.floating) and value.itemsize <= 8:
        value = value.item()
    if type(value) is int:
        return {"kind": "int", "value": hex(value)}
    if type(value) is float:
        return {"kind": "float", "value": float.__repr__(value)}
    return {"kind": "json", "value": value}


def _refuse_odd_array(name: str, array: NDArray[np.generic]) -> None:
    if isinstance(array, np.ma.MaskedArray):
        raise FormatError(f"expected a plain array at {name!r}, got a masked one: store data and mask as two arrays")
    if array.dtype.names is not None or not _DTYPE.fullmatch(array.dtype.str):
        mend = "convert it with astype (text: astype(str))"
        raise FormatError(f"expected numbers, booleans, dates or text at {name!r}, got dtype {array.dtype}: {mend}")


def _read_header(text: bytes) -> dict[str, dict[str, Json]]:
    header = canonical.loads(text, max_bytes=MAX_HEADER)
    if not isinstance(header, dict) or type(header.get("version")) is not int or header["version"] != 1:
        raise FormatError("expected a container of version 1, got another: read it with the release that wrote it")
    entries = header.get("entries")
    if set(header) != {"entries", "version"} or not isinstance(entries, dict) or len(entries) > MAX_ENTRIES:
        raise FormatError(
            f"expected a version and at most {MAX_ENTRIES} entries, got another header: make the file again"
        )
    if canonical.dumps(header, keep_float=True) != text:
        raise FormatError("expected the header in its one form, got another spelling: make the file again")
    return {name: _checked_entry(name, entry) for name, entry in entries.items()}


def _checked_entry(name: str, entry: Json) -> dict[str, Json]:
    if isinstance(entry, dict):
        kind = entry.get("kind")
        if isinstance(kind, str) and set(entry) == {"kind"} | _FIELDS.get(kind, set()):
            return entry
    raise FormatError(f"expected an entry with a known kind at {name!r:.60}, got {entry!r:.80}: make the file again")


def _read_entry(name: str, entry: dict[str, Json], rest: memoryview) -> tuple[Unpacked, int]:
    kind, value = entry["kind"], entry.get("value")
    if kind == "array":
        return _read_array(name, entry, rest)
    if kind == "texts":
        return _read_texts(name, entry, rest)
    if kind == "json":
        return value, 0
    if (
        kind == "int"
        and isinstance(value, str)
        and re.fullmatch(r"-?0x(0|[1-9a-f][0-9a-f]*)", value)
        and value != "-0x0"
    ):
        return int(value, 16), 0
    if kind == "float" and isinstance(value, str):
        number = _float(value)
        if number is not None:
            return number, 0
    raise FormatError(f"expected a value of kind {kind!r} at {name!r}, got {value!r:.60}: make the file again")


def _float(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if float.__repr__(number) == text else None


def _read_array(name: str, entry: dict[str, Json], rest: memoryview) -> tuple[NDArray[np.generic], int]:
    dtype, shape = _dtype(name, entry["dtype"]), _shape(name, entry["shape"])
    size = math.prod(shape) * dtype.itemsize
    if size > len(rest):
        raise FormatError(f"expected {size} bytes for {name!r}, got {len(rest)} left in the file: make the file again")
    try:
        flat = np.frombuffer(rest[:size], dtype=dtype) if size else np.empty(0, dtype=dtype)
        array = flat.reshape(shape).copy()
    except ValueError as error:  # empty, but with dimensions whose product overflows
        raise FormatError(
            f"expected a shape that numpy can hold at {name!r}, got {shape}: make the file again"
        ) from error
    if dtype.kind == "U" and size and int(flat.view(np.dtype("u4").newbyteorder(dtype.byteorder)).max()) > 0x10FFFF:
        raise FormatError(f"expected Unicode text at {name!r}, got code points beyond U+10FFFF: make the file again")
    if dtype.kind == "b" and size and int(flat.view(np.uint8).max()) > 1:
        raise FormatError(f"expected booleans of 0 or 1 at {name!r}, got other bytes: make the file again")
    return array, size


def _encoded(array: NDArray[np.generic]) -> bytes:
    """Texts of any length: eight bytes of length for each, then their UTF-8."""
    parts = [str(value).encode("utf-8", "surrogatepass") for value in array.reshape(-1)]
    return np.array([len(part) for part in parts], dtype="<u8").tobytes() + b"".join(parts)


def _read_texts(name: str, entry: dict[str, Json], rest: memoryview) -> tuple[NDArray[np.generic], int]:
    shape, size = _shape(name, entry["shape"]), entry["size"]
    count = math.prod(shape)
    if type(size) is not int or not 8 * count <= size <= len(rest):
        raise FormatError(
            f"expected {size!r:.40} bytes of text for {name!r}, got {len(rest)} left: make the file again"
        )
    sizes = np.frombuffer(rest[: 8 * count], dtype="<u8") if count else np.empty(0, dtype="<u8")
    ends = 8 * count + np.cumsum(sizes, dtype=np.float64)  # floats: a forged length must not wrap around
    if (ends[-1] if count else 0) != size:
        raise FormatError(f"expected lengths of texts that fill {name!r}, got others: make the file again")
    bounds = [8 * count, *ends.astype(np.int64).tolist()]
    try:
        values = [bytes(rest[start:stop]).decode("utf-8", "surrogatepass") for start, stop in pairwise(bounds)]
    except UnicodeDecodeError as error:
        raise FormatError(f"expected UTF-8 at {name!r}, got other bytes: make the file again") from error
    return np.array(values, dtype=np.dtypes.StringDType()).reshape(shape), size


def _dtype(name: str, text: Json) -> np.dtype[np.generic]:
    if isinstance(text, str) and _DTYPE.fullmatch(text):
        try:
            dtype: np.dtype[np.generic] = np.dtype(text)
        except (TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"expected a dtype at {name!r}, got {text!r}: make the file again") from error
        if dtype.str == text:
            return dtype
    raise FormatError(f"expected a dtype of numbers, dates or text at {name!r}, got {text!r:.40}: make the file again")


def _shape(name: str, value: Json) -> tuple[int, ...]:
    if isinstance(value, list) and len(value) <= 64:
        shape = tuple(n for n in value if type(n) is int and n >= 0)
        if len(shape) == len(value):
            return shape
    raise FormatError(f"expected a shape of at most 64 sizes at {name!r}, got {value!r:.60}: make the file again")
