"""Where an attacker can go: the ball around each sample, the bounds and the fixed features, as arrays to search in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.norms import Norm, distance
from casemate.core.schema import FeatureKind, Schema

__all__ = ["Reach", "reach_of"]

Array = NDArray[Any]
# Aimed at inside the ball, relative to eps: more than the rounding of a float64 sum of a million squares.
_MARGIN = 1e-9


@dataclass(frozen=True, slots=True)
class Reach:
    """All points that `eps` allows around samples `x (n, ...)`, in their dtype.

    `low`, `high (n, ...)` enclose the schema's bounds and what one feature may move; both are rounded towards x, so
    that a point between them is inside in float64 too (for linf that is the whole ball). They meet at x where a feature
    is fixed or missing. A sample outside the declared bounds keeps its own value as a bound. `scale` broadcasts to one
    sample; `whole` masks features that take whole numbers only, or is None.
    """

    norm: Norm
    eps: float
    x: Array
    low: Array
    high: Array
    scale: NDArray[np.float64]
    whole: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Array) -> Reach:
        """The reach of some of the samples."""
        return Reach(self.norm, self.eps, self.x[rows], self.low[rows], self.high[rows], self.scale, self.whole)

    def settle(self, points: Array) -> Array:
        """The nearest points `(n, ...)` of x's dtype that are certainly inside.

        Whole-number features are rounded towards x; points outside an l2 or l1 ball are drawn back towards x, with
        every coordinate rounded towards x, so that the distance in float64 is at most eps.
        """
        inside = self.snap(np.clip(np.asarray(points, dtype=self.x.dtype), self.low, self.high))
        inside = np.where(np.isnan(self.x), self.x, inside)
        if self.norm is Norm.LINF:
            return np.asarray(inside)
        far = distance(self.norm, self.x, inside, self.scale)
        rows = np.flatnonzero(far > self.eps)
        if len(rows):
            step = inside[rows].astype(np.float64) - self.x[rows]
            step *= (self.eps * (1 - _MARGIN) / far[rows]).reshape(-1, *(1,) * (step.ndim - 1))
            inside[rows] = self.snap(_towards(self.x[rows], step), rows)
        return np.asarray(inside)

    def snap(self, points: Array, rows: Array | None = None) -> Array:
        """The points with whole-number features rounded towards x, which never leaves the ball; others as they are."""
        if self.whole is None:
            return points
        x = self.x if rows is None else self.x[rows]
        with np.errstate(invalid="ignore"):
            snapped = x + np.trunc(points - x)
        return np.where(self.whole, snapped, points).astype(points.dtype)


def reach_of(norm: Norm, eps: float, x: Array, schema: Schema | None) -> Reach:
    """The reach of samples `x (n, ...)` under a schema (none: no bounds, a scale of 1 everywhere); eps may be inf."""
    shape = x.shape[1:]
    ones = np.ones((1,) * len(shape))
    lo, hi, scale = (-np.inf * ones, np.inf * ones, ones) if schema is None else (schema.lo, schema.hi, schema.scale)
    own = np.asarray(x, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        span = np.where(scale > 0, eps * scale, 0.0)  # inf * 0 for a fixed feature is not a number, and not wanted
        low = np.minimum(np.maximum(_within(own, own - span, span), lo), own)
        high = np.maximum(np.minimum(_within(own, own + span, span), hi), own)
        low, high = _towards(x, low - own, low), _towards(x, high - own, high)
    return Reach(norm, float(eps), x, low, high, scale, _whole(schema))


def _within(x: NDArray[np.float64], edge: NDArray[np.float64], span: Array) -> NDArray[np.float64]:
    """The edge itself, or its neighbour towards x where the rounding of `x + span` went past the span."""
    return np.where(np.abs(edge - x) > span, np.nextafter(edge, x), edge)


def _whole(schema: Schema | None) -> NDArray[np.bool_] | None:
    if schema is None or all(feature.kind is FeatureKind.NUMERIC for feature in schema.features):
        return None
    kinds = [feature.kind is not FeatureKind.NUMERIC for feature in schema.features]
    return np.array(kinds if len(kinds) > 1 or len(schema.shape) == 1 else kinds[0])


def _towards(x: Array, step: NDArray[np.float64], target: NDArray[np.float64] | None = None) -> Array:
    """`x + step` (or `target`, which is that without a second rounding) in x's dtype, never beyond what was asked."""
    aim = x + step if target is None else target
    with np.errstate(over="ignore", invalid="ignore"):
        out = aim.astype(x.dtype)
        beyond = np.abs(out.astype(np.float64) - x) > np.abs(step)
        past = (out.astype(np.float64) - aim) * np.sign(step) > 0
    return np.where(beyond | past, np.nextafter(out, x), out).astype(x.dtype)
