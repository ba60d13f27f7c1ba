"""SPSA: Adam on a gradient that is estimated from scores along random signs (Uesato et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm
from casemate.core.options import Count
from casemate.core.plugin import attack
from casemate.core.rng import signs, stream
from casemate.engine.harness import wrong
from casemate.engine.reach import Reach, reach_of
from casemate.errors import BudgetExhausted, UsageError
from casemate.evasion import THREAT
from casemate.evasion.rays import runs_of
from casemate.evasion.search import margins

__all__ = ["SpsaOptions", "spsa_attack"]

Array = NDArray[Any]

_DECAY = (0.8, 0.99)  # Adam's beta_1 and beta_2; the paper's 0.9 remembers longer than an estimate of ours stays true
_STRIDE = {Norm.LINF: (1.0, 0.5), Norm.L2: (0.5, 0.05)}  # of eps: Adam's rate at the first and at the last step
_PROBE = (1.0, 0.25)  # of eps: how far the first and the last estimates look
_CHUNK = 1 << 22  # numbers in one call of the model
_LEAST = 1e-30  # the smallest score whose logarithm is taken


@dataclass(frozen=True, slots=True)
class SpsaOptions:
    """`queries` a sample, of which each step takes two for each of `pairs` and one; `tiles`: an image's first ones."""

    queries: Count = 1000
    pairs: Count = 8
    tiles: Count = 49


@attack(
    threat=THREAT,
    source="Uesato, O'Donoghue, van den Oord and Kohli, Adversarial risk and the dangers of evaluating against weak "
    "attacks, ICML 2018, Algorithm 1; estimator: Spall 1992; Adam: Kingma and Ba 2015",
    needs={Facet.SCORES},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.EXPENSIVE,
    options=SpsaOptions,
    profiles={Profile.QUICK: {"queries": 150}, Profile.FULL: {"queries": 5000}},
    norms={Norm.LINF, Norm.L2},
)
def spsa_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """Descend the margin along a gradient that scores alone give: none of the model's own is asked, or can be masked.

    Looks for x' with ||(x' - x) / scale|| <= eps inside the bounds and a wrong answer (or the goal's target). A step
    asks the margin at `pairs` opposite points x' +- delta v, with v of random signs, and moves by Adam on the mean of
    (difference / 2 delta) v. The attacker sees scores (logits where there are some, else the logarithms of scores).
    Errs towards robust.

    The paper's: margin loss, estimator, Adam, projection. Ours: probes are brought into the ball, so that each may be a
    success, and the estimate uses the way between them that is left; delta is a share of eps that falls, wide enough at
    first for models whose steps are wide (the paper's 0.01 sees nothing of a rounded input), and so does the rate; the
    signs of one sample are rows of a Hadamard matrix with its own random signs, none twice before all were used, so
    that each is as random as in the paper, but the estimates of several are orthogonal; an image begins with signs that
    are the same over `tiles`, which halve until they are pixels, since so few directions say little of each pixel. In
    l2 the step is along Adam's direction, of a length in shares of eps. Immutable and missing features and categories
    stay, whole numbers are asked whole, relations hold.

    Under three queries do nothing. Raises `UsageError` for eps = inf, `BudgetExhausted` when the budget ends.
    """
    options: SpsaOptions = lab.options
    if not np.isfinite(goal.eps):
        raise UsageError("expected a finite eps for evasion/spsa, got inf: ask a minimum-norm attack")
    # Few queries are spent on fewer pairs: what shares one number of queries with other attacks cannot know of pairs.
    options = replace(options, pairs=min(options.pairs, max(1, (options.queries - 1) // 2)))
    rows = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    reach = reach_of(goal.norm, goal.eps, batch.x[rows], case.schema)
    descent = _Descent(case.the_model(), goal, options, lab.seed, reach)
    descent.enter(rows, batch)
    cost = 2 * options.pairs + 1
    for step in range(options.queries // cost if goal.eps > 0 and descent.features else 0):
        if not len(descent):
            return
        share = step * cost / options.queries
        yield from descent.estimate(share)
        yield from descent.move(step, share)


class _Descent:
    """Where each sample that stands is, in units of the scale over its free features, and what Adam remembers of it."""

    def __init__(self, model: Model, goal: Goal, options: SpsaOptions, seed: int, reach: Reach) -> None:
        self.model, self.goal, self.options, self.seed, self.reach = _with_logits(model), goal, options, seed, reach
        self.shape = reach.x.shape[1:]
        scale = np.broadcast_to(reach.scale, self.shape).reshape(-1)
        order = runs_of(self.shape)
        self.column = order[scale[order] > 0]
        self.scale, self.features = scale[self.column], len(self.column)
        tiles = options.tiles if len(self.shape) == 3 else self.features
        self.halvings = max(0, math.ceil(math.log2(max(self.features, 1) / tiles)))
        # A level whose directions cannot all be asked would only add noise to the coarser ones.
        self.levels = 1 + min(self.halvings, max(0, int(math.log2(options.queries / (2 * tiles)))))
        self.z = np.zeros((len(reach), self.features))
        self.first, self.second, self.slope = np.zeros_like(self.z), np.zeros_like(self.z), np.zeros_like(self.z)
        self.level, self.drawn = -1, 0

    def __len__(self) -> int:
        return len(self.rows)

    def enter(self, rows: Array, batch: Batch) -> None:
        """Put every sample on its place."""
        self.rows, self.y, self.ids = rows, batch.y[rows], batch.sample_id[rows]

    def estimate(self, share: float) -> Iterator[Claim]:
        """The slope of each margin, from `pairs` pairs of points; samples of which a point is a success leave."""
        level = int(share * self.levels)
        if level != self.level:
            self.level, self.drawn = level, 0
        tiles = math.ceil(self.features / 2 ** (self.halvings - level))
        lines, epoch = self._lines(tiles)
        delta = _between(_PROBE, share) * self.goal.eps / (self.features**0.5 if self.goal.norm is Norm.L2 else 1.0)
        most = max(1, _CHUNK // (2 * self.options.pairs * math.prod(self.shape)))
        broken, points = np.zeros(len(self), dtype=bool), np.array(self.reach.x)
        try:
            for top in range(0, len(self), most):
                part = np.arange(top, min(top + most, len(self)))
                own = signs(self.seed, ("spsa", level, epoch), self.ids[part], (1, tiles))
                way = delta * np.repeat((lines * own).astype(np.float64), _widths(self.features, tiles), axis=2)
                broken[part], points[part] = self._asked(part, way, delta)
        except BudgetExhausted:  # with a later part
            if broken.any():
                yield Claim(self.rows[broken], x=points[broken])
            raise
        yield from self._leave(broken, points)

    def _lines(self, tiles: int) -> tuple[Array, int]:
        """The next rows of a Hadamard matrix over the tiles, `(pairs, tiles)`, in a random order, and its round."""
        size = 1 << (tiles - 1).bit_length()
        numbers = np.arange(self.drawn, self.drawn + self.options.pairs) % size
        epoch = (self.drawn + self.options.pairs - 1) // size
        if epoch != self.drawn // size:  # a step takes all its rows from one round
            numbers = np.arange(self.options.pairs) % size
            self.drawn = epoch * size
        self.drawn += self.options.pairs
        chosen = stream(self.seed, "spsa", self.level, epoch).permutation(size)[numbers]
        return 1 - 2 * (np.bitwise_count(chosen[:, None] & np.arange(tiles)) % 2).astype(np.int8), epoch

    def _asked(self, part: Array, way: Array, delta: float) -> tuple[Array, Array]:
        """Ask both ends of each way `(k, pairs, features)`: whether one is a success `(k,)`, and the first such."""
        each = 2 * self.options.pairs
        both = self.z[part][:, None] + np.concatenate([way, -way], axis=1)
        tried = self._points(np.repeat(part, each), both.reshape(-1, self.features))
        value, hit = margins(self.model, tried, np.repeat(self.y[part], each), self.goal.target)
        ends = tried.reshape(len(part), each, -1)[:, :, self.column].astype(np.float64)
        left = np.nan_to_num((ends[:, : each // 2] - ends[:, each // 2 :]) / (2 * delta * self.scale))
        value, hit = value.reshape(len(part), each), hit.reshape(len(part), each)
        rise = np.nan_to_num(value[:, : each // 2] - value[:, each // 2 :])
        # one product a sample: its rounding must not depend on who shares the batch
        self.slope[part] = np.stack([r @ way_left for r, way_left in zip(rise, left, strict=True)])
        first = tried.reshape(len(part), each, *self.shape)[np.arange(len(part)), hit.argmax(axis=1)]
        return np.asarray(hit.any(axis=1)), first

    def move(self, step: int, share: float) -> Iterator[Claim]:
        """One step of Adam down the margin, back into the ball; samples for which it is a success leave."""
        if not len(self):
            return
        beta, gamma = _DECAY
        self.first = beta * self.first + (1 - beta) * self.slope
        self.second = gamma * self.second + (1 - gamma) * self.slope**2
        size = np.sqrt(self.second / (1 - gamma ** (step + 1)))
        way = np.divide(self.first / (1 - beta ** (step + 1)), size, out=np.zeros_like(size), where=size > 0)
        if self.goal.norm is Norm.L2:
            length = np.sqrt((way**2).sum(axis=1, keepdims=True))
            way = np.divide(way, length, out=np.zeros_like(way), where=length > 0)
        self.z = self._inside(self.z - _between(_STRIDE[self.goal.norm], share) * self.goal.eps * way)
        points = self._points(np.arange(len(self)), self.z)
        yield from self._leave(margins(self.model, points, self.y, self.goal.target)[1], points)

    def _inside(self, z: Array) -> Array:
        """The nearest place in the bounds, drawn back to the ball; whole numbers may lie in between."""
        flat = (part.reshape(len(part), -1)[:, self.column] for part in (self.reach.low, self.reach.high, self.reach.x))
        low, high, own = (part.astype(np.float64) for part in flat)
        z = np.clip(np.nan_to_num(z), np.nan_to_num((low - own) / self.scale), np.nan_to_num((high - own) / self.scale))
        if self.goal.norm is Norm.LINF:
            return np.asarray(z)
        length = np.sqrt((z**2).sum(axis=1, keepdims=True))
        return np.asarray(z * np.minimum(1.0, self.goal.eps / np.where(length > 0, length, np.inf)))

    def _points(self, rows: Array, z: Array) -> Array:
        reach = self.reach.take(rows)
        points = reach.x.reshape(len(rows), -1).astype(np.float64)
        points[:, self.column] += z * self.scale
        return reach.settle(points.reshape(reach.x.shape))

    def _leave(self, hit: Array, points: Array) -> Iterator[Claim]:
        if not hit.any():
            return
        yield Claim(self.rows[hit], x=points[hit])
        # The label decides, not the scores: a guard may refuse this one, or a threshold keep the answer.
        hit[hit] = wrong(self.model, points[hit], self.y[hit], target=self.goal.target)
        self.reach = self.reach.take(~hit)
        for name in ("rows", "y", "ids", "z", "first", "second", "slope"):
            setattr(self, name, getattr(self, name)[~hit])


def _with_logits(model: Model) -> Model:
    """The model with logarithms of its scores where it has no logits: a sure model's scores hardly move."""
    scores = model.scores
    if model.logits is not None or scores is None:
        return model
    return replace(model, logits=lambda x: np.log(np.maximum(scores(x), _LEAST)))


def _between(ends: tuple[float, float], share: float) -> float:
    """From the first of two numbers to the second, at a rate that is even on a scale of logarithms."""
    return float(ends[0] * (ends[1] / ends[0]) ** share)


def _widths(features: int, tiles: int) -> Array:
    """How many features each tile has, `(tiles,)`."""
    return np.diff(np.arange(tiles + 1) * features // tiles)
