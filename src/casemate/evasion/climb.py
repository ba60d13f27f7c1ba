"""One run of Auto-PGD on a batch that shrinks: the state of every sample, a step, a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.norms import Norm
from casemate.engine.ground import Ground, each, ground_of, size, spread, tiny
from casemate.engine.prepared import Prepared
from casemate.engine.reach import Reach
from casemate.errors import BudgetExhausted
from casemate.evasion.losses import Loss, clearly, margin

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Climb", "Judge", "Stage", "checkpoints"]

Array = NDArray[Any]
Found = tuple[NDArray[np.int64], Array]
Judge = Callable[[NDArray[np.int64], Array], NDArray[np.bool_]]
"""`(rows (j,), points (j, ...)) -> (j,)`: which of these points break the model as the user gave it."""

_MOMENTUM = 0.75  # alpha of the paper
_IMPROVING = 0.75  # rho of the paper
# Of the l1 variant (Croce and Hein 2021, Algorithm 1): the first step moves a fifth of the features; the step size
# falls by 1.5 to a tenth of eps at least, and is whole again where the best point has lost 5 % of its changed features.
_FIRST_SHARE = 0.2
_SPARSER = 1.5
_LEAST_STEP = 10.0
_LOST = 0.95


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a run: how many of its `steps`, and within how many times eps it searches."""

    steps: int
    width: float = 1.0


@dataclass(slots=True)
class _State:
    """The samples still in the run; every tensor has them along axis 0."""

    y: Tensor
    target: Tensor
    at: Tensor
    before: Tensor
    slope: Tensor
    value: Tensor
    best: Tensor
    best_slope: Tensor
    best_value: Tensor
    eta: Tensor
    gains: Tensor
    mark_value: Tensor
    halved: Tensor
    share: Tensor
    changed: Tensor

    def keep(self, mask: Tensor) -> None:
        """Let all other samples go."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name)[mask])


@dataclass(slots=True)
class Climb:
    """A run over the samples of a reach `(m, ...)`; `broken (m,)` says which left it: those clearly wrong.

    A sample whose logits are wrong by more than rounding leaves at once; with a `judge`, where that agrees, and what it
    refuses climbs on. One that is wrong by less (the model as the user gave it may answer otherwise than its folded
    copy) stays, and is claimed at the end if nothing better was found. `strict`: only the target's label is a success;
    else any wrong one, and the target only says where to pull.
    `stages` share one run: all but the last may search a wider ball, whose best points are drawn into the next.
    With several `lanes` that many rows side by side are one sample on its way to different classes: they leave
    together, one of them is claimed, and `cuts` says after how many steps of the last stage how many of them go on,
    those that came nearest. `reached (m,)` is the highest loss of each row, `steered (m,)` says which had a gradient
    where they began; the last points of a stage need none.
    """

    prepared: Prepared
    reach: Reach
    loss: Loss
    stages: tuple[Stage, ...]
    strict: bool = False
    lanes: int = 1
    cuts: Mapping[int, int] = field(default_factory=dict)
    judge: Judge | None = None
    broken: NDArray[np.bool_] = field(init=False)
    reached: NDArray[np.float64] = field(init=False)
    steered: NDArray[np.bool_] = field(init=False)
    _ground: Ground = field(init=False)
    _edge: dict[int, Array] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.broken, self.steered = np.zeros((2, len(self.reach)), dtype=bool)
        self.reached = np.full(len(self.reach), -np.inf)
        self._ground = ground_of(self.prepared, self.reach)

    def run(self, start: Array, y: Array, target: Array | None) -> Iterator[Found]:
        """Climb from `start (m, ...)`: yields rows `(j,)` and points that break them, in the step they are found.

        Raises `BudgetExhausted`; what was yielded before stays valid.
        """
        state = self._opened(start, y, target)
        try:
            for stage in self.stages:
                self._enter(state, stage)
                yield from self._steps(state, stage, aimed=target is not None)
                if not len(self._ground):
                    break
        except BudgetExhausted:
            yield from self._slightly_wrong()
            raise
        yield from self._slightly_wrong()

    def _steps(self, state: _State, stage: Stage, *, aimed: bool) -> Iterator[Found]:
        marks = checkpoints(stage.steps) if self.reach.norm is not Norm.L1 else _sparse_checkpoints(stage.steps)
        passed = 0
        for step in range(stage.steps):
            if step:
                self._move(state, stage, momentum=_MOMENTUM if step > 1 else 1.0)
            points, clear = self._look(state, stage, aimed=aimed, last=step + 1 == stage.steps)
            if not step:
                self.steered[self._ground.row[(state.slope != 0).flatten(1).any(dim=1)].cpu().numpy()] = True
            if bool(clear.any()):
                rows = self._ground.row[clear].cpu().numpy()
                _, first = np.unique(rows // self.lanes, return_index=True)
                self._leave(rows)
                yield rows[first], points[clear][first].cpu().numpy()
                self._keep(state, ~clear if self.lanes == 1 else self._standing())
                if not len(self._ground):
                    return
            self._remember(state)
            if step + 1 in self.cuts and stage.width <= 1:  # in a wider ball another lane can be ahead
                self._keep(state, self._ahead(state.best_value, self.cuts[step + 1]))
            if step in marks:
                self._checkpoint(state, stage, length=step - passed)
                passed = step

    def _leave(self, rows: Array) -> None:
        """Whoever is broken, with the other lanes of the same samples."""
        for lane in range(self.lanes):
            self.broken[rows // self.lanes * self.lanes + lane] = True

    def _standing(self) -> Tensor:
        import torch

        broken = torch.as_tensor(self.broken, device=self._ground.row.device)
        return ~broken[self._ground.row]

    def _ahead(self, value: Tensor, most: int) -> Tensor:
        """Which rows are among the `most` best lanes of their sample, `(m,)`; the earlier lane where two are equal."""
        import torch

        lanes = torch.full((len(self.reach),), float("-inf"), dtype=value.dtype, device=value.device)
        lanes[self._ground.row] = torch.nan_to_num(value, nan=float("-inf"))
        order = lanes.reshape(-1, self.lanes).argsort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(self.lanes, device=order.device).expand_as(order)
        )
        return (rank < most).reshape(-1)[self._ground.row]

    def _keep(self, state: _State, mask: Tensor) -> None:
        state.keep(mask)
        self._ground = self._ground.keep(mask)

    def _opened(self, start: Array, y: Array, target: Array | None) -> _State:
        import torch

        tensor, device, n = self.prepared.tensor, self.prepared.device, len(self.reach)
        classes = torch.tensor(np.asarray(y, dtype=np.int64), device=device)
        at = self._ground.box(tensor(start))
        zero = torch.zeros(n, dtype=at.dtype, device=device)
        return _State(
            y=classes,
            target=classes if target is None else torch.tensor(target, device=device),
            at=at,
            before=at,
            slope=torch.zeros_like(at),
            value=zero - float("inf"),
            best=at,
            best_slope=torch.zeros_like(at),
            best_value=zero - float("inf"),
            eta=zero,
            gains=zero,
            mark_value=zero,
            halved=zero > 0,
            share=zero + _FIRST_SHARE,
            changed=zero + float("inf"),
        )

    def _enter(self, state: _State, stage: Stage) -> None:
        """Begin a stage at the best points so far, drawn into its ball."""
        import torch

        eps = stage.width * self.reach.eps
        if len(self.stages) > 1:
            state.at = state.before = state.best = self._ground.inside(state.best, eps)
        nothing = torch.full_like(state.value, float("-inf"))
        state.value = state.best_value = state.mark_value = nothing
        state.eta = torch.full_like(state.eta, eps if self.reach.norm is Norm.L1 else 2 * eps)
        state.gains, state.halved = torch.zeros_like(state.gains), torch.zeros_like(state.halved)

    def _look(self, state: _State, stage: Stage, *, aimed: bool, last: bool) -> tuple[Tensor, Tensor]:
        """Evaluate loss and gradient where the samples are; returns the points and which are clearly a success."""
        import torch

        points = self._ground.snapped(state.at)
        y, target = state.y, state.target if aimed else None
        near = self._ground.far(points) <= self.reach.eps if stage.width > 1 else None

        def lead(z: Tensor) -> Tensor:
            ahead = margin(z, y, target if self.strict else None)
            return ahead if near is None else torch.where(near, ahead, float("-inf"))

        def done(z: Tensor) -> Tensor:
            return torch.full((len(z),), last) if last or self.judge else clearly(lead(z), z)

        logits, value, state.slope = self.prepared.gradient(points, lambda z: self.loss(z, y, target), done)
        # An increase over the last point, not over the best: condition 1 of the paper counts those.
        state.gains = state.gains + ((value > state.value) & (state.value > float("-inf")))
        state.value = value
        ahead = lead(logits)
        clear = clearly(ahead, logits)
        slight = (ahead > 0) & ~clear
        if bool(slight.any()):
            rows = self._ground.row[slight].tolist()
            for row, point in zip(rows, points[slight].cpu().numpy(), strict=True):
                self._edge[row] = point
        return points, self._confirmed(points, clear)

    def _confirmed(self, points: Tensor, clear: Tensor) -> Tensor:
        """Those of the clear successes that the judge agrees to, `(m,)`."""
        import torch

        if self.judge is None or not bool(clear.any()):
            return clear
        agreed = self.judge(self._ground.row[clear].cpu().numpy(), points[clear].cpu().numpy())
        return clear.masked_scatter(clear, torch.as_tensor(agreed, device=clear.device))

    def _slightly_wrong(self) -> Iterator[Found]:
        rows = np.array([row for row in sorted(self._edge) if not self.broken[row]], dtype=np.int64)
        if len(rows):
            rows = rows[np.unique(rows // self.lanes, return_index=True)[1]]
            yield rows, np.stack([self._edge[int(row)] for row in rows])

    def _remember(self, state: _State) -> None:
        better = state.value > state.best_value
        state.best = each(better, state.at, state.best)
        state.best_slope = each(better, state.slope, state.best_slope)
        state.best_value = each(better, state.value, state.best_value)
        self.reached[self._ground.row.cpu().numpy()] = state.best_value.double().cpu().numpy()

    def _checkpoint(self, state: _State, stage: Stage, *, length: int) -> None:
        """Adapt the step, and go back to the best point where that is called for."""
        import torch

        back = self._sparser(state, stage) if self.reach.norm is Norm.L1 else self._shorter(state, length=length)
        state.before = each(back, state.best, state.before)
        state.at = each(back, state.best, state.at)
        state.slope = each(back, state.best_slope, state.slope)
        state.value = each(back, state.best_value, state.value)
        state.mark_value = state.best_value
        state.gains = torch.zeros_like(state.gains)

    @staticmethod
    def _shorter(state: _State, *, length: int) -> Tensor:
        """Halve the step where it oscillates (condition 1) or stagnates (2), `(m,)`."""
        import torch

        oscillates = state.gains < _IMPROVING * length
        stagnates = ~state.halved & (state.best_value <= state.mark_value)
        state.halved = oscillates | stagnates
        state.eta = torch.where(state.halved, state.eta / 2, state.eta)
        return state.halved

    def _sparser(self, state: _State, stage: Stage) -> Tensor:
        """The l1 variant: whole steps again where the best point grew sparser, `(m,)`; shorter ones elsewhere."""
        import torch

        changed = size(Norm.L0, self._ground.units(state.best))
        fewer = changed < _LOST * state.changed
        whole = stage.width * self.reach.eps
        state.eta = torch.where(fewer, whole, (state.eta / _SPARSER).clamp(min=whole / _LEAST_STEP))
        # Ours: of the changed features only those that can still go both ways. With those at their bounds counted the
        # few that share a step never get fewer than are still to be told apart.
        between = (state.best > self._ground.low) & (state.best < self._ground.high) & (state.best != self._ground.x)
        state.share = between.flatten(1).sum(dim=1) / state.at[0].numel() / _SPARSER
        state.changed = changed
        return fewer

    def _move(self, state: _State, stage: Stage, *, momentum: float) -> None:
        eta, eps = spread(state.eta, state.at), stage.width * self.reach.eps
        ahead = self._ground.inside(state.at + eta * self._ground.scale * self._direction(state), eps)
        inertia = state.at - state.before
        state.before = state.at
        if momentum < 1 and self.reach.norm is not Norm.L1:
            ahead = self._ground.inside(state.at + momentum * (ahead - state.at) + (1 - momentum) * inertia, eps)
        state.at = ahead

    def _direction(self, state: _State) -> Tensor:
        """A step of norm 1 up the gradient, in units of the scale, `(m, ...)`."""
        import torch

        if self.reach.norm is Norm.LINF:
            return state.slope.sign()
        unit = state.slope * self._ground.scale
        if self.reach.norm is Norm.L1:  # ours: what lies on a bound that it would cross takes no place among the few
            past = torch.where(unit > 0, self._ground.high - state.at, state.at - self._ground.low) <= 0
            unit = _steepest(torch.where(past, 0.0, unit), state.share)
        length = size(self.reach.norm, unit)
        return unit / spread(length.clamp(min=tiny(unit)), unit)


def checkpoints(steps: int) -> frozenset[int]:
    """When the step size is looked at: w_j = ceil(p_j steps), p_1 = .22, intervals shrinking by .03 down to .06.

    >>> sorted(checkpoints(100))
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    found, previous, share = set(), 0.0, 0.22
    while share < 1:
        found.add(ceil(round(share * steps, 9)))
        previous, share = share, share + max(share - previous - 0.03, 0.06)
    return frozenset(found)


def _sparse_checkpoints(steps: int) -> frozenset[int]:
    """Those of the l1 variant: every 4 % of the steps."""
    return frozenset(range(0, steps, max(int(0.04 * steps), 1))) - {0}


def _steepest(slope: Tensor, share: Tensor) -> Tensor:
    """The signs of the largest entries of each `slope (m, ...)`, a `share (m,)` of them, and 0 elsewhere."""
    import torch

    flat = slope.flatten(1).abs()
    count = (share * flat.shape[1]).long().clamp(1, flat.shape[1])
    least = flat.sort(dim=1, descending=True).values.gather(1, count[:, None] - 1)
    return torch.where(flat >= least, slope.flatten(1).sign(), 0.0).reshape(slope.shape)
