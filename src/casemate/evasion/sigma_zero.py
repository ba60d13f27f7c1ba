"""Sigma-zero: the fewest features that have to change, by a smooth stand-in for their number (Cinà et al. 2025)."""

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
from casemate.engine.ground import Ground, each, ground_of, spread
from casemate.engine.prepared import Prepared, prepare
from casemate.engine.reach import Reach, reach_of
from casemate.errors import BudgetExhausted, ConfigError
from casemate.evasion import THREAT
from casemate.evasion.losses import clearly, margin

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SigmaZeroOptions", "sigma_zero_attack"]

Array = NDArray[Any]
_SIGMA = 1e-3  # of section 3: how sharply the stand-in tells a change from none
_FIRST = 0.3  # of a feature's range: smaller changes are dropped at first
_SHIFT = 0.01  # by how much of the step size that threshold moves
_LEAST = 0.1  # of the first step size, which it falls to
_ADAM = (0.9, 0.999)  # as the authors' code steps, by the moments of Kingma and Ba 2015
_PRUNED = 0.1  # of the gradients are kept for taking changes back one by one


@dataclass(frozen=True, slots=True)
class SigmaZeroOptions:
    """`steps` gradients a sample, a tenth of them spent on taking changes back one by one."""

    steps: Count = 200


@attack(
    threat=THREAT,
    source="Cinà et al., sigma-zero: Gradient-based optimization of l0-norm adversarial examples, ICLR 2025, "
    "Algorithm 1",
    needs={Facet.GRADIENTS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.MODERATE,
    options=SigmaZeroOptions,
    profiles={Profile.QUICK: {"steps": 60}, Profile.FULL: {"steps": 1000}},
    norms={Norm.L0},
    minimum_norm=True,
    requires=("torch",),
)
def sigma_zero_attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """Change as few features as can be: gradient steps, and a threshold below which a change is dropped.

    Looks for x' inside the bounds with a wrong answer (or the goal's target) that differs from x in the fewest
    features; the attacker knows the weights. Errs towards robust. As in the paper: the loss is how far the answer is
    from wrong plus the mean of d^2 / (d^2 + sigma), its gradient is divided by its largest entry, the step size falls
    along a cosine, and the threshold rises after each success and falls after each failure. Ours: changes are measured
    in the range of each feature (without bounds, in units of the scale), and in the end what is left is taken back one
    feature at a time where the answer stays wrong. With a finite eps only what is within it is claimed.

    Raises `ConfigError` for no steps, `BudgetExhausted` when the budget ends.
    """
    options: SigmaZeroOptions = lab.options
    if options.steps < 1:
        raise ConfigError(f"expected steps >= 1 for evasion/sigma_zero, got {options.steps}: leave it out")
    rows = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    if not len(rows):
        return
    prepared = prepare(case.the_model(), batch.x, lab.meter, seed=lab.seed_for("draws"))
    search = _Search(prepared, reach_of(Norm.L0, np.inf, batch.x[rows], case.schema), batch.y[rows], goal)
    pruned = int(_PRUNED * options.steps)
    try:
        search.descend(options.steps - pruned)
        search.prune(pruned)
    except BudgetExhausted:
        yield from search.found(rows)
        raise
    yield from search.found(rows)


class _Search:
    """The state of all samples: where they are, the fewest changes that were wrong, and where."""

    def __init__(self, prepared: Prepared, reach: Reach, y: Array, goal: Goal) -> None:
        import torch

        self.prepared, self.reach, self.most = prepared, reach, goal.eps
        self.ground: Ground = ground_of(prepared, reach)
        ground = self.ground
        self.y = torch.tensor(np.asarray(y, dtype=np.int64), device=prepared.device)
        self.aim = None if goal.target is None else torch.full_like(self.y, goal.target)
        span = (ground.high - ground.low).nan_to_num(0.0, float("inf"))  # a missing value has no range: it stays
        self.span = torch.where(torch.isfinite(span), span, ground.scale.expand_as(span))
        self.fewest = torch.full((len(y),), float("inf"), dtype=ground.x.dtype, device=prepared.device)
        self.best = ground.x

    def descend(self, steps: int) -> None:
        """The paper's loop."""
        import torch

        ground, z = self.ground, torch.zeros_like(self.ground.x)
        tiny = torch.finfo(z.dtype).tiny
        drift, energy = torch.zeros_like(z), torch.zeros_like(z)
        threshold = torch.full_like(self.fewest, _FIRST)
        for step in range(steps):
            wrong, slope = self._look(ground.snapped(ground.box(ground.x + z * self.span)))
            eta = _LEAST + (1 - _LEAST) * (1 + math.cos(math.pi * step / steps)) / 2
            smooth = 2 * _SIGMA * z / (z**2 + _SIGMA) ** 2 / z[0].numel()
            slope = torch.where(spread(wrong, z), 0.0, slope * self.span) - smooth
            slope = slope / spread(slope.flatten(1).abs().amax(dim=1).clamp(min=tiny), z)
            drift = drift.lerp(slope, 1 - _ADAM[0])
            energy = energy.lerp(slope**2, 1 - _ADAM[1])
            way = drift / (1 - _ADAM[0] ** (step + 1))
            way = way / ((energy / (1 - _ADAM[1] ** (step + 1))).sqrt() + 1e-8)
            moved = ground.box(ground.x + (z + eta * way) * self.span)
            z = torch.where(self.span > 0, (moved - ground.x) / self.span.clamp(min=tiny), 0.0)
            threshold = (threshold + _SHIFT * eta * torch.where(wrong, 1.0, -1.0)).clamp(0.0, 1.0)
            z = torch.where(z.abs() < spread(threshold, z), 0.0, z)

    def prune(self, tries: int) -> None:
        """Push what is changed to its bounds for a gradient, then take changes back while the answer stays wrong."""
        import torch

        if tries < 2:
            return
        ground = self.ground
        changed = ground.units(self.best) != 0
        edge = torch.where(self.best > ground.x, ground.high, ground.low)
        _, slope = self._look(torch.where(changed & torch.isfinite(edge), edge, self.best))
        for _ in range(tries - 1):
            at = self.best
            moved = (ground.units(at) != 0).flatten(1)
            gain = torch.where(moved, ((at - ground.x) * slope).flatten(1), float("inf"))
            weakest = gain.argmin(dim=1, keepdim=True)
            tried = at.flatten(1).scatter(1, weakest, ground.x.flatten(1).gather(1, weakest)).reshape(at.shape)
            kept = self.fewest.clone()
            self._look(ground.snapped(tried), gradient=False)
            failed = (self.fewest >= kept)[:, None]
            # What could not be taken back is not tried again: it counts as strong from now on.
            flat, sign = slope.flatten(1), torch.sign(at - ground.x).flatten(1).gather(1, weakest)
            strong = torch.where(
                failed & (sign != 0), torch.copysign(torch.full_like(sign, float("inf")), sign), flat.gather(1, weakest)
            )
            slope = flat.scatter(1, weakest, strong).reshape(slope.shape)

    def found(self, rows: Array) -> Iterator[Claim]:
        """The wrong points with the fewest changes of all samples that have one."""
        fewest, best = self.fewest.cpu().numpy(), self.best.cpu().numpy()
        there = np.flatnonzero(np.isfinite(fewest) & (fewest <= self.most))
        if len(there):
            yield Claim(rows[there], x=self.reach.take(there).settle(best[there]))

    def _look(self, points: Tensor, *, gradient: bool = True) -> tuple[Tensor, Tensor]:
        """Remember what is wrong with fewer changes; which points are wrong, `(m,)`, and the gradient of the margin."""
        import torch

        if gradient:
            logits, ahead, slope = self.prepared.gradient(points, lambda z: margin(z, self.y, self.aim))
        else:
            logits = self.prepared.logits(points)
            ahead, slope = margin(logits, self.y, self.aim), points
        wrong = clearly(ahead, logits)
        count = self.ground.far(points)
        fewer = wrong & (count < self.fewest)
        self.fewest = torch.where(fewer, count, self.fewest)
        self.best = each(fewer, points, self.best)
        return wrong, slope
