from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evasion.makers import (
    attacked,
    batch_from,
    cnn,
    image_case,
    image_schema,
    torch_linear,
    torch_model,
    uneven_table,
)
from torch import nn

from casemate.core.bracket import Goal
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.engine.prepared import prepare
from casemate.errors import BudgetExhausted, ConfigError, UsageError
from casemate.evasion.apgd import ApgdOptions, apgd_attack
from casemate.evasion.linear import linear_attack
from casemate.evasion.varied import VariedOptions, varied_attack
from casemate.evasion.watched import watch_units

BALLS = (Norm.LINF, Norm.L2)
EPS = 0.1


class Needle(nn.Module):
    """Class 0 everywhere but near one corner of the ball around a point: a unit that is off wherever else one looks."""

    def __init__(self, x: torch.Tensor, corner: torch.Tensor) -> None:
        super().__init__()
        self.unit = nn.Linear(x.numel(), 1)
        self.last = nn.Linear(1, 2)
        with torch.no_grad():
            self.unit.weight.copy_(corner[None] / x.numel() / EPS)
            self.unit.bias.copy_(-(self.unit.weight @ x.reshape(-1)) - 0.9)
            self.last.weight.copy_(torch.tensor([[0.0], [100.0]]))
            self.last.bias.copy_(torch.tensor([1.0, 0.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.unit(x.flatten(1))))


def needles(seed: int, n: int = 1) -> Case:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.3, 0.7, size=(1, 1, 5, 5)).astype(np.float32)
    corner = torch.tensor(rng.choice([-1.0, 1.0], size=25), dtype=torch.float32)
    model = torch_model(Needle(torch.tensor(x[0]), corner))
    images = np.repeat(x, n, axis=0)
    return Case(model=model, splits=Splits(test=Data(images, image_schema(1, 5, 5), np.zeros(n, dtype=np.int64))))


def test_it_finds_a_corner_behind_a_unit_that_is_off_where_a_gradient_on_the_answer_shows_nothing() -> None:
    for seed in range(3):
        case = needles(seed)
        usual, _ = attacked(apgd_attack, case, Goal(Norm.LINF, EPS), options=ApgdOptions(steps=50, restarts=3))
        assert not np.isfinite(usual.upper).any()
        ledger, _ = attacked(varied_attack, case, Goal(Norm.LINF, EPS))
        assert ledger.broken(EPS).all()


def test_it_finds_what_an_exhaustive_search_of_all_corners_finds() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))
    model = torch_model(module)
    x = np.random.default_rng(0).uniform(-1, 1, size=(60, 8))
    y = model.labels(x)
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=8)))
    eps = 0.35
    broken = np.array([(model.labels(row + eps * corners) != own).any() for row, own in zip(x, y, strict=True)])
    assert 0.1 < broken.mean() < 0.9
    ledger, _ = attacked(
        varied_attack, plain_table(model, x, y), Goal(Norm.LINF, eps), options=VariedOptions(most=4000)
    )
    assert ledger.broken(eps)[broken].all()


def plain_table(model, x: np.ndarray, y: np.ndarray) -> Case:  # type: ignore[no-untyped-def]
    from casemate.core.facets import DataKind
    from casemate.core.schema import Feature, Schema

    schema = Schema(DataKind.TABLE, x.shape[1:], tuple(Feature(f"f{i}") for i in range(x.shape[1])))
    return Case(model=model, splits=Splits(test=Data(x, schema, y)))


def test_it_walks_from_corner_to_corner_where_there_is_no_gradient() -> None:
    """A net that counts: all eight coordinates must be high at once, which one random corner in 256 is."""

    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            count = (x > 0.05).sum(dim=1, dtype=x.dtype) - (x < -0.05).sum(dim=1, dtype=x.dtype)
            return torch.stack([torch.full_like(count, 7.5), count], dim=1)

    case = plain_table(torch_model(Counting()), np.zeros((2, 8)), np.zeros(2, dtype=np.int64))
    options = VariedOptions(gradients=400, work=0.0)
    ledger, _ = attacked(varied_attack, case, Goal(Norm.LINF, 0.1), options=options)
    assert ledger.broken(0.1).all()


@pytest.mark.parametrize("norm", BALLS)
def test_it_breaks_every_sample_of_a_linear_model_at_one_percent_above_the_optimum(norm: Norm) -> None:
    case = image_case(torch_linear(), n=12)
    exact, _ = attacked(linear_attack, case, Goal(norm, float("inf")))
    for row in np.flatnonzero(exact.upper > 0)[::3]:
        goal = Goal(norm, float(exact.upper[row]) * 1.01)
        ledger, _ = attacked(varied_attack, case, goal, batch=batch_from(case, slice(row, row + 1)))
        assert exact.upper[row] * (1 - 1e-4) <= ledger.upper[0] <= goal.eps * (1 + 1e-6)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(0.01, 0.5), st.sampled_from(BALLS))
def test_claims_lie_inside_ball_and_bounds_and_leave_fixed_features_alone(seed: int, eps: float, norm: Norm) -> None:
    case, schema = uneven_table(seed)
    batch = batch_from(case)
    lab = Lab("evasion/varied", seed, options=VariedOptions(gradients=60, work=0.0))
    for claim in varied_attack(case, batch, Goal(norm, eps), lab):
        assert claim.x is not None
        assert np.all(distance(norm, batch.x[claim.rows], claim.x, schema.scale) <= eps * (1 + 1e-12))
        assert np.all((claim.x >= -2.0) & (claim.x <= 3.0))
        assert np.all(claim.x[:, 1] == batch.x[claim.rows, 1])


@pytest.mark.parametrize("norm", BALLS)
def test_a_sample_fares_the_same_whichever_samples_share_its_batch(norm: Norm) -> None:
    case = image_case(torch_model(copy.deepcopy(cnn()).double()), n=24, dtype=np.float64)
    goal, options = Goal(norm, {Norm.LINF: 0.1, Norm.L2: 0.4}[norm]), VariedOptions(gradients=100, work=0.0)
    whole, _ = attacked(varied_attack, case, goal, options=options)
    for rows in (np.arange(0, 24, 3), np.arange(23, 0, -5)):
        part, _ = attacked(varied_attack, case, goal, options=options, batch=batch_from(case, rows))
        assert np.array_equal(part.broken(goal.eps), whole.broken(goal.eps)[rows])
        assert np.allclose(part.witness, whole.witness[rows], atol=1e-6)
    assert 0.1 < whole.broken(goal.eps).mean() < 1


def test_what_it_costs_follows_from_the_size_of_the_net_and_few_inputs_get_more() -> None:
    robust = nn.Sequential(nn.Flatten(), nn.Linear(25, 10), nn.ReLU(), nn.Linear(10, 2))
    with torch.no_grad():
        robust[3].weight.zero_()
        robust[3].bias.copy_(torch.tensor([1.0, 0.0]))
    spent = {}
    for side, work in ((5, 0.0), (5, 270_000.0), (28, 270_000.0)):
        net = robust if side == 5 else nn.Sequential(nn.AvgPool2d(5, 5), robust)
        x = np.full((2, 1, side, side), 0.5, dtype=np.float32)
        data = Data(x, image_schema(1, side, side), np.zeros(2, dtype=np.int64))
        case = Case(model=torch_model(net), splits=Splits(test=data))
        _, lab = attacked(varied_attack, case, Goal(Norm.LINF, 0.1), options=VariedOptions(gradients=300, work=work))
        spent[side, work] = lab.meter.spent.backwards / 2
        assert lab.meter.spent.propagations / 2 <= 2 * max(300, work / (26 * 10 + 11 * 2)) + 20
    assert spent[5, 0.0] == spent[28, 270_000.0] == 300
    assert 300 < spent[5, 270_000.0] <= 270_000 // (26 * 10 + 11 * 2)


def test_the_watched_units_are_what_goes_into_the_activations() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 10), nn.ReLU(), nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    x = np.random.default_rng(0).uniform(size=(7, 1, 5, 5)).astype(np.float32)
    ready = prepare(torch_model(net), x)
    wide, watcher = watch_units(ready, ready.tensor(x[:1]))
    inputs = torch.tensor(x)
    with torch.no_grad():
        expected = torch.cat([net(inputs), net[:4](inputs), net[:2](inputs)], dim=1)
        assert torch.allclose(wide.logits(inputs), expected, atol=1e-6)
    assert (watcher.classes, watcher.units, watcher.work) == (2, 14, 25 * 10 + 10 * 4 + 4 * 2 + 16)


def test_the_target_is_the_only_success_of_a_targeted_goal() -> None:
    case = image_case(torch_model(cnn()), n=24)
    options = VariedOptions(gradients=200, work=0.0)
    ledger, _ = attacked(varied_attack, case, Goal(Norm.LINF, 0.3, target=8), options=options)
    found = ledger.upper_by == "evasion/varied"
    assert found.sum() > 5
    assert np.all(case.the_model().labels(ledger.witness[found]) == 8)


def test_a_budget_that_ends_raises_after_the_claims() -> None:
    case = image_case(torch_model(cnn()), n=48)
    lab = Lab("evasion/varied", 0, options=VariedOptions(), meter=Meter(limit=1500))
    claims = varied_attack(case, batch_from(case), Goal(Norm.LINF, 0.12), lab)
    assert len(next(claims).rows) > 0
    with pytest.raises(BudgetExhausted):
        list(claims)


def test_it_refuses_what_it_cannot_do() -> None:
    case = image_case(torch_linear(), n=4)
    with pytest.raises(UsageError, match="finite eps"):
        attacked(varied_attack, case, Goal(Norm.LINF, float("inf")))
    with pytest.raises(ConfigError, match="gradients and most"):
        attacked(varied_attack, case, Goal(Norm.LINF, 0.1), options=VariedOptions(gradients=0))
