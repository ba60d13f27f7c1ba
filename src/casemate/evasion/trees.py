"""Trees: the exact linf distance to the nearest wrong answer of a forest or booster, as certificate and as attack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.core.options import Count
from casemate.core.plugin import attack, certificate
from casemate.engine.harness import wrong
from casemate.engine.reach import reach_of
from casemate.engine.tree_boxes import Found, search_boxes
from casemate.errors import ConfigError
from casemate.evasion import THREAT

__all__ = ["TreeOptions", "tree_attack", "tree_certificate"]

Array = NDArray[Any]

_SPARE = 1e-9
_LEAST = 16  # boxes for a sample, however large the trees


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """`work`: after how many visited nodes the search for a sample ends as it stands; a box visits each node once."""

    work: Count = 4_000_000


_DECLARED: dict[str, Any] = {
    "threat": THREAT,
    "source": "branch and bound over boxes: Chen et al., NeurIPS 2019; Devos et al., ICML 2021 (see engine.tree_boxes)",
    "needs": {Facet.TREES},
    "kinds": {DataKind.IMAGE, DataKind.TABLE},
    "cost": Cost.CHEAP,
    "norms": {Norm.LINF, Norm.L2, Norm.L1},
    "options": TreeOptions,
}


@certificate(**_DECLARED)
def tree_certificate(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """The distance below which no change inside the bounds alters the answer of trees.

    radius = min ||(x' - x) / scale||_inf over all x' in the bounds, of the samples' dtype, with unchanged immutable
    features and whole numbers where the schema has them, that reach leaves with f_j(x') >= f_y(x') for a class j != y;
    where two classes are within rounding of each other, the model is asked. Exact when the search ends within `work`,
    else what is proven by then: errs too low. In l2 and l1 the same radius, since no change is smaller there. Each
    bounded box is charged as a forward. The attacker may know everything.

    Raises `ModelError` for trees that do not fit the samples, `ConfigError` for work < 1, `BudgetExhausted`.
    """
    found = _searched(case, batch, Goal(Norm.LINF, float("inf"), goal.target), lab)
    yield Claim(np.arange(len(batch)), radius=found.lower)
    if found.ended is not None:
        raise found.ended


@attack(**_DECLARED)
def tree_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """The nearest wrongly answered points of trees: each feature moves just across a threshold, or not at all.

    The witness of the certificate's search: exact in linf when that ends within `work`, else the nearest that was
    found; in l2 and l1 an upper bound only, as it is with relations between columns. Works for eps = inf. Each bounded
    box is charged as a forward. The attacker knows the trees.

    Raises `ModelError` for trees that do not fit the samples, `ConfigError` for work < 1, `BudgetExhausted`.
    """
    found = _searched(case, batch, goal, lab)
    rows = np.flatnonzero(np.isfinite(found.upper))
    reach = reach_of(goal.norm, goal.eps, batch.x[rows], case.schema)
    points = reach.settle(found.x[rows])
    far = distance(goal.norm, batch.x[rows], points, reach.scale, reach.switches)
    near = far <= goal.eps * (1 + _SPARE)
    yield Claim(rows[near], x=points[near])
    if found.ended is not None:
        raise found.ended


def _searched(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Found:
    model, options = case.the_model(), lab.options
    if options.work < 1:
        raise ConfigError(f"expected work >= 1 for evasion/trees, got {options.work}: leave it out for the usual")
    assert model.trees is not None  # the planner checks `needs`

    def ask(points: Array, rows: Array) -> NDArray[np.bool_]:
        return wrong(model, points, batch.y[rows], target=goal.target)

    def charge(boxes: int) -> None:
        lab.meter.charge(forwards=boxes)

    reach = reach_of(goal.norm, goal.eps, batch.x, case.schema)
    boxes = max(_LEAST, options.work // len(model.trees.feature))
    return search_boxes(model.trees, reach, batch.y, boxes=boxes, ask=ask, charge=charge, target=goal.target)
