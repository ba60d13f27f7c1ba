"""What several checks need: a small fixed sample, answers, their comparison, the gain of undoing a mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.evidence import Evidence, Metric
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.options import Count, Within
from casemate.core.stats import Interval, paired_difference

__all__ = ["Samples", "answers", "differing", "gains", "sampled"]

Array = NDArray[Any]
Variant = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Samples:
    """`samples`: most test rows looked at; `tolerance`: what two answers may differ by and still be the same."""

    samples: Count = 256
    tolerance: Annotated[float, Within(least=0)] = 1e-4


def sampled(data: Data, lab: Lab, samples: int, name: str = "rows") -> Data:
    """At most `samples` rows, drawn without replacement and kept in order."""
    if len(data) <= samples:
        return data
    return data.take(np.sort(lab.rows_rng(name).choice(len(data), size=samples, replace=False)))


def answers(model: Model, x: Array) -> dict[str, Array]:
    """Labels, and the logits or else the scores, of `x (n, ...)`: name -> `(n,)` or `(n, k)`."""
    found = {"labels": np.asarray(model.labels(x))}
    finer = model.logits or model.scores
    if finer is not None:
        found["outputs"] = np.asarray(finer(x), dtype=np.float64)
    return found


def differing(a: Mapping[str, Array], b: Mapping[str, Array], tolerance: float) -> NDArray[np.bool_]:
    """Which rows of two sets of answers differ, mask `(n,)`: another label, or outputs further apart than `tolerance`.

    The tolerance is absolute up to 1 and relative above. Outputs that are not finite are equal only to themselves.
    Where there are outputs another label counts only if it is clear from them: two classes that are level to the last
    bit may come out either way. The numbers of a regression may differ by the tolerance times the largest of them.
    """
    labels = np.asarray(a["labels"] != b["labels"])
    if "outputs" not in a:
        return _apart(a["labels"], b["labels"], tolerance) if a["labels"].dtype.kind == "f" else labels
    close = np.isclose(a["outputs"], b["outputs"], rtol=tolerance, atol=tolerance, equal_nan=True)
    return np.asarray(~close.reshape(len(close), -1).all(axis=1)) | (labels & ~_level(a["outputs"], tolerance))


def _apart(a: Array, b: Array, tolerance: float) -> NDArray[np.bool_]:
    size = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
    return ~np.isclose(a, b, rtol=tolerance, atol=tolerance * size, equal_nan=True)


def _level(outputs: Array, tolerance: float) -> NDArray[np.bool_]:
    """Rows whose two largest outputs are the same up to the tolerance; all of them where there is one column."""
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        return np.ones(len(outputs), dtype=bool)
    second, first = np.sort(outputs, axis=1)[:, -2:].T
    return np.asarray(np.isclose(first, second, rtol=tolerance, atol=tolerance))


def gains(case: Case, lab: Lab, metric: Metric, variants: Mapping[str, Variant]) -> Iterator[Evidence]:
    """What undoing a suspected mistake gains in accuracy on the same test rows, floored at 0: one interval a variant.

    The intervals hold for all variants at once (Bonferroni).
    """
    data = sampled(case.data("test"), lab, lab.options.samples)
    model = case.the_model()
    given = np.asarray(model.labels(data.x)) == data.labels
    confidence = 1 - 0.05 / max(1, len(variants))
    for name, change in variants.items():
        changed = np.asarray(model.labels(change(data.x))) == data.labels
        found = paired_difference(changed, given, confidence=confidence)
        floored = Interval(
            max(found.value, 0.0), max(found.low, 0.0), max(found.high, 0.0), found.n, found.confidence, found.method
        )
        method = f"accuracy {changed.mean():.3f} when {name}, {given.mean():.3f} as given, same rows"
        yield metric.measured(floored, method=method, about=name)
