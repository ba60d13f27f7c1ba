"""An exported program as a torch module, run node by node; a file of its own because it needs torch.

A node may call an operator of PyTorch's `aten` that makes tensors of tensors, and arithmetic on sizes; nothing that
takes the name of a file or of a function. Everything else is refused before anything runs.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from casemate.adapters.archives import memory
from casemate.errors import ModelError
from casemate.formats.digests import sha256_bytes

__all__ = ["Loaded", "Payload", "ProgramNet", "Written", "cut_at", "input_meta", "unknown_targets", "width_of"]

_ATEN = re.compile(r"torch\.ops\.aten\.([a-z0-9_]+)\.([A-Za-z0-9_]+)")
_CHECKS = ("_assert", "sym_constrain")  # conditions on sizes that held at export; a wrong size fails anyway
_WORDS = frozenset(
    {"approximate", "equation", "indexing", "mode", "padding", "padding_mode", "reduce", "rounding_mode"}
)
"""Arguments of operators that are text and mean a way to compute; a name of a file is not among them."""
_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in ("add", "eq", "floordiv", "ge", "gt", "le", "lt", "mod", "mul", "ne", "neg", "sub", "truediv")
}
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}  # torch._export.serde.schema.ScalarType
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}


@dataclass(frozen=True, slots=True)
class Payload:
    """One tensor of an archive: its bytes, and the description of its dtype, sizes and strides."""

    raw: bytes
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """What an archive says: the graph and its signature as JSON, and the tensors by name."""

    name: str
    graph: Mapping[str, Any]
    signature: Mapping[str, Any]
    tensors: Mapping[str, Payload]
    version: str


@dataclass(frozen=True, slots=True)
class _Step:
    call: str
    inputs: tuple[tuple[str, Any, bool], ...]  # the argument's name, its description, whether it is given by name
    outputs: tuple[Any, ...]


class ProgramNet(nn.Module):
    """The program as a function of its one input, up to the tensor `output` (default: its own output).

    Changes that a program makes to its tensors or its input (`changes`) are not kept: each call starts from the file's.
    Raises `ModelError` for a program with several inputs or outputs, or tensors that their bytes cannot hold.
    """

    def __init__(self, written: Written, *, output: str | None = None) -> None:
        super().__init__()
        self.given = _only(written, "input")
        self.output = output or _only(written, "output")
        self.trains = _trains(written)
        _check_memory(written)
        self.names: dict[str, str] = {}
        for spec in written.signature["input_specs"]:
            ((kind, item),) = spec.items()
            if kind in ("parameter", "buffer", "tensor_constant"):
                tensor = _tensor(written.tensors[item[f"{kind}_name"]])
                own = self.names.setdefault(item["arg"]["name"], f"tensor_{len(self.names)}")
                if tensor.is_floating_point():
                    self.register_parameter(own, nn.Parameter(tensor, requires_grad=False))
                else:
                    self.register_buffer(own, tensor)
        steps = [_step(node) for node in written.graph["nodes"] if not _is_check(node)]
        made = {"as_tensor": {"name": self.output}}
        last = max((i for i, step in enumerate(steps) if made in step.outputs), default=len(steps) - 1)
        self.steps = steps[: last + 1]
        self.changes = self.trains or any(_in_place(step.call) for step in self.steps)

    def forward(self, x: Tensor) -> Tensor:
        """The output for samples `(n, ...)`."""
        values: dict[str, Any] = {name: getattr(self, own) for name, own in self.names.items()}
        values[self.given] = x
        if self.changes:
            values = {name: value.clone() for name, value in values.items()}
        for step in self.steps:
            positional = [_value(what, values) for _, what, named in step.inputs if not named]
            keywords = {name: _value(what, values) for name, what, named in step.inputs if named}
            _bind(step.outputs, _called(step.call)(*positional, **keywords), values)
        out: Tensor = values[self.output]
        return out

    def extra_repr(self) -> str:
        """The steps, by their digest."""
        steps = [[step.call, step.inputs, step.outputs] for step in self.steps]
        told = json.dumps([self.given, self.output, self.names, steps], sort_keys=True)
        return f"{len(self.steps)} steps, {sha256_bytes(told.encode())}"


class Loaded(nn.Module):
    """A program as torch opens it, which refuses to be put into train or eval mode, so that others can."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """The output of the program."""
        out: Tensor = self.inner(x)
        return out

    def train(self, mode: bool = True) -> Loaded:
        """Nothing changes: the mode was fixed at export."""
        return self


def unknown_targets(written: Written) -> list[str]:
    """What the nodes call beside operators that are known to only compute, in alphabetical order."""
    called = {str(node["target"]) for node in written.graph["nodes"] if not _is_check(node)}
    return sorted(name for name in called if name not in _ARITHMETIC and _operator(name) is None)


def input_meta(written: Written, given: str) -> tuple[torch.dtype, int]:
    """The dtype of the input, and how many samples it takes at once (0: any number)."""
    meta = written.graph["tensor_values"][given]
    if meta["dtype"] not in _DTYPES or not meta["sizes"]:
        raise ModelError(
            f"expected a batch of numbers as input of {written.name}, got {given}: wrap a module around it"
        )
    sizes = [int(size.get("as_int", 0)) for size in meta["sizes"]]
    if math.prod(size or 1 for size in sizes) * 8 > memory() // 16:  # several copies of it are made
        raise ModelError(f"expected an input that fits into memory, got {given} {tuple(sizes)}: export it smaller")
    return _DTYPES[meta["dtype"]], sizes[0]


def width_of(written: Written, output: str) -> int:
    """The number of classes, 2 for one column; 0 where the program does not say."""
    sizes = written.graph["tensor_values"][output]["sizes"]
    width = int(sizes[1].get("as_int", 0)) if len(sizes) == 2 else 0
    return 2 if width == 1 or len(sizes) == 1 else width


def cut_at(written: Written, output: str) -> str | None:
    """The tensor before a softmax over the classes, or before the sigmoid of one column, that makes `output`."""
    for node in written.graph["nodes"]:
        if {"as_tensor": {"name": output}} not in node["outputs"]:
            continue
        given = {item["name"]: item["arg"] for item in node["inputs"]}
        name = given.get("self", {}).get("as_tensor", {}).get("name")
        kind = node["target"].removeprefix("torch.ops.aten.")
        if kind in ("softmax.int", "_softmax.default") and given["dim"].get("as_int") in (1, -1):
            return str(name) if len(written.graph["tensor_values"][output]["sizes"]) == 2 else None
        if kind == "sigmoid.default" and written.graph["tensor_values"][output]["sizes"][1:] in ([{"as_int": 1}], []):
            return str(name)
    return None


def _operator(target: str) -> Any:
    """The operator of `aten` that a node names, if it only computes: tensors (or sizes) from tensors and numbers."""
    match = _ATEN.fullmatch(target)
    packet = getattr(torch.ops.aten, match[1], None) if match else None
    found = None if packet is None or match is None else getattr(packet, match[2], None)
    schema = getattr(found, "_schema", None)
    if schema is None or not schema.returns:
        return None
    makes = all(str(part.type) in ("Tensor", "List[Tensor]", "int", "SymInt") for part in schema.returns)
    texts = {part.name for part in schema.arguments if "str" in str(part.type)}
    return found if makes and texts <= _WORDS else None


def _called(target: str) -> Callable[..., Any]:
    call: Callable[..., Any] = _ARITHMETIC.get(target) or _operator(target)  # unknown targets were refused before
    return call


def _in_place(target: str) -> bool:
    found = _operator(target)
    return found is not None and bool(found._schema.is_mutable)


def _is_check(node: Mapping[str, Any]) -> bool:
    return str(node["target"]).removeprefix("torch.ops.aten.").startswith(_CHECKS)


def _step(node: Mapping[str, Any]) -> _Step:
    found = _operator(str(node["target"]))
    keyword_only = {part.name for part in found._schema.arguments if part.kwarg_only} if found is not None else set()
    inputs = tuple(
        (str(item["name"]), item["arg"], item.get("kind") == 2 or item["name"] in keyword_only)
        for item in node["inputs"]
    )
    return _Step(str(node["target"]), inputs, tuple(node["outputs"]))


def _only(written: Written, what: str) -> str:
    """The one input or output of the user's; raises `ModelError` that names them where there are others."""
    specs = [spec[f"user_{what}"]["arg"] for spec in written.signature[f"{what}_specs"] if f"user_{what}" in spec]
    names = [arg["as_tensor"]["name"] if "as_tensor" in arg else next(iter(arg)) for arg in specs]
    if len(specs) != 1 or "as_tensor" not in specs[0]:
        raise ModelError(
            f"expected a program with one tensor as {what}, got {len(specs)} ({', '.join(map(str, names))}): export a "
            "module that takes the samples and returns the logits alone"
        )
    return str(names[0])


def _trains(written: Written) -> bool:
    """Whether it was exported in train mode: with dropout on, or statistics of the batch."""
    mutates = any("mutation" in kind for spec in written.signature["output_specs"] for kind in spec)
    on = [
        item["arg"].get("as_bool")
        for node in written.graph["nodes"]
        for item in node["inputs"]
        if item["name"] in ("train", "training")
    ]
    return mutates or any(on)


def _check_memory(written: Written) -> None:
    """Strides of 0 make any number of elements of one, and no bytes at all are zeros."""
    sizes = [[int(item["as_int"]) for item in tensor.meta["sizes"]] for tensor in written.tensors.values()]
    total = 8 * sum(math.prod(map(abs, shape)) for shape in sizes)
    if total > memory():
        raise ModelError(
            f"expected weights that fit into memory in {written.name}, got {total:,} bytes: export a smaller module"
        )


def _tensor(payload: Payload) -> Tensor:
    meta = payload.meta
    if meta["dtype"] not in _DTYPES or meta["layout"] != 7:
        raise ModelError(f"expected dense tensors of numbers, got type {meta['dtype']}: export the module in float32")
    flat = torch.frombuffer(bytearray(payload.raw), dtype=_DTYPES[meta["dtype"]]) if payload.raw else torch.empty(0)
    sizes, strides = ([int(item["as_int"]) for item in meta[name]] for name in ("sizes", "strides"))
    if not payload.raw:
        return torch.zeros(sizes, dtype=_DTYPES[meta["dtype"]])
    return flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"])).clone()


def _value(described: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """An argument, as the file describes it."""
    ((kind, what),) = described.items()
    if kind not in _KINDS:
        raise ModelError(f"expected tensors and numbers as arguments, got {kind}: export a plainer module")
    return _KINDS[kind](what, values)


def _plain(what: Any, _: Mapping[str, Any]) -> Any:
    return what


def _of_name(what: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    if "as_name" in what:
        return values[what["as_name"]]
    return values[what["name"]] if "name" in what else next(iter(what.values()))


def _of_names(what: list[Mapping[str, Any]], values: Mapping[str, Any]) -> list[Any]:
    return [_of_name(item, values) for item in what]


_KINDS: Mapping[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    **dict.fromkeys(("as_int", "as_float", "as_bool", "as_string"), _plain),
    **dict.fromkeys(("as_ints", "as_floats", "as_bools"), _plain),
    **dict.fromkeys(("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"), _of_name),
    **dict.fromkeys(("as_tensors", "as_sym_ints", "as_sym_floats"), _of_names),
    "as_none": lambda what, values: None,
    "as_optional_tensor": lambda what, values: _value(what, values),
    "as_optional_tensors": lambda what, values: [_value(item, values) for item in what],
    "as_scalar_type": lambda what, values: _DTYPES[what],
    "as_memory_format": lambda what, values: _FORMATS[what],
    "as_layout": lambda what, values: torch.strided,
    "as_device": lambda what, values: torch.device("cpu"),
}


def _bind(outputs: tuple[Any, ...], found: Any, values: dict[str, Any]) -> None:
    results = list(found) if len(outputs) > 1 else [found]
    for described, result in zip(outputs, results, strict=False):
        ((kind, what),) = described.items()
        if kind == "as_tensors":
            values.update({item["name"]: part for item, part in zip(what, result, strict=False)})
        elif kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
            values[what.get("name") or what.get("as_name")] = result
