"""Trees: an additive ensemble of decision trees as plain arrays, exact about which leaf a sample reaches.

Every library compares in its own way: `x < t` in float32 (XGBoost), `float32(x) <= t` (scikit-learn's forests),
`x <= t` in float64 (LightGBM). Rounding to float32 is monotone, so each of these is `x <= threshold` in float64 for one
threshold, which `float32_threshold` finds. So there is one rule here, and it holds for every sample in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casemate.errors import ModelError

__all__ = ["Trees", "float32_threshold"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_BATCH = 1 << 22  # sample-tree pairs walked at once
_TOP = 2.0**128  # where float32 would go on after its largest number


@dataclass(frozen=True, eq=False)
class Trees:
    """`raw(x) = base + the sum over trees of the leaf that x reaches`; the largest column is the label.

    All nodes of all trees in one list of `m`: at an inner node a sample goes `left` where its (flat) `feature` is
    `<= threshold` or, if that is missing, where `missing_left` says so; else `right`. A leaf has feature -1. `roots
    (t,)`. `value (m, 1)` is added to the class `column (t,)` of its tree, `value (m, k)` to all classes (column -1).
    `base (k,)`. Scores are right up to a shift common to all classes. `slack`: where two classes are closer than this,
    rounding in the library decides, and only the library can say how. The leaf is exact.
    """

    feature: NDArray[np.int64]
    threshold: Floats
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    value: Floats
    roots: NDArray[np.int64]
    column: NDArray[np.int64]
    base: Floats
    slack: float

    def __post_init__(self) -> None:
        m, k = len(self.feature), len(self.base)
        wide = self.value.shape == (m, k) and bool((self.column == -1).all())
        narrow = self.value.shape == (m, 1) and bool(((self.column >= 0) & (self.column < k)).all())
        if not (wide or narrow) or not self._whole():
            raise ModelError(
                f"expected trees in which every one of {m} nodes is a root or below one, once, and leaves for {k} "
                f"classes, got others (values {self.value.shape}): mend the arrays"
            )
        if not (np.isfinite(self.value).all() and np.isfinite(self.base).all()) or np.isnan(self.threshold).any():
            raise ModelError("expected finite leaves and thresholds that are numbers, got others: mend the arrays")

    def _whole(self) -> bool:
        """Whether every node has one parent, or is a root, and every one is below a root."""
        m, inner = len(self.feature), self.feature >= 0
        above = np.concatenate([self.roots, self.left[inner], self.right[inner]])
        if len(above) != m or not m or above.min() < 0 or above.max() >= m or len(np.unique(above)) != m:
            return False
        return m == len(self.roots) + 2 * sum(map(len, self.levels))  # else there is a circle beside the trees

    @cached_property
    def levels(self) -> tuple[NDArray[np.int64], ...]:
        """The inner nodes by depth, those of the roots first."""
        found, nodes = [], self.roots
        while len(nodes := nodes[self.feature[nodes] >= 0]):
            found.append(nodes)
            nodes = np.concatenate([self.left[nodes], self.right[nodes]])
        return tuple(found)

    def leaves(self, x: Array) -> NDArray[np.int64]:
        """The leaf of every tree that each sample `x (n, ...)` reaches, `(n, t)` node numbers.

        Raises `ModelError` for samples with too few features.
        """
        flat = np.asarray(x, dtype=np.float64).reshape(len(x), math.prod(x.shape[1:]))
        needed = int(self.feature.max(initial=-1)) + 1
        if flat.shape[1] < needed:
            raise ModelError(f"expected at least {needed} features for these trees, got {flat.shape[1]}: reshape")
        at = np.repeat(self.roots[None], len(flat), axis=0)
        rows = np.arange(len(flat))[:, None]
        for _ in self.levels:
            feature = self.feature[at]
            reached = flat[rows, np.maximum(feature, 0)]
            goes_left = np.where(np.isnan(reached), self.missing_left[at], reached <= self.threshold[at])
            at = np.where(feature < 0, at, np.where(goes_left, self.left[at], self.right[at]))
        return at

    def raw(self, x: Array) -> Floats:
        """The score of every class, `(n, k)`, up to a shift common to all; a missing value is NaN."""
        step = max(1, _BATCH // max(len(self.roots), 1))
        parts = [self._raw(x[top : top + step]) for top in range(0, len(x), step)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.base)))

    def labels(self, x: Array) -> NDArray[np.int64]:
        """The class with the largest score, `(n,)`; of equal ones the first."""
        return np.asarray(self.raw(x).argmax(axis=1), dtype=np.int64)

    def _raw(self, x: Array) -> Floats:
        reached = self.value[self.leaves(x)]
        if reached.shape[2] == len(self.base) and (self.column == -1).all():
            return np.asarray(self.base + reached.sum(axis=1))
        membership = np.eye(len(self.base))[self.column]
        return np.asarray(self.base + reached[:, :, 0] @ membership)


def float32_threshold(t: ArrayLike, *, strict: bool) -> Floats:
    """The float64 thresholds under which `x <= threshold` is `float32(x) < t` (strict) or `float32(x) <= t`, `(m,)`.

    Holds for every float64 `x`: rounding is to the nearest, ties to even, as the hardware does it.
    """
    asked = np.asarray(t, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        p = asked.astype(np.float32)
        too_large = p.astype(np.float64) >= asked if strict else p.astype(np.float64) > asked
        p = np.where(too_large, np.nextafter(p, np.float32(-np.inf)), p)  # the largest float32 that goes left
        own, above = p.astype(np.float64), np.nextafter(p, np.float32(np.inf)).astype(np.float64)
        own, above = (
            np.clip(value, -_TOP, _TOP) for value in (own, above)
        )  # what rounds to inf begins half way to _TOP
        middle = own + (above - own) / 2
        rounds_down = middle.astype(np.float32) == p
    threshold = np.where(rounds_down, middle, np.nextafter(middle, -np.inf))
    return np.asarray(np.where(np.isposinf(p), np.inf, threshold))
