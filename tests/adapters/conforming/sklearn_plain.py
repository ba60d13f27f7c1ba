"""scikit-learn without trees: linear models with logits, a pipeline, a machine without scores, neighbours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from casemate.adapters import wrap
from casemate.adapters.data import from_arrays
from casemate.adapters.skops import load_skops, save_skops

MAKERS: dict[str, Callable[[int], Any]] = {
    "linear": lambda seed: LogisticRegression(C=1.0 + seed),
    "a pipeline": lambda seed: make_pipeline(StandardScaler(), LogisticRegression(C=1.0 + seed)),
    "no scores": lambda seed: LinearSVC(C=1.0 + seed),
    "no logits": lambda seed: GaussianNB(var_smoothing=1e-9 + 0.1 * seed),
    "a net": lambda seed: MLPClassifier((8,), random_state=seed, max_iter=3000, tol=1e-2),
}


def reread(estimator: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.skops"
        save_skops(path, estimator)
        return load_skops(path)


def case(kind: str, k: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 4))
    y = (x[:, 0] > 0.3).astype(int) + (k > 2) * (x[:, 1] > 0).astype(int)
    made, other = (MAKERS[kind](seed).fit(x, y) for seed in (0, 1))
    x = x[:60]
    schema, narrow = (from_arrays(part, np.arange(60) % k).schema for part in (x, x[:, :3]))

    def logits(rows: np.ndarray) -> np.ndarray:
        found = made.decision_function(rows)
        return np.stack([-found / 2, found / 2], axis=1) if found.ndim == 1 else found

    return {
        "model": wrap(made, schema=schema),
        "x": x,
        "native_predict": made.predict,
        "native_scores": made.predict_proba if hasattr(made, "predict_proba") else None,
        "native_logits": logits if hasattr(made, "decision_function") else None,
        "reopened": wrap(reread(made), schema=schema),
        "other": wrap(other, schema=schema),
        "refused": {"a table of another width": lambda: wrap(made, schema=narrow)},
        "tolerance": 1e-9,
    }


def cases() -> dict[str, Callable[[], dict[str, Any]]]:
    return {f"{kind}, {k} classes": partial(case, kind, k) for kind in MAKERS for k in (2, 3)}
