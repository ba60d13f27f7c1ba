"""Fast minimum-norm attack: walks along the boundary in a ball that breathes (Pintor et al. 2021), raced in lanes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.norms import Norm
from casemate.core.plugin import attack
from casemate.engine.ground import Ground, each, ground_of, size, spread, tiny
from casemate.engine.prepared import Prepared, prepare
from casemate.engine.reach import Reach, reach_of
from casemate.errors import BudgetExhausted, ConfigError
from casemate.evasion import THREAT
from casemate.evasion.losses import clearly, margin, pick

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FmnOptions", "fmn_attack"]

Array = NDArray[Any]
_DUAL = {Norm.LINF: Norm.L1, Norm.L2: Norm.L2, Norm.L1: Norm.LINF}
_LANE = 0.1  # of the gradients, for each lane of the first heat
_STEP = (1.0, 0.1, 0.005)  # in radii: the first of the first heat, the last of it, the last of all
_BREATH = (0.2, 0.02, 0.001)  # by what share the radius moves, likewise
_RANKED = 9  # of the likeliest classes are ranked by their distance, at the price of a gradient each
_GROWTH = 1.05  # of the radius at least, where nothing was found yet


@dataclass(frozen=True, slots=True)
class FmnOptions:
    """`steps` gradients a sample in all; `lanes`: how many walks race for it first, each towards another class."""

    steps: int = 200
    lanes: int = 3


@dataclass(slots=True)
class _Walk:
    """One walk for each row; `lane` 0 goes to any wrong class, others to `target`."""

    at: Tensor
    radius: Tensor
    nearest: Tensor
    best: Tensor
    y: Tensor
    target: Tensor
    sample: Tensor

    def take(self, rows: Tensor) -> _Walk:
        return _Walk(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})


@attack(
    threat=THREAT,
    source="Pintor et al., Fast minimum-norm adversarial attacks through adaptive norm constraints, NeurIPS 2021, "
    "Algorithm 1",
    needs={Facet.GRADIENTS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.MODERATE,
    options=FmnOptions,
    profiles={Profile.QUICK: {"steps": 60}, Profile.FULL: {"steps": 600, "lanes": 5}},
    norms={Norm.LINF, Norm.L2, Norm.L1},
    minimum_norm=True,
    requires=("torch",),
)
def fmn_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """The smallest change that makes an answer wrong: step up the loss, then back into a ball that closes on success.

    Looks for the least ||(x' - x) / scale|| inside the bounds with a wrong answer (or the goal's target). The attacker
    knows the weights. Errs towards robust: a nearer point may exist. As in the paper: the radius shrinks by a share
    that falls along a cosine after each success and grows after each failure, and before the first success it is the
    distance to the boundary of the linearised model. Ours: steps are measured in radii instead of pixels and for linf
    go along the signs; ball and bounds are projected onto together and exactly; what lies on a bound does not count as
    way that can be gone; and several walks, one to any wrong class and others to those whose linearised boundary is
    nearest, race for a tenth of the gradients each before the nearest of them goes on alone. With a finite eps a sample
    that is within it by then goes no further. Whole numbers are evaluated whole, relations hold; categories stay.

    Raises `ConfigError` for no steps or lanes, `BudgetExhausted` when the budget ends.
    """
    options: FmnOptions = lab.options
    if options.steps < 1 or options.lanes < 1:
        raise ConfigError(
            f"expected steps and lanes >= 1 for evasion/fmn, got {options.steps} and {options.lanes}: leave them out"
        )
    rows = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    if not len(rows):
        return
    prepared = prepare(case.the_model(), batch.x, lab.meter)
    race = _Race(prepared, reach_of(goal.norm, np.inf, batch.x[rows], case.schema), goal)
    try:
        race.open(batch.y[rows], options.lanes)
        first = max(1, round(_LANE * options.steps))
        lanes = race.lanes
        if lanes > 1:
            race.heat(first, _STEP[:2], _BREATH[:2])
            race.choose()
            yield from race.left(rows)
        rest = options.steps - race.ranked - (first * lanes if lanes > 1 else 0)
        race.heat(max(1, rest), (_STEP[0] / 2, _STEP[2]), (_BREATH[0] / 2, _BREATH[2]))
    except BudgetExhausted:
        yield from race.found(rows)
        raise
    yield from race.found(rows)


class _Race:
    """All walks of a batch, in one tensor; those of one sample lie side by side."""

    def __init__(self, prepared: Prepared, reach: Reach, goal: Goal) -> None:
        import torch

        self.prepared, self.reach, self.goal = prepared, reach, goal
        self.whole = ground_of(prepared, reach)
        self.lanes, self.ranked = 1, 0  # walks a sample, and gradients that went into choosing their classes
        far = torch.maximum(self.whole.high - self.whole.x, self.whole.x - self.whole.low)
        self.widest = self.whole.far(self.whole.x + torch.where(self.whole.free, far, 0.0))
        self.walk: _Walk | None = None

    def open(self, y: Array, lanes: int) -> None:
        """Put every walk on its sample."""
        import torch

        classes = torch.tensor(np.asarray(y, dtype=np.int64), device=self.prepared.device)
        n = len(classes)
        if self.goal.target is not None:
            self.lanes, target = 1, torch.full((n, 1), self.goal.target, device=classes.device)
        else:
            nearest = self._nearest_classes(classes)
            self.lanes = min(lanes, 1 + nearest.shape[1])
            anything = torch.full((n, 1), -1, device=classes.device)
            target = torch.cat([anything, nearest], dim=1)[:, : self.lanes]
        sample = torch.arange(n, device=classes.device).repeat_interleave(self.lanes)
        at = self.whole.x[sample]
        never = torch.full((len(sample),), float("inf"), dtype=at.dtype, device=at.device)
        self.walk = _Walk(at, never, never, at, classes[sample], target.reshape(-1), sample)

    def _nearest_classes(self, y: Tensor) -> Tensor:
        """The classes `(n, c)` whose boundary with the true one is nearest to the sample, by the linearised model."""
        import torch

        logits = self.prepared.logits(self.whole.x)
        others = logits.scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)[:, :-1]
        others = others[:, :_RANKED]
        self.ranked = others.shape[1]
        far = []
        for column in others.T:
            _, behind, slope = self.prepared.gradient(
                self.whole.x,
                lambda z, column=column: pick(z, column) - pick(z, y),  # type: ignore[misc]
            )
            dual = size(_DUAL[self.goal.norm], slope * self.whole.scale)
            far.append(-behind / dual.clamp(min=tiny(dual)))
        return others.gather(1, torch.stack(far, dim=1).argsort(dim=1, stable=True))

    def choose(self) -> None:
        """Of each sample the walk that came nearest goes on, from its nearest point."""
        import torch

        assert self.walk is not None
        walk = self.walk = self.walk.take(self._winners())
        self.lanes = 1
        done = torch.isfinite(walk.nearest)
        walk.at = each(done, walk.best, walk.at)
        walk.radius = torch.where(done, walk.nearest, walk.radius)

    def heat(self, steps: int, stride: tuple[float, float], breath: tuple[float, float]) -> None:
        """So many gradients for every walk; strides and breaths fall from the first number to the second."""
        assert self.walk is not None
        walk = self.walk
        ground = self.whole.keep(walk.sample)
        for step in range(steps):
            wave = (1 + math.cos(math.pi * step / steps)) / 2
            slope, behind = self._look(walk, ground)
            self._breathe(walk, ground, slope, behind, breath[1] + (breath[0] - breath[1]) * wave)
            length = spread((stride[1] + (stride[0] - stride[1]) * wave) * walk.radius, slope)
            walk.at = ground.inside(walk.at + length * ground.scale * self._way(slope), walk.radius)

    def found(self, rows: Array) -> Iterator[Claim]:
        """The nearest wrong points of all samples for which there is one."""
        if self.walk is None:
            return
        walk = self.walk.take(self._winners())
        yield from self._told(walk.take((walk.nearest < float("inf")) & (walk.nearest <= self.goal.eps)), rows)

    def left(self, rows: Array) -> Iterator[Claim]:
        """Claims of the samples that are within a finite eps by now; they go no further."""
        assert self.walk is not None
        assert self.lanes == 1
        if math.isfinite(self.goal.eps):
            near = self.walk.nearest <= self.goal.eps
            yield from self._told(self.walk.take(near), rows)
            self.walk = self.walk.take(~near)

    def _told(self, walk: _Walk, rows: Array) -> Iterator[Claim]:
        if len(walk.sample):
            sample = walk.sample.cpu().numpy()
            yield Claim(rows[sample], x=self.reach.take(sample).settle(walk.best.cpu().numpy()))

    def _winners(self) -> Tensor:
        """The row of each sample's nearest walk, `(n,)`."""
        import torch

        assert self.walk is not None
        by_sample = self.walk.nearest.reshape(-1, self.lanes)
        first = torch.arange(len(by_sample), device=by_sample.device) * self.lanes
        return by_sample.argmin(dim=1) + first

    def _look(self, walk: _Walk, ground: Ground) -> tuple[Tensor, Tensor]:
        """Remember what is wrong and nearer; the gradient in units of the scale, and how far each is behind `(m,)`."""
        import torch

        points = ground.snapped(walk.at)
        targets, aimed = walk.target.clamp(min=0), walk.target >= 0
        strict = None if self.goal.target is None else walk.target

        def loss(logits: Tensor) -> Tensor:
            if strict is not None:
                return margin(logits, walk.y, strict)
            return torch.where(aimed, pick(logits, targets) - pick(logits, walk.y), margin(logits, walk.y, None))

        logits, value, slope = self.prepared.gradient(points, loss)
        wrong = clearly(margin(logits, walk.y, strict), logits)
        far = ground.far(points)
        nearer = wrong & (far < walk.nearest)
        walk.nearest = torch.where(nearer, far, walk.nearest)
        walk.best = each(nearer, points, walk.best)
        slope = slope * ground.scale
        stuck = ((walk.at >= ground.high) & (slope > 0)) | ((walk.at <= ground.low) & (slope < 0))
        return torch.where(stuck, 0.0, slope), torch.where(wrong, float("-inf"), value.abs())

    def _breathe(self, walk: _Walk, ground: Ground, slope: Tensor, behind: Tensor, share: float) -> None:
        """Close the ball on a success, open it on a failure; before any, to where the linear model says."""
        import torch

        dual = size(_DUAL[self.goal.norm], slope)
        linear = ground.far(walk.at) + behind.clamp(min=0) / dual.clamp(min=tiny(dual))
        grown = torch.where(torch.isfinite(walk.radius), walk.radius * _GROWTH, 0.0)
        linear = torch.minimum(
            torch.maximum(torch.where(torch.isfinite(linear), linear, 0.0), grown), self.widest[walk.sample]
        )
        open_ = torch.minimum(walk.radius * (1 + share), walk.nearest)
        open_ = torch.where(torch.isfinite(walk.nearest), open_, linear)
        closed = torch.minimum(walk.radius, walk.nearest) * (1 - share)
        walk.radius = torch.where(torch.isneginf(behind), closed, open_)

    def _way(self, slope: Tensor) -> Tensor:
        """The direction of a step of one radius, `(m, ...)`."""
        if self.goal.norm is Norm.LINF:
            return slope.sign()
        return slope / spread(size(Norm.L2, slope).clamp(min=tiny(slope)), slope)
