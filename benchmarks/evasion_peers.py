"""The peers of `make evidence-evasion` in this process: fetched without their dependencies, counted, judged alike.

None is a dependency of Casemate. What they import and do not use here (plotting, a version of git) is not there, so
empty modules stand for it. Every peer gets the same net, samples, dtype and thread; what it returns is answered by the
net once more, and counts only inside the ball and the bounds.
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

__all__ = ["PEERS", "Run", "autoattack", "distances", "fetched", "minimum_norm_peers", "projected_gradient"]

PEERS = ("pyautoattack==0.2.0", "adv-lib==0.2.8", "foolbox==3.3.4", "eagerpy==0.30.0")
_EMPTY = ("git", "visdom", "torchvision", "torchvision.models")


@dataclass(frozen=True)
class Run:
    """What a run took, and what stood `(n,)` or how near it came `(n,)`."""

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
    counted = Counting(net.module)
    x, y = torch.tensor(net.x[:n]), torch.tensor(net.y[:n])
    start = time.process_time()
    norm = {"linf": "Linf", "l2": "L2"}[net.norm]
    attack = import_module("pyautoattack.autoattack").AutoAttack(counted, norm=norm, eps=net.eps, seed=seed)
    points, _ = attack.run_standard_evaluation(x, y, batch_size=n)
    with torch.no_grad():
        robust = (counted(points).argmax(1) == y).numpy()
    seconds = time.process_time() - start
    return Run(seconds, counted.forwards, counted.backwards, robust, np.empty(0))


def projected_gradient(net: Net, x: np.ndarray, y: np.ndarray, steps: int) -> Run:
    """Foolbox's PGD with its own step size, from a random start."""
    fetched()
    foolbox: Any = import_module("foolbox")
    counted = Counting(net.module)
    attack = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[net.norm](steps=steps)
    torch.manual_seed(0)
    start = time.process_time()
    model = foolbox.PyTorchModel(counted, bounds=(0, 1), device="cpu")
    _, points, _ = attack(model, torch.tensor(x), torch.tensor(y), epsilons=net.eps)
    with torch.no_grad():
        robust = (counted(points).argmax(1) == torch.tensor(y)).numpy()
    return Run(time.process_time() - start, counted.forwards, counted.backwards, robust, np.empty(0))


def distances(module: torch.nn.Module, x: np.ndarray, y: np.ndarray, points: torch.Tensor, norm: str) -> np.ndarray:
    """How far each point is from its sample, `(n,)`; inf where it is answered rightly or outside the bounds."""
    with torch.no_grad():
        wrong = module(points).argmax(1).numpy() != y
    moved = points.detach().numpy().astype(np.float64)
    gap = np.abs(moved - x.astype(np.float64)).reshape(len(x), -1)
    far = {
        "linf": gap.max(axis=1),
        "l2": np.sqrt((gap**2).sum(axis=1)),
        "l1": gap.sum(axis=1),
        "l0": (gap > 0).sum(axis=1),
    }
    inside = (moved.reshape(len(x), -1).min(axis=1) >= -1e-6) & (moved.reshape(len(x), -1).max(axis=1) <= 1 + 1e-6)
    return np.where(wrong & inside, far[norm].astype(np.float64), math.inf)


Nearest = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


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
        name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
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
