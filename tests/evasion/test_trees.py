from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from tests.evasion.makers import attacked, digits, table_schema
from tests.evasion.test_standard import Kept, lab_of, measured

from casemate.adapters import wrap
from casemate.core.bracket import Goal
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind, Facet
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.core.trees import Trees, float32_threshold
from casemate.engine.harness import batch_of
from casemate.errors import BudgetExhausted, ConfigError, ModelError
from casemate.evasion.blocks import blocks_attack
from casemate.evasion.hop_skip_jump import hop_skip_jump_attack
from casemate.evasion.trees import TreeOptions, tree_attack, tree_certificate

FREE = Goal(Norm.LINF, float("inf"))
Goes = Callable[[float, float], bool]


def xgb(**how: Any) -> Any:
    made = pytest.importorskip("xgboost").XGBClassifier
    return made(**{"n_estimators": 4, "max_depth": 3, "base_score": 0.3, "n_jobs": 1} | how)


def lgb(**how: Any) -> Any:
    made = pytest.importorskip("lightgbm").LGBMClassifier
    return made(n_estimators=4, max_depth=3, min_child_samples=5, n_jobs=1, verbose=-1, **how)


MAKERS: dict[str, Callable[[], Any]] = {
    "tree": lambda: DecisionTreeClassifier(max_depth=5, random_state=0),
    "forest": lambda: RandomForestClassifier(4, max_depth=3, random_state=0),
    "whole forest": lambda: RandomForestClassifier(4, random_state=0, max_features=None),  # votes tie all the time
    "extra trees": lambda: ExtraTreesClassifier(4, max_depth=3, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=3, max_depth=2, random_state=0),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=6, min_samples_leaf=5),
    "xgboost": xgb,
    "lightgbm": lgb,
}


def splits_of(fitted: Any) -> tuple[list[np.ndarray], Goes]:
    """Each library's own thresholds by feature, and its own rule for going left."""
    if hasattr(fitted, "get_booster"):
        frame = fitted.get_booster().trees_to_dataframe()
        return [frame[frame.Feature == f"f{j}"].Split.to_numpy(float) for j in range(2)], (
            lambda v, t: bool(np.float32(v) < np.float32(t))
        )
    if hasattr(fitted, "booster_"):
        frame = fitted.booster_.trees_to_dataframe()
        return [frame[frame.split_feature == f"Column_{j}"].threshold.to_numpy(float) for j in range(2)], (
            lambda v, t: bool(np.float64(v) <= t)
        )
    if hasattr(fitted, "_predictors"):
        nodes = np.concatenate([part.nodes for stage in fitted._predictors for part in stage])
        inner = nodes[nodes["is_leaf"] == 0]
        return [inner["num_threshold"][inner["feature_idx"] == j] for j in range(2)], (
            lambda v, t: bool(np.float64(v) <= t)
        )
    trees = [part.tree_ for part in np.ravel(getattr(fitted, "estimators_", [fitted]))]
    return [np.concatenate([tree.threshold[tree.feature == j] for tree in trees]) for j in range(2)], (
        lambda v, t: bool(np.float32(v) <= t)
    )


def last_left(goes_left: Goes, t: float, dtype: type) -> np.floating[Any]:
    """The largest value of a dtype that goes left, by bisection over all values of it between -1 and 2."""
    low, high = -1.0, 2.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if goes_left(float(dtype(middle)), t) else (low, middle)
    value = dtype(low)
    for _ in range(4):
        value = np.nextafter(value, dtype(2))
    while not goes_left(float(value), t):
        value = np.nextafter(value, dtype(-1))
    return value


def brute_force(fitted: Any, x: np.ndarray, y: np.ndarray, schema: Schema) -> np.ndarray:
    """The least distance to a wrong answer, over one sample for each cell: the nearest of it that the dtype has."""
    thresholds, goes_left = splits_of(fitted)
    dtype = x.dtype.type
    edges = []
    for cuts, feature in zip(thresholds, schema.features, strict=True):
        left = [last_left(goes_left, t, dtype) for t in np.unique(cuts)]
        values = np.array([*left, *(np.nextafter(v, dtype(2)) for v in left)], dtype=dtype)
        if feature.kind is FeatureKind.INTEGER:
            values = np.arange(int(feature.lo), int(feature.hi) + 1).astype(dtype)
        edges.append(values[(values >= feature.lo) & (values <= feature.hi)])
    truth = np.full(len(x), np.inf)
    for row in range(len(x)):
        own = [np.append(edge, x[row, j]) for j, edge in enumerate(edges)]
        grid = np.stack(np.meshgrid(*own, indexing="ij"), axis=-1).reshape(-1, 2)
        far = np.abs(grid.astype(float) - x[row].astype(float)) / [feature.scale for feature in schema.features]
        wrong = fitted.predict(grid) != y[row]
        truth[row] = far.max(axis=1)[wrong].min(initial=np.inf)
    return truth


def two_features(kind: str, seed: int, dtype: type, *, k: int, whole: bool) -> tuple[Case, Any]:
    rng = np.random.default_rng(seed)
    x, top = rng.random((80, 2)), 1.0
    if whole:
        x[:, 1], top = rng.integers(0, 7, 80), 6.0
    z = np.sin(5 * x[:, 0]) + x[:, 1] / top + 0.3 * rng.normal(size=80)
    y = np.searchsorted(np.quantile(z, np.arange(1, k) / k), z)
    fitted = MAKERS[kind]().fit(x, y)
    features = (
        Feature("a", lo=0.0, hi=1.0),
        Feature("b", FeatureKind.INTEGER if whole else FeatureKind.NUMERIC, 0.0, top, scale=2.0),
    )
    schema = Schema(DataKind.TABLE, (2,), features)
    test = rng.random((6, 2))
    if whole:
        test[:, 1] = rng.integers(0, 7, 6)
    test = np.concatenate([test, x[:2]]).astype(dtype)
    model = wrap(fitted, schema=schema, classes=tuple(map(str, range(k))))
    assert model.trees is not None, model.notes
    return Case(model=model, splits=Splits(test=Data(test, schema, fitted.predict(test).astype(np.int64)))), fitted


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([np.float32, np.float64]), k=st.sampled_from([2, 3]))
def test_certificate_and_attack_equal_brute_force_over_all_cells_of_two_features(
    kind: str, seed: int, dtype: type, k: int
) -> None:
    for whole in (False, True):
        case, fitted = two_features(kind, seed, dtype, k=k, whole=whole)
        data = case.data("test")
        truth = brute_force(fitted, data.x, data.labels, data.schema)
        lower, _ = attacked(tree_certificate, case, FREE)
        upper, _ = attacked(tree_attack, case, FREE)
        assert np.array_equal(lower.lower, truth)
        assert np.array_equal(upper.upper, truth)
        held, _ = attacked(tree_attack, case, replace(FREE, eps=0.1))
        assert np.array_equal(np.isfinite(held.upper), truth <= 0.1)


@given(
    seed=st.integers(0, 10**6), kind=st.sampled_from(["forest", "xgboost", "lightgbm"]), work=st.integers(1, 100_000)
)
@settings(max_examples=10)
def test_a_search_that_ends_early_has_the_truth_between_its_bounds(seed: int, kind: str, work: int) -> None:
    case, fitted = two_features(kind, seed, np.float64, k=3, whole=False)
    data = case.data("test")
    truth = brute_force(fitted, data.x, data.labels, data.schema)
    lower, _ = attacked(tree_certificate, case, FREE, options=TreeOptions(work=work))
    upper, _ = attacked(tree_attack, case, FREE, options=TreeOptions(work=work))
    assert np.all(lower.lower <= truth)
    assert np.all(upper.upper >= truth)


def digits_case(estimator: Any, n: int = 24, **changes: Any) -> Case:
    x, y = digits()
    schema = table_schema(64, **changes)
    model = wrap(estimator.fit(x[300:900], y[300:900]), schema=schema)
    assert model.trees is not None, model.notes
    return Case(model=model, splits=Splits(test=Data(x[:n], schema, y[:n])))


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomForestClassifier(8, max_depth=5, random_state=0),
        lambda: xgb(subsample=0.8),
        lambda: lgb(num_leaves=8),
    ],
    ids=["forest", "xgboost", "lightgbm"],
)
def test_brackets_of_the_standard_probe_close_and_no_other_attack_contradicts_them(make: Callable[[], Any]) -> None:
    case, kept = digits_case(make()), Kept()
    plugins = (tree_attack, tree_certificate, blocks_attack, hop_skip_jump_attack)
    measured(case, lab_of(kept, plugins=plugins, norm=("linf", "l2"), eps=(0.05, 0.2), queries=60))
    linf, l2 = (kept.arrays()[f"brackets-{norm}"] for norm in ("linf", "l2"))
    near = (linf["upper"] > 0) & (linf["lower"] <= 0.2)
    assert near.sum() > 10
    assert np.array_equal(linf["lower"][near], linf["upper"][near])
    assert np.all(l2["lower"] <= l2["upper"])
    assert np.any(l2["lower"] > 0)
    # Found from outside: attacks that know nothing of the trees, from many sides, never beat the certificate.
    goal = replace(FREE, eps=0.3)
    lower, _ = attacked(tree_certificate, case, FREE)
    upper, _ = attacked(blocks_attack, case, goal)
    right = np.flatnonzero(upper.upper > 0)
    assert np.all(lower.lower[right] <= upper.upper[right])


def test_only_what_may_change_changes() -> None:
    case = digits_case(RandomForestClassifier(8, max_depth=5, random_state=0))
    fixed = tuple(replace(f, immutable=i < 40) for i, f in enumerate(table_schema(64).features))
    schema = Schema(DataKind.TABLE, (64,), fixed)
    data = case.data("test")
    tied = replace(case, splits=Splits(test=Data(data.x, schema, data.labels)))
    (free, _), (held, _) = (attacked(tree_attack, one, FREE) for one in (case, tied))
    assert np.array_equal(held.witness[:, :40], data.x[:, :40])
    assert np.all(held.upper >= free.upper)
    assert np.any(held.upper > free.upper)


def test_a_missing_value_stays_missing_and_goes_where_the_library_sends_it() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((200, 3))
    y = (x[:, 0] + x[:, 1] > 1).astype(np.int64)
    x[rng.random(x.shape) < 0.3] = np.nan
    features = tuple(Feature(name, lo=0.0, hi=1.0, missing_ok=True) for name in "abc")
    schema = Schema(DataKind.TABLE, (3,), features)
    for made in (xgb(), lgb(), HistGradientBoostingClassifier(max_iter=4), RandomForestClassifier(5, max_depth=4)):
        model = wrap(made.fit(x, y), schema=schema)
        assert model.trees is not None, model.notes
        assert np.array_equal(model.trees.labels(x), made.predict(x))
        case = Case(model=model, splits=Splits(test=Data(x[:40], schema, made.predict(x[:40]))))
        (upper, _), (lower, _) = (attacked(plugin, case, FREE) for plugin in (tree_attack, tree_certificate))
        assert np.array_equal(np.isnan(upper.witness), np.isnan(x[:40]))
        assert np.array_equal(lower.lower, upper.upper)


def test_a_target_is_reached_and_its_certificate_is_that_of_no_other_class() -> None:
    case = digits_case(RandomForestClassifier(8, max_depth=5, random_state=0), n=16)
    data, model = case.data("test"), case.the_model()
    case = replace(case, splits=Splits(test=replace(data, y=model.labels(data.x))))
    goal = replace(FREE, target=3)
    (upper, _), (lower, _), (free, _) = (
        attacked(plugin, case, aim)
        for plugin, aim in ((tree_attack, goal), (tree_certificate, goal), (tree_certificate, FREE))
    )
    moved = np.flatnonzero(np.isfinite(upper.upper) & (upper.upper > 0))
    assert len(moved) > 8
    assert np.all(model.labels(upper.witness[moved]) == 3)
    assert np.all(lower.lower[moved] <= upper.upper[moved])
    assert np.all(lower.lower[moved] >= free.lower[moved])


def test_where_a_budget_ends_what_is_proven_by_then_is_claimed() -> None:
    case = digits_case(RandomForestClassifier(8, max_depth=5, random_state=0))
    data = case.data("test")
    whole, _ = attacked(tree_certificate, case, FREE)
    spent = 0
    for limit in (1, 1500):
        part, lab = attacked(tree_certificate, case, FREE, limit=limit)
        spent = lab.meter.spent.forwards
        assert np.all(part.lower <= whole.lower)
    assert np.any(part.lower > 0)
    assert spent > 1000
    lab = Lab(tree_certificate.id, 0, options=TreeOptions(), meter=Meter(limit=1))
    claims = tree_certificate(case, batch_of(data.x, data.labels, data.sample_id), FREE, lab)
    next(claims)
    with pytest.raises(BudgetExhausted):
        next(claims)


def test_a_model_of_constant_trees_cannot_be_fooled() -> None:
    x, y = digits()
    model = wrap(DecisionTreeClassifier(max_depth=1, min_impurity_decrease=1.0).fit(x, y), schema=table_schema(64))
    assert model.trees is not None
    labels = model.labels(x[:4])
    case = Case(model=model, splits=Splits(test=Data(x[:4], table_schema(64), labels)))
    lower, _ = attacked(tree_certificate, case, FREE)
    assert np.all(np.isinf(lower.lower))


def test_trees_behind_a_scaler_are_not_offered_and_the_report_says_why() -> None:
    x, y = digits()
    model = wrap(make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=3)).fit(x, y))
    assert Facet.TREES not in model.offers
    assert "steps in front" in model.notes["trees"]


class Biased(RandomForestClassifier):
    """A forest that does not answer as its trees do."""

    def predict_proba(self, x: Any) -> Any:
        return 0.9 * super().predict_proba(x) + 0.1 * np.eye(10)[0]


def test_trees_that_do_not_answer_as_the_model_does_are_not_offered() -> None:
    x, y = digits()
    model = wrap(Biased(3, max_depth=4, random_state=0).fit(x, y), schema=table_schema(64))
    assert model.trees is None
    assert "expected the sums of the library" in model.notes["trees"]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: lgb(zero_as_missing=True), "zeros that are missing"),
        (lambda: lgb(linear_tree=True), "splits of numbers"),
        (lambda: xgb(booster="gblinear", max_depth=None), "expected trees, got a booster gblinear"),
        (lambda: xgb(multi_strategy="multi_output_tree"), "one number a leaf"),
        (lambda: GradientBoostingClassifier(n_estimators=2, init=DecisionTreeClassifier(max_depth=1)), "a constant"),
    ],
    ids=["zeros", "linear leaves", "no trees", "vectors", "an estimator first"],
)
def test_what_is_more_than_a_sum_of_leaves_is_not_offered(make: Callable[[], Any], why: str) -> None:
    x, y = digits()
    model = wrap(make().fit(x[:300], y[:300]), schema=table_schema(64))
    assert model.trees is None
    assert why in model.notes["trees"]


@given(
    t=st.floats(width=32, allow_nan=False, allow_infinity=False),
    wide=st.floats(-1e30, 1e30),
    step=st.integers(-3, 3),
)
@settings(max_examples=300)
def test_a_float32_comparison_is_a_float64_comparison_with_another_threshold(t: float, wide: float, step: int) -> None:
    for asked, strict in ((t, True), (t, False), (wide, False)):
        threshold = float(float32_threshold(asked, strict=strict))
        x = np.float64(threshold)
        for _ in range(abs(step)):
            x = np.nextafter(x, np.copysign(np.inf, step))
        with np.errstate(over="ignore"):
            single = float(np.float32(x))
        assert (x <= threshold) == (single < asked if strict else single <= asked)


def stump(**changes: Any) -> Trees:
    parts: dict[str, Any] = {
        "feature": np.array([0, -1, -1]),
        "threshold": np.array([0.5, 0, 0]),
        "left": np.array([1, -1, -1]),
        "right": np.array([2, -1, -1]),
        "missing_left": np.array([True, False, False]),
        "value": np.array([[0.0], [-1.0], [1.0]]),
        "roots": np.array([0]),
        "column": np.array([1]),
        "base": np.zeros(2),
        "slack": 0.0,
    }
    return Trees(**{**parts, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"right": np.array([0, -1, -1])},
        {"right": np.array([1, -1, -1])},
        {"right": np.array([7, -1, -1])},
        {"right": np.array([-3, -1, -1])},
        {
            "feature": np.array([-1, 0, -1]),
            "left": np.array([-1, 1, -1]),
            "right": np.array([-1, 2, -1]),
        },
        {"column": np.array([2])},
        {"value": np.zeros((3, 4))},
        {"value": np.full((3, 1), np.nan)},
        {"threshold": np.full(3, np.nan)},
    ],
    ids=[
        "a cycle",
        "two parents",
        "nowhere",
        "below nothing",
        "a circle beside",
        "a class too many",
        "too wide",
        "no number",
        "no threshold",
    ],
)
def test_arrays_that_are_no_trees_are_refused(changes: dict[str, Any]) -> None:
    assert np.array_equal(stump().labels(np.array([[0.5], [0.6], [np.nan]])), [0, 1, 0])
    with pytest.raises(ModelError, match="mend the arrays"):
        stump(**changes)


def test_trees_and_options_that_do_not_fit_are_refused() -> None:
    model = Model("stump", "stump", labels=stump().labels, trees=stump(feature=np.array([5, -1, -1])))
    case = Case(model=model, splits=Splits(test=Data(np.zeros((2, 1)), table_schema(1), np.zeros(2, dtype=np.int64))))
    with pytest.raises(ModelError, match="expected trees for samples of 1 features"):
        attacked(tree_certificate, case, FREE)
    with pytest.raises(ModelError, match="at least 6 features for these trees, got 1"):
        stump(feature=np.array([5, -1, -1])).labels(np.zeros((2, 1)))
    good = replace(case, model=replace(model, trees=stump()))
    with pytest.raises(ConfigError, match="work >= 1"):
        attacked(tree_certificate, good, FREE, options=TreeOptions(work=0))
