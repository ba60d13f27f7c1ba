"""A torch model made ready for attacks: frozen, BatchNorm folded away, and every propagation charged to a meter."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.budget import Meter
from casemate.core.model import Model
from casemate.errors import ModelError, Unavailable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Prepared", "prepare"]

Array = NDArray[Any]
# Samples that the prepared module is compared on; beyond some dozens only the price grows.
_COMPARED = 16
_TOLERANCE = {"torch.float64": 1e-9, "torch.float32": 1e-4}
_COARSE_TOLERANCE = 2e-2  # half precision
# Samples that go through the module at once: larger parts fall out of a core's cache (256 at once took up to 1.9 times
# as long a sample on a small CNN), and on a GPU a shard is no larger anyway.
_PART = 64


@dataclass(frozen=True)
class Prepared:
    """A frozen copy of a model's module with the logits of the original, up to rounding.

    It is never the judge: what an attack finds on it is measured again on the model itself. `notes` say what was done.
    """

    module: nn.Module
    device: torch.device
    dtype: torch.dtype
    meter: Meter
    channels_last: bool = False
    notes: tuple[str, ...] = ()

    def tensor(self, x: Array) -> Tensor:
        """An array of floats `(n, ...)` as a tensor of the module's device, dtype and memory format; always a copy."""
        import torch

        moved = torch.tensor(np.array(x), dtype=self.dtype, device=self.device)
        return moved.contiguous(memory_format=torch.channels_last) if self.channels_last and moved.ndim == 4 else moved

    def logits(self, x: Tensor) -> Tensor:
        """Logits `(n, k)`, without a graph; charges n forwards first, so `BudgetExhausted` comes before the work."""
        import torch

        self.meter.charge(forwards=len(x))
        with torch.no_grad():
            return torch.cat([self._answer(part) for part in self._parts(x)])

    def gradient(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `(n, k)`, `loss(logits) (n,)` and its gradient with respect to `x (n, ...)`.

        Charges n forwards and n backwards first. A loss that does not depend on x differentiably (a model that rounds
        or thresholds) has gradient 0: that is what such an attacker sees.
        """
        import torch

        self.meter.charge(forwards=len(x), backwards=len(x))
        # The loss may know its samples (their classes), so it is given all logits; the graphs are per part still.
        with torch.enable_grad():
            leaves = [part.detach().requires_grad_(True) for part in self._parts(x)]
            outputs = [self._answer(leaf) for leaf in leaves]
            logits = torch.cat([output.detach() for output in outputs]).requires_grad_(True)
            values = loss(logits)
            (pull,) = torch.autograd.grad(values.sum(), [logits])
        slopes = [self._pulled(*part) for part in zip(leaves, outputs, pull.split(_PART), strict=True)]
        return logits.detach(), values.detach(), torch.cat(slopes)

    @staticmethod
    def _pulled(leaf: Tensor, output: Tensor, pull: Tensor) -> Tensor:
        """The gradient of one part from that of its logits."""
        import torch

        found = None
        if output.requires_grad:
            (found,) = torch.autograd.grad([output], [leaf], [pull], allow_unused=True)
        return torch.zeros_like(leaf) if found is None else torch.nan_to_num(found, posinf=0.0, neginf=0.0)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = x.split(_PART)
        return parts

    def _answer(self, x: Tensor) -> Tensor:
        logits: Tensor = self.module(x)
        return logits


def prepare(model: Model, x_sample: Array, meter: Meter | None = None) -> Prepared:
    """A frozen copy of `model.module` for attacks, equal to it on `x_sample (m, ...)`.

    Parameters need no gradient, eval mode, BatchNorm folded into the convolution or linear layer before it,
    channels-last memory where that pays. Folding is kept only if the logits of up to 16 real samples agree (1e-4
    relative, 1e-9 in float64) and every label is the same; else the plain frozen copy is used, and a note says so.
    Charges the comparison to `meter`. Raises `Unavailable` for a model without a module, `ModelError` where its output
    is not `(n, k)`.
    """
    if model.module is None:
        raise Unavailable(
            "expected a model with a torch module, got one without: use an attack that needs no gradients"
        )
    plain, notes = _frozen(model.module)
    device, dtype = _place(plain)
    known = meter or Meter()
    ready = Prepared(plain, device, dtype, known, notes=tuple(notes))
    sample = ready.tensor(x_sample[:_COMPARED])
    expected = ready.logits(sample)
    if expected.ndim != 2 or len(expected) != len(sample):
        raise ModelError(
            f"expected logits ({len(sample)}, k) from the module, got {tuple(expected.shape)}: return logits"
        )
    folded, count = _folded(plain)
    if folded is not None:
        tried = Prepared(folded, device, dtype, known, notes=(*notes, f"folded {count} BatchNorm layers"))
        if _agree(expected, tried.logits(sample)):
            ready = tried
        else:
            ready = Prepared(
                plain, device, dtype, known, notes=(*notes, "not folded: the folded model answered otherwise")
            )
    return _in_channels_last(ready, sample, expected)


def _frozen(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """A frozen copy in eval mode; the user's module stays as it is."""
    try:
        plain = copy.deepcopy(module)
    except (RuntimeError, TypeError, ValueError) as error:
        # Some modules hold what cannot be copied. The original works too, only with a gradient graph for its weights.
        return module, [f"not copied: {type(error).__name__}"]
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    return plain.eval(), []


def _place(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    import itertools

    import torch

    tensors = itertools.chain(module.parameters(), module.buffers())
    first = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
    return (torch.device("cpu"), torch.get_default_dtype()) if first is None else (first.device, first.dtype)


def _agree(expected: Tensor, got: Tensor) -> bool:
    import torch

    if got.shape != expected.shape or not torch.equal(expected.argmax(1), got.argmax(1)):
        return False
    tolerance = _TOLERANCE.get(str(expected.dtype), _COARSE_TOLERANCE)
    return bool((got - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-3))


def _folded(plain: nn.Module) -> tuple[nn.Module | None, int]:
    """The module as a graph with every BatchNorm that follows a convolution or linear layer folded into it."""
    from torch import fx, nn

    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if not any(isinstance(part, norms) for part in plain.modules()):
        return None, 0
    try:
        traced = fx.symbolic_trace(copy.deepcopy(plain))
    except Exception:  # tracing runs the user's code on stand-ins, and any of it may refuse them
        return None, 0
    parts = dict(traced.named_modules())
    count = 0
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(parts[str(node.target)], norms):
            continue
        before = node.args[0] if node.args else None
        fused = _fused(parts, before, node) if isinstance(before, fx.Node) else None
        if fused is not None and isinstance(before, fx.Node):
            parent, _, name = str(before.target).rpartition(".")
            setattr(parts[parent], name, fused)
            parts[str(before.target)] = fused
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
            count += 1
    if not count:
        return None, 0
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced, count


def _fused(parts: dict[str, nn.Module], before: Any, node: Any) -> nn.Module | None:
    """The layer before a BatchNorm with the norm in its weights, where only that norm reads it."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

    norm: Any = parts[str(node.target)]
    layer = parts.get(str(before.target)) if before.op == "call_module" else None
    shared = sum(other.op == "call_module" and other.target == before.target for other in before.graph.nodes) > 1
    if len(before.users) > 1 or shared or norm.running_mean is None or layer is None:
        return None
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        fused: nn.Module = fuse_conv_bn_eval(layer, norm)
    elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
        fused = fuse_linear_bn_eval(layer, norm)
    else:
        return None
    return fused.requires_grad_(False)


def _in_channels_last(ready: Prepared, sample: Tensor, expected: Tensor) -> Prepared:
    """The same in channels-last memory, if it convolves images and answers alike.

    Decided by structure and never by a clock: the choice changes the rounding, and a report must not depend on how busy
    the machine was. It pays from a few channels on (see `benchmarks/evasion_apgd.py`); with one or two there is nothing
    to gain.
    """
    import torch
    from torch import nn

    layers = [part for part in ready.module.modules() if isinstance(part, nn.Conv2d)]
    if sample.ndim != 4 or not layers or max(layer.in_channels for layer in layers) < _WIDE:
        return ready
    module = copy.deepcopy(ready.module)
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    tried = Prepared(module, ready.device, ready.dtype, ready.meter, True, (*ready.notes, "channels last"))
    moved = sample.contiguous(memory_format=torch.channels_last)
    try:
        return tried if _agree(expected, tried.logits(moved)) else ready
    except RuntimeError:  # a module that calls `view` on its features cannot take them in this order
        return ready


_WIDE = 8
