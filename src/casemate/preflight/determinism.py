"""A model that answers the same question in two ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet
from casemate.core.lab import Lab
from casemate.core.options import Count, Within
from casemate.core.plugin import probe
from casemate.preflight import THREAT
from casemate.preflight._common import answers, differing, sampled

__all__ = ["RepeatOptions", "check_determinism"]

RANDOM = Metric(
    "preflight.nondeterminism",
    Quantity.DEFECT_SHARE,
    Direction.TOO_LOW,
    says="the same rows get different answers when asked again",
    mend="put the model in eval mode and fix its seeds; a defence that is random on purpose needs attacks that average",
)


@dataclass(frozen=True, slots=True)
class RepeatOptions:
    """`samples`: most test rows; `calls`: how often they are asked; `tolerance`: what outputs may differ by."""

    samples: Count = 256
    calls: Annotated[int, Within(least=2)] = 3
    tolerance: Annotated[float, Within(least=0)] = 1e-5


@probe(
    threat=THREAT,
    source="Athalye, Carlini and Wagner, ICML 2018 (stochastic gradients)",
    needs={Facet.TEST, Facet.LABELS},
    metrics=(RANDOM,),
    options=RepeatOptions,
)
def check_determinism(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Ask the same batch again and count the rows that are answered otherwise.

    Share of rows that differ between any two calls. Errs low: rare randomness needs more calls than these.
    """
    model = case.the_model()
    x = sampled(case.data("test"), lab, lab.options.samples).x
    first = answers(model, x)
    bad = np.zeros(len(x), dtype=bool)
    for _ in range(lab.options.calls - 1):
        bad |= differing(first, answers(model, x), lab.options.tolerance)
    yield RANDOM.measured(bad.mean(), method=f"{bad.sum()} of {len(x)} rows, {lab.options.calls} calls", n=len(x))
