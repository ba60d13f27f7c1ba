"""ONNX: a net of torch and a forest of scikit-learn, as their own exporters write them."""

from __future__ import annotations

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
        path = Path(folder) / "m.onnx"
        path.write_bytes(data)
        return wrap(load_model(path), schema=schema, **how)


def asked(data: bytes, x: np.ndarray, output: int) -> np.ndarray:
    """What onnxruntime answers, one sample after the other."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: row[None].astype(np.float32)})[output] for row in x])


def net(seed: int, *, dynamic: bool) -> bytes:
    torch = pytest.importorskip("torch")
    import io

    torch.manual_seed(seed)
    layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten()]
    made = torch.nn.Sequential(*layers, torch.nn.Linear(144, 3), torch.nn.Softmax(1)).eval()
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own older exporter
        axes = {"x": {0: "n"}} if dynamic else None
        sample = torch.rand(3, 1, 8, 8)
        torch.onnx.export(made, (sample,), out, dynamo=False, input_names=["x"], dynamic_axes=axes, opset_version=17)
    return out.getvalue()


def network(*, dynamic: bool) -> dict[str, Any]:
    pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).random((23, 1, 8, 8)).astype(np.float32)
    schema = from_arrays(x, np.arange(23) % 3).schema
    narrow = from_arrays(x[..., :7], np.arange(23) % 3).schema
    data, other = net(0, dynamic=dynamic), net(1, dynamic=dynamic)
    native = data if dynamic else net(0, dynamic=True)  # a fixed batch cannot be asked one by one
    return {
        "model": opened(data, schema),
        "x": x,
        "native_predict": lambda x: asked(native, x, 0).argmax(1),
        "native_scores": lambda x: asked(native, x, 0),
        "reopened": opened(data, schema, name="again"),
        "other": opened(other, schema),
        "refused": {
            "images of another size": lambda: opened(data, narrow),
            "classes that it has not": lambda: opened(data, schema, classes=("a", "b")),
            "half a file": lambda: opened(data[: len(data) // 2], schema),
        },
        "tolerance": 1e-5,
    }


def forest() -> dict[str, Any]:
    pytest.importorskip("onnxruntime")
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4)).astype(np.float32)
    names = np.array(["ham", "spam", "other"])
    y = names[(x[:, 0] > 0).astype(int) + (x[:, 1] > 1)]
    made = [RandomForestClassifier(5, random_state=seed).fit(x, y) for seed in (0, 1)]
    first, other = (to_onnx(estimator, x[:1]).SerializeToString() for estimator in made)
    schema, narrow = (from_arrays(part, np.arange(80) % 3).schema for part in (x, x[:, :3]))
    classes = list(made[0].classes_)
    return {
        "model": opened(first, schema),
        "x": x,
        "native_predict": lambda x: np.array([classes.index(name) for name in made[0].predict(x)]),
        "native_scores": lambda x: made[0].predict_proba(x),
        "reopened": opened(first, schema),
        "other": opened(other, schema),
        "refused": {"a table of another width": lambda: opened(first, narrow)},
    }


def cases() -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "a net, any number of samples": lambda: network(dynamic=True),
        "a net, three samples at once": lambda: network(dynamic=False),
        "a forest, maps of probabilities": forest,
    }
