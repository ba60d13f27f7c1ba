"""Inputs that are scaled otherwise than in training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.model import Task
from casemate.core.plugin import probe
from casemate.core.schema import FeatureKind
from casemate.preflight import THREAT
from casemate.preflight._common import Samples, Variant, gains

__all__ = ["check_normalisation"]

GAIN = Metric(
    "preflight.normalisation_gain",
    Quantity.RATE_GAP,
    Direction.TOO_LOW,
    says="the model is more accurate when its inputs are scaled otherwise than given",
    mend="scale the inputs as in training, or put that transform inside the model",
)
Array = NDArray[Any]
_IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]


@probe(
    threat=THREAT,
    source="Croce et al., RobustBench, NeurIPS 2021 datasets track (inputs in [0, 1], normalisation in the model)",
    needs={Facet.TEST, Facet.LABELS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    metrics=(GAIN,),
    options=Samples,
    profiles={Profile.STANDARD: {"samples": 1000}, Profile.FULL: {"samples": 4000}},
)
def check_normalisation(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Try the usual other scalings and see whether one is better than what was declared.

    Gain in accuracy on the same rows, floored at 0, with paired intervals that hold for all scalings at once: images
    times and divided by 255, to [-1, 1] and back, standardised; tables standardised by their columns. Errs low: other
    scalings exist.
    """
    data = case.data("test")
    if data.y is None or case.the_model().task is Task.REGRESSION:
        return
    variants = _image_variants(data.x) if data.schema.kind is DataKind.IMAGE else _table_variants(case)
    yield from gains(case, lab, GAIN, variants)


def _image_variants(x: Array) -> dict[str, Variant]:
    mean, spread = float(x.mean()), float(x.std()) or 1.0
    found: dict[str, Variant] = {
        "divided by 255": lambda x: x / x.dtype.type(255),
        "multiplied by 255": lambda x: x * x.dtype.type(255),
        "moved from [0, 1] to [-1, 1]": lambda x: 2 * x - 1,
        "moved from [-1, 1] to [0, 1]": lambda x: (x + 1) / 2,
        "standardised": lambda x: ((x - mean) / spread).astype(x.dtype),
    }
    if x.shape[1] == 3:
        found["normalised as ImageNet"] = lambda x: ((x - _IMAGENET[0]) / _IMAGENET[1]).astype(x.dtype)
    return found


def _table_variants(case: Case) -> dict[str, Variant]:
    data = case.splits.train or case.data("test")
    numeric = [i for i, f in enumerate(data.schema.features) if f.kind is FeatureKind.NUMERIC and not f.block]
    columns = data.x[:, numeric]
    # A column without any value has no mean; numpy warns of it, and it stays as it is.
    known = np.isfinite(columns)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, columns, 0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, columns - mean, 0) ** 2).sum(axis=0) / count)
    spread[spread == 0] = 1

    def standardised(x: Array) -> Array:
        out = np.array(x, copy=True)
        out[:, numeric] = (x[:, numeric] - mean) / spread
        return out

    return {"standardised": standardised} if numeric else {}
