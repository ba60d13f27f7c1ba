"""The peers of `make evidence-evasion` in this process: fetched without their dependencies, counted, judged alike.

None is a dependency of Casemate. What they import and do not use here (plotting, a version of git) is not there, so
empty modules stand for it. Every peer gets the same net, samples, dtype and thread; what it returns is answered by the
net once more, in its seconds as the harness's judgement is in ours. `stands` judges their points and ours: they count
inside the bounds (to 1e-6) and the ball, to 1e-5 of eps, for a point in float32 can be that far out by rounding alone.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from evasion_apgd import Counting
from evasion_nets import CACHE, Net

__all__ = [
    "PEERS",
    "Run",
    "autoattack",
    "distances",
    "fetched",
    "minimum_norm_peers",
    "plain_apgd",
    "projected_gradient",
    "rightly",
    "stands",
]

PEERS = ("pyautoattack==0.2.0", "adv-lib==0.2.8", "foolbox==3.3.4", "eagerpy==0.30.0")
_ROUNDING = 1e-5
_NAMES = {"linf": "Linf", "l2": "L2"}
_EMPTY = ("git", "visdom", "torchvision", "torchvision.models")

Nearest = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
"""An attack `(net, x, y) -> points`."""


@dataclass(frozen=True)
class Run:
    """What a run took, what stood `(n,)` and how near it came `(n,)`, inf where it found nothing."""

    seconds: float
    forwards: int
    backwards: int
    robust: np.ndarray
    distance: np.ndarray


@cache
def fetched() -> None:
    """Put the peers on the path; from the package index the first time."""
    folder = CACHE / "peers"
    if not (folder / ".done").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*pip, *PEERS], check=True)
        (folder / ".done").touch()
    sys.path.append(str(folder))
    for name in _EMPTY:
        if name not in sys.modules:
            module: Any = types.ModuleType(name)
            module.__getattr__ = _nothing
            sys.modules[name] = module


def _nothing(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type("Nothing", (), {})


def autoattack(net: Net, n: int, seed: int) -> Run:
    """AutoAttack-standard on the first samples: APGD-CE, APGD-T, FAB-T and Square as its authors schedule them."""
    fetched()
    made = import_module("pyautoattack.autoattack").AutoAttack

    def attack(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        whole = made(module, norm=_NAMES[net.norm], eps=net.eps, seed=seed)
        points: torch.Tensor = whole.run_standard_evaluation(x, y, batch_size=n)[0]
        return points

    return _run(net, net.x[:n], net.y[:n], attack)


def plain_apgd(net: Net, n: int, seed: int) -> Run:
    """The authors' APGD on cross-entropy, 100 steps, on the first samples."""
    fetched()
    made = import_module("pyautoattack.autopgd_base").APGDAttack

    def attack(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        whole = made(
            module, n_iter=100, norm=_NAMES[net.norm], n_restarts=1, eps=net.eps, seed=seed, loss="ce", device="cpu"
        )
        points: torch.Tensor = whole.perturb(x, y)
        return points

    return _run(net, net.x[:n], net.y[:n], attack)


def projected_gradient(net: Net, x: np.ndarray, y: np.ndarray, steps: int | None, *, seed: int = 0) -> Run:
    """Foolbox's PGD from a random start: out of the box (None), or so many steps of min(1, 2.5 / steps) eps each."""
    fetched()
    foolbox: Any = import_module("foolbox")
    given = {} if steps is None else {"steps": steps, "rel_stepsize": min(1.0, 2.5 / steps)}
    torch.manual_seed(seed)

    def attack(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        whole = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[net.norm](**given)
        model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
        points: torch.Tensor = whole(model, x, y, epsilons=net.eps)[1]
        return points

    return _run(net, x, y, attack)


def _run(net: Net, x: np.ndarray, y: np.ndarray, attack: Nearest) -> Run:
    """An attack for a fixed eps, timed with the net's answer to its points; then these are judged."""
    counted = Counting(net.module).eval()
    start = time.process_time()
    points = attack(counted, torch.tensor(x), torch.tensor(y)).detach()
    with torch.no_grad():
        counted(points)
    seconds = time.process_time() - start
    far = distances(net.module, x, y, points.numpy(), net.norm)
    return Run(seconds, counted.forwards, counted.backwards, stands(net.module, x, y, far, net.eps), far)


def rightly(net: Net, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first samples that the net gets right."""
    right = np.flatnonzero(_answers(net.module, net.x) == net.y)[:n]
    return net.x[right], net.y[right]


def stands(module: torch.nn.Module, x: np.ndarray, y: np.ndarray, far: np.ndarray, eps: float) -> np.ndarray:
    """Which samples are right and were not broken within eps, `(n,)`; `far (n,)` is what `distances` says."""
    return (_answers(module, x) == y) & (far > eps * (1 + _ROUNDING))


def distances(module: torch.nn.Module, x: np.ndarray, y: np.ndarray, points: np.ndarray, norm: str) -> np.ndarray:
    """How far each point is from its sample, `(n,)`; inf where it is answered rightly or outside the bounds."""
    wrong = _answers(module, points) != y
    moved = points.astype(np.float64)
    gap = np.abs(moved - x.astype(np.float64)).reshape(len(x), -1)
    far = {
        "linf": gap.max(axis=1),
        "l2": np.sqrt((gap**2).sum(axis=1)),
        "l1": gap.sum(axis=1),
        "l0": (gap > 0).sum(axis=1),
    }
    inside = (moved.reshape(len(x), -1).min(axis=1) >= -1e-6) & (moved.reshape(len(x), -1).max(axis=1) <= 1 + 1e-6)
    return np.where(wrong & inside, far[norm].astype(np.float64), math.inf)


def _answers(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.tensor(x)).argmax(1).numpy()


def minimum_norm_peers(norm: str, steps: int) -> dict[str, Nearest]:
    """The peers' attacks in a norm, each with so many steps of its loop."""
    fetched()
    adv: Any = import_module("adv_lib.attacks")
    p = {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}[norm]
    found: dict[str, Nearest] = {"adv-lib FMN": lambda net, x, y: adv.fmn(net, x, y, norm=p, steps=steps)}
    if norm == "linf":
        found["adv-lib FMN, first step 10"] = lambda net, x, y: adv.fmn(
            net, x, y, norm=p, steps=steps, **{"α_init": 10.0}
        )
    if norm == "l2":
        found["adv-lib DDN"] = lambda net, x, y: adv.ddn(net, x, y, steps=steps)
    if norm == "l0":
        found["adv-lib sigma-zero"] = lambda net, x, y: adv.sigma_zero(net, x, y, num_steps=steps)
    if norm in ("l1", "l2", "linf"):
        found["adv-lib PDPGD"] = lambda net, x, y: adv.pdpgd(net, x, y, norm=p, num_steps=steps)
        name = {**_NAMES, "l1": "L1"}[norm]
        found["AutoAttack FAB-T"] = lambda net, x, y: _fab(net, x, y, name, steps)
    found.update(_foolbox(norm, steps))
    return found


def _fab(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, norm: str, steps: int) -> torch.Tensor:
    """FAB-T towards each of the likeliest wrong classes, as many as get twenty steps each (nine at most).

    Class by class: its own loop goes on only with samples that are further than an eps, and here there is none.
    """
    classes = min(9, max(1, steps // 20))
    made = import_module("pyautoattack.fab_pt").FABAttack_PT(
        net, norm=norm, n_restarts=1, n_iter=max(1, steps // classes), eps=1.0, seed=0, targeted=True, device="cpu"
    )  # fmt: skip
    best, nearest = x.clone(), np.full(len(x), math.inf)
    for rank in range(2, classes + 2):
        made.target_class = rank
        points = made.attack_single_run(x, y, is_targeted=True).detach()
        far = (points - x).flatten(1).norm(p={"Linf": math.inf, "L2": 2, "L1": 1}[norm], dim=1).double().numpy()
        far = np.where(far > 0, far, math.inf)  # it returns the sample where it failed
        best[torch.tensor(far < nearest)] = points[torch.tensor(far < nearest)]
        nearest = np.minimum(nearest, far)
    return best


def _foolbox(norm: str, steps: int) -> dict[str, Nearest]:
    attacks: Any = import_module("foolbox").attacks
    made = {
        "linf": {"Foolbox FMN": attacks.LInfFMNAttack(steps=steps)},
        "l2": {"Foolbox FMN": attacks.L2FMNAttack(steps=steps), "Foolbox DDN": attacks.DDNAttack(steps=steps)},
        "l1": {
            "Foolbox FMN": attacks.L1FMNAttack(steps=steps),
            "Foolbox EAD": attacks.EADAttack(binary_search_steps=5, steps=max(1, steps // 5)),
        },
        "l0": {"Foolbox FMN": attacks.L0FMNAttack(steps=steps)},
    }[norm]

    def by(attack: Any) -> Nearest:
        def run(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            model = import_module("foolbox").PyTorchModel(net, bounds=(0, 1), device="cpu")
            points: torch.Tensor = attack(model, x, y, epsilons=None)[0]
            return points

        return run

    return {name: by(attack) for name, attack in made.items()}
