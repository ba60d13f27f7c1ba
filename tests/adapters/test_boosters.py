from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casemate.adapters import wrap
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
    with pytest.raises(ModelError, match=r"data of 3 features for this booster, got 2 \(b missing\)"):
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
