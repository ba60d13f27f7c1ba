"""Fast adaptive boundary attack, targeted: projects onto linearised boundaries, pulled to x (Croce and Hein 2020)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.norms import Norm
from casemate.core.options import Count
from casemate.core.plugin import attack
from casemate.core.rng import normals, uniforms
from casemate.core.schema import Schema
from casemate.engine.ground import Ground, each, ground_of, size, spread, tiny
from casemate.engine.prepared import Prepared, prepare
from casemate.engine.reach import reach_of
from casemate.errors import BudgetExhausted, ConfigError
from casemate.evasion import THREAT
from casemate.evasion.losses import clearly, margin, pick

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FabOptions", "fab_attack"]

Array = NDArray[Any]
_PULL = 0.1  # alpha_max: how much of a step may come from the projection of x itself
_BEYOND = 1.05  # eta: how far a step goes beyond the linearised boundary
_BACK = 0.9  # beta: how much of the way from x is left after a success
_SEARCHED = 3  # points of the final search on the way from x to the nearest wrong point
_SLACK = 1e-3  # of a whole number is no reason to go to the next
_CLEAR = 1.2e3  # roundings of the largest logit beyond the boundary are aimed at: a little more than `clearly` asks


@dataclass(frozen=True, slots=True)
class FabOptions:
    """`steps` gradients a run; a run towards each of the `targets` likeliest classes, `restarts` times."""

    steps: Count = 100
    restarts: Count = 1
    targets: Count = 3


@attack(
    threat=THREAT,
    source="Croce and Hein, Minimally distorted adversarial examples with a fast adaptive boundary attack, ICML 2020, "
    "Algorithm 1; targets: Croce and Hein, Reliable evaluation of adversarial robustness, ICML 2020, section 5",
    needs={Facet.GRADIENTS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.EXPENSIVE,
    options=FabOptions,
    profiles={Profile.QUICK: {"steps": 20, "targets": 2}, Profile.FULL: {"restarts": 2, "targets": 9}},
    norms={Norm.LINF, Norm.L2, Norm.L1},
    minimum_norm=True,
    requires=("torch",),
)
def fab_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """The smallest change that makes an answer wrong: project onto the linearised boundary, never far from x.

    Looks for the least ||(x' - x) / scale|| inside the bounds with a wrong answer (or the goal's target). The attacker
    knows the weights. Errs towards robust: a nearer point may exist. As in the paper: the point and x are projected
    onto the boundary of the model linearised at the point, exactly and within the bounds; a step mixes both by their
    distances (alpha_max .1), goes beyond (eta 1.05) and, where the answer is wrong, back towards x (beta .9); a restart
    begins at half the distance found, or half of eps; a last search follows the line to x. Ours: the linear model of a
    point serves where the step back led to as well, so that a step is one gradient without a further forward; steps and
    search aim so far beyond the boundary that rounding cannot undo them; and all targets are run at once. With a finite
    eps one target comes after another, and a sample leaves as soon as it is broken within eps. Whole numbers are
    evaluated whole (away from x until an answer is wrong), relations hold; categories stay.

    Raises `ConfigError` for no steps, restarts or targets, `BudgetExhausted` when the budget ends.
    """
    options: FabOptions = lab.options
    asked = (options.steps, options.restarts, options.targets)
    if min(asked) < 1:
        raise ConfigError(f"expected steps, restarts and targets >= 1 for evasion/fab, got {asked}: leave them out")
    rows = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    if not len(rows) or goal.eps == 0:
        return
    prepared = prepare(case.the_model(), batch.x, lab.meter, seed=lab.seed_for("draws"))
    hunt = _Hunt(prepared, batch.take(rows), goal, case.schema)
    try:
        for name, targets in hunt.runs(options):
            yield from _moved(hunt.walk(hunt.start(lab.seed, name, targets), targets, options.steps), rows)
        hunt.search()
    except BudgetExhausted:
        yield from _moved(hunt.found(), rows)
        raise
    yield from _moved(hunt.found(), rows)


def _moved(claims: Iterator[Claim], rows: Array) -> Iterator[Claim]:
    """Claims of the hunt as claims of the batch."""
    for claim in claims:
        yield Claim(rows[claim.rows], x=claim.x)


class _Hunt:
    """Of each sample the nearest wrong point so far, how far it is and by what margin it is wrong."""

    def __init__(self, prepared: Prepared, batch: Batch, goal: Goal, schema: Schema | None) -> None:
        import torch

        self.prepared, self.batch, self.goal = prepared, batch, goal
        self.ground = ground_of(prepared, reach_of(goal.norm, np.inf, batch.x, schema))
        self.claimed = reach_of(goal.norm, goal.eps, batch.x, schema)
        self.y = torch.tensor(np.asarray(batch.y, dtype=np.int64), device=prepared.device)
        self.left = torch.arange(len(batch), device=prepared.device)  # samples that were not claimed yet
        self.near = torch.full((len(batch),), float("inf"), dtype=prepared.dtype, device=prepared.device)
        self.best, self.ahead, self.behind = self.ground.x.clone(), self.near.clone(), self.near

    def runs(self, options: FabOptions) -> Iterator[tuple[tuple[str | int, ...], Tensor]]:
        """A name and the targets `(n, lanes)` of each run: all at once, or one by one where samples may leave."""
        import torch

        logits = self.prepared.logits(self.ground.x)
        self.behind = self._beyond(logits, self.y)
        others = logits.scatter(1, self.y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)
        targets = others[:, :-1][:, : options.targets]
        if self.goal.target is not None:
            targets = torch.full((len(self.y), 1), self.goal.target, device=self.y.device)
        lanes = 1 if math.isfinite(self.goal.eps) else targets.shape[1]
        for restart in range(options.restarts):
            for rank, part in enumerate(targets.split(lanes, dim=1)):
                if len(self.left):
                    yield ("fab", restart, rank), part

    def start(self, seed: int, name: tuple[str | int, ...], targets: Tensor) -> Tensor:
        """Where a run begins, `(m * lanes, ...)`: at x, and in a restart at half the distance of what is known."""
        import torch

        lanes = targets.shape[1]
        ground = self.ground.keep(self.left.repeat_interleave(lanes))
        if name[1] == 0:
            return ground.x
        known = self.near[self.left].clamp(max=self.goal.eps)
        radius = torch.where(torch.isfinite(known), known, 1.0).repeat_interleave(lanes) / 2
        left = self.left.cpu().numpy()
        ids, shape = self.batch.sample_id[left], (lanes, *self.batch.x.shape[1:])
        linf = self.goal.norm is Norm.LINF
        draw = uniforms(seed, name, ids, shape) - 0.5 if linf else normals(seed, name, ids, shape)
        way = torch.where(ground.free, self.prepared.tensor(draw.reshape(-1, *shape[1:])), 0.0)
        length = size(self.goal.norm, way)
        return ground.box(ground.x + spread(radius / length.clamp(min=tiny(length)), way) * way * ground.scale)

    def walk(self, at: Tensor, targets: Tensor, steps: int) -> Iterator[Claim]:
        """So many gradients towards each target of each sample; claims, and leaves, what is within a finite eps."""
        ground = self.ground.keep(self.left.repeat_interleave(targets.shape[1]))
        aim, wrong = targets[self.left], None
        for _ in range(steps):
            value, slope, wrong = self._look(ground, _whole(ground, at, wrong), aim)
            at = _stepped(ground, at, value=value, slope=slope, wrong=wrong)
            stay = self.near[self.left] > self.goal.eps
            if math.isfinite(self.goal.eps) and not bool(stay.all()):
                yield from self._told(self.left[~stay])
                # A finite eps has one target a run, so that rows are samples.
                self.left, at, aim, wrong, ground = self.left[stay], at[stay], aim[stay], wrong[stay], ground.keep(stay)
                if not len(self.left):
                    return

    def search(self) -> None:
        """The paper's final search: where the margin, taken for linear, is 0 between x and the nearest wrong point."""
        import torch

        rows = self.left[torch.isfinite(self.near[self.left])]
        if not len(rows):
            return
        ground, far, near, ahead = self.ground.keep(rows), self.ground.x[rows], self.best[rows], self.ahead[rows]
        behind = self.behind[rows]
        for _ in range(_SEARCHED):
            share = (ahead / (ahead - behind).clamp(min=tiny(ahead))).clamp(0, 1)
            point = ground.snapped(near + spread(share, near) * (far - near))
            logits = self.prepared.logits(point)
            wrong = self._remember(ground, point, logits, rows[:, None])
            now = self._beyond(logits, self.y[rows])
            near, ahead = each(wrong, point, near), torch.where(wrong, now, ahead)
            far, behind = each(wrong, far, point), torch.where(wrong, behind, now)

    def found(self) -> Iterator[Claim]:
        """The nearest wrong points of the samples that were not claimed yet, where they are within eps."""
        import torch

        near = self.near[self.left]
        yield from self._told(self.left[torch.isfinite(near) & (near <= self.goal.eps)])

    def _told(self, rows: Tensor) -> Iterator[Claim]:
        if len(rows):
            part = rows.cpu().numpy()
            yield Claim(part, x=self.claimed.take(part).settle(self.best[rows].cpu().numpy()))

    def _look(self, ground: Ground, point: Tensor, aim: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How far beyond each target's boundary a point is, the gradient of that, and what is wrong, of all rows."""
        lanes = aim.shape[1]
        y, target = self.y[self.left].repeat_interleave(lanes), aim.reshape(-1)

        def loss(logits: Tensor) -> Tensor:
            return pick(logits, target) - pick(logits, y) if self.goal.target is None else margin(logits, y, target)

        logits, value, slope = self.prepared.gradient(point, loss)
        wrong = self._remember(ground, point, logits, self.left[:, None].expand(-1, lanes))
        return value - _clear(logits), slope, wrong

    def _remember(self, ground: Ground, point: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        """Which points `(m * lanes, ...)` of samples `rows (m, lanes)` are wrong; the nearest of each is kept."""
        import torch

        y = self.y[rows].reshape(-1)
        aim = None if self.goal.target is None else torch.full_like(y, self.goal.target)
        wrong = clearly(margin(logits, y, aim), logits)
        far = torch.where(wrong, _length(ground, ground.x, point), float("inf")).reshape(rows.shape)
        nearest, lane = far.min(dim=1)
        better = nearest < self.near[rows[:, 0]]
        kept, sample = (torch.arange(len(rows), device=lane.device) * rows.shape[1] + lane)[better], rows[better, 0]
        self.near[sample], self.best[sample] = nearest[better], point[kept]
        self.ahead[sample] = self._beyond(logits[kept], y[kept])
        return wrong

    def _beyond(self, logits: Tensor, y: Tensor) -> Tensor:
        """By what margin answers are wrong, less what rounding may take."""
        import torch

        aim = None if self.goal.target is None else torch.full_like(y, self.goal.target)
        return margin(logits, y, aim) - _clear(logits)


def _whole(ground: Ground, at: Tensor, wrong: Tensor | None) -> Tensor:
    """Where the model is asked: whole numbers whole, towards x just after a wrong answer, else away from it.

    Ours. A point on the boundary, rounded towards x, would fall short of it for ever.
    """
    import torch

    if ground.whole is not None:
        way = at - ground.x
        away = ground.x + torch.sign(way) * torch.ceil(way.abs() - _SLACK)
        away = ground.box(torch.where(ground.whole, away, at))
        at = away if wrong is None else each(wrong, at, away)
    return ground.snapped(at)


def _stepped(ground: Ground, at: Tensor, *, value: Tensor, slope: Tensor, wrong: Tensor) -> Tensor:
    """The next points: back where the answer is wrong, then onto the boundary of the linear model, and beyond."""
    x = ground.x
    back = each(wrong, x + _BACK * (at - x), at)
    onto = _projected(ground, back, slope, value + _rise(slope, at, back))
    own = _projected(ground, x, slope, value + _rise(slope, at, x))
    near, far = _length(ground, back, onto), _length(ground, x, own)
    pull = spread((near / (near + far).clamp(min=tiny(near))).clamp(max=_PULL), at)
    return ground.box((1 - pull) * (back + _BEYOND * (onto - back)) + pull * (x + _BEYOND * (own - x)))


def _projected(ground: Ground, start: Tensor, slope: Tensor, value: Tensor) -> Tensor:
    """The nearest points of the box at which a linear model with `value (m,)` at the start is 0, from either side."""
    return ground.across(start, slope * spread(-value.sign(), slope), value.abs())


def _rise(slope: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """What a linear model gains on the way, `(m,)`; missing values are no way."""
    return (slope * (end - start)).flatten(1).nansum(dim=1)


def _length(ground: Ground, start: Tensor, end: Tensor) -> Tensor:
    """The distance between points, `(m,)`, missing values left out."""
    return size(ground.norm, (ground.units(end) - ground.units(start)).nan_to_num())


def _clear(logits: Tensor) -> Tensor:
    """What a margin should be so that it is one in the harness's evaluation too, `(m,)`."""
    import torch

    return _CLEAR * torch.finfo(logits.dtype).eps * logits.abs().amax(dim=1)
