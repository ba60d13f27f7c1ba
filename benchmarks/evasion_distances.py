"""Minimum-norm attacks beside Foolbox's, adv-lib's and AutoAttack's FAB: median distances at equal propagations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from evasion_apgd import Counting
from evasion_nets import KINDS, Net, net_of
from evasion_ours import pursued
from evasion_peers import distances, minimum_norm_peers, rightly

from casemate.catalog import plugins
from casemate.core.bracket import Goal
from casemate.core.norms import Norm

__all__ = ["nearest"]

SAMPLES = 64
OURS = {"linf": "evasion/fmn", "l2": "evasion/fmn", "l1": "evasion/fmn", "l0": "evasion/sigma_zero"}
"""The attack that the catalogue names first for the nearest point in a norm."""


def nearest(steps: int) -> dict[str, Any]:
    """Median distances of minimum-norm attacks with so many steps, at equal forwards and backwards."""
    rows: list[list[object]] = []
    met = True
    worst: dict[str, float] = {}
    for net in (net_of("mnist", kind) for kind in KINDS):
        x, y = rightly(net, SAMPLES)
        for norm in OURS:
            theirs = {
                name: by_peer(net, attack, x, y, norm) for name, attack in minimum_norm_peers(norm, steps).items()
            }
            best = min(theirs, key=lambda name: theirs[name][0])
            ours = by_ours(net, x, y, norm, steps)
            ratio = ours[0] / theirs[best][0]
            worst[norm] = max(worst.get(norm, 0.0), ratio)
            met &= ratio <= (1.0 if norm == "l0" else 1.01)
            others = ", ".join(f"{key} {value[0]:.4g}" for key, value in theirs.items())
            sides = OURS[norm], ours[0], f"{ours[1]:.0f}", best, theirs[best][0], f"{theirs[best][1]:.0f}"
            rows.append([net.name, norm, steps, *sides, f"{ratio:.3f}", others])
            print(f"  {rows[-1]}", flush=True)
    side = ["median", "propagations"]
    return {
        "bar": "median distance: l0 at most the best peer's; l1, l2, linf at most 1 % above it, at equal propagations",
        "columns": ["net", "norm", "steps", "ours", *side, "best peer", *side, "ratio", "all peers"],
        "rows": rows,
        "result": "largest ratio " + ", ".join(f"{norm} {ratio:.3f}" for norm, ratio in worst.items()),
        "met": met,
    }


def by_peer(net: Net, attack: Any, x: np.ndarray, y: np.ndarray, norm: str) -> tuple[float, float]:
    """Median distance, and forwards + backwards a sample."""
    counted = Counting(net.module).eval()
    points = attack(counted, torch.tensor(x), torch.tensor(y)).detach().numpy()
    return float(np.median(distances(net.module, x, y, points, norm))), (counted.forwards + counted.backwards) / len(x)


def by_ours(net: Net, x: np.ndarray, y: np.ndarray, norm: str, steps: int) -> tuple[float, float]:
    """The same of ours, with so many gradients."""
    attack = next(p for p in plugins() if p.id == OURS[norm])
    run = pursued(attack, net, (x, y), Goal(Norm(norm), float("inf")), steps=steps)
    return float(np.median(run.distance)), (run.forwards + run.backwards) / len(x)
