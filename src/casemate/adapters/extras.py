"""What is installed beside the base: each optional package, and the extra of Casemate that brings it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from casemate.errors import Unavailable

__all__ = ["EXTRAS", "need"]

EXTRAS = {
    "torch": "torch",
    "safetensors": "torch",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "xgboost": "boost",
    "lightgbm": "boost",
    "httpx": "http",
    "transformers": "text",
    "PIL": "image",
}
"""Module -> the extra that installs it."""


def need(module: str, why: str) -> ModuleType:
    """The module, imported; raises `Unavailable` with the `pip install` that brings it where it is not there.

    `why` completes "to ...", such as "read model.onnx".
    """
    root = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != root:
            raise  # the package is there, and something that it needs is not
        raise Unavailable(
            f"expected {root} to {why}, got no such package: pip install 'casemate[{EXTRAS[root]}]'"
        ) from error
