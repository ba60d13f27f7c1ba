"""A small convolutional net for MNIST digits: what is audited, and how to train it again.

`casemate.toml` names both: `net:build` is the architecture that the weights are loaded into, `net:recipe` trains such a
net from nothing, which membership inference (shadow models) and hardening need.
"""

from __future__ import annotations

from torch import nn

from casemate.engine.trainers import TorchRecipe

__all__ = ["build", "recipe"]


def build() -> nn.Module:
    """An untrained net: `(n, 1, 28, 28)` in [0, 1] -> logits `(n, 10)`; 20,842 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=5, stride=2, padding=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 10),
    )


# The knobs are what a regularisation sweep may turn, the weakest setting first.
recipe = TorchRecipe(
    build,
    epochs=10,
    lr=5e-3,
    batch=128,
    schedule="cosine",
    classes=tuple("0123456789"),
    name="digits",
    knobs={"weight_decay": (0.0, 0.1, 1.0), "epochs": (10, 5)},
)
