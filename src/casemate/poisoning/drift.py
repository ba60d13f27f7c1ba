"""Drift: does what arrives still look like the data that the model was audited on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import DataKind, Profile, Scope
from casemate.core.lab import Lab
from casemate.core.options import Count, OpenShare
from casemate.core.plugin import watch
from casemate.core.records import Calibration
from casemate.core.stats import clopper_pearson, holm, ks_p_values
from casemate.engine.window import Window
from casemate.errors import DataError, Unavailable
from casemate.poisoning import THREAT

__all__ = ["DriftOptions", "DriftState", "calibrate_drift", "spent_alpha", "watch_drift"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_ID = "poisoning/drift"
_PARTS = ("reference", "tune", "train")

DRIFT = Metric(
    "poisoning.drift",
    Quantity.P_VALUE,
    Direction.TOO_HIGH,
    says="what arrives no longer looks like the data that the model was audited on",
    mend="look at the feature named: a changed unit, a new source, or poison; then audit again on fresh data",
    unit="p",
)


@dataclass(frozen=True, slots=True)
class DriftOptions:
    """`alpha`: odds of any false alarm over the whole stream; `rows`: most reference rows that are carried along.

    `window`: rows in the windows by which calibration measures false alarms.
    """

    alpha: OpenShare = 0.05
    rows: Count = 2000
    window: Count = 200


@dataclass(frozen=True, slots=True)
class DriftState:
    """How many windows have been tested since the calibration."""

    windows: int = 0


def calibrate_drift(case: Case, lab: Lab) -> Calibration:
    """Take reference rows and the labels that the model gives them; measure false alarms on rows held out.

    Rows come from `reference`, `tune` or `train`, the first that is there. Those beyond the reference are cut into
    windows, each tested as if it were the first; the share with an alarm is the measured rate (its interval is [0, 1]
    where no row is left). Raises `Unavailable` without data.
    """
    options: DriftOptions = lab.options
    data = next((case.splits.parts()[part] for part in _PARTS if part in case.splits.parts()), None)
    if data is None:
        raise Unavailable("expected data to compare with, got none: name a reference, tune or train file")
    rows = lab.rng("rows").permutation(len(data))
    count = min(options.rows, max(len(data) - options.window, math.ceil(len(data) * 2 / 3)))
    labels = _labels(case, data.take(rows[: count + 50 * options.window]))
    flat = data.x[rows].reshape(len(data), -1).astype(np.float64)
    names = data.schema.names if data.schema.kind is DataKind.TABLE else ()
    arrays: dict[str, Array] = {"x": flat[:count]}
    if labels is not None:
        arrays["labels"] = labels[:count]
    numbers = {"alpha": options.alpha}
    arrays["names"] = np.array(names or [f"feature {i}" for i in range(flat.shape[1])])
    draft = Calibration(
        _ID, "" if case.bundle is None else case.bundle.digest, options.alpha, 0, 0, 1, 0, numbers, arrays
    )
    alarms, n = 0, 0
    for start in range(count, min(len(flat), count + 50 * options.window) - options.window + 1, options.window):
        part = slice(start, start + options.window)
        none = np.full(options.window, -1)
        window = Window(flat[part], none if labels is None else labels[part])
        _, found = watch_drift(window, DriftState(), draft)
        alarms, n = alarms + any(item.value <= options.alpha for item in found), n + 1
    if n == 0:
        return draft
    rate = clopper_pearson(alarms, n)
    return Calibration(_ID, draft.bundle_digest, options.alpha, rate.value, rate.low, rate.high, n, numbers, arrays)


@watch(
    threat=THREAT,
    source="Hodges, Arkiv foer Matematik 3, 1958 (two-sample KS); Fisher, 1935 (answers); Holm, Scand. J. Stat. 6, "
    "1979; alpha-spending: Foster and Stine, JRSS B 70, 2008",
    needs=set(),
    kinds={DataKind.TABLE, DataKind.IMAGE},
    metrics=(DRIFT,),
    options=DriftOptions,
    profiles={Profile.QUICK: {"rows": 1000}},
    scope=Scope.GLOBAL,
    calibrate=calibrate_drift,
)
def watch_drift(
    window: Window, state: DriftState | None, calibration: Calibration
) -> tuple[DriftState, Iterator[Evidence]]:
    """Compare each feature and the rate of each label in a window with the reference.

    Kolmogorov-Smirnov for each of d features, with Fisher's exact test of missing values where there are any, Fisher's
    exact test for the rate of each label; Holm over all of them. Window i = 1, 2, ... since calibration may spend
    alpha_i = alpha 6 / (pi^2 i^2) of the odds of a false alarm, which sum to alpha over an endless stream, whatever the
    dependence. The p reported is p_holm alpha / alpha_i, to be read against alpha as if there were one window and one
    test; late windows need stronger evidence. Evidence about each drifted feature and label, or else about the smallest
    p. Errs high: ties, Holm and the union over windows all do; a drift that no single feature shows is missed.
    """
    turn = 1 if state is None else state.windows + 1
    return DriftState(turn), _measure(window, turn, calibration)


def spent_alpha(turn: int, alpha: float) -> float:
    """What window `turn` = 1, 2, ... may spend of `alpha`: alpha 6 / (pi^2 turn^2), which sums to alpha."""
    return alpha * 6 / (math.pi * turn) ** 2


def _measure(window: Window, turn: int, calibration: Calibration) -> Iterator[Evidence]:
    alpha, reference = calibration.numbers["alpha"], calibration.arrays["x"]
    x = np.asarray(window.x, dtype=np.float64).reshape(len(window.x), -1)
    if x.shape[1] != reference.shape[1]:
        raise DataError(f"expected windows of {reference.shape[1]} features, got {x.shape[1]}: use the audited schema")
    names, p = calibration.arrays["names"].tolist(), _feature_p(reference, x)
    if "labels" in calibration.arrays:
        values, of_labels = _label_p(calibration.arrays["labels"], np.asarray(window.labels))
        names, p = names + [f"answers: {value}" for value in values], np.concatenate([p, of_labels])
    adjusted = np.minimum(1.0, holm(p) * alpha / spent_alpha(turn, alpha))
    chosen = np.flatnonzero(adjusted <= alpha)
    at = {"window": turn}
    for position in chosen if len(chosen) else [int(adjusted.argmin())]:
        spends = f"window {turn} spends {spent_alpha(turn, alpha):.3g} of {alpha:g}"
        method = f"raw p {p[position]:.3g}, Holm over {len(names)} tests, {spends}"
        about = names[position] if len(chosen) else ""
        yield DRIFT.measured(float(adjusted[position]), method=method, n=len(x), about=about, at=at)


def _feature_p(reference: Floats, x: Floats) -> Floats:
    """One p for each feature, `(d,)`; a feature with missing values gets twice the smaller of two tests."""
    lost = np.isnan(reference).any(axis=0) | np.isnan(x).any(axis=0)
    p = np.ones(x.shape[1])
    if not lost.all():
        p[~lost] = ks_p_values(reference[:, ~lost], x[:, ~lost])
    for column in np.flatnonzero(lost):
        left, right = reference[:, column], x[:, column]
        missing = _fisher(int(np.isnan(left).sum()), len(left), int(np.isnan(right).sum()), len(right))
        left, right = left[~np.isnan(left)], right[~np.isnan(right)]
        values = float(ks_p_values(left[:, None], right[:, None])[0]) if len(left) and len(right) else 1.0
        p[column] = min(1.0, 2 * min(missing, values))
    return p


def _label_p(reference: Array, labels: Array) -> tuple[list[Any], Floats]:
    values = np.union1d(reference, labels).tolist()
    counts = [(int((reference == value).sum()), int((labels == value).sum())) for value in values]
    return values, np.array([_fisher(a, len(reference), b, len(labels)) for a, b in counts])


def _fisher(a: int, n: int, b: int, m: int) -> float:
    from scipy.stats import fisher_exact  # slow to import, and `import casemate` must be fast

    return float(min(1.0, fisher_exact([[a, n - a], [b, m - b]]).pvalue))


def _labels(case: Case, data: Data) -> Array | None:
    return None if case.model is None else np.asarray(case.model.labels(data.x))
