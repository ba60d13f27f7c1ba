"""The Square Attack: random squares of a perturbation, kept when the margin falls (Andriushchenko et al. 2020)."""

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
from casemate.core.rng import signs, uniforms
from casemate.engine.reach import Reach
from casemate.evasion import THREAT
from casemate.evasion.search import random_search, share

__all__ = ["SquareOptions", "square_attack"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class SquareOptions:
    """`queries` a sample; `p` is the share of pixels that the first squares cover."""

    queries: Count = 1000
    p: Annotated[float, Within(above=0, most=1)] = 0.8


@attack(
    threat=THREAT,
    source="Andriushchenko, Croce, Flammarion and Hein, Square Attack, ECCV 2020, Algorithms 1-4; p as in AutoAttack",
    needs={Facet.SCORES},
    kinds={DataKind.IMAGE},
    cost=Cost.MODERATE,
    options=SquareOptions,
    profiles={Profile.QUICK: {"queries": 150}, Profile.FULL: {"queries": 5000}},
    norms={Norm.LINF, Norm.L2},
)
def square_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """Search an image's ball by the scores alone: no gradient, so nothing to mask.

    Looks for x' with ||(x' - x) / scale|| <= eps inside the bounds and a wrong answer (or the goal's target), by random
    search on the margin. The attacker sees scores (logits where there are some). Errs towards robust. The paper's:
    stripes (linf) or a grid of bumps (l2) to start with, squares at random places, the schedule of their size stretched
    to the number of queries. Ours: one random stream per sample, and a linf square that would change nothing gets the
    opposite signs instead of a new draw.

    Raises `UsageError` for eps = inf, `BudgetExhausted` when the budget ends.
    """
    options: SquareOptions = lab.options
    moves: _Linf | _L2 = _Linf(lab.seed, options) if goal.norm is Norm.LINF else _L2(lab.seed, options)
    yield from random_search(
        case, batch, goal, queries=options.queries, first=moves.first, propose=moves.propose, ties=False
    )


@dataclass(frozen=True, slots=True)
class _Linf:
    """Algorithm 2: vertical stripes, then squares of +-eps, one sign for each channel."""

    seed: int
    options: SquareOptions

    def first(self, reach: Reach, ids: Array) -> Array:
        _, c, _, w = reach.x.shape
        up = signs(self.seed, "square stripes", ids, (c, 1, w)) > 0
        return np.where(up, reach.high, reach.low)

    def propose(self, query: int, points: Array, reach: Reach, ids: Array) -> Array:
        n, c, h, w = points.shape
        side = min(max(round((share(query, self.options.queries, self.options.p) * h * w) ** 0.5), 1), h, w)
        window = _window(uniforms(self.seed, ("square place", query), ids, 2), points.shape, side)
        up = signs(self.seed, ("square signs", query), ids, (c, 1, 1)) > 0
        low, high, now = reach.low[window], reach.high[window], points[window]
        new = np.where(up, high, low)
        idle = (new == now).reshape(n, -1).all(axis=1).reshape(-1, 1, 1, 1)
        out = points.copy()
        out[window] = np.where(idle, np.where(up, low, high), new)
        return out


@dataclass(frozen=True, slots=True)
class _L2:
    """Algorithms 3 and 4: a grid of bumps, then mass moved from one window to another, always on the sphere."""

    seed: int
    options: SquareOptions

    def first(self, reach: Reach, ids: Array) -> Array:
        n, c, h, w = reach.x.shape
        side = max(min(h, w) // 5, 1)
        rows, columns = h // side, w // side
        tiles = signs(self.seed, "square grid", ids, (c, rows, columns)).astype(np.float64)
        turned = uniforms(self.seed, "square grid turn", ids)[:, None, None, None] > 0.5
        bump = _bump(side)
        delta = np.zeros((n, c, h, w))
        grid = np.where(turned, np.kron(tiles, bump.T), np.kron(tiles, bump))
        delta[:, :, : rows * side, : columns * side] = grid
        return self._on_sphere(reach, delta)

    def propose(self, query: int, points: Array, reach: Reach, ids: Array) -> Array:
        _, c, h, w = points.shape
        side = max(round((share(query, self.options.queries, self.options.p) * h * w) ** 0.5), 3)
        side = min(side + 1 - side % 2, h, w)
        draws = uniforms(self.seed, ("square windows", query), ids, 5)
        there, gone = _window(draws[:, :2], points.shape, side), _window(draws[:, 2:4], points.shape, side)
        delta = (points.astype(np.float64) - reach.x) / np.where(reach.scale > 0, reach.scale, 1.0)
        spare = np.maximum(reach.eps**2 - _norm(delta, (1, 2, 3)) ** 2, 0.0) / c
        union = np.zeros(delta.shape, dtype=bool)
        union[there] = union[gone] = True
        amount = np.sqrt(spare + _norm(delta * union, (2, 3)) ** 2)
        bump = _bump(side)
        turned = draws[:, 4, None, None, None] > 0.5
        sign = signs(self.seed, ("square window signs", query), ids, (c, 1, 1))
        old = delta[there]
        new = np.where(turned, bump.T, bump) * sign + old / np.maximum(_norm(old, (2, 3)), _TINY)
        new *= amount / np.maximum(_norm(new, (2, 3)), _TINY)
        delta[gone] = 0.0
        delta[there] = new
        return self._on_sphere(reach, delta)

    @staticmethod
    def _on_sphere(reach: Reach, delta: Array) -> Array:
        return np.asarray(reach.x + delta * reach.scale * (reach.eps / np.maximum(_norm(delta, (1, 2, 3)), _TINY)))


def _window(draw: Array, shape: tuple[int, ...], side: int) -> tuple[Array, Array, Array, Array]:
    """Index arrays of a square window in every channel of each sample, its corner from draws `(n, 2)` in [0, 1)."""
    n, c, h, w = shape
    along = np.arange(side)
    top = (draw[:, 0] * (h - side + 1)).astype(np.int64)[:, None] + along
    left = (draw[:, 1] * (w - side + 1)).astype(np.int64)[:, None] + along
    samples, channels = np.arange(n)[:, None, None, None], np.arange(c)[None, :, None, None]
    return samples, channels, top[:, None, :, None], left[:, None, None, :]


def _bump(side: int) -> NDArray[np.float64]:
    """The l2 pattern of section 3.4: two halves of opposite sign, each a heap of nested rectangles; norm 1."""
    if side == 1:
        return np.ones((1, 1))
    half = side // 2
    pattern = np.concatenate([_heap(half, side), -_heap(side - half, side)])
    return np.asarray(pattern / np.linalg.norm(pattern))


def _heap(height: int, width: int) -> NDArray[np.float64]:
    """Nested rectangles that shrink to the middle: the k-th smallest adds 1 / k^2 to what it covers."""
    heap = np.zeros((height, width))
    top, left = height // 2, width // 2
    for k in range(max(height, width) // 2 + 1):
        heap[max(top - k, 0) : top + k + 1, max(left - k, 0) : left + k + 1] += 1.0 / (k + 1) ** 2
    return np.asarray(heap / np.linalg.norm(heap))


def _norm(values: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(np.sqrt((values**2).sum(axis=axes, keepdims=True)))


_TINY = 1e-12
