from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as float_arrays
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from casemate.core.case import Case, Recipe
from casemate.core.data import Data, Splits, texts
from casemate.core.evidence import Quantity
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.model import Model, Task
from casemate.core.schema import Feature, Schema
from casemate.core.stats import tpr_at_fpr
from casemate.errors import ConfigError
from casemate.privacy.membership import MembershipOptions, _roc, infer_membership, rmia_log_ratio, rmia_scores
from casemate.privacy.shadow_pool import ShadowPoolOptions, train_shadows

POOL = (train_shadows, ShadowPoolOptions(models=8))
_ratios = float_arrays(
    np.float64, st.integers(1, 30), elements=st.one_of(st.integers(-3, 3).map(float), st.floats(-50, 50))
)


def _named(evidence, metric, about=""):
    return [e for e in evidence if e.metric == metric and e.about == about]


@given(x=_ratios, z=_ratios, gamma=st.sampled_from([1.0, 1.5, 2.0]))
def test_scoring_by_search_equals_the_broadcast_comparison_to_the_bit(x, z, gamma):
    bar = x - np.log(gamma)
    wins = (bar[:, None] > z[None, :]).sum(axis=1) + 0.5 * (bar[:, None] == z[None, :]).sum(axis=1)
    np.testing.assert_array_equal(rmia_scores(x, z, gamma), wins / len(z))


def test_members_above_the_whole_population_do_not_tie_with_its_top():
    """With `>=` they all scored 1 like the best non-member: TPR at 0.1 % FPR on digits was 0 where it is 2 %."""
    others = np.arange(100.0)
    members = np.full(30, 200.0)
    scores = rmia_scores(np.concatenate([members, others]), others)
    assert tpr_at_fpr(scores[:30], scores[30:], 0.001, 0.95).value == 1.0
    assert scores[:30].min() > scores[30:].max()


@pytest.mark.parametrize("form", ["online", "offline"])
def test_the_ratio_equals_the_papers_formula_in_plain_probabilities(form):
    rng = np.random.default_rng(0)
    phi, target = rng.normal(size=(6, 9)), rng.normal(size=9)
    inside = np.array([rng.permutation(6) < 3 for _ in range(9)]).T
    expected = np.empty(9)
    for i in range(9):
        p = 1 / (1 + np.exp(-phi[:, i]))
        p_in, p_out = p[inside[:, i]].mean(), p[~inside[:, i]].mean()
        p_x = (p_in + p_out) / 2 if form == "online" else ((1 + 0.3) * p_out + 1 - 0.3) / 2
        expected[i] = np.log(1 / (1 + np.exp(-target[i])) / p_x)
    np.testing.assert_allclose(rmia_log_ratio(target, phi, inside, form=form, offline_a=0.3), expected, atol=1e-13)


@pytest.mark.parametrize("estimator", [KNeighborsClassifier(1), DecisionTreeClassifier(random_state=0)])
def test_a_model_that_learned_its_rows_by_heart_is_found_out_as_far_as_it_errs_on_others(
    estimator, make_blobs, make_case, make_bench
):
    rng = np.random.default_rng(3)
    train, test = make_blobs(200, rng, noise=1.0), make_blobs(200, rng, noise=1.0)
    noisy = replace(train, y=rng.integers(0, 2, 200)), replace(test, y=rng.integers(0, 2, 200))  # nothing to generalise
    case = replace(make_case(estimator, *noisy), recipe=None)
    evidence = list(infer_membership(case, make_bench(infer_membership, control_rows=0).lab))
    (auc,) = _named(evidence, "privacy.membership_auc", "loss")
    wrong = np.mean(case.model.labels(noisy[1].x) != noisy[1].labels)
    assert auc.value == pytest.approx(0.5 + wrong / 2)  # members all certain, others certain and right or wrong
    assert auc.low > 0.65
    (gap,) = _named(evidence, "privacy.generalisation_gap")
    assert gap.value == pytest.approx(wrong)


def test_a_model_that_is_sure_of_its_own_rows_only_gives_all_of_them_away(make_blobs, make_bench):
    rng = np.random.default_rng(4)
    train, test = make_blobs(150, rng), make_blobs(150, rng, first_id=500)

    def logits(x):
        known = (x[:, None, :] == train.x[None]).all(axis=2)
        label = np.where(known.any(axis=1), train.labels[known.argmax(axis=1)], 0)
        return np.where(np.arange(2) == label[:, None], np.where(known.any(axis=1), 20.0, 1.0)[:, None], 0.0)

    model = Model("m", "d", lambda x: logits(x).argmax(axis=1), logits=logits)
    case = Case(model=model, splits=Splits(train=train, test=test))
    evidence = list(infer_membership(case, make_bench(infer_membership).lab))
    assert _named(evidence, "privacy.membership_auc", "loss")[0].value == 1.0
    assert [e.value for e in _named(evidence, "privacy.tpr_at_fpr", "loss")] == [1.0, 1.0]


def test_neither_attacker_finds_anything_in_models_that_saw_other_data():
    """Null calibration: in 93 % or more of 200 runs on models that cannot know the rows, one half is inside."""
    held = {"loss": [], "rmia": []}
    for run in range(200):
        rng = np.random.default_rng(run)
        pool = _innocent_pool(rng)
        options = MembershipOptions(control_rows=0, fprs=())
        lab = Lab("privacy/membership", run, options, getter=lambda name, case, pool=pool: pool)
        evidence = list(infer_membership(_innocent(rng), lab))
        for name, hits in held.items():
            (auc,) = _named(evidence, "privacy.membership_auc", name)
            hits.append(auc.low <= 0.5 <= auc.high)
    assert np.mean(held["loss"]) >= 0.93
    assert np.mean(held["rmia"]) >= 0.93


def _innocent(rng: np.random.Generator) -> Case:
    schema = Schema(DataKind.TABLE, (2,), (Feature("a"), Feature("b")))
    train, test = (Data(rng.normal(size=(n, 2)), schema, rng.integers(0, 2, n)) for n in (60, 50))
    model = Model("m", "d", lambda x: np.asarray(x).argmax(axis=1), logits=lambda x: np.asarray(x))
    recipe = Recipe(lambda data, init, rng: model, "sha256:never trains")
    return Case(model=model, splits=Splits(train=train, test=test), recipe=recipe)


def _innocent_pool(rng: np.random.Generator) -> dict[str, object]:
    """Shadows that know their rows, and a target that knows how hard a row is but nothing more."""
    n, easiness = 120, rng.normal(size=120)
    inside = np.array([rng.permutation(8) < 4 for _ in range(n)]).T
    return {
        "phi": easiness + rng.normal(size=(8, n)) + inside,
        "inside": inside,
        "target": easiness + rng.normal(size=n),
        "member": np.arange(n) < 60,
        "part": np.repeat([0, 1], 60),
        "sample_id": np.arange(n),
        "sampled": "all",
    }


@pytest.fixture
def leaky(make_blobs, make_case):
    rng = np.random.default_rng(5)
    tree = DecisionTreeClassifier(min_samples_leaf=2)
    return make_case(tree, make_blobs(200, rng), make_blobs(150, rng, first_id=1000))


def test_both_attackers_find_an_overfitted_tree_and_every_figure_is_there(leaky, make_bench):
    evidence = list(infer_membership(leaky, make_bench(infer_membership, POOL).lab))
    for name in ("loss", "rmia"):
        (auc,) = _named(evidence, "privacy.membership_auc", name)
        assert auc.low > 0.5
        assert auc.baseline == 0.5
        rates = _named(evidence, "privacy.tpr_at_fpr", name)
        assert [(e.at["fpr"], e.baseline, e.quantity) for e in rates] == [
            (0.01, 0.01, Quantity.LIFT),
            (0.001, 0.001, Quantity.LIFT),
        ]
    assert _named(evidence, "privacy.membership_auc", "rmia")[0].n == 298  # of 75 rows of a class one is left out
    assert _named(evidence, "privacy.shadow_models")[0].value == 8
    declared = {metric.name for metric in infer_membership.metrics}
    assert {e.metric for e in evidence} == declared


def test_the_same_seed_gives_the_same_evidence_and_replay_gives_it_again(leaky, make_bench):
    first, second = (make_bench(infer_membership, POOL, control_rows=100) for _ in range(2))
    evidence = list(infer_membership(leaky, first.lab))
    assert evidence == list(infer_membership(leaky, second.lab))
    assert evidence == list(infer_membership.replay(leaky, first.kept, second.lab))
    alone = replace(leaky, recipe=None)
    bench = make_bench(infer_membership, control_rows=0)
    evidence = list(infer_membership(alone, bench.lab))
    assert evidence == list(infer_membership.replay(alone, bench.kept, bench.lab))


def test_without_a_recipe_the_loss_attack_runs_alone_and_the_report_says_why(leaky, make_bench):
    evidence = list(infer_membership(replace(leaky, recipe=None), make_bench(infer_membership, control_rows=0).lab))
    assert {e.about for e in evidence if e.metric == "privacy.membership_auc"} == {"loss"}
    (note,) = _named(evidence, "privacy.shadow_models")
    assert note.value == 0
    assert "needs a recipe" in note.method


def test_labels_alone_give_the_gap_attack_whose_auc_is_half_the_gap_above_chance(leaky, make_bench):
    blunt = replace(leaky, model=replace(leaky.model, scores=None))
    evidence = list(infer_membership(blunt, make_bench(infer_membership, POOL, control_rows=0).lab))
    (auc,) = _named(evidence, "privacy.membership_auc", "loss")
    (gap,) = _named(evidence, "privacy.generalisation_gap")
    assert auc.value == pytest.approx(0.5 + gap.value / 2)
    assert "gives scores or logits" in _named(evidence, "privacy.shadow_models")[0].method


def test_splits_that_differ_without_the_model_are_called_so(make_blobs, make_case, make_bench):
    rng = np.random.default_rng(6)
    train, same, moved = make_blobs(200, rng), make_blobs(200, rng), make_blobs(200, rng, shift=1.0)
    for test, differs in ((same, False), (moved, True)):
        case = make_case(LogisticRegression(), train, test)
        evidence = list(infer_membership(case, make_bench(infer_membership, POOL).lab))
        (features,) = _named(evidence, "privacy.blind_auc", "features")
        assert (features.low > 0.5) is differs
        assert ("not leakage alone" in features.method) is differs
        (shadows,) = _named(evidence, "privacy.blind_auc", "shadow models")
        assert ("not leakage alone" in shadows.method) is (not shadows.low <= 0.5 <= shadows.high)


def test_a_regression_is_attacked_by_its_absolute_error(make_blobs, make_bench):
    rng = np.random.default_rng(7)
    train, test = (replace(make_blobs(100, rng), y=rng.normal(size=100)) for _ in range(2))

    def predict(x):
        known = (x[:, None, :] == train.x[None]).all(axis=2)
        return np.where(known.any(axis=1), train.labels[known.argmax(axis=1)], 0.0)

    case = Case(model=Model("m", "d", predict, task=Task.REGRESSION), splits=Splits(train=train, test=test))
    evidence = list(infer_membership(case, make_bench(infer_membership).lab))
    assert _named(evidence, "privacy.membership_auc", "loss")[0].value == 1.0
    assert not _named(evidence, "privacy.generalisation_gap")


@pytest.mark.parametrize("wrong", [{"form": "both"}, {"gamma": 0.5}])
def test_options_that_mean_nothing_are_refused_before_any_work(wrong, leaky, make_bench):
    with pytest.raises(ConfigError):
        next(infer_membership(leaky, make_bench(infer_membership, POOL, **wrong).lab))


@settings(max_examples=40)
@given(
    scores=float_arrays(np.float64, 60, elements=st.integers(-5, 5).map(float)),
    inner=st.integers(1, 59),
    seed=st.integers(0, 9),
)
def test_the_curve_of_an_exhibit_is_that_of_every_threshold(scores, inner, seed):
    member = np.random.default_rng(seed).permutation(60) < inner
    false, true = _roc(scores, member)
    for f, t in zip(false, true, strict=True):
        assert any(
            np.isclose(f, (scores[~member] >= bar).mean()) and np.isclose(t, (scores[member] >= bar).mean())
            for bar in np.unique(scores)
        )
    assert (np.diff(false) > 0).all()
    assert (np.diff(true) >= 0).all()
    assert false[0] > 0
    assert (false[-1], true[-1]) == (1.0, (scores[member] >= scores[~member].min()).mean())


def _said(words, n, seed):
    rng = np.random.default_rng(seed)
    return texts(" ".join(rng.choice(words, 6)) for _ in range(n))


def test_texts_of_another_kind_in_test_are_noticed_without_asking_the_model_and_the_curves_are_shown(make_bench):
    schema, y = Schema(DataKind.TEXT, ()), np.arange(200) % 2
    words = ["red", "blue", "green", "north", "south", "east"]
    model = Model(
        "m", "d", lambda x: np.zeros(len(x), np.int64), ("0", "1"), scores=lambda x: np.tile([0.6, 0.4], (len(x), 1))
    )
    for other, apart in ((words, False), ([*words[:3], "up", "down"], True)):
        train, test = Data(_said(words, 200, 0), schema, y), Data(_said(other, 200, 1), schema, y)
        bench = make_bench(infer_membership)
        evidence = list(infer_membership(Case(model=model, splits=Splits(train=train, test=test)), bench.lab))
        blind = _named(evidence, "privacy.blind_auc", "features")[0]
        assert "naive Bayes on the words" in blind.method
        assert (blind.low > 0.5) == apart
        shown = bench.kept["exhibit-roc"]
        assert (shown["exhibit"], shown["names"], shown["diagonal"]) == ("lines", ["loss"], True)


def test_both_attacks_are_in_one_exhibit(make_blobs, make_case, make_bench):
    rng = np.random.default_rng(1)
    case = make_case(DecisionTreeClassifier(), make_blobs(60, rng), make_blobs(60, rng, first_id=1000))
    bench = make_bench(infer_membership, POOL)
    list(infer_membership(case, bench.lab))
    assert bench.kept["exhibit-roc"]["names"] == ["loss", "RMIA"]
    assert bench.kept["exhibit-roc"]["y0"][0] == 1.0  # a tree knows its own rows by heart, and hardly any other
