"""Auto-PGD: projected gradient ascent with momentum and a step size that adapts (Croce and Hein 2020, Algorithm 1)."""

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
from casemate.core.norms import Norm
from casemate.core.plugin import attack
from casemate.core.rng import normals, uniforms
from casemate.engine.prepared import Prepared, prepare
from casemate.engine.reach import Reach, reach_of
from casemate.errors import UsageError
from casemate.evasion import THREAT
from casemate.evasion.climb import Climb, Stage
from casemate.evasion.losses import loss_named

__all__ = ["ApgdOptions", "apgd_attack"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ApgdOptions:
    """`steps` gradients a run; a run for each loss, `restarts` times, then towards the `targets` likeliest classes."""

    steps: int = 50
    restarts: int = 1
    losses: tuple[str, ...] = ("ce", "dlr")
    targets: int = 3


@attack(
    threat=THREAT,
    source="Croce and Hein, Reliable evaluation of adversarial robustness, ICML 2020, Algorithm 1 and equations 6-7",
    needs={Facet.GRADIENTS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.MODERATE,
    options=ApgdOptions,
    profiles={
        Profile.QUICK: {"steps": 20, "targets": 0},
        Profile.FULL: {"steps": 100, "restarts": 2, "targets": 9},
    },
    norms={Norm.LINF, Norm.L2, Norm.L1},
    requires=("torch",),
)
def apgd_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """Search the ball with gradients; a sample leaves the batch in the step in which it breaks.

    Looks for x' with ||(x' - x) / scale|| <= eps inside the bounds and a wrong answer (or the goal's target). The
    attacker knows the weights. Errs towards robust: a sample that stands may still have such an x'. Whole-number
    features are evaluated at whole numbers, relations between columns where they hold; categories stay. As in the
    paper: the step starts at 2 eps and is halved at checkpoints by both conditions, momentum .75, restart from
    the best iterate. Ours: early leaving, one random stream per sample, and in l2 the exact projection onto ball and
    box.

    Raises `UsageError` for eps = inf (this attack needs a ball), `BudgetExhausted` when the budget ends.
    """
    if not np.isfinite(goal.eps):
        raise UsageError("expected a finite eps for evasion/apgd, got inf: ask a minimum-norm attack for the distance")
    options: ApgdOptions = lab.options
    alive = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    if not len(alive) or goal.eps == 0:
        return
    prepared = prepare(case.the_model(), batch.x, lab.meter)
    reach = reach_of(goal.norm, goal.eps, batch.x, case.schema)
    for number, run in enumerate(_runs(options, goal)):
        target = _target(prepared, batch, alive, goal=goal, run=run)
        start = _start(reach.take(alive), batch.sample_id[alive], lab, name=("apgd", number))
        stages = _stages(goal.norm, options.steps)
        climb = Climb(prepared, reach.take(alive), loss_named(run.loss), stages, strict=goal.target is not None)
        for rows, points in climb.run(start, batch.y[alive], target):
            yield Claim(alive[rows], x=reach.take(alive[rows]).settle(points))
        alive = alive[~climb.broken]
        if not len(alive):
            return


@dataclass(frozen=True, slots=True)
class _Run:
    """One climb: its loss, and the rank of the class it aims at (1: the most likely wrong one; 0: any)."""

    loss: str
    rank: int = 0


def _stages(norm: Norm, steps: int) -> tuple[Stage, ...]:
    """One ball; in l1 first those of 3 and 2 eps, as the paper of that variant has it (section 3.3)."""
    if norm is not Norm.L1:
        return (Stage(steps),)
    wide = int(0.3 * steps)
    return Stage(wide, 3.0), Stage(wide, 2.0), Stage(steps - 2 * wide)


def _runs(options: ApgdOptions, goal: Goal) -> Iterator[_Run]:
    for loss in options.losses:
        loss_named(loss)
    for _ in range(options.restarts):
        yield from (_Run(loss) for loss in options.losses)
    if goal.target is None:
        yield from (_Run("dlr", rank) for rank in range(1, options.targets + 1))


def _target(prepared: Prepared, batch: Batch, alive: Array, *, goal: Goal, run: _Run) -> Array | None:
    """The class each sample is driven to, `(m,)`, or None for any wrong one."""
    if goal.target is not None:
        return np.full(len(alive), goal.target, dtype=np.int64)
    if run.rank == 0:
        return None
    logits = prepared.logits(prepared.tensor(batch.x[alive])).double().cpu().numpy()
    logits[np.arange(len(alive)), batch.y[alive]] = -np.inf
    rank = min(run.rank, logits.shape[1] - 1)
    return np.asarray(np.argsort(-logits, axis=1, kind="stable")[:, rank - 1], dtype=np.int64)


def _start(reach: Reach, sample_id: Array, lab: Lab, *, name: tuple[str, int]) -> Array:
    """A random point of each ball, `(m, ...)`: uniform for linf, else on the sphere (as the authors' code does)."""
    shape = reach.x.shape[1:]
    if reach.norm is Norm.LINF:
        draw = 2 * uniforms(lab.seed, name, sample_id, shape) - 1
    else:
        draw = normals(lab.seed, name, sample_id, shape) * (reach.scale > 0)
        sizes = np.abs(draw) if reach.norm is Norm.L1 else draw**2
        size = sizes.reshape(len(draw), -1).sum(1).reshape(-1, *(1,) * len(shape))
        draw /= np.maximum(size if reach.norm is Norm.L1 else np.sqrt(size), np.finfo(np.float64).tiny)
    return np.asarray(reach.x + reach.eps * reach.scale * draw)
