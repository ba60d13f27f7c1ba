"""A prediction that depends on the other rows of the batch."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet, Profile
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.plugin import probe
from casemate.preflight import THREAT
from casemate.preflight._common import Samples, answers, differing, sampled

__all__ = ["check_batch_dependence"]

_AGAIN = 7  # a label that falls either way by chance stays, and differs, in 1 row of 32,768

DEPENDS = Metric(
    "preflight.batch_dependence",
    Quantity.DEFECT_SHARE,
    Direction.TOO_LOW,
    says="the answer for a row depends on the rows beside it",
    mend="put the model in eval mode; normalise with fixed statistics, not with those of the batch",
)


@probe(
    threat=THREAT,
    source="Ioffe and Szegedy, ICML 2015, section 3.1 (inference must depend deterministically on its own input only)",
    needs={Facet.TEST, Facet.LABELS},
    metrics=(DEPENDS,),
    options=Samples,
    profiles={Profile.QUICK: {"samples": 64}, Profile.STANDARD: {"samples": 64}},
)
def check_batch_dependence(case: Case, lab: Lab) -> Generator[Evidence, None, str | None]:
    """Compare each prediction alone with the same one in a batch.

    Share of rows with another label or outputs further apart than the tolerance (which allows for the order of float32
    sums), of those that get the same answer each time. Where some differ, the batch and each row alone are asked seven
    times more: rows that change with nothing but time show a model that answers at random, not one that depends on the
    batch, and are left out. Errs low: one batch is tried.
    """
    model = case.the_model()
    x = sampled(case.data("test"), lab, lab.options.samples).x
    together, alone = answers(model, x), _one_by_one(model, x)
    bad = differing(together, alone, lab.options.tolerance)
    steady = np.ones(len(x), dtype=bool)
    for _ in range(_AGAIN if bad.any() else 0):
        steady &= ~differing(together, answers(model, x), lab.options.tolerance)
        steady &= ~differing(alone, _one_by_one(model, x), lab.options.tolerance)
    if not steady.any():
        return "the model answers each row at random, whatever is beside it: see preflight/determinism"
    n, found = int(steady.sum()), int((bad & steady).sum())
    left_out = f"; {len(x) - n} more are answered at random" if n < len(x) else ""
    method = f"{found} of {n} rows differ between alone and in a batch{left_out}"
    yield DEPENDS.measured(found / n, method=method, n=n)
    return None


def _one_by_one(model: Model, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    single = [answers(model, x[i : i + 1]) for i in range(len(x))]
    return {name: np.concatenate([part[name] for part in single]) for name in single[0]}
