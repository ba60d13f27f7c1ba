"""BatchNorm folded into the layer before it, as a graph of the module."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["fold"]


def fold(plain: nn.Module) -> tuple[nn.Module | None, int]:
    """The module as a graph with every BatchNorm that follows a convolution or linear layer folded into it.

    And how many that are; `None` where there is nothing to fold, or the module cannot be traced. A module with a
    `stand_in` (see `straight`) is left alone: a graph no longer has its parts.
    """
    from torch import fx, nn

    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    parts = list(plain.modules())
    if not any(isinstance(part, norms) for part in parts) or any(hasattr(part, "stand_in") for part in parts):
        return None, 0
    try:
        traced = fx.symbolic_trace(copy.deepcopy(plain))
    except Exception:  # tracing runs the user's code on stand-ins, and any of it may refuse them
        return None, 0
    named = dict(traced.named_modules())
    count = 0
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(named[str(node.target)], norms):
            continue
        before = node.args[0] if node.args else None
        fused = _fused(named, before, node) if isinstance(before, fx.Node) else None
        if fused is not None and isinstance(before, fx.Node):
            parent, _, name = str(before.target).rpartition(".")
            setattr(named[parent], name, fused)
            named[str(before.target)] = fused
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
