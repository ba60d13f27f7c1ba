"""Losses that a gradient attack raises, on logits `(n, k)`: cross-entropy, margin, difference of logits ratio."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from casemate.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LOSSES", "Loss", "ce", "clearly", "dlr", "loss_named", "margin", "pick"]

Loss = Callable[["Tensor", "Tensor", "Tensor | None"], "Tensor"]
"""`(logits (n, k), y (n,), target (n,) or None) -> (n,)`; larger is closer to success."""


def loss_named(name: str) -> Loss:
    """A loss by name; raises `ConfigError` for an unknown one."""
    if name not in LOSSES:
        raise ConfigError(f"expected a loss of {sorted(LOSSES)}, got {name!r}: choose one of them")
    return LOSSES[name]


def ce(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """Cross-entropy of the true class, or minus that of the target; its gradient vanishes where a model is sure."""
    import torch.nn.functional as F

    if target is None:
        return F.cross_entropy(logits, y, reduction="none")
    return -F.cross_entropy(logits, target, reduction="none")


def margin(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """Best wrong logit minus the true one, or the target's minus the best other: above 0 just on success; k >= 2."""
    aim = y if target is None else target
    other = logits.scatter(1, aim[:, None], float("-inf")).max(dim=1).values
    return other - pick(logits, y) if target is None else pick(logits, target) - other


def clearly(ahead: Tensor, logits: Tensor) -> Tensor:
    """Which margins `(n,)` are above 0 by more than rounding, which may be gone in the harness's own evaluation."""
    import torch

    return ahead > _ROUNDINGS * torch.finfo(logits.dtype).eps * logits.abs().amax(dim=1)


def dlr(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """Difference of logits ratio: the same for shifted or scaled logits, so a sure model cannot hide its gradient.

    With z sorted downwards: (max of others - z_y) / (z1 - z3), and towards a target (z_t - z_y) / (z1 - (z3 + z4) / 2).
    Croce and Hein, ICML 2020, equations 6 and 7. They need 3 and 4 classes. With 2 the ratio would be the constant +-1,
    so below those numbers this is the margin itself (ours): attacks use its gradient's direction and order, which
    scaling leaves alone.
    """
    k = logits.shape[1]
    if target is None:
        if k < 3:
            return margin(logits, y, None)
        top = logits.topk(3, dim=1).values
        return margin(logits, y, None) / (top[:, 0] - top[:, 2] + _TINY)
    if k < 4:
        return pick(logits, target) - pick(logits, y)
    top = logits.topk(4, dim=1).values
    return (pick(logits, target) - pick(logits, y)) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _TINY)


def pick(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit of one class for each sample, `(n,)`."""
    return logits.gather(1, classes[:, None]).squeeze(1)


LOSSES: dict[str, Loss] = {"ce": ce, "dlr": dlr, "margin": margin}
"""The losses by name."""

_TINY = 1e-12
_ROUNDINGS = 1e3  # of the largest logit
