"""A module in half precision that is asked and answers in float32; a file of its own because it needs torch."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Single"]


class Single(nn.Module):
    """`inner`, which computes in `dtype`, for inputs `(n, ...)` and outputs in float32.

    The inputs are rounded to its dtype as the adapter does it, and what is searched keeps a precision that numpy knows.
    """

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = inner
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What `inner` answers."""
        out: torch.Tensor = self.inner(x.to(self.dtype))
        return out.float()
