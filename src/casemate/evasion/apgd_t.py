"""APGD-T: Auto-PGD towards each of the likeliest classes (Croce and Hein 2020), raced, on a margin for any number."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.norms import Norm
from casemate.core.options import Count, Natural, Share
from casemate.core.plugin import attack
from casemate.engine.prepared import Prepared
from casemate.errors import ConfigError
from casemate.evasion import THREAT
from casemate.evasion.ascent import Ascent, ascents, climbed, ranked_classes, stages_of, start_in_ball
from casemate.evasion.climb import Climb
from casemate.evasion.losses import margin

__all__ = ["ApgdTOptions", "apgd_t_attack"]

Array = NDArray[Any]
_RACE = {5: 3, 20: 1}  # after how many steps how many classes of a sample are still in the race
_FEWER = ((0.2, 1 / 3), (0.5, 1 / 6))  # after what share of its steps what share of a sample's restarts goes on
_TURNS = (0, 0, 1)  # whose turn it is of a sample's classes when it is started again: the nearest one's twice
_BRINK = 0.1  # of `near`: who is within that is started again towards the nearest class, twice as often and as long


@dataclass(frozen=True, slots=True)
class ApgdTOptions:
    """`steps` towards the class that wins of the `targets` likeliest wrong ones; then `restarts`, which race too.

    These are for samples whose lead is down to at most a share `near` of what it was. `draws` and `straight` are those
    of `evasion/apgd`.
    """

    steps: Count = 100
    targets: Count = 9
    restarts: Natural = 12
    near: Share = 0.3
    draws: Count | None = None
    straight: bool | None = None


@attack(
    threat=THREAT,
    source="Croce and Hein, Reliable evaluation of adversarial robustness, ICML 2020, section 4.2 (targets); loss: "
    "Gowal et al., An alternative surrogate loss for PGD-based adversarial testing, 2019, section 3",
    needs={Facet.GRADIENTS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.EXPENSIVE,
    options=ApgdTOptions,
    profiles={Profile.QUICK: {"steps": 40, "restarts": 1}, Profile.FULL: {"restarts": 30, "near": 0.5}},
    norms={Norm.LINF, Norm.L2, Norm.L1},
    requires=("torch",),
)
def apgd_t_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """Search the ball on the way to one class after the other; the classes of a sample race for the steps.

    Looks for x' with ||(x' - x) / scale|| <= eps inside the bounds and a wrong answer (or the goal's target). The
    attacker knows the weights. Errs towards robust. As in the paper: a run of APGD towards each of the likeliest wrong
    classes, from a random point. Ours: they run side by side, after 5 steps the three that came nearest go on and after
    20 the best one, which costs a fifth of the gradients at 100 steps (in l1, whose wider balls all run, seven tenths)
    and lost no success in docs/decisions/011; the loss is the
    lead of the target over all other classes, which means the same for any number of classes (the paper's ratio needs
    four, and broke fewer samples in l2); and samples that came near are started again, towards one class at a time,
    others are not. See `evasion/apgd` for the rest.

    Raises `UsageError` for eps = inf (this attack needs a ball), `ConfigError` for no steps or targets,
    `BudgetExhausted` when the budget ends.
    """
    options: ApgdTOptions = lab.options
    if options.steps < 1 or options.targets < 1 or options.restarts < 0:
        raise ConfigError(
            f"expected steps and targets >= 1 and restarts >= 0 for evasion/apgd_t, got {options.steps}, "
            f"{options.targets} and {options.restarts}: leave them out"
        )
    yield from ascents(case, batch, goal, lab, _raced)


def _raced(task: Ascent, prepared: Prepared, alive: Array) -> Generator[Claim, Array | None, Array]:
    """The race, and restarts that race for those that came near in it; returns the rows that stand."""
    options: ApgdTOptions = task.lab.options
    ranked, lead = ranked_classes(prepared, task.batch, alive)
    ranked = ranked[:, : options.targets]
    if task.goal.target is not None:
        ranked = np.full((len(alive), 1), task.goal.target, dtype=np.int64)
    if not ranked.shape[1]:
        return alive
    stands, reached = yield from _run(task, prepared, alive, ranked, cuts=_RACE)
    best = np.argsort(-reached, axis=1, kind="stable")[:, : max(_TURNS) + 1]
    number = ranked.shape[1]
    for share, turns, longer in ((1.0, _TURNS, 1), (_BRINK, (0,), 2)):
        near = np.flatnonzero(stands & (-reached.max(axis=1) <= share * options.near * np.abs(lead)))
        if not len(near) or not options.restarts:
            break
        order = [turns[k % len(turns)] % best.shape[1] for k in range(longer * options.restarts)]
        towards = np.take_along_axis(ranked, best, axis=1)[near][:, order]
        left, again = yield from _run(task, prepared, alive[near], towards, number=number, longer=longer)
        stands[near], number = left, number + len(order)
        reached[near] = np.maximum(reached[near], again.max(axis=1, keepdims=True))
    yield Claim(alive[stands], lead=-reached[stands].max(axis=1))
    return alive[stands]


def _run(
    task: Ascent,
    prepared: Prepared,
    rows: Array,
    targets: Array,
    *,
    number: int = 0,
    longer: int = 1,
    cuts: Mapping[int, int] | None = None,
) -> Generator[Claim, Array | None, tuple[Array, Array]]:
    """Runs towards the `targets (m, k)` of the rows `(m,)` side by side; which rows stand, and the lead each reached.

    `number` is that of the first lane's random start; the runs are so many times `longer` than the options say. After
    how many steps how many lanes of a row go on is what `cuts` says, else a third and a sixth of them (`_FEWER`).
    """
    m, k = targets.shape
    stages = stages_of(task.goal.norm, longer * task.lab.options.steps)
    last = stages[-1].steps
    cuts = {ceil(part * last): ceil(share * k) for part, share in _FEWER} if cuts is None else cuts
    cuts = {step: left for step, left in cuts.items() if left < k}
    reach = task.reach.take(np.repeat(rows, k))
    climb = Climb(prepared, reach, margin, stages, strict=task.goal.target is not None, lanes=k, cuts=cuts)
    start = np.stack([start_in_ball(task, rows, number + lane) for lane in range(k)], axis=1)
    stands = yield from climbed(task, climb, rows, start.reshape(m * k, *start.shape[2:]), targets.reshape(-1))
    return stands, climb.reached.reshape(m, k)
