"""The Open Inference Protocol, version 2: what a model's metadata declare, requests of tensors, answers as tensors.

A batch goes as one tensor, or, where the metadata declare an input for each column of a table, as one tensor a column.
Numbers are sent as the datatype that is declared (FP64 where none is), texts and categories as BYTES. JSON only: the
protocol's binary extension is not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.values import as_answers, as_columns, as_rows
from casemate.core.facets import DataKind
from casemate.core.schema import FeatureKind, Schema
from casemate.errors import ModelError

__all__ = ["OpenInference", "Tensor", "open_inference"]

Array = NDArray[Any]
_FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
_INTEGERS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input of a model: its name, datatype, and shape with -1 where any size goes; () where none is declared."""

    name: str
    datatype: str
    shape: tuple[int, ...] = ()
    parameters: Mapping[str, Any] | None = None

    def filled(self, values: list[Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """The tensor of a request: `values` flat in C order."""
        made = {"name": self.name, "shape": list(shape), "datatype": self.datatype, "data": values}
        return made if self.parameters is None else {**made, "parameters": dict(self.parameters)}


@dataclass(frozen=True, slots=True)
class OpenInference:
    """How samples of a schema go to a model, and which of its outputs (`answer`; None: its only one) is read."""

    inputs: tuple[Tensor, ...]
    answer: str | None = None
    schema: Schema | None = None
    single = False

    def body(self, x: Array) -> dict[str, Any]:
        """The request for samples `x (n, ...)`; raises `ModelError` for values that the datatype cannot hold."""
        if len(self.inputs) > 1 and self.schema is not None:
            columns = as_columns(x, self.schema)
            tensors = [item.filled(_typed(columns[item.name], item), (len(x), 1)) for item in self.inputs]
        else:
            (only,) = self.inputs
            flat = as_rows(x.reshape(len(x), -1), None) if x.dtype.kind in "biuf" else [[v] for v in as_rows(x, None)]
            values = [value for row in flat for value in row]
            tensors = [only.filled(_typed(values, only), _shape(only, x))]
        return {"inputs": tensors} if self.answer is None else {"inputs": tensors, "outputs": [{"name": self.answer}]}

    def answers(self, found: Any, n: int) -> Array:
        """The answers `(n,)` or `(n, k)`; raises `ModelError` for what is no answer of this protocol."""
        outputs = found.get("outputs") if isinstance(found, dict) else None
        if not isinstance(outputs, list) or not all(isinstance(item, dict) for item in outputs):
            raise ModelError(
                "expected outputs in the answer, got none: name an endpoint of the Open Inference Protocol"
            )
        names = [str(item.get("name"))[:40] for item in outputs]
        picked = [item for item in outputs if self.answer in (None, item.get("name"))]
        if len(picked) != 1:
            wanted = "one output" if self.answer is None else f"the output {self.answer}"
            raise ModelError(f"expected {wanted}, got {', '.join(names) or 'none'}: name one as model.answer")
        return _read(picked[0], n)


def open_inference(metadata: Any, schema: Schema | None, tensor: str | None, answer: str | None) -> OpenInference:
    """The codec for a model with these metadata (the answer of `GET /v2/models/NAME`) and samples of this schema.

    `tensor` names the input and `answer` the output where there are several. Raises `ModelError` for metadata of
    another form, and for inputs that the samples cannot fill.
    """
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise ModelError("expected the metadata of a model, got other JSON: name the URL as http://HOST/v2/models/NAME")
    inputs = tuple(_declared(item) for item in _list(metadata, "inputs"))
    outputs = [str(item.get("name")) for item in _list(metadata, "outputs")]
    if answer is None and len(outputs) > 1:
        raise ModelError(f"expected one output, got {', '.join(outputs)[:80]}: name one as model.answer")
    if answer is not None and outputs and answer not in outputs:
        raise ModelError(f"expected the output {answer}, got {', '.join(outputs)[:80]}: mend model.answer")
    chosen = [item for item in inputs if tensor in (None, item.name)]
    if inputs and not chosen:
        raise ModelError(f"expected the input {tensor}, got {_names(inputs)}: mend model.tensor")
    if not chosen:
        text = schema is not None and schema.kind is DataKind.TEXT
        chosen = [Tensor(tensor or "input-0", "BYTES" if text else "FP64")]
    _check_inputs(tuple(chosen), schema)
    return OpenInference(tuple(chosen), answer, schema)


def _list(metadata: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = metadata.get(key) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ModelError(f"expected a list of {key} in the model's metadata, got other JSON: mend the endpoint")
    return found


def _declared(item: dict[str, Any]) -> Tensor:
    name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape", [])
    sizes = isinstance(shape, list) and all(isinstance(size, int) for size in shape)
    if not isinstance(name, str) or not isinstance(datatype, str) or not sizes:
        raise ModelError("expected inputs with name, datatype and shape in the metadata, got others: mend the endpoint")
    kind = item.get("parameters")
    wanted = kind.get("content_type") if isinstance(kind, dict) else None
    if datatype not in _FLOATS and datatype not in _INTEGERS and datatype != "BYTES":
        raise ModelError(f"expected an input of floats, integers or BYTES, got {datatype[:20]}: name another model")
    return Tensor(name, datatype, tuple(shape), {"content_type": wanted} if isinstance(wanted, str) else None)


def _check_inputs(inputs: tuple[Tensor, ...], schema: Schema | None) -> None:
    if schema is None:
        return
    if len(inputs) > 1:
        missing = [item.name for item in inputs if item.name not in schema.names]
        if missing or schema.kind is not DataKind.TABLE:
            raise ModelError(
                f"expected one input, or one for each column of the data, got {_names(inputs)}: name model.tensor"
            )
        return
    (only,) = inputs
    if (schema.kind is DataKind.TEXT) != (only.datatype == "BYTES"):
        raise ModelError(
            f"expected an input for {schema.kind} data, got {only.datatype} {only.name}: name another input"
        )
    named = [feature.name for feature in schema.features if feature.kind is FeatureKind.CATEGORY]
    if named:
        raise ModelError(
            f"expected numbers for the one tensor {only.name}, got categories in {named[0]}: declare an input for each "
            "column in the model's metadata, or use protocol = 'json'"
        )
    width, free = math.prod(schema.shape), [size for size in only.shape[1:] if size < 0]
    if schema.kind is not DataKind.TEXT and only.shape[1:] and not free and math.prod(only.shape[1:]) != width:
        raise ModelError(
            f"expected samples of {width} numbers as in the data, got an input of shape {list(only.shape)}: name the "
            "right files, or exclude the columns that are not features"
        )


def _shape(tensor: Tensor, x: Array) -> tuple[int, ...]:
    """The declared shape where the sample fills it, else the sample's own; a text is one column."""
    n = len(x)
    own = x.shape[1:] or ((1,) if len(tensor.shape) != 1 else ())
    wanted = tensor.shape[1:]
    fits = wanted and all(size > 0 for size in wanted) and math.prod(wanted) == math.prod(own)
    return (n, *(wanted if fits else own))


def _typed(values: list[Any], tensor: Tensor) -> list[Any]:
    if tensor.datatype == "BYTES":
        return ["" if value is None else str(value) for value in values]
    if any(isinstance(value, str) for value in values):
        raise ModelError(f"expected numbers for the input {tensor.name}, got categories: declare it as BYTES")
    if tensor.datatype in _INTEGERS:
        if any(value is None or value != int(value) for value in values):
            raise ModelError(
                f"expected whole numbers for the {tensor.datatype} input {tensor.name}, got fractions: declare the "
                'column as kind = "integer" in [schema], so that no attack makes a fraction of it'
            )
        return [int(value) for value in values]
    # null is what JSON has for a missing value; whether a model takes it is the server's to say
    exact = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    with np.errstate(over="ignore"):
        rounded = exact.astype(_FLOATS[tensor.datatype])
    if np.isinf(rounded).any():
        raise ModelError(
            f"expected numbers that {tensor.datatype} of the input {tensor.name} can hold, got larger ones: bound the "
            "columns in [schema]"
        )
    return [None if value is None else number for value, number in zip(values, rounded.tolist(), strict=True)]


def _read(output: dict[str, Any], n: int) -> Array:
    shape, data = output.get("shape"), output.get("data")
    if (
        not isinstance(shape, list)
        or not isinstance(data, list)
        or not all(isinstance(s, int) and s >= 0 for s in shape)
    ):
        raise ModelError("expected an output with shape and data, got another form: mend the endpoint")
    if not shape or shape[0] != n:
        raise ModelError(f"expected an output for {n} samples, got shape {str(shape)[:40]}: mend the endpoint")
    flat = _flattened(data)
    if len(flat) != math.prod(shape):
        raise ModelError(f"expected {math.prod(shape)} values as the output's shape says, got {len(flat)}: mend it")
    width = math.prod(shape[1:])
    if width <= 1:
        return as_answers(flat, n)
    return as_answers([flat[top : top + width] for top in range(0, len(flat), width)], n)


def _flattened(data: list[Any]) -> list[Any]:
    while data and all(isinstance(item, list) for item in data):
        data = [value for item in data for value in item]
    return data


def _names(inputs: tuple[Tensor, ...]) -> str:
    return ", ".join(item.name for item in inputs)[:80]
