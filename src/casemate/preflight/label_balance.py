"""Test data of one class, or of classes too rare to measure."""

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

__all__ = ["check_label_balance"]

ONE_CLASS = Metric(
    "preflight.one_class",
    Quantity.DEFECT,
    Direction.EXACT,
    says="all labels are of one class: no rate of errors means anything",
    mend="name the right target column, or test on data with every class",
)
RAREST = Metric("preflight.rarest_class", Quantity.NOTE, Direction.EXACT, unit="rows")


@probe(
    threat=THREAT,
    source="He and Garcia, IEEE TKDE 21, 2009 (imbalance, absolute and relative)",
    needs={Facet.TEST},
    metrics=(ONE_CLASS, RAREST),
)
def check_label_balance(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Find splits in which only one class occurs, and note the rarest class.

    1 for each labelled split of a single class. Exact. Labels that are not whole numbers belong to a regression and are
    left alone.
    """
    del lab
    if case.model is not None and case.model.task is Task.REGRESSION:
        return
    for part, data in case.splits.parts().items():
        if data.y is None or data.y.dtype.kind not in "iub":
            continue
        classes, counts = np.unique(data.y, return_counts=True)
        yield ONE_CLASS.measured(int(len(classes) == 1), method=f"{len(classes)} classes", about=part, n=len(data))
        rarest = int(counts.argmin())
        yield RAREST.measured(counts[rarest], method=f"class {classes[rarest]}", about=part, n=len(data))
