"""What is persisted and versioned from the first day: calibrations, events, verdicts (attestations: `formats`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Calibration", "Decision", "Event", "Request", "Verdict"]


class Decision(StrEnum):
    """What a guard says of a request."""

    ALLOW = "allow"
    FLAG = "flag"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What an audit hands to a guard or a watch.

    `declared_fpr` is the promised rate of false alarms on clean data; `low <= fpr <= high` is what was measured on `n`
    clean samples that took no part in setting the threshold. `arrays` are small; they travel in the bundle.
    """

    plugin: str
    bundle_digest: str
    declared_fpr: float
    fpr: float
    low: float
    high: float
    n: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard said of each sample of a request: scores and refusals `(n,)`, and the decision for the whole."""

    plugin: str
    decision: Decision
    score: NDArray[np.float64]
    refused: NDArray[np.bool_]
    threshold: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a served model: `x (n, ...)` from `principal`; `answer` is there from the answer phase on."""

    principal: str
    x: NDArray[Any]
    received_at: float
    answer: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What serving emits for one request: enough to watch and to audit, nothing that identifies a person by default."""

    id: str
    bundle_digest: str
    principal: str
    received_at: float
    n: int
    decision: Decision
    labels: tuple[int, ...]
    scores: tuple[float, ...]
    guards: Mapping[str, str] = field(default_factory=dict)
    features: tuple[tuple[float, ...], ...] = ()
    version: int = 1
