"""What is known of a value while a template is followed without being rendered, and constant operations on it.

A value is a Python constant (str, number, None, tuple, dict), or `ANY` (data that the caller gives) or `MADE` (a string
that is put together when the template runs, and that cannot be told now). Nothing here calls a method or looks up an
attribute of a template's choosing, and no result is longer than `LONGEST`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import Any, Final

from casemate.formats.scanning.readers._plain import words

__all__ = [
    "ANY", "LONGEST", "MADE", "TooLarge", "attribute_of", "binary", "concatenated", "dunder_in_format", "filtered",
    "names_dunder", "picked", "sliced", "width_of",
]  # fmt: skip


class _Unknown:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


ANY: Final = _Unknown("ANY")
MADE: Final = _Unknown("MADE")
LONGEST: Final = 200_000
_HUGE = 10_000_000
_REACHING: Final = re.compile(r"[.\[](?:_\w|(?:gi|cr|ag|f|func|tb|co)_\w+|mro\b|popen\b|Popen\b|system\b)")
_BITS = 256


class TooLarge(Exception):  # an inner signal
    """A constant operation whose result would take more than any chat template needs."""


def names_dunder(arguments: Sequence[Any]) -> bool:
    """Whether a function is given a text that may come back as a name."""
    todo = list(arguments)
    while todo:
        item = todo.pop()
        if isinstance(item, str) and "__" in item:
            return True
        if isinstance(item, tuple | dict):
            todo += item.values() if isinstance(item, dict) else item
    return False


def _unknown(*values: Any) -> bool:
    return any(value is ANY or value is MADE for value in values)


def _flat(value: Any) -> bool:
    """Whether a value is known to its leaves, of which a sequence may hold any number."""
    if isinstance(value, tuple):
        return all(_flat(item) for item in value)
    return not isinstance(value, dict) and not _unknown(value)


def _measured(size: float) -> None:
    if size > _HUGE:
        raise TooLarge(f"a value of {size:.3g} elements")


def binary(operator: str, left: Any, right: Any) -> Any:
    """`left operator right`; raises `TooLarge`."""
    if _unknown(left, right):
        stringy = any(value is MADE or isinstance(value, str | tuple | dict) for value in (left, right))
        return MADE if stringy and operator in ("Add", "Mod", "Mul") else ANY
    try:
        return _BINARY[operator](left, right)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, KeyError):
        return ANY


def _times(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, str | tuple):
        left, right = right, left
    if isinstance(left, str | tuple) and isinstance(right, int):
        _measured(len(left) * float(min(right, 1 << 200)))
        return left * right if len(left) * right <= LONGEST else MADE
    return _number(left * right)


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and abs(left) > 1 and right > 0:
        _measured(left.bit_length() * float(min(right, 1 << 200)) / 64)
        if left.bit_length() * right > 4 * _BITS:
            return ANY
    return _number(left**right)


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str | tuple) and isinstance(right, str | tuple) and len(left) + len(right) > LONGEST:
        raise TooLarge(f"a value of {len(left) + len(right)} elements")
    return _number(left + right)


def _number(value: Any) -> Any:
    return ANY if isinstance(value, int) and value.bit_length() > _BITS else value


def _mod(left: Any, right: Any) -> Any:
    if not isinstance(left, str):
        return left % right
    _measured(width_of(left))
    return left % right if width_of(left) <= 1000 and _flat(right) else MADE


_BINARY: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "Add": _add,
    "Sub": lambda left, right: _number(left - right),
    "Mul": _times,
    "Div": lambda left, right: left / right,
    "FloorDiv": lambda left, right: left // right,
    "Mod": _mod,
    "Pow": _power,
}


def width_of(form: str) -> float:
    """The largest number in a format string, which is how wide it may pad; 0 without any."""
    digits, most = "", 0.0
    for letter in form + " ":
        if letter.isdecimal() and letter.isascii():
            digits += letter
        elif digits:
            most, digits = max(most, float(digits[:200])), ""
    return most


def dunder_in_format(form: str, depth: int = 0) -> str:
    """The field of a format string that reaches into an object's internals; empty for none.

    Fields can stand in the width of another field, and those before a fault are looked up all the same.
    """
    if "{" not in form or not _REACHING.search(form):
        return ""
    try:
        for _, field, spec, _ in string.Formatter().parse(form):
            if field and _REACHING.search(field):
                return field
            if spec and depth < 3 and (found := dunder_in_format(spec, depth + 1)):
                return found
    except ValueError:
        return ""
    return ""


def _joined(value: Any, glue: Any = "", attribute: Any = None) -> Any:
    if isinstance(value, dict):
        value = tuple(value)
    if attribute is not None or not isinstance(value, str | tuple) or not isinstance(glue, str) or not _flat(value):
        return MADE
    if sum(len(str(item)) + len(glue) for item in value) > LONGEST:
        raise TooLarge("a joined text")
    return glue.join(str(item) for item in value)


def _replaced(value: Any, old: Any, new: Any, *_count: Any) -> Any:
    value, old, new = str(value), str(old), str(new)
    found = value.count(old)
    size = len(value) + found * len(new)
    _measured(size)
    return value.replace(old, new) if size <= LONGEST else MADE


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, str | tuple | dict) else MADE


def _padded(value: Any, width: Any = 80, *_more: Any) -> Any:
    _measured(width)
    return MADE if width > 1000 else str(value).center(width)


def _formatted(value: Any, *values: Any) -> Any:
    return _mod(str(value), values)


def _plain_format(value: str, *values: Any) -> Any:
    _measured(width_of(value))
    if dunder_in_format(value) or width_of(value) > 1000 or not _flat(values) or "." in value or "[" in value:
        return MADE
    return value.format(*values)


def _sum(value: Any, *_more: Any) -> Any:
    total: Any = 0
    for item in value:
        total = binary("Add", total, item)
    return total


def _sorted(value: Any, *_more: Any) -> Any:
    return tuple(sorted(value)) if isinstance(value, tuple | str) else MADE


_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "join": _joined,
    "replace": _replaced,
    "list": _listed,
    "format": _formatted,
    "center": _padded,
    "reverse": lambda value: value[::-1],
    "string": str,
    "lower": lambda value: str(value).lower(),
    "upper": lambda value: str(value).upper(),
    "title": lambda value: str(value).title(),
    "capitalize": lambda value: str(value).capitalize(),
    "trim": lambda value, *chars: str(value).strip(*chars),
    "first": lambda value: _listed(value)[0],
    "last": lambda value: _listed(value)[-1],
    "length": len,
    "count": len,
    "int": lambda value, *_more: int(value),
    "float": lambda value, *_more: float(value),
    "abs": abs,
    "sort": _sorted,
    "unique": lambda value, *_more: tuple(dict.fromkeys(value)),
    "items": lambda value: tuple(value.items()),
    "dictsort": lambda value, *_more: tuple(sorted(value.items())),
    "safe": lambda value: value,
    "e": lambda value: value,
    "escape": lambda value: value,
    "forceescape": lambda value: value,
    "striptags": lambda value: value,
    "default": lambda value, *_more: value,
    "d": lambda value, *_more: value,
    "sum": _sum,
}
_DATA: Final = words(  # filters that hand on or pick from what they are given, and make no text of it
    "first last default d selectattr rejectattr select reject items list sort unique groupby batch slice random min "
    "max length count int float abs round sum dictsort map attr safe tojson wordcount filesizeformat"
)


def filtered(name: str, value: Any, arguments: Sequence[Any], *, named: bool) -> Any:
    """`value | name(arguments)`; with `named` arguments only where those cannot change it; raises `TooLarge`."""
    if name in ("center", "indent", "truncate", "wordwrap") and not _unknown(*arguments):
        for item in arguments:
            _measured(item if isinstance(item, int) and name != "truncate" else 0)
    if _unknown(value, *arguments) or named or name not in _FILTERS:
        known = value is MADE or isinstance(value, str | tuple | dict) or names_dunder(arguments)
        if known and name not in ("length", "count", "int", "float", "abs", "round"):
            return MADE
        return ANY if name in _DATA or name not in _FILTERS else MADE
    try:
        return _FILTERS[name](value, *arguments)
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError, KeyError):
        return MADE


def _translated(value: str, table: Any) -> Any:
    return value.translate(table) if isinstance(table, dict) else MADE


def _pad(value: str, width: Any, *_fill: Any) -> Any:
    _measured(width)
    return MADE if width > 1000 else value.rjust(width)


_METHODS: Final[dict[str, Callable[..., Any]]] = {
    "join": lambda value, items: _joined(items, value),
    "replace": _replaced,
    "format": _plain_format,
    "center": _pad,
    "ljust": _pad,
    "rjust": _pad,
    "zfill": _pad,
    "expandtabs": lambda value, size=8: _pad(value, size) and MADE,
    "translate": _translated,
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "capitalize": str.capitalize,
    "casefold": str.casefold,
    "swapcase": str.swapcase,
    "strip": str.strip,
    "lstrip": str.lstrip,
    "rstrip": str.rstrip,
    "removeprefix": str.removeprefix,
    "removesuffix": str.removesuffix,
    "split": lambda value, *arguments: tuple(value.split(*arguments)),
    "rsplit": lambda value, *arguments: tuple(value.rsplit(*arguments)),
    "splitlines": lambda value: tuple(value.splitlines()),
    "partition": lambda value, glue: value.partition(glue),
    "rpartition": lambda value, glue: value.rpartition(glue),
    "startswith": str.startswith,
    "endswith": str.endswith,
    "find": str.find,
    "index": str.index,
    "count": str.count,
}
_YES_OR_NO: Final = words(
    "startswith endswith find index count isdigit isalpha get items keys values split rsplit splitlines"
)


def attribute_of(value: Any, name: str, arguments: Sequence[Any], *, named: bool) -> Any:
    """`value.name(arguments)` for the methods of text and dicts; raises `TooLarge`."""
    if isinstance(value, dict) and not arguments:
        return {"items": tuple(value.items()), "keys": tuple(value), "values": tuple(value.values())}.get(name, ANY)
    if isinstance(value, dict) and name == "get" and isinstance(arguments[0], str | int):
        return value.get(*arguments[:2])
    if name in ("center", "ljust", "rjust", "zfill", "expandtabs") and arguments and isinstance(arguments[0], int):
        _measured(arguments[0])
    if _unknown(value, *arguments) or not isinstance(value, str) or named or name not in _METHODS:
        made = value is not ANY or name in ("join", "format", "replace", "translate", "format_map")
        made = made or names_dunder(arguments)
        return MADE if made and name not in _YES_OR_NO else ANY
    try:
        return _METHODS[name](value, *arguments)
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError, KeyError):
        return MADE


def concatenated(_name: str, left: Any, right: Any) -> Any:
    """`left ~ right`; raises `TooLarge`."""
    if left is ANY or right is ANY or left is MADE or right is MADE:
        return MADE
    return binary("Add", str(left), str(right))


def sliced(_name: str, value: Any, start: Any, stop: Any, step: Any) -> Any:
    """`value[start:stop:step]`."""
    if value is MADE:
        return MADE
    if not isinstance(value, str | tuple) or any(part is ANY or part is MADE for part in (start, stop, step)):
        return MADE if isinstance(value, str | tuple) else ANY
    try:
        return value[start:stop:step]
    except (TypeError, ValueError):
        return ANY


def picked(_name: str, value: Any, key: Any) -> Any:
    """`value[key]`, looked up in constants only."""
    if value is MADE:
        return MADE
    if isinstance(value, str | tuple) and (key is ANY or key is MADE):
        return MADE if isinstance(value, str) or any(isinstance(item, str) for item in value) else ANY
    try:
        return value[key] if isinstance(value, str | tuple | dict) else ANY
    except (TypeError, ValueError, LookupError):
        return ANY
