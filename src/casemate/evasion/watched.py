"""A prepared model that also answers what its hidden units take in, and what one forward pass costs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from casemate.engine.prepared import Prepared

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Watched", "watch_units"]

_MOST = 1024  # units, so that a batch of them fits in memory


class Watched:
    """A module whose answers `(n, k + u)` are its logits and the outputs of u units of its linear and conv layers.

    Those are what goes into the activations, where a unit that is off still has a slope. Units of later layers come
    first; of a layer with too many, some that lie evenly apart. `work` is the number of multiplications in the weights
    of one forward pass, at least one for each parameter.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._layers = [part for part in module.modules() if _weighs(part)]
        self._kept: list[tuple[nn.Module, Tensor]] = []
        self.work = sum(parameter.numel() for parameter in module.parameters())
        self.classes = self.units = 0

    def measure(self, x: Tensor) -> Tensor:
        """Find units and work from a forward pass of samples `(n, ...)`; returns their logits `(n, k)`."""
        import torch

        logits, seen = self._run(x, self._layers)
        self.classes = logits.shape[1]
        self.work = max(self.work, sum(_multiplications(layer, out) // len(x) for layer, out in seen))
        left, self._kept = _MOST, []
        for layer, out in reversed(seen):
            width = out[0].numel()
            if out is logits or len(out) != len(x) or not left:
                continue
            count = min(width, left)
            self._kept.append((layer, torch.arange(count, device=out.device) * width // count))
            left -= count
        self.units = _MOST - left
        return logits

    def __call__(self, x: Tensor) -> Tensor:
        """Logits and units, `(n, k + u)`."""
        import torch

        logits, seen = self._run(x, [layer for layer, _ in self._kept])
        outs = dict(seen)
        return torch.cat([logits, *(outs[layer].flatten(1)[:, index] for layer, index in self._kept)], dim=1)

    def _run(self, x: Tensor, layers: list[nn.Module]) -> tuple[Tensor, list[tuple[nn.Module, Tensor]]]:
        """Logits, and what each of the layers put out, in the order of its last use."""
        seen: dict[nn.Module, Tensor] = {}

        def note(layer: nn.Module, _: Any, out: Any) -> None:
            seen.pop(layer, None)
            seen[layer] = out

        handles = [layer.register_forward_hook(note) for layer in layers]
        try:
            logits: Tensor = self._module(x)
        finally:
            for handle in handles:
                handle.remove()
        return logits, list(seen.items())


def watch_units(prepared: Prepared, x: Tensor) -> tuple[Prepared, Watched]:
    """The prepared model with the units beside the logits, and the watcher; charges a forward for each of `x (n, ...)`.

    Raises `BudgetExhausted`.
    """
    import torch

    watcher = Watched(prepared.module)
    prepared.meter.charge(forwards=len(x))
    with torch.no_grad():
        watcher.measure(x)
    return replace(prepared, module=cast("nn.Module", watcher)), watcher


def _weighs(part: nn.Module) -> bool:
    """Whether a layer multiplies what it gets by a matrix of weights."""
    from torch import nn

    return isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)


def _multiplications(layer: Any, out: Tensor) -> int:
    return int(layer.weight.numel()) * (out.numel() // int(layer.weight.shape[0]))
