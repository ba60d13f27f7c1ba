"""Factories and recipes that the tests name as `tests.adapters.nets:build`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def build() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3))


def wider() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


def shallow() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def raises() -> nn.Module:
    raise RuntimeError("no graphics card")


def text() -> str:
    return "a module"


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return x, x


NUMBER = 3
