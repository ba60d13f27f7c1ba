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
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance, halfspace_distance
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.engine.harness import wrong
from casemate.engine.prepared import prepare
from casemate.errors import ConfigError
from casemate.evasion.apgd import ApgdOptions, apgd_attack
from casemate.evasion.fab import FabOptions, fab_attack
from casemate.evasion.fmn import FmnOptions, fmn_attack

NORMS = (Norm.LINF, Norm.L2, Norm.L1)
INF = float("inf")


def linear_case(classes: int) -> tuple[Case, nn.Linear]:
    """A random linear model on a table with bounds and unequal scales."""
    rng = np.random.default_rng(classes)
    layer = nn.Linear(12, classes).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rng.normal(size=(classes, 12))))
        layer.bias.copy_(torch.tensor(rng.normal(size=classes) / 4))
    features = tuple(Feature(f"f{i}", lo=-1.0, hi=1.0, scale=s) for i, s in enumerate(rng.uniform(0.2, 5, size=12)))
    model = torch_model(layer)
    x = rng.uniform(-1, 1, size=(24, 12))
    return Case(
        model=model, splits=Splits(test=Data(x, Schema(DataKind.TABLE, (12,), features), model.labels(x)))
    ), layer


def distances(case: Case, layer: nn.Linear, norm: Norm) -> np.ndarray:
    """The exact distance of each sample from each class `(n, k)`'s half-space; infinite for its own."""
    data = case.data("test")
    weights, bias = (part.detach().numpy().astype(np.float64) for part in (layer.weight, layer.bias))
    x, y, box = data.x.astype(np.float64), data.labels, data.schema
    found = np.full((len(x), len(bias)), INF)
    for other in range(len(bias)):
        slope, level = weights[other] - weights[y], bias[y] - bias[other]
        far, _ = halfspace_distance(norm, x, slope, level, lo=box.lo, hi=box.hi, scale=box.scale)
        found[:, other] = np.where(y == other, INF, far)
    return found


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_it_comes_within_one_percent_of_the_optimum_of_a_linear_model(norm: Norm, classes: int) -> None:
    case, layer = linear_case(classes)
    exact = distances(case, layer, norm).min(axis=1)
    found, _ = attacked(fab_attack, case, Goal(norm, INF), options=FabOptions(steps=20, targets=9))
    there = np.isfinite(exact)
    assert there.sum() > 12
    assert np.array_equal(np.isfinite(found.upper), there)
    assert np.all(found.upper[there] >= exact[there] * (1 - 1e-6))
    assert np.all(found.upper[there] <= exact[there] * 1.01)


def test_its_gradients_and_forwards_are_counted_exactly() -> None:
    case, _ = linear_case(10)
    lab = Lab("evasion/fab", 0, options=FabOptions(steps=7, restarts=2, targets=4))
    (claim,) = fab_attack(case, batch_from(case), Goal(Norm.L2, INF), lab)
    preparation = Meter()
    prepare(case.the_model(), batch_from(case).x, preparation)
    # Four targets twice; forwards besides: the logits of x, three points of the final search.
    assert lab.meter.spent.backwards == 24 * 4 * 7 * 2
    besides = lab.meter.spent.forwards - lab.meter.spent.backwards - preparation.spent.forwards
    assert besides == 24 + 3 * len(claim.rows)


def test_the_target_is_the_only_success_of_a_targeted_goal() -> None:
    case, layer = linear_case(10)
    ledger, _ = attacked(fab_attack, case, Goal(Norm.L2, INF, target=8), options=FabOptions(steps=40))
    found = ledger.upper_by == "evasion/fab"
    assert found.sum() > 12
    assert np.all(case.the_model().labels(ledger.witness[found]) == 8)
    assert np.all(ledger.upper[found] >= distances(case, layer, Norm.L2)[found, 8] * (1 - 1e-6))


@settings(max_examples=15)
@given(st.integers(0, 1000), st.sampled_from(NORMS), st.sampled_from([INF, 0.3]))
def test_claims_are_wrong_and_within_bounds_and_eps_and_leave_fixed_features_alone(
    seed: int, norm: Norm, eps: float
) -> None:
    case, schema = uneven_table(seed)
    batch, options = batch_from(case), FabOptions(steps=10, restarts=2)
    for claim in fab_attack(case, batch, Goal(norm, eps), Lab("evasion/fab", seed, options=options)):
        assert claim.x is not None
        assert np.all(distance(norm, batch.x[claim.rows], claim.x, schema.scale) <= eps)
        assert np.all((claim.x >= -2.0) & (claim.x <= 3.0))
        assert np.all(claim.x[:, 1] == batch.x[claim.rows, 1])
        assert wrong(case.the_model(), claim.x, batch.y[claim.rows]).all()


@pytest.mark.parametrize("norm", NORMS)
def test_whole_numbers_come_as_near_as_brute_force_on_a_grid(norm: Norm) -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.7]]))
        layer.bias.copy_(torch.tensor([0.0, -11.37]))
    model = torch_model(layer)
    features = tuple(
        Feature(name, FeatureKind.INTEGER, lo=0.0, hi=12.0, scale=s) for name, s in (("a", 1.0), ("b", 2.0))
    )
    grid = np.stack(np.meshgrid(np.arange(13.0), np.arange(13.0)), axis=-1).reshape(-1, 2)
    x = grid[::7].astype(np.float32)
    schema = Schema(DataKind.TABLE, (2,), features)
    case = Case(model=model, splits=Splits(test=Data(x, schema, model.labels(x))))
    found, _ = attacked(fab_attack, case, Goal(norm, INF), options=FabOptions(steps=60))
    assert np.isfinite(found.upper).all()
    assert np.all(found.witness == np.rint(found.witness))
    answers = model.labels(grid)
    one = distance(norm, np.zeros((1, 2)), np.ones((1, 2)), schema.scale)[0]
    for row, (point, label) in enumerate(zip(x, case.data("test").labels, strict=True)):
        others = grid[answers != label]
        best = distance(norm, np.broadcast_to(point, others.shape), others, schema.scale).min()
        assert best <= found.upper[row] <= best + one


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_fares_the_same_whichever_samples_share_its_batch(norm: Norm) -> None:
    case = image_case(torch_model(copy.deepcopy(cnn()).double()), n=30, dtype=np.float64)
    options = FabOptions(steps=10, restarts=2)
    whole, _ = attacked(fab_attack, case, Goal(norm, INF), options=options)
    rows = np.arange(0, 30, 4)
    part, _ = attacked(fab_attack, case, Goal(norm, INF), options=options, batch=batch_from(case, rows))
    np.testing.assert_allclose(part.upper, whole.upper[rows], rtol=1e-6)


def test_it_is_as_near_as_other_attacks_and_more_targets_are_never_worse() -> None:
    case = image_case(torch_model(cnn()), n=32)
    few, _ = attacked(fab_attack, case, Goal(Norm.LINF, INF), options=FabOptions(steps=20, targets=1))
    many, _ = attacked(fab_attack, case, Goal(Norm.LINF, INF), options=FabOptions(steps=20, targets=9))
    assert np.isfinite(many.upper).all()
    assert np.all(many.upper <= few.upper * 1.01)
    assert many.upper.sum() < few.upper.sum()
    walked, _ = attacked(fmn_attack, case, Goal(Norm.LINF, INF), options=FmnOptions(steps=180))
    assert many.upper.mean() <= walked.upper.mean()
    eps = float(np.median(many.upper))
    ball, _ = attacked(apgd_attack, case, Goal(Norm.LINF, eps), options=ApgdOptions(steps=50))
    assert many.broken(eps).sum() >= ball.broken(eps).sum() - 1


def test_a_finite_eps_ends_a_sample_and_a_budget_keeps_what_was_found() -> None:
    case, options = image_case(torch_model(cnn()), n=48), FabOptions(steps=30)
    _, whole = attacked(fab_attack, case, Goal(Norm.LINF, INF), options=options)
    ledger, lab = attacked(fab_attack, case, Goal(Norm.LINF, 0.5), options=options)
    assert ledger.broken(0.5).all()
    assert lab.meter.spent.backwards < whole.meter.spent.backwards / 4
    stopped, lab = attacked(fab_attack, case, Goal(Norm.LINF, INF), options=options, limit=2500)
    found = (stopped.upper > 0) & np.isfinite(stopped.upper)
    assert lab.meter.refusals == 1
    assert found.any()
    assert wrong(case.the_model(), stopped.witness[found], case.data("test").labels[found]).all()


def test_missing_values_stay_and_the_rest_is_attacked() -> None:
    class Filled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.nan_to_num(x))

    torch.manual_seed(1)
    model = torch_model(Filled())
    x = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    x[::2, 0] = np.nan
    features = tuple(Feature(name, missing_ok=True) for name in "abc")
    schema = Schema(DataKind.TABLE, (3,), features)
    case = Case(model=model, splits=Splits(test=Data(x, schema, model.labels(x))))
    ledger, _ = attacked(fab_attack, case, Goal(Norm.L2, INF), options=FabOptions(steps=20))
    assert np.isfinite(ledger.upper).all()
    assert np.array_equal(np.isnan(ledger.witness), np.isnan(x))


@pytest.mark.parametrize("bad", [{"steps": 0}, {"restarts": 0}, {"targets": 0}])
def test_it_refuses_to_do_nothing(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="steps, restarts and targets"):
        attacked(fab_attack, image_case(torch_linear(), n=4), Goal(Norm.L2, INF), options=FabOptions(**bad))
