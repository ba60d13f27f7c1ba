"""Weights of several precisions, and labels that hang on more digits than the inputs have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import DataKind, Facet
from casemate.core.lab import Lab
from casemate.core.plugin import probe
from casemate.preflight import THREAT
from casemate.preflight._common import Samples, sampled

__all__ = ["check_dtype"]

MIXED = Metric(
    "preflight.mixed_dtypes",
    Quantity.DEFECT,
    Direction.EXACT,
    says="the weights of the model have several precisions",
    mend="convert the whole module to one precision, model.float() as a rule",
)
ROUNDING = Metric(
    "preflight.rounding_sensitivity",
    Quantity.DEFECT_SHARE,
    Direction.TOO_LOW,
    says="labels change when the inputs are rounded to float32",
    mend="scale or centre features with many digits (times, ids, coordinates) before the model",
)
DTYPES = Metric("preflight.dtypes", Quantity.NOTE, Direction.EXACT, unit="precisions")


@probe(
    threat=THREAT,
    source="Micikevicius et al., ICLR 2018 (mixed precision); IEEE 754-2019, section 3.6 (24 bits in binary32)",
    needs={Facet.TEST, Facet.LABELS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    metrics=(MIXED, ROUNDING, DTYPES),
    options=Samples,
)
def check_dtype(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Compare the precisions of weights and inputs and see whether the difference matters.

    1 when floating-point weights differ in precision from one another; a note of both;
    and the share of labels that change when float64 inputs are rounded to float32. Errs low: a sample is looked at.
    """
    data = sampled(case.data("test"), lab, lab.options.samples)
    model = case.the_model()
    if model.module is not None:
        weights = Counter(
            str(p.dtype).removeprefix("torch.") for p in model.module.parameters() if p.is_floating_point()
        )
        method = ", ".join(f"{count} tensors {name}" for name, count in sorted(weights.items())) or "no weights"
        yield MIXED.measured(int(len(weights) > 1), method=method, n=sum(weights.values()))
        yield DTYPES.measured(len(weights), method=f"weights {', '.join(sorted(weights))}; inputs {data.x.dtype}")
    else:
        yield DTYPES.measured(1, method=f"inputs {data.x.dtype}")
    if data.x.dtype == np.float64:
        rounded = data.x.astype(np.float32).astype(np.float64)
        changed = np.asarray(model.labels(data.x)) != np.asarray(model.labels(rounded))
        method = f"{changed.sum()} of {len(data)} labels change in float32"
        yield ROUNDING.measured(changed.mean(), method=method, n=len(data))
