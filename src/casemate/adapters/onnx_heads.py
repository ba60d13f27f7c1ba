"""What the outputs of an ONNX graph mean: which has the columns of the classes, which the labels, and which classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.function import softmax
from casemate.adapters.onnx_session import Feed, Session
from casemate.errors import ModelError

__all__ = ["Scored", "class_values", "label_output", "scored", "told"]

Array = NDArray[Any]
_FLOATS = frozenset({"tensor(float)", "tensor(double)", "tensor(float16)"})
_LABELS = frozenset({"tensor(int64)", "tensor(int32)", "tensor(string)", "tensor(bool)"})
_LINEAR = frozenset({"Gemm", "MatMul", "Add", "Sub", "Conv"})  # what comes out of these is no probability
_SHARE = 1e-3  # how far shares of one may be from it, in float16


@dataclass(frozen=True, slots=True)
class Scored:
    """The columns of the classes: the output `source` of the graph, read at `tensor`, an output of the graph in `data`.

    `width` columns are logits or `probabilities`; a single one is that of the second class. `cut` is the operator that
    was left out after them, `values` are the classes that the graph names beside them.
    """

    source: str
    tensor: str
    width: int = 0
    probabilities: bool = False
    cut: str = ""
    values: tuple[Any, ...] = ()
    data: bytes = field(default=b"", repr=False)

    @property
    def single(self) -> bool:
        """Whether one column stands for two classes."""
        return self.width == 1

    @property
    def k(self) -> int:
        """The number of classes."""
        return 2 if self.single else self.width

    def columns(self, found: Array) -> Array:
        """What the graph answered as `(n, k)`."""
        flat = found.reshape(len(found), -1)
        if not self.single:
            return flat
        return np.hstack([1 - flat, flat] if self.probabilities else [-flat / 2, flat / 2])


def scored(feed: Feed, proto: Any, x: Array, *, logits: bool | None, pair: bool) -> Scored | None:
    """The columns of the classes, or None where the graph gives labels alone.

    `logits` is what the user declared, `pair` whether there are two classes. Raises `ModelError` for several outputs
    that could be meant, and for one column that may as well be a regression.
    """
    found = [(candidate, _asked(feed, candidate.data, candidate.tensor, x)) for candidate in _candidates(feed, proto)]
    fitting = [(candidate, values) for candidate, values in found if values is not None]
    if len(fitting) > 1:
        named = ", ".join(f"{candidate.source} ({len(x)}, {values.shape[1]})" for candidate, values in fitting)
        raise ModelError(
            f"expected one output with a column for each class, got {named}: keep the one that is meant "
            "(onnx.utils.extract_model)"
        )
    if not fitting:
        return None
    ((candidate, values),) = fitting
    chosen = _meaning(feed, proto, x, (candidate, values), logits)
    if chosen.single and logits is None and not pair and chosen.cut != "Sigmoid":
        raise ModelError(
            f"expected a column for each class, got one in {chosen.source}: a regression, or one logit; set [model] "
            "outputs to logits or scores, or list two classes"
        )
    labels = [item.name for item in feed.session.live.get_outputs() if item.type in _LABELS]
    return replace(chosen, data=_with_outputs(chosen.data, [chosen.tensor, *labels]))


def label_output(feed: Feed, x: Array) -> str | None:
    """The output with one label for each sample, where there is exactly one such."""
    found = []
    for item in feed.session.live.get_outputs():
        if item.type in _LABELS:
            try:
                (values,) = feed(x, [item.name])
            except ModelError:
                continue
            if values.size == len(x):
                found.append(str(item.name))
    return found[0] if len(found) == 1 else None


def class_values(proto: Any, label: str | None, head: Scored | None) -> tuple[Any, ...]:
    """The graph's own names of its classes, numbers or text in the order of the columns; empty where it has none."""
    if head is not None and head.values:
        return head.values
    wanted = label or (head.source if head is not None else "")
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in _upwards(proto, wanted):
        values = _named(node)
        if node.op_type == "ArrayFeatureExtractor" and node.input[0] in weights:
            from onnx import numpy_helper

            values = tuple(_text(value) for value in numpy_helper.to_array(weights[node.input[0]]).reshape(-1).tolist())
        if values and (head is None or len(values) == head.k):
            return values
    return ()


def told(feed: Feed, x: Array) -> str:
    """The outputs and their shapes for samples `x`."""
    names = [item.name for item in feed.session.live.get_outputs()]
    part = feed.sent(x[: feed.batch or len(x)])
    if feed.batch > len(part):
        part = np.repeat(part, feed.batch, axis=0)[: feed.batch]
    found = feed.session.run(names, {feed.given.name: part})
    shapes = [str(value.shape) if isinstance(value, np.ndarray) else type(value).__name__ for value in found]
    return ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True)) + f" for {len(part)} samples"


def _candidates(feed: Feed, proto: Any) -> Iterator[Scored]:
    made = _makers(proto)
    for item in feed.session.live.get_outputs():
        maker = made.get(item.name)
        if item.type in _FLOATS:
            yield Scored(item.name, item.name, data=feed.session.data)
        elif maker is not None and maker.op_type == "ZipMap":  # maps from class to probability
            yield Scored(item.name, maker.input[0], values=_named(maker), data=feed.session.data)


def _meaning(feed: Feed, proto: Any, x: Array, found: tuple[Scored, Array], logits: bool | None) -> Scored:
    candidate, values = found
    plain = replace(candidate, width=values.shape[1])
    shares = _are_shares(values)
    if logits:
        return plain
    if logits is False and not shares:
        raise ModelError(
            f"expected probabilities in {candidate.source}, as declared, got {values.min():.3g} to {values.max():.3g} "
            "that do not sum to one: set [model] outputs to logits"
        )
    before = _before(feed, proto, x, plain, values)
    if before is not None:
        return before
    maker = _maker(proto, candidate.tensor)
    linear = plain.single and maker is not None and maker.op_type in _LINEAR and logits is None
    return replace(plain, probabilities=shares and not linear)


def _before(feed: Feed, proto: Any, x: Array, plain: Scored, values: Array) -> Scored | None:
    """The columns before the last softmax, or before the sigmoid of a single one: the logits.

    In float32 the shares themselves are 0 and 1 for a model that is sure, and carry no gradient.
    """
    maker = _maker(proto, plain.tensor)
    kind = "Sigmoid" if plain.single else "Softmax"
    if maker is None:
        return None
    if maker.op_type == kind:
        cut = replace(plain, tensor=str(maker.input[0]), cut=kind)
    elif maker.op_type in ("Normalizer", "LinearClassifier") and not plain.single:
        unbent = _unbent(proto, maker)
        if unbent is None:
            return None
        cut = replace(plain, tensor=unbent[0], data=unbent[1], cut=kind)
    else:
        return None
    before = _asked(feed, cut.data, cut.tensor, x)
    if before is None or before.shape != values.shape:
        return None
    again = softmax(np.hstack([np.zeros_like(before), before]) if plain.single else before)[:, -plain.width :]
    return cut if np.allclose(again, values, atol=_SHARE) else None


def _unbent(proto: Any, node: Any) -> tuple[str, bytes] | None:
    """The scores of a linear classifier without its softmax (or logistic) inside, and the graph that has them."""
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    if node.op_type == "Normalizer":
        node = _maker(proto, node.input[0])
    if node is None or node.op_type != "LinearClassifier":
        return None
    scores = str(node.output[1])
    (own,) = (other for other in changed.graph.node if scores in other.output)
    bends = [item for item in own.attribute if item.name == "post_transform" and item.s in (b"SOFTMAX", b"LOGISTIC")]
    if not bends:
        return None
    # The logistic of both z and -z is the softmax of their halves. Whether it was these is seen from the answers.
    factor = onnx.numpy_helper.from_array(
        np.array(1 if bends[0].s == b"SOFTMAX" else 0.5, dtype=np.float32), f"{scores} factor"
    )
    bends[0].s = b"NONE"
    changed.graph.initializer.append(factor)
    name = f"{scores} without {node.name}"
    changed.graph.node.append(onnx.helper.make_node("Mul", [scores, factor.name], [name]))
    if all(item.domain not in ("", "ai.onnx") for item in changed.opset_import):
        changed.opset_import.append(onnx.helper.make_opsetid("", 14))
    return name, bytes(changed.SerializeToString())


def _asked(feed: Feed, data: bytes, tensor: str, x: Array) -> Array | None:
    """A tensor of the graph as `(n, width)`; None where it has no row for each sample, or rows of several axes."""
    session = Session(_with_outputs(data, [tensor]), feed.session.name)
    try:
        (found,) = Feed(session, feed.given, feed.axes, feed.shape, feed.batch)(x, [tensor])
    except ModelError:
        return None
    if found.dtype.kind != "f" or sum(size != 1 for size in found.shape[1:]) > 1 or found.size == 0:
        return None
    return found.reshape(len(found), -1)


def _are_shares(values: Array) -> bool:
    if values.min() < 0 or values.max() > 1 + _SHARE:
        return False
    return values.shape[1] == 1 or bool(np.allclose(values.sum(axis=1, dtype=np.float64), 1, atol=_SHARE))


def _with_outputs(data: bytes, names: Sequence[str]) -> bytes:
    import onnx

    model = onnx.load_model_from_string(data)
    known = {item.name: item for item in (*model.graph.value_info, *model.graph.output)}
    wanted = [known.get(name) or onnx.ValueInfoProto(name=name) for name in names]
    del model.graph.output[:]
    model.graph.output.extend(wanted)
    return bytes(model.SerializeToString())


def _makers(proto: Any) -> dict[str, Any]:
    return {name: node for node in proto.graph.node for name in node.output}


def _maker(proto: Any, name: str) -> Any:
    """The node that a tensor comes from, over those that leave it as it is."""
    made = _makers(proto)
    node = made.get(name)
    while node is not None and node.op_type in ("Identity", "Dropout"):
        node = made.get(node.input[0])
    return node


def _upwards(proto: Any, name: str) -> Iterator[Any]:
    """The nodes before a tensor, the nearest first."""
    made, seen, level = _makers(proto), set[str](), [name]
    while level:
        nodes = [made[tensor] for tensor in level if tensor in made and tensor not in seen]
        seen.update(level)
        yield from nodes
        level = [tensor for node in nodes for tensor in node.input]


def _named(node: Any) -> tuple[Any, ...]:
    for attribute in node.attribute:
        if attribute.name in ("classlabels_int64s", "classlabels_ints"):
            return tuple(attribute.ints)
        if attribute.name in ("classlabels_string", "classlabels_strings"):
            return tuple(_text(value) for value in attribute.strings)
    return ()


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
