"""Fast minimum-norm attack: walks along the boundary in a ball that breathes (Pintor et al. 2021), raced in lanes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
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
# The l1 walk.
_PACE = (0.15, 1.5)  # what the largest entry of a gradient adds to the logarithm of a weight: at first and at last
_SIGH = (0.25, 0.001)  # its breath; from 0.1 on, 63 gradients do not close the ball (measured)
_BEYOND = 1.002  # times the way to a linearised boundary is leapt, to be clearly past it
_LEAST = 60  # gradients a lane: there are fewer lanes rather than shorter ones, which were worse (measured at 45)
_PART = 0.3  # of its gradients come before a sample within a finite eps leaves
_FAINTEST = -60.0  # the logarithm of the smallest weight beside the largest: float32 holds it


@dataclass(frozen=True, slots=True)
class FmnOptions:
    """`steps` gradients a sample in all; `lanes`: how many walks race for it first, each towards another class.

    In l1 they all go to the end, with fewer gradients each.
    """

    steps: Count = 200
    lanes: Count = 3


@dataclass(slots=True)
class _Walk:
    """One walk for each row; `lane` 0 goes to any wrong class, others to `target`.

    In l1 `pull` is the weighted sum of its gradients; `leap` is a wrong point found beside the walk, `leapt` away.
    """

    at: Tensor
    radius: Tensor
    nearest: Tensor
    best: Tensor
    pull: Tensor
    leap: Tensor
    leapt: Tensor
    y: Tensor
    target: Tensor
    sample: Tensor

    def take(self, rows: Tensor) -> _Walk:
        return _Walk(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    def recalled(self) -> _Walk:
        """The same with the leap as the nearest point where the walk came no nearer."""
        nearer = self.leapt < self.nearest
        return replace(self, nearest=self.nearest.minimum(self.leapt), best=each(nearer, self.leap, self.best))


@attack(
    threat=THREAT,
    source="Pintor et al., Fast minimum-norm adversarial attacks through adaptive norm constraints, NeurIPS 2021, "
    "Algorithm 1; in l1 with the steps of Nesterov, Primal-dual subgradient methods for convex problems, Mathematical "
    "Programming 2009 (dual averaging)",
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
    nearest, race for a tenth of the gradients each before the nearest of them goes on alone.

    In l1 ours goes further from the paper: the point is not stepped and projected but made anew each time from the sum
    of all gradients so far, each divided by its largest entry (Nesterov's dual averaging with entropy as the distance):
    features are changed in proportion to the exponential of that sum, up to their bounds, by one radius in all. So a
    feature that helps only where the walk happens to be is not spent on. All lanes go to the end. Beside them the exact
    step to the nearest linearised boundary (of up to nine classes) is tried once: the optimum of a linear model.

    With a finite eps a sample within it after a first part goes no further. Whole numbers are evaluated whole,
    relations hold; categories stay.

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
        race.open(batch.y[rows])
        run = race.averaged if goal.norm is Norm.L1 else race.raced
        yield from run(options.steps, options.lanes, rows)
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

    def open(self, y: Array) -> None:
        """Put a walk on every sample."""
        import torch

        classes = torch.tensor(np.asarray(y, dtype=np.int64), device=self.prepared.device)
        target = torch.full_like(classes, -1 if self.goal.target is None else self.goal.target)
        at = self.whole.x
        never = torch.full((len(at),), float("inf"), dtype=at.dtype, device=at.device)
        sample = torch.arange(len(at), device=at.device)
        self.walk = _Walk(at, never, never, at, torch.zeros_like(at), at, never, classes, target, sample)

    def raced(self, steps: int, lanes: int, rows: Array) -> Iterator[Claim]:
        """A heat for all lanes, and one for the winner; claims of what leaves between them."""
        assert self.walk is not None
        if self.goal.target is None and lanes > 1:
            self._fork(self._nearest_classes(self.walk.y)[:, : lanes - 1])
        first, lanes = max(1, round(_LANE * steps)), self.lanes
        if lanes > 1:
            self.heat(first, _STEP[:2], _BREATH[:2])
            self.choose()
            yield from self.left(rows)
        rest = steps - self.ranked - (first * lanes if lanes > 1 else 0)
        self.heat(max(1, rest), (_STEP[0] / 2, _STEP[2]), (_BREATH[0] / 2, _BREATH[2]))

    def averaged(self, steps: int, lanes: int, rows: Array) -> Iterator[Claim]:
        """The l1 walks after a leap; claims of what leaves after their first part."""
        nearest = self.leap(steps)
        rest = max(1, steps - self.ranked)
        self._fork(nearest[:, : max(0, min(lanes, rest // _LEAST) - 1)])
        rest = max(1, rest // self.lanes)
        first = max(1, round(_PART * rest))
        self.stroll(range(first), rest)
        yield from self.left(rows)
        self.stroll(range(first, rest), rest)

    def leap(self, steps: int) -> Tensor:
        """Try the point just past the nearest linearised boundary; the classes, nearest boundary first, `(n, c)`.

        What is found is kept aside: a walk that knows of it keeps nearer to it than is good (measured).
        """
        import torch

        assert self.walk is not None
        walk, ground = self.walk, self.whole
        classes = self._likeliest(walk.y) if self.goal.target is None else walk.target[:, None]
        classes = classes[:, : steps // 4]
        if not classes.shape[1]:
            return classes
        far, shortest = [], torch.full_like(walk.nearest, float("inf"))
        for column in classes.T:
            _, ahead, slope = self._lead(column, walk.y)
            there = ground.across(ground.x, slope, -_BEYOND * ahead)
            reached = (slope * ground.scale * ground.units(there)).flatten(1).sum(dim=1) >= -ahead
            far.append(torch.where(reached, ground.far(there), float("inf")))
            walk.at = each(far[-1] < shortest, there, walk.at)
            shortest = torch.minimum(far[-1], shortest)
        self.ranked = classes.shape[1] + 1
        self._look(walk, ground)
        walk.leap, walk.leapt = walk.best, walk.nearest
        walk.at, walk.nearest = ground.x, torch.full_like(walk.nearest, float("inf"))
        return classes.gather(1, torch.stack(far, dim=1).argsort(dim=1, stable=True))

    def _fork(self, nearest: Tensor) -> None:
        """Beside each walk one to each of the classes `(n, c)`; a goal with a target has no other."""
        import torch

        assert self.walk is not None
        if self.goal.target is None:
            target = torch.cat([self.walk.target[:, None], nearest], dim=1)
            self.lanes = target.shape[1]
            self.walk = self.walk.take(self.walk.sample.repeat_interleave(self.lanes))
            self.walk.target = target.reshape(-1)

    def stroll(self, part: range, steps: int) -> None:
        """A part of the `steps` of the l1 walk: it is where the sum of all its gradients sends it."""
        assert self.walk is not None
        walk = self.walk
        ground = self.whole.keep(walk.sample)
        for step in part:
            wave = (1 + math.cos(math.pi * step / steps)) / 2
            slope, behind = self._look(walk, ground)
            self._breathe(walk, ground, slope, behind, _SIGH[1] + (_SIGH[0] - _SIGH[1]) * wave)
            pace = _PACE[0] * (_PACE[1] / _PACE[0]) ** (step / steps)
            walk.pull = walk.pull + pace * slope / spread(size(Norm.LINF, slope).clamp(min=tiny(slope)), slope)
            walk.at = _weighed(walk.pull, ground, walk.radius)

    def _likeliest(self, y: Tensor) -> Tensor:
        """The classes `(n, c)` besides the true one, likeliest first."""
        logits = self.prepared.logits(self.whole.x)
        others = logits.scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)[:, :-1]
        return others[:, :_RANKED]

    def _lead(self, column: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """At x: logits, how far one class `(n,)` is ahead of the true one, and its gradient."""
        return self.prepared.gradient(self.whole.x, lambda z: pick(z, column) - pick(z, y))

    def _nearest_classes(self, y: Tensor) -> Tensor:
        """The classes `(n, c)` whose boundary with the true one is nearest to the sample, by the linearised model."""
        import torch

        others = self._likeliest(y)
        self.ranked = others.shape[1]
        far = []
        for column in others.T:
            _, behind, slope = self._lead(column, y)
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
            slope = _movable(walk, ground, slope)
            self._breathe(walk, ground, slope, behind, breath[1] + (breath[0] - breath[1]) * wave)
            length = spread((stride[1] + (stride[0] - stride[1]) * wave) * walk.radius, slope)
            walk.at = ground.inside(walk.at + length * ground.scale * self._way(slope), walk.radius)

    def found(self, rows: Array) -> Iterator[Claim]:
        """The nearest wrong points of all samples for which there is one."""
        if self.walk is None:
            return
        walk = self.walk.take(self._winners()).recalled()
        yield from self._told(walk.take((walk.nearest < float("inf")) & (walk.nearest <= self.goal.eps)), rows)

    def left(self, rows: Array) -> Iterator[Claim]:
        """Claims of the samples that are within a finite eps by now; they go no further."""
        assert self.walk is not None
        if math.isfinite(self.goal.eps):
            known = self.walk.take(self._winners()).recalled()
            near = known.nearest <= self.goal.eps
            yield from self._told(known.take(near), rows)
            self.walk = self.walk.take(~near.repeat_interleave(self.lanes))

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
        return slope * ground.scale, torch.where(wrong, float("-inf"), value.abs())

    def _breathe(self, walk: _Walk, ground: Ground, slope: Tensor, behind: Tensor, share: float) -> None:
        """Close the ball on a success, open it on a failure; before any, to where the linear model says."""
        import torch

        linear = ground.far(walk.at) + self._ahead(walk, ground, slope, behind)
        grown = torch.where(torch.isfinite(walk.radius), walk.radius * _GROWTH, 0.0)
        linear = torch.minimum(
            torch.maximum(torch.where(torch.isfinite(linear), linear, 0.0), grown), self.widest[walk.sample]
        )
        open_ = torch.minimum(walk.radius * (1 + share), walk.nearest)
        open_ = torch.where(torch.isfinite(walk.nearest), open_, linear)
        closed = torch.minimum(walk.radius, walk.nearest) * (1 - share)
        walk.radius = torch.where(torch.isneginf(behind), closed, open_)

    def _ahead(self, walk: _Walk, ground: Ground, slope: Tensor, behind: Tensor) -> Tensor:
        """How much further the boundary of the linearised model is, `(m,)`; for l1 with the bounds in mind."""
        import torch

        if self.goal.norm is not Norm.L1:
            dual = size(_DUAL[self.goal.norm], slope)
            return behind.clamp(min=0) / dual.clamp(min=tiny(dual))
        there = ground.across(walk.at, torch.where(ground.free, slope / ground.scale, 0.0), behind)
        return size(Norm.L1, ground.units(there) - ground.units(walk.at))

    def _way(self, slope: Tensor) -> Tensor:
        """The direction of a step of one radius, `(m, ...)`."""
        if self.goal.norm is Norm.LINF:
            return slope.sign()
        return slope / spread(size(Norm.L2, slope).clamp(min=tiny(slope)), slope)


def _movable(walk: _Walk, ground: Ground, slope: Tensor) -> Tensor:
    """The gradient without what lies on a bound and pulls beyond it, `(m, ...)`."""
    import torch

    stuck = ((walk.at >= ground.high) & (slope > 0)) | ((walk.at <= ground.low) & (slope < 0))
    return torch.where(stuck, 0.0, slope)


def _weighed(pull: Tensor, ground: Ground, radius: Tensor) -> Tensor:
    """Where the weights exp(+-pull) send the samples: within the bounds, `radius (m,)` from x at most, `(m, ...)`.

    Each feature has one weight for moving up and one for down; a move is min(1, c weight) times the room to the bound,
    with the c at which all moves add up to the radius. Sorted by weight, the first k fill their room, so c is exact.
    """
    import torch

    up = torch.ones_like(pull)
    way = torch.cat([ground.room(ground.x, up).flatten(1), ground.room(ground.x, -up).flatten(1)], dim=1)
    room = torch.minimum(way, radius[:, None])
    both = torch.cat([pull.flatten(1), -pull.flatten(1)], dim=1)
    weight = (both - both.amax(dim=1, keepdim=True)).clamp(min=_FAINTEST).exp()
    weight, order = weight.sort(dim=1, descending=True, stable=True)
    full = room.gather(1, order)
    filled = full.cumsum(dim=1) - full
    rest = (weight * full).flip(1).cumsum(dim=1).flip(1)
    enough = filled + rest / weight >= radius[:, None]
    k = torch.where(enough.any(dim=1), enough.to(torch.uint8).argmax(dim=1), full.shape[1] - 1)[:, None]
    c = (radius[:, None] - filled.gather(1, k)).clamp(min=0) / rest.gather(1, k).clamp(min=tiny(rest))
    move = torch.empty_like(full).scatter_(1, order, full * (c * weight).clamp(max=1.0))
    up, down = move.chunk(2, dim=1)
    return ground.at((up - down).reshape(pull.shape))
