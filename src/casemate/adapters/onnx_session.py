"""ONNX graphs in onnxruntime: reading files, one session on one thread, samples in the shape and type of the graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.archives import memory
from casemate.adapters.extras import need
from casemate.adapters.verdicts import check_verdict, hold
from casemate.errors import ModelError
from casemate.formats.digests import Hasher

__all__ = ["Feed", "Given", "Session", "fitted", "graph_digest", "input_of", "read_graph"]

Array = NDArray[Any]
_LARGEST = 2**31 - 1  # bytes of a protobuf message
_NODES = 100_000  # of a graph without functions; the largest language models have a tenth
_BATCH = 256
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


def read_graph(path: Path, *, trust: bool = False, notes: dict[str, str] | None = None) -> bytes:
    """The model in an ONNX file as one message, with what it keeps in files beside it; nothing is run.

    Raises `ModelError` for bytes that are no valid ONNX model or that a scan calls malicious, more than 2 GiB or a
    quarter of this machine's memory (onnxruntime holds them several times), and for data outside of the file's folder.
    """
    onnx = need("onnx", f"read {path.name}")
    checker = need("onnx.checker", f"read {path.name}")
    limit = min(_LARGEST, memory() // 4)
    _check_size(path.stat().st_size, limit, path)
    held = hold(path)
    check_verdict(held, runs=False, trust=trust, notes=notes)
    try:
        model = onnx.load_model_from_string(held.data)
        outside = _outside(model)
    except Exception as error:  # bytes from outside: protobuf has errors of its own
        raise _damaged(path, error) from error
    if outside:  # each has its own part of a file, or all of it
        _check_size(len(held.data) + sum(_size_of(path, tensor) for tensor in outside), limit, path)
    try:
        if outside:
            onnx.load_external_data_for_model(model, str(path.parent))
        if _outside(model):
            raise ValueError("data in other files was not read")
        checker.check_model(model)
        if model.functions:
            _check_functions(model)
            model = need("onnx.inliner", f"read {path.name}").inline_local_functions(model)
        return bytes(model.SerializeToString())
    except Exception as error:  # the checker, protobuf and the file system each have their own
        raise _damaged(path, error) from error


@dataclass(frozen=True)
class Session:
    """An ONNX model in onnxruntime: on the CPU, one thread, the graph as it is; travels as bytes."""

    data: bytes = field(repr=False)
    name: str

    @cached_property
    def live(self) -> Any:
        """The session of onnxruntime; raises `ModelError` where it does not take the graph."""
        ort = need("onnxruntime", f"run {self.name}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # fusions change rounding
        options.log_severity_level = 4  # what matters is raised
        try:
            return ort.InferenceSession(self.data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise ModelError(
                f"expected a graph that onnxruntime runs in {self.name}, got {type(error).__name__}: "
                f"{_first_line(error)}: export it again, without operators of its own"
            ) from error

    def run(self, outputs: Sequence[str], feeds: dict[str, Array]) -> list[Any]:
        """The named outputs; raises `ModelError` where the graph fails on these samples."""
        try:
            return list(self.live.run(list(outputs), feeds))
        except Exception as error:
            shapes = ", ".join(str(value.shape) for value in feeds.values())
            raise ModelError(
                f"expected {self.name} to take a batch of shape {shapes}, got {type(error).__name__}: "
                f"{_first_line(error)}: mend the shape or declare kind and channels"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self.data, "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@dataclass(frozen=True, slots=True)
class Given:
    """The one input of a graph: its `shape` of one sample (None: any) and how many samples it takes (0: any)."""

    name: str
    kind: str
    batch: int
    shape: tuple[int | None, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the samples, `object` for texts."""
        return np.dtype(_DTYPES[self.kind])


def input_of(session: Session) -> Given:
    """The one input; raises `ModelError` that names the inputs where there are several, or one that is no tensor."""
    inputs = session.live.get_inputs()
    if len(inputs) != 1:
        named = ", ".join(f"{item.name} {_told(item.shape)}" for item in inputs)
        raise ModelError(
            f"expected a graph with one input, the batch of samples, got {len(inputs)} ({named}): wrap a function that "
            "fills in the others"
        )
    (item,) = inputs
    if item.type not in _DTYPES or not item.shape:
        raise ModelError(
            f"expected a batch of numbers or texts as input, got {item.name} {item.type}{_told(item.shape)}: wrap a "
            "function around it"
        )
    sizes = [size if isinstance(size, int) and size > 0 else None for size in item.shape]
    if math.prod(size or 1 for size in sizes) * 8 > memory() // 16:  # several copies of several samples are made
        raise ModelError(
            f"expected samples that fit into memory, got {item.name} {_told(item.shape)}: export it smaller"
        )
    return Given(item.name, item.type, sizes[0] or 0, tuple(sizes[1:]))


@dataclass(frozen=True)
class Feed:
    """Samples as the graph takes them: `axes` puts those of a batch into its order, `shape` is that of one sample.

    `batch` samples are given at once, the last one repeated until there are as many; 0 means any number.
    """

    session: Session
    given: Given
    axes: tuple[int, ...] = ()
    shape: tuple[int, ...] | None = None
    batch: int = 0

    def __call__(self, x: Array, outputs: Sequence[str]) -> list[Array]:
        """The named outputs for samples `(n, ...)`, n > 0."""
        sent = self.sent(np.asarray(x))
        step = self.batch or _BATCH
        parts = [self._part(sent[start : start + step], outputs) for start in range(0, len(sent), step)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def sent(self, x: Array) -> Array:
        """The samples in the type and the shape of the graph; whole numbers are rounded to."""
        wanted = self.given.dtype
        is_text, of_texts = x.dtype.kind in "OTUS", wanted.kind == "O"
        if is_text != of_texts:
            raise ModelError(
                f"expected samples as {'texts' if of_texts else wanted.name}, got {x.dtype}: name the model of "
                "this data"
            )
        if is_text:
            return np.array([str(value) for value in x.reshape(-1)], dtype=object).reshape(self._sizes(x))
        ordered = x.transpose(self.axes) if self.axes else x
        ordered = ordered.reshape(self._sizes(ordered))
        if wanted.kind in "iu":
            if not np.isfinite(ordered).all():
                raise ModelError(f"expected whole numbers for {self.given.name}, got missing values: fill them in")
            ordered = np.rint(ordered)
        return np.ascontiguousarray(ordered, dtype=wanted)

    def _sizes(self, x: Array) -> tuple[int, ...]:
        if self.shape is None:
            return x.shape
        if x.ndim == 0 or int(np.prod(x.shape[1:])) != int(np.prod(self.shape)):
            raise ModelError(f"expected samples of shape {self.shape}, as the graph takes, got {x.shape[1:]}: reshape")
        return (len(x), *self.shape)

    def _part(self, part: Array, outputs: Sequence[str]) -> list[Array]:
        missing = self.batch - len(part) if self.batch else 0
        filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
        found = [np.asarray(value) for value in self.session.run(outputs, {self.given.name: filled})]
        if any(value.ndim == 0 or len(value) != len(filled) for value in found):
            shapes = ", ".join(f"{name} {value.shape}" for name, value in zip(outputs, found, strict=True))
            raise ModelError(
                f"expected outputs with one row for each of {len(filled)} samples, got {shapes}: not a classifier of "
                "samples; wrap a function that gives one row of scores for each"
            )
        return [value[: len(part)] for value in found]


def fitted(sample: tuple[int, ...], given: Given) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """How samples of this shape become the graph's: the order of their axes, and the shape then, None for as it is.

    Images `(c, h, w)` are transposed for a graph of `(h, w, c)`; a flat sample and one of several axes, or axes of one
    element more or less, are reshaped. Raises `ModelError` where neither fits.
    """
    if _fits(sample, given.shape):
        return (), None
    if len(sample) == 3 and _fits((*sample[1:], sample[0]), given.shape):
        return (0, 2, 3, 1), None
    sizes = [size for size in given.shape if size is not None]
    flat = len(sample) <= 1 or len(given.shape) == 1
    same = [size for size in sample if size != 1] == [size for size in sizes if size != 1]
    if len(sizes) == len(given.shape) and int(np.prod(sample)) == int(np.prod(sizes)) and (flat or same):
        return (), tuple(sizes)
    raise ModelError(
        f"expected samples of shape {_told(given.shape)}, as {given.name} takes, got {sample}: mend the shape or "
        "declare kind and channels"
    )


def graph_digest(model: Any) -> str:
    """`sha256:...` over nodes, attributes and weights, whatever tensors are called and whoever wrote the file."""
    state = Hasher("casemate.model.onnx.1")
    state.add(*sorted(f"{item.domain}:{item.version}" for item in model.opset_import))
    walk = _Walk(model.graph, state)
    for item in model.graph.input:
        if item.name not in walk.weights:
            state.add("input", walk.called(item.name), item.type.SerializeToString(deterministic=True))
    for node in model.graph.node:
        inputs = [walk.called(name) for name in node.input]
        walk.captured(node)
        state.add("node", node.domain, node.op_type, *inputs, "->", *[walk.called(name) for name in node.output])
        for attribute in sorted(node.attribute, key=lambda item: str(item.name)):
            _add_attribute(state, attribute)
    return state.add("outputs", *[walk.called(item.name) for item in model.graph.output]).digest()


class _Walk:
    """Tensors by the order in which a graph names them; their values are added where they come up first."""

    def __init__(self, graph: Any, state: Hasher) -> None:
        self.state = state
        self.known: dict[str, str] = {}
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.sparse = {tensor.values.name: tensor for tensor in graph.sparse_initializer}

    def called(self, name: str) -> str:
        """The place of a tensor; nothing for an input that is left out."""
        if name and name not in self.known:
            self.known[name] = str(len(self.known))
            if name in self.weights:
                _add_tensor(self.state, self.weights[name])
            elif name in self.sparse:
                self.state.add("sparse", self.sparse[name].SerializeToString(deterministic=True))
        return self.known.get(name, "")

    def captured(self, node: Any) -> None:
        """What the graphs inside of a node see of the tensors around it, which they know by name."""
        for graph in (graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)):
            asked = [name for inner in graph.node for name in inner.input] + [item.name for item in graph.output]
            for name in asked:
                if name in self.known or name in self.weights or name in self.sparse:
                    self.state.add("captured", name, self.called(name))
            for inner in graph.node:
                self.captured(inner)


def _add_attribute(state: Hasher, attribute: Any) -> None:
    if attribute.HasField("t"):
        state.add(attribute.name)
        _add_tensor(state, attribute.t)
        return
    plain = type(attribute)()
    plain.CopyFrom(attribute)
    plain.ClearField("doc_string")
    state.add(plain.SerializeToString(deterministic=True))


def _add_tensor(state: Hasher, tensor: Any) -> None:
    """By its values: a file may hold them as raw bytes or as a list of numbers."""
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    state.add("tensor", str(tensor.data_type), ",".join(map(str, array.shape)))
    if array.dtype == object:
        state.add(*(value if isinstance(value, bytes) else str(value) for value in array.reshape(-1)))
    else:
        state.add(np.ascontiguousarray(array).tobytes())


def _outside(model: Any) -> list[Any]:
    """The tensors whose data is in other files."""
    kept = chain(_tensors(model.graph), *(_node_tensors(function.node) for function in model.functions))
    return [tensor for tensor in kept if tensor.data_location == type(tensor).EXTERNAL]


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a graph, those in attributes and in graphs inside of it included."""
    yield from graph.initializer
    for tensor in graph.sparse_initializer:
        yield from (tensor.values, tensor.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _size_of(path: Path, tensor: Any) -> int:
    entries = {item.key: item.value for item in tensor.external_data}
    held = _beside(path, tensor).stat().st_size
    length = str(entries.get("length", ""))
    return min(held, int(length) or held) if length.isdecimal() and len(length) < 20 else held


def _check_functions(model: Any) -> None:
    """Functions that call functions twice each are few in a file and beyond number once they are written out."""
    bodies = {(item.domain, item.name, item.overload): item.node for item in model.functions}
    known: dict[tuple[str, str, str], int] = {}

    def count(nodes: Iterable[Any]) -> int:
        return sum(1 + inside(node) for node in nodes)

    def inside(node: Any) -> int:
        graphs = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
        key = (node.domain, node.op_type, node.overload)
        if key in bodies and key not in known:
            known[key] = count(bodies[key])  # the checker has refused cycles
        return known.get(key, 0) + sum(count(graph.node) for graph in graphs)

    total = count(model.graph.node)
    if total > _NODES:
        raise ValueError(f"functions that make {total:.3g} nodes, more than {_NODES:,}")


def _beside(path: Path, tensor: Any) -> Path:
    """The file of a tensor's data, which has to lie in the folder of the model; links out of it count as outside."""
    entries = {item.key: item.value for item in tensor.external_data}
    folder = path.parent.resolve()
    try:
        file = Path(folder, str(entries.get("location", ""))).resolve()
        file.exists()
    except (OSError, ValueError) as error:  # no name of a file: too long, or with a NUL inside
        raise _damaged(path, error) from error
    if not file.is_relative_to(folder) or file == folder:
        raise ModelError(
            f"expected the data of {path.name} in its own folder, got {entries.get('location', '')!r}: refused, it "
            "could be any file of this machine"
        )
    if not file.is_file():
        raise ModelError(f"expected {file.name} beside {path.name}, which keeps its weights there, got nothing: add it")
    return file


def _check_size(size: int, limit: int, path: Path) -> None:
    if size > limit:
        raise ModelError(
            f"expected {path.name} to have at most {limit / 2**30:.3g} GiB with its data, got {size / 2**30:.3g} GiB: "
            "serve it, and audit the endpoint"
        )


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"expected an ONNX model in {path.name}, got {type(error).__name__}: {_first_line(error)}: export it again"
    )


def _fits(sample: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(sample) == len(wanted) and all(b is None or a == b for a, b in zip(sample, wanted, strict=True))


def _told(shape: Sequence[Any]) -> str:
    return "(" + ", ".join(str(size) if isinstance(size, int) else "?" for size in shape) + ")"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else "no message"
