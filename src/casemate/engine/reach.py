"""Where an attacker can go: the ball around each sample, the bounds and the fixed features, as arrays to search in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.facets import DataKind
from casemate.core.norms import Norm, Switch, distance
from casemate.core.schema import FeatureKind, Schema

__all__ = ["Reach", "reach_between", "reach_of"]

Array = NDArray[Any]
# Aimed at inside the ball, relative to eps: more than the rounding of a float64 sum of a million squares.
_MARGIN = 1e-9


@dataclass(frozen=True, slots=True)
class Reach:
    """All points that `eps` allows around samples `x (n, ...)`, in their dtype.

    `low`, `high (n, ...)` enclose the schema's bounds and what one feature may move; both are rounded towards x, so
    that a point between them is inside in float64 too (for linf that is the whole ball). They meet at x where a feature
    is fixed or missing. A sample outside the declared bounds keeps its own value as a bound. `scale` broadcasts to one
    sample; `whole` masks features that take whole numbers only, or is None. `relations` are pairs of columns, the first
    of which never exceeds the second. `switches` are the categories that can be changed at a price, `options` how many
    there are of each.
    """

    norm: Norm
    eps: float
    x: Array
    low: Array
    high: Array
    scale: NDArray[np.float64]
    whole: NDArray[np.bool_] | None
    relations: tuple[tuple[int, int], ...] = ()
    switches: tuple[Switch, ...] = ()
    options: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Array) -> Reach:
        """The reach of some of the samples."""
        return replace(self, x=self.x[rows], low=self.low[rows], high=self.high[rows])

    def settle(self, points: Array) -> Array:
        """Points `(n, ...)` of x's dtype that are certainly inside, as near to the given ones as simple rules bring.

        Whole-number features are rounded towards x; points outside an l2 or l1 ball are drawn back towards x, with
        every coordinate rounded towards x, so that the distance in float64 is at most eps. Categories become the
        nearest option, and those that eps cannot pay for x's own. Where a relation is broken both columns meet between
        their values, which only brings them nearer to x; a relation that x itself breaks is broken no further.
        """
        points = np.asarray(points, dtype=self.x.dtype)
        inside = self.snap(np.clip(points, self.low, self.high))
        inside = np.where(np.isnan(self.x) | np.isnan(inside), self.x, inside)
        spent = np.zeros(len(inside))
        for switch, count in zip(self.switches, self.options, strict=True):
            spent = self._switched(inside, points, switch, count=count, spent=spent)
        self._draw_back(inside, spent)
        if self.relations:
            self._relate(inside)
        return np.asarray(inside)

    def choose(self, points: Array, number: int, option: Array) -> None:
        """Write option `(n,)` of switch `number` into the points, in place; -1 writes x's own."""
        columns = np.array(self.switches[number].columns)
        other = np.flatnonzero(option >= 0)
        points[:, columns] = self.x[:, columns]
        _write(points, other, columns, option[other])

    def _switched(self, inside: Array, points: Array, switch: Switch, *, count: int, spent: Array) -> Array:
        """Write the category that the points ask for, if it is another one and eps pays it; returns what is spent."""
        columns = np.array(switch.columns)
        own, asked = self.x[:, columns].astype(np.float64), points[:, columns].astype(np.float64)
        if len(columns) == 1:
            usual, option = own[:, 0], np.clip(np.nan_to_num(np.rint(asked[:, 0]), nan=-1.0), -1, count)
            able = np.isfinite(usual) & (option >= 0) & (option < count)
        else:
            usual, option = own.argmax(axis=1), np.nan_to_num(asked, nan=-np.inf).argmax(axis=1)
            able = (np.sort(own, axis=1) == np.eye(len(columns))[-1]).all(axis=1)
        total = _joined(self.norm, spent, switch.cost)
        change = able & (option != usual) & (total <= self.eps)
        _write(inside, np.flatnonzero(change), columns, option[change])
        return np.where(change, total, spent)

    def _draw_back(self, inside: Array, spent: Array) -> None:
        """Bring the numbers of points outside an l2 or l1 ball back, in place, to what the switches left of eps."""
        if self.norm is Norm.LINF or not np.isfinite(self.eps):
            return
        columns = np.array([column for switch in self.switches for column in switch.columns], dtype=np.int64)
        numbers = inside
        if len(columns):
            numbers = inside.copy()
            numbers[:, columns] = self.x[:, columns]
        far = distance(self.norm, self.x, numbers, self.scale)
        left = np.where(spent > 0, _left(self.norm, self.eps, spent), self.eps)
        rows = np.flatnonzero(far > left)
        if not len(rows):
            return
        step = numbers[rows].astype(np.float64) - self.x[rows]
        step *= (left[rows] * (1 - _MARGIN) / far[rows]).reshape(-1, *(1,) * (step.ndim - 1))
        drawn = self.snap(_towards(self.x[rows], step), rows)
        if len(columns):
            drawn[:, columns] = inside[np.ix_(rows, columns)]
        inside[rows] = drawn

    def _relate(self, points: Array) -> None:
        """Mend the relations in place by moves towards x only; what a chain of them leaves broken goes back to x."""
        for _ in range(2 + 2 * len(self.relations)):
            if not any(self._meet(points, left, right) for left, right in self.relations):
                return
        columns = np.unique(self.relations)
        rows = np.flatnonzero(np.any([self._broken(points, *relation) for relation in self.relations], axis=0))
        points[np.ix_(rows, columns)] = self.x[np.ix_(rows, columns)]

    def _broken(self, points: Array, left: int, right: int) -> NDArray[np.bool_]:
        with np.errstate(invalid="ignore"):
            gap, own = (a[:, left].astype(np.float64) - a[:, right].astype(np.float64) for a in (points, self.x))
            return np.asarray(gap > np.fmax(own, 0.0))

    def _meet(self, points: Array, left: int, right: int) -> bool:
        """Let two columns meet where the first exceeds the second; whether there was such a row."""
        rows = np.flatnonzero(self._broken(points, left, right))
        if not len(rows):
            return False
        (a, b), (own_a, own_b) = ((array[rows, left], array[rows, right]) for array in (points, self.x))
        low, high = np.maximum(b, np.minimum(a, own_a)), np.minimum(a, np.maximum(b, own_b))
        weight_a, weight_b = (np.broadcast_to(self.scale, self.x.shape[1:])[i] ** 2 for i in (left, right))
        middle = (a.astype(np.float64) * weight_b + b.astype(np.float64) * weight_a) / (weight_a + weight_b)
        middle = np.clip(np.clip(middle, low, high).astype(points.dtype), low, high)
        whole = np.zeros(points.shape[1], dtype=bool) if self.whole is None else self.whole
        points[rows, left] = np.floor(middle) if whole[left] else middle
        points[rows, right] = np.ceil(middle) if whole[right] else middle
        return True

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
        low, high = _rounded(low, x, np.less), _rounded(high, x, np.greater)
    return _with_rules(Reach(norm, float(eps), x, low, high, scale, _whole(schema)), schema)


def reach_between(norm: Norm, x: Array, other: Array, schema: Schema | None) -> Reach:
    """The box that each sample of `x (n, ...)` spans with another point, both of one dtype, under a schema's rules."""
    scale = np.ones((1,) * (x.ndim - 1)) if schema is None else schema.scale
    low, high = np.fmin(x, other), np.fmax(x, other)
    return _with_rules(Reach(norm, float("inf"), x, low, high, scale, _whole(schema)), schema)


def _with_rules(reach: Reach, schema: Schema | None) -> Reach:
    """The reach with a table's relations between numbers and the categories that can be changed."""
    if schema is None or schema.kind is not DataKind.TABLE:
        return reach
    place = {name: index for index, name in enumerate(schema.names)}
    pairs = [(place[relation.left], place[relation.right]) for relation in schema.relations]
    named = [feature.kind is FeatureKind.CATEGORY or bool(feature.block) for feature in schema.features]
    relations = tuple(pair for pair in pairs if not any(named[index] for index in pair))
    counted = [
        (switch, len(switch.columns) if len(switch.columns) > 1 else len(schema.features[switch.columns[0]].categories))
        for switch in schema.switches
    ]
    usable = [(switch, count) for switch, count in counted if count > 1]
    return replace(
        reach,
        relations=relations,
        switches=tuple(switch for switch, _ in usable),
        options=tuple(count for _, count in usable),
    )


def _write(points: Array, rows: Array, columns: Array, option: Array) -> None:
    """Write categories `option (m,)` into some rows: as indices, or as ones of a one-hot block."""
    one_hot = np.eye(len(columns))[option.astype(np.int64)] if len(columns) > 1 else option[:, None]
    points[np.ix_(rows, columns)] = one_hot


def _joined(norm: Norm, spent: Array, cost: float) -> Array:
    """The size of a change that adds a switch to what is spent, `(n,)`."""
    if norm is Norm.LINF:
        return np.maximum(spent, cost)
    if norm is Norm.L2:
        return np.asarray(np.sqrt(spent**2 + cost**2))
    return spent + (1.0 if norm is Norm.L0 else cost)


def _left(norm: Norm, eps: float, spent: Array) -> Array:
    """What the switches leave of eps for numbers, `(n,)`, a little less for rounding."""
    rest = eps**2 - spent**2 if norm is Norm.L2 else eps - spent
    rest = np.maximum(rest, 0.0)
    return (np.sqrt(rest) if norm is Norm.L2 else rest) * (1 - _MARGIN)


def _within(x: NDArray[np.float64], edge: NDArray[np.float64], span: Array) -> NDArray[np.float64]:
    """The edge itself, or its neighbour towards x where the rounding of `x + span` went past the span."""
    return np.asarray(np.nextafter(edge, x, out=edge, where=np.abs(edge - x) > span))


def _whole(schema: Schema | None) -> NDArray[np.bool_] | None:
    if schema is None or all(feature.kind is FeatureKind.NUMERIC for feature in schema.features):
        return None
    kinds = [feature.kind is not FeatureKind.NUMERIC for feature in schema.features]
    return np.array(kinds if len(kinds) > 1 or len(schema.shape) == 1 else kinds[0])


def _rounded(edge: NDArray[np.float64], x: Array, past: np.ufunc) -> Array:
    """The edge in x's dtype; its neighbour towards x where rounding went `past` it."""
    with np.errstate(over="ignore"):
        out = edge.astype(x.dtype)
    return np.asarray(np.nextafter(out, x, out=out, where=past(out, edge)))


def _towards(x: Array, step: NDArray[np.float64]) -> Array:
    """`x + step` in x's dtype, never beyond what was asked."""
    aim = x + step
    with np.errstate(over="ignore", invalid="ignore"):
        out = aim.astype(x.dtype)
        beyond = np.abs(out.astype(np.float64) - x) > np.abs(step)
        past = (out.astype(np.float64) - aim) * np.sign(step) > 0
    return np.asarray(np.nextafter(out, x, out=out, where=beyond | past))
