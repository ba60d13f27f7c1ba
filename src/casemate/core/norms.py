"""Norms, balls and boxes: distances, exact projections, and the nearest point across a hyperplane.

Everything is measured in float64 on `(n, d)` (trailing dimensions flattened), with differences divided by `scale`, the
unit of each feature: z = (x' - x) / scale. A feature of scale 0 is immutable: any change of it is at distance inf.

Three facts carry the module. The box [lo, hi] contains x, so in z it is a box around 0. Hence the projection onto
ball and box together keeps the sign of each coordinate and follows one parameter (optimality conditions of the convex
programme), along which the norm is monotone; and it is piecewise linear or quadratic between the points where a
coordinate meets its bound, so sorting those points solves it exactly, with no iteration and no tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from casemate.errors import UsageError

__all__ = ["Ball", "Norm", "Switch", "clip", "distance", "halfspace_distance", "inside", "project"]

Floats = NDArray[np.float64]
F = TypeVar("F", bound=np.floating)

# A projection aims this much inside the ball, so that rounding in its own sums cannot put it outside.
_MARGIN = 1e-12
# A witness aims this much past the hyperplane, relative to the terms that are summed.
_NUDGE = 1e-12


class Norm(StrEnum):
    """How the size of a change is measured: largest, Euclidean, sum of sizes, number of changed features."""

    LINF = "linf"
    L2 = "l2"
    L1 = "l1"
    L0 = "l0"


@dataclass(frozen=True, slots=True)
class Switch:
    """Columns that name one category together (a column of indices, or a one-hot block) and the price of another one.

    A change of any of them counts as one coordinate of size `cost`, in units of eps: linf takes the largest size, l1
    their sum, l2 the root of the sum of squares, and l0 counts one.
    """

    columns: tuple[int, ...]
    cost: float


@dataclass(frozen=True, slots=True, eq=False)
class Ball:
    """All x' with lo <= x' <= hi and norm((x' - x) / scale) <= eps.

    `lo`, `hi`, `scale` are numbers or arrays that broadcast to one sample; eps is in units of `scale` (for l0: a number
    of features). Raises: UsageError for an unknown norm, eps < 0, lo > hi, scale < 0 or NaN.
    """

    norm: Norm
    eps: float
    lo: ArrayLike
    hi: ArrayLike
    scale: ArrayLike = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", _as_norm(self.norm))
        for name in ("lo", "hi", "scale"):
            value = np.array(getattr(self, name), dtype=np.float64)
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        if not (np.isfinite(self.eps) and self.eps >= 0):
            raise UsageError(f"expected a finite eps >= 0, got {self.eps}: set eps in units of scale")
        if not np.all(np.asarray(self.lo) <= np.asarray(self.hi)):
            raise UsageError(f"expected lo <= hi everywhere, got lo={self.lo!r}, hi={self.hi!r}: mend the bounds")
        _check_scale(np.asarray(self.scale))


def distance(
    norm: Norm, x: ArrayLike, x_adv: ArrayLike, scale: ArrayLike = 1.0, switches: Sequence[Switch] = ()
) -> Floats:
    """Measure norm((x_adv - x) / scale) per sample, `(n,)` float64; the columns of `switches` at their own price.

    A missing value (NaN) that stays missing is no change; one that appears or vanishes is at distance inf, and so is
    any change of a feature whose scale is 0. Raises: UsageError when the shapes differ or a scale is negative.
    """
    before, after = _paired(x, x_adv)
    units = _check_scale(_flat_bounds(scale, np.shape(x)[1:]))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        size = np.abs(after - before) / units
        same = (before == after) | (np.isnan(before) & np.isnan(after))
    size = np.where(same, 0.0, np.where(np.isnan(size), np.inf, size))
    for switch in switches:
        columns = list(switch.columns)
        gap = np.isnan(before[:, columns]) != np.isnan(after[:, columns])
        price = np.where(gap.any(axis=1), np.inf, np.where(same[:, columns].all(axis=1), 0.0, switch.cost))
        size[:, columns] = 0.0
        size[:, columns[0]] = price
    return _norm_of(_as_norm(norm), size)


def inside(ball: Ball, x: ArrayLike, x_adv: ArrayLike) -> NDArray[np.bool_]:
    """Whether x_adv lies in ball and box, `(n,)`, up to one rounding of its own dtype.

    Tolerance: each coordinate may be off by one unit in the last place of x_adv's dtype (float64 for whole numbers,
    float32 at the coarsest), the distance by the norm of those units, and eps by 1e-9 of itself. The number of changed
    features (l0) and immutable features have none. Errs towards accepting, by that much. Raises: UsageError when the
    shapes differ.
    """
    before, after = _paired(x, x_adv)
    shape = np.shape(x)[1:]
    ulp = _ulp(np.asarray(x_adv).dtype, np.fmax(np.abs(before), np.abs(after)))
    lo, hi, units = (_flat_bounds(value, shape) for value in (ball.lo, ball.hi, ball.scale))
    with np.errstate(invalid="ignore", divide="ignore"):
        slack = (
            np.zeros(len(before))
            if ball.norm is Norm.L0
            else _norm_of(ball.norm, np.where(units > 0, ulp / units, 0.0))
        )
        missing = np.isnan(before) & np.isnan(after)
        boxed = np.all(missing | ((after >= lo - ulp) & (after <= hi + ulp)), axis=1)
    return np.asarray(boxed & (distance(ball.norm, x, x_adv, ball.scale) <= ball.eps * (1 + 1e-9) + slack))


def clip(ball: Ball, x_adv: NDArray[F]) -> NDArray[F]:
    """Bring x_adv into [lo, hi], rounding inward; keeps shape and dtype."""
    lo, hi = _inward_bounds(ball, x_adv.dtype, x_adv.shape[1:])
    clipped: NDArray[F] = np.clip(x_adv.reshape(len(x_adv), -1), lo, hi)
    return clipped.reshape(x_adv.shape)


def project(ball: Ball, x: ArrayLike, x_adv: NDArray[F]) -> NDArray[F]:
    """Move x_adv to the point of ball and box that is nearest in ||. / scale||_2, for every norm; `(n, ...)`.

    Keeps x_adv's shape and dtype and rounds towards x, so that `distance` in float64 is <= eps and the bounds hold,
    with no tolerance. A row already inside is returned as it is. Missing or infinite values and immutable features
    keep x.
    Raises: UsageError when the shapes differ, x_adv is not floating, x lies outside the box or is finer than x_adv's
    dtype. Source: optimality conditions (see the module); l1 without a box is Duchi et al., "Efficient projections onto
    the l1-ball", ICML 2008.
    """
    before, after = _paired(x, x_adv)
    own = _check_representable(before, x_adv.dtype)
    lo, hi, units = (_flat_bounds(value, x_adv.shape[1:]) for value in (ball.lo, ball.hi, ball.scale))
    _check_in_box(before, lo, hi, _ulp(x_adv.dtype, np.abs(before)))
    free = (units > 0) & np.isfinite(before) & np.isfinite(after)
    with np.errstate(invalid="ignore"):
        z = np.where(free, after - before, 0.0) / np.where(units > 0, units, 1.0)
        cap = np.where(free, np.maximum(np.where(z > 0, hi - before, before - lo), 0.0), 0.0)
    cap = cap / np.where(units > 0, units, 1.0)
    step = np.copysign(_shrink(ball.norm, np.abs(z), cap, ball.eps), z) * units
    low, high = _inward_bounds(ball, x_adv.dtype, x_adv.shape[1:])
    # x may sit on a bound that its dtype cannot hold exactly; x itself is always allowed.
    moved = np.clip(_round_towards(own, step), np.fmin(low, own), np.fmax(high, own))
    flat = x_adv.reshape(own.shape)
    done = (distance(ball.norm, x, x_adv, ball.scale) <= ball.eps) & np.all(
        np.isnan(flat) | ((flat >= low) & (flat <= high)), axis=1
    )
    return np.where(done[:, None], flat, moved).reshape(x_adv.shape)


def halfspace_distance(
    norm: Norm, x: ArrayLike, a: ArrayLike, c: ArrayLike, *, lo: ArrayLike, hi: ArrayLike, scale: ArrayLike = 1.0
) -> tuple[Floats, Floats]:
    """Find the least norm((x' - x) / scale) over lo <= x' <= hi with a . x' >= c: `(n,)`, and a witness `(n, d)`.

    `x` is `(n, d)`, `a` `(d,)` or `(n, d)`, `c` a number or `(n,)`. The distance is exact up to float64 rounding and
    favours neither bound: 0 where x is already across, inf where no point of the box is (the witness is then x). A
    witness lies in the box and aims past the plane by 1e-12 of the summed terms, where the box has that room; its own
    distance exceeds the returned one by no more than that takes. Method: coordinates move towards the sign of `a` up to
    their bound, for linf and l2 along one parameter solved by sorting, for l1 and l0 in order of gain. Raises:
    UsageError for shapes that do not fit, x or a that is not finite, x outside the box.
    """
    norm = _as_norm(norm)
    start, slope, target = _check_halfspace(x, a, c)
    low, high, units = (
        _flat_bounds(value, start.shape[1:]) for value in (lo, hi, _check_scale(np.asarray(scale, float)))
    )
    _check_in_box(start, low, high, _ulp(np.dtype(np.float32), np.abs(start)))
    gain = np.abs(slope) * units
    with np.errstate(invalid="ignore"):
        cap = np.maximum(np.where(slope > 0, high - start, start - low), 0.0) / np.where(units > 0, units, 1.0)
    cap = np.where(gain > 0, cap, 0.0)
    terms = slope * start
    need = target - terms.sum(axis=1)
    move = _reach(norm, gain, cap, need)
    found = _norm_of(norm, move)
    # Only what the distance allows: past a full set of l0 features the next one would cost a whole unit.
    usable = np.where(move > 0, cap, 0.0) if norm is Norm.L0 else cap
    room = (gain * usable).sum(axis=1)
    nudge = _NUDGE * (np.abs(target) + np.abs(terms).sum(axis=1) + (gain * move).sum(axis=1))
    witness = start + np.sign(slope) * units * _reach(
        norm, gain, usable, np.where(need > 0, np.minimum(need + nudge, room), 0.0)
    )
    witness = np.clip(witness, np.minimum(low, start), np.maximum(high, start))
    feasible = (need <= 0) | ((gain * cap).sum(axis=1) >= need)
    return np.where(feasible, found, np.inf), np.where(feasible[:, None], witness, start)


def _norm_of(norm: Norm, size: Floats) -> Floats:
    """Reduce sizes >= 0, `(n, d)`, to `(n,)`; inf anywhere gives inf, for l0 too."""
    if norm is Norm.LINF:
        return np.asarray(size.max(axis=1, initial=0.0))
    if norm is Norm.L2:
        return np.asarray(np.sqrt(np.einsum("nd,nd->n", size, size)))
    if norm is Norm.L1:
        return np.asarray(size.sum(axis=1))
    return np.where(np.isinf(size).any(axis=1), np.inf, np.count_nonzero(size, axis=1))


def _shrink(norm: Norm, z: Floats, cap: Floats, eps: float) -> Floats:
    """Nearest point to z >= 0 within [0, cap] and norm <= eps, `(n, d)`."""
    bounded = np.minimum(z, cap)
    aim = eps * (1 - _MARGIN)
    if norm is Norm.LINF:
        return np.asarray(np.minimum(bounded, aim))
    if norm is Norm.L0:
        return _keep_best(z, bounded, int(eps * (1 + 1e-9)))
    out = bounded.copy()
    rows = np.flatnonzero(_norm_of(norm, bounded) > aim)
    if rows.size:
        solve = _shrink_l2 if norm is Norm.L2 else _shrink_l1
        part = solve(z[rows], bounded[rows], aim)
        out[rows] = part * np.minimum(1.0, aim / np.maximum(_norm_of(norm, part), np.finfo(float).tiny))[:, None]
    return out


def _shrink_l2(z: Floats, bounded: Floats, eps: float) -> Floats:
    """min(t z, cap) with the t <= 1 that gives norm eps: the squared norm is quadratic in t between breakpoints."""
    ratio = np.divide(bounded, z, out=np.zeros_like(z), where=z > 0)
    order = np.argsort(ratio, axis=1)
    ratio, z_sorted, full = (np.take_along_axis(value, order, axis=1) for value in (ratio, z, bounded))
    below = _prefix(full**2)
    above = np.cumsum((z_sorted**2)[:, ::-1], axis=1)[:, ::-1]
    k = _first(below + ratio**2 * above >= eps**2)
    rest = np.take_along_axis(above, k, axis=1)
    left = np.maximum(eps**2 - np.take_along_axis(below, k, axis=1), 0.0)
    t = np.sqrt(np.divide(left, rest, out=np.zeros_like(left), where=rest > 0))
    return np.asarray(np.minimum(t * z, bounded))


def _shrink_l1(z: Floats, bounded: Floats, eps: float) -> Floats:
    """clip(z - t, 0, cap) with the t that gives sum eps: the sum is piecewise linear in t."""
    points = np.concatenate([z - bounded, z], axis=1)
    turns = np.concatenate([np.full_like(z, -1.0), np.full_like(z, 1.0)], axis=1)
    order = np.argsort(points, axis=1, kind="stable")
    points = np.take_along_axis(points, order, axis=1)
    slope = np.cumsum(np.take_along_axis(turns, order, axis=1), axis=1)
    total = bounded.sum(axis=1, keepdims=True) + _prefix(np.diff(points, axis=1, append=points[:, -1:]) * slope)
    k = np.maximum(_first(total <= eps) - 1, 0)
    fall = np.maximum(-np.take_along_axis(slope, k, axis=1), 1.0)
    t = np.take_along_axis(points, k, axis=1) + (np.take_along_axis(total, k, axis=1) - eps) / fall
    return np.asarray(np.clip(z - t, 0.0, bounded))


def _keep_best(z: Floats, bounded: Floats, count: int) -> Floats:
    """Keep the `count` coordinates whose move lowers the squared distance most; the others stay at 0."""
    worth = bounded * (2 * z - bounded)
    order = np.argsort(-worth, axis=1, kind="stable")[:, :count]
    out = np.zeros_like(bounded)
    np.put_along_axis(out, order, np.take_along_axis(bounded, order, axis=1), axis=1)
    return out


def _reach(norm: Norm, gain: Floats, cap: Floats, need: Floats) -> Floats:
    """Least move in [0, cap], `(n, d)`, with sum(gain * move) >= need; everything it can where that is out of reach."""
    goal = np.maximum(need, 0.0)[:, None]
    if norm in (Norm.L1, Norm.L0):
        return _reach_greedily(gain, cap, goal, key=gain if norm is Norm.L1 else gain * cap)
    pace = (gain > 0).astype(np.float64) if norm is Norm.LINF else gain
    stop = np.divide(cap, pace, out=np.zeros_like(cap), where=pace > 0)
    order = np.argsort(stop, axis=1)
    stop, weight, full, speed = (np.take_along_axis(value, order, axis=1) for value in (stop, gain, cap, pace))
    below = _prefix(weight * full)
    above = np.cumsum((weight * speed)[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore"):
        reached = below + np.where(above > 0, stop * above, 0.0)
    k = _first(reached >= goal)
    rest = np.take_along_axis(above, k, axis=1)
    left = np.maximum(goal - np.take_along_axis(below, k, axis=1), 0.0)
    t = np.divide(left, rest, out=np.zeros_like(left), where=rest > 0)
    return np.asarray(np.minimum(np.minimum(t, np.take_along_axis(stop, k, axis=1)) * pace, cap))


def _reach_greedily(gain: Floats, cap: Floats, goal: Floats, *, key: Floats) -> Floats:
    order = np.argsort(-key, axis=1, kind="stable")
    weight, worth = (np.take_along_axis(value, order, axis=1) for value in (gain, gain * cap))
    taken = np.clip(goal - _prefix(worth), 0.0, worth)
    move = np.divide(taken, weight, out=np.zeros_like(taken), where=weight > 0)
    out = np.empty_like(move)
    np.put_along_axis(out, order, move, axis=1)
    return np.asarray(np.minimum(out, cap))


def _prefix(values: Floats) -> Floats:
    """Sum of the entries before each one, along axis 1."""
    total = np.zeros_like(values)
    np.cumsum(values[:, :-1], axis=1, out=total[:, 1:])
    return total


def _first(hit: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Index of the first True per row as `(n, 1)`; the last index where rounding leaves none."""
    index = np.argmax(hit, axis=1)
    return np.asarray(np.where(hit.any(axis=1), index, hit.shape[1] - 1)[:, None])


def _round_towards(x: NDArray[F], step: Floats) -> NDArray[F]:
    """Add a step and round to x's dtype such that the step never grows."""
    out = (x + step).astype(x.dtype)
    grown = np.abs(out.astype(np.float64) - x) > np.abs(step)
    return np.where(grown, np.nextafter(out, x), out)


def _ulp(dtype: np.dtype[np.generic], size: Floats) -> Floats:
    """Spacing of floats at this size: of the dtype, but float64 for whole numbers and float32 for anything coarser."""
    kind = np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.nan_to_num(np.spacing(size.astype(kind)).astype(np.float64), nan=0.0, posinf=0.0))


def _inward_bounds(ball: Ball, dtype: np.dtype[F], shape: tuple[int, ...]) -> tuple[NDArray[F], NDArray[F]]:
    lo, hi = _flat_bounds(ball.lo, shape), _flat_bounds(ball.hi, shape)
    with np.errstate(over="ignore"):
        low, high = lo.astype(dtype), hi.astype(dtype)
    inf = dtype.type(np.inf)
    return np.where(low < lo, np.nextafter(low, inf), low), np.where(high > hi, np.nextafter(high, -inf), high)


def _flat_bounds(value: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """One sample's bounds or scales as `(1, d)`, or `(1, 1)` for a number."""
    array = np.asarray(value, dtype=np.float64)
    if array.size == 1:
        return array.reshape(1, 1)
    try:
        return np.broadcast_to(array, shape).reshape(1, -1)
    except ValueError as error:
        raise UsageError(
            f"expected lo, hi and scale to fit one sample {shape}, got {array.shape}: give one value per feature"
        ) from error


def _paired(x: ArrayLike, x_adv: ArrayLike) -> tuple[Floats, Floats]:
    before, after = np.asarray(x), np.asarray(x_adv)
    if before.ndim == 0 or before.shape != after.shape:
        raise UsageError(
            f"expected x and x_adv of one shape (n, ...), got {before.shape} and {after.shape}: reshape one"
        )
    flat = (len(before), int(np.prod(before.shape[1:])))
    return before.astype(np.float64).reshape(flat), after.astype(np.float64).reshape(flat)


def _as_norm(norm: str) -> Norm:
    try:
        return Norm(norm)
    except ValueError as error:
        raise UsageError(
            f"expected a norm of {[str(known) for known in Norm]}, got {norm!r}: choose one of them"
        ) from error


def _check_scale(scale: Floats) -> Floats:
    if not np.all((scale >= 0) & np.isfinite(scale)):
        raise UsageError(f"expected finite scale >= 0, got {np.min(scale)}: use 0 for immutable features")
    return scale


def _check_in_box(x: Floats, lo: Floats, hi: Floats, slack: Floats) -> None:
    if np.any((x < lo - slack) | (x > hi + slack)):
        raise UsageError(
            f"expected x in [lo, hi], got values from {np.nanmin(x)} to {np.nanmax(x)}: mend the bounds or rescale x"
        )


def _check_representable(x: Floats, dtype: np.dtype[F]) -> NDArray[F]:
    if dtype.kind != "f":
        raise UsageError(f"expected x_adv as floats, got {dtype}: convert x_adv with astype(float)")
    with np.errstate(over="ignore"):
        own = x.astype(dtype)
    if np.any((own != x) & ~np.isnan(x)):
        raise UsageError(f"expected x exact in x_adv's dtype {dtype}, got finer values: pass both in one dtype")
    return own


def _check_halfspace(x: ArrayLike, a: ArrayLike, c: ArrayLike) -> tuple[Floats, Floats, Floats]:
    start, slope, target = (np.asarray(value, dtype=np.float64) for value in (x, a, c))
    fits = start.ndim == 2 and slope.shape in (start.shape, start.shape[1:]) and target.shape in ((), start.shape[:1])
    if not fits:
        raise UsageError(
            f"expected x (n, d), a (d,) or (n, d), c (n,), got {start.shape}, {slope.shape}, {target.shape}: reshape"
        )
    if not (np.isfinite(start).all() and np.isfinite(slope).all() and not np.isnan(target).any()):
        raise UsageError("expected finite x and a, and c not NaN, got others: impute missing values first")
    return start, np.broadcast_to(slope, start.shape), np.broadcast_to(target, start.shape[:1])
