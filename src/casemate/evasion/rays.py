"""RayS: the shortest ray of signs that leaves the class, found by labels alone (Chen and Gu 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.core.options import Count
from casemate.core.plugin import attack
from casemate.core.rng import signs as drawn_signs
from casemate.engine.harness import wrong
from casemate.engine.reach import reach_of
from casemate.errors import BudgetExhausted, ConfigError
from casemate.evasion import THREAT

__all__ = ["RaysOptions", "rays_attack", "runs_of"]

Array = NDArray[Any]

_COARSE = 0.1  # of the distance, over the number of blocks: what a flip of one block must save
_FINE = (1e-3, 1e-4, 1e-5)  # likewise at least; the next one when no flip of a single feature saves so much
_NOTHING = 1e-9  # of the widest way: a sample this near is wrong as it is
_FARTHEST = 1e6  # units to which a ray is followed where a feature has no bounds


@dataclass(frozen=True, slots=True)
class RaysOptions:
    """`queries` a sample: how many labels are asked for it at most."""

    queries: Count = 1000


@attack(
    threat=THREAT,
    source="Chen and Gu, RayS: A Ray Searching Method for Hard-label Adversarial Attack, KDD 2020, Algorithms 1 to 3",
    needs={Facet.LABELS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.MODERATE,
    options=RaysOptions,
    profiles={Profile.QUICK: {"queries": 250}, Profile.FULL: {"queries": 5000}},
    norms={Norm.LINF},
    minimum_norm=True,
)
def rays_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """The nearest wrong answer in linf by labels alone, along rays of signs: nothing is estimated.

    Looks for the signs s and the least d with a wrong answer (or the goal's target) at x + d s scale, clipped to the
    bounds. From all +1, the signs of a block are flipped, blocks of all features first, then halves, quarters and so on
    to single features; a flip is kept where it shortens the ray. The attacker sees labels. Errs towards robust: the
    signs may be a local optimum, and where a model is not monotone (trees) the nearest point need not be on such a ray.

    The paper's: rays of signs, the hierarchy of blocks, the check of each flip by one query before its ray is searched.
    Ours: the check is made a little before the present distance, by what a block of that size can be expected to save,
    and the search gallops from there, since most flips save little; blocks of an image are squares and halves of
    squares (runs of a Z-order curve), of a table runs of its changeable columns; when no flip of one feature saves a
    hundred-thousandth, what is left of the queries goes to rays from random signs. Each model call asks one point for
    each sample that is still there. Categories and missing values stay, whole numbers stay whole, relations hold. With
    a finite eps a sample leaves within it.

    Raises `ConfigError` for no queries, `BudgetExhausted` when the budget ends.
    """
    options: RaysOptions = lab.options
    if options.queries < 1:
        raise ConfigError(f"expected queries >= 1 for evasion/rays, got {options.queries}: leave them out")
    rows = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    if not len(rows):
        return
    rays = _Rays(case, goal, rows, batch, seed=lab.seed)
    try:
        for _ in range(options.queries):
            yield from rays.gone()
            if not len(rays):
                return
            rays.ask()
    except BudgetExhausted:
        yield from rays.found()
        raise
    yield from rays.found()


class _Rays:
    """The ray of each sample that is still there, `(n, ...)`, and where its search stands."""

    def __init__(self, case: Case, goal: Goal, rows: Array, batch: Batch, *, seed: int) -> None:
        self.seed, self.ids = seed, batch.sample_id[rows]
        self.model, self.goal, self.row, self.y = case.the_model(), goal, rows, batch.y[rows]
        self.reach = reach = reach_of(Norm.LINF, np.inf, batch.x[rows], case.schema)
        n, self.shape = len(rows), reach.x.shape[1:]
        scale = np.broadcast_to(reach.scale, self.shape).reshape(-1)
        order = runs_of(self.shape)
        self.column = order[scale[order] > 0]  # in the order in which blocks are runs
        self.scale = scale[self.column]
        self.span, self.bounded = self._spans()
        self.best, self.least, self.starts = np.array(reach.x), np.full(n, np.inf), np.zeros(n, dtype=np.int64)
        self.sign = np.ones((n, len(self.column)), dtype=np.int8)
        # The ray is wrong at `far` and, as far as is known, right at `near`; `step` is the stride of the gallop.
        self.far, self.near, self.step = np.full(n, np.inf), np.zeros(n), np.zeros(n)
        self.searching = np.zeros(n, dtype=bool)
        self.level, self.block = np.full(n, -1), np.zeros(n, dtype=np.int64)
        self.fine, self.gained = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)

    def __len__(self) -> int:
        return len(self.row)

    def _spans(self) -> tuple[Array, Array]:
        """How far in units a ray is followed at first, `(n,)`, and whether that is all the way there is."""
        parts = (part.reshape(len(part), -1)[:, self.column] for part in (self.reach.low, self.reach.high))
        own = self.reach.x.reshape(len(self.row), -1)[:, self.column].astype(np.float64)
        low, high = (np.where(np.isnan(own), 0.0, np.abs(part - own) / self.scale) for part in parts)
        room = np.maximum(low, high)
        bounded = np.isfinite(room).all(axis=1)
        widest = np.where(np.isfinite(room), room, 1.0).max(axis=1, initial=0.0)
        return np.asarray(widest), np.asarray(bounded)

    def gone(self) -> Iterator[Claim]:
        """Let go of samples that are near enough, and begin again where no flip helps; what the former found."""
        near = self.least <= (self.goal.eps if np.isfinite(self.goal.eps) else _NOTHING * self.span)
        done = near | (self.span == 0)
        if done.any():
            yield from self._claimed(done)
            self._keep(~done)
        self._begin_again(np.flatnonzero(self.fine >= len(_FINE)))

    def _begin_again(self, rows: Array) -> None:
        """Begin again from random signs: the optimum of single flips that was found may be a local one."""
        if not len(rows):
            return
        self.starts[rows] += 1
        for start in np.unique(self.starts[rows]):
            those = rows[self.starts[rows] == start]
            self.sign[those] = drawn_signs(self.seed, ("rays", int(start)), self.ids[those], len(self.column))
        self.far[rows], self.near[rows], self.level[rows] = np.inf, 0.0, -1
        for array in (self.block, self.fine, self.searching, self.gained):
            array[rows] = 0

    def found(self) -> Iterator[Claim]:
        """What was found for the samples that are still there."""
        yield from self._claimed(np.ones(len(self), dtype=bool))

    def _claimed(self, mask: Array) -> Iterator[Claim]:
        told = np.flatnonzero(mask & (self.least < np.inf) & (self.least <= self.goal.eps))
        if len(told):
            yield Claim(self.row[told], x=self.best[told])

    def ask(self) -> None:
        """One label for each sample: whether a flip is worth it, or how short the ray of the last such one is."""
        blocks, least = self._blocks()
        flipping, seeking = ~self.searching, np.isinf(self.far)
        signs = self._flipped(flipping & (self.level >= 0), blocks)
        known = np.where(seeking, self.span, self.far)
        further = np.maximum(known - self.step, (self.near + known) / 2)
        asked = np.where(seeking, self.span, np.where(flipping, known * (1 - least), further))
        points = self._points(signs, asked)
        hit = wrong(self.model, points, self.y, target=self.goal.target)
        self._learn(hit, asked, points, seeking=seeking, least=least)
        kept = hit & flipping
        self.sign[kept] = signs[kept]
        self.gained |= kept
        self.searching = (hit | ~flipping) & (self.far - self.near > least * self.far)
        self._next(~self.searching, blocks)

    def _blocks(self) -> tuple[Array, Array]:
        """How many blocks there are at each sample's level, and what share of its distance a flip has to save."""
        blocks = np.minimum(2.0 ** np.maximum(self.level, 0), len(self.column)).astype(np.int64)
        coarse = np.where(blocks < len(self.column), _COARSE / blocks, 0.0)
        return blocks, np.maximum(coarse, np.array(_FINE)[np.minimum(self.fine, len(_FINE) - 1)])

    def _flipped(self, flipping: Array, blocks: Array) -> Array:
        """The signs with those of each sample's present block turned round where it is `flipping (n,)`."""
        first, last = (block * len(self.column) // blocks for block in (self.block, self.block + 1))
        place = np.arange(len(self.column))
        inside = (place >= first[:, None]) & (place < last[:, None]) & flipping[:, None]
        return np.where(inside, -self.sign, self.sign)

    def _points(self, signs: Array, asked: Array) -> Array:
        points = self.reach.x.reshape(len(self), -1).astype(np.float64)
        points[:, self.column] += asked[:, None] * signs * self.scale
        return self.reach.settle(points.reshape(self.reach.x.shape))

    def _learn(self, hit: Array, asked: Array, points: Array, *, seeking: Array, least: Array) -> None:
        flipping = ~self.searching
        self.near = np.where(flipping & hit, 0.0, np.where(flipping | hit, self.near, asked))
        # The first ray is bisected; others gallop from what a flip must save.
        stride = np.where(seeking, asked, asked * least)
        self.step = np.where(flipping, stride, np.where(hit, 2 * self.step, self.step))
        self.span = np.where(seeking & ~hit & ~self.bounded, np.minimum(2 * self.span, _FARTHEST), self.span)
        there = np.flatnonzero(hit)
        measured = distance(Norm.LINF, self.reach.x[there], points[there], self.reach.scale)
        self.far[there] = np.minimum(measured, asked[there])
        better = there[self.far[there] < self.least[there]]
        self.best[better], self.least[better] = points[better], self.far[better]

    def _next(self, free: Array, blocks: Array) -> None:
        """On to the next block; after the last of a level to the next level, after single features to finer savings."""
        self.block = self.block + free
        over = free & ((self.level < 0) | (self.block >= blocks))
        last = over & (blocks >= len(self.column)) & (self.level >= 0)
        self.fine = self.fine + (last & ~self.gained)
        self.level = self.level + (over & ~last)
        self.block, self.gained = np.where(over, 0, self.block), self.gained & ~over
        # The present ray is searched as finely as what is now compared with it, before the first block is flipped.
        _, least = self._blocks()
        loose = over & np.isfinite(self.far) & (self.far > self.near)
        loose[loose] = (self.far - self.near)[loose] > (least * self.far)[loose]
        self.searching |= loose
        self.block, self.step = np.where(loose, -1, self.block), np.where(loose, self.far, self.step)

    def _keep(self, mask: Array) -> None:
        self.reach = self.reach.take(mask)
        kept = ("row", "y", "span", "bounded", "best", "sign", "far", "near", "step", "searching", "level", "block")
        for name in (*kept, "fine", "gained", "ids", "least", "starts"):
            setattr(self, name, getattr(self, name)[mask])


def runs_of(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """The flat indices of a sample's features such that runs of them are blocks.

    A table's are as they stand. An image's follow a Z-order curve with the channels of a pixel side by side, so that
    the runs of each halving are squares and halves of squares.
    """
    if len(shape) != 3:
        return np.arange(int(np.prod(shape)))
    channel, row, column = np.indices(shape)
    code = np.zeros(shape, dtype=np.int64)
    for bit in range(max(shape[1:]).bit_length()):
        code |= (((row >> bit) & 1) << (2 * bit + 1)) | (((column >> bit) & 1) << (2 * bit))
    return np.lexsort((channel.reshape(-1), code.reshape(-1)))
