"""What the race of `evasion/apgd_t` costs and saves: gradients and successes beside nine whole runs (decision 011).

On the four adversarially trained nets of `evasion_nets`, with two random starts each: the same samples, starts and
steps; only who goes on after how many steps differs, or the loss, or whether who came near is started again. Of the
whole runs also the lead after ten steps: how near those came that broke later, and those that stood.

    .venv/bin/python benchmarks/evasion_race.py [--samples 256] [--seeds 0 1]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from evasion_nets import Net, net_of
from evasion_ours import pursued
from evasion_peers import rightly
from evidence import table

from casemate.core.bracket import Goal
from casemate.core.norms import Norm
from casemate.evasion import apgd_t
from casemate.evasion.climb import Climb
from casemate.evasion.losses import dlr

LOOK = 10  # steps after which the leads are looked at


@dataclass(frozen=True)
class Way:
    """A way to spend the steps: which lanes are cut when (None: as the attack does), the loss, and restarts."""

    cuts: Mapping[int, int] | None = None
    loss: Any = apgd_t.margin
    again: Mapping[str, Any] = field(default_factory=lambda: {"restarts": 0})
    fewer: tuple[tuple[float, float], ...] = apgd_t._FEWER


WHOLE = "nine whole runs"
WAYS = {
    WHOLE: Way({}),
    "three from step 5": Way({5: 3}),
    "the race": Way(),
    "the race on DLR": Way(loss=dlr),
    "the race, and restarts": Way(again={}),
    "the race, and whole restarts": Way(again={}, fewer=()),
}


@dataclass(frozen=True)
class Raced:
    """Which samples broke `(n,)`, gradients a sample, and the share of its lead that each had left `(n,)`, or NaN."""

    broken: np.ndarray
    gradients: float
    left: np.ndarray


def main() -> None:
    """Measure and print two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    races, leads = [], []
    for net in (net_of(size, kind) for size in ("mnist", "colour") for kind in ("linf-trained", "l2-trained")):
        x, y = rightly(net, asked.samples)
        for seed in asked.seeds:
            found = {name: raced(net, x, y, way, seed=seed) for name, way in WAYS.items()}
            whole = found[WHOLE].broken
            for name, run in found.items():
                gained, lost = int((run.broken & ~whole).sum()), int((whole & ~run.broken).sum())
                counts = int(run.broken.sum()), f"+{gained} -{lost}"
                races.append([net.size, net.name, seed, len(x), name, *counts, f"{run.gradients:.0f}"])
                print(races[-1], file=sys.stderr, flush=True)
            leads.append([net.size, net.name, seed, *told(found[WHOLE])])
            print(leads[-1], file=sys.stderr, flush=True)
    columns = ["size", "net", "seed", "samples", "way", "broken", "beside whole runs", "gradients a sample"]
    print("\n".join(table(columns, races)), end="\n\n")
    columns = ["size", "net", "seed", f"broke after step {LOOK}", "most left then", "stood", "median left then"]
    print("\n".join(table(columns, leads)))


def raced(net: Net, x: np.ndarray, y: np.ndarray, way: Way, *, seed: int) -> Raced:
    """The attack in the standard profile, run one way."""
    with torch.no_grad():
        logits = net.module(torch.tensor(x))
    lead = -apgd_t.margin(logits, torch.tensor(y), None).numpy().astype(np.float64)
    cuts = apgd_t._RACE if way.cuts is None else way.cuts
    with mock.patch.multiple(apgd_t, _RACE=cuts, _FEWER=way.fewer, margin=way.loss), logged() as seen:
        run = pursued(
            apgd_t.apgd_t_attack, net, (x, y), Goal(Norm(net.norm), net.eps), seed=seed, straight=False, **way.again
        )
    return Raced(~run.robust, run.backwards / len(x), -seen[0] / lead)


@contextmanager
def logged() -> Iterator[list[np.ndarray]]:
    """The highest loss of each sample in its first `LOOK` steps, a list of `(n,)`, one for each climb; NaN: broken."""
    seen: list[np.ndarray] = []

    class Logged(Climb):
        steps = 0

        def _remember(self, state: Any) -> None:
            super()._remember(state)
            self.steps += 1
            if self.steps == LOOK:
                best = np.where(self.broken, np.nan, self.reached)
                seen.append(best.reshape(-1, self.lanes).max(axis=1))

    with mock.patch.object(apgd_t, "Climb", Logged):
        yield seen


def told(run: Raced) -> tuple[int, float, int, float]:
    """How many broke later and the most of its lead that one had left; how many stood, and the median they had left."""
    late, stood = run.broken & ~np.isnan(run.left), ~run.broken
    most = float(run.left[late].max()) if late.any() else float("nan")
    return int(late.sum()), most, int(stood.sum()), float(np.median(run.left[stood]))


if __name__ == "__main__":
    main()
