"""A prediction that depends on the other rows of the batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet, Profile
from casemate.core.lab import Lab
from casemate.core.plugin import probe
from casemate.preflight import THREAT
from casemate.preflight._common import Samples, answers, differing, sampled

__all__ = ["check_batch_dependence"]

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
def check_batch_dependence(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Compare each prediction alone with the same one in a batch.

    Share of rows with another label or outputs further apart than the tolerance (which allows for the order of float32
    sums). Errs low: one batch is tried.
    """
    model = case.the_model()
    x = sampled(case.data("test"), lab, lab.options.samples).x
    together = answers(model, x)
    single = [answers(model, x[i : i + 1]) for i in range(len(x))]
    alone = {name: np.concatenate([part[name] for part in single]) for name in together}
    bad = differing(together, alone, lab.options.tolerance)
    method = f"{bad.sum()} of {len(x)} rows differ between alone and in a batch"
    yield DEPENDS.measured(bad.mean(), method=method, n=len(x))
