"""Labels, names of classes and outputs of the model that do not fit together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet
from casemate.core.lab import Lab
from casemate.core.model import Model, Task
from casemate.core.plugin import probe
from casemate.preflight import THREAT

__all__ = ["check_class_count"]

OUT_OF_RANGE = Metric(
    "preflight.labels_out_of_range",
    Quantity.DEFECT_SHARE,
    Direction.EXACT,
    says="labels are no class of the model",
    mend="count classes from 0 in the order of the model's outputs, and drop rows of classes it does not know",
)
MISMATCH = Metric(
    "preflight.class_count_mismatch",
    Quantity.DEFECT,
    Direction.EXACT,
    says="the model names another number of classes than it has outputs",
    mend="name each output of the model once, in order",
)
ABSENT = Metric("preflight.classes_absent", Quantity.NOTE, Direction.EXACT, unit="classes")


@probe(
    threat=THREAT,
    source="Northcutt, Athalye and Mueller, NeurIPS 2021 datasets track (labels of test sets)",
    needs={Facet.TEST, Facet.LABELS},
    metrics=(OUT_OF_RANGE, MISMATCH, ABSENT),
)
def check_class_count(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Compare the labels with the number of classes that the model names and answers with.

    Share of labels outside 0 .. k - 1 in each split; 1 when names and outputs differ in number; and, as a note, the
    classes that the test data lack. Exact; a model that gives neither outputs nor names cannot be checked.
    """
    del lab
    model = case.the_model()
    if model.task is Task.REGRESSION:
        return
    outputs = _outputs(model, case)
    names = len(model.classes)
    if outputs and names:
        method = f"{names} names and {outputs} outputs"
        yield MISMATCH.measured(int(names != outputs), method=method, n=max(names, outputs))
    count = outputs or names
    for part, data in case.splits.parts().items():
        if data.y is None or not count:
            continue
        labels = np.asarray(data.y, dtype=np.float64)
        bad = ~((labels >= 0) & (labels < count) & (labels == np.floor(labels)))
        method = f"{bad.sum()} of {len(data)} labels outside 0 .. {count - 1}"
        yield OUT_OF_RANGE.measured(bad.mean(), method=method, about=part, n=len(data))
    test = case.data("test")
    if test.y is not None and count:
        absent = sorted(set(range(count)) - set(np.unique(test.y).tolist()))
        if absent:
            named = ", ".join(model.classes[i] if i < names else str(i) for i in absent[:8])
            yield ABSENT.measured(len(absent), method=f"no test row of class {named}", n=len(test))


def _outputs(model: Model, case: Case) -> int:
    answer = model.logits or model.scores
    if answer is None:
        return 0
    shape = np.asarray(answer(case.data("test").x[:1])).shape
    return int(shape[1]) if len(shape) == 2 else 1
