"""Canonical JSON: one value, one text, one digest.

The text is that of RFC 8785 (JSON Canonicalization Scheme), so any language can recompute our digests: UTF-8, no
spaces, keys sorted by UTF-16 code units (section 3.2.3), numbers in the shortest form that reads back to the same
double, as ECMAScript writes them (section 3.2.2.3). Three consequences to know: `1.0` and `1` are the same number and
both are written `1` (a reader that wants a float calls `float`); `-0.0` is written `0`; an integer beyond 2**53 is
refused, since a double cannot hold it (write it as a string). NaN and infinities are refused.
"""

from __future__ import annotations

import datetime
import enum
import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from json.encoder import encode_basestring
from typing import TypeAlias, final

import numpy as np

from casemate.errors import FormatError
from casemate.formats import digests

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_INTEGER",
    "Json",
    "digest",
    "dumps",
    "dumps_pretty",
    "key_order",
    "loads",
    "parse_timestamp",
    "timestamp",
]

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
"""What `loads` returns."""

MAX_BYTES = 64 << 20
"""Default cap on the text `loads` will read, in bytes."""
MAX_DEPTH = 100
"""Deepest nesting written or read; the outermost list or object counts one."""
MAX_INTEGER = 2**53
"""Largest magnitude of an integer written (RFC 8785, appendix D)."""

_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?Z")


def dumps(value: object, *, keep_float: bool = False) -> bytes:
    """Write a value as its canonical text.

    Takes dicts with `str` keys, lists, tuples, `str`, `int`, `float`, `bool`, None, numpy scalars, enums (their
    value), dates and aware datetimes (see `timestamp`). Laws: `loads(dumps(x)) == x` for JSON values; equal values
    give equal bytes whatever the order of keys. `keep_float=True` writes `1.0` and `-0.0` as such, so types survive
    too; that form is not RFC 8785 and has no place in a digest.

    Raises `FormatError`, naming the offending place (`$.a[3]`): NaN or infinity, an integer beyond 2**53, a set, an
    array or any other type, a key that is not text or occurs twice, a lone surrogate, a naive datetime, nesting
    beyond `MAX_DEPTH`.
    """
    return _Writer(indent=None, keep_float=keep_float).text(value)


def dumps_pretty(value: object) -> bytes:
    """Write the same text for people: two spaces per level and a final line feed.

    Law: `digest(loads(dumps_pretty(x))) == digest(x)`.

    Raises `FormatError` as `dumps` does.
    """
    return _Writer(indent=2, keep_float=False).text(value) + b"\n"


def digest(value: object) -> str:
    """`sha256:<hex>` of `dumps(value)`; raises what that raises."""
    return digests.sha256_bytes(dumps(value))


def loads(data: bytes | str, *, max_bytes: int = MAX_BYTES) -> Json:
    """Read JSON text that may be hostile.

    Size and depth are checked before anything is built. Integer literals beyond 2**53 are read as floats if they are
    a double's canonical text (`dumps(1e20)` writes one), else refused.

    Raises `FormatError`: too large, too deep, not UTF-8, not JSON, a duplicate key, NaN or infinity, a number no
    double holds, a lone surrogate.
    """
    text = _decoded(data, max_bytes)
    _check_depth(text)
    try:
        value: Json = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
            parse_int=_parse_int,
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise FormatError(f"expected JSON, got {error.msg.lower()} at {place}: restore the file") from error
    if _SURROGATE_ESCAPE.search(text):
        _check_surrogates(value)
    return value


def key_order(name: str) -> bytes:
    """Sort key that puts names in the order of canonical JSON: by UTF-16 code units."""
    return name.encode("utf-16-be", "surrogatepass")  # a lone surrogate is reported when it is written


def timestamp(moment: datetime.datetime) -> str:
    """Write an aware datetime as UTC text, `2027-03-31T12:00:00Z`, with six decimals if there are microseconds.

    Raises `FormatError` for a naive datetime, whose instant is unknown.
    """
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise FormatError(f"expected an aware datetime, got naive {moment.isoformat()}: give it tzinfo=datetime.UTC")
    try:
        return moment.astimezone(datetime.UTC).replace(tzinfo=None).isoformat() + "Z"
    except OverflowError as error:
        raise FormatError(
            f"expected a date in years 1 to 9999 UTC, got {moment.isoformat()}: correct the date"
        ) from error


def parse_timestamp(text: object) -> datetime.datetime:
    """Read what `timestamp` writes, and nothing else.

    Raises `FormatError`.
    """
    if isinstance(text, str) and _TIMESTAMP.fullmatch(text):
        try:
            moment = datetime.datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is not None and timestamp(moment) == text:
            return moment
    raise FormatError(f"expected a UTC time such as 2027-03-31T12:00:00Z, got {text!r:.60}: write it in that form")


@final
class _Writer:
    """Appends pieces of text; remembers where it is, so that an error can say so."""

    __slots__ = ("_indent", "_keep_float", "_pieces", "_trail")

    def __init__(self, *, indent: int | None, keep_float: bool) -> None:
        self._indent = indent
        self._keep_float = keep_float
        self._pieces: list[str] = []
        self._trail: list[str | int] = []

    def text(self, value: object) -> bytes:
        self._value(value)
        try:
            return "".join(self._pieces).encode("utf-8")
        except UnicodeEncodeError as error:
            bad = error.object[max(0, error.start - 20) : error.end]
            raise FormatError(
                f"expected Unicode text, got a lone surrogate in {bad!r}: decode the source again"
            ) from error

    def _value(self, value: object) -> None:
        if type(value) not in _EXACT:
            value = self._plain(value)
        if isinstance(value, str):
            self._pieces.append(encode_basestring(value))
        elif value is None or isinstance(value, bool):
            self._pieces.append({None: "null", True: "true", False: "false"}[value])
        elif isinstance(value, int | float):
            self._pieces.append(self._number(value))
        elif isinstance(value, Mapping):
            self._object(value)
        elif isinstance(value, list | tuple):
            self._block("[", "]", [(index, "", item) for index, item in enumerate(value)])
        else:
            raise self._error(
                "a JSON value", type(value).__name__, _MENDS.get(type(value), "convert it to plain JSON values first")
            )

    def _plain(self, value: object) -> object:
        while isinstance(value, enum.Enum):
            value = value.value
        if isinstance(value, np.bool | np.integer) or (isinstance(value, np.floating) and value.itemsize <= 8):
            return value.item()
        if isinstance(value, datetime.datetime):
            try:
                return timestamp(value)
            except FormatError as error:
                raise FormatError(f"at {self._place()}: {error}") from error
        if isinstance(value, datetime.date):
            return value.isoformat()
        return value

    def _number(self, value: int | float) -> str:
        if isinstance(value, float):
            if not math.isfinite(value):
                raise self._error("a finite number", str(value), "write null, or leave the key out")
            return float.__repr__(value) if self._keep_float else _ecmascript(value)
        if abs(value) > MAX_INTEGER:
            raise self._error("an integer within 2**53", f"one of {value.bit_length()} bits", "write it as a string")
        return int.__repr__(value)

    def _object(self, value: Mapping[object, object]) -> None:
        plain: dict[str, object] = {}
        for key, item in value.items():
            name = key if type(key) is str else self._plain(key)
            if not isinstance(name, str) or isinstance(key, datetime.date):
                raise self._error(
                    "keys that are str", f"{type(key).__name__} {key!r:.40}", "convert the keys with str()"
                )
            if name in plain:
                raise self._error("each key once", f"{name!r} twice", "rename one of them")
            plain[name] = item
        # ASCII names have the same order either way, and comparing them directly is faster
        names = sorted(plain) if all(map(str.isascii, plain)) else sorted(plain, key=key_order)
        colon = ":" if self._indent is None else ": "
        self._block("{", "}", [(name, encode_basestring(name) + colon, plain[name]) for name in names])

    def _block(self, opening: str, closing: str, items: list[tuple[str | int, str, object]]) -> None:
        depth = len(self._trail) + 1
        if depth > MAX_DEPTH:
            raise self._error(
                f"at most {MAX_DEPTH} levels", "more, or a value that contains itself", "flatten the value"
            )
        if not items:
            self._pieces.append(opening + closing)
            return
        gap = "" if self._indent is None else "\n" + " " * (self._indent * depth)
        self._pieces.append(opening)
        for number, (step, prefix, item) in enumerate(items):
            self._pieces.append(("," if number else "") + gap + prefix)
            self._trail.append(step)
            self._value(item)
            self._trail.pop()
        self._pieces.append(gap[: len(gap) - (self._indent or 0)] + closing)

    def _error(self, expected: str, got: str, mend: str) -> FormatError:
        return FormatError(f"expected {expected}, got {got} at {self._place()}: {mend}")

    def _place(self) -> str:
        steps = self._trail if len(self._trail) <= 12 else [*self._trail[:6], "...", *self._trail[-5:]]
        return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


_EXACT = frozenset({str, int, float, bool, type(None), dict, list, tuple})  # nothing to convert
_MENDS: Mapping[type, str] = {
    set: "a set has no order, use sorted(...)",
    frozenset: "a set has no order, use sorted(...)",
    np.ndarray: "use tolist(), or casemate.formats.arrays for more than a few numbers",
    bytes: "decode it, or refer to it by digest",
}


def _ecmascript(value: float) -> str:
    """ECMA-262, Number::toString, radix 10: with k digits and 0.digits * 10**n the value."""
    if value == 0:
        return "0"
    text = float.__repr__(value)
    if "e" not in text:  # 1e-4 <= |value| < 1e16: both languages write plain decimals
        return text.removesuffix(".0")
    sign = "-" if value < 0 else ""
    _, numerals, exponent = Decimal(text.removeprefix("-")).as_tuple()
    whole = "".join(map(str, numerals))
    n = len(whole) + int(exponent)
    digits = whole.rstrip("0")
    k = len(digits)
    if k <= n <= 21:
        return sign + digits + "0" * (n - k)
    if -6 < n <= 0:
        return sign + "0." + "0" * -n + digits
    fraction = "." + digits[1:] if k > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{n - 1:+d}"


def _decoded(data: bytes | str, max_bytes: int) -> str:
    if len(data) > max_bytes:
        raise FormatError(
            f"expected at most {max_bytes} bytes of JSON, got {len(data)}: raise the limit if the file is yours"
        )
    try:
        if isinstance(data, str):
            data.encode("utf-8")
            return data
        return data.decode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(f"expected Unicode text, got a lone surrogate at {error.start}: decode it again") from error
    except UnicodeDecodeError as error:
        raise FormatError(
            f"expected UTF-8, got byte {data[error.start]:#04x} at {error.start}: save the file as UTF-8"
        ) from error


def _check_depth(text: str) -> None:
    # before parsing, because the parser recurses; an unclosed string is left to the parser to report
    depth = 0
    for match in _TOKENS.finditer(text):
        token = match[0]
        if token in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise FormatError(f"expected at most {MAX_DEPTH} levels of JSON, got more: flatten the file")
        elif token in ("]", "}"):
            depth -= 1


def _object(pairs: list[tuple[str, Json]]) -> Json:
    result: dict[str, Json] = {}
    for key, value in pairs:
        if key in result:
            raise FormatError(f"expected each key once, got {key!r:.60} twice: remove one of them")
        result[key] = value
    return result


def _refuse_constant(token: str) -> Json:
    raise FormatError(f"expected JSON numbers, got {token}: write null instead")


def _parse_float(token: str) -> float:
    value = float(token)
    if math.isinf(value):
        raise FormatError(f"expected a number that a double holds, got {token:.40}: write it as a string")
    return value


def _parse_int(token: str) -> int | float:
    if len(token) <= 17 and abs(int(token)) <= MAX_INTEGER:
        return int(token)
    if len(token) <= 22 and _ecmascript(float(token)) == token:
        return float(token)
    raise FormatError(f"expected an integer within 2**53, got {token:.40}: write it as a string")


def _check_surrogates(value: Json) -> None:
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise FormatError(f"expected Unicode text, got a lone surrogate in {value!r:.60}: write the whole pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_surrogates(key)
            _check_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _check_surrogates(item)
