from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind, Facet
from casemate.core.lab import Lab
from casemate.core.metering import metered_case
from casemate.core.model import Model
from casemate.core.schema import Feature, Schema
from casemate.engine.trainers import TorchRecipe, recipe_of
from casemate.errors import BudgetExhausted, ConfigError, ModelError, Unavailable
from casemate.formats import arrays
from casemate.privacy.shadow_pool import (
    CLIP,
    ShadowPoolOptions,
    _everyone,
    confidence_signal,
    paired_masks,
    signal_facet,
    train_shadows,
)


def _lab(models: int = 4, rows: int = 4000, seed: int = 0, meter: Meter | None = None) -> Lab:
    return Lab("privacy/shadow_pool", seed, ShadowPoolOptions(models, rows), meter=meter or Meter())


@pytest.fixture
def case(make_blobs, make_case) -> Case:
    rng = np.random.default_rng(1)
    tree = DecisionTreeClassifier()
    return make_case(tree, make_blobs(61, rng), make_blobs(40, rng, first_id=1000), make_blobs(20, rng, first_id=2000))


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60), pairs=st.integers(1, 5), seed=st.integers(0, 2**32 - 1)
)
def test_each_row_is_in_half_of_the_models_and_each_class_in_halves_of_a_pair(labels, pairs, seed):
    y = np.array(labels)
    inside = paired_masks(y, 2 * pairs, np.random.default_rng(seed))
    assert (inside.sum(axis=0) == pairs).all()
    assert (inside[0::2] == ~inside[1::2]).all()
    for label in np.unique(y):
        counts = inside[:, y == label].sum(axis=1)
        assert counts.max() - counts.min() <= 1


def _says(**answers) -> Model:
    made = {name: (lambda x, answer=answer: np.array(answer)) for name, answer in answers.items()}
    return Model("m", "d", **{"labels": lambda x: np.zeros(len(x), dtype=np.int64), **made})


def test_the_signal_from_logits_is_exact_where_probabilities_have_long_been_rounded_to_one():
    model = _says(logits=[[800.0, 0.0], [0.0, 800.0], [1.0, 1.0]])
    phi = confidence_signal(model, np.zeros((3, 1)), np.array([0, 0, 1]))
    np.testing.assert_array_equal(phi, [800.0, -800.0, 0.0])


def test_the_signal_from_scores_is_the_log_odds_of_the_true_class():
    p = np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])
    phi = confidence_signal(_says(scores=p), np.zeros((2, 1)), np.array([1, 2]))
    np.testing.assert_allclose(phi, np.log([0.5 / 0.5, 0.05 / 0.95]), atol=1e-14)
    logits = confidence_signal(_says(logits=np.log(p) + 7), np.zeros((2, 1)), np.array([1, 2]))
    np.testing.assert_allclose(phi, logits, atol=1e-12)


def test_a_certain_model_has_a_finite_signal():
    phi = confidence_signal(_says(scores=[[1.0, 0.0], [1.0, 0.0]]), np.zeros((2, 1)), np.array([0, 1]))
    np.testing.assert_allclose(phi, np.log(1 / CLIP) * np.array([1, -1]), atol=1)
    labels_only = confidence_signal(_says(), np.zeros((2, 1)), np.array([0, 1]))
    np.testing.assert_array_equal(labels_only, np.log(1 / CLIP) * np.array([1, -1]))


def test_logits_are_preferred_to_scores_and_scores_to_labels():
    assert signal_facet(_says(scores=[[1.0]], logits=[[1.0]])) is Facet.LOGITS
    assert signal_facet(_says(scores=[[1.0]])) is Facet.SCORES
    assert signal_facet(_says()) is Facet.LABELS


def test_a_model_without_a_column_for_a_label_is_refused_and_not_misread():
    with pytest.raises(ModelError, match="a column for each label"):
        confidence_signal(_says(scores=[[0.5, 0.5]]), np.zeros((1, 1)), np.array([2]))


def test_every_shadow_tree_knows_its_own_half_by_heart_and_no_row_is_lost(case):
    pool = train_shadows(case, _lab(models=6))
    inside, phi = pool["inside"], pool["phi"]
    assert phi.shape == inside.shape == (6, len(pool["target"]))
    assert (inside.sum(axis=0) == 3).all()
    assert (phi[inside] > 20).all()  # a full tree is certain and right where it was fitted
    assert (phi[~inside] < 20).mean() > 0.1  # and wrong on some that it never saw
    assert (pool["target"][pool["member"]] > 20).all()
    assert set(pool["sample_id"][pool["part"] == 1]) <= set(case.splits.test.sample_id)
    assert set(pool["sample_id"][pool["part"] == 2]) <= set(case.splits.tune.sample_id)
    assert (pool["member"] == (pool["part"] == 0)).all()


def test_the_pool_is_the_same_for_the_same_seed_and_travels(case):
    first, second = train_shadows(case, _lab()), train_shadows(case, _lab())
    other = train_shadows(case, _lab(seed=1))
    assert arrays.pack(first) == arrays.pack(second)
    assert arrays.pack(first) != arrays.pack(other)


def test_a_capped_pool_keeps_the_shares_of_splits_and_says_what_it_took(case):
    pool = train_shadows(case, _lab(rows=60))
    assert 56 <= len(pool["target"]) <= 60
    assert abs(pool["member"].mean() - 61 / 121) < 0.05
    assert pool["sampled"].startswith(f"{len(pool['target'])} of 121 rows (")
    assert len(np.unique(pool["sample_id"])) == len(pool["sample_id"])


def test_training_and_asking_are_charged_for(case):
    meter = Meter()
    pool = train_shadows(metered_case(case, meter), _lab(models=4, meter=meter))
    n = len(pool["target"])
    assert meter.spent.forwards == 4 * (n // 2 + n) + n
    assert meter.spent.backwards == 4 * (n // 2)
    with pytest.raises(BudgetExhausted):
        train_shadows(case, _lab(models=4, meter=Meter(limit=100)))


def test_an_odd_number_of_models_and_a_case_without_others_are_refused(case):
    with pytest.raises(ConfigError, match="an even number"):
        train_shadows(case, _lab(models=5))
    with pytest.raises(Unavailable, match="not trained on"):
        train_shadows(replace(case, splits=Splits(train=case.splits.train)), _lab())


def test_shadows_of_a_logistic_regression_hardly_know_their_rows(make_blobs, make_case):
    rng = np.random.default_rng(2)
    case = make_case(LogisticRegression(), make_blobs(150, rng), make_blobs(150, rng))
    pool = train_shadows(case, _lab(models=4))
    phi, inside = pool["phi"], pool["inside"]
    assert abs(phi[inside].mean() - phi[~inside].mean()) < 0.3


def _net():
    from torch import nn

    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2))


def test_a_torch_recipe_trains_its_shadows_at_once_and_gives_what_one_by_one_gives(make_blobs):
    pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    train, test = make_blobs(60, rng), make_blobs(40, rng)
    recipe = recipe_of(TorchRecipe(_net, epochs=5, batch=16, lr=0.01))
    model = recipe.fit(train, {}, rng)
    case = Case(model=model, splits=Splits(train=train, test=test), recipe=recipe)
    meter = Meter()
    vectorised = train_shadows(case, _lab(models=4, meter=meter))
    one_by_one = train_shadows(
        replace(case, recipe=replace(recipe, fit=lambda *given: recipe.fit(*given))), _lab(models=4)
    )
    np.testing.assert_allclose(vectorised["phi"], one_by_one["phi"], rtol=0, atol=1e-4)
    n = len(vectorised["target"])
    assert meter.spent.backwards == 4 * 5 * n // 2
    assert vectorised["facet"] == "logits"


def test_rows_are_taken_where_they_are_as_from_one_table(case):
    pool, parts = _everyone(case), case.splits
    whole = np.concatenate([parts.train.x, parts.test.x, parts.tune.x])
    for rows in (np.arange(len(whole)), np.array([0, 60, 61, 120]), np.array([100]), np.array([5, 110, 111])):
        taken = pool.take(rows)
        np.testing.assert_array_equal(taken.x, whole[rows])
        np.testing.assert_array_equal(taken.labels, pool.y[rows])
        np.testing.assert_array_equal(taken.sample_id, rows)


def test_a_large_data_set_is_not_copied_to_draw_a_few_rows():
    """Train and test of a million rows each were joined into one array of 2.4 GB, in every job anew."""
    rng = np.random.default_rng(0)
    n, d = 20_000, 100
    schema = Schema(DataKind.TABLE, (d,), tuple(Feature(f"f{i}") for i in range(d)))
    splits = [Data(rng.random((n, d)), schema, np.arange(n) % 2) for _ in range(2)]
    case = Case(splits=Splits(train=splits[0], test=splits[1]))
    tracemalloc.start()
    try:
        taken = _everyone(case).take(np.arange(0, 2 * n, 100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(taken) == 400
    assert peak < splits[0].x.nbytes / 4
