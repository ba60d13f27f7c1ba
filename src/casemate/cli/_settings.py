"""What the commands need of casemate.toml: the case, the order of an audit."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casemate.errors import ConfigError

if TYPE_CHECKING:
    from casemate.core.case import Case

__all__ = ["given_options", "loaded_case", "toml_value"]


def loaded_case(path: Path, *, trust: bool = False, authorised: bool = False, isolate: bool = False) -> Case:
    """The case that a configuration describes; the rest as for `casemate.config.load`."""
    from casemate import config

    case: Case = config.case_of(config.load(path, trust=trust, authorised=authorised, isolate=isolate))
    return case


def given_options(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options of plug-ins from `ID.OPTION=VALUE`, each value as TOML.

    Raises `ConfigError` for anything of another form.

    >>> given_options(["evasion/standard.samples=64"])
    {'evasion/standard': {'samples': 64}}
    """
    found: dict[str, dict[str, Any]] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        plugin, dot, option = key.strip().rpartition(".")
        if not (equals and dot and plugin and option):
            raise ConfigError(f"expected --set ID.OPTION=VALUE, got {text!r}: write evasion/standard.samples=64")
        found.setdefault(plugin, {})[option] = toml_value(value.strip())
    return found


def toml_value(text: str) -> Any:
    """A value as TOML writes it; text without quotes is text.

    >>> toml_value("[0.1, 0.2]"), toml_value("linf")
    ([0.1, 0.2], 'linf')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, a number or a nesting without end
        return text
