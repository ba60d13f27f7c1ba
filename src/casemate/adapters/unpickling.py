"""Pickles that passed their scan, opened by an unpickler that knows no other names than the scan has seen.

The scan follows a pickle symbolically; here it runs. Were the two ever to disagree on what the bytes mean, the
unpickler still finds nothing but the exact names that the scan saw in this very file and that the reviewed tables know
as harmless, calls nothing but these, `getattr` reaches public attributes of classes alone, dtypes keep the flags that
numpy gives them, and copyreg's registry of numbered names is empty.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, ClassVar

import numpy as np

from casemate.adapters.dtype_states import check_dtype_state
from casemate.adapters.extras import EXTRAS
from casemate.adapters.verdicts import Held, check_verdict
from casemate.errors import ModelError, Unavailable
from casemate.formats.scanning.desk import Desk, Reader
from casemate.formats.scanning.limits import LimitReached, Limits
from casemate.formats.scanning.pickles.dangers import danger_of
from casemate.formats.scanning.pickles.judge import ruling_of
from casemate.formats.scanning.pickles.rulings import Use
from casemate.formats.scanning.readers import compressed, pickles
from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source
from casemate.formats.scanning.walking import scan_bytes

__all__ = ["BOOSTERS", "names_in", "unpack", "unpickle"]

BOOSTERS = frozenset({"xgboost.core", "lightgbm.basic", "catboost.core", "_catboost"})
"""Modules whose objects hand bytes of the pickle to readers in C++."""
_ONE_AT_A_TIME = threading.RLock()

Names = Mapping[tuple[str, str], Use]


def unpickle(held: Held) -> Any:
    """The object in a clean pickle or joblib file, from the bytes in memory.

    Raises `ModelError` where it is not clean, holds a name that the scan did not see, or does not unpickle, and
    `Unavailable` where a library that it needs is not installed.
    """
    check_verdict(held, runs=True)
    inner = unpack(held)
    check_verdict(inner, runs=True)
    names = names_in(inner)
    try:
        with _no_extensions(), warnings.catch_warnings():
            # Other versions of scikit-learn load or fail below.
            warnings.filterwarnings("ignore", message="Trying to unpickle estimator")
            return _read(inner.data, names)
    except ModuleNotFoundError as error:
        root = (error.name or "").partition(".")[0]
        mend = f"pip install 'casemate[{EXTRAS[root]}]'" if root in EXTRAS else f"install {root}"
        raise Unavailable(f"expected {root} to open {held.name}, got no such package: {mend}") from error
    except Exception as error:  # a known class may still raise anything on a state that does not fit
        told = (str(error).splitlines() or ["no message"])[0][:200]
        raise ModelError(
            f"expected {held.name} to unpickle, got {type(error).__name__} ({told}): save it again with the versions "
            "installed here"
        ) from error


def unpack(held: Held) -> Held:
    """The file without its compression (gzip, zlib, bzip2, xz, LZMA, LZ4, Zstandard, joblib's old ZF), scanned anew.

    Raises `ModelError` for a stream that is damaged, a bomb, or followed by something else.
    """
    inside: list[bytes | memoryview] = []

    def keep(source: Source, desk: Desk) -> Iterator[Sign]:
        inside.append(source.data)
        return iter(())

    streams = (*compressed.READERS, *(reader for reader in pickles.READERS if reader.name == "joblib-zfile"))
    desk = Desk((*streams, Reader("content", lambda source: True, keep, last=True)), Limits(), len(held.data))
    try:
        faults = [sign.what for sign in desk.look(Source(held.name, held.data))]
    except LimitReached as error:
        faults = [str(error)]
    if faults or len(inside) != 1:
        told = faults[0] if faults else f"{len(inside)} streams"
        raise ModelError(f"expected {held.name} to unpack to one pickle, got {told}: save it again")
    if len(desk.formats) == 1:  # it was not compressed
        return held
    data = bytes(inside[0])
    return Held(held.name, data, scan_bytes(data, held.name))


def names_in(held: Held) -> Names:
    """The names that a scanned file may import, as it spells them: those it was seen to, as far as they are known."""
    found = {}
    for used in held.scanned.used:
        ruling = ruling_of(used.module, used.name)
        if ruling.level is Level.CLEAN:
            found[used.module, used.name] = ruling.use
    return found


def _read(data: bytes, names: Names) -> Any:
    """As joblib reads its files and plain pickles: in Python, so that every call and state can be held to the rules."""
    from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler

    class Restricted(NumpyUnpickler):  # type: ignore[misc]  # joblib has no types
        dispatch: ClassVar[dict[int, Any]] = dict(NumpyUnpickler.dispatch)

        def __init__(self, stream: io.BytesIO, made: dict[int, Any]) -> None:
            super().__init__("", stream, ensure_native_byte_order=True, mmap_mode=None)
            self.made = made

        def find_class(self, module: str, name: str) -> Any:
            _check_name(names, module, name)
            found = _guarded(module, name, super().find_class(module, name))
            if names[module, name] is not Use.VALUE:
                self.made[id(found)] = found
            return found

        def _instantiate(self, called: Any, args: Any) -> None:  # what OBJ and INST call
            _check_called(self.made, called)
            super()._instantiate(called, args)

        def load_build(self) -> None:
            target, state = self.stack[-2], self.stack[-1]
            _check_state(target, state)
            if type(target) is not NumpyArrayWrapper:
                pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]
                return
            if not isinstance(state, dict) or not hasattr(state.get("dtype"), "hasobject"):
                raise pickle.UnpicklingError("an array without a dtype")
            if state["dtype"].hasobject:
                del self.stack[-2:]
                self.stack.append(Restricted(self.file_handle, self.made).load())
                return
            state["allow_mmap"] = False
            super().load_build()

        dispatch[pickle.BUILD[0]] = load_build

    for code in (pickle.REDUCE, pickle.NEWOBJ, pickle.NEWOBJ_EX):
        Restricted.dispatch[code[0]] = _held_to_rulings(
            Restricted.dispatch[code[0]], {pickle.NEWOBJ_EX: 3}.get(code, 2)
        )
    return Restricted(io.BytesIO(data), {}).load()


def _held_to_rulings(step: Callable[[Any], None], depth: int) -> Callable[[Any], None]:
    """An opcode that calls what lies `depth` deep on the stack: only what was found by name, and known to be called."""

    def checked(unpickler: Any) -> None:
        _check_called(unpickler.made, unpickler.stack[-depth])
        step(unpickler)

    return checked


def _check_called(made: Mapping[int, Any], called: Any) -> None:
    if made.get(id(called)) is not called:
        raise pickle.UnpicklingError("a call of what no table knows as something to call")


def _check_name(names: Names, module: str, name: str) -> None:
    if (module, name) not in names:
        raise pickle.UnpicklingError(f"the name {module}.{name}, which its scan did not see")


def _check_state(target: Any, state: Any) -> None:
    """Hold states that compiled code believes to their rules, before it is given them."""
    if isinstance(target, type | ModuleType | FunctionType | BuiltinFunctionType):
        raise pickle.UnpicklingError("a state for a class, a module or a function")  # it would change for everybody
    if isinstance(target, np.dtype):
        check_dtype_state(target, state)
    kind = type(target)
    if (kind.__module__, kind.__qualname__) == ("lightgbm.basic", "Booster"):
        texts = [state[key] for key in ("_handle", "handle") if state.get(key) is not None]
        for text in texts:
            import_module("casemate.adapters.lightgbm").check_text(text)


def _guarded(module: str, name: str, found: Any) -> Any:
    return _attribute if found is getattr else found


def _attribute(target: Any, name: Any, *rest: Any) -> Any:
    """`getattr` as pickles of Cython's classes need it: public attributes of known classes."""
    if rest or not isinstance(target, type) or not isinstance(name, str) or name.startswith("_") or "." in name:
        raise pickle.UnpicklingError("an attribute of what is no class, or a private one")
    if danger_of(target.__module__, f"{target.__qualname__}.{name}"):
        raise pickle.UnpicklingError(f"the attribute {name} of {target.__qualname__}")
    return getattr(target, name)


@contextmanager
def _no_extensions() -> Iterator[None]:
    """Empty copyreg's registry of numbered names, which are found past `find_class`, and put it back."""
    tables: list[dict[Any, Any]] = [
        copyreg._extension_registry,  # type: ignore[attr-defined]
        copyreg._inverted_registry,  # type: ignore[attr-defined]
        copyreg._extension_cache,  # type: ignore[attr-defined]
    ]
    with _ONE_AT_A_TIME:
        kept = [dict(table) for table in tables]
        try:
            for table in tables:
                table.clear()
            yield
        finally:
            for table, content in zip(tables, kept, strict=True):
                table.clear()
                table.update(content)
