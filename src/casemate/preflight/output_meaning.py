"""Scores that are no probabilities, and logits that already are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet
from casemate.core.lab import Lab
from casemate.core.model import Task
from casemate.core.plugin import probe
from casemate.preflight import THREAT
from casemate.preflight._common import Samples, sampled

__all__ = ["check_output_meaning"]

NOT_PROBABILITIES = Metric(
    "preflight.scores_not_probabilities",
    Quantity.DEFECT_SHARE,
    Direction.EXACT,
    says="what the model gives as probabilities are none",
    mend="let the model return probabilities that sum to 1, or declare the output as logits",
)
LOGITS_ARE_PROBABILITIES = Metric(
    "preflight.logits_are_probabilities",
    Quantity.DEFECT,
    Direction.EXACT,
    says="what the model gives as logits are probabilities: a softmax is applied twice and gradients vanish",
    mend="declare the output as probabilities, or take the last softmax off the module",
)
NOT_FINITE = Metric(
    "preflight.outputs_not_finite",
    Quantity.DEFECT_SHARE,
    Direction.EXACT,
    says="the model answers some rows with NaN or infinity",
    mend="find the overflow or the missing value behind it",
)
DISAGREE = Metric("preflight.labels_not_argmax", Quantity.NOTE, Direction.EXACT)


@probe(
    threat=THREAT,
    source="Carlini et al., On evaluating adversarial robustness, arXiv:1902.06705v1 (attack logits, not softmax)",
    needs={Facet.TEST, Facet.LABELS},
    metrics=(NOT_PROBABILITIES, LOGITS_ARE_PROBABILITIES, NOT_FINITE, DISAGREE),
    options=Samples,
)
def check_output_meaning(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Check that scores are probabilities and that logits are not.

    Share of rows whose scores leave [0, 1] or do not sum to 1 within the tolerance; 1 when all rows of logits do both.
    Errs low for the latter: logits of one column or of probabilities that were rescaled are not recognised. Labels that
    are not the largest output are noted only, since a chosen threshold does that on purpose.
    """
    model, tolerance = case.the_model(), lab.options.tolerance
    if model.task is Task.REGRESSION or (model.scores is None and model.logits is None):
        return
    x = sampled(case.data("test"), lab, lab.options.samples).x
    n, outputs = len(x), None
    if model.scores is not None:
        outputs = np.asarray(model.scores(x), dtype=np.float64)
        bad = ~_probabilities(outputs, tolerance)
        yield NOT_PROBABILITIES.measured(bad.mean(), method=f"{bad.sum()} of {n} rows leave the simplex", n=n)
    if model.logits is not None:
        outputs = np.asarray(model.logits(x), dtype=np.float64)
        twice = outputs.ndim == 2 and outputs.shape[1] > 1 and bool(_probabilities(outputs, tolerance).all())
        method = f"rows sum to {outputs.sum(axis=-1).min():.4g} to {outputs.sum(axis=-1).max():.4g}"
        yield LOGITS_ARE_PROBABILITIES.measured(int(twice), method=method, n=n)
    assert outputs is not None
    broken = ~np.isfinite(outputs).reshape(n, -1).all(axis=1)
    yield NOT_FINITE.measured(broken.mean(), method=f"{broken.sum()} of {n} rows", n=n)
    if outputs.ndim == 2 and outputs.shape[1] > 1 and not broken.any():
        labels = np.asarray(model.labels(x)).astype(np.int64)
        inside = np.clip(labels, 0, outputs.shape[1] - 1)
        lower = outputs[np.arange(n), inside] < outputs.max(axis=1) - tolerance
        yield DISAGREE.measured(lower.mean(), method=f"{lower.sum()} of {n} labels are not the largest output", n=n)


def _probabilities(outputs: np.ndarray, tolerance: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        inside = ((outputs >= -tolerance) & (outputs <= 1 + tolerance)).reshape(len(outputs), -1).all(axis=1)
        whole = np.abs(outputs.reshape(len(outputs), -1).sum(axis=1) - 1) <= tolerance
    return np.asarray(inside & whole)
