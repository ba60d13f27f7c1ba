"""Trees as seen from boxes: which leaves some of a box reaches, and how far that can bring one class over another.

All thresholds are moved to values that the samples' own dtype can hold (and to whole numbers where a feature is one),
so that boxes are closed and nothing is lost or gained by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.trees import Trees
from casemate.engine.reach import Reach

__all__ = ["Boxes", "Grid", "Judged", "crossings"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Boxes:
    """Closed boxes `low, high (s, used)` around samples number `row (s,)`, where class `j (s,)` is wanted over `y`."""

    row: Array
    y: Array
    j: Array
    low: Floats
    high: Floats

    def __len__(self) -> int:
        return len(self.row)

    def take(self, rows: Array) -> Boxes:
        """Some of the boxes."""
        return Boxes(*(part[rows] for part in (self.row, self.y, self.j, self.low, self.high)))


@dataclass(frozen=True, slots=True)
class Judged:
    """Of each box: the most that class `j` can be ahead of `y`, `(s,)`, and the threshold to split at, -1 for none.

    A box without one is a cell: every tree gives one leaf to all of it.
    """

    most: Floats
    split: Array


class Grid:
    """Trees over the values of one dtype: each threshold with the largest value `below` it and the least one `above`.

    The thresholds `(p,)` are unique and sorted by `feature (p,)`, a position in `used`, the features that any tree
    looks at; `starts` is where each of these begins.
    """

    def __init__(self, trees: Trees, reach: Reach) -> None:
        self.trees = trees
        inner = np.flatnonzero(trees.feature >= 0)
        keys = np.stack([trees.feature[inner].astype(float), trees.threshold[inner], trees.missing_left[inner]])
        pairs, place = np.unique(keys, axis=1, return_inverse=True)
        self.used, self.feature = np.unique(pairs[0].astype(np.int64), return_inverse=True)
        self.threshold, self._missing_left = pairs[1], pairs[2].astype(bool)
        self.starts = np.flatnonzero(np.diff(self.feature, prepend=-1))
        self._pair = np.full(len(trees.feature), -1)
        self._pair[inner] = place.reshape(-1)
        self.below, self.above = _neighbours(self.threshold, self._whole(reach), reach.x.dtype)
        owner = np.empty(len(trees.feature), dtype=np.int64)
        owner[trees.roots] = np.arange(len(trees.roots))
        for nodes in trees.levels:
            owner[trees.left[nodes]] = owner[trees.right[nodes]] = owner[nodes]
        leaves = np.flatnonzero(trees.feature < 0)
        self._leaf = leaves[np.argsort(owner[leaves], kind="stable")]
        self._tops = np.flatnonzero(np.diff(owner[self._leaf], prepend=-1))
        self._column = trees.column[owner[self._leaf]]
        self._value = trees.value[self._leaf]

    def pick(self, array: Array) -> Floats:
        """The used features of samples `(n, ...)`, flat and in float64."""
        return np.asarray(array.reshape(len(array), -1)[:, self.used], dtype=np.float64)

    def judge(self, boxes: Boxes) -> Judged:
        """Bound every box, and say where to split it: in the tree whose leaves in reach differ most."""
        left, right = self._ways(boxes)
        reached = self._reached(left, right)
        gaps = self._gaps(boxes)
        best = np.maximum.reduceat(np.where(reached, gaps, -np.inf), self._tops, axis=0)
        worst = np.minimum.reduceat(np.where(reached, gaps, np.inf), self._tops, axis=0)
        several = np.add.reduceat(reached, self._tops, axis=0, dtype=np.int64) > 1
        spread = np.where(several, best - worst, -1.0)
        tree = spread.argmax(axis=0)
        split = self._first_open(tree, left, right)
        base = self.trees.base
        return Judged(base[boxes.j] - base[boxes.y] + best.sum(axis=0), np.where(several.any(axis=0), split, -1))

    def raw(self, points: Floats) -> Floats:
        """The scores `(s, k)` of points `(s, used)`."""
        flat = np.zeros((len(points), int(self.used.max(initial=-1)) + 1))
        flat[:, self.used] = points
        return self.trees.raw(flat)

    def halves(self, boxes: Boxes, split: Array) -> Boxes:
        """Both halves of every box, left ones first, parted at threshold `split (s,)`."""
        at = np.arange(len(boxes)), self.feature[split]
        high, low = boxes.high.copy(), boxes.low.copy()
        # A whole-number feature may start from a fraction: its half is then that value itself.
        high[at] = np.maximum(self.below[split], boxes.low[at])
        low[at] = np.minimum(self.above[split], boxes.high[at])
        low, high = np.concatenate([boxes.low, low]), np.concatenate([high, boxes.high])
        row, y, j = (np.tile(part, 2) for part in (boxes.row, boxes.y, boxes.j))
        return Boxes(row, y, j, low, high)

    def _whole(self, reach: Reach) -> Bools:
        whole = np.broadcast_to(False if reach.whole is None else reach.whole, reach.x.shape[1:]).reshape(-1)
        return np.asarray(whole[self.used][self.feature] | (reach.x.dtype.kind != "f"))

    def _gaps(self, boxes: Boxes) -> Floats:
        """What each leaf adds to the wanted class over the other, `(leaves, s)`."""
        if (self._column < 0).all():
            return np.asarray(self._value[:, boxes.j] - self._value[:, boxes.y])
        sign = (self._column[:, None] == boxes.j).astype(np.float64) - (self._column[:, None] == boxes.y)
        return np.asarray(self._value * sign)

    def _ways(self, boxes: Boxes) -> tuple[Bools, Bools]:
        """Which thresholds let some of each box go left, and right: `(p, s)` each."""
        low, high = boxes.low.T[self.feature], boxes.high.T[self.feature]
        left, right = low <= self.threshold[:, None], high > self.threshold[:, None]
        missing = np.isnan(low)
        if missing.any():
            left |= missing & self._missing_left[:, None]
            right |= missing & ~self._missing_left[:, None]
        return left, right

    def _reached(self, left: Bools, right: Bools) -> Bools:
        """Which leaves some of each box reaches, `(leaves, s)`."""
        trees = self.trees
        there = np.ones((len(trees.feature), left.shape[1]), dtype=bool)
        for nodes in trees.levels:
            here, pairs = there[nodes], self._pair[nodes]
            there[trees.left[nodes]] = here & left[pairs]
            there[trees.right[nodes]] = here & right[pairs]
        return there[self._leaf]

    def _first_open(self, tree: Array, left: Bools, right: Bools) -> Array:
        """The threshold at the topmost node of `tree (s,)` where a box goes both ways; -1 where there is none."""
        at, boxes = self.trees.roots[tree], np.arange(len(tree))
        for _ in self.trees.levels:
            pair = self._pair[at]
            goes_left, goes_right = left[pair, boxes], right[pair, boxes]
            onward = np.where(goes_left, self.trees.left[at], self.trees.right[at])
            at = np.where((goes_left & goes_right) | (pair < 0), at, onward)
        return self._pair[at]


def crossings(grid: Grid, reach: Reach) -> tuple[Floats, Floats]:
    """How far it is to below and to above each threshold, `(n, p)` each, in units of the scale; inf where out of reach.

    Measured as `core.norms.distance` does, so that a witness is exactly as far.
    """
    x, low, high = (grid.pick(array)[:, grid.feature] for array in (reach.x, reach.low, reach.high))
    scale = np.broadcast_to(reach.scale, reach.x.shape[1:]).reshape(-1)[grid.used][grid.feature]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        down, up = np.abs(grid.below - x) / scale, np.abs(grid.above - x) / scale
        down = np.where((grid.below < x) & (grid.below >= low), down, np.inf)
        up = np.where((grid.above > x) & (grid.above <= high), up, np.inf)
    return np.asarray(down), np.asarray(up)


def _neighbours(threshold: Floats, whole: Bools, dtype: np.dtype[Any]) -> tuple[Floats, Floats]:
    """The largest value of the dtype that is `<= threshold`, and the next one."""
    kind = dtype if dtype.kind == "f" else np.dtype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        below = threshold.astype(kind)
        below = np.where(below.astype(np.float64) > threshold, np.nextafter(below, kind.type(-np.inf)), below)
        above = np.nextafter(below, kind.type(np.inf))
        floor = np.floor(threshold)
    return np.where(whole, floor, below).astype(np.float64), np.where(whole, floor + 1, above).astype(np.float64)
