"""From brackets to evidence: robust and certified accuracy at every eps, as numbers with intervals and as curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity, Scalar
from casemate.core.lab import Stored
from casemate.core.norms import Norm
from casemate.core.stats import Interval, clopper_pearson

__all__ = ["METRICS", "evidence_of", "standing"]

Array = NDArray[Any]

_POINTS = 12  # of a curve, evenly up to the largest eps, beside the given ones

_ROBUST = Metric(
    "evasion.robust_accuracy",
    Quantity.ROBUSTNESS,
    Direction.TOO_HIGH,
    says="small changes of the input make the model answer wrongly",
    mend="train adversarially (casemate.harden), smooth the model, or narrow what an attacker can change: the bounds "
    "and fixed columns of a schema, look-alike and invisible characters of a text",
)
_CERTIFIED = Metric("evasion.certified_accuracy", Quantity.NOTE, Direction.TOO_LOW)
_CLEAN = Metric("evasion.clean_accuracy", Quantity.NOTE, Direction.EXACT)
_CURVE = Metric("evasion.robust_curve", Quantity.NOTE, Direction.TOO_HIGH)
_CERTIFIED_CURVE = Metric("evasion.certified_curve", Quantity.NOTE, Direction.TOO_LOW)
_MEDIAN = Metric("evasion.median_distance", Quantity.NOTE, Direction.TOO_HIGH, unit="eps")
_STAGE = Metric("evasion.stage_successes", Quantity.NOTE, Direction.EXACT, unit="samples")
_UNFINISHED = Metric("evasion.unfinished", Quantity.NOTE, Direction.EXACT, unit="samples")
_FORWARDS = Metric("evasion.forwards", Quantity.NOTE, Direction.EXACT, unit="samples")
_BACKWARDS = Metric("evasion.backwards", Quantity.NOTE, Direction.EXACT, unit="samples")

METRICS = (
    _ROBUST,
    _CERTIFIED,
    _CLEAN,
    _CURVE,
    _CERTIFIED_CURVE,
    _MEDIAN,
    _STAGE,
    _UNFINISHED,
    _FORWARDS,
    _BACKWARDS,
)
"""What `evasion/standard` yields."""


def standing(upper: Array, eps: float) -> NDArray[np.bool_]:
    """Which samples nobody broke within eps, `(n,)`; the tolerance is the ledger's."""
    return np.asarray(upper > eps * (1 + 1e-6) + 1e-12)


def evidence_of(kept: Stored, case: Case, files: tuple[str, ...]) -> Iterator[Evidence]:
    """All evidence of one norm from its brackets (`lower, upper, upper_by, unfinished, eps, ...`), in a fixed order."""
    lower, upper = np.asarray(kept["lower"]), np.asarray(kept["upper"])
    norm, n = str(kept["norm"]), len(upper)
    radii = [float(eps) for eps in np.asarray(kept["eps"])]
    where: dict[str, Scalar] = {"norm": norm}
    sampled = f"{n} of {len(case.data('test'))} test rows, drawn by class"
    yield _CLEAN.measured(_rate(upper > 0), method=sampled, about=norm, at=where, files=files)
    for eps in radii:
        at, short = _at(norm, eps), int(_unfinished(kept, eps).sum())
        method = f"{sampled}; {short} not fully attacked: the budget ended first" if short else sampled
        yield _ROBUST.measured(_robust(kept, eps), method=method, about=norm, at=at, files=files)
        yield _CERTIFIED.measured(_rate(_proved(lower, upper, eps)), method=sampled, about=norm, at=at, files=files)
    points = np.array([radii[-1] * k / _POINTS for k in range(1, _POINTS + 1)])
    points = np.ceil(points) if norm == Norm.L0 else points  # a count: nothing happens between whole numbers
    for eps in sorted({*radii, *points.tolist()}):
        at = _at(norm, eps)
        yield _CURVE.measured(_robust(kept, eps), method="brackets", about=norm, at=at, files=files)
        yield _CERTIFIED_CURVE.measured(
            _rate(_proved(lower, upper, eps)), method="brackets", about=norm, at=at, files=files
        )
    if np.isfinite(median := float(np.sort(upper)[n // 2])):
        yield _MEDIAN.measured(median, method="median of the upper bounds", n=n, about=norm, at=where, files=files)
    yield from _counts(kept, norm, files)


def _counts(kept: Stored, norm: str, files: tuple[str, ...]) -> Iterator[Evidence]:
    n = len(np.asarray(kept["upper"]))
    by, counts = np.unique(np.asarray(kept["upper_by"])[np.isfinite(np.asarray(kept["upper"]))], return_counts=True)
    for method, count in zip(by.tolist(), counts.tolist(), strict=True):
        at: dict[str, Scalar] = {"norm": norm, "by": method}
        yield _STAGE.measured(count, method="nearest witness found by it", n=n, about=norm, at=at, files=files)
    radii = np.asarray(kept["eps"]).tolist()
    for eps, column in zip(radii, np.asarray(kept["unfinished"]).T, strict=True):
        missing = int(column.sum())
        why = "all stages were finished" if not missing else "the budget ended before all stages: counted as standing"
        yield _UNFINISHED.measured(missing, method=why, n=n, about=norm, at=_at(norm, eps), files=files)
    for metric, name in ((_FORWARDS, "forwards"), (_BACKWARDS, "backwards")):
        yield metric.measured(int(kept[name]), method="counted", n=n, about=norm, at={"norm": norm}, files=files)


def _at(norm: str, eps: float) -> dict[str, Scalar]:
    return {"norm": norm, "eps": eps}


def _proved(lower: Array, upper: Array, eps: float) -> NDArray[np.bool_]:
    """Right as they are, and nothing within eps breaks them.

    A bound says that nothing *below* it does: at eps itself, as far as a whole number or a category may be, one can.
    """
    return np.asarray((lower > eps) & standing(upper, eps))


def _robust(kept: Stored, eps: float) -> Interval:
    """The share that stands within eps; the lower end is what it would be if all not fully attacked fell."""
    stands = standing(np.asarray(kept["upper"]), eps)
    return replace(_rate(stands), low=_rate(stands & ~_unfinished(kept, eps)).low)


def _unfinished(kept: Stored, eps: float) -> NDArray[np.bool_]:
    """Which samples were not fully attacked within eps, `(n,)`: in the smallest ball asked for that holds it."""
    ball = min(int(np.searchsorted(np.asarray(kept["eps"]), eps * (1 - 1e-9))), len(kept["eps"]) - 1)
    return np.asarray(kept["unfinished"])[:, ball]


def _rate(hits: Array) -> Interval:
    return clopper_pearson(int(hits.sum()), len(hits))
