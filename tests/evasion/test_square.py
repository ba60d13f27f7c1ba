from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evasion.makers import NORMS, attacked, batch_from, cnn, image_case, image_schema, torch_linear, torch_model
from torch import nn

from casemate.core.bracket import Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.errors import UsageError
from casemate.evasion.apgd import ApgdOptions, apgd_attack
from casemate.evasion.linear import linear_attack
from casemate.evasion.search import share
from casemate.evasion.square import SquareOptions, square_attack


class Masked(nn.Module):
    """A planted defence that only hides the gradient: the input is rounded to sixteenths, whose derivative is zero."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(torch.round(x * 16) / 16)
        return out


def test_a_model_that_masks_its_gradient_is_broken_by_square_where_apgd_is_not() -> None:
    case = image_case(torch_model(Masked(cnn())), n=32)
    goal = Goal(Norm.LINF, 0.25)
    blind, _ = attacked(apgd_attack, case, goal, options=ApgdOptions(steps=20, straight=False))
    seeing, _ = attacked(square_attack, case, goal, options=SquareOptions(queries=150))
    assert seeing.broken(goal.eps).mean() > 0.8
    assert blind.broken(goal.eps).mean() < seeing.broken(goal.eps).mean() - 0.2


@pytest.mark.parametrize("norm", NORMS)
def test_on_a_linear_model_it_comes_near_the_closed_form_and_never_passes_it(norm: Norm) -> None:
    case = image_case(torch_linear(), n=40)
    exact, _ = attacked(linear_attack, case, Goal(norm, float("inf")))
    eps = float(np.median(exact.upper)) * 1.5
    ledger, _ = attacked(square_attack, case, Goal(norm, eps), options=SquareOptions(queries=400))
    found = np.isfinite(ledger.upper)
    assert np.all(ledger.upper[found] >= exact.upper[found] * (1 - 1e-4))
    assert found.sum() >= (0.9 if norm is Norm.LINF else 0.6) * np.sum(exact.upper <= eps)


@settings(max_examples=15)
@given(
    st.integers(0, 1000),
    st.floats(0.01, 0.6),
    st.sampled_from(NORMS),
    st.sampled_from([(1, 4, 4), (3, 7, 5), (2, 1, 6)]),
)
def test_claims_lie_inside_ball_and_bounds_for_every_shape(
    seed: int, eps: float, norm: Norm, shape: tuple[int, int, int]
) -> None:
    torch.manual_seed(seed)
    model = torch_model(nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 3)))
    x = np.random.default_rng(seed).uniform(0, 1, size=(12, *shape)).astype(np.float32)
    case = Case(model=model, splits=Splits(test=Data(x, image_schema(*shape), model.labels(x))))
    lab = Lab("evasion/square", seed, options=SquareOptions(queries=12))
    for claim in square_attack(case, batch_from(case), Goal(norm, eps), lab):
        assert claim.x is not None
        assert np.all(distance(norm, x[claim.rows], claim.x) <= eps * (1 + 1e-12))
        assert claim.x.min() >= 0
        assert claim.x.max() <= 1
        assert np.all(model.labels(claim.x) != case.data("test").labels[claim.rows])


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_fares_the_same_whichever_samples_share_its_batch(norm: Norm) -> None:
    case = image_case(torch_linear(torch.float64), n=30, dtype=np.float64)
    goal = Goal(norm, 0.12 if norm is Norm.LINF else 0.8)
    whole, _ = attacked(square_attack, case, goal, options=SquareOptions(queries=60))
    rows = np.arange(29, 0, -4)
    part, _ = attacked(square_attack, case, goal, options=SquareOptions(queries=60), batch=batch_from(case, rows))
    assert np.array_equal(part.broken(goal.eps), whole.broken(goal.eps)[rows])
    assert np.array_equal(part.witness, whole.witness[rows])


def test_broken_samples_cost_no_further_queries() -> None:
    case = image_case(torch_linear(), n=30)
    ledger, lab = attacked(square_attack, case, Goal(Norm.LINF, 0.5), options=SquareOptions(queries=500))
    assert ledger.broken(0.5).all()
    assert lab.meter.spent.forwards < 30 * 50


def test_a_target_is_the_only_success_of_a_targeted_goal() -> None:
    case = image_case(torch_linear(), n=30)
    ledger, _ = attacked(square_attack, case, Goal(Norm.LINF, 0.5, target=8), options=SquareOptions(queries=150))
    found = ledger.upper_by == "evasion/square"
    assert found.sum() > 10
    assert np.all(case.the_model().labels(ledger.witness[found]) == 8)


def test_the_schedule_is_that_of_the_paper_at_ten_thousand_queries() -> None:
    """Section 3.2: p is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 queries."""
    halved = [i for i in range(1, 10_000) if share(i + 1, 10_000, 0.8) < share(i, 10_000, 0.8)]
    assert halved == [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]


def test_it_needs_a_ball() -> None:
    with pytest.raises(UsageError, match="finite eps"):
        attacked(square_attack, image_case(torch_linear(), n=4), Goal(Norm.LINF, float("inf")))
