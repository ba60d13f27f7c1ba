"""The policy: which findings fail a run, which gates must hold, which findings are accepted and until when."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from casemate.core.outcome import Severity

__all__ = ["Accepted", "Gate", "Policy"]


@dataclass(frozen=True, slots=True)
class Gate:
    """A bar for a metric: `min <= metric <= max` at the coordinates `at`, and about `about` where it is given."""

    metric: str
    at: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A finding that its owner accepts until a date, for a reason; expired ones fail the run."""

    finding: str  # an id `room/file_name#fingerprint`, or `room/file_name` for all of a plug-in's
    until: dt.date
    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """`fail_on` is the least severity that fails a run (`none` switches that off)."""

    fail_on: Severity = Severity.HIGH
    gates: tuple[Gate, ...] = ()
    accepted: tuple[Accepted, ...] = ()
