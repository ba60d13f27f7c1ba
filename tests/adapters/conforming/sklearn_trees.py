"""scikit-learn's own trees, forests and boosting: with missing values, on named columns, as labels of any name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier

from casemate.adapters import wrap
from casemate.adapters.data import from_arrays
from casemate.adapters.skops import load_skops, save_skops

MAKERS: dict[str, Callable[[int], Any]] = {
    "tree": lambda seed: DecisionTreeClassifier(max_depth=4 + seed, random_state=seed),
    "forest": lambda seed: RandomForestClassifier(6, max_depth=5, random_state=seed),
    "extra trees": lambda seed: ExtraTreesClassifier(6, max_depth=5, random_state=seed),
    "boosting": lambda seed: GradientBoostingClassifier(n_estimators=4, random_state=seed, subsample=0.8),
    "histograms": lambda seed: HistGradientBoostingClassifier(max_iter=4 + seed, min_samples_leaf=5),
}


def fitted(kind: str, k: int, seed: int) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 4))
    if kind in ("forest", "histograms"):
        x[rng.random(x.shape) < 0.1] = np.nan
    y = (np.nan_to_num(x[:, 0]) > 0.3).astype(int) + (k > 2) * (np.nan_to_num(x[:, 1]) > 0).astype(int)
    return MAKERS[kind](seed).fit(x, y), x[:60]


def reread(estimator: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.skops"
        save_skops(path, estimator)
        return load_skops(path)


def case(kind: str, k: int) -> dict[str, Any]:
    (made, x), (other, _) = fitted(kind, k, 0), fitted(kind, k, 1)
    schema, narrow = (from_arrays(part, np.arange(60) % k).schema for part in (x, x[:, :3]))
    model = wrap(made, schema=schema)
    assert model.trees is not None, model.notes
    assert np.array_equal(model.trees.labels(x), made.predict(x))
    return {
        "model": model,
        "x": x,
        "native_predict": made.predict,
        "native_scores": made.predict_proba,
        "reopened": wrap(reread(made), schema=schema),
        "other": wrap(other, schema=schema),
        "refused": {
            "a table of another width": lambda: wrap(made, schema=narrow),
            "classes that it has not": lambda: wrap(made, schema=schema, classes=list("abcde")),
        },
        "tolerance": 1e-12,
    }


def cases() -> dict[str, Callable[[], dict[str, Any]]]:
    return {f"{kind}, {k} classes": partial(case, kind, k) for kind in MAKERS for k in (2, 3)}
