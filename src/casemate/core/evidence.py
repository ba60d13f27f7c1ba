"""One measurement: a number, its interval, and which way it errs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from casemate.core.stats import Interval
from casemate.errors import LawBroken

__all__ = ["Direction", "Evidence", "Metric", "Quantity", "Scalar", "check"]

Scalar = str | int | float | bool


class Direction(StrEnum):
    """Which way a measurement errs beside its sampling interval."""

    EXACT = "exact"  # a proof or a count: no error but sampling
    TOO_HIGH = "too_high"  # the truth is at most this (an attack bounds robustness from above)
    TOO_LOW = "too_low"  # the truth is at least this (a certificate; a leak that a stronger attacker would widen)
    EITHER = "either"


class Quantity(StrEnum):
    """What kind of number a metric is; the judgement table is keyed by it, so that a plug-in never decides severity."""

    ROBUSTNESS = "robustness"  # share that stays right under attack; 1 is good
    RATE_GAP = "rate_gap"  # difference between rates of groups; 0 is good
    AUC = "auc"  # of an attacker; 0.5 is good
    LIFT = "lift"  # an attacker's success over chance: value / baseline; 1 is good
    DEFECT_SHARE = "defect_share"  # share of samples with a set-up defect; 0 is good
    DEFECT = "defect"  # 1 when a set-up mistake is certain, else 0
    P_VALUE = "p_value"  # of an alarm with a named null, corrected for multiplicity; small is bad
    SUCCESS_RATE = "success_rate"  # of an attacker; 0 is good
    UNREVIEWED = "unreviewed"  # share of what is loaded that nobody vouches for; 0 is good
    NOTE = "note"  # a fact that is reported and never judged


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as a plug-in declares it; `says` and `mend` are the words of a finding."""

    name: str
    quantity: Quantity
    errs: Direction
    says: str = ""
    mend: str = ""
    unit: str = "share"

    def measured(
        self,
        value: Interval | float,
        *,
        method: str,
        n: int | None = None,
        about: str = "",
        at: Mapping[str, Scalar] | None = None,
        baseline: float | None = None,
        files: tuple[str, ...] = (),
    ) -> Evidence:
        """Evidence for this metric; a bare number has no sampling error (`n` counts what it was computed on)."""
        if isinstance(value, Interval):
            numbers, count, confidence, interval = (
                (value.value, value.low, value.high),
                value.n,
                value.confidence,
                value.method,
            )
        else:
            numbers, count, confidence, interval = (float(value),) * 3, 0, 1.0, "none"
        return Evidence(
            metric=self.name,
            quantity=self.quantity,
            value=numbers[0],
            low=numbers[1],
            high=numbers[2],
            n=count if n is None else n,
            unit=self.unit,
            confidence=confidence,
            interval=interval,
            method=method,
            errs=self.errs,
            about=about,
            at=dict(at or {}),
            baseline=baseline,
            files=files,
            says=self.says,
            mend=self.mend,
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measurement of `metric` about `about` (an attribute, a norm) at the coordinates `at` (`eps`, `fpr`).

    `low <= value <= high` is the interval at `confidence`; `interval` names how it was made and `method` how the value
    was; `errs` is the direction of what the interval does not cover. `files` are digests of per-sample results.
    Raises `LawBroken` for a number that is not finite or lies outside its interval.
    """

    metric: str
    quantity: Quantity
    value: float
    low: float
    high: float
    n: int
    unit: str
    confidence: float
    interval: str
    method: str
    errs: Direction
    about: str = ""
    at: Mapping[str, Any] = field(default_factory=dict)
    baseline: float | None = None
    files: tuple[str, ...] = ()
    says: str = ""
    mend: str = ""

    def __post_init__(self) -> None:
        check(self)


def check(evidence: Evidence) -> None:
    """Hold evidence to the law of the interval; the harness calls it again on what a plug-in yields."""
    numbers = (evidence.value, evidence.low, evidence.high)
    if not all(math.isfinite(number) for number in numbers):
        raise LawBroken(f"expected finite numbers for {evidence.metric}, got {numbers}: report what is measurable")
    if not evidence.low <= evidence.value <= evidence.high:
        raise LawBroken(
            f"expected an interval that holds its value for {evidence.metric}, got {evidence.value} outside "
            f"[{evidence.low}, {evidence.high}]: mend the interval"
        )
    odd = [name for name, value in evidence.at.items() if not _is_scalar(value)]
    if odd:
        raise LawBroken(f"expected texts and finite numbers at {evidence.metric}, got another {odd[0]!r}: write it so")
    if evidence.baseline is not None and not (math.isfinite(evidence.baseline) and evidence.baseline >= 0):
        raise LawBroken(
            f"expected a baseline of at least 0 for {evidence.metric}, got {evidence.baseline}: give the rate of chance"
        )
    if not 0 < evidence.confidence <= 1 or evidence.n < 0:
        raise LawBroken(f"expected a confidence in (0, 1] and n >= 0 for {evidence.metric}: mend the evidence")


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
