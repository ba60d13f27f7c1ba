"""The catalogue: every plug-in of the rooms and of installed packages, found by walking, never by a list."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType

from casemate.core.plugin import Plugin
from casemate.errors import CasemateError, LawBroken

__all__ = ["GROUP", "ROOMS", "find", "plugins"]

ROOMS = ("preflight", "evasion", "poisoning", "privacy", "fairness", "artifacts")
GROUP = "casemate.plugins"


@cache
def plugins() -> tuple[Plugin, ...]:
    """All plug-ins, sorted by id and kind. An entry point names a module (or package) that holds some.

    Raises `LawBroken` for an entry point that cannot be imported or holds no plug-in, and for an id used twice.
    """
    found = [p for room in ROOMS for module in _modules(f"casemate.{room}") for p in _in(module)]
    for point in entry_points(group=GROUP):
        try:
            modules = list(_modules(point.value))
        except Exception as error:  # a third party's code may raise anything
            raise LawBroken(f"expected a module at entry point {point.name!r}, got {error!r}: uninstall it") from error
        theirs = [p for module in modules for p in _in(module)]
        if not theirs:
            raise LawBroken(f"expected plug-ins at entry point {point.name!r} ({point.value}), got none: uninstall it")
        found += theirs
    return _unique(found)


def find(name: str) -> list[Plugin]:
    """The plug-ins with an id, of all kinds; raises `CasemateError` when there is none."""
    matches = [p for p in plugins() if p.id == name]
    if not matches:
        raise CasemateError(f"expected the id of a plug-in, got {name!r}: `casemate list plugins` shows them")
    return matches


def _modules(name: str) -> Iterable[ModuleType]:
    package = importlib.import_module(name)
    yield package
    for item in pkgutil.iter_modules(getattr(package, "__path__", [])):
        yield importlib.import_module(f"{name}.{item.name}")


def _in(module: ModuleType) -> list[Plugin]:
    values = [v for v in vars(module).values() if isinstance(v, Plugin)]
    return [v for v in values if v.function.__module__ == module.__name__]


def _unique(found: Iterable[Plugin]) -> tuple[Plugin, ...]:
    by_key: dict[tuple[str, str], Plugin] = {}
    for plugin in found:
        key = (plugin.id, plugin.kind)
        if key in by_key and by_key[key] is not plugin:
            raise LawBroken(f"expected one {plugin.kind} with the id {plugin.id}, got two: rename one")
        by_key[key] = plugin
    return tuple(by_key[key] for key in sorted(by_key))
