"""Estimators as models: classes, rows, closed forms, recipes and files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from casemate.adapters import wrap
from casemate.adapters.data import from_arrays
from casemate.adapters.function import softmax
from casemate.adapters.labels import sorted_classes
from casemate.adapters.sklearn import load_estimator, load_skops, save_skops, sklearn_recipe, wrap_estimator
from casemate.core.facets import Facet
from casemate.core.model import Task
from casemate.errors import ModelError

RNG = np.random.default_rng(3)
X = RNG.normal(size=(150, 4)) * [1.0, 5.0, 0.2, 1.0]
Y2 = (X[:, 0] + 0.2 * X[:, 1] > 0).astype(int)
Y3 = np.digitize(X[:, 0], [-0.5, 0.5])
FRAME = pd.DataFrame(
    {"age": RNG.integers(18, 80, 150), "pay": X[:, 1], "town": RNG.choice(["ulm", "bern", "oslo"], 150)}
)
BOUGHT = np.where((FRAME["pay"] > 0) ^ (FRAME["town"] == "bern"), "yes", "no")


def pipeline(last: Any) -> Any:
    columns = ColumnTransformer(
        [("n", StandardScaler(), ["age", "pay"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["town"])]
    )
    return make_pipeline(columns, last)


@pytest.mark.parametrize("y", [Y2, Y3], ids=["two", "three"])
@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        RidgeClassifier(),
        LinearSVC(),
        SGDClassifier(random_state=0),
        make_pipeline(StandardScaler(), PCA(3, whiten=True), LogisticRegression()),
        make_pipeline(RobustScaler(), "passthrough", MinMaxScaler(), MaxAbsScaler(), LinearSVC()),
        make_pipeline(StandardScaler(with_mean=False), StandardScaler(with_std=False), PCA(2), RidgeClassifier()),
    ],
    ids=lambda e: "-".join(type(s).__name__ for _, s in getattr(e, "steps", [("", e)])),
)
def test_the_closed_form_is_the_decision_function(estimator: Any, y: np.ndarray) -> None:
    model = wrap_estimator(estimator.fit(X, y))
    assert model.affine is not None
    decision = estimator.decision_function(X)
    logits = X @ model.affine.weights.T + model.affine.bias
    margin = logits[:, 1] - logits[:, 0] if decision.ndim == 1 else logits
    np.testing.assert_allclose(margin, decision, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(logits.argmax(1), model.labels(X))


@pytest.mark.parametrize(
    "estimator",
    [
        SVC(),
        MLPClassifier((4,), tol=1.0, n_iter_no_change=2, random_state=0),
        make_pipeline(MinMaxScaler(clip=True), LogisticRegression()),
        make_pipeline(FunctionTransformer(np.tanh), LogisticRegression()),
    ],
    ids=["svc", "mlp", "clip", "tanh"],
)
def test_what_is_not_affine_offers_no_closed_form(estimator: Any) -> None:
    assert wrap_estimator(estimator.fit(X[:, :2], Y2)).affine is None


def test_a_column_that_the_estimator_was_not_given_weighs_nothing() -> None:
    # Once a matrix product of two widths: any table with a sensitive column beside the model's own ended in a crash.
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = wrap_estimator(LogisticRegression().fit(frame[["d", "b"]], Y2), schema=from_arrays(frame, Y2).schema)
    assert model.affine is not None
    np.testing.assert_array_equal(model.affine.weights[:, [0, 2]], 0)
    assert model.logits is not None
    np.testing.assert_allclose(X @ model.affine.weights.T + model.affine.bias, model.logits(X), atol=1e-9)


def test_a_closed_form_that_its_model_contradicts_is_not_offered() -> None:
    class Rounded(LogisticRegression):
        def decision_function(self, x: Any) -> Any:
            return np.round(super().decision_function(x))

    Rounded.__name__ = "LogisticRegression"
    assert wrap_estimator(Rounded().fit(X, Y2)).affine is None


def test_softmax_of_the_two_columns_is_the_probability() -> None:
    model = wrap_estimator(LogisticRegression().fit(X, Y2))
    assert model.logits is not None
    assert model.scores is not None
    np.testing.assert_allclose(softmax(model.logits(X)), model.scores(X), atol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "facets"),
    [
        (RandomForestClassifier(3), {Facet.LABELS, Facet.SCORES, Facet.TREES}),
        (HistGradientBoostingClassifier(max_iter=2), {Facet.LABELS, Facet.SCORES, Facet.LOGITS, Facet.TREES}),
        (GradientBoostingClassifier(n_estimators=2), {Facet.LABELS, Facet.SCORES, Facet.LOGITS, Facet.TREES}),
        (DecisionTreeClassifier(), {Facet.LABELS, Facet.SCORES, Facet.TREES}),
        (SVC(decision_function_shape="ovo"), {Facet.LABELS}),
        (make_pipeline(StandardScaler(), DecisionTreeClassifier()), {Facet.LABELS, Facet.SCORES}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_estimator_offers_what_it_has(estimator: Any, facets: set[Facet]) -> None:
    assert wrap_estimator(estimator.fit(X, Y3)).offers == facets


def test_labels_follow_the_order_of_the_given_classes() -> None:
    words = np.array(["no", "yes"])[Y2]
    model = wrap_estimator(LogisticRegression().fit(X, words), classes=("yes", "no"))
    np.testing.assert_array_equal(model.labels(X), 1 - model_labels(words))
    assert model.scores is not None
    assert model.logits is not None
    assert model.affine is not None
    np.testing.assert_array_equal(model.scores(X).argmax(1), model.labels(X))
    np.testing.assert_array_equal(model.logits(X).argmax(1), model.labels(X))
    np.testing.assert_array_equal((X @ model.affine.weights.T + model.affine.bias).argmax(1), model.labels(X))


def model_labels(words: np.ndarray) -> np.ndarray:
    """Oracle: what the estimator itself says, as 0 for no and 1 for yes."""
    return (LogisticRegression().fit(X, words).predict(X) == "yes").astype(int)


def test_an_estimator_of_indices_is_matched_to_names_by_index() -> None:
    model = wrap_estimator(LogisticRegression().fit(X, Y2), classes=("<=50K", ">50K"))
    assert model.classes == ("<=50K", ">50K")
    assert "index" in model.notes["classes"]


def test_a_class_that_was_never_seen_scores_zero() -> None:
    model = wrap_estimator(LogisticRegression().fit(X, np.array(["a", "c"])[Y2]), classes=("a", "b", "c"))
    assert model.scores is not None
    assert model.logits is None
    np.testing.assert_array_equal(model.scores(X)[:, 1], 0)
    assert set(model.labels(X)) == {0, 2}


def test_classes_that_the_data_does_not_have_are_refused() -> None:
    with pytest.raises(ModelError, match="also answers c"):
        wrap_estimator(LogisticRegression().fit(X, np.array(["a", "c"])[Y2]), classes=("a", "b"))


def test_a_regressor_is_one() -> None:
    model = wrap_estimator(Ridge().fit(X, X[:, 0]))
    assert model.task is Task.REGRESSION
    assert model.offers == {Facet.LABELS}
    np.testing.assert_allclose(model.labels(X), Ridge().fit(X, X[:, 0]).predict(X))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LogisticRegression(), "fit it first"),
        (LogisticRegression, "got the class"),
        (object(), "got object"),
        (RandomForestClassifier(2).fit(X, np.stack([Y2, Y3], 1)), "one target"),
    ],
    ids=["unfitted", "class", "object", "outputs"],
)
def test_what_is_no_fitted_estimator_is_refused(estimator: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        wrap(estimator)


def test_another_number_of_features_is_refused() -> None:
    schema = from_arrays(X[:, :3]).schema
    with pytest.raises(ModelError, match="expected 4 features"):
        wrap(LogisticRegression().fit(X, Y2), schema=schema)


def test_an_object_with_predict_and_classes_needs_no_scikit_learn() -> None:
    class Own(ClassifierMixin, BaseEstimator):
        classes_ = np.array([0, 1])

        def predict(self, x: np.ndarray) -> np.ndarray:
            return (x[:, 0] > 0).astype(int)

    np.testing.assert_array_equal(wrap(Own()).labels(X), X[:, 0] > 0)


# ---------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize(
    "last", [LogisticRegression(), RandomForestClassifier(5, random_state=0)], ids=["linear", "forest"]
)
def test_rows_become_the_frame_that_the_estimator_was_fitted_on(last: Any) -> None:
    estimator = pipeline(last).fit(FRAME, BOUGHT)
    loaded = from_arrays(FRAME[["town", "pay", "age"]], BOUGHT)  # another order of columns
    model = wrap(estimator, classes=loaded.classes, schema=loaded.schema)
    np.testing.assert_array_equal(np.array(loaded.classes)[model.labels(loaded.data.x)], estimator.predict(FRAME))


def test_categories_reach_a_booster_that_reads_dtypes() -> None:
    frame = FRAME.assign(town=FRAME["town"].astype("category"))
    estimator = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(frame, BOUGHT)
    loaded = from_arrays(frame, BOUGHT)
    model = wrap(estimator, schema=loaded.schema)
    np.testing.assert_array_equal(np.array(model.classes)[model.labels(loaded.data.x)], estimator.predict(frame))


def test_numbers_that_are_declared_categories_reach_the_encoder_as_numbers() -> None:
    frame = pd.DataFrame({"zone": RNG.integers(1, 4, 150), "pay": X[:, 1]})
    columns = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), ["zone"])], remainder="passthrough")
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame, Y2)
    loaded = from_arrays(frame, Y2, overrides={"zone": {"kind": "category"}})
    model = wrap(estimator, schema=loaded.schema)
    assert model.scores is not None
    np.testing.assert_allclose(model.scores(loaded.data.x), estimator.predict_proba(frame))


def test_a_missing_category_is_missing_to_the_estimator() -> None:
    frame = FRAME.copy()
    frame.loc[::7, "town"] = None
    estimator = pipeline(LogisticRegression()).fit(FRAME, BOUGHT)
    loaded = from_arrays(frame, BOUGHT)
    model = wrap(estimator, schema=loaded.schema)
    assert model.scores is not None
    np.testing.assert_allclose(model.scores(loaded.data.x), estimator.predict_proba(frame))


def test_a_schema_without_a_fitted_column_is_refused() -> None:
    estimator = pipeline(LogisticRegression()).fit(FRAME, BOUGHT)
    with pytest.raises(ModelError, match="without town"):
        wrap(estimator, schema=from_arrays(FRAME[["age", "pay"]]).schema)


def test_images_are_flattened() -> None:
    images = RNG.random((40, 2, 2)).astype(np.float32)
    estimator = LogisticRegression().fit(images.reshape(40, -1), np.arange(40) % 2)
    loaded = from_arrays(images, np.arange(40) % 2)
    model = wrap(estimator, schema=loaded.schema)
    np.testing.assert_array_equal(model.labels(loaded.data.x), estimator.predict(images.reshape(40, -1)))
    assert model.affine is not None


def test_no_rows_give_no_answers() -> None:
    model = wrap(LogisticRegression().fit(X, Y3))
    assert model.scores is not None
    assert model.labels(X[:0]).shape == (0,)
    assert model.scores(X[:0]).shape == (0, 3)


def test_parallel_jobs_are_switched_off_for_the_answers_only() -> None:
    estimator = RandomForestClassifier(4, n_jobs=2, random_state=0).fit(X, Y2)
    model = wrap(estimator)
    assert estimator.n_jobs == 2
    assert "n_jobs" in model.notes
    np.testing.assert_array_equal(model.labels(X), estimator.predict(X))


def test_a_model_travels_to_another_process() -> None:
    loaded = from_arrays(FRAME, BOUGHT)
    model = wrap(pipeline(LogisticRegression()).fit(FRAME, BOUGHT), schema=loaded.schema)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.labels(loaded.data.x), model.labels(loaded.data.x))


# -------------------------------------------------------------------------------------------------------------- recipe


def test_the_recipe_clones_and_fits() -> None:
    loaded = from_arrays(FRAME, BOUGHT)
    estimator = pipeline(LogisticRegression(C=0.5)).fit(FRAME, BOUGHT)
    recipe = sklearn_recipe(estimator, loaded.schema, classes=loaded.classes)
    model = recipe.fit(loaded.data, {}, np.random.default_rng(0))
    np.testing.assert_allclose(model.estimator.predict_proba(FRAME), estimator.predict_proba(FRAME), atol=1e-9)
    assert recipe.settings == {"C": 0.5}
    assert model.classes == loaded.classes


def test_the_recipe_is_repeatable_and_draws_its_seed() -> None:
    data = from_arrays(X, Y2).data
    recipe = sklearn_recipe(RandomForestClassifier(3).fit(X, Y2), data.schema)
    digests = [recipe.fit(data, {}, np.random.default_rng(seed)).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_knobs_are_ordered_from_the_weakest_regularisation() -> None:
    data = from_arrays(X, Y2).data
    linear = sklearn_recipe(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y2), data.schema)
    norms = [
        np.abs(linear.fit(data, {"C": c}, np.random.default_rng(0)).estimator[-1].coef_).sum()
        for c in linear.knobs["C"]
    ]
    assert norms == sorted(norms, reverse=True)
    tree = sklearn_recipe(DecisionTreeClassifier().fit(X, Y2), data.schema)
    for knob in ("max_depth", "min_samples_leaf", "ccp_alpha"):
        rng = np.random.default_rng(0)
        leaves = [tree.fit(data, {knob: value}, rng).estimator.get_n_leaves() for value in tree.knobs[knob]]
        assert leaves[0] == max(leaves)
        assert leaves[-1] == min(leaves)


def test_a_recipe_names_unknown_settings_and_failed_fits() -> None:
    data = from_arrays(X, Y2).data
    recipe = sklearn_recipe(LogisticRegression().fit(X, Y2), data.schema)
    with pytest.raises(ModelError, match=r"\(C\), got 'depth'"):
        recipe.fit(data, {"depth": 3}, np.random.default_rng(0))
    with pytest.raises(ModelError, match="at least 2 classes"):
        recipe.fit(data.take(np.flatnonzero(Y2 == 1)), {}, np.random.default_rng(0))


def test_a_fit_that_saw_fewer_classes_keeps_their_indices() -> None:
    data = from_arrays(X, Y3, classes=("low", "mid", "high")).data
    estimator = DecisionTreeClassifier().fit(X, Y3)  # fitted on indices
    recipe = sklearn_recipe(estimator, data.schema, classes=("low", "mid", "high"))
    part = data.take(np.flatnonzero(Y3 != 1))
    model = recipe.fit(part, {}, np.random.default_rng(0))
    np.testing.assert_array_equal(model.labels(part.x), part.labels)
    assert model.classes == ("low", "mid", "high")


def test_a_column_selector_finds_the_same_columns_again() -> None:
    text = make_column_selector(dtype_include=["object", "string", "str"])
    columns = ColumnTransformer([("c", OneHotEncoder(), text)], remainder="passthrough")
    estimator = make_pipeline(columns, RandomForestClassifier(3, random_state=0)).fit(FRAME, BOUGHT)
    loaded = from_arrays(FRAME, BOUGHT)
    recipe = sklearn_recipe(estimator, loaded.schema)
    model = recipe.fit(loaded.data, {}, np.random.default_rng(0))
    assert model.estimator[0].transformers_[0][2] == ["town"]


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomForestClassifier(3, random_state=0).fit(FRAME[["age", "pay"]], BOUGHT),
        lambda: HistGradientBoostingClassifier(max_iter=3).fit(
            FRAME.assign(town=FRAME["town"].astype("category")), BOUGHT
        ),
        lambda: GradientBoostingClassifier(n_estimators=2, random_state=0).fit(X, Y2),
        lambda: pipeline(LogisticRegression()).fit(FRAME, BOUGHT),
        lambda: MLPClassifier((3,), tol=1.0, n_iter_no_change=2, random_state=0).fit(X[:, :2], Y2),
        lambda: SVC().fit(X, Y2),
    ],
    ids=["forest", "histogram", "boosting", "pipeline", "mlp", "svc"],
)
def test_a_plain_estimator_comes_back_from_skops_the_same(make: Any, tmp_path: Path) -> None:
    estimator = make()
    save_skops(tmp_path / "m.skops", estimator)
    again = load_skops(tmp_path / "m.skops")
    assert wrap(again).digest == wrap(estimator).digest


class Danger(BaseEstimator):
    def __init__(self, inner: Any = None) -> None:
        self.inner = inner

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x


def test_an_unknown_type_is_refused_by_name_until_it_is_trusted(tmp_path: Path) -> None:
    save_skops(tmp_path / "m.skops", Danger())
    name = f"{Danger.__module__}.Danger"
    with pytest.raises(ModelError, match=r"\[model\] trusted = \[.*Danger"):
        load_skops(tmp_path / "m.skops")
    assert type(load_skops(tmp_path / "m.skops", trusted=[name])).__name__ == "Danger"


def test_a_pickle_that_runs_code_is_not_opened_without_trust(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Runs()))
    with pytest.raises(ModelError, match="--trust"):
        load_estimator(tmp_path / "m.pkl")
    assert not marker.exists()
    with pytest.raises(ModelError, match="expected an estimator"):
        load_estimator(tmp_path / "m.pkl", trust=True)
    assert marker.exists()


def test_a_trusted_pickle_loads(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(X, Y2)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Danger(estimator)))
    with pytest.raises(ModelError, match=r"suspicious .*Danger.*--trust"):
        load_estimator(tmp_path / "m.pkl")
    loaded = load_estimator(tmp_path / "m.pkl", trust=True)
    assert isinstance(loaded, Danger)
    assert wrap(loaded.inner).digest == wrap(estimator).digest


@pytest.mark.parametrize(("name", "content"), [("m.skops", b"no zip"), ("m.onnx", b""), ("absent.skops", None)])
def test_a_file_that_is_no_estimator_is_one_clear_error(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="expected a"):
        load_estimator(tmp_path / name)


@pytest.mark.parametrize("field", ["left_child", "right_child", "feature"])
def test_a_tree_whose_links_leave_it_is_refused(field: str, tmp_path: Path) -> None:
    estimator = DecisionTreeClassifier(max_depth=2, random_state=0).fit(X, Y3)
    state = estimator.tree_.__getstate__()
    state["nodes"][field][0] = 10_000_000
    estimator.tree_.__setstate__(state)
    save_skops(tmp_path / "m.skops", make_pipeline(StandardScaler().fit(X), estimator))
    with pytest.raises(ModelError, match="sound trees"):
        load_skops(tmp_path / "m.skops")


@pytest.mark.parametrize(("field", "value"), [("left", 0), ("right", 9_999_999), ("feature_idx", 99)])
def test_a_histogram_tree_whose_links_leave_it_is_refused(field: str, value: int, tmp_path: Path) -> None:
    estimator = HistGradientBoostingClassifier(max_iter=2, max_depth=2).fit(X, Y2)
    estimator._predictors[1][0].nodes[field][0] = value
    save_skops(tmp_path / "m.skops", estimator)
    with pytest.raises(ModelError, match="sound trees"):
        load_skops(tmp_path / "m.skops")


@pytest.mark.parametrize("kind", ["tree", "forest", "boosting", "histograms"])
def test_a_tree_that_looks_beyond_the_samples_is_refused(kind: str, tmp_path: Path) -> None:
    """scikit-learn holds samples to `n_features_in_` alone, and compiled code reads the rest from foreign memory."""
    x = np.random.default_rng(0).normal(size=(80, 9))
    made = {
        "tree": DecisionTreeClassifier(),
        "forest": RandomForestClassifier(2),
        "boosting": GradientBoostingClassifier(n_estimators=2),
        "histograms": HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=2),
    }[kind].fit(x, x[:, 8] > 0)
    save_skops(tmp_path / "m.skops", made)
    assert load_skops(tmp_path / "m.skops").n_features_in_ == 9
    for part in (made, *(made.estimators_ if kind == "forest" else ())):
        part.n_features_in_ = 3
    save_skops(tmp_path / "m.skops", made)
    with pytest.raises(ModelError, match="sound trees"):
        load_skops(tmp_path / "m.skops")


def test_names_of_classes_have_one_order_in_every_process() -> None:
    """A set of names has another order under each hash seed, which equal numbers and NaN let through."""
    assert sorted_classes(["1", "01", "1e0"]) == ("01", "1", "1e0")
    assert sorted_classes(["2", "nan", "10"]) == ("10", "2", "nan")
