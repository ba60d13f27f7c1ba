"""Transfer: gradients borrowed from other models, because the model's own may be hidden (Dong et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.core.options import Count, Within
from casemate.core.plugin import attack
from casemate.core.rng import normals, uniforms
from casemate.engine.harness import wrong
from casemate.engine.prepared import Prepared, prepare
from casemate.engine.reach import Reach, reach_of
from casemate.errors import Unavailable, UsageError
from casemate.evasion import THREAT
from casemate.evasion.losses import margin

__all__ = ["TransferOptions", "transfer_attack"]

Array = NDArray[Any]
_PATH = 2.0  # the summed length of the steps, in eps: at 1, as in the paper, whoever turns once never meets the edge


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """`starts` walks of `steps` gradients, the first from the sample itself; each asks the model `checks` times."""

    steps: Count = 20
    starts: Count = 3
    checks: Count = 4
    momentum: Annotated[float, Within(least=0)] = 1.0


@attack(
    threat=THREAT,
    source="Dong et al., Boosting adversarial attacks with momentum, CVPR 2018, Algorithm 1 and section 3.3",
    needs={Facet.SURROGATES, Facet.LABELS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.EXPENSIVE,
    options=TransferOptions,
    profiles={Profile.QUICK: {"steps": 12, "starts": 2, "checks": 3}, Profile.FULL: {"steps": 40, "starts": 6}},
    norms={Norm.LINF, Norm.L2},
    requires=("torch",),
)
def transfer_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """Walk up the gradients of the case's surrogates and see whether the model itself falls for the samples found.

    Looks for x' with ||(x' - x) / scale|| <= eps inside the bounds and a wrong answer (or the goal's target). The
    attacker knows the weights of the surrogates (the model before hardening, say, or a net trained on the model's
    answers, see `evasion/surrogate`, which `lent` puts into the case) and only the labels of the model.
    Errs towards robust, by much where the surrogates are unlike the model. A walk never ends because a surrogate is
    fooled: it goes on to the edge of the ball. The direction is g <- mu g + the gradient over its own mean size, as in
    Algorithm 1. Ours: the loss is the margin of the logits, whose gradient does not vanish where a model is sure; the
    gradients of several surrogates are summed instead of their logits, each by its own size, so that one that hides its
    gradient does not hide that of the others; l2 walks along g / ||g||_2; further walks start at random points; the
    steps sum to 2 eps. Whole-number features are evaluated at whole numbers.

    Raises `UsageError` for eps = inf (this attack needs a ball), `Unavailable` without a surrogate that has a module,
    `BudgetExhausted` when the budget ends.
    """
    if not np.isfinite(goal.eps):
        raise UsageError(
            "expected a finite eps for evasion/transfer, got inf: ask a minimum-norm attack for the distance"
        )
    options: TransferOptions = lab.options
    lenders = [prepare(model, batch.x, lab.meter) for model in case.surrogates if model.module is not None]
    if not lenders:
        raise Unavailable(
            "expected a surrogate with a torch module, got none: put models with gradients into surrogates"
        )
    alive = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    reach = reach_of(goal.norm, goal.eps, batch.x, case.schema)
    fooled = partial(wrong, case.the_model(), target=goal.target)
    for number in range(options.starts if goal.eps > 0 and len(alive) else 0):
        part, y = reach.take(alive), batch.y[alive]
        start = _start(part, batch.sample_id[alive], lab, number=number)
        standing = np.ones(len(alive), dtype=bool)
        walk = _Walk(lenders, goal, options)
        for rows, points in walk.run(part, start, y, fooled):
            standing[rows] = False
            yield Claim(alive[rows], x=points)
        alive = alive[standing]
        if not len(alive):
            return


Fooled = Callable[[Array, Array], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class _Walk:
    """One walk for every sample, along the same number of steps for all."""

    lenders: list[Prepared]
    goal: Goal
    options: TransferOptions

    def run(self, reach: Reach, start: Array, y: Array, fooled: Fooled) -> Iterator[tuple[NDArray[np.int64], Array]]:
        """Rows `(j,)` and points that fool the model itself, at each check; what fooled it walks no further."""
        row, at, drift = np.arange(len(y)), _inside(reach, start), np.zeros(start.shape)
        steps = self.options.steps
        checks = {ceil(steps * (i + 1) / self.options.checks) for i in range(self.options.checks)}
        length = _PATH * self.goal.eps / steps
        for step in range(1, steps + 1):
            drift = self.options.momentum * drift + self._pull(reach.settle(at), y, reach.scale)
            at = _inside(reach, at + length * reach.scale * _unit(self.goal.norm, drift))
            if step in checks:
                points = reach.settle(at)
                hit = fooled(points, y)
                if hit.any():
                    yield row[hit], points[hit]
                    left = ~hit
                    row, at, drift, y, reach = row[left], at[left], drift[left], y[left], reach.take(left)
                    if not len(row):
                        return

    def _pull(self, points: Array, y: Array, scale: Array) -> Array:
        """The gradients of all surrogates in units of the scale, each over its own mean size, `(m, ...)` float64."""
        import torch

        total = np.zeros(points.shape)
        for lender in self.lenders:
            labels = torch.tensor(y, dtype=torch.int64, device=lender.device)
            target = None if self.goal.target is None else torch.full_like(labels, self.goal.target)
            _, _, slope = lender.gradient(lender.tensor(points), partial(margin, y=labels, target=target))
            pull = slope.double().cpu().numpy() * scale
            total += pull / np.maximum(_each(np.abs(pull), "mean"), np.finfo(np.float64).tiny)
        return total


def _unit(norm: Norm, drift: Array) -> Array:
    """The step of length 1 that gains most along `drift (m, ...)`."""
    if norm is Norm.LINF:
        return np.asarray(np.sign(drift))
    return np.asarray(drift / np.maximum(np.sqrt(_each(drift**2, "sum")), np.finfo(np.float64).tiny))


def _inside(reach: Reach, at: Array) -> Array:
    """The points drawn back into ball and box, whole-number features not yet rounded."""
    if reach.norm is not Norm.LINF:
        far = distance(reach.norm, reach.x, np.where(reach.scale > 0, at, reach.x), reach.scale)
        shrink = reach.eps / np.maximum(far, reach.eps)
        at = reach.x + (at - reach.x) * shrink.reshape(-1, *(1,) * (at.ndim - 1))
    return np.asarray(np.clip(at, reach.low, reach.high), dtype=np.float64)


def _start(reach: Reach, sample_id: Array, lab: Lab, *, number: int) -> Array:
    """The sample itself for the first walk, as in the paper; then a random point of the ball for each sample."""
    if number == 0:
        return np.array(reach.x, dtype=np.float64)
    shape = reach.x.shape[1:]
    if reach.norm is Norm.LINF:
        draw = 2 * uniforms(lab.seed, ("transfer", number), sample_id, shape) - 1
    else:
        draw = _unit(reach.norm, normals(lab.seed, ("transfer", number), sample_id, shape) * (reach.scale > 0))
    return np.asarray(reach.x + reach.eps * reach.scale * draw)


def _each(values: Array, how: str) -> Array:
    """The mean or sum of each sample, shaped to broadcast over it."""
    flat = values.reshape(len(values), -1)
    found = flat.mean(axis=1) if how == "mean" else flat.sum(axis=1)
    return np.asarray(found.reshape(-1, *(1,) * (values.ndim - 1)))
