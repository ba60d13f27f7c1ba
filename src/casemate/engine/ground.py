"""Where samples may go, as tensors beside the model: bounds, distances, exact projections onto ball, box and plane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.norms import Norm
from casemate.engine.prepared import Prepared
from casemate.engine.reach import Reach

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Ground", "each", "ground_of", "size", "spread", "tiny"]

Array = NDArray[Any]
_CELLS = 2**20  # features that are moved at once: what sorting them takes is some thirty times their own memory


@dataclass(slots=True)
class Ground:
    """The reach of samples `(m, ...)` as tensors of the prepared model's device and dtype.

    All sizes are in units of the schema's scale. `row (m,)` says which samples of the reach are still there. What a
    search finds here is rounded once more by `Reach.settle`, in float64, before it is claimed.
    """

    prepared: Prepared
    reach: Reach
    norm: Norm
    row: Tensor
    x: Tensor
    low: Tensor
    high: Tensor
    scale: Tensor
    free: Tensor
    whole: Tensor | None

    def __len__(self) -> int:
        return len(self.row)

    def keep(self, mask: Tensor | slice) -> Ground:
        """The ground of some of the samples; of a slice, in the same memory."""
        kept = {name: getattr(self, name)[mask] for name in ("row", "x", "low", "high")}
        return Ground(self.prepared, self.reach, self.norm, scale=self.scale, free=self.free, whole=self.whole, **kept)

    def box(self, point: Tensor) -> Tensor:
        """The nearest point within the bounds, `(m, ...)`."""
        import torch

        return torch.clamp(point, self.low, self.high)

    def units(self, point: Tensor) -> Tensor:
        """The way from x to a point in units of the scale, `(m, ...)`; 0 where a feature is fixed or missing."""
        import torch

        return torch.where(self.free & ~self.x.isnan(), (point - self.x) / self._unit(), 0.0)

    def room(self, start: Tensor, ahead: Tensor) -> Tensor:
        """How far each feature can go from `start` the way that `ahead (m, ...)` points, in units of the scale.

        0 where it points nowhere and where a value is missing: those stay.
        """
        import torch

        way = torch.where(ahead > 0, self.high - start, start - self.low).clamp(min=0) / self._unit()
        return torch.where((ahead == 0) | way.isnan(), 0.0, way)

    def at(self, z: Tensor) -> Tensor:
        """The point that lies `z (m, ...)` units from x, within the bounds."""
        return self.box(self.x + z * self.scale)

    def far(self, point: Tensor) -> Tensor:
        """The distance of each point from x, `(m,)`, in the dtype of the model: for the search, not for the record."""
        import torch

        return torch.cat([size(self.norm, part.units(point[rows])) for rows, part in self._parts()])

    def inside(self, point: Tensor, eps: Tensor | float) -> Tensor:
        """The point of ball and box that is nearest in Euclidean units, `(m, ...)`; `eps` is one number or `(m,)`.

        Exact up to rounding: the solution follows one parameter, see `casemate.core.norms`, which sorting the points
        where coordinates meet their bounds solves.
        """
        import torch

        if self.norm is Norm.LINF:
            if not isinstance(eps, torch.Tensor) and eps >= self.reach.eps:
                return self.box(point)  # whose bounds are those of the reach's own ball
            reach = (spread(eps, point) if isinstance(eps, torch.Tensor) else eps) * self.scale
            return self.box(torch.clamp(point, self.x - reach, self.x + reach))
        limit = torch.as_tensor(eps, dtype=point.dtype, device=point.device).expand(len(point))
        found = torch.empty_like(point)
        for rows, part in self._parts():
            found[rows] = part._drawn(point[rows], limit[rows])
        return found

    def across(self, start: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
        """The point of the box nearest to `start` in the norm at which `slope . (point - start) >= rise (m,)`.

        `slope (m, ...)` is per unit of a feature, not per scale. Where no point of the box gets there, the one that
        gets furthest.
        """
        import torch

        found = torch.empty_like(start)
        for rows, part in self._parts():
            found[rows] = part._crossed(start[rows], slope[rows], rise[rows])
        return found

    def snapped(self, point: Tensor) -> Tensor:
        """Where the model is asked: whole numbers whole, relations kept; a search itself moves in between."""
        import torch

        if self.reach.relations:
            part = self.reach.take(self.row.cpu().numpy())
            return self.prepared.tensor(part.settle(point.detach().cpu().numpy()))
        if self.whole is None:
            return point
        return torch.where(self.whole, self.x + torch.trunc(point - self.x), point)

    def _parts(self) -> Iterator[tuple[slice, Ground]]:
        """The samples a few at a time, for a move takes many times their memory; no sample's depends on another's."""
        step = max(1, _CELLS // max(1, self.x.shape[1:].numel()))
        for top in range(0, max(1, len(self)), step):
            rows = slice(top, top + step)
            yield rows, self if len(self) <= step else self.keep(rows)

    def _drawn(self, point: Tensor, limit: Tensor) -> Tensor:
        """As `inside`, of all samples at once."""
        import torch

        z = self.units(point)
        moved = torch.minimum(z.abs(), self.room(self.x, z))
        over = size(self.norm, moved) > limit
        if bool(over.any()):
            moved[over] = _shrunk(self.norm, z[over].abs(), moved[over], limit[over])
        return self.box(self.x + torch.copysign(moved, z) * self.scale)

    def _crossed(self, start: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
        """As `across`, of all samples at once."""
        import torch

        gain = slope * self.scale
        room = self.room(start, gain).flatten(1)
        move = _least(self.norm, gain.abs().flatten(1), room, rise.clamp(min=0)[:, None])
        return self.box(start + torch.sign(gain) * move.reshape(start.shape) * self.scale)

    def _unit(self) -> Tensor:
        import torch

        return torch.where(self.free, self.scale, torch.ones_like(self.scale))


def ground_of(prepared: Prepared, reach: Reach) -> Ground:
    """The ground of all samples of a reach."""
    import torch

    tensor, device = prepared.tensor, prepared.device
    scale = tensor(np.broadcast_to(reach.scale, (1, *reach.x.shape[1:])))
    return Ground(
        prepared,
        reach,
        reach.norm,
        row=torch.arange(len(reach), device=device),
        x=tensor(reach.x),
        low=tensor(reach.low),
        high=tensor(reach.high),
        scale=scale,
        free=scale > 0,
        whole=None if reach.whole is None else tensor(reach.whole[None]) > 0,
    )


def size(norm: Norm, z: Tensor) -> Tensor:
    """The norm of each `z (m, ...)`, `(m,)`."""
    flat = z.flatten(1).abs()
    if norm is Norm.LINF:
        return flat.amax(dim=1)
    if norm is Norm.L0:
        return (flat > 0).sum(dim=1).to(flat.dtype)
    return flat.sum(dim=1) if norm is Norm.L1 else (flat * flat).sum(dim=1).sqrt()


def spread(values: Tensor, like: Tensor) -> Tensor:
    """One value for each sample, `(m,)`, shaped to broadcast over samples `(m, ...)`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def each(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """The new samples where `better (m,)`, the old ones elsewhere."""
    import torch

    return torch.where(spread(better, new), new, old)


def _shrunk(norm: Norm, z: Tensor, bounded: Tensor, eps: Tensor) -> Tensor:
    """The point nearest to `z >= 0` in `[0, bounded]` whose norm is `eps (m,)`, where that of `bounded` is larger."""
    shape = z.shape
    z, bounded, limit = z.flatten(1), bounded.flatten(1), eps[:, None]
    if norm is Norm.L0:
        return _largest(z, bounded, eps).reshape(shape)
    solve = _shrunk_l2 if norm is Norm.L2 else _shrunk_l1
    part = solve(z, bounded, limit)
    # What rounding left beyond eps.
    excess = limit / size(norm, part)[:, None].clamp(min=tiny(part))
    return (part * excess.clamp(max=1.0)).reshape(shape)


def _shrunk_l2(z: Tensor, bounded: Tensor, eps: Tensor) -> Tensor:
    """min(t z, bounded) with the t <= 1 that gives norm eps.

    Which coordinates are at their bounds gives t, and t gives which: from the second round on t only grows, towards the
    solution, and there are finitely many such sets, so it ends there; sorting where they meet their bounds took longer.
    """
    import torch

    t = torch.ones_like(eps)
    for _ in range(z.shape[1] + 1):
        at_bound = t * z >= bounded
        full = torch.where(at_bound, bounded, 0.0).square().sum(dim=1, keepdim=True)
        free = torch.where(at_bound, 0.0, z).square().sum(dim=1, keepdim=True)
        before, t = t, ((eps**2 - full).clamp(min=0) / free.clamp(min=tiny(z))).sqrt().clamp(max=1.0)
        if not bool(((t - before).abs() > torch.finfo(t.dtype).eps * before).any()):
            break
    return torch.minimum(t * z, bounded)


def _shrunk_l1(z: Tensor, bounded: Tensor, eps: Tensor) -> Tensor:
    """clip(z - t, 0, bounded) with the t that gives sum eps: the sum is piecewise linear in t."""
    import torch

    ends = torch.cat([z - bounded, z], dim=1)
    turns = torch.cat([torch.full_like(z, -1.0), torch.ones_like(z)], dim=1)
    ends, order = ends.sort(dim=1, stable=True)
    slope = turns.gather(1, order).cumsum(dim=1)
    gaps = torch.diff(ends, dim=1, append=ends[:, -1:])
    total = bounded.sum(dim=1, keepdim=True) + _before(gaps * slope)
    k = (_first(total <= eps) - 1).clamp(min=0)
    fall = (-slope.gather(1, k)).clamp(min=1.0)
    t = ends.gather(1, k) + (total.gather(1, k) - eps) / fall
    return torch.minimum((z - t).clamp(min=0), bounded)


def _largest(z: Tensor, bounded: Tensor, eps: Tensor) -> Tensor:
    """The `eps (m,)` coordinates whose move lowers the squared distance most; the others stay at 0."""
    import torch

    worth = bounded * (2 * z - bounded)
    order = worth.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(z.shape[1], device=z.device).expand_as(order))
    return torch.where(rank < torch.floor(eps * (1 + 1e-9))[:, None], bounded, 0.0)


def _least(norm: Norm, gain: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """Least move in `[0, room]`, `(m, d)`, with sum(gain * move) >= goal `(m, 1)`; all it can where that is too far."""
    import torch

    if norm in (Norm.L1, Norm.L0):
        key = gain if norm is Norm.L1 else gain * room
        order = key.argsort(dim=1, descending=True, stable=True)
        worth, weight = (gain * room).gather(1, order), gain.gather(1, order)
        taken = torch.minimum((goal - _before(worth)).clamp(min=0), worth)
        move = torch.where(weight > 0, taken / weight.clamp(min=tiny(gain)), 0.0)
        if norm is Norm.L0:  # a coordinate that moves at all costs one, however far it goes
            move = torch.where(move > 0, room.gather(1, order), 0.0)
        return torch.minimum(torch.empty_like(move).scatter_(1, order, move), room)
    pace = (gain > 0).to(gain.dtype) if norm is Norm.LINF else gain
    stop = torch.where(pace > 0, room / pace.clamp(min=tiny(gain)), 0.0)
    stop, order = stop.sort(dim=1)
    weight, full, speed = (value.gather(1, order) for value in (gain, room, pace))
    below, above = _before(weight * full), _from(weight * speed)
    k = _first(below + stop * above >= goal)
    left = (goal - below.gather(1, k)).clamp(min=0)
    t = left / above.gather(1, k).clamp(min=tiny(gain))
    return torch.minimum(torch.minimum(t, stop.gather(1, k)) * pace, room)


def _before(values: Tensor) -> Tensor:
    """Sum of the entries before each one, along axis 1."""
    import torch

    total = values.cumsum(dim=1)
    return torch.cat([torch.zeros_like(total[:, :1]), total[:, :-1]], dim=1)


def _from(values: Tensor) -> Tensor:
    """Sum of each entry and those after it, along axis 1."""
    return values.flip(1).cumsum(dim=1).flip(1)


def _first(hit: Tensor) -> Tensor:
    """Index of the first True of each row, `(m, 1)`; the last index where rounding leaves none."""
    import torch

    index = hit.to(torch.uint8).argmax(dim=1, keepdim=True)
    return torch.where(hit.any(dim=1, keepdim=True), index, hit.shape[1] - 1)


def tiny(z: Tensor) -> float:
    """The smallest normal number of a tensor's dtype: what keeps a division by a size from being one by 0."""
    import torch

    return float(torch.finfo(z.dtype).tiny)
