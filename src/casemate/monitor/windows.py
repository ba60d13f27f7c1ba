"""Windows over events, the watches that look at them, and the incidents that come of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from casemate.core.evidence import check
from casemate.core.judgement import judge
from casemate.core.outcome import Failed, Finding, Outcome
from casemate.core.plugin import Plugin
from casemate.core.records import Calibration, Event
from casemate.engine.window import Window

__all__ = ["Incident", "Watcher", "cut_windows"]


@dataclass(frozen=True, slots=True)
class Incident:
    """A watch found something: what it is about, and that the bundle should be audited again."""

    bundle_digest: str
    outcome: Outcome
    window: int
    wants: str = "audit"


def cut_windows(events: Iterable[Event], size: int) -> Iterator[Window]:
    """Windows of at least `size` samples each, in the order of the events; a rest that does not fill one waits."""
    held: list[Event] = []
    for event in events:
        held.append(event)
        if sum(item.n for item in held) >= size:
            yield _window(held)
            held = []


def _window(events: Sequence[Event]) -> Window:
    principals = np.repeat([event.principal for event in events], [event.n for event in events])
    return Window(
        x=np.concatenate([np.asarray(event.features, dtype=np.float64) for event in events]),
        labels=np.concatenate([np.asarray(event.labels, dtype=np.int64) for event in events]),
        scores=np.concatenate([np.asarray(event.scores, dtype=np.float64) for event in events]),
        principals=principals,
    )


@dataclass(slots=True)
class Watcher:
    """Runs watches over the windows of one bundle and keeps their state between windows."""

    bundle_digest: str
    watches: tuple[tuple[Plugin, Calibration], ...]
    seen: int = 0
    _states: dict[str, Any] = field(default_factory=dict)

    def look(self, window: Window) -> tuple[list[Outcome], list[Incident]]:
        """What the watches say of one window, and the incidents; a watch that breaks is an outcome, not an end."""
        outcomes: list[Outcome] = []
        for plugin, calibration in self.watches:
            try:
                state, evidence = plugin.function(window, self._states.get(plugin.id), calibration)
                items = list(evidence)
                for item in items:
                    check(item)
            except Exception as error:  # a watch may raise anything; monitoring goes on
                outcomes.append(Failed(plugin.id, f"{type(error).__name__}: {error}"))
                continue
            self._states[plugin.id] = state
            outcomes += judge(plugin.id, items)
        found = [o for o in outcomes if isinstance(o, Finding)]
        incidents = [Incident(self.bundle_digest, outcome, self.seen) for outcome in found]
        self.seen += 1
        return outcomes, incidents
