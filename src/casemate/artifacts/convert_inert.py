"""Pickles of tensors and arrays read as data: no name in them is imported, and nothing of theirs is called.

Every name becomes a label. Of what it "makes" only tensors, storages, arrays, dtypes, ordered dicts and bytes are
understood, by code that is here; anything else stays a label with its arguments, which nobody acts on. So even a
pickle that would run code can be read for its weights.

Sources: CPython's Lib/pickle.py (the opcodes), torch/_utils.py and numpy's methods.c (what the makers' arguments mean).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from casemate.errors import ModelError

__all__ = ["Label", "Other", "Stored", "Strided", "read_inert"]


@dataclass(frozen=True)
class Label:
    """A name in a pickle; only ever a label."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Other:
    """What a name that is not understood would have made: its label, arguments, state and items."""

    by: Label
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    listed: list[Any] = field(default_factory=list)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, item: Any) -> None:
        """As a list takes it."""
        self.listed.append(item)


@dataclass
class Stored:
    """A storage of torch, by its kind (`FloatStorage`), key and number of elements; `view`: its offset and size."""

    kind: str
    key: str
    size: int
    view: tuple[int, int] | None = None


@dataclass(frozen=True)
class Strided:
    """A tensor of torch: a view of a storage, in elements; `dtype` is said only where the storage has none."""

    storage: Stored
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str = ""


@dataclass
class _Dtype:
    text: str
    order: str = "|"
    plain: bool = True


@dataclass
class _Empty:
    """An array before its state."""


def read_inert(stream: io.BytesIO) -> Any:
    """The next pickle in a stream, as plain values, arrays, `Strided` tensors, `Label` and `Other`.

    Raises `ModelError` for what is no pickle, or one that does what pickles of data do not.
    """
    try:
        return _Inert(stream).load()
    except ModelError:
        raise
    except Exception as error:  # bytes from outside
        told = (str(error).splitlines() or ["no message"])[0][:200]
        raise ModelError(
            f"expected a pickle of tensors or arrays, got {type(error).__name__} ({told}): save it again"
        ) from error


class _Inert(pickle._Unpickler):  # CPython's machine in Python, whose steps can be replaced
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self._stream = stream

    def find_class(self, module: str, name: str) -> Any:
        return Label(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":  # the old format: a class and its source
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], Label):
            raise ModelError("expected storages of torch, got another persistent id: save the state_dict")
        _, kind, key, _, size, *view = pid
        seen = view[0] if view and view[0] is not None else None
        return Stored(kind.name, str(key), int(size), None if seen is None else (int(seen[1]), int(seen[2])))

    def called(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], args)

    def called_with_names(self) -> None:
        names = self.stack.pop()
        args = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], (*args, names) if names else args)

    def built(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Other) and target.by.name == "NumpyArrayWrapper":
            self.stack[-1] = _raw(state, self._stream)
        elif isinstance(target, _Empty):
            self.stack[-1] = _array(*state[1:5])
        elif isinstance(target, _Dtype):
            target.order, target.plain = state[1], state[2] is None and state[3] is None and state[4] is None
        elif isinstance(target, Other):
            target.state = state
        elif not isinstance(target, dict | Strided | Stored):  # their state is nothing that we keep
            raise ModelError("expected state of an object, got it for something else: save the weights again")

    def refused(self) -> None:
        raise ModelError("expected a pickle of data, got one that makes objects in another way: save the weights again")

    dispatch[pickle.REDUCE[0]] = called
    dispatch[pickle.NEWOBJ[0]] = called
    dispatch[pickle.NEWOBJ_EX[0]] = called_with_names
    dispatch[pickle.BUILD[0]] = built
    for _code in (pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER):
        dispatch[_code[0]] = refused


def _made(by: Any, args: Any) -> Any:
    if not isinstance(by, Label) or not isinstance(args, tuple):
        raise ModelError("expected a call of a name, got a call of something else: save the weights again")
    maker = _MAKERS.get(by.name) if by.module.partition(".")[0] in _KNOWN else None
    return Other(by, args) if maker is None else maker(*args)


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    return dict(pairs)


def _tensor(storage: Any, offset: int, shape: Any, stride: Any, *rest: Any) -> Strided:
    if not isinstance(storage, Stored):
        raise ModelError("expected a tensor in a storage, got one in something else: save the state_dict")
    if any(isinstance(item, dict) and (item.get("conj") or item.get("neg")) for item in rest):
        raise ModelError(
            "expected numbers as they are stored, got a view of their conjugates or negatives: save what "
            "tensor.resolve_conj().resolve_neg() gives"
        )
    dtype = next((str(item.name) for item in rest if isinstance(item, Label) and item.module == "torch"), "")
    return Strided(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)), dtype)


def _same(value: Any, *rest: Any) -> Any:
    return value


def _dtype(text: Any, *rest: Any) -> _Dtype:
    return _Dtype(text.name if isinstance(text, Label) else str(text))


def _bytes(value: Any = b"", codec: str = "latin1") -> bytes:
    if isinstance(value, str) and codec in ("latin1", "latin-1", "utf-8"):
        return value.encode(codec)
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise ModelError("expected bytes, got something else: save the weights again")


def _array(shape: Any, dtype: Any, fortran: Any, raw: Any) -> NDArray[Any]:
    if not isinstance(dtype, _Dtype) or not dtype.plain:
        raise ModelError("expected arrays of numbers, got records: save them as plain arrays")
    found = np.dtype(dtype.text)
    found = found.newbyteorder(">") if dtype.order == ">" else found
    if found.hasobject or found.kind not in "biufcSU" or not isinstance(raw, bytes | bytearray):
        raise ModelError(f"expected arrays of numbers, got one of {found}: leave out what is no number")
    return np.frombuffer(bytes(raw), dtype=found).reshape(tuple(shape), order="F" if fortran else "C")


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    return _array(shape, dtype, order == "F", raw)


def _scalar(dtype: Any, raw: Any) -> Any:
    return _array((), dtype, False, raw)[()]


def _raw(state: Any, stream: io.BytesIO) -> NDArray[Any]:
    """An array as joblib keeps it: behind its description, perhaps after some padding."""
    dtype, shape = state["dtype"], tuple(map(int, state["shape"]))
    if state.get("numpy_array_alignment_bytes") is not None:
        stream.read(int.from_bytes(stream.read(1), "little"))
    count = 1
    for size in shape:
        count *= size
    width = np.dtype(dtype.text).itemsize
    if count < 0 or count * width > len(stream.getbuffer()) - stream.tell():
        raise ModelError("expected the bytes of an array, got fewer: the file is damaged, get it again")
    return _array(shape, dtype, state["order"] == "F", stream.read(count * width))


_KNOWN = frozenset({"collections", "torch", "numpy", "_codecs", "builtins", "__builtin__"})
_MAKERS: dict[str, Callable[..., Any]] = {
    "OrderedDict": _ordered,
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _tensor,
    "_rebuild_parameter": _same,
    "_rebuild_parameter_with_state": _same,
    "Size": _same,
    "dtype": _dtype,
    "_reconstruct": lambda *args: _Empty(),
    "_frombuffer": _from_buffer,
    "scalar": _scalar,
    "encode": _bytes,
    "bytes": _bytes,
    "bytearray": _bytes,
}
