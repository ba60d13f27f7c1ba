"""Structural digests: one name for a model's weights that every process and every reload agrees on."""

from __future__ import annotations

import copyreg
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.errors import ModelError
from casemate.formats.digests import Hasher, sha256_bytes

if TYPE_CHECKING:
    from torch import nn

__all__ = ["fingerprint", "from_framework"]


def fingerprint(native: object) -> str:
    """`sha256:...` over what an object is made of: types, numbers, arrays and code, never addresses or hash order.

    Estimators: the class and its state, attribute by attribute. Torch modules: the names, dtypes, shapes and bytes of
    the state_dict, and the printed structure (train or eval mode does not count). Functions: module, qualified name,
    defaults, closure and (unless a library's) byte code, which is another for another Python; what a function reads
    from global names is not seen. Shared parts count as often as they are reached; a cycle is closed by its depth.
    Raises `ModelError` for an object that does not say what it is made of.
    """
    state = Hasher("casemate.model.1")
    if from_framework(native, "torch") and hasattr(native, "state_dict"):
        _walk_module(native, state)  # type: ignore[arg-type]  # known to be a module without importing torch
    else:
        _Walk(state).visit(native)
    return state.digest()


def from_framework(native: object, package: str) -> bool:
    """Whether a class in the object's ancestry is defined in `package`; imports nothing."""
    return any(base.__module__.partition(".")[0] == package for base in type(native).__mro__)


def _walk_module(module: nn.Module, state: Hasher) -> None:
    state.add("module", _name_of(type(module)), repr(module))
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not hasattr(tensor, "detach"):  # get_extra_state may give anything
            state.add("extra", name)
            _Walk(state).visit(tensor)
            continue
        _add_tensor(tensor, name, state)


def _add_tensor(tensor: Any, name: str, state: Hasher) -> None:
    import torch

    plain = tensor.detach().cpu().contiguous()
    shape = ",".join(str(size) for size in plain.shape)
    raw = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    state.add("tensor", name, str(plain.dtype), shape, raw)


_LIBRARIES = frozenset({"numpy", "pandas", "scipy", "sklearn", "torch"})
_PASSING = frozenset({"_sklearn_version", "_stop_words_id"})  # what only pickle writes; an address in memory
_COUNTING = frozenset({"KDTree", "KDTree32", "KDTree64", "BallTree", "BallTree32", "BallTree64"})


class _Walk:
    """One walk over an object; `open` holds the ids on the path from the root, so that cycles end."""

    def __init__(self, state: Hasher) -> None:
        self.state = state
        self.open: dict[int, int] = {}
        self.alive: list[object] = []  # parts made on the way: their ids must not be reused

    def visit(self, part: object) -> None:
        """Add one part and everything under it."""
        for kinds, add in _LEAVES:
            if isinstance(part, kinds):
                add(self, part)
                return
        if id(part) in self.open:
            self.state.add("cycle", str(len(self.open) - self.open[id(part)]))
            return
        self.open[id(part)] = len(self.open)
        self.alive.append(part)
        try:
            self._branch(part)
        except RecursionError as error:
            raise ModelError(f"expected a model of finite depth, got {type(part).__name__} nested too deep") from error
        finally:
            del self.open[id(part)]

    def _branch(self, part: object) -> None:
        if type(part) in (list, tuple):
            self._many("sequence", type(part).__name__, list(part))  # type: ignore[call-overload]
        elif type(part) in (set, frozenset):
            self._many("set", type(part).__name__, sorted(map(fingerprint, part)))  # type: ignore[call-overload]
        elif isinstance(part, dict):  # sklearn's Bunch has a state beside its items that a reload forgets
            self.state.add(type(part).__name__)
            self._mapping(part)
        else:
            self._object(part)

    def _many(self, tag: str, name: str, items: Sequence[object]) -> None:
        self.state.add(tag, name, str(len(items)))
        for item in items:
            self.visit(item)

    def _mapping(self, items: Mapping[Any, Any]) -> None:
        """Dictionaries are the same whatever their order: attributes are set in another one after a reload."""
        keyed = sorted(((fingerprint(key), key) for key in items), key=lambda pair: pair[0])
        self.state.add("dict", str(len(keyed)))
        for digest, key in keyed:
            self.state.add(digest)
            self.visit(items[key])

    def _object(self, part: object) -> None:
        if from_framework(part, "torch") and hasattr(part, "detach"):
            _add_tensor(part, "", self.state)
            return
        if isinstance(part, np.random.RandomState | np.random.Generator):
            self.state.add("random")  # where a generator stands is no part of what was learned
            return
        reduced = _reduced(part)
        self.state.add("object", _name_of(type(part)))
        self.alive.append(reduced)
        if isinstance(reduced, str):
            self.state.add(reduced)
            return
        maker, arguments, *rest = reduced
        if maker is not copyreg.__newobj__:  # type: ignore[attr-defined]
            self.visit(maker)
        self.visit([item for item in arguments if item is not type(part)])
        held = rest[0] if rest else None
        self.visit(_lasting(part, held))
        for iterator in rest[1:3]:
            self.visit(None if iterator is None else list(iterator))


def _reduced(part: object) -> Any:
    try:
        return part.__reduce_ex__(4)
    except Exception as error:  # an object's own code runs here and may raise anything
        raise ModelError(
            f"expected a model made of parts with a state, got {type(part).__name__}, which gives none ({error}): "
            "wrap its predict function instead"
        ) from error


def _lasting(part: object, held: object) -> object:
    """The state without what is no part of the model: what a process notes of itself, and counters of queries."""
    if isinstance(held, dict) and not _PASSING.isdisjoint(held):
        return {key: value for key, value in held.items() if key not in _PASSING}
    if type(part).__name__ in _COUNTING and isinstance(held, tuple):
        return (*held[:7], *held[11:])  # n_trims, n_leaves, n_splits, n_calls
    return held


def _add_array(walk: _Walk, part: NDArray[Any]) -> None:
    array = np.asarray(part)
    shape = ",".join(str(size) for size in array.shape)
    if array.dtype.kind in "OUT":  # the bytes of the last are addresses
        walk.state.add("array of objects", shape)
        walk.visit(array.reshape(-1).tolist())
        return
    fixed = np.ascontiguousarray(array)
    if fixed.dtype.fields:  # the bytes between the fields of a record are not written by anybody
        walk.state.add("records", shape, *fixed.dtype.names or ())
        for name in fixed.dtype.names or ():
            walk.visit(np.ascontiguousarray(fixed[name]))
        return
    little = fixed.astype(fixed.dtype.newbyteorder("<"), copy=False)
    walk.state.add("array", little.dtype.newbyteorder("<").str, shape, little.tobytes())


def _add_function(walk: _Walk, part: Any) -> None:
    walk.state.add("function", str(part.__module__), part.__qualname__)
    if str(part.__module__).partition(".")[0] in _LIBRARIES:
        return
    _add_code(walk, part.__code__)
    walk.visit((part.__defaults__, part.__kwdefaults__))
    for cell in part.__closure__ or ():
        try:
            walk.visit(cell.cell_contents)
        except ValueError:  # a cell that nothing was written to yet
            walk.state.add("empty cell")


def _add_code(walk: _Walk, code: types.CodeType) -> None:
    walk.state.add(sha256_bytes(code.co_code), *code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _add_code(walk, constant)
        else:
            walk.visit(constant)


def _add_method(walk: _Walk, part: Any) -> None:
    walk.state.add("method", part.__func__.__qualname__)
    walk.visit(part.__self__)


def _add_builtin(walk: _Walk, part: Any) -> None:
    walk.state.add("builtin", str(part.__module__), str(part.__qualname__))
    owner = getattr(part, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        walk.visit(owner)


def _add_partial(walk: _Walk, part: functools.partial[Any]) -> None:
    walk.visit(("partial", part.func, part.args, part.keywords))


def _add_number(walk: _Walk, part: Any) -> None:
    # numpy and Python numbers are one: reloading turns some of the one into the other
    value = part.item() if isinstance(part, np.generic) else part
    walk.state.add(type(value).__name__, repr(value))


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _add_type(walk: _Walk, part: Any) -> None:
    walk.state.add("type", _name_of(part))


_Adder = Callable[[_Walk, Any], None]
_LEAVES: tuple[tuple[Any, _Adder], ...] = (
    (type, _add_type),
    (np.ndarray, _add_array),
    (np.dtype, lambda walk, part: walk.state.add("dtype", part.str) and None),
    ((bytes, bytearray), lambda walk, part: walk.state.add("bytes", bytes(part)) and None),
    ((str, bool, int, float, complex, type(None), type(Ellipsis), np.generic), _add_number),
    (np.ufunc, lambda walk, part: walk.state.add("ufunc", part.__name__) and None),
    (types.ModuleType, lambda walk, part: walk.state.add("package", part.__name__) and None),
    (types.MethodType, _add_method),
    (types.FunctionType, _add_function),
    ((types.BuiltinFunctionType, types.WrapperDescriptorType), _add_builtin),
    (functools.partial, _add_partial),
)
