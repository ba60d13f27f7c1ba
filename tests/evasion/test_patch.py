"""Patches: a model that looks for a bright dot falls to them everywhere, controls do not, nothing else is touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evasion.makers import cnn, image_case, image_schema, torch_model
from torch import nn

import casemate
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.evidence import Evidence
from casemate.core.facets import DataKind
from casemate.core.lab import Lab, Stored
from casemate.core.metering import metered_case
from casemate.core.outcome import Skipped, SkipReason
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.errors import BudgetExhausted, ConfigError
from casemate.evasion.patch import GREY, KEPT, NOISE, PatchOptions, cover_with_patch


class Brightest(nn.Module):
    """Class 1 where some pixel is above 0.97 of the range."""

    def __init__(self, top: float = 1.0) -> None:
        super().__init__()
        self.top = top

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        most = x.flatten(1).amax(dim=1) / self.top
        return 10 * torch.stack([torch.full_like(most, 0.97), most], dim=1)


def dim_case(n: int = 120, shape: tuple[int, int, int] = (2, 9, 12)) -> Case:
    x = np.random.default_rng(0).uniform(0, 0.4, size=(n, *shape)).astype(np.float32)
    return Case(
        model=torch_model(Brightest()),
        splits=Splits(test=Data(x, image_schema(*shape), np.zeros(n, dtype=np.int64))),
    )


def measured(case: Case, meter: Meter | None = None, **options: object) -> tuple[list[Evidence], dict[str, Stored]]:
    kept: dict[str, Stored] = {}

    def keep(name: str, arrays: Stored) -> str:
        kept[name] = arrays
        return f"sha256:{len(kept)}"

    meter = meter or Meter()
    chosen = PatchOptions(**{"steps": 40, "samples": 300, "targets": 4, **options})  # type: ignore[arg-type]
    lab = Lab(cover_with_patch.id, 2, chosen, meter, keeper=keep)
    return list(cover_with_patch(metered_case(case, meter), lab)), kept


def test_a_model_that_looks_for_a_bright_dot_falls_wherever_the_patch_lies_and_to_no_grey_one() -> None:
    by = {e.metric: e for e in measured(dim_case(), shares=0.04)[0]}
    assert by[KEPT.name].value == 0.0
    assert by[GREY.name].value == 1.0
    # Eight values of two by two pixels in two channels: none is above 0.97 with probability 0.97^8.
    assert by[NOISE.name].low <= 0.97**8 <= by[NOISE.name].high


def test_on_digits_the_patch_fools_more_than_grey_or_noise() -> None:
    case = image_case(torch_model(cnn()), 800)
    found, kept = measured(case, shares=(0.05, 0.14), steps=80)
    by = {(e.metric, e.at["share"]): e for e in found}
    assert by[KEPT.name, 0.14].high < min(by[GREY.name, 0.14].low, by[NOISE.name, 0.14].low)
    assert by[KEPT.name, 0.14].value < by[KEPT.name, 0.05].value
    again = list(cover_with_patch.replay(case, {k: v for k, v in kept.items() if "exhibit" not in k}, Lab("x", 2)))  # type: ignore[misc]
    assert [e.value for e in again] == [e.value for e in found]


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3), st.integers(3, 11), st.integers(3, 11), st.floats(0.01, 0.95))
def test_it_is_one_square_within_the_picture_and_nothing_else_is_touched(c: int, h: int, w: int, share: float) -> None:
    case = dim_case(60, (c, h, w))
    seen: list[np.ndarray] = []
    model = replace(case.the_model(), labels=lambda v: (seen.append(v), case.the_model().labels(v))[1])
    _, kept = measured(replace(case, model=model), shares=share, steps=1, targets=0)
    side = kept["patch-0"]["patch"].shape[-1]
    assert abs(side - (share * h * w) ** 0.5) <= 0.5 or side in (1, h, w)
    rows = np.isin(case.data("test").sample_id, kept["patch-0"]["sample_id"]).nonzero()[0]
    clean, covered = case.data("test").x[rows], seen[2]
    changed = covered != clean
    assert changed.any()
    for picture, mask in zip(covered, changed.any(axis=1), strict=True):
        top, left = (int(np.flatnonzero(mask.any(axis=axis)).min()) for axis in (1, 0))
        assert mask.sum() <= side * side
        assert mask[top : top + side, left : left + side].sum() == mask.sum()
        assert 0 <= picture.min() <= picture.max() <= 1


def test_pixels_that_are_whole_numbers_stay_whole_and_shares_with_one_side_are_one() -> None:
    x = np.random.default_rng(0).integers(0, 100, size=(120, 1, 8, 8)).astype(np.float32)
    schema = Schema(DataKind.IMAGE, (1, 8, 8), (Feature("pixel", FeatureKind.INTEGER, lo=0, hi=255),))
    seen: list[np.ndarray] = []
    net = torch_model(Brightest(255.0))
    model = replace(net, labels=lambda v: (seen.append(v), net.labels(v))[1])
    found, _ = measured(
        Case(model=model, splits=Splits(test=Data(x, schema, np.zeros(120, dtype=np.int64)))), shares=(0.05, 0.06, 0.2)
    )
    assert schema.allowed(np.concatenate(seen)).all()
    assert [e.at["share"] for e in found if e.metric == KEPT.name] == [0.05, 0.2]


class Flickering(Brightest):
    """The same with noise, which turns one answer in a few."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return logits + 2 * torch.randn_like(logits)


def test_a_random_model_is_judged_by_its_votes_and_one_seed_gives_one_report() -> None:
    case = replace(dim_case(100, (1, 5, 5)), model=torch_model(Flickering()))
    told = []
    for state in (0, 1):
        torch.manual_seed(state)
        found, _ = measured(case, shares=0.04, steps=3, targets=0)
        told.append([(e.metric, e.value, e.n) for e in found])
    assert told[0] == told[1]


def test_a_spent_budget_ends_it() -> None:
    meter = Meter(limit=1_500)
    with pytest.raises(BudgetExhausted):
        measured(dim_case(), meter)
    assert meter.refusals == 1


@pytest.mark.parametrize(
    "wrong", [{"shares": 0.0}, {"shares": (0.1, 1.0)}, {"shares": ()}, {"steps": 0}, {"samples": 3}]
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        measured(dim_case(), **wrong)


@pytest.mark.parametrize("name", ["patch", "universal"])
def test_without_one_right_answer_there_is_nothing_to_break_and_the_outcome_says_so(name: str) -> None:
    case = dim_case(80, (1, 6, 6))
    data = replace(case.data("test"), y=np.ones(80, dtype=np.int64))  # the model answers 0 to all
    report = casemate.audit(replace(case, splits=Splits(test=data)), only=[f"evasion/{name}"], profile="quick")
    (outcome,) = report.outcomes
    assert isinstance(outcome, Skipped)
    assert outcome.reason is SkipReason.NOT_APPLICABLE
    assert "no row to fit on is answered rightly" in outcome.detail
    few = replace(case, splits=Splits(test=case.data("test").take(np.arange(1))))
    (outcome,) = casemate.audit(few, only=[f"evasion/{name}"], profile="quick").outcomes
    assert isinstance(outcome, Skipped)
    assert "at least 20 rows to fit on" in outcome.detail
