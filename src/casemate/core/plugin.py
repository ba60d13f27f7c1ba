"""Plug-ins are functions with a decorator: what they need, what they measure, where the method comes from."""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib import import_module
from typing import Any

from casemate.core.evidence import Metric
from casemate.core.facets import Cost, DataKind, Facet, Phase, PluginKind, Profile, Scope
from casemate.core.norms import Norm
from casemate.core.outcome import Threat
from casemate.errors import ConfigError, LawBroken

__all__ = [
    "NoOptions",
    "Plugin",
    "attack",
    "certificate",
    "detector",
    "guard",
    "hardening",
    "plugin_id",
    "probe",
    "resource",
    "watch",
]

Function = Callable[..., Any]
ALL_KINDS = frozenset(DataKind)


@dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of a plug-in that has none."""


@dataclass(frozen=True)
class Plugin:
    """A plug-in: its function and what the decorator declared. Calling it calls the function.

    `id` is `room/file_name`, taken from the module. `options` is a frozen dataclass whose defaults are those of the
    standard profile; `profiles` overrides some of them. An attack with `minimum_norm` takes eps = inf, and is run once
    for all eps. `replay(case, arrays, lab)` recomputes a probe's evidence from
    the per-sample results that it kept. `paired(arrays, evidence) -> (sample_id (n,), values (n,)) | None` gives
    the per-sample values whose mean the evidence is, for a paired comparison of two runs. `calibrate(case, lab) ->
    Calibration` belongs to guards and watches.
    """

    kind: PluginKind
    id: str
    function: Function
    threat: Threat
    source: str
    needs: frozenset[Facet] = frozenset()
    kinds: frozenset[DataKind] = ALL_KINDS
    cost: Cost = Cost.CHEAP
    metrics: tuple[Metric, ...] = ()
    options: type = NoOptions
    profiles: Mapping[Profile, Mapping[str, Any]] = field(default_factory=dict)
    norms: frozenset[Norm] = frozenset()
    minimum_norm: bool = False
    requires: tuple[str, ...] = ()
    phase: Phase = Phase.ADMIT
    scope: Scope = Scope.NONE
    replay: Function | None = None
    calibrate: Function | None = None
    paired: Function | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plug-in's function."""
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name where the module holds this very plug-in: its function's name now stands for the plug-in."""
        module = sys.modules.get(self.function.__module__)
        name = self.function.__name__
        if getattr(module, name, None) is self:
            return _named, (self.function.__module__, name)
        return copyreg.__newobj__, (Plugin,), dict(self.__dict__)  # type: ignore[attr-defined]  # not in the stubs

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().split("\n")[0]

    def configured(self, profile: Profile, given: Mapping[str, Any] | None = None) -> Any:
        """The options under a profile, with the user's on top; raises `ConfigError` for unknown ones."""
        known = [item.name for item in fields(self.options)]
        for key in given or {}:
            if key not in known:
                raise ConfigError(
                    f"expected an option of {self.id} ({', '.join(known) or 'none'}), got {key!r}: mend it"
                )
        return replace(self.options(), **{**self.profiles.get(profile, {}), **(given or {})})


def _maker(kind: PluginKind) -> Callable[..., Callable[[Function], Plugin]]:
    def declare(*, threat: Threat, source: str, **declared: Any) -> Callable[[Function], Plugin]:
        """Declare a plug-in; see `Plugin` for the fields."""

        def wrap(function: Function) -> Plugin:
            if not source.strip():
                raise LawBroken(f"expected a source for {function.__name__}, got none: cite the paper or standard")
            chosen = declared.get("options", NoOptions)
            if not is_dataclass(chosen):
                raise LawBroken(f"expected a frozen dataclass as options of {function.__name__}: write one")
            for name in ("needs", "kinds", "norms"):
                if name in declared:
                    declared[name] = frozenset(declared[name])
            return Plugin(kind, plugin_id(function), function, threat, source, **declared)

        return wrap

    return declare


def _named(module: str, name: str) -> Plugin:
    found: Plugin = getattr(import_module(module), name)
    return found


def plugin_id(function: Function) -> str:
    """`room/file_name`, from where the function is written."""
    parts = function.__module__.split(".")
    return "/".join(parts[-2:]) if len(parts) > 1 else f"{parts[0]}/{function.__name__}"


resource = _maker(PluginKind.RESOURCE)
detector = _maker(PluginKind.DETECTOR)
attack = _maker(PluginKind.ATTACK)
certificate = _maker(PluginKind.CERTIFICATE)
probe = _maker(PluginKind.PROBE)
hardening = _maker(PluginKind.HARDENING)
guard = _maker(PluginKind.GUARD)
watch = _maker(PluginKind.WATCH)
