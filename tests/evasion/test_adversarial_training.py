"""Adversarial training: the moved batch has a closed form on a linear model, and the candidate resists attacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from casemate.core.bracket import Goal
from casemate.core.case import Case, Recipe
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.judgement import judge
from casemate.core.lab import Lab
from casemate.core.norms import Ball, Norm, inside
from casemate.core.outcome import Finding, Outcome
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.core.stats import clopper_pearson
from casemate.engine.harness import batch_of, open_ledger, pursue
from casemate.engine.trainers import TorchRecipe, recipe_of
from casemate.errors import ConfigError, Unavailable
from casemate.evasion.adversarial_training import AdversarialTrainingOptions, _Moved, _Plan, train_adversarially
from casemate.evasion.apgd import ApgdOptions, apgd_attack
from casemate.evasion.curve import METRICS

PIXELS = Schema(DataKind.IMAGE, (1, 8, 8), (Feature("pixel", lo=0.0, hi=1.0),))
TABLE = Schema(
    DataKind.TABLE,
    (4,),
    (
        Feature("a", lo=-3, hi=3, scale=2.0),
        Feature("b", lo=-3, hi=3, immutable=True),
        Feature("c", FeatureKind.CATEGORY, lo=0, hi=1, categories=("x", "y")),
        Feature("d", lo=-0.5, hi=0.5),
    ),
)


def small_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))


@pytest.fixture(scope="module")
def digits() -> Case:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = (x[y < 4] / 16).astype(np.float32).reshape(-1, 1, 8, 8), y[y < 4].astype(np.int64)
    whole = Data(x, PIXELS, y=y)
    splits = Splits(train=whole.take(np.arange(400)), test=whole.take(np.arange(400, 600)))
    recipe = recipe_of(TorchRecipe(small_net, epochs=10, lr=5e-3, batch=32))
    assert splits.train is not None
    return Case(model=recipe.fit(splits.train, {}, np.random.default_rng(0)), splits=splits, recipe=recipe)


def lab(**options: Any) -> Lab:
    return Lab(train_adversarially.id, 3, AdversarialTrainingOptions(**options))


def hardened(case: Case, findings: tuple[Outcome, ...] = (), **options: Any) -> Any:
    return train_adversarially.function(case.without_test(), findings, lab(**options))


def robust_accuracy(case: Case, goal: Goal) -> float:
    test = case.data("test")
    batch = batch_of(test.x, test.labels, test.sample_id)
    ledger = open_ledger(case, batch, goal.norm)
    pursue(
        apgd_attack,
        case,
        batch,
        goal,
        Lab(apgd_attack.id, 1, ApgdOptions(steps=20)),
        ledger=ledger,
        rows=np.arange(len(batch)),
    )
    return float(1 - ledger.broken(goal.eps).mean())


@pytest.mark.parametrize("goal", [Goal(Norm.LINF, 0.15), Goal(Norm.L2, 0.8)], ids=["linf", "l2"])
def test_the_candidate_resists_what_breaks_the_model_and_stays_accurate(digits: Case, goal: Goal) -> None:
    candidate = hardened(digits, norm=str(goal.norm), eps=goal.eps, epochs=12)
    after = replace(digits, model=candidate.model)
    assert robust_accuracy(after, goal) > robust_accuracy(digits, goal) + 0.1
    test = digits.data("test")
    assert (candidate.model.labels(test.x) == test.labels).mean() > 0.9
    assert str(goal.norm) in candidate.summary


def test_the_candidates_recipe_makes_the_candidate_again(digits: Case) -> None:
    candidate = hardened(digits, eps=0.1, epochs=2)
    again = candidate.recipe.fit(digits.data("train"), {}, lab().rng("candidate"))
    assert again.digest == candidate.model.digest == hardened(digits, eps=0.1, epochs=2).model.digest
    assert candidate.recipe.digest != digits.recipe.digest
    assert candidate.recipe.digest != hardened(digits, eps=0.2, epochs=2).recipe.digest
    longer = candidate.recipe.fit(digits.data("train"), {"weight_decay": 0.5}, lab().rng("candidate"))
    assert longer.digest != again.digest


def test_a_linear_model_is_moved_to_the_corner_that_the_closed_form_names() -> None:
    net = nn.Linear(4, 2).double()
    x, y = torch.zeros(8, 4, dtype=torch.float64), torch.tensor([0, 1] * 4)
    plan = _Plan(Norm.LINF, 0.25, steps=2, step=1.0, ramp=0.0, average=0.0)
    schema = Schema(DataKind.TABLE, (4,), tuple(Feature(f"f{i}", lo=-3, hi=3, scale=1.0 + i) for i in range(4)))
    moved = _Moved(plan, schema, 1)(net, x, y).detach().numpy()
    away = np.sign((net.weight[1] - net.weight[0]).detach().numpy())
    expected = 0.25 * np.array([1.0, 2.0, 3.0, 4.0]) * np.where(y[:, None] == 0, away, -away)
    assert np.allclose(moved, expected)
    assert all(parameter.requires_grad for parameter in net.parameters())


@settings(max_examples=25)
@given(
    norm=st.sampled_from([Norm.LINF, Norm.L2]), eps=st.floats(0.01, 5), steps=st.integers(0, 3), seed=st.integers(0, 99)
)
def test_moved_samples_stay_in_ball_and_bounds_and_keep_what_is_fixed(
    norm: Norm, eps: float, steps: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.uniform(-3, 3, (20, 2)), rng.integers(0, 2, 20), rng.uniform(-0.5, 0.5, 20)])
    plan = _Plan(norm, eps, steps, 0.75, ramp=0.0, average=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).double()
        moved = _Moved(plan, TABLE, 1)(net, torch.tensor(x), torch.tensor(rng.integers(0, 2, 20))).detach().numpy()
    assert np.array_equal(moved[:, 1:3], x[:, 1:3])
    assert inside(Ball(norm, eps, TABLE.lo, TABLE.hi, TABLE.scale), x, moved).all()


def findings(norm: str, *radii: float) -> tuple[Finding, ...]:
    metric = next(one for one in METRICS if one.name == "evasion.robust_accuracy")
    items = [
        metric.measured(clopper_pearson(2, 100), method="m", about=norm, at={"norm": norm, "eps": r}) for r in radii
    ]
    return tuple(one for one in judge("evasion/standard", items) if isinstance(one, Finding))


def test_the_ball_is_the_users_else_the_findings_else_the_standard_probes(digits: Case) -> None:
    found = findings("l2", 0.5, 1.5, 1.0)
    assert hardened(digits, found, epochs=1).settings["eps"] == 1.0
    assert hardened(digits, found, epochs=1).settings["norm"] == "l2"
    assert hardened(digits, found, epochs=1, eps=0.7).settings["eps"] == 0.7
    assert hardened(digits, found, epochs=1, norm="linf").settings["eps"] == 0.2
    assert hardened(digits, epochs=1).settings == {**hardened(digits, epochs=1).settings, "norm": "linf", "eps": 0.2}


def test_the_kept_weights_are_the_average_of_the_last_half() -> None:
    plan = _Plan(Norm.LINF, 0.1, 0, 0.75, ramp=0.0, average=0.5)
    net = nn.Linear(2, 2)
    schema = Schema(DataKind.TABLE, (2,), (Feature("a"), Feature("b")))
    moved = _Moved(plan, schema, 4)
    with torch.no_grad():
        for step in range(5):
            net.weight.fill_(float(step))
            if step < 4:
                moved(net, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    moved.settle(net)
    # Weights 2, 3, 4 were seen in the second half: 2, then 2.5, then 3.25.
    assert torch.allclose(net.weight, torch.full((2, 2), 3.25))


def test_other_recipes_and_wrong_balls_are_refused_with_the_mend(digits: Case) -> None:
    other = Recipe(lambda data, init, rng: digits.the_model(), "sha256:0")
    with pytest.raises(Unavailable, match="recipe_of"):
        hardened(replace(digits, recipe=other))
    with pytest.raises(ConfigError, match="linf or l2"):
        hardened(digits, norm="l1")
    with pytest.raises(ConfigError, match="eps > 0"):
        hardened(digits, eps=-0.1)


def test_what_training_costs_is_charged_before_it_begins(digits: Case) -> None:
    paid = lab(eps=0.1, epochs=2, steps=3)
    train_adversarially.function(digits.without_test(), (), paid)
    assert paid.meter.spent.forwards == paid.meter.spent.backwards == 2 * 4 * 400
