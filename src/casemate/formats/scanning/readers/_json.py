"""JSON of strangers: bounded before it is parsed, and with every value of a key that occurs twice.

Parsers differ in which of two values they take, so both are kept to be judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from casemate.formats.scanning.desk import Damaged

__all__ = ["Twice", "every", "parsed_json"]

_MEMORY: Final = 400_000_000  # bytes that the values may take
_SHORT: Final = 1 << 20  # characters: in longer texts Python's own limit of nesting has to do
_PAIR, _VALUE = 250, 80  # bytes of one, about
_STRUCTURE: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


class Twice(list[Any]):
    """The values of a key that an object names more than once, in their order."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key not in seen:
            seen[key] = value
        elif type(seen[key]) is Twice:
            seen[key].append(value)
        else:
            seen[key] = Twice((seen[key], value))
    return seen


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 1000 else float("inf")


def parsed_json(text: str, *, deepest: int = 500) -> Any:
    """What a text of JSON says; values of keys that occur twice as `Twice`.

    Raises `Damaged` where it is no JSON, nests deeper than `deepest`, or holds more than memory should.
    """
    values = text.count(",") + text.count("[") + text.count("{")
    if _PAIR * text.count(":") + _VALUE * values > _MEMORY:
        raise Damaged(f"expected JSON that takes at most {_MEMORY >> 20} MiB of memory, got {values} values", 0)
    if len(text) <= _SHORT and (at := _too_deep(text, deepest)) is not None:
        raise Damaged(f"JSON that nests more than {deepest} levels, which crashes parsers", at)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise Damaged(f"expected JSON, got a fault: {error.msg}", error.pos) from None
    except RecursionError:
        raise Damaged(f"JSON that nests more than {deepest} levels, which crashes parsers", 0) from None
    except ValueError as error:
        raise Damaged(f"expected JSON, got a fault: {type(error).__name__}", 0) from None


def _too_deep(text: str, deepest: int) -> int | None:
    """Where brackets nest too deep; `None` for nowhere."""
    if text.count("[") + text.count("{") <= deepest:
        return None
    depth = 0
    for found in _STRUCTURE.finditer(text):
        sign = text[found.start()]
        if sign in "[{":
            depth += 1
            if depth > deepest:
                return found.start()
        elif sign in "]}":
            depth -= 1
    return None


def every(value: Any, tick: Callable[[], None]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Each value with the keys that lead to it, outer ones first; of keys that occur twice each value.

    Numbers in lists are left out.
    """
    open_now: list[tuple[tuple[str | int, ...], Iterator[tuple[str | int | None, Any]]]] = [((), iter([(None, value)]))]
    count = 0
    while open_now:
        outer, inside = open_now[-1]
        for key, item in inside:
            count += 1
            if count % 4096 == 0:
                tick()
            path = outer if key is None else (*outer, key)
            if type(item) is not Twice:
                yield path, item
            if isinstance(item, dict | list):
                open_now.append((path, _inside(item)))
                break
        else:
            open_now.pop()


def _inside(item: dict[str, Any] | list[Any]) -> Iterator[tuple[str | int | None, Any]]:
    if isinstance(item, dict):
        yield from item.items()
    elif type(item) is Twice:
        for inner in item:
            yield None, inner
    else:
        for index, inner in enumerate(item):
            if isinstance(inner, str | list | dict):
                yield index, inner
