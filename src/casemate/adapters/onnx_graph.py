"""An ONNX graph as a torch module, so that attacks have gradients; a file of its own because it needs torch.

`GraphNet` runs the nodes one after the other, as `onnx_ops` says. Only what the wanted tensor depends on is converted,
so a label head that no gradient passes does not matter. Whether the module is used at all is decided in `onnx`, by
comparing its answers with onnxruntime's (see docs/decisions/007-our-own-onnx-to-torch.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from casemate.adapters.batching import Batched
from casemate.adapters.onnx_heads import Scored
from casemate.adapters.onnx_layers import Step, refusal
from casemate.adapters.onnx_ops import OPERATORS
from casemate.adapters.onnx_session import Feed
from casemate.adapters.shaping import Shaper

__all__ = ["GraphNet", "graph_module"]


def graph_module(feed: Feed, head: Scored, columns: Sequence[int]) -> Batched:
    """The module that maps samples `(n, ...)` to logits `(n, k)`, its columns picked in the order of `columns`.

    Raises `Unavailable` as `GraphNet`.
    """
    model = onnx.load_model_from_string(head.data)
    inner: nn.Module = GraphNet(model, given=feed.given.name, output=head.tensor)
    if head.single or head.probabilities:
        inner = Shaper(inner, single=head.single, probabilities=head.probabilities)
    picked = () if list(columns) == list(range(len(columns))) else columns
    return Batched(inner, axes=feed.axes, shape=feed.shape, batch=feed.batch, columns=picked).eval()


class GraphNet(nn.Module):
    """The part of an ONNX model that the tensor `output` depends on, as a function of its one `given` input.

    Raises `Unavailable` that names the operators for which there is none in torch.
    """

    def __init__(self, model: onnx.ModelProto, *, given: str, output: str) -> None:
        super().__init__()
        self.given = given
        self.output = output
        self.names: dict[str, str] = {}  # tensor of the graph -> parameter or buffer of this module
        opsets = {item.domain: item.version for item in model.opset_import}
        nodes = _needed(model.graph, output)
        unknown = sorted({node.op_type for node in nodes} - set(OPERATORS) - {"Constant"})
        if unknown:
            raise refusal(Step(", ".join(unknown), (), (), 0))
        self.steps: list[Step] = []
        for node in nodes:
            if node.op_type == "Constant":
                self._keep(node.output[0], _constant(node))
                continue
            settings = {item.name: _plain(onnx.helper.get_attribute_value(item)) for item in node.attribute}
            opset = opsets.get(node.domain, 0)
            self.steps.append(Step(node.op_type, tuple(node.input), tuple(node.output), opset, settings))
        asked = {name for step in self.steps for name in step.inputs} | {output}
        for tensor in model.graph.initializer:
            if tensor.name in asked:
                self._keep(tensor.name, _tensor(tensor))
        self.last = {name: index for index, step in enumerate(self.steps) for name in step.inputs}

    def forward(self, x: Tensor) -> Tensor:
        """The wanted tensor for the input `x`."""
        values: dict[str, Any] = {name: getattr(self, own) for name, own in self.names.items()}
        values[self.given] = x
        values[""] = None  # an input that is left out
        for index, step in enumerate(self.steps):
            found = OPERATORS[step.op](step, *(values[name] for name in step.inputs))
            outputs = [found] if isinstance(found, Tensor) else list(found)
            values.update(zip(step.outputs, outputs, strict=False))
            for name in step.inputs:
                if name and self.last[name] == index and name != self.output:
                    values.pop(name, None)  # without a gradient to come, nobody needs it again
        out: Tensor = values[self.output]
        return out

    def extra_repr(self) -> str:
        """The operators, in order."""
        return " ".join(step.op for step in self.steps)

    def _keep(self, name: str, tensor: Tensor) -> None:
        own = self.names.setdefault(name, f"tensor_{len(self.names)}")
        if tensor.is_floating_point():  # frozen: which were trained and which are running means, no graph says
            self.register_parameter(own, nn.Parameter(tensor, requires_grad=False))
        else:
            self.register_buffer(own, tensor)


def _needed(graph: onnx.GraphProto, output: str) -> list[onnx.NodeProto]:
    """The nodes that `output` depends on, in the order of the graph."""
    wanted, found = {output}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            found.append(node)
            wanted.update(name for name in node.input if name)
    return found[::-1]


def _constant(node: onnx.NodeProto) -> Tensor:
    value = onnx.helper.get_attribute_value(node.attribute[0])
    if node.attribute[0].name == "value":
        return _tensor(value)
    if node.attribute[0].name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise refusal(Step("Constant", (), (), 0), f"with {node.attribute[0].name}")
    return torch.tensor(value)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return _tensor(value) if isinstance(value, onnx.TensorProto) else value


def _tensor(proto: onnx.TensorProto) -> Tensor:
    array = numpy_helper.to_array(proto)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise refusal(Step("constants", (), (), 0), f"of type {array.dtype}")
    return torch.tensor(array)
