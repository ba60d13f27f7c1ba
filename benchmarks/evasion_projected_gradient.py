"""Our APGD beside Foolbox's PGD, as Foolbox sets it and as a user would who wants the same success sooner.

Both sides run with each number of `STEPS`, Foolbox with steps of min(1, 2.5 / steps) eps (Madry et al. 2018 have 2.5
eps in all) and also as it is out of the box: 40 steps of eps / 30 in linf, 50 of eps / 40 in l2. Every setting of
Foolbox's is compared with the fewest of our steps that break at least as many samples; seconds are medians, successes
means, of `SEEDS` taken in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from evasion_nets import KINDS, Net, net_of
from evasion_ours import SAMPLES, pursued
from evasion_peers import Run, projected_gradient, rightly

from casemate.core.bracket import Goal
from casemate.core.norms import Norm
from casemate.evasion.apgd import apgd_attack

__all__ = ["Setting", "matched", "projected_gradients"]

STEPS = (3, 5, 8, 12, 20, 40)
SEEDS = (0, 1, 2)
BAR = 3.0


@dataclass(frozen=True)
class Setting:
    """An attack's setting: the share of samples it breaks, and its seconds."""

    name: str
    broken: float
    seconds: float


def projected_gradients() -> dict[str, Any]:
    """Times at equal or better success, for each of the peer's settings."""
    rows: list[list[object]] = []
    summary = []
    met = True
    for net in (net_of(size, kind) for size in ("mnist", "colour") for kind in KINDS):
        theirs, ours = settings_of(net, SAMPLES)
        found = [matched(peer, ours, theirs) for peer in theirs]
        for peer, (own, quickest) in zip(theirs, found, strict=True):
            rows.append([net.size, net.name, *_cells(peer), *_cells(own), *_times(peer, own)])
            rows[-1] += [quickest.name if quickest else "none", *_times(quickest, own)]
        default, tuned = _times(theirs[0], found[0][0])[0], _times(found[0][1], found[0][0])[0]
        ratios = [
            0.0 if own is None else peer.seconds / own.seconds for peer, (own, _) in zip(theirs, found, strict=True)
        ]
        met &= min(ratios) >= BAR
        summary.append(f"{net.size} {net.name} {default} / {tuned} / {min(ratios):.1f}")
        print(f"  {summary[-1]}", flush=True)
    side = ["broken", "s"]
    return {
        "bar": "Foolbox's PGD beaten in time by 3 at equal or better success, whatever its number of steps",
        "columns": [
            *("size", "net", "its steps", *side, "our fewest steps", *side, "times faster"),
            *("its quickest that breaks as many as ours", "times faster than that"),
        ],
        "rows": rows,
        "result": "times faster than its defaults / than its quickest setting that breaks as many as ours there / than "
        f"any of its settings, the least: {', '.join(summary)}",
        "met": met,
    }


def settings_of(net: Net, n: int) -> tuple[list[Setting], list[Setting]]:
    """Foolbox's settings, the first as it is out of the box, and ours by number of steps; in turn."""
    x, y = rightly(net, n)
    goal = Goal(Norm(net.norm), net.eps)
    theirs: dict[int | None, list[Run]] = {steps: [] for steps in (None, *STEPS)}
    ours: dict[int | None, list[Run]] = {steps: [] for steps in STEPS}
    projected_gradient(net, x, y, STEPS[0]), pursued(apgd_attack, net, (x, y), goal, steps=STEPS[0])  # to warm up
    for seed in SEEDS:
        for steps, runs in theirs.items():
            runs.append(projected_gradient(net, x, y, steps, seed=seed))
            if steps is not None:
                ours[steps].append(pursued(apgd_attack, net, (x, y), goal, seed=seed, steps=steps))
    return [_setting(steps, runs) for steps, runs in theirs.items()], [_setting(s, runs) for s, runs in ours.items()]


def matched(peer: Setting, ours: Sequence[Setting], theirs: Sequence[Setting]) -> tuple[Setting | None, Setting | None]:
    """The first of ours that breaks as many as the peer's setting, and the quickest of theirs that does as that."""
    own = next((setting for setting in ours if setting.broken >= peer.broken - 1e-9), None)
    as_good = [setting for setting in theirs if own is not None and setting.broken >= own.broken - 1e-9]
    return own, min(as_good, key=lambda setting: setting.seconds, default=None)


def _setting(steps: int | None, runs: Sequence[Run]) -> Setting:
    name = "its defaults" if steps is None else str(steps)
    return Setting(name, mean(1 - float(run.robust.mean()) for run in runs), median(run.seconds for run in runs))


def _cells(setting: Setting | None) -> list[object]:
    return ["none", "-", "-"] if setting is None else [setting.name, setting.broken, setting.seconds]


def _times(peer: Setting | None, own: Setting | None) -> list[str]:
    """How many times as long the peer took; a dash where one side breaks more than the other can."""
    return ["-" if peer is None or own is None else f"{peer.seconds / own.seconds:.1f}x"]
