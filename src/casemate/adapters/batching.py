"""Modules of a fixed layout and a fixed number of samples, for any number; a file of its own because it needs torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Batched"]


class Batched(nn.Module):
    """`inner` made into `(n, k)`: samples transposed by `axes`, of `shape`, `batch` at once, `columns` picked.

    A graph that was exported for `batch` samples (0: any number) is given the last one again until there are as many.
    """

    def __init__(
        self,
        inner: nn.Module,
        *,
        axes: Sequence[int] = (),
        shape: Sequence[int] | None = None,
        batch: int = 0,
        columns: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.inner = inner
        self.axes = tuple(axes)
        self.shape = shape
        self.batch = batch
        self.columns = tuple(columns)

    def forward(self, x: Tensor) -> Tensor:
        """The output `(n, k)` for samples `(n, ...)`."""
        sent = x.permute(self.axes) if self.axes else x
        sent = sent if self.shape is None else sent.reshape(len(x), *self.shape)
        out = torch.cat([self._filled(part) for part in sent.split(self.batch)]) if self.batch else self.inner(sent)
        out = out.reshape(len(x), math.prod(out.shape[1:]))
        return out[:, list(self.columns)] if self.columns else out

    def _filled(self, part: Tensor) -> Tensor:
        last = part[-1:] if len(part) else part.new_zeros((1, *part.shape[1:]))
        missing = last.expand(self.batch - len(part), *part.shape[1:])
        out: Tensor = self.inner(torch.cat([part, missing]))[: len(part)]
        return out
