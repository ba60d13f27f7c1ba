"""Small real models and cases that the tests of this room share."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from casemate.core.bracket import Batch, Goal, Ledger
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.model import Affine, Model
from casemate.core.norms import Norm
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Schema
from casemate.engine.harness import batch_of, open_ledger, pursue

NORMS = (Norm.LINF, Norm.L2)


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float64), y.astype(np.int64)


@cache
def logistic() -> LogisticRegression:
    x, y = digits()
    return LogisticRegression(C=1.0, max_iter=200, tol=1e-2).fit(x, y)


def table_schema(d: int = 64, **changes: Any) -> Schema:
    return Schema(DataKind.TABLE, (d,), tuple(Feature(f"f{i}", lo=0.0, hi=1.0, **changes) for i in range(d)))


def image_schema(*shape: int) -> Schema:
    return Schema(DataKind.IMAGE, shape, (Feature("pixel", lo=0.0, hi=1.0),))


def sklearn_linear() -> Model:
    """LogisticRegression on digits as a table, float64."""
    fitted = logistic()
    return Model(
        "logistic",
        "logistic",
        labels=lambda x: fitted.predict(x),
        scores=lambda x: fitted.predict_proba(x),
        logits=lambda x: fitted.decision_function(x),
        estimator=fitted,
        affine=Affine(fitted.coef_, fitted.intercept_),
    )


def torch_linear(dtype: torch.dtype = torch.float32) -> Model:
    """The same weights in a torch net on images (1, 8, 8)."""
    fitted = logistic()
    layer = nn.Linear(64, 10).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(fitted.coef_))
        layer.bias.copy_(torch.tensor(fitted.intercept_))
    weights, bias = (part.detach().numpy().astype(np.float64) for part in (layer.weight, layer.bias))
    return replace(torch_model(nn.Sequential(nn.Flatten(), layer)), affine=Affine(weights, bias))


def torch_model(module: nn.Module, *, labels_only: bool = False) -> Model:
    """A model record around a module, as the adapter makes them."""
    module = module.eval()
    dtype = next((p.dtype for p in module.parameters()), torch.float32)

    def logits(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(module(torch.tensor(np.array(x), dtype=dtype)).numpy())

    def scores(x: np.ndarray) -> np.ndarray:
        return torch.tensor(logits(x)).softmax(1).numpy()

    return Model(
        "net",
        "net",
        labels=lambda x: logits(x).argmax(1),
        scores=None if labels_only else scores,
        logits=None if labels_only else logits,
        module=module,
    )


@cache
def cnn() -> nn.Module:
    """A tiny convolutional net on digits, trained for a second; BatchNorm with real statistics."""
    x, y = digits()
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10),
    )  # fmt: skip
    step = torch.optim.Adam(net.parameters(), 1e-2)
    inputs, labels = torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(y)
    for part in [rows for _ in range(2) for rows in torch.randperm(len(x)).split(128)]:
        step.zero_grad()
        nn.functional.cross_entropy(net(inputs[part]), labels[part]).backward()
        step.step()
    return net.eval()


def table_case(model: Model, n: int = 150) -> Case:
    x, y = digits()
    return Case(model=model, splits=Splits(test=Data(x[:n], table_schema(), y[:n])))


def image_case(model: Model, n: int = 150, dtype: type = np.float32) -> Case:
    x, y = digits()
    images = x[:n].astype(dtype).reshape(-1, 1, 8, 8)
    return Case(model=model, splits=Splits(test=Data(images, image_schema(1, 8, 8), y[:n])))


def batch_from(case: Case, rows: slice | np.ndarray = slice(None)) -> Batch:
    data = case.data("test")
    return batch_of(data.x[rows], data.labels[rows], data.sample_id[rows])


def attacked(
    plugin: Plugin, case: Case, goal: Goal, *, options: Any = None, batch: Batch | None = None, limit: int | None = None
) -> tuple[Ledger, Lab]:
    """The ledger after one plug-in under the harness."""
    batch = batch_from(case) if batch is None else batch
    lab = Lab(plugin.id, 3, options=plugin.options() if options is None else options, meter=Meter(limit=limit))
    ledger = open_ledger(case, batch, goal.norm, target=goal.target)
    pursue(plugin, case, batch, goal, lab, ledger=ledger, rows=np.arange(len(batch)))
    return ledger, lab


def uneven_table(seed: int) -> tuple[Case, Schema]:
    """A small random net in float32 on a table in float64 with bounds, unequal scales and an immutable column 1."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    scales = rng.uniform(0.1, 10, size=5)
    features = tuple(Feature(f"f{i}", lo=-2.0, hi=3.0, scale=float(s), immutable=i == 1) for i, s in enumerate(scales))
    schema = Schema(DataKind.TABLE, (5,), features)
    model = torch_model(nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)))
    x = rng.uniform(-2, 3, size=(16, 5))
    return Case(model=model, splits=Splits(test=Data(x, schema, model.labels(x)))), schema
