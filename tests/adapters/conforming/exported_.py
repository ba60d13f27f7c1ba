"""Programs of `torch.export`, for any number of samples and for three at once."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casemate.adapters import wrap
from casemate.adapters.data import from_arrays
from casemate.adapters.loading import load_model
from casemate.core.schema import Schema


def opened(data: bytes, schema: Schema | None, **how: Any) -> Any:
    """The model in these bytes, from a file that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.pt2"
        path.write_bytes(data)
        return wrap(load_model(path), schema=schema, **how)


def net(seed: int) -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(144, 3)).eval()


def saved(module: Any, *, dynamic: bool) -> bytes:
    import torch

    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own pytree
        shapes = ({0: torch.export.Dim("n")},) if dynamic else None
        torch.export.save(torch.export.export(module, (torch.rand(3, 1, 8, 8),), dynamic_shapes=shapes), out)
    return out.getvalue()


def program(*, dynamic: bool) -> dict[str, Any]:
    first, other = net(0), net(1)
    x = np.random.default_rng(0).random((23, 1, 8, 8)).astype(np.float32)
    schema = from_arrays(x, np.arange(23) % 3).schema
    narrow = from_arrays(x[..., :7], np.arange(23) % 3).schema
    data = saved(first, dynamic=dynamic)

    def native(x: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return np.asarray(first(torch.tensor(x)).numpy())

    return {
        "model": opened(data, schema),
        "x": x,
        "native_predict": lambda x: native(x).argmax(1),
        "native_logits": native,
        "reopened": opened(saved(first, dynamic=dynamic), schema),
        "other": opened(saved(other, dynamic=dynamic), schema),
        "refused": {
            "images of another size": lambda: opened(data, narrow),
            "classes that it has not": lambda: opened(data, schema, classes=("a", "b")),
            "half a file": lambda: opened(data[: len(data) // 2], schema),
        },
        "tolerance": 1e-5,
    }


def cases() -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "any number of samples": lambda: program(dynamic=True),
        "three samples at once": lambda: program(dynamic=False),
    }
