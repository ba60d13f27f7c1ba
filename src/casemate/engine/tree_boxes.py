"""The least linf distance to a wrong answer of trees, by branch and bound over boxes of the input space.

Only finitely many distances matter: those at which some feature just crosses some threshold. For each sample the search
bisects them. A radius is refuted when every box of its ball is: a bound (the sum over trees of the best leaf that the
box reaches) leaves no other class ahead, or both halves of the box are refuted. It is confirmed by the box's nearest
point, once that is answered wrongly.

Source: the bound is that of Chen et al., "Robustness verification of tree-based models", NeurIPS 2019; boxes instead of
cliques as in Devos et al., "Versatile verification of tree ensembles", ICML 2021; the bisection is ours.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.trees import Trees
from casemate.engine.reach import Reach
from casemate.engine.tree_grid import Boxes, Grid, Judged, crossings
from casemate.errors import BudgetExhausted, ModelError

__all__ = ["Found", "search_boxes"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ask = Callable[[Array, Array], NDArray[np.bool_]]

_FIRST = 16  # boxes for a first try at a radius; each further try at it may use _MORE times as many
_MORE = 8
_AT_ONCE = 8  # boxes of one sample that are split in one round
_CELLS = 1 << 21  # pairs of a box and a node, and of a sample and a threshold, held at once


@dataclass(frozen=True, slots=True)
class Found:
    """Of each sample: no wrong answer is nearer than `lower (n,)`; one is at `upper (n,)` (inf: none found), `x`.

    Distances are linf in units of the scale, as `core.norms.distance` measures them, and equal where the search came to
    its end. `ended` is the budget's error where that ended first.
    """

    lower: Floats
    upper: Floats
    x: Array
    ended: BudgetExhausted | None = None


def search_boxes(
    trees: Trees,
    reach: Reach,
    y: Array,
    *,
    boxes: int,
    ask: Ask,
    charge: Callable[[int], None],
    target: int | None = None,
) -> Found:
    """The nearest wrong answers (or answers `target`) inside `reach` for samples with labels `y (n,)`.

    `boxes` limits the search of each sample; where it ends there, `lower < upper`. `ask(points, rows)` asks the model
    itself which are wrong, where two classes are so close that rounding decides. `charge(m)` is told before `m` boxes
    are bounded. Relations and switches of the reach are not looked at. Raises `ModelError` for trees that do not fit
    the samples or the labels.
    """
    n, width = len(reach), math.prod(reach.x.shape[1:])
    if int(trees.feature.max(initial=-1)) >= width or (n and not 0 <= y.min() <= y.max() < len(trees.base)):
        raise ModelError(f"expected trees for samples of {width} features and their labels, got others: wrap the model")
    grid = Grid(trees, reach)
    found = Found(np.zeros(n), np.full(n, np.inf), np.array(reach.x, copy=True).reshape(n, width))
    step = max(1, _CELLS // max(len(grid.threshold), 1))
    for top in range(0, n, step):
        rows = np.arange(top, min(n, top + step))
        search = _Search(grid, reach.take(rows), np.asarray(y)[rows], boxes, target)
        ended = search.run(lambda points, own, rows=rows: ask(points, rows[own]), charge)  # type: ignore[misc]
        found.lower[rows], found.upper[rows], found.x[rows] = search.lower(), search.upper, search.witness
        if ended is not None:
            found = replace(found, ended=ended)
            break
    return replace(found, x=found.x.reshape(reach.x.shape))


@dataclass(slots=True)
class _State:
    """The search of one sample over its `radii`: those up to number `low` are refuted, number `up` is confirmed.

    Those from `ceiling` on were left open within `limit` boxes. `asked` is the number in question (-1: none is), `heap`
    holds its boxes, the nearest to a wrong answer first, `spent` is what it took so far; `left` is what the sample may
    still use.
    """

    radii: Floats
    left: int
    low: int = -1
    up: int = 0
    ceiling: int = 0
    asked: int = -1
    limit: int = _FIRST
    spent: int = 0
    heap: list[tuple[float, int, int, int, Floats, Floats]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.up = self.ceiling = len(self.radii)

    def needs_radius(self) -> bool:
        """Whether the radius in question is settled: refuted, confirmed, or given up for now."""
        if self.asked >= 0 and not self.heap:
            self.low, self.asked = self.asked, -1
        elif self.asked >= 0 and (self.spent >= self.limit or self.left <= 0):
            self.ceiling, self.asked = self.asked, -1
        return self.asked < 0

    def next_radius(self) -> bool:
        """Choose what to ask next; whether there is anything left to ask."""
        self.heap.clear()
        if self.ceiling - self.low <= 1:
            self.limit, self.ceiling = self.limit * _MORE, self.up
        if self.ceiling - self.low <= 1 or self.left <= 0:
            return False
        self.asked, self.spent = (self.low + self.ceiling) // 2, 0
        return True

    def confirm(self, distance: float) -> None:
        """A wrong answer was found so far away."""
        self.heap.clear()
        self.up = self.ceiling = min(self.up, int(np.searchsorted(self.radii, distance)))
        self.asked = -1


class _Search:
    """The search of some samples, all at once: each round bounds a few boxes of every sample."""

    def __init__(self, grid: Grid, reach: Reach, y: Array, boxes: int, target: int | None) -> None:
        self.grid, self.y, self.target = grid, y, target
        self.x, self.flat, self.shape = grid.pick(reach.x), reach.x.reshape(len(reach), -1), reach.x.shape[1:]
        self.witness, self.upper = np.array(self.flat, copy=True), np.full(len(y), np.inf)
        self.scale = np.broadcast_to(reach.scale, reach.x.shape[1:]).reshape(-1)[grid.used]
        self.down, self.up = crossings(grid, reach)
        both = np.concatenate([self.down, self.up], axis=1)
        self.states = [_State(np.unique(line[np.isfinite(line)]), boxes) for line in both]
        self.ticks = count()

    def lower(self) -> Floats:
        """The least distance that is not refuted, `(n,)`."""
        bounds = [np.append(state.radii, np.inf)[state.low + 1] for state in self.states]
        return np.asarray(np.minimum(bounds, self.upper), dtype=np.float64)

    def run(self, ask: Ask, charge: Callable[[int], None]) -> BudgetExhausted | None:
        """Search until all samples are decided or have used their boxes; returns the error of a budget that ended."""
        step = max(1, _CELLS // len(self.grid.trees.feature))
        active = list(range(len(self.states)))
        try:
            while active:
                asking = {row for row in active if self.states[row].needs_radius()}
                asking -= (done := {row for row in asking if not self.states[row].next_radius()})
                active = [row for row in active if row not in done]
                fresh = self._joined([*self._balls(asking), *self._split(row for row in active if row not in asking)])
                for top in range(0, len(fresh), step):
                    part = fresh.take(np.arange(top, min(top + step, len(fresh))))
                    charge(len(part))
                    self._settle(part, self.grid.judge(part), ask)
        except BudgetExhausted as error:
            return error
        return None

    def _balls(self, rows: set[int]) -> Iterator[Boxes]:
        """The whole ball of the radius in question, once for each class that may win."""
        grid = self.grid
        for row in sorted(rows):
            radius, x = self.states[row].radii[self.states[row].asked], self.x[row]
            low = np.minimum.reduceat(np.where(self.down[row] <= radius, grid.below, np.inf), grid.starts)
            high = np.maximum.reduceat(np.where(self.up[row] <= radius, grid.above, -np.inf), grid.starts)
            others = np.arange(len(grid.trees.base)) if self.target is None else np.array([self.target])
            j = others[others != self.y[row]]
            every = np.full(len(j), row)
            shape = (len(j), len(x))
            sides = (np.broadcast_to(side, shape) for side in (np.minimum(x, low), np.maximum(x, high)))
            yield Boxes(every, self.y[every], j, *sides)

    def _split(self, rows: Iterator[int]) -> Iterator[Boxes]:
        """The halves of the most promising boxes of some samples."""
        picked = []
        for row in rows:
            heap = self.states[row].heap
            picked += [(row, *heapq.heappop(heap)[2:]) for _ in range(min(_AT_ONCE, len(heap)))]
        if picked:
            at, j, split, low, high = (np.array(part) for part in zip(*picked, strict=True))
            yield self.grid.halves(Boxes(at, self.y[at], j, low, high), split)

    def _joined(self, parts: list[Boxes]) -> Boxes:
        if not parts:
            none = np.empty(0, dtype=np.int64)
            return Boxes(none, none, none, np.empty((0, len(self.grid.used))), np.empty((0, len(self.grid.used))))
        return Boxes(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("row", "y", "j", "low", "high")))

    def _settle(self, boxes: Boxes, judged: Judged, ask: Ask) -> None:
        """Drop what is refuted, confirm what is found, and keep the rest to be split."""
        for row, spent in zip(*np.unique(boxes.row, return_counts=True), strict=True):
            self.states[row].spent += int(spent)
            self.states[row].left -= int(spent)
        standing = np.flatnonzero(judged.most >= -self.grid.trees.slack)
        boxes, judged = boxes.take(standing), Judged(judged.most[standing], judged.split[standing])
        points = np.clip(self.x[boxes.row], boxes.low, boxes.high)
        raw = self.grid.raw(points)
        hit = self._ahead(raw, boxes.y) > self.grid.trees.slack
        every = np.arange(len(boxes))
        near = raw[every, boxes.j] - raw[every, boxes.y]
        # A cell where rounding decides: all of it gets one answer, and the model knows which.
        unsure = np.flatnonzero(~hit & (judged.split < 0))
        if len(unsure):
            hit[unsure] = ask(self._samples(points[unsure], boxes.row[unsure]), boxes.row[unsure])
        for at in np.flatnonzero(hit):
            self._confirm(int(boxes.row[at]), points[at])
        for at in np.flatnonzero(~hit & (judged.split >= 0)):
            state = self.states[boxes.row[at]]
            if state.asked >= 0:
                box = int(boxes.j[at]), int(judged.split[at]), boxes.low[at], boxes.high[at]
                heapq.heappush(state.heap, (-float(near[at]), next(self.ticks), *box))

    def _ahead(self, raw: Floats, y: Array) -> Floats:
        """How far a wrong class (the target) is ahead of the right one (of all others), `(s,)`."""
        own = y if self.target is None else np.full(len(y), self.target)
        rest = raw.copy()
        rest[np.arange(len(y)), own] = -np.inf
        gap = rest.max(axis=1) - raw[np.arange(len(y)), own]
        return np.asarray(gap if self.target is None else -gap)

    def _confirm(self, row: int, point: Floats) -> None:
        """Join a wrong answer of a sample."""
        moved = np.flatnonzero((point != self.x[row]) & ~np.isnan(point))
        distance = float((np.abs(point[moved] - self.x[row, moved]) / self.scale[moved]).max(initial=0.0))
        if distance < self.upper[row]:
            self.upper[row] = distance
            self.witness[row, self.grid.used] = point
        self.states[row].confirm(distance)

    def _samples(self, points: Floats, rows: Array) -> Array:
        """Points `(s, used)` as samples, everything else as in theirs."""
        out = self.flat[rows].copy()
        out[:, self.grid.used] = points
        return out.reshape(len(rows), *self.shape)
