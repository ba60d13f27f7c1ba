"""Varied climbs: many short ascents that differ in start, step and what they climb, where one kind finds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.norms import Norm
from casemate.core.options import Count, Within
from casemate.core.plugin import attack
from casemate.core.rng import uniforms
from casemate.engine.ground import Ground, ground_of, size, spread, tiny
from casemate.engine.prepared import Prepared, prepare
from casemate.engine.reach import reach_of
from casemate.errors import BudgetExhausted, ConfigError, UsageError
from casemate.evasion import THREAT
from casemate.evasion.losses import clearly, margin, pick
from casemate.evasion.watched import Watched, watch_units

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["VariedOptions", "varied_attack"]

Array = NDArray[Any]
Found = tuple[NDArray[np.int64], Array]
_FEW = 128  # inputs: beyond, starts cover so little of a ball that more of them seldom pay
_ROUND = 1024  # climbs of one sample at once, at most
_AT_ONCE = 4096  # climbs
_UP = 5  # the share of the steps that go up a unit: one in so many
_STARTS = 1  # of each style in the first round
_AIMS = 9  # of the likeliest wrong classes, in turn


@dataclass(frozen=True, slots=True)
class VariedOptions:
    """`gradients` a sample on any net; where inputs are few, as many as `work` multiplications pay, up to `most`."""

    gradients: Count = 100
    work: Annotated[float, Within(least=0)] = 2e10
    most: Count = 30_000


@dataclass(frozen=True, slots=True)
class _Style:
    """A kind of climb: where it starts, its first and last step in radii, and how its direction is made.

    `edge`: from a corner of the ball (l2: its sphere), else from anywhere inside. `plain`: along the gradient itself,
    its mean size 1, instead of its signs. `unit`: for the first fifth of the steps up a hidden unit. `flips`: from
    corner to corner, each step the best change of one coordinate, without gradients.
    """

    steps: int
    first: float
    last: float
    edge: bool = False
    plain: bool = False
    momentum: float = 0.0
    unit: bool = False
    flips: bool = False

    def price(self, inputs: int) -> int:
        """Gradients that a climb costs at most; a forward pass counts half."""
        return self.steps * inputs // 2 if self.flips else self.steps


# A net that was trained to stand climbs of one kind stands others less: so there are several kinds, in turn.
_STYLES = (
    _Style(50, 0.5, 0.02, plain=True, momentum=0.75),
    _Style(50, 1.0, 0.02, momentum=0.9),
    _Style(50, 0.5, 0.02, plain=True, momentum=0.75, unit=True),
    _Style(50, 0.5, 0.02, plain=True, momentum=0.75, edge=True),
    _Style(20, 2.0, 0.02, unit=True),
    _Style(25, 1.0, 1.0, edge=True, flips=True),
)


@attack(
    threat=THREAT,
    source="Casemate's own; the hidden counterexamples it is for: Zhou et al., SoundnessBench, arXiv 2412.03154",
    needs={Facet.GRADIENTS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.EXPENSIVE,
    options=VariedOptions,
    profiles={Profile.QUICK: {"gradients": 60, "work": 2e9}, Profile.FULL: {"gradients": 1000, "work": 2e11}},
    norms={Norm.LINF, Norm.L2},
    requires=("torch",),
)
def varied_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """Short climbs of several kinds from many starts; small nets, where a climb costs little, get thousands.

    Looks for x' with ||(x' - x) / scale|| <= eps inside the bounds and a wrong answer (or the goal's target). The
    attacker knows the weights. Errs towards robust. Rounds of climbs on the margin, each of another style: along the
    gradient or its signs, from corners or from inside, some first up one hidden unit (a counterexample can sit behind
    units that are inactive wherever the usual climbs go, and whose own slope still leads there), and, where there are
    enough gradients left and the norm is linf, from corner to corner without gradients. Each round begins with another
    of the likeliest wrong classes. How many climbs there are is counted from the multiplications of one forward pass
    and the number of inputs, never by a clock.

    Raises `UsageError` for eps = inf, `ConfigError` for options below 1, `BudgetExhausted` when the budget ends.
    """
    options: VariedOptions = lab.options
    if not np.isfinite(goal.eps):
        raise UsageError(
            "expected a finite eps for evasion/varied, got inf: ask a minimum-norm attack for the distance"
        )
    if min(options.gradients, options.most) < 1 or options.work < 0:
        raise ConfigError(
            f"expected gradients and most >= 1 and work >= 0 for evasion/varied, got {options}: leave them out"
        )
    rows = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    if not len(rows) or goal.eps == 0:
        return
    prepared = prepare(case.the_model(), batch.x, lab.meter, seed=lab.seed)
    reach = reach_of(goal.norm, goal.eps, batch.x[rows], case.schema)
    search = _Search(prepared, ground_of(prepared, reach), batch.take(rows), goal, lab.seed)
    for found, points in search.run(options):
        yield Claim(rows[found], x=reach.take(found).settle(points))


@dataclass(slots=True)
class _Climbs:
    """Some climbs of one style; `turn (m,)` says which unit each begins with, `aim (m,)` its class."""

    ground: Ground
    y: Tensor
    aim: Tensor
    turn: Tensor
    at: Tensor
    pull: Tensor

    def keep(self, stays: Tensor) -> _Climbs:
        """The climbs of some samples."""
        parts = {item.name: getattr(self, item.name)[stays] for item in fields(self) if item.name != "ground"}
        return _Climbs(ground=self.ground.keep(stays), **parts)

    def move(self, slope: Tensor, style: _Style, pace: float) -> None:
        """One step, `pace` radii long."""
        ahead = _direction(slope * self.ground.scale, style, self.ground.norm)
        self.pull = style.momentum * self.pull + (1 - style.momentum) * ahead
        self.at = self.ground.inside(self.at + pace * _radius(self.ground) * self.pull, self.ground.reach.eps)


class _Search:
    """What still stands of a batch, and the rounds of climbs that it is put through."""

    def __init__(self, prepared: Prepared, ground: Ground, batch: Batch, goal: Goal, seed: int) -> None:
        import torch

        self.prepared, self.ground, self.batch, self.goal, self.seed = prepared, ground, batch, goal, seed
        self.alive = np.arange(len(batch))
        self.edge: dict[int, Array] = {}
        self.y = torch.tensor(np.asarray(batch.y, dtype=np.int64), device=prepared.device)
        self.wide, self.watcher = watch_units(prepared, ground.x[:1])
        self.aims = self._likeliest(prepared.logits(ground.x))
        self.climbed = 0  # units so far, of each sample

    def run(self, options: VariedOptions) -> Iterator[Found]:
        """Rounds of ever more climbs, each of the next style; yields rows `(j,)` and points that break them."""
        left, number, inputs = _allowance(options, self.watcher, self.ground), 0, self.ground.x[0].numel()
        try:
            while len(self.alive) and left > 0:
                style = _STYLES[number % len(_STYLES)]
                number += 1
                if style.flips and (self.ground.norm is not Norm.LINF or style.price(inputs) > left):
                    continue
                starts = min(_STARTS << ((number - 1) // len(_STYLES)), _ROUND, max(1, left // style.price(inputs)))
                style = replace(style, steps=min(style.steps, left))
                part = max(1, _AT_ONCE // (starts * (inputs if style.flips else 1)))
                for rows in np.split(self.alive, range(part, len(self.alive), part)):
                    yield from self._round(style, number - 1, rows, starts)
                self.climbed += starts if style.unit else 0
                left -= starts * style.price(inputs)
        except BudgetExhausted:
            yield from self._slightly_wrong()
            raise
        yield from self._slightly_wrong()

    def _round(self, style: _Style, number: int, rows: Array, starts: int) -> Iterator[Found]:
        """Climb from `starts` points of each of some samples, which leave with their first success."""
        import torch

        climbs = self._opened(style, number, rows, starts)
        if style.flips:
            yield from self._flipped(climbs, style.steps)
            return
        for step in range(style.steps):
            points = climbs.ground.snapped(climbs.at)
            logits, slope = self._look(climbs, points, up=style.unit and step < style.steps // _UP)
            hit = self._hits(climbs, points, logits)
            if bool(hit.any()):
                broken, first = np.unique(climbs.ground.row[hit].cpu().numpy(), return_index=True)
                yield broken, points[hit].cpu().numpy()[first]
                self.alive = np.setdiff1d(self.alive, broken)
                stays = ~torch.isin(climbs.ground.row, climbs.ground.row[hit])
                if not bool(stays.any()):
                    return
                climbs, slope = climbs.keep(stays), slope[stays]
            climbs.move(slope, style, style.first * (style.last / style.first) ** (step / style.steps))

    def _flipped(self, climbs: _Climbs, steps: int) -> Iterator[Found]:
        """From corners along the edges of the ball, each time to the best neighbour, for as long as that is better."""
        import torch

        d, shape = climbs.at[0].numel(), climbs.at.shape[1:]
        value = torch.full_like(climbs.at.flatten(1)[:, 0], float("-inf"))
        for _ in range(steps):
            here = climbs.at.flatten(1)[:, None]
            there = (climbs.ground.low + climbs.ground.high).flatten(1)[:, None] - here
            around = torch.where(torch.eye(d, dtype=torch.bool, device=here.device), there, here).reshape(-1, *shape)
            many = climbs.keep(torch.arange(len(climbs.y), device=here.device).repeat_interleave(d))
            points = many.ground.snapped(many.ground.box(around))
            logits = self.prepared.logits(points)
            hit = self._hits(many, points, logits)
            if bool(hit.any()):
                broken, first = np.unique(many.ground.row[hit].cpu().numpy(), return_index=True)
                yield broken, points[hit].cpu().numpy()[first]
                self.alive = np.setdiff1d(self.alive, broken)
            aim = None if self.goal.target is None else many.aim
            lead, best = margin(logits, many.y, aim).reshape(-1, d).max(dim=1)
            climbs.at = points.reshape(-1, d, *shape)[torch.arange(len(best), device=best.device), best]
            stays = (lead > value) & ~torch.isin(climbs.ground.row, many.ground.row[hit])
            if not bool(stays.any()):
                return
            climbs, value = climbs.keep(stays), lead[stays]

    def _opened(self, style: _Style, number: int, rows: Array, starts: int) -> _Climbs:
        import torch

        every = torch.tensor(np.repeat(rows, starts), device=self.prepared.device)
        draw = uniforms(self.seed, ("varied", number), self.batch.sample_id[rows], (starts, *self.batch.x.shape[1:]))
        ground = self.ground.keep(every)
        at = self._start(ground, style, draw.reshape(-1, *draw.shape[2:]))
        turn = torch.arange(starts, device=every.device).repeat(len(rows))
        aim = self.aims[every, (turn + number) % self.aims.shape[1]]
        return _Climbs(ground, self.y[every], aim, self.climbed + turn, at, torch.zeros_like(at))

    def _look(self, climbs: _Climbs, points: Tensor, *, up: bool) -> tuple[Tensor, Tensor]:
        """Logits, and the gradient of what is climbed: the lead of a class, or one hidden unit, in odd turns downwards.

        The class that a climb aims at leads over the true one, or, where it alone counts, over all others.
        """
        y, aim = climbs.y, climbs.aim
        if up and self.watcher.units and not self.prepared.random:
            column = self.watcher.classes + climbs.turn // 2 % self.watcher.units
            sign = 1 - 2 * (climbs.turn % 2)
            wide, _, slope = self.wide.gradient(points, lambda z: sign * pick(z, column))
            return wide[:, : self.watcher.classes], slope
        alone = self.goal.target is not None
        logits, _, slope = self.prepared.gradient(
            points, lambda z: margin(z, y, aim) if alone else pick(z, aim) - pick(z, y)
        )
        return logits, slope

    def _hits(self, climbs: _Climbs, points: Tensor, logits: Tensor) -> Tensor:
        """Which points `(m,)` are clearly a success; of what is wrong by mere rounding one point a sample is kept."""
        ahead = margin(logits, climbs.y, None if self.goal.target is None else climbs.aim)
        clear = clearly(ahead, logits)
        slight = (ahead > 0) & ~clear
        if bool(slight.any()):
            for row, point in zip(climbs.ground.row[slight].tolist(), points[slight].cpu().numpy(), strict=True):
                self.edge.setdefault(row, point)
        return clear

    def _slightly_wrong(self) -> Iterator[Found]:
        rows = np.array([row for row in sorted(self.edge) if row in self.alive], dtype=np.int64)
        if len(rows):
            yield rows, np.stack([self.edge[int(row)] for row in rows])

    def _likeliest(self, logits: Tensor) -> Tensor:
        """The classes that climbs of each sample aim at in turn, `(n, a)`."""
        import torch

        if self.goal.target is not None:
            return torch.full_like(self.y, self.goal.target)[:, None]
        others = logits.scatter(1, self.y[:, None], float("-inf"))
        return others.topk(min(_AIMS, logits.shape[1] - 1), dim=1).indices

    def _start(self, ground: Ground, style: _Style, draw: Array) -> Tensor:
        import torch

        share = self.prepared.tensor(draw)
        if ground.norm is Norm.LINF:
            share = torch.round(share) if style.edge else share
            return ground.box(ground.low + share * (ground.high - ground.low))
        way = torch.where(ground.free, 2 * share - 1, 0.0)
        way = way / spread(size(Norm.L2, way).clamp(min=tiny(way)), way) * (1.0 if style.edge else 0.5)
        return ground.inside(ground.x + self.goal.eps * ground.scale * way, self.goal.eps)


def _allowance(options: VariedOptions, watcher: Watched, ground: Ground) -> int:
    """Gradients a sample."""
    if ground.x[0].numel() > _FEW:
        return options.gradients
    return max(options.gradients, min(options.most, int(options.work / max(1, watcher.work))))


def _radius(ground: Ground) -> Tensor | float:
    """How far each feature can go from the middle of the ball, `(m, ...)`; in l2 the radius, in units of a feature."""
    return (ground.high - ground.low) / 2 if ground.norm is Norm.LINF else ground.reach.eps * ground.scale


def _direction(slope: Tensor, style: _Style, norm: Norm) -> Tensor:
    """Where a climb is drawn, `(m, ...)`: of norm 1, or for linf along the gradient of mean size 1."""
    if norm is Norm.LINF and not style.plain:
        return slope.sign()
    length = size(Norm.L1, slope) / slope[0].numel() if norm is Norm.LINF else size(norm, slope)
    return slope / spread(length.clamp(min=tiny(slope)), slope)
