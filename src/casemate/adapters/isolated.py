"""The inside of an isolated process: opens a model, whatever that runs, and answers over a pipe.

Questions and answers are frames: a length in 8 bytes and a container of `formats.arrays`. Nothing here is believed by
the other side (`isolation`): the model's code shares this process.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from casemate.adapters.apart import be_apart
from casemate.errors import CasemateError
from casemate.formats import arrays

__all__ = ["frame", "serve"]


def serve(questions: int, answers: int, path: str) -> None:
    """Answer until the pipe ends: `open` (once), `wrap`, then `labels` and `scores` of samples."""
    warnings.simplefilter("ignore")
    be_apart()
    host = _Host(Path(path))
    while (asked := _next(questions)) is not None:
        try:
            told = host.answer(arrays.unpack(asked))
        except MemoryError:
            told = {"error": "it needs more memory than it may have", "kind": "MemoryError"}
        except CasemateError as error:
            told = {"error": str(error), "kind": "CasemateError"}
        except BaseException as error:  # the model's own code may raise anything
            told = {"error": f"{type(error).__name__}: {error}"[:500], "kind": "Exception"}
        _send(answers, frame(told))


def frame(values: dict[str, Any]) -> bytes:
    """A message as both sides write it."""
    packed = arrays.pack(values)
    return len(packed).to_bytes(8, "little") + packed


class _Host:
    """The model in here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.native: Any = None
        self.models: list[Any] = []

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        steps: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "open": self.opened,
            "wrap": self.wrapped,
            "labels": self.answered,
            "scores": self.answered,
        }
        return steps[asked["do"]](asked)

    def opened(self, asked: dict[str, Any]) -> dict[str, Any]:
        from casemate.adapters.labels import class_name
        from casemate.adapters.loading import PICKLES, Declared, load_model

        folder = Path(asked["folder"]) if asked["folder"] else None
        declared = Declared(asked["factory"], tuple(asked["trusted"]), trust=True, folder=folder)
        if self.path.suffix.lower() in PICKLES:
            import joblib

            self.native = joblib.load(self.path)
        else:
            self.native = load_model(self.path, declared)
        found = getattr(self.native, "classes_", None)
        named = None if found is None or isinstance(found, list) else [class_name(value) for value in found]
        return {"classes": named, "kind": type(self.native).__name__, "width": _width(self.native)}

    def wrapped(self, asked: dict[str, Any]) -> dict[str, Any]:
        import pickle

        from casemate.adapters import wrap

        how = pickle.loads(asked["how"].tobytes())  # from our own parent, who trusts us with nothing
        self.models.append(wrap(self.native, **how))
        model = self.models[-1]
        return {
            "classes": list(model.classes),
            "task": str(model.task),
            "scores": model.scores is not None,
        }

    def answered(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"answer": np.asarray(getattr(self.models[asked["model"]], asked["do"])(asked["x"]))}


def _width(native: Any) -> int | None:
    found = getattr(native, "n_features_in_", None)
    return int(found) if isinstance(found, int | np.integer) else None


def _next(descriptor: int) -> bytes | None:
    head = _exactly(descriptor, 8)
    return None if head is None else _exactly(descriptor, int.from_bytes(head, "little"))


def _exactly(descriptor: int, n: int) -> bytes | None:
    parts = []
    while n:
        part = os.read(descriptor, min(n, 1 << 20))
        if not part:
            return None
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def _send(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
