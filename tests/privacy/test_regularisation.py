from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from casemate.core.budget import Meter
from casemate.core.data import Splits
from casemate.core.lab import Lab
from casemate.core.stats import roc_auc
from casemate.errors import BudgetExhausted, DataError, Unavailable
from casemate.privacy.regularisation import RegularisationOptions, sweep_regularisation
from casemate.privacy.shadow_pool import confidence_signal

DEPTHS = (None, 4, 2, 1)


class Trap:
    """A test split that must not be looked at."""

    def __getattribute__(self, name):
        raise AssertionError(f"hardening read the test split ({name})")


@pytest.fixture
def case(make_blobs, make_case):
    rng = np.random.default_rng(0)
    made = make_case(
        DecisionTreeClassifier(), make_blobs(200, rng), make_blobs(9, rng), make_blobs(200, rng), max_depth=DEPTHS
    )
    return replace(made, splits=Splits(train=made.splits.train, tune=made.splits.tune))


def _lab(meter: Meter | None = None, **options) -> Lab:
    return Lab("privacy/regularisation", 0, RegularisationOptions(**options), meter=meter or Meter())


def _leak(model, members, others):
    inner, outer = (confidence_signal(model, data.x, data.labels) for data in (members, others))
    return roc_auc(inner, outer).value


def test_the_sweep_lowers_what_a_tree_gives_away_on_rows_that_took_no_part(case, make_blobs):
    candidate = sweep_regularisation(case, (), _lab())
    fresh = make_blobs(400, np.random.default_rng(9))
    before, after = (_leak(model, case.splits.train, fresh) for model in (case.model, candidate.model))
    assert before > 0.6
    assert after < before - 0.03
    assert candidate.settings["max_depth"] in DEPTHS
    assert "membership AUC" in candidate.summary
    accuracy = [np.mean(m.labels(fresh.x) == fresh.labels) for m in (case.model, candidate.model)]
    assert accuracy[1] >= accuracy[0] - 0.02


def test_the_test_split_is_never_read(case):
    trapped = replace(case, splits=replace(case.splits, test=Trap()))
    with_test, without = sweep_regularisation(trapped, (), _lab()), sweep_regularisation(case, (), _lab())
    assert with_test.settings == without.settings


def test_the_loss_of_accuracy_that_is_allowed_decides(case):
    tune = case.splits.tune
    models = {d: case.recipe.fit(case.splits.train, {"max_depth": d}, _lab().rng("candidate")) for d in DEPTHS}
    accuracy = {d: np.mean(m.labels(tune.x) == tune.labels) for d, m in models.items()}
    leak = {d: _leak(m, case.splits.train, tune) for d, m in models.items()}
    strict = sweep_regularisation(case, (), _lab(accuracy_loss=0.0)).settings.get("max_depth")
    loose = sweep_regularisation(case, (), _lab(accuracy_loss=1.0)).settings.get("max_depth")
    assert accuracy[strict] == max(accuracy.values())
    assert max(leak[loose], 0.5) == max(min(leak.values()), 0.5)


def test_the_candidates_recipe_makes_the_candidate_again(case):
    candidate = sweep_regularisation(case, (), _lab())
    again = candidate.recipe.fit(case.splits.train, {}, _lab().rng("candidate"))
    x = case.splits.tune.x
    np.testing.assert_array_equal(again.scores(x), candidate.model.scores(x))
    assert candidate.recipe.settings == candidate.settings
    assert candidate.recipe.digest != case.recipe.digest


def test_without_a_tune_split_a_holdout_of_train_decides_and_all_of_train_is_learned(case):
    alone = replace(case, splits=Splits(train=case.splits.train))
    candidate = sweep_regularisation(alone, (), _lab())
    assert "on 150 fitted and 50 tune rows" in candidate.summary
    expected = case.recipe.fit(case.splits.train, candidate.settings, _lab().rng("candidate"))
    np.testing.assert_array_equal(candidate.model.scores(case.splits.train.x), expected.scores(case.splits.train.x))


def test_the_same_seed_gives_the_same_candidate(case):
    first, second = sweep_regularisation(case, (), _lab()), sweep_regularisation(case, (), _lab())
    assert first.settings == second.settings
    assert first.summary == second.summary


def test_a_recipe_without_knobs_is_sent_back_with_the_mend(case):
    bare = replace(case, recipe=replace(case.recipe, knobs={}))
    with pytest.raises(Unavailable, match=r"set Recipe\.knobs"):
        sweep_regularisation(bare, (), _lab())
    with pytest.raises(Unavailable, match="with a recipe"):
        sweep_regularisation(replace(case, recipe=None), (), _lab())


def test_regression_and_too_little_data_are_refused(case):
    train = case.splits.train
    floats = replace(case, splits=Splits(train=replace(train, y=train.labels * 1.0)))
    with pytest.raises(Unavailable, match="classifiers only"):
        sweep_regularisation(floats, (), _lab())
    single = replace(case, splits=Splits(train=train.take(np.array([0]))))
    with pytest.raises(DataError, match="hold some out"):
        sweep_regularisation(single, (), _lab())


def test_the_sweep_stops_at_its_budget(case):
    with pytest.raises(BudgetExhausted):
        sweep_regularisation(case, (), _lab(meter=Meter(limit=500)))
