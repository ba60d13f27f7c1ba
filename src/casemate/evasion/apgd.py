"""Auto-PGD: projected gradient ascent with momentum and a step size that adapts (Croce and Hein 2020, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.norms import Norm
from casemate.core.options import Count
from casemate.core.plugin import attack
from casemate.engine.prepared import Prepared
from casemate.evasion import THREAT
from casemate.evasion.ascent import Ascent, ascents, climbed, stages_of, start_in_ball
from casemate.evasion.climb import Climb
from casemate.evasion.losses import loss_named

__all__ = ["ApgdOptions", "apgd_attack"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ApgdOptions:
    """`steps` points a run, the last without a gradient; a run for each loss, `restarts` times.

    `draws`: answers of a random model that are averaged (None: 8). `straight`: all runs once more past operations that
    have no gradient (True, False; None: on samples whose gradient is 0 without and not with it).
    """

    steps: Count = 50
    restarts: Count = 1
    losses: tuple[Literal["ce", "dlr", "margin"], ...] = ("ce",)
    draws: Count | None = None
    straight: bool | None = None


@attack(
    threat=THREAT,
    source="Croce and Hein, Reliable evaluation of adversarial robustness, ICML 2020, Algorithm 1 and equation 6",
    needs={Facet.GRADIENTS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.MODERATE,
    options=ApgdOptions,
    profiles={
        Profile.QUICK: {"steps": 20},
        Profile.FULL: {"steps": 100, "losses": ("ce", "dlr")},
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
    box; means over several answers of a random model (see `engine.prepared`); and all runs once more, straight through
    what has no gradient (see `engine.straight`), on the samples where that is what stops them.

    Raises `UsageError` for eps = inf (this attack needs a ball), `BudgetExhausted` when the budget ends.
    """
    yield from ascents(case, batch, goal, lab, _climbs)


def _climbs(task: Ascent, prepared: Prepared, alive: Array) -> Generator[Claim, Array | None, Array]:
    """A climb for each loss and restart, one after the other; returns the rows that stand."""
    options: ApgdOptions = task.lab.options
    losses = [loss_named(name) for name in options.losses]
    for number, loss in enumerate(losses * options.restarts):
        if not len(alive):
            break
        target = None if task.goal.target is None else np.full(len(alive), task.goal.target, dtype=np.int64)
        stages = stages_of(task.goal.norm, options.steps)
        climb = Climb(prepared, task.reach.take(alive), loss, stages, strict=target is not None)
        alive = alive[(yield from climbed(task, climb, alive, start_in_ball(task, alive, number), target))]
    return alive
