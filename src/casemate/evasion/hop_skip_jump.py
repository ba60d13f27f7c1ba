"""HopSkipJumpAttack: walks along the decision boundary by labels alone (Chen, Jordan and Wainwright 2020)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm, distance
from casemate.core.options import Count, Natural
from casemate.core.plugin import attack
from casemate.core.rng import derive_seed, uniforms
from casemate.engine.harness import wrong
from casemate.engine.reach import Reach, reach_of
from casemate.errors import BudgetExhausted
from casemate.evasion import THREAT

__all__ = ["HopSkipJumpOptions", "hop_skip_jump_attack"]

Array = NDArray[Any]

_POOL = 200  # rows of other classes among which the walk begins
_STARTS = 16  # of them, the nearest first
_NOISE_STARTS = 16
_FIRST_PROBE = 0.1  # of the range (or scale): how far the first estimate looks, as in the authors' code
_LARGEST_STEPS = 12  # halvings of a step
_LEAST = 8  # probes that are worth an estimate
_CHUNK = 1 << 19  # numbers in one call of the model: what stays in a cache is a third faster
_CUBE = 32  # free features from which directions of a cube serve for those of a sphere


@dataclass(frozen=True, slots=True)
class HopSkipJumpOptions:
    """`queries` a sample; `probes`: the paper's B_0, the directions of the first estimate (0: a share of `queries`)."""

    queries: Count = 1000
    probes: Natural = 0


@attack(
    threat=THREAT,
    source="Chen, Jordan and Wainwright, HopSkipJumpAttack, IEEE S&P 2020, Algorithms 1 and 2, with B_t, delta_t, "
    "theta and the step sizes of section IV",
    needs={Facet.LABELS, Facet.TEST},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.EXPENSIVE,
    options=HopSkipJumpOptions,
    profiles={Profile.QUICK: {"queries": 250}, Profile.FULL: {"queries": 5000}},
    norms={Norm.LINF, Norm.L2},
    minimum_norm=True,
)
def hop_skip_jump_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """Walk along the decision boundary towards each sample by labels alone: no gradient and no score to hide.

    From a point of another class: bisect to the boundary, estimate its normal from the labels of `B_0 sqrt(t)` points
    around, step along it, halve the step until the label is wrong, and again. All samples of the batch advance
    together, one model call a step. With a finite eps a sample leaves as soon as it is within eps; with eps = inf every
    improvement is claimed. The attacker sees labels. Errs towards robust.

    The paper's: both updates, B_t, delta_t, theta and the step sizes. Ours: the walk begins at the nearest of some rows
    of another class that lie in reach (the paper leaves this open) and at blends with noise where there is none, and
    whole-number features are probed by at least one step; from 32 free features on, l2's directions are those of points
    in a cube, as the authors' code has them for linf, since they are drawn faster. Categories stay, relations hold. At
    most `queries` labels are asked for each sample, and some hundred more to learn the classes of the rows it may begin
    at. Raises `BudgetExhausted` when the budget ends.
    """
    rows = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    walk = _Walk(case.the_model(), goal, lab.options, lab.seed, reach_of(goal.norm, np.inf, batch.x[rows], case.schema))
    try:
        walk.enter(batch.y[rows], batch.sample_id[rows], _pool(case, lab))
        yield from walk.claims(rows)
        step = 0
        while len(walk):
            step += 1
            walk.advance(step)
            yield from walk.claims(rows)
    except BudgetExhausted:
        yield from walk.claims(rows)
        raise


def _pool(case: Case, lab: Lab) -> Array:
    """Rows where a walk may begin; the same for every batch, so that no sample's fate depends on its neighbours."""
    data = case.splits.reference or case.splits.train or case.data("test")
    chosen = lab.rows_rng("starts").permutation(len(data))[:_POOL]
    return np.asarray(data.x[np.sort(chosen)])


class _Walk:
    """All samples that still stand: where they are on the other side, how far, and how often each was asked."""

    def __init__(self, model: Model, goal: Goal, options: HopSkipJumpOptions, seed: int, reach: Reach) -> None:
        self.model, self.goal, self.options, self.seed, self.reach = model, goal, options, seed, reach
        self.shape = reach.x.shape[1:]
        self.free = np.broadcast_to(reach.scale > 0, self.shape)
        self.d = max(int(self.free.sum()), 1)
        self.unit = np.broadcast_to(np.where(reach.scale > 0, reach.scale, 1.0), self.shape)
        # theta of the paper: how near the boundary a bisection goes, relative to the distance
        self.theta = self.d ** (-1.5 if goal.norm is Norm.L2 else -2.0)
        self.at = np.array(reach.x)
        self.far = np.full(len(reach), np.inf)
        self.told = np.full(len(reach), np.inf)
        self.used = np.zeros(len(reach), dtype=np.int64)
        self.index = np.arange(len(reach))

    def __len__(self) -> int:
        return len(self.index)

    def enter(self, y: Array, ids: Array, pool: Array) -> None:
        """Find a point on the other side for each sample, and bisect from there to the boundary."""
        self.y, self.ids = y, ids
        # One a sample for the whole walk. SFC64 draws twice as fast as the Philox of core.rng, which gives its seed.
        seeds = [derive_seed(self.seed, "hop", int(sample_id)) for sample_id in ids]
        self.streams = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]
        if not len(self):
            return
        known = np.asarray(self.model.labels(pool))
        open_ = np.arange(len(self))
        for order in range(_STARTS):
            open_ = self._try(open_, self._nearest(open_, pool, known, order))
        for attempt in range(_NOISE_STARTS):
            if not len(open_):
                break
            low, high = (np.where(np.isfinite(edge), edge, self.reach.x) for edge in (self.reach.low, self.reach.high))
            span = uniforms(self.seed, ("hop noise", attempt), self.ids[open_], self.shape)
            noise = low[open_] + span * (high[open_] - low[open_])
            open_ = self._try(open_, np.where(self.free, noise, self.reach.x[open_]))
        self._keep(np.isfinite(self.far))
        self._bisect(np.arange(len(self)), self.at)

    def claims(self, rows: Array) -> Iterator[Claim]:
        """What is better than was told before; samples leave that are near enough or have no queries left."""
        better = np.flatnonzero(self.far < self.told)
        better = better[self.far[better] <= self.goal.eps]
        if len(better):
            yield Claim(rows[self.index[better]], x=self.at[better])
            self.told[better] = self.far[better]
        near = (self.far <= self.goal.eps) if np.isfinite(self.goal.eps) else (self.far == 0)
        self._keep(~near & (self.used + _LEAST + _LARGEST_STEPS < self.options.queries))

    def advance(self, step: int) -> None:
        """One round of Algorithm 2 for all samples: normal, geometric step, bisection."""
        normal = self._normal(step, self._probes(step))
        sizes = self.far / np.sqrt(step)
        start, end, open_ = self.at.copy(), self.at.copy(), np.arange(len(self))
        for _ in range(_LARGEST_STEPS):
            if not len(open_):
                break
            moved = self._settled(open_, self._moved(start[open_], normal[open_], sizes[open_]))
            hit = self._asked(open_, moved)
            end[open_[hit]] = moved[hit]
            open_, sizes = open_[~hit], sizes / 2
        self._bisect(np.setdiff1d(np.arange(len(self)), open_), end)

    def _keep(self, mask: Array) -> None:
        self.reach = self.reach.take(mask)
        for name in ("at", "far", "told", "used", "index", "y", "ids"):
            setattr(self, name, getattr(self, name)[mask])

    def _probes(self, step: int) -> int:
        first = self.options.probes or min(100, max(10, self.options.queries // 20))
        return int(first * np.sqrt(step))

    def _nearest(self, open_: Array, pool: Array, known: Array, order: int) -> Array:
        """The row of another class that is `order`-th nearest, with the columns that nobody can change put back."""
        out = np.array(self.reach.x[open_])
        for place, row in enumerate(open_):
            wanted = known == self.goal.target if self.goal.target is not None else known != self.y[row]
            rows = np.flatnonzero(wanted)
            if len(rows) <= order:
                continue
            mixed = np.where(self.free & ~np.isnan(pool[rows]), pool[rows], self.reach.x[row])
            own = np.broadcast_to(self.reach.x[row], mixed.shape)
            gaps = distance(self.goal.norm, own, mixed, self.reach.scale)
            out[place] = mixed[np.argsort(gaps, kind="stable")[order]]
        return out

    def _try(self, open_: Array, points: Array) -> Array:
        if not len(open_):
            return open_
        points = self._settled(open_, points)
        return np.asarray(open_[~self._asked(open_, points)])

    def _settled(self, rows: Array, points: Array) -> Array:
        return self.reach.take(rows).settle(points)

    def _distance(self, rows: Array, points: Array) -> Array:
        return distance(self.goal.norm, self.reach.x[rows], points, self.reach.scale)

    def _asked(self, rows: Array, points: Array) -> Array:
        """Whether each point (already settled) is on the other side; costs each of its samples one query.

        A sample goes at once to such a point that is no further than where it is: the budget may end with any call.
        """
        self.used[rows] += 1
        hit = wrong(self.model, points, self.y[rows], target=self.goal.target)
        self._go(rows[hit], points[hit])
        return hit

    def _go(self, rows: Array, points: Array) -> None:
        gaps = self._distance(rows, points)
        nearer = gaps <= self.far[rows]
        self.at[rows[nearer]], self.far[rows[nearer]] = points[nearer], gaps[nearer]

    def _bisect(self, rows: Array, end: Array) -> None:
        """Algorithm 1, BIN-SEARCH: the point of the segment (l2) or of the shrinking box (linf) next to the boundary.

        `end` is a point on the other side for each sample; whoever comes no nearer from there stays where it is.
        """
        end = end[rows]
        low = np.zeros(len(rows))
        high = np.ones(len(rows)) if self.goal.norm is Norm.L2 else self._distance(rows, end)
        tolerance = np.full(len(rows), self.theta) if self.goal.norm is Norm.L2 else np.minimum(high, 1) * self.theta
        open_ = np.flatnonzero(high - low > tolerance)
        while len(open_):
            middle = (low[open_] + high[open_]) / 2
            points = self._settled(rows[open_], self._between(rows[open_], end[open_], middle))
            hit = self._asked(rows[open_], points)
            high[open_[hit]], low[open_[~hit]] = middle[hit], middle[~hit]
            open_ = open_[(high - low > tolerance)[open_] & (self.used[rows[open_]] < self.options.queries)]

    def _between(self, rows: Array, end: Array, share: Array) -> Array:
        x = self.reach.x[rows].astype(np.float64)
        wide = share.reshape(-1, *(1,) * len(self.shape))
        if self.goal.norm is Norm.L2:
            return np.where(self.free, x + wide * (end - x), x)
        box = wide * self.reach.scale
        return np.where(self.free, np.clip(end, x - box, x + box), x)

    def _normal(self, step: int, probes: int) -> Array:
        """Equation (16) with the baseline of section III-C: the mean direction weighted by on which side it ends.

        In units of the scale; of length one (l2), or its sign (linf).
        """
        size = self._probe_sizes(step)
        out = np.zeros((len(self), *self.shape))
        most = max(1, _CHUNK // (probes * max(int(np.prod(self.shape)), 1)))
        for top in range(0, len(self), most):
            rows = np.arange(top, min(top + most, len(self)))
            out[rows] = self._estimated(rows, probes, size[rows])
        return out

    def _probe_sizes(self, step: int) -> Array:
        if step == 1:
            span = np.where(np.isfinite(self.reach.high - self.reach.low), self.reach.high - self.reach.low, 0)
            wide = (span / self.unit).reshape(len(self), -1).max(axis=1)
            return np.where(wide > 0, _FIRST_PROBE * wide, _FIRST_PROBE)
        # delta_t of section IV: sqrt(d) theta |x_t - x| for l2, d theta |x_t - x| for linf; both are |x_t - x| / d
        return self.far / self.d

    def _estimated(self, rows: Array, probes: int, size: Array) -> Array:
        mine = np.clip(self.options.queries - self.used[rows] - _LARGEST_STEPS, _LEAST, probes)
        asked = np.arange(probes) < mine[:, None]  # each sample's own count, whoever shares the batch
        moves = self._whole_steps(self._directions(rows, probes, size))
        points = self._around(rows, moves)
        value = np.zeros(asked.shape, dtype=moves.dtype)
        sent = points.reshape(-1, *self.shape) if asked.all() else points[asked]
        sides = wrong(self.model, sent, np.repeat(self.y[rows], mine), target=self.goal.target)
        value[asked] = np.where(sides, 1, -1)
        self.used[rows] += mine
        at = self.at[rows]
        self._notice(rows, points, value > 0, size)
        points -= at[:, None]
        if self.unit.max() != 1 or self.unit.min() != 1:
            points /= self.unit.astype(moves.dtype)
        seen = np.nan_to_num(points, copy=False) if np.isnan(self.reach.x[rows]).any() else points
        mean = (value.sum(axis=1) / mine)[:, None]
        weight = np.where(np.abs(mean) == 1, value, np.where(asked, value - mean, 0)).astype(moves.dtype)
        # one product a sample: its rounding must not depend on who shares the batch
        found = np.stack([w @ s.reshape(probes, -1) for w, s in zip(weight, seen, strict=True)])
        return self._scaled(found.reshape(len(rows), *self.shape).astype(np.float64))

    def _notice(self, rows: Array, points: Array, hit: Array, size: Array) -> None:
        """Go to the nearest of the probes `(n, b, ...)` that are a hit `(n, b)` within a finite eps: that is enough."""
        if not np.isfinite(self.goal.eps):
            return
        # None is further from where its sample is than `size`, but for a step of a whole number, which may be missed.
        for place in np.flatnonzero(hit.any(axis=1) & (self.far[rows] - size <= self.goal.eps)):
            tried, row = points[place, hit[place]], rows[[place] * int(hit[place].sum())]
            gaps = self._distance(row, tried)
            best = [gaps.argmin()]
            lawful = np.array_equal(self._settled(row[best], tried[best]), tried[best], equal_nan=True)
            if lawful and gaps[best] <= self.goal.eps:
                self._go(row[best], tried[best])

    def _around(self, rows: Array, moves: Array) -> Array:
        """The points `(n, b, ...)` that the moves lead to, inside the bounds; what is fixed or missing stays."""
        x = self.reach.x[rows][:, None]
        points: Array = moves
        if self.unit.max() != 1 or self.unit.min() != 1:
            points *= self.unit.astype(moves.dtype)
        points += self.at[rows][:, None]
        np.clip(points, self.reach.low[rows][:, None], self.reach.high[rows][:, None], out=points)
        if self.reach.whole is not None:
            points = np.asarray(np.where(self.reach.whole, np.rint(points), points))
        if self.free.all() and not np.isnan(x).any():
            return points
        return np.asarray(np.where(self.free & ~np.isnan(x), points, x))

    def _scaled(self, found: Array) -> Array:
        if self.goal.norm is Norm.LINF:
            return np.asarray(np.sign(found))
        length = np.sqrt((found.reshape(len(found), -1) ** 2).sum(axis=1))
        return np.asarray(found / np.where(length > 0, length, 1.0).reshape(-1, *(1,) * len(self.shape)))

    def _directions(self, rows: Array, probes: int, size: Array) -> Array:
        """Random directions `(n, probes, ...)` of length `size (n,)`, from each sample's own stream."""
        shape, dtype = (probes, *self.shape), self.reach.x.dtype
        streams = [self.streams[index] for index in self.index[rows]]
        if self.goal.norm is Norm.L2 and self.d < _CUBE:
            drawn = np.stack([rng.standard_normal(shape, dtype=dtype) for rng in streams])
        else:
            # 2 bytes a coordinate are fine enough for a direction, and half the work of the generator
            count = 2 * math.prod(shape)
            drawn = np.concatenate([np.frombuffer(rng.bytes(count), np.int16) for rng in streams]).astype(dtype)
            drawn = drawn.reshape(len(rows), *shape)
            drawn += 0.5
        drawn = drawn if self.free.all() else np.where(self.free, drawn, 0)
        flat = drawn.reshape(len(rows), probes, -1)
        length = np.sqrt(np.einsum("nbd,nbd->nb", flat, flat))
        longer = (size[:, None] / np.where(length > 0, length, 1)).astype(dtype)
        drawn *= longer.reshape(len(rows), probes, *(1,) * len(self.shape))
        return np.asarray(drawn)

    def _whole_steps(self, moves: Array) -> Array:
        """Steps of whole-number features: at least one unit where the direction points there at all strongly."""
        if self.reach.whole is None:
            return moves
        strongest = np.abs(moves).max(axis=tuple(range(2, moves.ndim)), keepdims=True)
        strong = np.abs(moves) >= 0.5 * np.where(strongest > 0, strongest, 1.0)
        one = np.where(strong, np.sign(moves) / self.unit, 0.0)
        return np.where(self.reach.whole & (np.abs(moves * self.unit) < 1), one, moves)

    def _moved(self, start: Array, normal: Array, sizes: Array) -> Array:
        step = sizes.reshape(-1, *(1,) * len(self.shape)) * normal * self.unit
        return np.asarray(start.astype(np.float64) + step)
