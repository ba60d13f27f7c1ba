from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evasion.makers import attacked, batch_from, cnn, image_case, logistic, torch_linear, torch_model
from torch import nn

from casemate.core.bracket import Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.norms import Norm
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.errors import ConfigError
from casemate.evasion import sigma_zero
from casemate.evasion.sigma_zero import SigmaZeroOptions, sigma_zero_attack

GOAL = Goal(Norm.L0, float("inf"))


def fewest_by_sorting(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The exact number of pixels of a linear model that have to change: those that gain most, in order of gain."""
    weights, bias = logistic().coef_, logistic().intercept_
    fewest = np.full(len(x), np.inf)
    for row, (pixels, own) in enumerate(zip(x.reshape(len(x), -1).astype(np.float64), y, strict=True)):
        scores = weights @ pixels + bias
        for other in set(range(10)) - {int(own)}:
            slope = weights[other] - weights[own]
            gain = np.sort(np.where(slope > 0, slope * (1 - pixels), -slope * pixels))[::-1].cumsum()
            over = np.flatnonzero(gain > scores[own] - scores[other])
            fewest[row] = min(fewest[row], over[0] + 1) if len(over) else fewest[row]
    return fewest


def test_on_a_linear_model_it_changes_as_few_pixels_as_sorting_says() -> None:
    case = image_case(torch_linear(), n=60)
    ledger, _ = attacked(sigma_zero_attack, case, GOAL, options=SigmaZeroOptions(steps=300))
    right = ledger.upper > 0
    data = case.data("test")
    exact = fewest_by_sorting(data.x, data.labels)
    assert (ledger.upper[right] >= exact[right]).all()
    assert np.median(ledger.upper[right]) == np.median(exact[right])
    assert (ledger.upper[right] == exact[right]).mean() > 0.9


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_claims_keep_bounds_fixed_features_and_whole_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    features = tuple(
        Feature(f"f{i}", FeatureKind.INTEGER if i == 3 else FeatureKind.NUMERIC, lo=-2.0, hi=3.0, immutable=i == 1)
        for i in range(5)
    )
    model = torch_model(nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3)))
    x = np.concatenate([rng.uniform(-2, 3, (16, 3)), rng.integers(-2, 4, (16, 1)), rng.uniform(-2, 3, (16, 1))], axis=1)
    case = Case(model=model, splits=Splits(test=Data(x, Schema(DataKind.TABLE, (5,), features), model.labels(x))))
    batch = batch_from(case)
    for claim in sigma_zero_attack(case, batch, GOAL, Lab("evasion/sigma_zero", seed, options=SigmaZeroOptions(30))):
        assert claim.x is not None
        assert np.all((claim.x >= -2.0) & (claim.x <= 3.0))
        assert np.all(claim.x[:, 1] == batch.x[claim.rows, 1])
        assert np.all(claim.x[:, 3] == np.rint(claim.x[:, 3]))


def test_the_threshold_moves_and_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published code's first threshold update worked on a copy, and moved nothing."""
    case = image_case(torch_model(cnn()), n=100)
    moving, lab = attacked(sigma_zero_attack, case, GOAL, options=SigmaZeroOptions(steps=100))
    assert lab.meter.spent.backwards <= 100 * 100
    monkeypatch.setattr(sigma_zero, "_SHIFT", 0.0)
    still, _ = attacked(sigma_zero_attack, case, GOAL, options=SigmaZeroOptions(steps=100))
    assert moving.upper.mean() < still.upper.mean()


def test_no_sample_depends_on_its_neighbours() -> None:
    case = image_case(torch_model(copy.deepcopy(cnn()).double()), n=40, dtype=np.float64)
    options = SigmaZeroOptions(steps=80)
    whole, _ = attacked(sigma_zero_attack, case, GOAL, options=options)
    rows = np.arange(0, 40, 7)
    part, _ = attacked(sigma_zero_attack, case, GOAL, options=options, batch=batch_from(case, rows))
    np.testing.assert_array_equal(part.upper, whole.upper[rows])


def test_it_refuses_no_steps_and_keeps_what_was_found_when_the_budget_ends() -> None:
    case = image_case(torch_model(cnn()), n=40)
    with pytest.raises(ConfigError, match="steps"):
        attacked(sigma_zero_attack, case, GOAL, options=SigmaZeroOptions(steps=0))
    ledger, lab = attacked(sigma_zero_attack, case, GOAL, options=SigmaZeroOptions(steps=200), limit=6000)
    assert lab.meter.refusals == 1
    assert np.isfinite(ledger.upper).sum() > 20
