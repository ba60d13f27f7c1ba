"""Trees on two features, whose cells can all be counted: no bracket contradicts what brute force finds.

The search by scores misses slivers between thresholds, and so errs towards robust, as it says; branch and bound closes
the bracket on the very distance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from tests.evasion.test_standard import Kept, lab_of, measured, values

from casemate.adapters import wrap
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.evasion.blocks import blocks_attack
from casemate.evasion.hop_skip_jump import hop_skip_jump_attack
from casemate.evasion.trees import tree_attack, tree_certificate

EPS = (0.1, 0.3)
SCALE = np.array([1.0, 2.0])
_ROUNDING = 1e-6  # thresholds in float32


def boosted(kind: str) -> Any:
    if kind == "xgboost":
        return pytest.importorskip("xgboost").XGBClassifier(n_estimators=4, max_depth=3, base_score=0.3, n_jobs=1)
    return pytest.importorskip("lightgbm").LGBMClassifier(
        n_estimators=4, max_depth=3, min_child_samples=5, n_jobs=1, verbose=-1
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "tree": lambda: DecisionTreeClassifier(max_depth=4, random_state=0),
    "forest": lambda: RandomForestClassifier(4, max_depth=3, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=4, max_depth=2, random_state=0),
    "xgboost": lambda: boosted("xgboost"),
    "lightgbm": lambda: boosted("lightgbm"),
}


def thresholds(fitted: Any) -> list[np.ndarray]:
    """The thresholds of both features, from each library's own account of its trees."""
    if hasattr(fitted, "get_booster"):
        frame = fitted.get_booster().trees_to_dataframe()
        return [frame[frame.Feature == f"f{j}"].Split.to_numpy(float) for j in range(2)]
    if hasattr(fitted, "booster_"):
        frame = fitted.booster_.trees_to_dataframe()
        return [frame[frame.split_feature == f"Column_{j}"].threshold.to_numpy(float) for j in range(2)]
    trees = [part.tree_ for part in np.ravel(getattr(fitted, "estimators_", [fitted]))]
    return [np.concatenate([tree.threshold[tree.feature == j] for tree in trees]) for j in range(2)]


def nearest(fitted: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Each sample's distance to the nearest cell of another class, `(n,)`: every cell is asked in its middle."""
    edges = [np.unique(np.concatenate([[0.0], np.clip(cuts, 0, 1), [1.0]])) for cuts in thresholds(fitted)]
    spans = [np.stack([edge[:-1], edge[1:]], axis=1) for edge in edges]
    cells = np.array([(a, b) for a in spans[0] for b in spans[1]])  # (m, 2, 2): feature, low and high
    answer = fitted.predict(cells.mean(axis=2))
    gap = np.maximum(np.maximum(cells[None, :, :, 0] - x[:, None], x[:, None] - cells[None, :, :, 1]), 0)
    far = (gap / SCALE).max(axis=2)
    return np.where(answer[None] != y[:, None], far, np.inf).min(axis=1)


def compared(kind: str, seed: int, *plugins: Plugin) -> tuple[np.ndarray, dict[str, Any], dict[float, float]]:
    """The true distances, the kept brackets in the same order, and robust accuracy by eps."""
    rng = np.random.default_rng(seed)
    x = rng.random((160, 2))
    y = ((np.sin(5 * x[:, 0]) + x[:, 1] > 1) ^ (rng.random(160) < 0.1)).astype(np.int64)
    fitted = MAKERS[kind]().fit(x, y)
    features = tuple(Feature(name, FeatureKind.NUMERIC, 0.0, 1.0, scale=s) for name, s in zip("ab", SCALE, strict=True))
    schema = Schema(DataKind.TABLE, (2,), features)
    test = rng.random((24, 2))
    own = fitted.predict(test).astype(np.int64)  # every sample is right, so that only the distance counts
    model = wrap(fitted, schema=schema, classes=("0", "1"))
    case = Case(model=model, splits=Splits(test=Data(test, schema, own), train=Data(x, schema, y)))
    kept = Kept()
    lab = lab_of(kept, plugins=plugins, norm=("linf",), eps=EPS, queries=150)
    evidence = measured(case, lab)
    found = kept.arrays()["brackets-linf"]
    order = np.argsort(case.data("test").sample_id)
    rows = order[np.searchsorted(case.data("test").sample_id, found["sample_id"], sorter=order)]
    return nearest(fitted, test, own)[rows], found, values(evidence, "robust_accuracy")


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_bracket_contradicts_brute_force_on_two_features(kind: str, seed: int) -> None:
    truth, found, robust = compared(kind, seed, blocks_attack, hop_skip_jump_attack)
    assert np.all(found["upper"] >= truth - _ROUNDING)
    for eps, value in robust.items():
        assert value >= np.mean(truth > eps + _ROUNDING)


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_branch_and_bound_finds_the_very_distance_of_brute_force(kind: str, seed: int) -> None:
    truth, found, _ = compared(kind, seed, tree_certificate, tree_attack)
    within = truth <= max(EPS)
    assert np.all(found["lower"] <= found["upper"])
    assert np.allclose(found["lower"], truth, rtol=0, atol=_ROUNDING)
    assert np.allclose(found["upper"][within], truth[within], rtol=0, atol=_ROUNDING)
