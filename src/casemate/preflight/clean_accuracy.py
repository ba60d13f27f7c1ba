"""Accuracy on clean test data, against what was declared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet, Profile
from casemate.core.lab import Lab
from casemate.core.model import Task
from casemate.core.plugin import probe
from casemate.core.stats import Interval, clopper_pearson
from casemate.preflight import THREAT
from casemate.preflight._common import Samples, sampled

__all__ = ["check_clean_accuracy"]

ACCURACY = Metric("preflight.clean_accuracy", Quantity.NOTE, Direction.EXACT)
SHORTFALL = Metric(
    "preflight.accuracy_shortfall",
    Quantity.RATE_GAP,
    Direction.EXACT,
    says="the model is less accurate here than was declared",
    mend="check the weights, the transforms and the test file; or correct the declared accuracy",
)
WORTHLESS = Metric(
    "preflight.below_majority",
    Quantity.DEFECT,
    Direction.EXACT,
    says="the model is less accurate than always naming the commonest class",
    mend="check the order of classes, the transforms and the weights",
)


@probe(
    threat=THREAT,
    source="Carlini et al., On evaluating adversarial robustness, arXiv:1902.06705v1 (report clean accuracy)",
    needs={Facet.TEST, Facet.LABELS},
    metrics=(ACCURACY, SHORTFALL, WORTHLESS),
    options=Samples,
    profiles={
        Profile.QUICK: {"samples": 2000},
        Profile.STANDARD: {"samples": 10_000},
        Profile.FULL: {"samples": 100_000},
    },
)
def check_clean_accuracy(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Measure accuracy on clean test data and hold it against the declared one.

    P(f(x) = y) with a Clopper-Pearson interval, as a note; where `accuracy` was declared, declared minus measured,
    floored at 0; and 1 when the whole interval lies below the share of the commonest class. Errs wide.
    """
    data, model = case.data("test"), case.the_model()
    if data.y is None or model.task is Task.REGRESSION:
        return
    rows = sampled(data, lab, lab.options.samples)
    right = np.asarray(model.labels(rows.x)) == rows.labels
    found = clopper_pearson(int(right.sum()), len(rows))
    yield ACCURACY.measured(found, method=f"{right.sum()} of {len(rows)} right")
    majority = float(np.unique(rows.labels, return_counts=True)[1].max()) / len(rows)
    method = f"accuracy at most {found.high:.3f}, commonest class {majority:.3f}"
    yield WORTHLESS.measured(int(found.high < majority), method=method, n=len(rows))
    declared = case.declared.get("accuracy")
    if declared is not None:
        value, low, high = (max(0.0, declared - end) for end in (found.value, found.high, found.low))
        interval = Interval(value, low, high, found.n, found.confidence, found.method)
        yield SHORTFALL.measured(interval, method=f"declared {declared:.4f}, measured {found.value:.4f}")
