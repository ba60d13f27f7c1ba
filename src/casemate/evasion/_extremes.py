"""The largest and the smallest number that a regression answers near each sample: by gradients, then by values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.lab import Lab
from casemate.core.metering import observed
from casemate.core.norms import Norm, distance
from casemate.core.rng import normals, signs, uniforms
from casemate.engine.ground import Ground, each, ground_of, size, spread, tiny
from casemate.engine.harness import how_far, permitted
from casemate.engine.prepared import Prepared, prepare
from casemate.engine.reach import Reach
from casemate.evasion.search import share

__all__ = ["Best", "Extremes"]

Array = NDArray[Any]


@dataclass(slots=True)
class Best:
    """The largest (`way` 1) or smallest (-1) answer found to each sample so far, and where.

    `odd (n,)`: whose answer at a permitted point was no number; that point is in `odd_x (n, ...)`.
    """

    way: int
    value: Array
    x: Array
    odd: NDArray[np.bool_] = field(init=False)
    odd_x: Array = field(init=False)

    def __post_init__(self) -> None:
        self.odd, self.odd_x = np.zeros(len(self.x), dtype=bool), self.x

    def join(self, value: Array, x: Array, lawful: NDArray[np.bool_]) -> None:
        """Take what is better of the answers `value (n,)` to points `x (n, ...)`, of those that are `lawful (n,)`."""
        known = np.isfinite(value)
        with np.errstate(invalid="ignore"):
            better = lawful & known & (self.way * value > self.way * self.value)
        self.value = np.where(better, value, self.value)
        self.x = np.where(_across(better, x), x, self.x)
        fresh = lawful & ~known & ~self.odd
        self.odd_x = np.where(_across(fresh, x), x, self.odd_x)
        self.odd = self.odd | fresh


def _across(mask: Array, x: Array) -> Array:
    return np.reshape(mask, (-1, *(1,) * (x.ndim - 1)))


@dataclass(frozen=True, slots=True)
class Extremes:
    """One search: the samples of a reach with their ids `(n,)`, and whom to ask."""

    case: Case
    reach: Reach
    ids: Array
    lab: Lab

    def search(self, best: Best) -> None:
        """By gradients where there are any, then by values; `best` keeps what was found when the budget ends.

        Raises `BudgetExhausted`.
        """
        if self.case.the_model().module is not None:
            self._climb(best)
        self._ask(best)

    def _measure(self, best: Best, points: Array, *, paid: bool) -> Array:
        """The answers, `(n,)`; only what the user's model says of a permitted point inside the ball counts."""
        model = self.case.the_model() if paid else observed(self.case.the_model(), self.lab.meter)
        value = np.asarray(model.labels(points), dtype=np.float64)
        schema = self.case.schema
        inside = how_far(self.reach.norm, self.reach.x, points, schema) <= self.reach.eps * (1 + 1e-6)
        lawful = inside if schema is None else inside & permitted(schema, self.reach.x, points)
        best.join(value, points, lawful)
        return value

    def _climb(self, best: Best) -> None:
        prepared = prepare(self.case.the_model(), self.reach.x, self.lab.meter, seed=self.lab.seed_for("draws"))
        ground = ground_of(prepared, self.reach)
        for start in (best.x, self._corner(best.way)):
            points = self.reach.settle(_ascended(prepared, ground, start, way=best.way, steps=self.lab.options.steps))
            self._measure(best, points, paid=False)

    def _corner(self, way: int) -> Array:
        up = signs(self.lab.seed, ("regression corner", way), self.ids, self.reach.x.shape[1:]) > 0
        return self.reach.settle(np.where(up, self.reach.high, self.reach.low))

    def _ask(self, best: Best) -> None:
        queries = self.lab.options.queries
        places = self._changeable()
        if 2 * len(places) + 1 <= queries:
            self._measure(best, self._along_slopes(best, places), paid=True)
            queries -= 2 * len(places) + 1
        for query in range(1, queries + 1):
            self._measure(best, self._proposal(query, best), paid=True)

    def _changeable(self) -> list[tuple[int, ...]]:
        """The places of the features that may change in any sample."""
        shape = self.reach.x.shape[1:]
        return [tuple(place) for place in np.argwhere(np.broadcast_to(self.reach.scale > 0, (1, *shape))[0])]

    def _along_slopes(self, best: Best, places: list[tuple[int, ...]]) -> Array:
        """The point that is best for a linear function with the slopes between both ends of each feature's range."""
        reach = self.reach
        slope = np.zeros(reach.x.shape)
        for where in places:
            place: tuple[Any, ...] = (slice(None), *where)
            ends = []
            for edge in (reach.high, reach.low):
                point = np.array(reach.x)
                point[place] = edge[place]
                ends.append(self._measure(best, reach.settle(point), paid=True))
            known = np.isfinite(ends).all(axis=0)
            slope[place] = np.where(known, ends[0], 0.0) - np.where(known, ends[1], 0.0)
        gap = (reach.high.astype(np.float64) - reach.low) / np.where(reach.scale > 0, reach.scale, 1.0)
        slope = best.way * np.where(gap > 0, slope / np.where(gap > 0, gap, 1.0), 0.0)
        if reach.norm is Norm.LINF:
            return reach.settle(np.where(slope > 0, reach.high, np.where(slope < 0, reach.low, reach.x)))
        length = np.sqrt((slope**2).reshape(len(slope), -1).sum(1)).reshape(-1, *(1,) * (slope.ndim - 1))
        return reach.settle(reach.x + reach.eps * reach.scale * slope / np.where(length > 0, length, 1.0))

    def _proposal(self, query: int, best: Best) -> Array:
        """A block of features anew: at an edge, inside or back; fewer of them as the search goes on."""
        reach, seed, name = self.reach, self.lab.seed, ("regression", best.way, query)
        shape = reach.x.shape[1:]
        part = share(query, max(self.lab.options.queries, 1), 0.8)
        chosen = uniforms(seed, (*name, "block"), self.ids, shape)
        block = chosen <= np.maximum(chosen.reshape(len(chosen), -1).min(axis=1).reshape(-1, *(1,) * len(shape)), part)
        way = uniforms(seed, (*name, "way"), self.ids).reshape(-1, *(1,) * len(shape))
        if reach.norm is Norm.LINF:
            place = uniforms(seed, (*name, "place"), self.ids, shape)
            edge = np.where(place < 0.5, reach.low, reach.high)
            within = reach.low + place * (reach.high - reach.low)
            new = np.where(way < 0.5, edge, np.where(way < 0.75, within, reach.x))
            return reach.settle(np.where(block, new, best.x))
        unit = np.where(reach.scale > 0, reach.scale, 1.0)
        draw = normals(seed, (*name, "direction"), self.ids, shape) * reach.eps
        step = np.where(block, np.where(way < 0.75, draw, 0.0), np.nan_to_num((best.x - reach.x) / unit))
        far = distance(reach.norm, np.zeros_like(step), step, np.ones_like(step[0]))
        onto = np.where(far > 0, reach.eps / np.where(far > 0, far, 1.0), 0.0).reshape(-1, *(1,) * len(shape))
        return reach.settle(reach.x + onto * step * reach.scale)


def _ascended(prepared: Prepared, ground: Ground, start: Array, *, way: int, steps: int) -> Array:
    """The best iterate `(m, ...)` of `steps` steps up `way * f`, whose length falls from 2 eps as a cosine."""
    import torch

    at = best = ground.box(prepared.tensor(start))
    top = torch.full((len(at),), -torch.inf, dtype=at.dtype, device=at.device)
    eps = ground.reach.eps
    for step in range(steps):
        points = ground.snapped(at)
        _, value, slope = prepared.gradient(points, lambda z: way * z[:, 0])
        better = value > top
        best, top = each(better, points, best), torch.where(better, value, top)
        slope = slope * ground.scale
        unit = slope.sign() if ground.norm is Norm.LINF else slope / spread(size(Norm.L2, slope), slope).clamp(tiny(at))
        eta = eps * (1 + np.cos(np.pi * step / steps))
        at = ground.inside(at + eta * ground.scale * unit, eps)
    value = way * prepared.logits(ground.snapped(at))[:, 0]
    return np.asarray(each(value > top, ground.snapped(at), best).cpu().numpy())
