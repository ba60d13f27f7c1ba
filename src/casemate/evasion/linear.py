"""Linear models: the exact distance to the nearest wrong answer in a box, as certificate and as attack."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm, distance, halfspace_distance
from casemate.core.plugin import attack, certificate
from casemate.engine.harness import wrong
from casemate.engine.reach import Reach, reach_of
from casemate.errors import ModelError
from casemate.evasion import THREAT

__all__ = ["linear_attack", "linear_certificate"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

_NORMS = frozenset({Norm.LINF, Norm.L2, Norm.L1})
_KINDS = frozenset({DataKind.IMAGE, DataKind.TABLE})
_SOURCE = "closed form: distance of a point to a half-space within a box (optimality conditions in core.norms)"
_UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
# How far past the boundary the witness is put, in parts of the worst rounding, which is rarely met: so begin small.
_PUSHES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 2.0)
# Unbounded features are certified up to here (in units of their scale): beyond, rounding has no bound.
_FARTHEST = 1e6


@certificate(threat=THREAT, source=_SOURCE, needs={Facet.AFFINE}, kinds=_KINDS, cost=Cost.CHEAP, norms=_NORMS)
def linear_certificate(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """The distance below which no change inside the bounds alters a linear model's answer.

    radius = min over classes j != y of min ||(x' - x) / scale|| with lo <= x' <= hi and f_j(x') + slack >= f_y(x'). The
    slack is a bound on what rounding can do to the model's own logits in its dtype (see `_Affine.rounding`) and to this
    computation, so that the radius holds for the model as it runs, not only for the formula. Errs too low, by that
    much. Whole-number features are treated as continuous, which only lowers the radius. The attacker may know
    everything.

    Raises `ModelError` for weights that do not fit the samples.
    """
    del lab
    affine = _affine_of(case.the_model(), batch)
    reach = reach_of(goal.norm, float("inf"), batch.x, case.schema)
    known = np.flatnonzero(np.isfinite(affine.x).all(axis=1))
    radius = np.full(len(known), np.inf)
    part = affine.take(known)
    box = _Box(reach.take(known))
    for j in range(part.classes):
        rows = _against(part, j, goal)
        near, _ = _crossing(part.take(rows), box.take(rows), j)
        slack = part.take(rows).rounding(box.take(rows), j, np.minimum(near, _FARTHEST))
        far, _ = _crossing(part.take(rows), box.take(rows), j, -slack)
        # Where the box itself is unbounded the slack was computed for moves of up to _FARTHEST only.
        far = np.where(box.take(rows).bounded, far, np.minimum(far, _FARTHEST))
        radius[rows] = np.minimum(radius[rows], far)
    d = part.x.shape[1]
    yield Claim(known, radius=np.maximum(radius * (1 - 8 * (d + 16) * _UNIT["float64"]), 0.0))


@attack(threat=THREAT, source=_SOURCE, needs={Facet.AFFINE}, kinds=_KINDS, cost=Cost.CHEAP, norms=_NORMS)
def linear_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """The nearest wrongly answered point of a linear model, exact up to rounding.

    Moves to the closest of the half-spaces f_j >= f_y (or the target's) inside the bounds and a little across, asks the
    model, and goes further (up to twice the worst rounding of its logits) until it answers wrongly: at most about 1e-6
    above the optimum in float64 and 1e-4 in float32. Whole-number features are left alone where a fraction would be
    needed, so with those it is an upper bound only. Towards a target of three classes or more a third class may be
    ahead there, and nothing is claimed. Works for eps = inf. The attacker knows the weights.

    Raises `ModelError` for weights that do not fit, `BudgetExhausted` when the budget ends.
    """
    del lab
    model = case.the_model()
    affine = _affine_of(model, batch)
    reach = reach_of(goal.norm, float("inf"), batch.x, case.schema)
    box = _Box(reach)
    rows = np.flatnonzero(np.isfinite(affine.x).all(axis=1))
    aim, nearest = _nearest_class(affine.take(rows), box.take(rows), goal)
    reachable = np.isfinite(nearest) & (nearest <= goal.eps * (1 + _SPARE))
    rows, aim = rows[reachable], aim[reachable]
    for push in _PUSHES:
        if not len(rows):
            return
        points = _pushed(affine.take(rows), box.take(rows), aim, push)
        points = reach.take(rows).settle(points.reshape(len(rows), *batch.x.shape[1:]))
        far = distance(goal.norm, batch.x[rows], points, reach.scale)
        hit = wrong(model, points, batch.y[rows], target=goal.target)
        good = hit & (far <= goal.eps * (1 + _SPARE))
        if good.any():
            yield Claim(rows[good], x=points[good])
        rows, aim = rows[~hit], aim[~hit]


_SPARE = 1e-9


@dataclass(frozen=True, slots=True)
class _Affine:
    """Logits `x @ weights.T + bias` of samples `x (n, d)` with true classes `y`; `unit` is the model's roundoff."""

    weights: Floats
    bias: Floats
    x: Floats
    y: Array
    unit: float

    @property
    def classes(self) -> int:
        return len(self.weights)

    def take(self, rows: Array) -> _Affine:
        return _Affine(self.weights, self.bias, self.x[rows], self.y[rows], self.unit)

    def halfspace(self, j: Array | int) -> tuple[Floats, Floats]:
        """`a (n, d), c (n,)` with a . x' >= c where class j is at least as likely as the true one."""
        return self.weights[j] - self.weights[self.y], self.bias[self.y] - self.bias[j]

    def rounding(self, box: _Box, j: Array | int, far: Floats) -> Floats:
        """A bound `(n,)` on the error of f_j - f_y anywhere within `far (n,)` of x, this computation's own included.

        A dot product of d terms, each rounded at most 8 times more (the input's conversion, a scaler in front that the
        weights contain), plus a bias, in any order of summation: error <= gamma_(d + 9) (|w| . m + |b|), gamma_k = k u
        / (1 - k u), where m bounds the size of a feature and of what was subtracted from it (Higham, Accuracy and
        Stability, section 3.1). Twice that, for a subtraction inside the scaler; and the same in float64 with four
        times the terms for us.
        """
        d = self.x.shape[1]
        size = np.abs(self.weights[j]) + np.abs(self.weights[self.y])
        total = (size * box.largest(far)).sum(axis=1) + np.abs(self.bias[j]) + np.abs(self.bias[self.y])
        return np.asarray(total * (2 * _gamma(d + 9, self.unit) + _gamma(4 * d + 64, _UNIT["float64"])))


@dataclass(frozen=True, slots=True)
class _Box:
    """The bounds of each sample, flat; the fixed features of a sample have equal ones."""

    reach: Reach

    def take(self, rows: Array) -> _Box:
        return _Box(self.reach.take(rows))

    @property
    def bounded(self) -> NDArray[np.bool_]:
        """Which samples have only bounded features, `(n,)`."""
        low, high = _flat(self.reach.low), _flat(self.reach.high)
        return np.asarray((np.isfinite(low) & np.isfinite(high)).all(axis=1))

    def scale(self) -> Floats:
        return np.broadcast_to(self.reach.scale, self.reach.x.shape[1:]).reshape(-1)

    def largest(self, far: Floats) -> Floats:
        """The largest size each feature can have within `far (n,)` of x, `(n, d)`."""
        x, low, high = _flat(self.reach.x), _flat(self.reach.low), _flat(self.reach.high)
        edge = np.maximum(np.abs(low), np.abs(high))
        return np.where(np.isfinite(edge), edge, np.abs(x) + far[:, None] * self.scale())


def _affine_of(model: Model, batch: Batch) -> _Affine:
    affine = model.affine
    assert affine is not None  # the planner checks `needs`
    x = _flat(batch.x)
    weights, bias = np.asarray(affine.weights, dtype=np.float64), np.asarray(affine.bias, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] != x.shape[1] or bias.shape != (len(weights),) or len(weights) < 2:
        raise ModelError(
            f"expected affine weights (k >= 2, {x.shape[1]}) and a bias (k,), got {weights.shape} and {bias.shape}: "
            "give one row for each class"
        )
    return _Affine(weights, bias, x, np.asarray(batch.y, dtype=np.int64), _unit_of(model, batch.x.dtype))


def _unit_of(model: Model, dtype: np.dtype[Any]) -> float:
    """The unit roundoff of the model's arithmetic: that of its parameters, or of coarser samples."""
    names = [dtype.name]
    if model.module is not None:
        names += [str(parameter.dtype).rpartition(".")[2] for parameter in model.module.parameters()]
    return max(_UNIT.get(name, _UNIT["float64"]) for name in names)


def _gamma(terms: int, unit: float) -> float:
    spent = terms * unit
    return spent / (1 - spent) if spent < 1 else float("inf")


def _against(affine: _Affine, j: int, goal: Goal) -> Array:
    """The rows for which class j would be a success."""
    if goal.target is not None and j != goal.target:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(affine.y != j)


def _crossing(affine: _Affine, box: _Box, j: Array | int, push: Floats | float = 0.0) -> tuple[Floats, Floats]:
    """Distance and witness to where f_j - f_y reaches `push (n,)`."""
    if not len(affine.x):
        return np.empty(0), np.empty((0, affine.x.shape[1]))
    a, c = affine.halfspace(j)
    # One box for all rows: it is wider than a sample's own only where a sample lies outside the declared bounds, which
    # keeps the radius sound, and the attack settles in the sample's own.
    lo, hi = _flat(box.reach.low).min(axis=0), _flat(box.reach.high).max(axis=0)
    return halfspace_distance(box.reach.norm, affine.x, a, c + push, lo=lo, hi=hi, scale=box.scale())


def _nearest_class(affine: _Affine, box: _Box, goal: Goal) -> tuple[Array, Floats]:
    """The class whose half-space is nearest, `(n,)`, and how far it is."""
    aim, nearest = np.zeros(len(affine.x), dtype=np.int64), np.full(len(affine.x), np.inf)
    for j in range(affine.classes):
        rows = _against(affine, j, goal)
        far, _ = _crossing(affine.take(rows), box.take(rows), j)
        closer = far < nearest[rows]
        aim[rows[closer]], nearest[rows[closer]] = j, far[closer]
    return aim, nearest


def _pushed(affine: _Affine, box: _Box, aim: Array, push: float) -> Floats:
    """The nearest points where class `aim (n,)` is ahead by `push` times the worst rounding, `(n, d)`."""
    still = box if box.reach.whole is None else _Box(_without_whole(box.reach))
    near, _ = _crossing(affine, still, aim)
    slack = affine.rounding(still, aim, np.minimum(near, _FARTHEST))
    return _crossing(affine, still, aim, push * slack)[1]


def _without_whole(reach: Reach) -> Reach:
    """The same reach with whole-number features fixed."""
    assert reach.whole is not None
    low, high = (np.where(reach.whole, reach.x, bound) for bound in (reach.low, reach.high))
    return replace(reach, low=low, high=high, scale=np.where(reach.whole, 0.0, reach.scale), whole=None)


def _flat(array: Array) -> Floats:
    return np.asarray(array, dtype=np.float64).reshape(len(array), math.prod(array.shape[1:]))
