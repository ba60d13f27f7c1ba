"""The plan: which plug-ins can run on a case, with which options and which share of the budget."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from casemate.core.budget import Budget, allocate
from casemate.core.case import Case
from casemate.core.facets import PluginKind, Profile
from casemate.core.names import nearest
from casemate.core.options import check_options
from casemate.core.outcome import Skipped, SkipReason
from casemate.core.plugin import Plugin
from casemate.errors import ConfigError

__all__ = ["Step", "applicable", "plan"]

_FIRST = "preflight"


@dataclass(frozen=True, slots=True)
class Step:
    """One plug-in of a plan: its options and its share of the propagations; or why it is skipped."""

    plugin: Plugin
    options: Any
    share: int | None = None
    skipped: Skipped | None = None


def plan(
    plugins: Sequence[Plugin],
    case: Case,
    *,
    profile: Profile,
    budget: Budget,
    options: Mapping[str, Mapping[str, Any]],
    only: Sequence[str] = (),
) -> list[Step]:
    """Steps for every probe, preflight first; raises `ConfigError` for ids and options that do not exist.

    `only` limits the plan to ids or rooms. What the case does not offer is skipped as not applicable, what is not
    installed as unavailable.
    """
    probes = sorted((p for p in plugins if p.kind is PluginKind.PROBE), key=lambda p: (not _early(p), p.id))
    _refuse_unknown(plugins, [*options, *only])
    for name, given in options.items():
        check_options([p for p in plugins if p.id == name], given)
    _refuse_options(plugins, profile, options)
    if only:
        probes = [p for p in probes if p.id in only or p.id.partition("/")[0] in only]
    reasons = {p.id: applicable(p, case) for p in probes}
    running = [p for p in probes if reasons[p.id] is None]
    shares = dict(zip((p.id for p in running), allocate(budget.propagations, [p.cost for p in running]), strict=True))
    return [Step(p, p.configured(profile, options.get(p.id)), shares.get(p.id), skipped=reasons[p.id]) for p in probes]


def applicable(plugin: Plugin, case: Case) -> Skipped | None:
    """Why a plug-in cannot run on a case, or `None` when it can."""
    missing = sorted(plugin.needs - case.offers)
    if missing:
        return Skipped(
            plugin.id, SkipReason.NOT_APPLICABLE, f"needs {', '.join(missing)}, which this case does not offer"
        )
    if case.kind is not None and case.kind not in plugin.kinds:
        return Skipped(plugin.id, SkipReason.NOT_APPLICABLE, f"does not apply to {case.kind} data")
    absent = [name for name in plugin.requires if importlib.util.find_spec(name) is None]
    if absent:
        return Skipped(
            plugin.id, SkipReason.UNAVAILABLE, f"needs {', '.join(absent)}: pip install 'casemate[{absent[0]}]'"
        )
    return None


def _early(plugin: Plugin) -> bool:
    return plugin.id.startswith(f"{_FIRST}/")


def _refuse_unknown(plugins: Sequence[Plugin], asked: Sequence[str]) -> None:
    ids = {p.id for p in plugins}
    known = ids | {i.partition("/")[0] for i in ids}
    for name in asked:
        if name not in known:
            raise ConfigError(
                f"expected a plug-in or a room, got {name!r}: {nearest(name, sorted(known))} `casemate list plugins` "
                "shows all"
            )


def _refuse_options(plugins: Sequence[Plugin], profile: Profile, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Options are held against their plug-in even where it does not run; kinds of one id may share them."""
    for name, given in options.items():
        errors = []
        mine = [p for p in plugins if p.id == name]
        for plugin in mine:
            try:
                plugin.configured(profile, given)
            except ConfigError as error:
                errors.append(error)
        if errors and len(errors) == len(mine):
            raise errors[0]
