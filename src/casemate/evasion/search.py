"""Random search on scores: the loop of the score-based attacks; each brings its own first point and proposals."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Facet
from casemate.core.model import Model
from casemate.engine.harness import wrong
from casemate.engine.reach import Reach, reach_of
from casemate.errors import UsageError

__all__ = ["First", "Propose", "margins", "random_search", "share"]

Array = NDArray[Any]
First = Callable[[Reach, Array], Array]
"""`(reach, sample_id) -> points`: where a search begins."""

Propose = Callable[[int, Array, Reach, Array], Array]
"""`(query, points, reach, sample_id) -> points`: what it tries next; must depend on the sample and its id alone."""

# After how many of 10,000 queries the share of changed features is halved (Andriushchenko et al. 2020, section 3.2).
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def random_search(
    case: Case, batch: Batch, goal: Goal, *, queries: int, first: First, propose: Propose, ties: bool
) -> Iterator[Claim]:
    """Keep what lowers the margin; claim a sample in the query that breaks it, and leave it out from there on.

    With `ties` a proposal that changes nothing of the margin is kept too, which lets a search drift over the plateaus
    of a tree. Asks the model `queries` times for each sample that stands. Raises `UsageError` for eps = inf.
    """
    if not np.isfinite(goal.eps):
        raise UsageError("expected a finite eps for a score-based search, got inf: ask a minimum-norm attack")
    model = case.the_model()
    rows = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    reach = reach_of(goal.norm, goal.eps, batch.x[rows], case.schema)
    points, lowest = reach.x, np.full(len(rows), np.inf)
    for query in range(queries):
        if not len(rows):
            return
        ids = batch.sample_id[rows]
        tried = reach.settle(first(reach, ids) if query == 0 else propose(query, points, reach, ids))
        value, hit = margins(model, tried, batch.y[rows], goal.target)
        better = (value <= lowest) if ties else (value < lowest)
        points = np.where(better.reshape(-1, *(1,) * (points.ndim - 1)), tried, points)
        lowest = np.where(better, value, lowest)
        if hit.any():
            yield Claim(rows[hit], x=tried[hit])
            # The label decides, not the scores: a guard may refuse this one, or a threshold keep the answer.
            hit[hit] = wrong(model, tried[hit], batch.y[rows[hit]], target=goal.target)
            rows, reach, points, lowest = rows[~hit], reach.take(~hit), points[~hit], lowest[~hit]


def margins(model: Model, x: Array, y: Array, target: int | None) -> tuple[Array, Array]:
    """How far each answer is from a success, `(n,)`, and whether it is one; on logits, else on scores."""
    answers = np.array(model.ask(Facet.LOGITS if model.logits is not None else Facet.SCORES, x), dtype=np.float64)
    rows = np.arange(len(x))
    aim = y if target is None else np.full(len(x), target)
    label = answers.argmax(axis=1)
    own = answers[rows, aim]
    answers[rows, aim] = -np.inf
    ahead = own - answers.max(axis=1)
    return (ahead, label != y) if target is None else (-ahead, label == target)


def share(query: int, queries: int, first: float) -> float:
    """The share of features that a proposal changes: the paper's schedule, stretched to `queries`.

    >>> [share(query, 1000, 0.8) for query in (1, 2, 900)]
    [0.8, 0.4, 0.0015625]
    """
    return float(first / 2 ** bisect_left(_HALVINGS, query / queries * 10_000))
