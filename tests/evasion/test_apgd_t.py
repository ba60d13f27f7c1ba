"""APGD-T: the optimum of linear models, what the race saves, restarts, random streams, bad input."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evasion.makers import NORMS, attacked, batch_from, cnn, image_case, torch_linear, torch_model, uneven_table
from torch import nn

from casemate.core.bracket import Goal
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.errors import ConfigError, UsageError
from casemate.evasion.apgd import ApgdOptions, apgd_attack
from casemate.evasion.apgd_t import ApgdTOptions, apgd_t_attack
from casemate.evasion.linear import linear_attack

BALLS = (*NORMS, Norm.L1)


@pytest.mark.parametrize("norm", BALLS)
def test_it_breaks_the_samples_of_a_linear_model_at_one_percent_above_the_optimum(norm: Norm) -> None:
    case = image_case(torch_linear(), n=40)
    exact, _ = attacked(linear_attack, case, Goal(norm, float("inf")))
    for row in np.flatnonzero(exact.upper > 0)[::6]:
        goal, batch = Goal(norm, float(exact.upper[row]) * 1.01), batch_from(case, slice(row, row + 1))
        ledger, _ = attacked(apgd_t_attack, case, goal, options=ApgdTOptions(steps=60), batch=batch)
        assert exact.upper[row] * (1 - 1e-4) <= ledger.upper[0] <= goal.eps * (1 + 1e-6)
        short = Goal(norm, float(exact.upper[row]) * 0.99)
        ledger, _ = attacked(apgd_t_attack, case, short, options=ApgdTOptions(steps=20), batch=batch)
        assert not np.isfinite(ledger.upper[0])


def test_the_race_breaks_what_nine_whole_runs_break_for_less_than_a_third_of_the_gradients() -> None:
    case, goal = image_case(torch_model(cnn()), n=64), Goal(Norm.LINF, 0.05)
    raced, lab = attacked(apgd_t_attack, case, goal, options=ApgdTOptions(restarts=0))
    whole, other = attacked(apgd_t_attack, case, goal, options=ApgdTOptions(steps=100, targets=1, restarts=0))
    assert 0.2 < raced.broken(goal.eps).mean() < 0.9
    assert raced.broken(goal.eps).sum() >= whole.broken(goal.eps).sum()
    standing = int((~raced.broken(goal.eps)).sum())
    assert standing * 100 < lab.meter.spent.backwards < 9 * 100 * standing / 3
    assert other.meter.spent.backwards < lab.meter.spent.backwards


def test_samples_that_came_near_are_started_again_and_others_are_not() -> None:
    case, goal = image_case(torch_model(cnn()), n=64), Goal(Norm.LINF, 0.05)
    spent = []
    for near in (0.0, 0.25, 10.0):
        ledger, lab = attacked(apgd_t_attack, case, goal, options=ApgdTOptions(steps=30, restarts=4, near=near))
        spent.append(lab.meter.spent.backwards)
    standing = int((~ledger.broken(goal.eps)).sum())
    assert spent[0] < spent[1] < spent[2]
    assert spent[2] - spent[0] == pytest.approx(standing * 4 * (30 + 60), rel=0.3)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(0.01, 0.5), st.sampled_from(BALLS))
def test_claims_lie_inside_ball_and_bounds_and_name_each_sample_once(seed: int, eps: float, norm: Norm) -> None:
    case, schema = uneven_table(seed)
    batch = batch_from(case)
    lab = Lab("evasion/apgd_t", seed, options=ApgdTOptions(steps=6, targets=4, restarts=2))
    for claim in apgd_t_attack(case, batch, Goal(norm, eps), lab):
        if claim.x is None:  # by how much the others stand
            assert claim.lead is not None
            continue
        assert len(np.unique(claim.rows)) == len(claim.rows)
        assert np.all(distance(norm, batch.x[claim.rows], claim.x, schema.scale) <= eps * (1 + 1e-12))
        assert np.all(claim.x[:, 1] == batch.x[claim.rows, 1])


def test_a_sample_fares_the_same_whichever_samples_share_its_batch() -> None:
    case = image_case(torch_model(copy.deepcopy(cnn()).double()), n=30, dtype=np.float64)
    goal, options = Goal(Norm.LINF, 0.05), ApgdTOptions(steps=25)
    together, _ = attacked(apgd_t_attack, case, goal, options=options)
    for part in (slice(0, 7), slice(7, 30)):
        apart, _ = attacked(apgd_t_attack, case, goal, options=options, batch=batch_from(case, part))
        assert np.array_equal(apart.broken(goal.eps), together.broken(goal.eps)[part])


def test_it_breaks_what_cross_entropy_cannot_see() -> None:
    net = nn.Sequential(cnn(), Times(1e4))
    case, goal = image_case(torch_model(net), n=48), Goal(Norm.LINF, 0.1)
    blind, _ = attacked(apgd_attack, case, goal, options=ApgdOptions(steps=25))
    seeing, _ = attacked(apgd_t_attack, case, goal, options=ApgdTOptions(steps=25))
    assert seeing.broken(goal.eps).mean() > blind.broken(goal.eps).mean() + 0.2


class Times(nn.Module):
    """Logits times a number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.number * z


def test_a_target_is_the_only_success_and_a_budget_ends_it_with_what_was_found() -> None:
    case = image_case(torch_model(cnn()), n=40)
    ledger, _ = attacked(apgd_t_attack, case, Goal(Norm.LINF, 0.2, 3), options=ApgdTOptions(steps=25))
    hit = np.flatnonzero(ledger.broken(0.2) & (ledger.upper > 0))
    assert len(hit)
    assert np.all(case.the_model().labels(ledger.witness[hit]) == 3)
    ledger, lab = attacked(apgd_t_attack, case, Goal(Norm.LINF, 0.1), options=ApgdTOptions(steps=50), limit=4_000)
    assert lab.meter.refusals == 1
    assert lab.meter.spent.propagations <= 4_100  # what judges the claims is counted and not limited
    assert ledger.broken(0.1).any()


@pytest.mark.parametrize("given_", [{"steps": 0}, {"targets": 0}, {"restarts": -1}])
def test_it_refuses_no_steps_no_targets_and_a_ball_without_end(given_: dict[str, Any]) -> None:
    case = image_case(torch_model(cnn()), n=4)
    with pytest.raises(ConfigError, match="leave them out"):
        attacked(apgd_t_attack, case, Goal(Norm.LINF, 0.1), options=ApgdTOptions(**given_))
    with pytest.raises(UsageError, match="finite eps"):
        attacked(apgd_t_attack, case, Goal(Norm.LINF, float("inf")), options=ApgdTOptions())
