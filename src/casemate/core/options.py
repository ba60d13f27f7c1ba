"""Options as a user gives them, held against the dataclass of the plug-in before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from casemate.core.names import nearest
from casemate.core.norms import Norm
from casemate.core.plugin import Plugin
from casemate.errors import ConfigError

__all__ = ["check_options"]


def check_options(plugins: Sequence[Plugin], given: Mapping[str, Any]) -> None:
    """Hold given options against those of the plug-ins of one id (a file may offer several kinds).

    Raises `ConfigError` for an unknown name (with the nearest one), a value of another type, a number that is not
    finite, one below zero where the default is not, a `norm` that is none, and an `eps` that is not positive.
    """
    known = [item.name for plugin in plugins for item in fields(plugin.options)]
    for name in given:
        if name not in known:
            mend = nearest(name, known) if known else "leave it out"
            raise ConfigError(f"expected an option of {plugins[0].id}, got {name!r}: {mend}")
    for plugin in plugins:
        hints, usual = _hints(plugin.options), plugin.options()
        for name in set(given) & set(hints):
            _check(f"{name} of {plugin.id}", given[name], hints[name])
            _check_range(name, plugin.id, given[name], getattr(usual, name))


def _hints(options: type) -> dict[str, Any]:
    try:
        return get_type_hints(options)
    except NameError:  # names that a plug-in imports for type checkers only: its own code must look
        return {}


def _check(what: str, value: Any, hint: Any) -> None:
    if not _fits(value, hint):
        raise ConfigError(f"expected {_words(hint)} as {what}, got {value!r}: mend the value")


def _check_range(name: str, plugin: str, value: Any, usual: Any) -> None:
    items = value if isinstance(value, list | tuple) else [value]
    if name == "norm":
        for item in items:
            if item not in list(Norm):
                raise ConfigError(f"expected norm of {plugin} among {', '.join(Norm)}, got {item!r}: choose one")
        return
    numbers = [item for item in items if isinstance(item, int | float) and not isinstance(item, bool)]
    if name == "eps" and (not items or any(item <= 0 for item in numbers)):
        raise ConfigError(f"expected positive numbers as eps of {plugin}, got {value!r}: mend eps")
    if isinstance(usual, int | float) and usual >= 0 and any(item < 0 for item in numbers):
        raise ConfigError(f"expected {name} of {plugin} from 0, got {value!r}: mend the value")


def _fits(value: Any, hint: Any) -> bool:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in inside)
    if hint in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (hint is float and isinstance(value, float) and math.isfinite(value))
    if hint in (str, bool, NoneType):
        return isinstance(value, hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return value in list(hint)
    if origin in (tuple, list, Sequence):
        return isinstance(value, list | tuple) and all(_fits(item, inside[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(_fits(item, inside[1]) for item in value.values())
    return True


def _words(hint: Any) -> str:
    plain = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(part) for part in inside if part is not NoneType)
    if origin in (tuple, list, Sequence):
        return f"a list ({_words(inside[0])} each)"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"one of {', '.join(str(item.value) for item in hint)}"
    return plain.get(hint, "a table" if origin in (dict, Mapping) else str(hint))
