"""Files of weights and arrays, from torch's formats and pickles to safetensors and npz, without executing a pickle."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.archives import check_archive
from casemate.adapters.unpickling import unpack
from casemate.adapters.verdicts import Held
from casemate.artifacts.convert_inert import Label, Other, Stored, Strided, read_inert
from casemate.errors import ModelError

__all__ = ["Tensor", "as_npz", "as_safetensors", "tensors_in"]

_MAGIC = 0x1950A86A20F9469CFC6C
_KINDS = {  # of storages and dtypes of torch: the name in safetensors, bytes of an element
    "Float": ("F32", 4), "Double": ("F64", 8), "Half": ("F16", 2), "BFloat16": ("BF16", 2), "Long": ("I64", 8),
    "Int": ("I32", 4), "Short": ("I16", 2), "Char": ("I8", 1), "Byte": ("U8", 1), "Bool": ("BOOL", 1),
    "ComplexFloat": ("C64", 8),
    "float32": ("F32", 4), "float64": ("F64", 8), "float16": ("F16", 2), "bfloat16": ("BF16", 2), "int64": ("I64", 8),
    "int32": ("I32", 4), "int16": ("I16", 2), "int8": ("I8", 1), "uint8": ("U8", 1), "bool": ("BOOL", 1),
    "uint16": ("U16", 2), "uint32": ("U32", 4), "uint64": ("U64", 8), "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e5m2": ("F8_E5M2", 1), "complex64": ("C64", 8),
}  # fmt: skip
_NUMPY = {
    "f4": "F32", "f8": "F64", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u1": "U8", "u2": "U16",
    "u4": "U32", "u8": "U64", "b1": "BOOL", "c8": "C64",
}  # fmt: skip
_HOLDERS = ("state_dict", "model_state_dict", "model")
_HARMLESS = 1 << 26
_RATIO = 200

Bytes = Callable[[Stored], bytes]


@dataclass(frozen=True)
class Tensor:
    """Numbers in C order, little-endian: `dtype` as safetensors names it, their shape and bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def tensors_in(held: Held) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors in a file by name, and what else it holds, which is left out.

    Reads torch's zip and stream formats (a state_dict, one in a checkpoint, a whole module), pickles and joblib files
    of arrays, npy and npz. No name in a pickle is imported or called. Raises `ModelError` for other files, damaged
    ones, and arrays of objects.
    """
    if held.data.startswith(b"PK\3\4"):
        check_archive(Path(held.name), ModelError, held.data)
        with zipfile.ZipFile(io.BytesIO(held.data)) as archive:
            return _numpy_zip(archive) if not _pickles(archive) else _torch_zip(archive, held)
    if held.data.startswith(b"\x93NUMPY"):
        return {"array": _numpy(_npy(held.data))}, ()
    data = unpack(held).data
    stream = io.BytesIO(data)
    found = read_inert(stream)
    if found == _MAGIC and type(found) is int:
        return _torch_stream(stream, len(data))
    return _named(found, _no_storage, len(data))


def as_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of these; each is kept whole, also where torch shared memory between two.

    Source: the format's own description (safetensors README, "Format").
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        if name == "__metadata__":
            raise ModelError("expected names of tensors, got __metadata__: rename it")
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + len(tensor.data)]}
        at += len(tensor.data)
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(tensor.data for tensor in tensors.values())])


def as_npz(tensors: Mapping[str, Tensor]) -> bytes:
    """An npz file of these; raises `ModelError` for numbers that numpy has no type for."""
    types = {name: f"<{code}" for code, name in _NUMPY.items()}
    lacking = sorted({tensor.dtype for tensor in tensors.values()} - types.keys())
    if lacking:
        raise ModelError(f"expected numbers that numpy knows, got {', '.join(lacking)}: convert to .safetensors")
    out = io.BytesIO()
    arrays = {n: np.frombuffer(t.data, dtype=types[t.dtype]).reshape(t.shape) for n, t in tensors.items()}
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            inside = io.BytesIO()
            np.lib.format.write_array(inside, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), inside.getvalue())
    return out.getvalue()


# ---------------------------------------------------------------------------------------------------------------- numpy


def _npy(data: bytes) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, TypeError, SyntaxError) as error:
        raise ModelError(f"expected an array of numbers, got {error}: leave out what is no number") from error
    return array


def _numpy_zip(archive: zipfile.ZipFile) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    left = tuple(sorted(set(archive.namelist()) - set(names)))
    return {name.removesuffix(".npy"): _numpy(_npy(archive.read(name))) for name in names}, left


def _numpy(array: NDArray[Any]) -> Tensor:
    code = array.dtype.newbyteorder("<").str[1:]
    if code not in _NUMPY:
        raise ModelError(f"expected arrays of numbers, got one of {array.dtype}: leave out what is no number")
    return Tensor(_NUMPY[code], array.shape, array.astype(f"<{code}", copy=False).tobytes())


# ---------------------------------------------------------------------------------------------------------------- torch


def _pickles(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.endswith("/data.pkl")]


def _torch_zip(archive: zipfile.ZipFile, held: Held) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    names = _pickles(archive)
    if len(names) != 1:
        raise ModelError(f"expected one pickle in {held.name}, got {len(names)}: save the state_dict")
    top = names[0].removesuffix("data.pkl")
    if f"{top}byteorder" in archive.namelist() and archive.read(f"{top}byteorder") != b"little":
        raise ModelError(f"expected little-endian numbers in {held.name}, got big-endian ones: save them on x86 or ARM")

    def stored(storage: Stored) -> bytes:
        try:
            return archive.read(f"{top}data/{storage.key}")
        except (KeyError, zipfile.BadZipFile) as error:
            raise ModelError(f"expected the storage {storage.key[:40]}, got {error}: the file is damaged") from error

    return _named(read_inert(io.BytesIO(archive.read(names[0]))), stored, len(held.data))


def _torch_stream(stream: io.BytesIO, size: int) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The rest of `torch.save`'s format before 1.6: version, system, object, keys, then each storage's elements."""
    version, system, found, keys = (read_inert(stream) for _ in range(4))
    if version != 1001 or not isinstance(system, dict) or not system.get("little_endian") or not isinstance(keys, list):
        raise ModelError("expected torch's stream format 1001 in little-endian, got another: save the state_dict again")
    kinds = {item.key: item.kind for item in _storages(found)}
    held: dict[str, bytes] = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        kind = kinds.get(str(key), "FloatStorage")
        wanted = count * (1 if kind == "UntypedStorage" else _kind(kind)[1])
        if wanted > size - stream.tell():
            raise ModelError("expected the elements of a storage, got fewer: the file is damaged, get it again")
        held[str(key)] = stream.read(wanted)
    return _named(found, lambda storage: held.get(storage.key, b""), size)


def _storages(found: Any) -> Iterator[Stored]:
    todo, seen = [found], set()
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Strided):
            yield item.storage
        elif isinstance(item, Stored):
            yield item
        elif isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, list | tuple):
            todo += item
        elif isinstance(item, Other):
            todo += [item.args, item.state, item.items, item.listed]


def _no_storage(storage: Stored) -> bytes:
    raise ModelError("expected a file of torch.save, got its pickle alone: name the whole file")


def _kind(name: str) -> tuple[str, int]:
    found = _KINDS.get(name.removesuffix("Storage"))
    if found is None:
        raise ModelError(f"expected tensors of plain numbers, got {name[:40]}: save them dequantised")
    return found


# ---------------------------------------------------------------------------------------------------------------- names


def _named(found: Any, stored: Bytes, size: int) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors by name; a state_dict may lie in a checkpoint, and a module holds its own."""
    left: tuple[str, ...] = ()
    if isinstance(found, dict) and not all(_numbers(value) for value in found.values()):
        key = next((name for name in _HOLDERS if isinstance(found.get(name), dict | Other)), None)
        if key is not None:
            left, found = tuple(sorted(str(name) for name in found if name != key)), found[key]
    if isinstance(found, Other):
        found = dict(_module(found, ""))
    if isinstance(found, Strided | np.ndarray):
        found = {"array": found}
    if isinstance(found, list | tuple) and found:
        found = {str(index): item for index, item in enumerate(found)}
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found):
        raise ModelError(f"expected tensors by name, got {type(found).__name__}: save module.state_dict()")
    wrong = next((name for name, value in found.items() if not _numbers(value)), None)
    if wrong is not None:
        raise ModelError(f"expected a tensor at {wrong[:60]!r}, got {_told(found[wrong])}: save the state_dict alone")
    room = [max(_HARMLESS, _RATIO * size)]
    return {name: _tensor(value, stored, room) for name, value in found.items()}, left


def _numbers(value: Any) -> bool:
    return isinstance(value, Strided | np.ndarray | np.generic)


def _told(value: Any) -> str:
    return (
        str(value.by)[:80]
        if isinstance(value, Other)
        else str(value)[:80]
        if isinstance(value, Label)
        else type(value).__name__
    )


def _module(found: Other, prefix: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The state_dict of a module that was pickled whole, from its state; nothing of its class is needed."""
    state = found.state
    if not isinstance(state, dict) or not isinstance(state.get("_modules"), dict) or depth > 100:
        raise ModelError(f"expected tensors by name, got {_told(found)}: save module.state_dict()")
    passing = state.get("_non_persistent_buffers_set", ())
    passing = passing.args[0] if isinstance(passing, Other) and passing.args else passing
    for group in ("_parameters", "_buffers"):
        for name, value in (state.get(group) or {}).items():
            if value is not None and not (group == "_buffers" and name in passing):
                yield f"{prefix}{name}", value
    for name, part in state["_modules"].items():
        if isinstance(part, Other):
            yield from _module(part, f"{prefix}{name}.", depth + 1)


def _tensor(value: Any, stored: Bytes, room: list[int]) -> Tensor:
    if not isinstance(value, Strided):
        return _numpy(np.asarray(value))
    dtype, width = _kind(value.dtype or value.storage.kind)
    data = stored(value.storage)
    start = value.storage.view[0] if value.storage.view else 0
    count = math.prod(value.shape)
    room[0] -= count * width
    bad = (
        len(value.shape) != len(value.stride) or min((*value.shape, *value.stride, value.offset, start), default=0) < 0
    )
    last = start + value.offset + sum((n - 1) * step for n, step in zip(value.shape, value.stride, strict=False))
    if bad or room[0] < 0 or (count and (last + 1) * width > len(data)):
        raise ModelError("expected tensors inside their storages, got one beyond: the file is damaged, get it again")
    if not count:
        return Tensor(dtype, value.shape, b"")
    flat = np.frombuffer(data, dtype=f"V{width}", count=len(data) // width)[start + value.offset :]
    strides = tuple(step * width for step in value.stride)
    return Tensor(dtype, value.shape, np.lib.stride_tricks.as_strided(flat, value.shape, strides).tobytes())
