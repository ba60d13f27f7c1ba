"""Random search on blocks of a table's features: ours, where the Square Attack has its squares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.norms import Norm
from casemate.core.options import Count, Within
from casemate.core.plugin import attack
from casemate.core.rng import integers, normals, signs, uniforms
from casemate.engine.reach import Reach
from casemate.evasion import THREAT
from casemate.evasion.search import random_search, share

__all__ = ["BlocksOptions", "blocks_attack"]

Array = NDArray[Any]

_FRESH = 0.25  # of the queries begin with x's own categories


@dataclass(frozen=True, slots=True)
class BlocksOptions:
    """`queries` a sample; `p` is the share of features in the first blocks."""

    queries: Count = 500
    p: Annotated[float, Within(above=0, most=1)] = 0.8


@attack(
    threat=THREAT,
    source="Casemate's own search; loop and schedule of p: Andriushchenko et al., ECCV 2020, Algorithm 1",
    needs={Facet.SCORES},
    kinds={DataKind.TABLE},
    cost=Cost.EXPENSIVE,
    options=BlocksOptions,
    profiles={Profile.QUICK: {"queries": 100}, Profile.FULL: {"queries": 2000}},
    norms={Norm.LINF, Norm.L2},
)
def blocks_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """Search a row's ball by the scores alone: works on forests, boosted trees and anything that gives probabilities.

    Looks for x' with ||(x' - x) / scale|| <= eps inside the bounds and a wrong answer (or the goal's target). Each
    query draws a block of the changeable features and sends it to the edge of the ball (half of the queries), to random
    places inside (a quarter) or back to x (a quarter): thresholds of trees lie anywhere, not only at the edge. Equal
    margins are accepted, since a tree's scores are flat between thresholds. Immutable and missing features stay, whole
    numbers stay whole, relations hold. A category (or one-hot block) with a `switch_cost` is one more place in a block:
    it goes to a random option, or back; the others stay. The attacker sees scores. Errs towards robust.

    Raises `UsageError` for eps = inf, `BudgetExhausted` when the budget ends.
    """
    options: BlocksOptions = lab.options
    moves = _Moves(lab.seed, options)
    yield from random_search(
        case, batch, goal, queries=options.queries, first=moves.first, propose=moves.propose, ties=True
    )


@dataclass(frozen=True, slots=True)
class _Moves:
    seed: int
    options: BlocksOptions

    def first(self, reach: Reach, ids: Array) -> Array:
        up = signs(self.seed, "blocks first", ids, reach.x.shape[1:]) > 0
        return np.where(up, reach.high, reach.low)

    def propose(self, query: int, points: Array, reach: Reach, ids: Array) -> Array:
        block, switched = self._block(query, reach, ids)
        new = self._numbers(query, points, reach, ids, block=block)
        if not reach.switches:
            return new
        # Where sizes add up, a switch must sometimes be given back before eps can pay for another change.
        fresh = (uniforms(self.seed, ("blocks fresh", query), ids) < _FRESH) & (reach.norm is not Norm.LINF)
        for number, count in enumerate(reach.options):
            columns = np.array(reach.switches[number].columns)
            new[:, columns] = points[:, columns]
            option = integers(self.seed, ("blocks option", query, number), ids, low=-1, high=count)
            rows = np.flatnonzero(switched[:, number] | fresh)
            part = new[rows]
            reach.take(rows).choose(part, number, np.where(switched[:, number], option, -1)[rows])
            new[rows] = part
        return new

    def _numbers(self, query: int, points: Array, reach: Reach, ids: Array, *, block: Array) -> Array:
        way = uniforms(self.seed, ("blocks way", query), ids)[:, None]
        if reach.norm is Norm.LINF:
            place = uniforms(self.seed, ("blocks place", query), ids, reach.x.shape[1:])
            edge = np.where(place < 0.5, reach.low, reach.high)
            within = reach.low + place * (reach.high - reach.low)
            new = np.where(way < 0.5, edge, np.where(way < 0.75, within, reach.x))
            return np.where(block, new, points)
        units = np.where(reach.scale > 0, reach.scale, 1.0)
        delta = np.where(reach.scale > 0, np.nan_to_num((points.astype(np.float64) - reach.x) / units), 0.0)
        draw = normals(self.seed, ("blocks direction", query), ids, reach.x.shape[1:])
        draw *= reach.eps / np.sqrt(np.maximum(block.sum(axis=1, keepdims=True), 1))
        delta = np.where(block, np.where(way < 0.75, draw, 0.0), delta)
        size = np.sqrt((delta**2).sum(axis=1, keepdims=True))
        # To the sphere, or (a quarter) to where the draw itself falls; settling brings that into the ball.
        onto = reach.eps / np.where(size > 0, size, np.inf)
        return np.asarray(reach.x + np.where((way >= 0.5) & (way < 0.75), 1.0, onto) * delta * reach.scale)

    def _block(self, query: int, reach: Reach, ids: Array) -> tuple[Array, Array]:
        """Which features and which switches a query changes, masks `(n, d)` and `(n, s)`: as many of each row's own."""
        payable = np.array([switch.cost <= reach.eps for switch in reach.switches], dtype=bool)
        free = np.concatenate([reach.high > reach.low, np.tile(payable, (len(reach), 1))], axis=1)
        rank = uniforms(self.seed, ("blocks choice", query), ids, free.shape[1])
        order = np.argsort(np.argsort(np.where(free, rank, 2.0), axis=1, kind="stable"), axis=1, kind="stable")
        part = share(query, self.options.queries, self.options.p)
        count = np.maximum(np.round(part * free.sum(axis=1, keepdims=True)), 1)
        chosen = (order < count) & free
        return chosen[:, : reach.x.shape[1]], chosen[:, reach.x.shape[1] :]
