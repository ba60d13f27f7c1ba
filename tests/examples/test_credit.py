"""The credit example: two pipelines of a few rows go the way that the demo goes, from the table to the case."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io

from casemate import config
from casemate.adapters.imports import import_object
from casemate.core.facets import Facet
from casemate.core.schema import FeatureKind

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "credit"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """A folder like the example's, with 2,000 rows to fit on and 500 to test on."""
    import_object("train:main", folder=FOLDER)
    train = sys.modules["train"]
    folder = tmp_path_factory.mktemp("credit")
    (folder / "out").mkdir()
    parts = {name: part.head(2000 if name == "train" else 500) for name, part in train.tables().items()}
    for name, part in parts.items():
        part.to_parquet(folder / "out" / f"{name}.parquet", index=False)
    for name, pipeline in train.pipelines().items():
        pipeline.fit(parts["train"].drop(columns=train.TARGET), parts["train"][train.TARGET])
        skops.io.dump(pipeline, folder / "out" / f"{name}.skops")
        (folder / f"{name}.toml").write_bytes((FOLDER / f"{name}.toml").read_bytes())
    return folder, parts, train


def test_the_two_configurations_differ_in_the_model_alone() -> None:
    forest, logistic = (config.load(FOLDER / f"{name}.toml") for name in ("forest", "logistic"))
    assert forest.data == logistic.data
    assert (forest.probe, forest.policy, forest.audit) == (logistic.probe, logistic.policy, logistic.audit)
    assert {s.model.path.name for s in (forest, logistic)} == {"forest.skops", "logistic.skops"}


def test_no_column_that_is_no_feature_of_a_person_reaches_a_model(made) -> None:
    _, parts, train = made
    assert not {"fnlwgt", "education", "split"} & set(parts["train"].columns)
    assert set(parts["train"].columns) == {*train.NUMBERS, *train.CATEGORIES, train.TARGET}


@pytest.mark.parametrize("name", ["forest", "logistic"])
def test_the_case_answers_as_the_pipeline_itself(made, name: str) -> None:
    folder, parts, train = made
    case = config.case_of(config.load(folder / f"{name}.toml"))

    wanted = skops.io.load(folder / "out" / f"{name}.skops", trusted=["sklearn.tree._tree.Tree"])
    answers = np.array(case.the_model().classes)[case.the_model().labels(case.data("test").x)]
    assert (answers == wanted.predict(parts["test"].drop(columns=train.TARGET))).all()
    assert (answers == parts["test"][train.TARGET]).mean() > 0.76  # the share of the commoner class


@pytest.mark.parametrize("name", ["forest", "logistic"])
def test_the_case_knows_whose_treatment_is_compared_and_what_cannot_be_changed(made, name: str) -> None:
    folder, *_ = made
    case = config.case_of(config.load(folder / f"{name}.toml"))

    assert set(case.data("test").groups) == {"sex", "age", "race"}
    assert {Facet.RECIPE, Facet.SCORES, Facet.GROUPS} <= case.offers
    features = {feature.name: feature for feature in case.schema.features}
    assert features["age"].immutable
    assert features["sex"].kind is FeatureKind.CATEGORY
    assert features["capital_gain"].kind is FeatureKind.INTEGER
