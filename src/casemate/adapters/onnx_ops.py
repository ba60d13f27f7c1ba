"""ONNX operators in torch, by name: arithmetic, bends, shapes and reductions; those with weights are `onnx_layers`.

Source: the ONNX operator specification, ai.onnx opsets 7 to 25.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from casemate.adapters.onnx_layers import LAYERS, Operator, Step, refusal

__all__ = ["OPERATORS"]


def _ints(values: Tensor | Sequence[int]) -> list[int]:
    return [int(value) for value in (values.tolist() if isinstance(values, Tensor) else values)]


def _axes(step: Step, given: Tensor | None) -> list[int] | None:
    """The axes of an operator, which older opsets have as an attribute and newer ones as an input."""
    found = step.get("axes", None) if given is None else given.reshape(-1)
    return None if found is None else _ints(found)


# ---------------------------------------------------------------------------------------------------------- arithmetic


def _divide(_: Step, a: Tensor, b: Tensor) -> Tensor:
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _mod(step: Step, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if step.get("fmod", 0) else torch.remainder(a, b)


def _clip(step: Step, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    lower = step.get("min", None) if low is None else low.item()
    upper = step.get("max", None) if high is None else high.item()
    return x if lower is None and upper is None else torch.clamp(x, lower, upper)


def _dropout(step: Step, x: Tensor, _: Tensor | None = None, training: Tensor | None = None) -> Tensor:
    if training is not None and bool(training.item()):
        raise refusal(step, "in train mode")
    return x


def _softmax(step: Step, x: Tensor, *, log: bool) -> Tensor:
    axis = step.get("axis", -1 if step.opset >= 13 else 1)
    if step.opset < 13:  # one distribution over all axes from this one on
        flat = x.reshape(math.prod(x.shape[:axis]), -1)
        return (flat.log_softmax(-1) if log else flat.softmax(-1)).reshape(x.shape)
    return x.log_softmax(axis) if log else x.softmax(axis)


def _gelu(step: Step, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=str(step.get("approximate", "none")))


def _hard_sigmoid(step: Step, x: Tensor) -> Tensor:
    return torch.clamp(step.get("alpha", 0.2) * x + step.get("beta", 0.5), 0, 1)


def _thresholded(step: Step, x: Tensor) -> Tensor:
    return torch.where(x > step.get("alpha", 1.0), x, torch.zeros_like(x))


def _scaled_elu(step: Step, x: Tensor) -> Tensor:
    alpha, gamma = step.get("alpha", 1.67326319217681884765625), step.get("gamma", 1.05070102214813232421875)
    return torch.where(x > 0, x, alpha * (x.clamp(max=0).exp() - 1)).mul(gamma)


def _round(_: Step, x: Tensor) -> Tensor:
    return x.round()  # torch and ONNX both round halves to even


_DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}  # TensorProto.DataType


def _cast(step: Step, x: Tensor, *_: Tensor) -> Tensor:
    if step["to"] not in _DTYPES:
        raise refusal(step, f"to type {step['to']}")
    return x.to(_DTYPES[step["to"]])


# -------------------------------------------------------------------------------------------------------------- shapes


def _reshape(step: Step, x: Tensor, shape: Tensor) -> Tensor:
    sizes = _ints(shape)
    if not step.get("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return torch.reshape(x, sizes)


def _flatten(step: Step, x: Tensor) -> Tensor:
    axis = step.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(step: Step, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = _axes(step, given)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(step: Step, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = _axes(step, given) or []
    rank = x.ndim + len(axes)
    for axis in sorted(axis + rank if axis < 0 else axis for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(step: Step, x: Tensor) -> Tensor:
    return x.permute(step.get("perm", list(range(x.ndim))[::-1]))


def _slice(step: Step, x: Tensor, *given: Tensor | None) -> Tensor:
    starts, ends, axes, steps = (*given, None, None, None, None)[:4]
    first = _ints(step["starts"] if starts is None else starts)
    last = _ints(step["ends"] if ends is None else ends)
    where = _axes(step, axes) or list(range(len(first)))
    strides = [1] * len(first) if steps is None else _ints(steps)
    for start, end, axis, stride in zip(first, last, where, strides, strict=True):
        if stride > 0:
            whole = range(x.shape[axis])[start:end:stride]  # "to the end" is written as a number beyond torch's
            x = x[(*[slice(None)] * (axis % x.ndim), slice(whole.start, max(whole.stop, whole.start), stride))]
        else:  # torch has no steps backwards
            backwards = range(x.shape[axis])[start:end:stride]
            x = x.index_select(axis, torch.tensor(backwards, dtype=torch.int64, device=x.device))
    return x


def _gather(step: Step, x: Tensor, index: Tensor) -> Tensor:
    axis = step.get("axis", 0)
    axis = axis + x.ndim if axis < 0 else axis
    flat = index.reshape(-1).long()
    flat = torch.where(flat < 0, flat + x.shape[axis], flat)
    return x.index_select(axis, flat).reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _gather_elements(step: Step, x: Tensor, index: Tensor) -> Tensor:
    axis = step.get("axis", 0)
    return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index).long())


def _split(step: Step, x: Tensor, given: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = step.get("axis", 0)
    sizes = step.get("split", None) if given is None else given
    if sizes is None:
        return cast(tuple[Tensor, ...], x.split(-(-x.shape[axis] // len(step.outputs)), axis))
    return cast(tuple[Tensor, ...], x.split(_ints(sizes), axis))


def _pad(step: Step, x: Tensor, given: Tensor | None = None, value: Tensor | None = None, *rest: Tensor) -> Tensor:
    mode = str(step.get("mode", "constant"))
    pads = _ints(step["pads"] if given is None else given)
    if any(part is not None for part in rest) or mode not in ("constant", "reflect", "edge"):
        raise refusal(step, f"with axes or mode {mode}")
    edges = [edge for axis in reversed(range(x.ndim)) for edge in (pads[axis], pads[axis + x.ndim])]
    if mode == "constant":
        return F.pad(x, edges, value=step.get("value", 0.0) if value is None else value.item())
    while len(edges) > 2 and edges[-2:] == [0, 0]:  # torch pads inner axes only in these modes
        edges = edges[:-2]
    return F.pad(x, edges, mode="replicate" if mode == "edge" else mode)


def _shape(step: Step, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[step.get("start", 0) : step.get("end", None)], dtype=torch.int64, device=x.device)


def _full(step: Step, shape: Tensor) -> Tensor:
    value = step.get("value", None)
    filled = torch.zeros(1) if value is None else value
    return filled.to(shape.device).reshape(()).expand(_ints(shape))


def _expand(_: Step, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(_ints(shape))))


def _range(_: Step, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


def _trilu(step: Step, x: Tensor, k: Tensor | None = None) -> Tensor:
    offset = 0 if k is None else int(k.item())
    return x.triu(offset) if step.get("upper", 1) else x.tril(offset)


# ---------------------------------------------------------------------------------------------------------- reductions


def _reduced(call: Operator) -> Operator:
    """An operator that reduces axes, as `call(x, axes, keepdim)` does."""

    def reduce(step: Step, x: Tensor, given: Tensor | None = None) -> Tensor:
        axes = _axes(step, given)
        if not axes and step.get("noop_with_empty_axes", 0):
            return x
        out: Tensor = call(x, tuple(axes or range(x.ndim)), bool(step.get("keepdims", 1)))
        return out

    return reduce


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _arg_max(step: Step, x: Tensor) -> Tensor:
    return x.argmax(step.get("axis", 0), keepdim=bool(step.get("keepdims", 1)))


def _each(call: Operator) -> Operator:
    """An operator that takes its inputs alone and has no attributes."""
    return lambda _, *inputs: call(*inputs)


def _folded(call: Operator) -> Operator:
    """An operator of any number of inputs, two at a time."""

    def fold(_: Step, first: Tensor, *rest: Tensor) -> Tensor:
        for other in rest:
            first = call(first, other)
        return first

    return fold


_ARITHMETIC: Mapping[str, Any] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Mish": F.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}

OPERATORS: Mapping[str, Operator] = {
    **LAYERS,
    **{name: _each(call) for name, call in _ARITHMETIC.items()},
    "ArgMax": _arg_max,
    "ArrayFeatureExtractor": lambda _, x, index: x.index_select(-1, index.reshape(-1)),
    "Cast": _cast,
    "Celu": lambda step, x: F.celu(x, step.get("alpha", 1.0)),
    "Clip": _clip,
    "Concat": lambda step, *parts: torch.cat(parts, step["axis"]),
    "ConstantOfShape": _full,
    "CumSum": lambda _, x, axis: x.cumsum(int(axis.item())),
    "Div": _divide,
    "Dropout": _dropout,
    "Einsum": lambda step, *parts: torch.einsum(str(step["equation"]), *parts),
    "Elu": lambda step, x: F.elu(x, step.get("alpha", 1.0)),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": lambda step, x: F.leaky_relu(x, step.get("alpha", 0.01)),
    "LogSoftmax": lambda step, x: _softmax(step, x, log=True),
    "Max": _folded(torch.maximum),
    "Mean": lambda _, *parts: sum(parts[1:], parts[0]) / len(parts),
    "Min": _folded(torch.minimum),
    "Mod": _mod,
    "PRelu": lambda _, x, slope: torch.where(x < 0, slope * x, x),
    "Pad": _pad,
    "Pow": lambda _, a, b: (a**b).to(a.dtype),
    "Range": _range,
    "ReduceL1": _reduced(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "ReduceLogSumExp": _reduced(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": _reduced(_product),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)),
    "Reshape": _reshape,
    "Round": _round,
    "Selu": _scaled_elu,
    "Shape": _shape,
    "Size": lambda _, x: torch.tensor(x.numel(), device=x.device),
    "Slice": _slice,
    "Softmax": lambda step, x: _softmax(step, x, log=False),
    "Split": _split,
    "Squeeze": _squeeze,
    "Sum": _folded(torch.add),
    "ThresholdedRelu": _thresholded,
    "Tile": lambda _, x, repeats: x.repeat(_ints(repeats)),
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
"""Operator -> its function `(step, *inputs)`."""
