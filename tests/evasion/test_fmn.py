from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evasion.makers import attacked, batch_from, cnn, image_case, torch_linear, torch_model, uneven_table
from torch import nn

from casemate.core.bracket import Goal
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.core.schema import Feature, Schema
from casemate.engine.ground import ground_of
from casemate.engine.harness import wrong
from casemate.engine.prepared import prepare
from casemate.engine.reach import reach_of
from casemate.errors import ConfigError
from casemate.evasion import fmn
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


def test_in_l1_even_few_steps_reach_the_optimum_of_a_linear_model_for_every_sample() -> None:
    case = image_case(torch_linear(), n=60)
    exact, _ = attacked(linear_attack, case, Goal(Norm.L1, INF))
    there = exact.upper > 0
    for steps in (60, 200):
        found, lab = attacked(fmn_attack, case, Goal(Norm.L1, INF), options=FmnOptions(steps=steps))
        assert (found.upper[there] <= exact.upper[there] * 1.01).all()
        assert 60 * (steps - 3) < lab.meter.spent.backwards <= 60 * steps


@settings(max_examples=25)
@given(st.integers(0, 1000), st.booleans())
def test_weighed_moves_fill_the_largest_weights_first_and_add_up_to_the_radius(seed: int, bounded: bool) -> None:
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.1, 5, size=6) * (np.arange(6) != 2)  # feature 2 is fixed
    features = tuple(
        Feature(f"f{i}", lo=-1.0 if bounded else -INF, hi=2.0 if bounded else INF, scale=s or 1.0, immutable=i == 2)
        for i, s in enumerate(scale)
    )
    x = rng.uniform(-1, 2, size=(8, 6))
    prepared = prepare(torch_model(nn.Linear(6, 2).double()), x)
    ground = ground_of(prepared, reach_of(Norm.L1, np.inf, x, Schema(DataKind.TABLE, (6,), features)))
    pull, radius = rng.normal(0, 4, size=(8, 6)), rng.uniform(0.01, 1.5, size=8)
    at = fmn._weighed(torch.tensor(pull), ground, torch.tensor(radius)).numpy()
    for row in range(8):
        assert at[row] == pytest.approx(_weighed_by_halving(x[row], pull[row], scale, radius[row], bounded), abs=1e-9)


def _weighed_by_halving(x: np.ndarray, pull: np.ndarray, scale: np.ndarray, radius: float, bounded: bool) -> np.ndarray:
    """The same one feature at a time, with the common factor found by bisection."""
    unit = np.where(scale > 0, scale, 1.0)
    ways = [(2.0 - x) / unit, (x + 1.0) / unit] if bounded else [np.full(6, np.inf)] * 2
    rooms = [np.minimum(way, radius) * (scale > 0) for way in ways]
    weights = [np.exp(sign * pull - np.abs(pull).max()) for sign in (1, -1)]
    low, high = 0.0, 1e30
    for _ in range(300):
        c = np.sqrt(max(low, 1e-30) * high)
        total = sum((np.minimum(1, c * w) * room).sum() for w, room in zip(weights, rooms, strict=True))
        low, high = (low, c) if total > radius else (c, high)
    up, down = (np.minimum(1, low * w) * room for w, room in zip(weights, rooms, strict=True))
    return x + (up - down) * scale


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


def test_in_l1_it_breaks_what_a_ball_attack_breaks_and_more_steps_bring_it_nearer() -> None:
    case = image_case(torch_model(cnn()), n=32)
    few, _ = attacked(fmn_attack, case, Goal(Norm.L1, INF), options=FmnOptions(steps=25))
    many, lab = attacked(fmn_attack, case, Goal(Norm.L1, INF))
    assert np.isfinite(many.upper).all()
    assert many.upper.mean() < few.upper.mean() * 0.99
    eps = float(np.median(many.upper))
    ball, _ = attacked(apgd_attack, case, Goal(Norm.L1, eps), options=ApgdOptions(steps=200))
    assert many.broken(eps).sum() >= ball.broken(eps).sum()
    assert 32 * 197 < lab.meter.spent.backwards <= 32 * 200


def test_it_is_nearer_than_what_a_ball_attack_breaks_and_the_race_pays() -> None:
    case = image_case(torch_model(cnn()), n=64)
    raced, lab = attacked(fmn_attack, case, Goal(Norm.LINF, INF), options=FmnOptions(steps=100))
    alone, _ = attacked(fmn_attack, case, Goal(Norm.LINF, INF), options=FmnOptions(steps=100, lanes=1))
    assert np.isfinite(raced.upper).all()
    assert raced.upper.mean() <= alone.upper.mean() * 1.001
    eps = float(np.median(raced.upper))
    ball, _ = attacked(apgd_attack, case, Goal(Norm.LINF, eps), options=ApgdOptions(steps=50))
    assert raced.broken(eps).sum() >= ball.broken(eps).sum() - 1
    assert lab.meter.spent.backwards == 64 * 100 + 32  # `prepare` compares some gradients first


@pytest.mark.parametrize(("norm", "eps"), [(Norm.LINF, 0.5), (Norm.L1, 12.0)])
def test_a_finite_eps_ends_a_sample_and_a_budget_keeps_what_was_found(norm: Norm, eps: float) -> None:
    case = image_case(torch_model(cnn()), n=48)
    _, whole = attacked(fmn_attack, case, Goal(norm, INF), options=FmnOptions(steps=100))
    ledger, lab = attacked(fmn_attack, case, Goal(norm, eps), options=FmnOptions(steps=100))
    assert ledger.broken(eps).all()
    assert lab.meter.spent.backwards < whole.meter.spent.backwards / 2
    stopped, lab = attacked(fmn_attack, case, Goal(norm, INF), options=FmnOptions(steps=100), limit=6000)
    found = (stopped.upper > 0) & np.isfinite(stopped.upper)
    assert lab.meter.refusals == 1
    assert found.any()
    assert wrong(case.the_model(), stopped.witness[found], case.data("test").labels[found]).all()


def test_it_refuses_no_steps() -> None:
    with pytest.raises(ConfigError, match="steps and lanes"):
        attacked(fmn_attack, image_case(torch_linear(), n=4), Goal(Norm.L2, INF), options=FmnOptions(steps=0))
