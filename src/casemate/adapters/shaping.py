"""The output of a module made into logits `(n, k)`; a file of its own because it needs torch to define a class."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Shaper"]


class Shaper(nn.Module):
    """`inner` with logits `(n, k)` as output, made of `single` logits `(n,)`, `(n, 1)`, or of `probabilities`."""

    def __init__(self, inner: nn.Module, *, single: bool, probabilities: bool) -> None:
        super().__init__()
        self.inner = inner
        self.single = single
        self.probabilities = probabilities

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `(n, k)`."""
        out: torch.Tensor = self.inner(x)
        if self.single:
            out = out.reshape(-1, 1)
            out = torch.cat([1 - out, out], dim=1) if self.probabilities else torch.cat([-out / 2, out / 2], dim=1)
        return out.clamp_min(torch.finfo(out.dtype).tiny).log() if self.probabilities else out
