"""ONNX operators with weights or windows, in torch: convolution, pooling, normalisation, products, linear classifiers.

Source: the ONNX operator specification, ai.onnx opsets 7 to 25 and ai.onnx.ml 1 to 5. No operator is held to be right
here: a converted graph is used only where it answers as onnxruntime does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from casemate.errors import Unavailable

__all__ = ["LAYERS", "Operator", "Step", "refusal"]


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a graph: what it is called with. `opset` is that of its domain; missing inputs have no name."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """An attribute; raises `Unavailable` where it is missing."""
        if name not in self.settings:
            raise refusal(self, f"without {name}")
        return self.settings[name]

    def get(self, name: str, default: Any) -> Any:
        """An attribute, or its default."""
        return self.settings.get(name, default)


Operator = Callable[..., Any]
"""`(step, *inputs) -> Tensor`, or a sequence of tensors for several outputs; a missing input is None."""


def refusal(step: Step, why: str = "") -> Unavailable:
    """The error for what does not convert."""
    what = f"{step.op} {why}".strip()
    return Unavailable(f"expected operators that convert to torch, got {what}: use attacks on scores or labels")


def _conv(step: Step, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    size = list(weight.shape[2:])
    strides, dilations = _window(step, len(size))
    x, padding = _padded(step, x, size, (strides, dilations))
    call: Operator = (F.conv1d, F.conv2d, F.conv3d)[len(size) - 1]
    out: Tensor = call(x, weight, bias, strides, padding, dilations, step.get("group", 1))
    return out


def _conv_transpose(step: Step, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = weight.ndim - 2
    strides, dilations = _window(step, rank)
    pads = step.get("pads", [0] * 2 * rank)
    if pads[:rank] != pads[rank:] or "output_shape" in step.settings or _auto(step) != "NOTSET":
        raise refusal(step, "with uneven pads")
    call: Operator = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    extra = step.get("output_padding", [0] * rank)
    out: Tensor = call(x, weight, bias, strides, pads[:rank], extra, step.get("group", 1), dilations)
    return out


def _max_pool(step: Step, x: Tensor) -> Tensor:
    size = list(step["kernel_shape"])
    strides, dilations = _window(step, len(size))
    x, padding = _padded(step, x, size, (strides, dilations), value=-torch.inf)
    call: Operator = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(size) - 1]
    out: Tensor = call(x, size, strides, padding, dilations, bool(step.get("ceil_mode", 0)))
    return out


def _average_pool(step: Step, x: Tensor) -> Tensor:
    size = list(step["kernel_shape"])
    strides, dilations = _window(step, len(size))
    counted = bool(step.get("count_include_pad", 0))
    before = x.shape
    x, padding = _padded(step, x, size, (strides, dilations))
    if any(width != 1 for width in dilations) or (x.shape != before and not counted):
        raise refusal(step, "with uneven pads or dilations")
    call: Operator = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(size) - 1]
    out: Tensor = call(x, size, strides, padding, bool(step.get("ceil_mode", 0)), counted)
    return out


def _window(step: Step, rank: int) -> tuple[list[int], list[int]]:
    return list(step.get("strides", [1] * rank)), list(step.get("dilations", [1] * rank))


def _auto(step: Step) -> str:
    return str(step.get("auto_pad", "NOTSET"))


def _padded(
    step: Step, x: Tensor, size: Sequence[int], windows: tuple[list[int], list[int]], *, value: float = 0.0
) -> tuple[Tensor, list[int]]:
    """The input, padded by hand where torch's own (even) padding will not do, and the padding left to torch."""
    rank = len(size)
    strides, dilations = windows
    pads = list(step.get("pads", [0] * 2 * rank))
    if _auto(step).startswith("SAME"):
        reach = [(kernel - 1) * wide + 1 for kernel, wide in zip(size, dilations, strict=True)]
        short = [
            max((-(-width // stride) - 1) * stride + kernel - width, 0)
            for width, stride, kernel in zip(x.shape[2:], strides, reach, strict=True)
        ]
        less, more = [total // 2 for total in short], [total - total // 2 for total in short]
        pads = less + more if _auto(step) == "SAME_UPPER" else more + less
    if pads[:rank] == pads[rank:] and all(2 * pad <= kernel for pad, kernel in zip(pads, size, strict=False)):
        return x, pads[:rank]
    flat = [edge for axis in reversed(range(rank)) for edge in (pads[axis], pads[axis + rank])]
    return F.pad(x, flat, value=value), [0] * rank


def _batch_norm(step: Step, x: Tensor, *learned: Tensor) -> Tensor:
    scale, bias, mean, var = learned
    if step.get("training_mode", 0):
        raise refusal(step, "in train mode")
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, step.get("epsilon", 1e-5))


def _layer_norm(step: Step, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    shape = x.shape[step.get("axis", -1) :]
    scale = scale.expand(shape)
    return F.layer_norm(x, shape, scale, None if bias is None else bias.expand(shape), step.get("epsilon", 1e-5))


def _group_norm(step: Step, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    if len(scale) != x.shape[1]:
        raise refusal(step, "with one scale for each group")
    return F.group_norm(x, step["num_groups"], scale, bias, step.get("epsilon", 1e-5))


def _gemm(step: Step, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    left = a.T if step.get("transA", 0) else a
    right = b.T if step.get("transB", 0) else b
    out = (left @ right).mul(step.get("alpha", 1.0))
    return out if c is None else out + c.mul(step.get("beta", 1.0))


def _local_norm(step: Step, x: Tensor) -> Tensor:
    alpha, beta, bias = step.get("alpha", 1e-4), step.get("beta", 0.75), step.get("bias", 1.0)
    return F.local_response_norm(x, step["size"], alpha, beta, bias)


def _linear_classifier(step: Step, x: Tensor) -> tuple[None, Tensor]:
    """Only the scores: labels have no gradient. One row of coefficients (a binary machine) is left to onnxruntime."""
    weights = torch.tensor(step["coefficients"], dtype=x.dtype, device=x.device)
    bias = torch.tensor(step.get("intercepts", [0.0]), dtype=x.dtype, device=x.device)
    if len(bias) < 2:
        raise refusal(step, "with one score")
    z = x @ weights.reshape(len(bias), -1).T + bias
    kinds: dict[str, Operator] = {"NONE": lambda z: z, "LOGISTIC": torch.sigmoid, "SOFTMAX": lambda z: z.softmax(-1)}
    name = str(step.get("post_transform", "NONE"))
    if name not in kinds:
        raise refusal(step, f"with {name}")
    return None, kinds[name](z)


def _scaler(step: Step, x: Tensor) -> Tensor:
    offset, scale = (torch.tensor(step[name], dtype=x.dtype, device=x.device) for name in ("offset", "scale"))
    return (x - offset) * scale


def _normalizer(step: Step, x: Tensor) -> Tensor:
    kind = str(step.get("norm", "MAX"))
    if kind == "MAX":
        return x / x.abs().amax(-1, keepdim=True)
    return F.normalize(x, p=1.0 if kind == "L1" else 2.0, dim=-1, eps=torch.finfo(x.dtype).tiny)


LAYERS: Mapping[str, Operator] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda _, x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "GroupNormalization": _group_norm,
    "InstanceNormalization": lambda step, x, scale, bias: F.instance_norm(
        x, weight=scale, bias=bias, eps=step.get("epsilon", 1e-5)
    ),
    "LRN": _local_norm,
    "LayerNormalization": _layer_norm,
    "LinearClassifier": _linear_classifier,
    "LpNormalization": lambda step, x: F.normalize(x, p=float(step.get("p", 2)), dim=step.get("axis", -1)),
    "MatMul": lambda _, a, b: a @ b,
    "MaxPool": _max_pool,
    "Normalizer": _normalizer,
    "Scaler": _scaler,
}
"""Operator -> its function, for those with weights or windows."""
