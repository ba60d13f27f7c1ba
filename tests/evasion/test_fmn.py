from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evasion.makers import attacked, batch_from, cnn, image_case, torch_linear, torch_model, uneven_table

from casemate.core.bracket import Goal
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.engine.harness import wrong
from casemate.errors import ConfigError
from casemate.evasion.apgd import ApgdOptions, apgd_attack
from casemate.evasion.fmn import FmnOptions, fmn_attack
from casemate.evasion.linear import linear_attack

NORMS = (Norm.LINF, Norm.L2, Norm.L1)
INF = float("inf")


@pytest.mark.parametrize("norm", NORMS)
def test_it_comes_within_one_percent_of_the_optimum_of_a_linear_model(norm: Norm) -> None:
    case = image_case(torch_linear(), n=60)
    exact, _ = attacked(linear_attack, case, Goal(norm, INF))
    found, _ = attacked(fmn_attack, case, Goal(norm, INF))
    there = exact.upper > 0
    assert np.isfinite(found.upper[np.isfinite(exact.upper)]).all()
    assert (found.upper[there] >= exact.upper[there] * (1 - 1e-4)).all()
    assert (found.upper[there] <= exact.upper[there] * 1.01).mean() > 0.95
    assert np.median(found.upper[there] / exact.upper[there]) < 1.005


def test_the_target_is_the_only_success_of_a_targeted_goal() -> None:
    case = image_case(torch_model(cnn()), n=48)
    ledger, _ = attacked(fmn_attack, case, Goal(Norm.L2, INF, target=8), options=FmnOptions(steps=60))
    found = ledger.upper_by == "evasion/fmn"
    assert found.sum() > 30
    assert np.all(case.the_model().labels(ledger.witness[found]) == 8)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.sampled_from(NORMS))
def test_claims_are_wrong_and_within_bounds_and_leave_fixed_features_alone(seed: int, norm: Norm) -> None:
    case, schema = uneven_table(seed)
    batch = batch_from(case)
    for claim in fmn_attack(case, batch, Goal(norm, INF), Lab("evasion/fmn", seed, options=FmnOptions(steps=20))):
        assert claim.x is not None
        assert np.isfinite(distance(norm, batch.x[claim.rows], claim.x, schema.scale)).all()
        assert np.all((claim.x >= -2.0) & (claim.x <= 3.0))
        assert np.all(claim.x[:, 1] == batch.x[claim.rows, 1])


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_fares_the_same_whichever_samples_share_its_batch(norm: Norm) -> None:
    case = image_case(torch_model(copy.deepcopy(cnn()).double()), n=30, dtype=np.float64)
    options = FmnOptions(steps=30)
    whole, _ = attacked(fmn_attack, case, Goal(norm, INF), options=options)
    rows = np.arange(0, 30, 4)
    part, _ = attacked(fmn_attack, case, Goal(norm, INF), options=options, batch=batch_from(case, rows))
    np.testing.assert_allclose(part.upper, whole.upper[rows], rtol=1e-6)


def test_it_is_nearer_than_what_a_ball_attack_breaks_and_the_race_pays() -> None:
    case = image_case(torch_model(cnn()), n=64)
    raced, lab = attacked(fmn_attack, case, Goal(Norm.LINF, INF), options=FmnOptions(steps=100))
    alone, _ = attacked(fmn_attack, case, Goal(Norm.LINF, INF), options=FmnOptions(steps=100, lanes=1))
    assert np.isfinite(raced.upper).all()
    assert raced.upper.mean() <= alone.upper.mean() * 1.001
    eps = float(np.median(raced.upper))
    ball, _ = attacked(apgd_attack, case, Goal(Norm.LINF, eps), options=ApgdOptions(steps=50))
    assert raced.broken(eps).sum() >= ball.broken(eps).sum() - 1
    assert lab.meter.spent.backwards == 64 * 100


def test_a_finite_eps_ends_a_sample_and_a_budget_keeps_what_was_found() -> None:
    case = image_case(torch_model(cnn()), n=48)
    _, whole = attacked(fmn_attack, case, Goal(Norm.LINF, INF), options=FmnOptions(steps=100))
    ledger, lab = attacked(fmn_attack, case, Goal(Norm.LINF, 0.5), options=FmnOptions(steps=100))
    assert ledger.broken(0.5).all()
    assert lab.meter.spent.backwards < whole.meter.spent.backwards / 2
    stopped, lab = attacked(fmn_attack, case, Goal(Norm.LINF, INF), options=FmnOptions(steps=100), limit=6000)
    found = (stopped.upper > 0) & np.isfinite(stopped.upper)
    assert lab.meter.refusals == 1
    assert found.any()
    assert wrong(case.the_model(), stopped.witness[found], case.data("test").labels[found]).all()


def test_it_refuses_no_steps() -> None:
    with pytest.raises(ConfigError, match="steps and lanes"):
        attacked(fmn_attack, image_case(torch_linear(), n=4), Goal(Norm.L2, INF), options=FmnOptions(steps=0))
