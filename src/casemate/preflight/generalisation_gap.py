"""A model that knows its training data better than the world."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet, Profile
from casemate.core.lab import Lab
from casemate.core.model import Task
from casemate.core.plugin import probe
from casemate.core.stats import Interval, difference_of_proportions
from casemate.preflight import THREAT
from casemate.preflight._common import Samples, sampled

__all__ = ["check_generalisation_gap"]

GAP = Metric(
    "preflight.generalisation_gap",
    Quantity.RATE_GAP,
    Direction.EXACT,
    says="the model is more accurate on its training data than on test data: it memorises, and leaks what it memorised",
    mend="regularise (penalty, depth, weight decay, early stopping), get more data, or look for a shift between splits",
)


@probe(
    threat=THREAT,
    source="Yeom et al., CSF 2018, Theorem 2 (the gap bounds the advantage of membership inference from below)",
    needs={Facet.TEST, Facet.TRAIN, Facet.LABELS},
    metrics=(GAP,),
    options=Samples,
    profiles={
        Profile.QUICK: {"samples": 2000},
        Profile.STANDARD: {"samples": 10_000},
        Profile.FULL: {"samples": 100_000},
    },
)
def check_generalisation_gap(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Measure how much more accurate the model is on training than on test data.

    P(f(x) = y | train) - P(f(x) = y | test), floored at 0, with an interval for two independent samples. Errs wide.
    """
    model = case.the_model()
    train, test = case.data("train"), case.data("test")
    if model.task is Task.REGRESSION or train.y is None or test.y is None:
        return
    hits, n = [], []
    for name, data in (("train", train), ("test", test)):
        rows = sampled(data, lab, lab.options.samples, name)
        hits.append(int((np.asarray(model.labels(rows.x)) == rows.labels).sum()))
        n.append(len(rows))
    raw = difference_of_proportions(hits[0], n[0], hits[1], n[1])
    found = Interval(max(raw.value, 0.0), max(raw.low, 0.0), max(raw.high, 0.0), raw.n, raw.confidence, raw.method)
    method = f"accuracy {hits[0] / n[0]:.4f} on {n[0]} training rows, {hits[1] / n[1]:.4f} on {n[1]} test rows"
    yield GAP.measured(found, method=method)
