"""Compare our HopSkipJump with adversarial-robustness-toolbox's: same victim, samples, starts and queries, one thread.

The victims are a net of one hidden layer, in the toolbox's wrapper for torch; the same net as a bare function, which
the toolbox asks with less ado; and a random forest of 100 trees, as a function too (its
wrapper for scikit-learn takes flat rows only). We see labels only. Both walk from the same starting point of every
sample, the nearest of the others in the norm of the walk that the victim answers otherwise (`x_adv_init` there; ours
takes it from the test rows), on 64 digits of scikit-learn that the victim gets right, float32.
Samples sent through the victim are counted on both sides; the toolbox knows no budget, so it is run for a
number of iterations with the paper's B_0 = 100, and ours gets as many queries a sample as it then used on average. The
two take turns in one process; shown are median and spread of CPU seconds and the median distance of what they found,
measured in float64 by us on both sides (what the victim no longer answers wrongly counts as not found). The forest is
walked once only: the toolbox asks it sample by sample and needs minutes.

    .venv/bin/python benchmarks/evasion_hop_skip_jump.py --repeats 3

The peer is no dependency of Casemate: without `--peer PATH` (a folder that holds the package `art`) it is downloaded
from the package index into a temporary folder, without its own dependencies, and forgotten.
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
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from torch import nn

from casemate.core.bracket import Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm, distance
from casemate.core.schema import Feature, Schema
from casemate.engine.harness import batch_of, open_ledger, pursue
from casemate.evasion.hop_skip_jump import HopSkipJumpOptions, hop_skip_jump_attack

PEER = "adversarial-robustness-toolbox==1.20.1"
NEEDS = ("six", "tqdm")  # what importing the peer takes beside what Casemate's environment has
SHAPE = (1, 8, 8)


@dataclass(frozen=True)
class Run:
    """One run: CPU seconds, samples sent through the net, and each sample's distance."""

    seconds: float
    queries: int
    far: np.ndarray


class Victim:
    """A model that counts the samples it is asked for; `wrapped` makes the toolbox's estimator of it."""

    def __init__(
        self, name: str, labels: Callable[[np.ndarray], np.ndarray], wrapped: Callable[[Victim], Any], repeats: int = 0
    ) -> None:
        self.name, self._labels, self.wrapped, self.repeats, self.count = name, labels, wrapped, repeats, 0

    def labels(self, x: np.ndarray) -> np.ndarray:
        """Class indices `(n,)` of samples `(n, 1, 8, 8)`."""
        self.count += len(x)
        return self._labels(x)


def main() -> None:
    """Measure, print a table in Markdown, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--iterations", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", type=Path, help="a folder that holds the package art")
    parser.add_argument("--output", type=Path, default=None)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        fetch(asked.peer, Path(folder))
        for make in (net, function, forest):
            victim, x, y = trained(make, asked.samples)
            repeats = victim.repeats or asked.repeats
            for norm in (Norm.L2, Norm.LINF):
                for iterations in asked.iterations:
                    print(f"{victim.name}, {norm}, {iterations} iterations", file=sys.stderr, flush=True)
                    rows += compared(victim, x, y, norm, iterations=iterations, repeats=repeats)
    print(f"CPU seconds: medians and spread of {asked.repeats} runs in turn; the forest was walked once.\n")
    print(table(rows))
    if asked.output is not None:
        versions = {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}
        asked.output.write_text(json.dumps({"versions": {**versions, "peer": PEER}, "rows": rows}, indent=2) + "\n")


def fetch(given: Path | None, folder: Path) -> None:
    """Put the peer on the path, from a folder or fetched into one."""
    if given is None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), PEER, *NEEDS]
        subprocess.run(pip, check=True)
    sys.path.append(str(given or folder))


def trained(make: Callable[..., Victim], samples: int) -> tuple[Victim, np.ndarray, np.ndarray]:
    """A victim that learned the first 1,000 digits, and the first of the others that it gets right."""
    digits, labels = load_digits(return_X_y=True)
    x, y = (digits / 16).astype(np.float32).reshape(-1, *SHAPE), labels.astype(np.int64)
    victim = make(x[:1000], y[:1000])
    right = 1000 + np.flatnonzero(victim.labels(x[1000:]) == y[1000:])[:samples]
    return victim, x[right], y[right]


def net(x: np.ndarray, y: np.ndarray) -> Victim:
    """A net of one hidden layer."""
    module = module_of(x, y)

    def wrapped(victim: Victim) -> Any:
        counted = Counting(victim, module)
        wrappers = importlib.import_module("art.estimators.classification.pytorch")
        loss = nn.CrossEntropyLoss()
        return wrappers.PyTorchClassifier(counted, loss, SHAPE, 10, clip_values=(0.0, 1.0), device_type="cpu")

    return Victim("net", lambda a: predicted(module, a), wrapped)


def function(x: np.ndarray, y: np.ndarray) -> Victim:
    """The same net, of which the toolbox knows only a function that answers with one-hot labels."""
    module = module_of(x, y)
    return Victim("net as a function", lambda a: predicted(module, a), as_function)


def forest(x: np.ndarray, y: np.ndarray) -> Victim:
    """A random forest."""
    fitted = RandomForestClassifier(random_state=0).fit(x.reshape(len(x), -1), y)
    return Victim("forest", lambda a: fitted.predict(a.reshape(len(a), -1)), as_function, repeats=1)


def as_function(victim: Victim) -> Any:
    """The toolbox's wrapper of a function that answers with one-hot labels."""
    wrappers = importlib.import_module("art.estimators.classification.blackbox")
    hot = np.eye(10, dtype=np.float32)

    def answer(x: np.ndarray) -> np.ndarray:
        return hot[victim.labels(x.astype(np.float32))]

    return wrappers.BlackBoxClassifier(answer, SHAPE, 10, clip_values=(0.0, 1.0))


class Counting(nn.Module):
    """The net, counting for its victim the samples that the toolbox sends through it."""

    def __init__(self, victim: Victim, net: nn.Module) -> None:
        super().__init__()
        self.net, self.victim = net, victim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The net's answer."""
        self.victim.count += len(x)
        return self.net(x.float())  # the toolbox computes in float64 and hands that on


def module_of(x: np.ndarray, y: np.ndarray) -> nn.Module:
    """A net of one hidden layer, trained."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    step = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(10):
        for part in torch.randperm(len(x)).split(100):
            step.zero_grad()
            nn.functional.cross_entropy(module(torch.tensor(x[part])), torch.tensor(y[part])).backward()
            step.step()
    return module.eval()


def predicted(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """The net's labels."""
    with torch.no_grad():
        return module(torch.from_numpy(np.ascontiguousarray(x, np.float32))).argmax(1).numpy()


def starts(victim: Victim, x: np.ndarray, y: np.ndarray, norm: Norm) -> np.ndarray:
    """For each sample the nearest of the others that the victim answers otherwise: where both walks begin."""
    known = victim.labels(x)
    far = np.stack([distance(norm, np.broadcast_to(row, x.shape), x) for row in x])
    far[y[:, None] == known[None]] = np.inf
    return x[far.argmin(axis=1)]


def compared(
    victim: Victim, x: np.ndarray, y: np.ndarray, norm: Norm, *, iterations: int, repeats: int
) -> list[dict[str, Any]]:
    """Both sides in turn; ours gets the queries that the peer used."""
    peers, own = [], []
    for repeat in range(repeats):
        peers.append(theirs(victim, x, y, norm, iterations=iterations, seed=repeat))
        own.append(ours(victim, x, y, norm, queries=peers[0].queries // len(x), seed=repeat))
        print(repeat, peers[-1].seconds, own[-1].seconds, file=sys.stderr, flush=True)
    ratio = statistics.median(run.seconds for run in peers) / statistics.median(run.seconds for run in own)
    sides = (("casemate", own, ratio), ("adversarial-robustness-toolbox", peers, 1.0))
    return [{"victim": victim.name} | row_of(norm, who, runs, faster) for who, runs, faster in sides]


def ours(victim: Victim, x: np.ndarray, y: np.ndarray, norm: Norm, *, queries: int, seed: int) -> Run:
    """The attack under the harness, whose own judgement of every claim is in the seconds and in the queries."""
    schema = Schema(DataKind.IMAGE, SHAPE, (Feature("pixel", lo=0.0, hi=1.0),))
    data = Data(x, schema, y)
    # Nothing but the labels is offered; the walk may begin at the other samples, as the peer's does.
    case = Case(model=Model(victim.name, "benchmark", labels=victim.labels), splits=Splits(test=data))
    lab = Lab(hop_skip_jump_attack.id, seed, options=HopSkipJumpOptions(queries=queries))
    victim.count = 0
    begin = time.process_time()
    batch = batch_of(data.x, data.labels, data.sample_id)
    ledger = open_ledger(case, batch, norm)
    goal = Goal(norm, float("inf"))
    pursue(hop_skip_jump_attack, case, batch, goal, lab, ledger=ledger, rows=np.arange(len(x)))
    return Run(time.process_time() - begin, victim.count, ledger.upper)


def theirs(victim: Victim, x: np.ndarray, y: np.ndarray, norm: Norm, *, iterations: int, seed: int) -> Run:
    """The toolbox's attack on its own wrapper of the victim."""
    attacks = importlib.import_module("art.attacks.evasion.hop_skip_jump")
    wrapped = victim.wrapped(victim)
    np.random.seed(seed)
    order = 2 if norm is Norm.L2 else np.inf
    attack = attacks.HopSkipJump(
        wrapped, batch_size=64, targeted=False, norm=order, max_iter=iterations, init_eval=100, verbose=False
    )
    victim.count = 0
    begin = time.process_time()
    found = attack.generate(x, y=np.eye(10, dtype=np.float32)[y], x_adv_init=starts(victim, x, y, norm))
    hit = victim.labels(found.astype(np.float32)) != y
    seconds = time.process_time() - begin
    far = np.where(hit, distance(norm, x, found.astype(np.float32)), np.inf)
    return Run(seconds, victim.count, far)


def row_of(norm: Norm, who: str, runs: list[Run], faster: float) -> dict[str, Any]:
    """Median and spread of the repeats; no spread of one."""
    seconds = [run.seconds for run in runs]
    return {
        "norm": str(norm),
        "who": who,
        "queries": round(statistics.median(run.queries for run in runs) / len(runs[0].far)),
        "seconds": statistics.median(seconds),
        "spread": f"{min(seconds):.3f}-{max(seconds):.3f}" if len(seconds) > 1 else "one run",
        "distance": statistics.median(float(np.median(run.far)) for run in runs),
        "faster": faster,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| victim | norm | attack | queries a sample | median s | spread s | median distance | times faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['victim']} | {row['norm']} | {row['who']} | {row['queries']:,} | {row['seconds']:.3f} | "
        f"{row['spread']} | {row['distance']:.4f} | {row['faster']:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
