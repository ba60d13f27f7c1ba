"""XGBoost and LightGBM: boosters from files and the estimators around them, with missing values."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casemate.adapters import wrap
from casemate.adapters.data import from_arrays
from casemate.adapters.loading import load_model
from casemate.core.model import Model

MARGINS = {"xgboost": {"output_margin": True}, "lightgbm": {"raw_score": True}}


def xgboost(seed: int) -> Any:
    return pytest.importorskip("xgboost").XGBClassifier(
        n_estimators=6, max_depth=3, base_score=0.2, subsample=0.7, random_state=seed, n_jobs=1
    )


def lightgbm(seed: int, **how: Any) -> Any:
    return pytest.importorskip("lightgbm").LGBMClassifier(
        n_estimators=6,
        max_depth=3,
        bagging_fraction=0.7,
        bagging_freq=1,
        random_state=seed,
        n_jobs=1,
        verbose=-1,
        **how,
    )


MAKERS: dict[str, Callable[[int], Any]] = {
    "xgboost": xgboost,
    "lightgbm": lightgbm,
    "one versus all": partial(lightgbm, objective="multiclassova"),
}


def fitted(kind: str, k: int, seed: int) -> tuple[Any, np.ndarray]:
    made = MAKERS[kind](seed)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 4))
    x[rng.random(x.shape) < 0.1] = np.nan
    y = (np.nan_to_num(x[:, 0]) > 0.3).astype(int) + (k > 2) * (np.nan_to_num(x[:, 1]) > 0).astype(int)
    return made.fit(x, y), x[:60]


def reread(estimator: Any, suffix: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m{suffix}"
        (estimator if suffix != ".txt" else estimator.booster_).save_model(path)
        return load_model(path)


def with_trees(model: Model, x: np.ndarray) -> Model:
    assert model.trees is not None, model.notes
    assert np.array_equal(model.trees.labels(x), model.labels(x))
    return model


def native_answers(made: Any, kind: str, k: int) -> dict[str, Any]:
    def logits(x: np.ndarray) -> np.ndarray:
        found = made.predict(x, **MARGINS.get(kind, MARGINS["lightgbm"]))
        return np.stack([-found / 2, found / 2], 1) if k == 2 else np.asarray(found)

    def scores(x: np.ndarray) -> np.ndarray:
        found = made.predict_proba(x)
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    return {"native_predict": made.predict, "native_scores": scores, "native_logits": logits}


def booster(kind: str, k: int, suffix: str) -> dict[str, Any]:
    (made, x), (other, _) = fitted(kind, k, 0), fitted(kind, k, 1)
    schema, narrow = (from_arrays(part, np.arange(60) % k).schema for part in (x, x[:, :3]))
    native = reread(made, suffix)
    return native_answers(made, kind, k) | {
        "model": with_trees(wrap(native, schema=schema), x),
        "x": x,
        "reopened": wrap(reread(made, {".json": ".ubj", ".ubj": ".json"}.get(suffix, suffix)), schema=schema),
        "other": wrap(reread(other, suffix), schema=schema),
        "refused": {
            "a table of another width": lambda: wrap(native, schema=narrow),
            "classes that it has not": lambda: wrap(native, schema=schema, classes=list("abcde")),
        },
        "tolerance": 1e-6,
    }


def estimator(kind: str, k: int) -> dict[str, Any]:
    (made, x), (other, _) = fitted(kind, k, 0), fitted(kind, k, 1)
    schema, narrow = (from_arrays(part, np.arange(60) % k).schema for part in (x, x[:, :3]))
    return native_answers(made, kind, k) | {
        "model": with_trees(wrap(made, schema=schema), x),
        "x": x,
        "reopened": wrap(made, schema=schema),
        "other": wrap(other, schema=schema),
        "refused": {"a table of another width": lambda: wrap(made, schema=narrow)},
        "tolerance": 1e-6,
    }


def cases() -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "xgboost, two classes, .ubj": lambda: booster("xgboost", 2, ".ubj"),
        "xgboost, three classes, .json": lambda: booster("xgboost", 3, ".json"),
        "xgboost, an estimator of two": lambda: estimator("xgboost", 2),
        "xgboost, an estimator of three": lambda: estimator("xgboost", 3),
        "lightgbm, two classes": lambda: booster("lightgbm", 2, ".txt"),
        "lightgbm, one versus all": lambda: booster("one versus all", 3, ".txt"),
        "lightgbm, an estimator of two": lambda: estimator("lightgbm", 2),
        "lightgbm, an estimator of three, one versus all": lambda: estimator("one versus all", 3),
    }
