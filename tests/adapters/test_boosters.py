from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casemate.adapters import lightgbm as lightgbm_files
from casemate.adapters import wrap
from casemate.adapters import xgboost as xgboost_files
from casemate.adapters.data import from_arrays
from casemate.adapters.loading import load_model
from casemate.errors import ModelError

xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
Y = (X[:, 0] > 0).astype(int)


def saved(kind: str, folder: Path, y: np.ndarray = Y, **how: Any) -> Path:
    if kind == "lightgbm":
        params = {"objective": "binary", "verbosity": -1, "num_threads": 1} | how
        lightgbm.train(params, lightgbm.Dataset(X, y), 3).save_model(folder / "m.txt")
        return folder / "m.txt"
    xgboost.train({"objective": "binary:logistic", "nthread": 1} | how, xgboost.DMatrix(X, y), 3).save_model(
        folder / f"m{kind}"
    )
    return folder / f"m{kind}"


@pytest.mark.parametrize("kind", [".ubj", ".json", "lightgbm"])
@pytest.mark.parametrize("harm", ["cut", "noise", "empty"])
def test_a_damaged_booster_is_refused_and_ends_no_process(tmp_path: Path, kind: str, harm: str) -> None:
    path = saved(kind, tmp_path)
    data = path.read_bytes()
    noise = b"root" if kind == "lightgbm" else bytes(range(200, 208))
    ends = data.find(b"end of trees") if kind == "lightgbm" else len(data)  # what follows is no part of the trees
    path.write_bytes({"cut": data[: ends // 2], "noise": noise + data[len(noise) :], "empty": b""}[harm])
    with pytest.raises(ModelError, match=r"expected a booster of .* in m\..*: save it with Booster.save_model"):
        load_model(path)


def test_a_booster_that_the_command_line_of_lightgbm_wrote_is_read(tmp_path: Path) -> None:
    """It says nothing of a data frame."""
    path = saved("lightgbm", tmp_path)
    before = wrap(load_model(path))
    path.write_text(path.read_text().partition("\npandas_categorical:")[0] + "\n")
    after = wrap(load_model(path))
    assert after.digest == before.digest
    assert np.array_equal(after.labels(X), before.labels(X))


def test_the_reader_of_a_file_imports_nothing_from_the_folder_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(".ubj", tmp_path)
    (tmp_path / "xgboost.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    load_model(path)
    assert not (tmp_path / "ran").exists()


def test_wrapping_a_booster_changes_nothing_of_it() -> None:
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 2}, xgboost.DMatrix(X, Y), 3)
    before = booster.save_config()
    wrap(booster).labels(X)
    assert booster.save_config() == before


def test_columns_are_found_by_name_whatever_their_order(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    names = ["a", "b", "c"]
    booster = xgboost.train(
        {"objective": "binary:logistic"}, xgboost.DMatrix(X, Y, feature_names=names), num_boost_round=3
    )
    frame = pandas.DataFrame(X, columns=names)[["c", "a", "b"]]
    loaded = from_arrays(frame, Y)
    expected = booster.predict(xgboost.DMatrix(X, feature_names=names)) > 0.5
    model = wrap(booster, schema=loaded.schema)
    assert np.array_equal(model.labels(loaded.data.x), expected)
    assert model.trees is not None
    assert np.array_equal(model.trees.labels(loaded.data.x), expected)
    short = from_arrays(frame[["c", "a"]], Y).schema
    with pytest.raises(ModelError, match="got data without b"):
        wrap(booster, schema=short)


@pytest.mark.parametrize(("kind", "objective"), [(".ubj", "reg:squarederror"), ("lightgbm", "regression")])
def test_what_is_no_classifier_is_refused_by_its_objective(kind: str, objective: str, tmp_path: Path) -> None:
    native = load_model(saved(kind, tmp_path, objective=objective))
    with pytest.raises(ModelError, match=f"got a booster for {objective}"):
        wrap(native)


def test_a_json_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"a": 1}')
    with pytest.raises(ModelError, match="got no learner in it"):
        load_model(tmp_path / "m.json")


def test_early_stopping_of_xgboosts_estimator_survives_its_file(tmp_path: Path) -> None:
    noise = RNG.integers(0, 2, 120)
    made = xgboost.XGBClassifier(n_estimators=30, early_stopping_rounds=2, n_jobs=1)
    made.fit(X[:60], noise[:60], eval_set=[(X[60:], noise[60:])], verbose=False)
    assert made.best_iteration < made.get_booster().num_boosted_rounds() - 1
    made.save_model(tmp_path / "m.ubj")
    model = wrap(load_model(tmp_path / "m.ubj"))
    assert np.allclose(model.ask("scores", X), made.predict_proba(X), atol=1e-6)
    assert "the best" in model.notes["rounds"]
    assert model.trees is not None
    assert len(model.trees.roots) == made.best_iteration + 1


def altered(path: Path, change: Any) -> Path:
    """The file with other contents; LightGBM's header follows, so that only the change itself is wrong."""
    if path.suffix == ".json":
        told = json.loads(path.read_text())
        change(told["learner"])
        path.write_text(json.dumps(told))
        return path
    text = change(path.read_text())
    blocks = text.partition("\nend of trees")[0].split("\nTree=")[1:]
    sizes = " ".join(str(len(f"Tree={block}\n".encode())) for block in blocks)
    path.write_text(re.sub("tree_sizes=.*", f"tree_sizes={sizes}", text))
    return path


def split_past_the_end(learner: Any) -> None:
    learner["gradient_booster"]["model"]["trees"][1]["split_indices"][0] = 3


def tree_of_no_class(learner: Any) -> None:
    learner["gradient_booster"]["model"]["tree_info"] = [7, 7, 7]


HARMS: dict[str, tuple[str, Any, str]] = {
    "a feature": (".json", split_past_the_end, "feature that is none of 3|its reader crashes"),
    "a class": (".json", tree_of_no_class, "class that is none of 1|its reader crashes"),
    "one feature": ("lightgbm", lambda t: re.sub(r"(split_feature=)\d+", r"\g<1>3", t), "feature that is none of 3"),
    "a circle": ("lightgbm", lambda t: re.sub(r"(right_child=)-?\d+", r"\g<1>0", t), "a child that is no node of it"),
    "a leaf": ("lightgbm", lambda t: re.sub(r"(leaf_value=)\S+", r"\g<1>nan", t), "leaves or thresholds that are no"),
    "twice": ("lightgbm", lambda t: t.replace("num_cat=0", "num_cat=0\nnum_cat=0"), "a key that is told twice"),
    "signs": (
        "lightgbm",
        lambda t: re.sub(r"(left_child=-?)(\d)", r"\g<1>0_\2", t),
        "other signs than those of numbers",
    ),
    "sets": ("lightgbm", lambda t: re.sub(r"(decision_type=)\d+", r"\g<1>1", t), "categories that are not there"),
    "room": (
        "lightgbm",
        lambda t: re.sub(r"num_leaves=\d+", "num_leaves=2000000000", t),
        "another number than its tree",
    ),
    "many": ("lightgbm", lambda t: t.replace("num_class=1", "num_class=2000000000"), "3 trees for 2000000000 classes"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_whose_links_lead_out_of_it_is_refused_before_it_is_asked(
    tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both libraries follow them without looking: some of these ended the process, others read foreign memory."""
    kind, change, complaint = HARMS[harm]
    for adapter in (lightgbm_files, xgboost_files):  # it holds without the scan too, which knows some of these
        monkeypatch.setattr(adapter, "check_verdict", lambda *args, **how: None)
    with pytest.raises(ModelError, match=complaint):
        load_model(altered(saved(kind, tmp_path), change))


@pytest.mark.parametrize(
    ("how", "key"), [({"linear_tree": True}, "leaf_features"), ({"max_cat_to_onehot": 1}, "cat_boundaries")]
)
def test_linear_leaves_and_sets_of_categories_are_read_where_they_are_whole(
    tmp_path: Path, how: dict[str, Any], key: str
) -> None:
    x = np.column_stack([X, RNG.integers(0, 9, len(X))])
    y = (x[:, 3] % 2 == 0) ^ (x[:, 0] > 1)
    params = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 4, "min_data_per_group": 4}
    sets = [3] if key == "cat_boundaries" else []
    native = lightgbm.train(params | how, lightgbm.Dataset(x, y, categorical_feature=sets), 3)
    native.save_model(tmp_path / "m.txt")
    assert np.array_equal(wrap(load_model(tmp_path / "m.txt")).labels(x), native.predict(x) > 0.5)
    altered(tmp_path / "m.txt", lambda text: re.sub(rf"({key}=.*)(\d)", r"\g<1>9", text))
    with pytest.raises(ModelError, match="that are not there"):
        load_model(tmp_path / "m.txt")


def estimator(**how: Any) -> Any:
    return xgboost.XGBClassifier(**{"n_estimators": 4, "max_depth": 3, "n_jobs": 1} | how)


def test_another_value_for_what_is_missing_takes_the_trees_away() -> None:
    """A certificate over these trees held a 0 for a small number, where XGBoost sends it the other way."""
    x = np.abs(X)
    model = wrap(estimator(missing=0.0).fit(x, Y), schema=from_arrays(x, Y).schema)
    assert model.trees is None
    assert "missing=0.0" in model.notes["trees"]
    assert wrap(estimator().fit(x, Y), schema=from_arrays(x, Y).schema).trees is not None


def test_early_stopping_as_a_callback_leaves_the_trees_up_to_the_best() -> None:
    noise = RNG.integers(0, 2, 120)
    made = estimator(n_estimators=30, callbacks=[xgboost.callback.EarlyStopping(rounds=2)])
    made.fit(X[:60], noise[:60], eval_set=[(X[60:], noise[60:])], verbose=False)
    model = wrap(made)
    assert model.trees is not None, model.notes
    assert len(model.trees.roots) == made.best_iteration + 1 < made.get_booster().num_boosted_rounds()


@pytest.mark.parametrize("k", [2, 3])
def test_trees_and_margins_follow_classes_in_another_order(k: int) -> None:
    y = np.array(["a", "b", "c"])[Y + (k > 2) * (X[:, 1] > 0)]
    made = lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(X, y)
    model = wrap(made, classes=list("cba")[-k:])
    assert np.array_equal(np.array(model.classes)[model.labels(X)], made.predict(X))
    assert model.trees is not None, model.notes
    assert np.array_equal(model.trees.labels(X), model.labels(X))
    assert np.array_equal(model.ask("logits", X).argmax(axis=1), model.labels(X))


def test_columns_of_which_some_have_other_names_are_not_taken_by_their_place() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a b", "c", "d"])
    params = {"objective": "binary", "verbosity": -1, "num_threads": 1}
    native = lightgbm.train(params, lightgbm.Dataset(frame, Y), 3)  # calls its first column a_b
    made = lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(frame, Y)
    turned = from_arrays(frame[["c", "a b", "d"]], Y)
    for one, expected in ((native, native.predict(X) > 0.5), (made, made.predict(frame))):
        assert np.array_equal(wrap(one, schema=turned.schema).labels(turned.data.x), expected)
        with pytest.raises(ModelError, match="got data without a_b"):
            wrap(one, schema=from_arrays(frame.rename(columns={"a b": "e"})[["c", "e", "d"]], Y).schema)


REFUSED: dict[str, tuple[Any, str]] = {
    "untrained": (xgboost.Booster, "expected a booster after its training"),
    "raw": (lambda: estimator(objective="binary:logitraw").fit(X, Y), "that answers with probabilities"),
    "several targets": (lambda: estimator().fit(X, (X > 0).astype(int)), "on one target"),
    "one class": (lambda: estimator().fit(X, np.zeros(120, dtype=int)), "samples of every class"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_gives_no_probability_for_each_class_is_refused(case: str) -> None:
    make, complaint = REFUSED[case]
    with pytest.raises(ModelError, match=complaint):
        wrap(make(), schema=from_arrays(X, Y).schema)


@pytest.mark.parametrize("best", ["x", "-5", "3"])
def test_a_best_iteration_that_is_none_of_its_rounds_is_refused(best: str) -> None:
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(X, Y), 3)
    booster.set_attr(best_iteration=best, scikit_learn="{}")
    with pytest.raises(ModelError, match=f"best_iteration among 3 rounds, got {best}"):
        wrap(booster)
