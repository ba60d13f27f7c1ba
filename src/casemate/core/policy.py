"""The policy: which findings fail a run, which gates must hold, which findings are accepted and until when."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from casemate.core.outcome import Severity
from casemate.errors import ConfigError

__all__ = ["Accepted", "Gate", "Policy"]


@dataclass(frozen=True, slots=True)
class Gate:
    """A bar for a metric: `min <= metric <= max` at the coordinates `at`, and about `about` where it is given.

    Raises `ConfigError` for a gate without a bar, or one that nothing can pass.
    """

    metric: str
    at: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        lo, hi = -math.inf if self.min is None else self.min, math.inf if self.max is None else self.max
        if (self.min is None and self.max is None) or not lo <= hi:
            raise ConfigError(
                f"expected a bar for the gate on {self.metric}, got min = {self.min}, max = {self.max}: a gate without "
                "one passes whatever is measured, so give min, max or both, the smaller as min"
            )


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
