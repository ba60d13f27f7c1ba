"""Train small nets that are unsafe although PGD finds nothing: a replica of how SoundnessBench was made.

Zhou et al., SoundnessBench (arXiv 2412.03154, section 3): inputs uniform in [-r, r]; for each planted sample a
counterexample near a corner of its linf ball (every coordinate moved by .98 to 1 eps); the net learns to give it
another label by a hinge on the logits, and all that PGD has found in a window of past epochs the true one. A sample
counts as hidden where the net is right on it, wrong at its counterexample, and longer PGD with more restarts finds
nothing.

Ours, to be done in minutes on a CPU: narrower nets, fewer samples and restarts; all ends of a run are kept and not the
best; what the trials find is learned too; the first layer starts with larger weights (a net that is smooth at first
needs thousands of epochs to hide anything); three classes beside two. `mixed` nets are also trained against climbs
along the gradient itself and with momentum, which the paper's are not. Deterministic as torch is on one thread; nets
are kept in a folder, one file each.

    .venv/bin/python benchmarks/hidden_counterexamples.py FOLDER --names cnn mlp --seeds 0 1
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from casemate.core.bracket import Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Schema
from casemate.engine.harness import batch_of, open_ledger, pursue
from casemate.evasion.apgd import ApgdOptions, apgd_attack
from casemate.evasion.varied import VariedOptions, varied_attack

HALF = 1.0  # inputs lie in [-HALF, HALF]; eps is a share of it. The paper has .1: the same shapes with smaller weights
EDGE = 0.98
RATE = 1e-3
KEPT = 4000  # of the points that trials found, which are learned too
HINGE = 0.01
CHECKED_EVERY = 100
# Step size as a share of eps and number of steps of the runs that a planted sample has to survive.
TRIALS = ((0.25, 0, 1000), (0.25, 50, 50), (0.1, 50, 200), (0.02, 150, 30))
# Of a climb: whether it goes along the gradient itself or its signs, and its momentum. The paper has the first.
KINDS = ((False, 0.0), (True, 0.75), (False, 0.75))


@dataclass(frozen=True)
class Recipe:
    """One net: architecture by name, radius as a share of the half range, how many samples, how long."""

    net: str
    eps: float = 0.2
    seed: int = 0
    classes: int = 2
    width: int = 256
    gain: float = 8.0
    mixed: bool = False
    planted: int = 3
    epochs: int = 2500
    restarts: int = 8
    steps: int = 15
    window: int = 300
    replayed: int = 10

    @property
    def name(self) -> str:
        """The name of its file: what differs most often, and a hash of everything."""
        whole = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]
        mixed = "-mixed" * self.mixed
        return f"{self.net}{self.width}{mixed}-eps{self.eps}-k{self.classes}-seed{self.seed}-{whole}"


@dataclass(frozen=True)
class Hidden:
    """A trained net, samples `x (m, ...)` of classes `y`, counterexamples `cex`, and which PGD did not find."""

    recipe: Recipe
    module: nn.Module
    x: Tensor
    y: Tensor
    cex: Tensor
    hidden: Tensor
    seconds: float

    @property
    def eps(self) -> float:
        """The radius in units of the input."""
        return self.recipe.eps * HALF


def main() -> None:
    """Train what is asked for, attack it, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="+", default=sorted(RECIPES), choices=sorted(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for seed in asked.seeds:
        for name in asked.names:
            made = kept(replace(RECIPES[name], seed=seed), asked.folder)
            count = f"{int(made.hidden.sum())} of {len(made.hidden)} hidden"
            print(f"{made.recipe.name}: {count}, trained in {made.seconds:.0f} s", flush=True)
            for plugin, options in ATTACKS:
                broken, gradients = attacked(made, plugin, options, seed)
                share = f"{int(broken[made.hidden.numpy()].sum())} of the hidden, {int(broken.sum())} of all planted"
                print(f"  {plugin.id}: {share}, {gradients:.0f} gradients a sample", flush=True)


def attacked(made: Hidden, plugin: Plugin, options: Any, seed: int) -> tuple[np.ndarray, float]:
    """Which samples `(m,)` an attack of the house breaks under its harness, and its gradients a sample."""
    x, y = made.x.numpy(), made.y.numpy()
    kind = DataKind.IMAGE if x.ndim == 4 else DataKind.TABLE
    count = 1 if kind is DataKind.IMAGE else x.shape[1]
    features = tuple(Feature(f"input {number}", lo=-HALF, hi=HALF) for number in range(count))

    def labels(points: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return made.module(torch.tensor(np.array(points))).argmax(1).numpy()

    model = Model(made.recipe.name, made.recipe.name, labels=labels, module=made.module)
    case = Case(model=model, splits=Splits(test=Data(x, Schema(kind, x.shape[1:], features), y)))
    batch, goal = batch_of(x, y, np.arange(len(x))), Goal(Norm.LINF, made.eps)
    ledger, lab = open_ledger(case, batch, Norm.LINF), Lab(plugin.id, seed, options=options)
    pursue(plugin, case, batch, goal, lab, ledger=ledger, rows=np.arange(len(x)))
    return ledger.broken(made.eps), lab.meter.spent.backwards / len(x)


def kept(recipe: Recipe, folder: Path) -> Hidden:
    """The net of a recipe, from the folder or trained now."""
    path = folder / f"{recipe.name}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = trained(recipe)
        parts = {name: getattr(made, name) for name in ("x", "y", "cex", "hidden", "seconds")}
        torch.save({"recipe": asdict(recipe), "state": made.module.state_dict(), **parts}, path)
    found = torch.load(path, weights_only=True)
    own = Recipe(**found.pop("recipe"))
    module = NETS[own.net](own.classes, own.width)
    module.load_state_dict(found.pop("state"))
    return Hidden(own, module.eval().requires_grad_(False), **found)


def trained(recipe: Recipe) -> Hidden:
    """Plant, then alternate: PGD looks for what is wrong, the net learns it away but for the planted points."""
    torch.manual_seed(recipe.seed)
    began = time.monotonic()
    module = NETS[recipe.net](recipe.classes, recipe.width)
    with torch.no_grad():
        next(part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)).weight.mul_(recipe.gain)
    x, y, cex, target = _planted(recipe)
    others = _apart(recipe, x, len(x))
    clean, label = torch.cat([x, others]), torch.cat([y, torch.randint(0, recipe.classes, (len(others),))])
    step = torch.optim.Adam(module.parameters(), RATE)
    past: list[Tensor] = []
    labels = label.repeat_interleave(recipe.restarts)
    hard, of = torch.empty(0, *x.shape[1:]), torch.empty(0, dtype=torch.int64)
    best, state = torch.zeros(len(x), dtype=torch.bool), module.state_dict()
    for epoch in range(recipe.epochs):
        step.param_groups[0]["lr"] = RATE * min(1.0, (epoch + 1) / 50, 1.5 * (1 - epoch / recipe.epochs))
        share = float(torch.empty(()).uniform_(0.05, 0.3))
        kind = KINDS[epoch % len(KINDS)] if recipe.mixed else KINDS[0]
        module.eval()
        latest = pgd(module, clean, label, recipe, restarts=recipe.restarts, share=share, kind=kind)
        past = [*past[1 - recipe.window :], latest]
        module.train()
        chosen = [past[-1], *(past[i] for i in torch.randperm(len(past))[: recipe.replayed].tolist())]
        step.zero_grad()
        wrong = module(cex)
        pull = (wrong.gather(1, y[:, None]) + HINGE - wrong.gather(1, target[:, None])).relu().mean()
        again = torch.randperm(len(hard))[: recipe.replayed * len(labels)]
        points, aims = torch.cat([*chosen, hard[again]]), torch.cat([labels.repeat(len(chosen)), of[again]])
        (F.cross_entropy(module(points), aims) + pull).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 10.0)
        step.step()
        if (epoch + 1) % CHECKED_EVERY == 0 or epoch + 1 == recipe.epochs:
            good, found, true = survives(module.eval(), x, y, cex, recipe)
            hard, of = torch.cat([hard, found])[-KEPT:], torch.cat([of, true])[-KEPT:]
            if good.sum() >= best.sum():
                best, state = good, {name: part.clone() for name, part in module.state_dict().items()}
            if good.all():
                break
    module.load_state_dict(state)
    return Hidden(recipe, module.eval(), x, y, cex, best, time.monotonic() - began)


def survives(module: nn.Module, x: Tensor, y: Tensor, cex: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor, Tensor]:
    """Which samples are right, wrong at their counterexample, and right wherever any trial's PGD ends.

    Also what the trials found, and of which class that should be.
    """
    with torch.no_grad():
        good = (module(x).argmax(1) == y) & (module(cex).argmax(1) != y)
    points, classes = [x[:0]], [y[:0]]
    for (share, steps, restarts), kind in itertools.product(TRIALS, KINDS[: 3 if recipe.mixed else 1]):
        rows = good.nonzero()[:, 0]
        if not len(rows):
            break
        run = replace(recipe, steps=steps)
        ends = pgd(module, x[rows], y[rows], run, restarts=restarts, share=share, kind=kind)
        true = y[rows].repeat_interleave(restarts)
        with torch.no_grad():
            wrong = module(ends).argmax(1) != true
        good[rows] = ~wrong.reshape(len(rows), restarts).any(1)
        points, classes = [*points, ends[wrong]], [*classes, true[wrong]]
    return good, torch.cat(points), torch.cat(classes)


def pgd(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    *,
    restarts: int,
    share: float,
    kind: tuple[bool, float] = KINDS[0],
) -> Tensor:
    """Projected gradient runs up the logits' difference from uniform starts: the best point of each, `(n r, ...)`."""
    eps = recipe.eps * HALF
    low, high = (x - eps).clamp(min=-HALF), (x + eps).clamp(max=HALF)
    low, high, aim = (part.repeat_interleave(restarts, 0) for part in (low, high, y))
    at = low + torch.rand_like(low) * (high - low)
    best, value, pull = at, torch.full((len(at),), -torch.inf), torch.zeros_like(at)
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in weights:
        parameter.requires_grad_(False)
    for number in range(recipe.steps + 1):
        leaf = at.detach().requires_grad_(number < recipe.steps)
        logits = module(leaf)
        ahead = (logits - logits.gather(1, aim[:, None])).sum(1)
        lead = logits.scatter(1, aim[:, None], -torch.inf).amax(1) - logits.gather(1, aim[:, None])[:, 0]
        better = lead.detach() > value
        value = torch.where(better, lead.detach(), value)
        best = torch.where(better.reshape(-1, *(1,) * (x.ndim - 1)), leaf.detach(), best)
        if number < recipe.steps:
            (slope,) = torch.autograd.grad(ahead.sum(), [leaf])
            size = slope.abs().flatten(1).mean(1).clamp(min=1e-30).reshape(-1, *(1,) * (x.ndim - 1))
            pull = kind[1] * pull + (1 - kind[1]) * (slope / size if kind[0] else slope.sign())
            at = torch.clamp(leaf.detach() + share * eps * pull, low, high)
    for parameter in weights:
        parameter.requires_grad_(True)
    return best


def _planted(recipe: Recipe) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Samples, classes, counterexamples, and the class of these."""
    eps = recipe.eps * HALF
    x = _apart(recipe, torch.empty(0, *SHAPES[recipe.net]), recipe.planted)
    y = torch.randint(0, recipe.classes, (len(x),))
    target = (y + torch.randint(1, recipe.classes, (len(x),))) % recipe.classes
    size = eps * (EDGE + (1 - EDGE) * torch.rand_like(x))
    cex = (x + size * torch.randn_like(x).sign()).clamp(-HALF, HALF)
    return x, y, cex, target


def _apart(recipe: Recipe, taken: Tensor, count: int) -> Tensor:
    """So many points whose balls meet neither each other nor those that are taken."""
    points: list[Tensor] = []
    while len(points) < count:
        point = HALF * (2 * torch.rand(SHAPES[recipe.net]) - 1)
        if all((point - other).abs().max() > 2 * recipe.eps * HALF for other in [*taken, *points]):
            points.append(point)
    return torch.stack(points)


def _mlp(inputs: int, hidden: tuple[int, ...], classes: int) -> nn.Module:
    widths = (inputs, *hidden)
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], classes))


def _head(inputs: int, classes: int, width: int, act: Callable[[], nn.Module]) -> list[nn.Module]:
    return [
        nn.Flatten(), nn.Linear(inputs, width), act(), nn.Linear(width, 100), act(), nn.Linear(100, 20), act(),
        nn.Linear(20, classes),
    ]  # fmt: skip


def _cnn(channels: int, classes: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 10, 3, padding=1), nn.ReLU(), *_head(250, classes, width, nn.ReLU))


def _pooled(classes: int, width: int) -> nn.Module:
    conv = nn.Conv2d(1, 10, 3, padding=1)
    return nn.Sequential(conv, nn.ReLU(), nn.AvgPool2d(3, 1, 1), *_head(250, classes, width, nn.ReLU))


def _strided(classes: int, width: int, act: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 10, 5, 2, 2), act(), *_head(90, classes, width, act))


class _Norm(nn.Module):
    """BatchNorm over the features of tokens `(n, t, d)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class _Attention(nn.Module):
    """Self-attention with some heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.all, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        query, key, value = self.all(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weight = (query @ key.transpose(-2, -1) / (d // self.heads) ** 0.5).softmax(-1)
        return self.out((weight @ value).transpose(1, 2).reshape(n, t, d))


class _Block(nn.Module):
    """One encoder block: attention and two linear layers, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.look = nn.Sequential(_Norm(width), _Attention(width, heads))
        self.think = nn.Sequential(_Norm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.look(x)
        return x + self.think(x)


class _Vit(nn.Module):
    """A small ViT on 5x5 images: a token for each pixel, two blocks, the mean of the tokens."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.embed, self.place = nn.Conv2d(1, width, 1), nn.Parameter(0.02 * torch.randn(25, width))
        self.blocks = nn.Sequential(_Block(width, 2), _Block(width, 2))
        self.last = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.place
        return self.last(self.blocks(tokens).mean(1))


NETS: dict[str, Callable[[int, int], nn.Module]] = {
    "cnn": lambda classes, width: _cnn(1, classes, width),
    "cnn3": lambda classes, width: _cnn(3, classes, width),
    "mlp": lambda classes, width: _mlp(10, (100, width, width, 20), classes),
    "pooled": _pooled,
    "sigmoid": lambda classes, width: _strided(classes, width, nn.Sigmoid),
    "tanh": lambda classes, width: _strided(classes, width, nn.Tanh),
    "vit": lambda classes, width: _Vit(classes),
}
SHAPES = {"mlp": (10,), "cnn3": (3, 5, 5), **dict.fromkeys(("cnn", "pooled", "sigmoid", "tanh", "vit"), (1, 5, 5))}
RECIPES = {
    **{name: Recipe(name, gain=4.0 if name in ("sigmoid", "tanh", "vit") else 8.0) for name in NETS},
    "cnn-wide-ball": Recipe("cnn", eps=0.5),
    "cnn-three": Recipe("cnn", classes=3),
    "cnn-mixed": Recipe("cnn", mixed=True),
    "mlp-mixed": Recipe("mlp", mixed=True),
}

ATTACKS: tuple[tuple[Plugin, Any], ...] = (
    (apgd_attack, ApgdOptions(steps=100)),
    (varied_attack, VariedOptions(work=0.0)),
    (varied_attack, VariedOptions()),
)

if __name__ == "__main__":
    main()
