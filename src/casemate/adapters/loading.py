"""Model files by their suffix: which adapter opens which, and what the user declared about it.

A file becomes a native object here (an estimator, a booster, a session, a module) and a `Model` in `wrap`. Each adapter
scans a file before it opens it (`verdicts`) and opens it by the safest means that its format has: what runs nothing, a
clean pickle by a restricted unpickler (`unpickling`), anything else in a process of its own (`isolation`) or on trust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from casemate.errors import ModelError

__all__ = ["FORMATS", "PICKLES", "WEIGHTS", "Declared", "load_model"]

PICKLES = frozenset({".pkl", ".pickle", ".joblib"})
"""Files that can run code when they are opened."""
WEIGHTS = frozenset({".safetensors", ".pt", ".pth", ".bin"})
"""Files of weights, which need the factory of their module."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What the user says of a model file: the `factory` of its module, `trusted` types, and what it may do.

    `trust`: it may run code whatever its scan says; `isolate`: it lives in a process without network and files.
    `folder` is that of casemate.toml, from which a factory can be imported. `notes` is filled by whoever opens the
    file: facts that the report repeats, such as that `trust` was needed.
    """

    factory: str | None = None
    trusted: tuple[str, ...] = ()
    trust: bool = False
    folder: Path | None = None
    isolate: bool = False
    notes: dict[str, str] = field(default_factory=dict, compare=False)


FORMATS: Mapping[str, str] = {
    **dict.fromkeys((*sorted(PICKLES), ".skops"), "sklearn:open_estimator"),
    **dict.fromkeys(sorted(WEIGHTS), "torch:open_weights"),
    ".pt2": "exported:open_exported",
    ".onnx": "onnx:open_onnx",
    ".ubj": "xgboost:open_booster",
    ".json": "xgboost:open_booster",
    ".txt": "lightgbm:open_booster",
}
"""Suffix -> `module:function` of the adapter that opens it: `(path, Declared) -> native`."""
_FOLDER = "huggingface:open_folder"
_ISOLATED = "isolation:open_isolated"


def load_model(path: Path, declared: Declared | None = None) -> Any:
    """The native object in a model file (or in the folder of a text classifier), for `wrap`.

    Raises `ModelError` for a file that is missing, of no known format, damaged or refused by its scan, and
    `Unavailable` with the `pip install` where its framework is not installed, or where nothing can be isolated.
    """
    how = declared or Declared()
    if not path.exists():
        raise ModelError(f"expected a model file at {path}, got nothing: check [model] path")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(
            f"expected a model file or a text classifier, got {path.name}, a folder without config.json: name one"
        )
    spec = _FOLDER if path.is_dir() else FORMATS.get(path.suffix.lower())
    if spec is None:
        known = ", ".join(sorted(FORMATS))
        raise ModelError(f"expected a model file ({known}), got {path.name}: convert it, or name a function")
    module, _, function = (_ISOLATED if how.isolate else spec).partition(":")
    opened: Callable[[Path, Declared], Any] = getattr(import_module(f"casemate.adapters.{module}"), function)
    return opened(path, how)
