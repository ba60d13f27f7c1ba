"""One run of Auto-PGD on a batch that shrinks: the state of every sample, a step, a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.norms import Norm
from casemate.engine.prepared import Prepared
from casemate.engine.reach import Reach
from casemate.errors import BudgetExhausted
from casemate.evasion.losses import Loss, margin

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Climb", "checkpoints"]

Array = NDArray[Any]
Found = tuple[NDArray[np.int64], Array]

_MOMENTUM = 0.75  # alpha of the paper
_IMPROVING = 0.75  # rho of the paper
# A margin below this many roundings of the logits may be gone in the harness's own evaluation.
_ROUNDINGS = 1e3
_ROUNDS = 8  # of the l2 projection; it ends sooner when no further coordinate meets its bound


@dataclass(slots=True)
class _State:
    """The samples still in the run; every tensor has them along axis 0."""

    row: Tensor
    y: Tensor
    target: Tensor
    x: Tensor
    low: Tensor
    high: Tensor
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

    def keep(self, mask: Tensor) -> None:
        """Let all other samples go."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name)[mask])


@dataclass(slots=True)
class Climb:
    """A run of `steps` gradients over the samples of a reach `(m, ...)`; `broken (m,)` says which have been claimed.

    A sample whose logits are wrong by more than rounding leaves at once. One that is wrong by less (the model as the
    user gave it may answer otherwise than its folded copy) stays, and is claimed at the end if nothing better was
    found. `strict`: only the target's label is a success; else any wrong one, and the target only says where to pull.
    """

    prepared: Prepared
    reach: Reach
    loss: Loss
    steps: int
    strict: bool = False
    broken: NDArray[np.bool_] = field(init=False)
    _scale: Tensor = field(init=False)
    _whole: Tensor | None = field(init=False, default=None)
    _edge: dict[int, Array] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.broken = np.zeros(len(self.reach), dtype=bool)
        self._scale = self.prepared.tensor(np.broadcast_to(self.reach.scale, (1, *self.reach.x.shape[1:])))
        if self.reach.whole is not None:
            self._whole = self.prepared.tensor(self.reach.whole[None]) > 0

    def run(self, start: Array, y: Array, target: Array | None) -> Iterator[Found]:
        """Climb from `start (m, ...)`: yields rows `(j,)` and points that break them, in the step they are found.

        Raises `BudgetExhausted`; what was yielded before stays valid.
        """
        state = self._opened(start, y, target)
        try:
            yield from self._steps(state, aimed=target is not None)
        except BudgetExhausted:
            yield from self._slightly_wrong()
            raise
        yield from self._slightly_wrong()

    def _steps(self, state: _State, *, aimed: bool) -> Iterator[Found]:
        marks = checkpoints(self.steps)
        passed = 0
        for step in range(self.steps):
            if step:
                self._move(state, momentum=_MOMENTUM if step > 1 else 1.0)
            points, clear = self._look(state, aimed=aimed)
            if bool(clear.any()):
                rows = state.row[clear].cpu().numpy()
                self.broken[rows] = True
                yield rows, points[clear].cpu().numpy()
                state.keep(~clear)
                if len(state.row) == 0:
                    return
            self._remember(state)
            if step in marks:
                self._checkpoint(state, length=step - passed)
                passed = step

    def _opened(self, start: Array, y: Array, target: Array | None) -> _State:
        import torch

        tensor, device = self.prepared.tensor, self.prepared.device
        n = len(self.reach)
        classes = torch.tensor(np.asarray(y, dtype=np.int64), device=device)
        wanted = classes if target is None else torch.tensor(target, device=device)
        x, low, high = (tensor(array) for array in (self.reach.x, self.reach.low, self.reach.high))
        at = torch.clamp(tensor(start), low, high)
        worst = torch.full((n,), float("-inf"), dtype=at.dtype, device=device)
        no, zero = torch.zeros(n, dtype=torch.bool, device=device), torch.zeros(n, dtype=at.dtype, device=device)
        return _State(
            row=torch.arange(n, device=device),
            y=classes,
            target=wanted,
            x=x,
            low=low,
            high=high,
            at=at,
            before=at,
            slope=torch.zeros_like(at),
            value=worst,
            best=at,
            best_slope=torch.zeros_like(at),
            best_value=worst,
            eta=torch.full((n,), 2 * self.reach.eps, dtype=at.dtype, device=device),
            gains=zero,
            mark_value=worst,
            halved=no,
        )

    def _look(self, state: _State, *, aimed: bool) -> tuple[Tensor, Tensor]:
        """Evaluate loss and gradient where the samples are; returns the points and which are clearly a success."""
        import torch

        points = self._snapped(state)
        y, target = state.y, state.target if aimed else None
        logits, value, state.slope = self.prepared.gradient(points, lambda z: self.loss(z, y, target))
        # An increase over the last point, not over the best: condition 1 of the paper counts those.
        state.gains = state.gains + ((value > state.value) & (state.value > float("-inf")))
        state.value = value
        ahead = margin(logits, y, target if self.strict else None)
        rounding = _ROUNDINGS * torch.finfo(logits.dtype).eps * logits.abs().amax(dim=1)
        clear = ahead > rounding
        slight = (ahead > 0) & ~clear
        if bool(slight.any()):
            for row, point in zip(state.row[slight].tolist(), points[slight].cpu().numpy(), strict=True):
                self._edge[row] = point
        return points, clear

    def _slightly_wrong(self) -> Iterator[Found]:
        rows = np.array([row for row in sorted(self._edge) if not self.broken[row]], dtype=np.int64)
        if len(rows):
            self.broken[rows] = True
            yield rows, np.stack([self._edge[int(row)] for row in rows])

    def _remember(self, state: _State) -> None:
        import torch

        better = state.value > state.best_value
        spread = _spread(better, state.at)
        state.best = torch.where(spread, state.at, state.best)
        state.best_slope = torch.where(spread, state.slope, state.best_slope)
        state.best_value = torch.where(better, state.value, state.best_value)

    def _checkpoint(self, state: _State, *, length: int) -> None:
        """Halve the step where it oscillates (condition 1) or stagnates (2), and go back to the best point there."""
        import torch

        oscillates = state.gains < _IMPROVING * length
        stagnates = ~state.halved & (state.best_value <= state.mark_value)
        state.halved = oscillates | stagnates
        state.eta = torch.where(state.halved, state.eta / 2, state.eta)
        spread = _spread(state.halved, state.at)
        state.before = torch.where(spread, state.best, state.before)
        state.at = torch.where(spread, state.best, state.at)
        state.slope = torch.where(spread, state.best_slope, state.slope)
        state.value = torch.where(state.halved, state.best_value, state.value)
        state.mark_value = state.best_value
        state.gains = torch.zeros_like(state.gains)

    def _move(self, state: _State, *, momentum: float) -> None:
        eta = _spread(state.eta, state.at)
        if self.reach.norm is Norm.LINF:
            step = eta * self._scale * state.slope.sign()
        else:
            unit = state.slope * self._scale
            step = eta * self._scale * unit / _size(unit).clamp(min=_tiny(unit))
        ahead = self._inside(state, state.at + step)
        inertia = state.at - state.before
        state.before = state.at
        if momentum < 1:
            ahead = self._inside(state, state.at + momentum * (ahead - state.at) + (1 - momentum) * inertia)
        state.at = ahead

    def _inside(self, state: _State, point: Tensor) -> Tensor:
        """The nearest point of ball and box, in units of the scale."""
        import torch

        if self.reach.norm is Norm.LINF:
            return torch.clamp(point, state.low, state.high)
        units = torch.where(self._scale > 0, self._scale, 1.0)
        z = (point - state.x) / units
        room = torch.where(z > 0, state.high - state.x, state.x - state.low) / units
        moved = torch.minimum(z.abs(), room)
        if bool((_size(moved) > self.reach.eps).any()):
            moved = _shrunk(z.abs(), room, moved, self.reach.eps)
        return state.x + torch.copysign(moved, z) * self._scale

    def _snapped(self, state: _State) -> Tensor:
        """Where the model is asked: whole numbers whole, relations kept; the search itself moves in between."""
        import torch

        if self.reach.relations:
            reach = self.reach.take(state.row.cpu().numpy())
            return self.prepared.tensor(reach.settle(state.at.cpu().numpy()))
        if self._whole is None:
            return state.at
        return torch.where(self._whole, state.x + torch.trunc(state.at - state.x), state.at)


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


def _shrunk(size: Tensor, room: Tensor, moved: Tensor, eps: float) -> Tensor:
    """min(t size, room) with the t that gives norm eps, where `moved` is larger than that.

    t only grows from one round to the next, towards the solution and never past it: coordinates that meet their bound
    leave more of the norm to the others.
    """
    import torch

    square, room_square = size**2, room**2
    full = torch.zeros_like(size)
    t = torch.zeros_like(size[:, :1])
    for _ in range(_ROUNDS):
        left = eps**2 - _sum(room_square * full)
        t = (left.clamp(min=0) / _sum(square * (1 - full)).clamp(min=_tiny(size))).sqrt()
        now = (t * size > room).to(size.dtype)
        if torch.equal(now, full):
            break
        full = now
    return torch.where(_size(moved) > eps, torch.minimum(t * size, room), moved)


def _size(z: Tensor) -> Tensor:
    """The l2 norm of each sample, shaped to broadcast over it."""
    return _sum(z * z).sqrt()


def _sum(z: Tensor) -> Tensor:
    return z.sum(dim=tuple(range(1, z.ndim)), keepdim=True)


def _spread(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _tiny(z: Tensor) -> float:
    import torch

    return float(torch.finfo(z.dtype).tiny)
