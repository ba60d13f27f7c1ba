"""XGBoost: boosters from files and the estimator around them, with a base score and missing values."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casemate.adapters import wrap
from casemate.adapters.data import from_arrays
from casemate.adapters.loading import load_model
from casemate.core.model import Model


def fitted(k: int, seed: int, **how: Any) -> tuple[Any, np.ndarray]:
    xgboost = pytest.importorskip("xgboost")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 4))
    x[rng.random(x.shape) < 0.1] = np.nan
    y = (np.nan_to_num(x[:, 0]) > 0.3).astype(int) + (k > 2) * (np.nan_to_num(x[:, 1]) > 0).astype(int)
    made = xgboost.XGBClassifier(
        n_estimators=6, max_depth=3, base_score=0.2, subsample=0.7, random_state=seed, n_jobs=1, **how
    )
    return made.fit(x, y), x[:60]


def reread(estimator: Any, suffix: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m{suffix}"
        estimator.save_model(path)
        return load_model(path)


def with_trees(model: Model, x: np.ndarray) -> Model:
    assert model.trees is not None, model.notes
    assert np.array_equal(model.trees.labels(x), model.labels(x))
    return model


def booster(k: int, suffix: str) -> dict[str, Any]:
    (made, x), (other, _) = fitted(k, 0), fitted(k, 1)
    schema, narrow = (from_arrays(part, np.arange(60) % k).schema for part in (x, x[:, :3]))
    native = reread(made, suffix)
    margins = made.predict(x, output_margin=True)
    return {
        "model": with_trees(wrap(native, schema=schema), x),
        "x": x,
        "native_predict": made.predict,
        "native_scores": made.predict_proba,
        "native_logits": (lambda x: np.stack([-margins / 2, margins / 2], 1)[: len(x)]) if k == 2 else None,
        "reopened": wrap(reread(made, ".ubj" if suffix == ".json" else ".json"), schema=schema),
        "other": wrap(reread(other, suffix), schema=schema),
        "refused": {
            "a table of another width": lambda: wrap(native, schema=narrow),
            "classes that it has not": lambda: wrap(native, schema=schema, classes=list("abcde")),
        },
        "tolerance": 1e-6,
    }


def estimator() -> dict[str, Any]:
    (made, x), (other, _) = fitted(3, 0), fitted(3, 1)
    schema, narrow = (from_arrays(part, np.arange(60) % 3).schema for part in (x, x[:, :3]))
    return {
        "model": with_trees(wrap(made, schema=schema), x),
        "x": x,
        "native_predict": made.predict,
        "native_scores": made.predict_proba,
        "reopened": wrap(made, schema=schema),
        "other": wrap(other, schema=schema),
        "refused": {"a table of another width": lambda: wrap(made, schema=narrow)},
        "tolerance": 1e-6,
    }


def cases() -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "two classes, .ubj": lambda: booster(2, ".ubj"),
        "three classes, .json": lambda: booster(3, ".json"),
        "an estimator": estimator,
    }
