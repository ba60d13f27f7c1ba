"""Adversarial training: learn each batch where it hurts most (Madry et al. 2018), in a third of the usual passes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from casemate.core.case import Candidate, Case, Recipe
from casemate.core.data import Data
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm
from casemate.core.options import Count, Positive, Share, Within
from casemate.core.outcome import Finding, Outcome
from casemate.core.plugin import hardening
from casemate.core.schema import Schema
from casemate.engine.trainers import TorchRecipe, as_torch, recipe_of, train_module
from casemate.errors import ConfigError, Unavailable
from casemate.evasion import THREAT
from casemate.evasion.standard import usual_eps

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["AdversarialTrainingOptions", "train_adversarially"]

_NORMS = (Norm.LINF, Norm.L2)
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class AdversarialTrainingOptions:
    """`epochs` of batches moved `steps` times within `eps` (None: the middle one of those an evasion finding names).

    `step` is the length of one move in eps; eps rises from 0 over the share `ramp` of the batches; the weights kept are
    the average over the last ones, each counting `average` times the one after it (0: the last).
    """

    norm: Literal[Norm.LINF, Norm.L2] | None = None
    eps: Positive | None = None
    epochs: Count = 15
    steps: Count = 2
    step: Positive = 0.75
    lr: Positive = 5e-3
    ramp: Share = 0.2
    average: Annotated[float, Within(least=0, below=1)] = 0.98


@hardening(
    threat=THREAT,
    source="Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018, equation 2.1",
    needs={Facet.RECIPE, Facet.TRAIN, Facet.GRADIENTS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.EXPENSIVE,
    options=AdversarialTrainingOptions,
    profiles={Profile.FULL: {"epochs": 40, "steps": 3, "step": 0.5}},
    requires=("torch",),
)
def train_adversarially(case: Case, findings: Iterable[Outcome], lab: Lab) -> Candidate:
    """Train the recipe's module again, each batch `x (b, ...)` replaced by points near it that raise its loss.

    Minimises the mean of max over ||(x' - x) / scale|| <= eps, inside the bounds, of the cross-entropy at x'. The inner
    maximum is approximated by a random start and few long projected steps, which is enough while eps rises slowly and
    the rate of learning falls to zero (Wong, Rice and Kolter, Fast is better than free, ICLR 2020); kept is the average
    of the last weights, which is more robust than the last ones (Gowal et al., Uncovering the limits of adversarial
    training, 2020). The rest is the recipe's own. It starts from new weights, so that the candidate's recipe makes
    models of the candidate's kind. The test split is never read. How robust it is, the audit that follows measures.

    Raises `Unavailable` for a recipe that `casemate.engine.trainers.recipe_of` did not make, `ConfigError` for a norm
    other than linf and l2 or an eps that is not positive.
    """
    case = case.without_test()
    options: AdversarialTrainingOptions = lab.options
    base = as_torch(case.recipe) if case.recipe is not None else None
    if base is None or case.recipe is None:
        raise Unavailable(
            "expected a torch recipe (casemate.engine.trainers.recipe_of(TorchRecipe(...))), got another: name such a "
            "recipe under [train]"
        )
    train = case.data("train")
    norm, eps = _ball(options, findings, train.schema)
    plan = _Plan(norm, eps, options.steps, options.step, options.ramp, options.average)
    recipe = _adversarial(case.recipe, replace(base, epochs=options.epochs, lr=options.lr, schedule="cosine"), plan)
    passes = options.epochs * (options.steps + 1) * len(train)
    lab.meter.charge(forwards=passes, backwards=passes)
    model = recipe.fit(train, {}, lab.rng("candidate"))
    summary = f"trained for {options.epochs} epochs on points moved {options.steps} times within {norm} eps = {eps:g}"
    return Candidate(model, summary, asdict(plan), recipe=recipe)


@dataclass(frozen=True, slots=True)
class _Plan:
    norm: Norm
    eps: float
    steps: int
    step: float
    ramp: float
    average: float


def _ball(options: AdversarialTrainingOptions, findings: Iterable[Outcome], schema: Schema) -> tuple[Norm, float]:
    """What was asked for, else what the evasion findings were measured at, else what the standard probe asks.

    Of several eps the middle one: training at the widest costs more clean accuracy than most can spare.
    """
    if options.norm is not None and options.norm not in _NORMS:
        raise ConfigError(f"expected the norm linf or l2 for adversarial training, got {options.norm!r}: choose one")
    if options.eps is not None and not 0 < options.eps < np.inf:
        raise ConfigError(f"expected a finite eps > 0 for adversarial training, got {options.eps}: choose one")
    norm = None if options.norm is None else Norm(options.norm)
    found = [ball for ball in _measured(findings) if norm in (None, ball[0])]
    norm = norm or (found[0][0] if found else Norm.LINF)
    radii = sorted({size for name, size in found if name is norm}) or usual_eps(norm, schema)
    return norm, options.eps or radii[len(radii) // 2]


def _measured(findings: Iterable[Outcome]) -> list[tuple[Norm, float]]:
    """Norm and eps of everything that evasion findings were measured at, the worst finding first."""
    balls = []
    for finding in findings:
        if isinstance(finding, Finding) and finding.plugin.startswith("evasion/"):
            for item in finding.evidence:
                norm, eps = str(item.at.get("norm", item.about)), item.at.get("eps", 0.0)
                if norm in _NORMS and isinstance(eps, int | float) and 0 < eps < np.inf:
                    balls.append((Norm(norm), float(eps)))
    return balls


def _adversarial(recipe: Recipe, base: TorchRecipe, plan: _Plan) -> Recipe:
    described = json.dumps(["adversarial_training", recipe.digest, base.settings, asdict(plan)], sort_keys=True)
    digest = "sha256:" + hashlib.sha256(described.encode()).hexdigest()
    knobs = {name: values for name, values in recipe.knobs.items() if name in ("weight_decay", "dropout")}
    return Recipe(partial(_fit, base, plan), digest, knobs=knobs, settings=base.settings)


def _fit(base: TorchRecipe, plan: _Plan, data: Data, init: Mapping[str, Any], rng: np.random.Generator) -> Model:
    from casemate.adapters import wrap

    chosen = base.configured(init)
    module = recipe_of(chosen).fit(data.take(np.arange(1)), {"epochs": 0}, rng).module  # new weights, untrained
    batches = chosen.epochs * ceil(len(data) / chosen.batch)
    moved = _Moved(plan, data.schema, batches)
    settings = {name: value for name, value in chosen.settings.items() if name != "dropout"}
    train_module(module, data.x, data.labels, rng=rng, perturb=moved, **settings)
    moved.settle(module)
    return wrap(module, classes=chosen.classes, schema=data.schema, name=chosen.name)


@dataclass(slots=True)
class _Moved:
    """Moves batches, and averages the weights that it sees pass by; one for each training run."""

    plan: _Plan
    schema: Schema
    batches: int
    seen: int = 0
    mean: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """`x (b, ...)` after the plan's steps; the module is in eval mode."""
        import torch
        from torch.nn.functional import cross_entropy

        self._average(module)
        eps = self.plan.eps * min(1.0, (self.seen + 1) / max(1.0, self.plan.ramp * self.batches))
        self.seen += 1
        learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameter in learned:
            parameter.requires_grad_(False)  # the weights' gradients are not needed here, and cost a third
        ball = _TorchBall(self.plan.norm, eps, x, self.schema)
        at = ball.random()
        for _ in range(self.plan.steps):
            at.requires_grad_(True)
            (slope,) = torch.autograd.grad(cross_entropy(module(at), y, reduction="sum"), [at])
            at = ball.step(at.detach(), slope, self.plan.step * eps)
        for parameter in learned:
            parameter.requires_grad_(True)
        return at

    def settle(self, module: nn.Module) -> None:
        """Put the average into the module."""
        self._average(module)
        if self.mean:
            module.load_state_dict({**module.state_dict(), **self.mean})

    def _average(self, module: nn.Module) -> None:
        if not self.plan.average or 2 * self.seen < self.batches:  # what was learned at first is not worth keeping
            return
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                continue
            if name in self.mean:
                self.mean[name].lerp_(value, 1 - self.plan.average)
            else:
                self.mean[name] = value.detach().clone()


class _TorchBall:
    """Ball and box around a batch, on its device."""

    def __init__(self, norm: Norm, eps: float, x: Tensor, schema: Schema) -> None:
        import torch

        def like(values: Any) -> Tensor:
            return torch.tensor(np.array(values), dtype=x.dtype, device=x.device)

        self.norm, self.eps, self.x, self.scale = norm, eps, x, like(schema.scale)
        span = eps * self.scale
        self.low = torch.minimum(torch.maximum(x - span, like(schema.lo)), x)
        self.high = torch.maximum(torch.minimum(x + span, like(schema.hi)), x)

    def random(self) -> Tensor:
        """A random point: uniform for linf; for l2 a random direction and a uniform share of eps."""
        import torch

        if self.norm is Norm.LINF:
            return self.inside(self.x + (2 * torch.rand_like(self.x) - 1) * self.eps * self.scale)
        share = torch.rand(len(self.x), dtype=self.x.dtype, device=self.x.device)
        size = _each(share * self.eps, self.x)
        return self.inside(self.x + _along(torch.randn_like(self.x) * (self.scale > 0)) * size * self.scale)

    def step(self, at: Tensor, slope: Tensor, length: float) -> Tensor:
        """One move along the gradient, and back into ball and box."""
        unit = slope.sign() if self.norm is Norm.LINF else _along(slope * self.scale)
        return self.inside(at + length * self.scale * unit)

    def inside(self, at: Tensor) -> Tensor:
        """The point drawn back to the ball, then clipped to the box, which never leads out of the ball again."""
        import torch

        if self.norm is not Norm.LINF:
            change = at - self.x
            size = (change / torch.where(self.scale > 0, self.scale, 1.0)).flatten(1).norm(dim=1)
            at = self.x + change * _each((self.eps / size.clamp(min=_TINY)).clamp(max=1.0), at)
        return torch.minimum(torch.maximum(at, self.low), self.high)


def _along(direction: Tensor) -> Tensor:
    return direction / _each(direction.flatten(1).norm(dim=1).clamp(min=_TINY), direction)


def _each(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))
