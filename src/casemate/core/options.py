"""Options as a user gives them, held against the dataclass of the plug-in before anything runs.

A plug-in says with the type of a field what the field may be, and has no check of its own to write: `Count`, `Positive`
and the like, `Annotated[float, Within(least=0, below=1)]`, an enumeration or a `Literal` for a choice of words, and
lists of any of these. What depends on several fields is for `__post_init__`; what depends on the case is for a method
`check(self, case)` of the options, which an audit calls before its first plug-in runs. Both raise `ConfigError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from casemate.core.names import nearest
from casemate.core.plugin import Plugin
from casemate.errors import ConfigError

__all__ = ["Count", "Natural", "OpenShare", "Positive", "Share", "Within", "check_options"]


@dataclass(frozen=True, slots=True)
class Within:
    """The range of a number: from `least` to `most`, or strictly `above` and `below`."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def holds(self, number: float) -> bool:
        """Whether a number is in the range."""
        return self.least <= number <= self.most and self.above < number < self.below

    def __str__(self) -> str:
        """The range in words."""
        ends = {"from": self.least, "above": self.above, "to": self.most, "below": self.below}
        return " ".join(f"{word} {end:g}" for word, end in ends.items() if math.isfinite(end))


Count = Annotated[int, Within(least=1)]
"""How many there are, one at least."""
Natural = Annotated[int, Within(least=0)]
"""How many there are, where none makes sense too."""
Positive = Annotated[float, Within(above=0)]
"""A finite number above 0."""
Share = Annotated[float, Within(least=0, most=1)]
"""From none to all."""
OpenShare = Annotated[float, Within(above=0, below=1)]
"""Neither none nor all: a significance level, a confidence."""


def check_options(plugins: Sequence[Plugin], given: Mapping[str, Any]) -> None:
    """Hold given options against those of the plug-ins of one id (a file may offer several kinds).

    Raises `ConfigError` for an unknown name (with the nearest one), a value of another type, out of its declared range
    or none of the declared words, a number that is not finite, an empty list where the default is not, and, where no
    range is declared, a number below zero where the default is not.
    """
    known = [item.name for plugin in plugins for item in fields(plugin.options)]
    for name in given:
        if name not in known:
            mend = nearest(name, known) if known else "leave it out"
            raise ConfigError(f"expected an option of {plugins[0].id}, got {name!r}: {mend}")
    for plugin in plugins:
        hints = _hints(plugin.options)
        for item in fields(plugin.options):
            if item.name in given and item.name in hints:
                _check(f"{item.name} of {plugin.id}", given[item.name], hints[item.name], usual=item.default)


def _hints(options: type) -> dict[str, Any]:
    try:
        return get_type_hints(options, include_extras=True)
    except NameError:  # names that a plug-in imports for type checkers only: its own code must look
        return {}


def _check(what: str, value: Any, hint: Any, *, usual: Any) -> None:
    if not _fits(value, hint):
        raise ConfigError(f"expected {_words(hint)} as {what}, got {value!r}: mend the value")
    if isinstance(value, list | tuple) and not value and usual is not MISSING and usual != ():
        raise ConfigError(f"expected something in {what}, got an empty list: leave it out for the usual")
    numbers = value if isinstance(value, list | tuple) else [value]
    if _is_number(usual) and usual >= 0 and any(_is_number(number) and number < 0 for number in numbers):
        raise ConfigError(f"expected {what} from 0, got {value!r}: mend the value")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fits(value: Any, hint: Any) -> bool:
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, inside[0]) and all(rule.holds(value) for rule in inside[1:] if isinstance(rule, Within))
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in inside)
    if origin is Literal:
        return value in inside
    if origin in (tuple, list, Sequence):
        return isinstance(value, list | tuple) and all(_fits(item, inside[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(_fits(item, inside[1]) for item in value.values())
    return not isinstance(hint, type) or _is_one(value, hint)


def _is_one(value: Any, hint: type) -> bool:
    if hint in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (hint is float and isinstance(value, float) and math.isfinite(value))
    if hint in (str, bool, NoneType):
        return isinstance(value, hint)
    return value in list(hint) if issubclass(hint, Enum) else True


def _words(hint: Any) -> str:
    plain = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([_words(inside[0]), *(str(rule) for rule in inside[1:] if isinstance(rule, Within))])
    if origin in (Union, UnionType):
        return " or ".join(_words(part) for part in inside if part is not NoneType)
    if origin is Literal:
        return f"one of {', '.join(str(word) or 'nothing' for word in inside)}"
    if origin in (tuple, list, Sequence):
        return f"a list ({_words(inside[0])} each)"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"one of {', '.join(str(item.value) for item in hint)}"
    return plain.get(hint, "a table" if origin in (dict, Mapping) else str(hint))
