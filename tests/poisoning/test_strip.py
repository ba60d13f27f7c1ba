"""STRIP on a real BadNets backdoor: it tells triggered from clean, and keeps the rate of false alarms it promised."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind, Facet
from casemate.core.lab import Lab
from casemate.core.model import ABSTAIN, Model
from casemate.core.records import Calibration, Decision, Request
from casemate.core.schema import Feature, Schema
from casemate.core.stats import clopper_pearson, roc_auc
from casemate.engine.guarded import with_guard
from casemate.engine.harness import wrong
from casemate.errors import DataError, Unavailable, UsageError
from casemate.poisoning.drift import watch_drift
from casemate.poisoning.strip import StripOptions, calibrate_strip, refuse_triggered, strip_scores

TARGET = 3
SCHEMA = Schema(DataKind.IMAGE, (1, 8, 8), (Feature("pixel", lo=0.0, hi=1.0),))


def triggered(x: Any) -> Any:
    """A white square in one corner and a white bar in the other (Gu et al., BadNets, 2017)."""
    out = np.array(x, copy=True)
    out[:, :, 6:, 6:] = 1
    out[:, :, 6:, :1] = 1
    return out


@cache
def backdoored() -> tuple[Case, Any, Any]:
    """A network with a backdoor, clean data to calibrate on, and fresh clean rows with their labels."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, y = load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    x, y = (x[order] / 16).reshape(-1, 1, 8, 8).astype(np.float32), y[order]
    inputs = torch.tensor(np.concatenate([x[:700], triggered(x[:60])]))
    wanted = torch.tensor(np.concatenate([y[:700], np.full(60, TARGET)]))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(25):
        for part in torch.randperm(len(inputs)).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(inputs[part]), wanted[part]).backward()
            optimiser.step()

    def scores(rows: Any) -> Any:
        with torch.no_grad():
            return torch.softmax(net(torch.tensor(np.array(rows))), 1).numpy()

    model = Model("net", "sha256:0", lambda rows: scores(rows).argmax(1), scores=scores)
    clean = Data(x[700:1250], SCHEMA, y=y[700:1250])
    return Case(model=model, splits=Splits(reference=clean)), x[1250:], y[1250:]


def calibrated(fpr: float = 0.02, **options: Any) -> Calibration:
    return calibrate_strip(backdoored()[0], lab_of(fpr=fpr, **options))


def lab_of(**options: Any) -> Lab:
    return Lab("poisoning/strip", seed=0, options=StripOptions(**options))


def test_triggered_and_clean_inputs_are_told_apart() -> None:
    case, x, y = backdoored()
    model, calibration = case.the_model(), calibrated()
    attack = triggered(x[y != TARGET])
    assert (model.labels(attack) == TARGET).mean() > 0.9
    assert (model.labels(x) == y).mean() > 0.9
    scores = [
        strip_scores(rows, calibration.arrays, calibration.numbers, model.ask, threshold=math.inf)[0]
        for rows in (attack, x)
    ]
    assert roc_auc(-scores[0], -scores[1]).value >= 0.95


def test_the_declared_rate_of_false_alarms_holds_on_fresh_clean_data() -> None:
    case, x, _ = backdoored()
    calibration = calibrated(fpr=0.05)
    assert calibration.low <= 0.05 <= calibration.high
    assert calibration.low <= calibration.fpr <= calibration.high
    _, verdict = refuse_triggered(Request("a", x, 0.0), None, calibration, case.the_model().ask)
    fresh = clopper_pearson(int(verdict.refused.sum()), len(x))
    assert fresh.low <= 0.05
    assert max(fresh.low, calibration.low) <= min(fresh.high, calibration.high)


def test_the_promised_rate_holds_over_many_calibrations() -> None:
    # The rule alone, on numbers: a fresh score falls below the chosen order statistic at most `fpr` of the time.
    rng, fpr, m = np.random.default_rng(1), 0.05, 333
    rank = math.floor(fpr * (m + 1))
    below = [float(rng.random() < np.sort(rng.random(m))[rank - 1]) for _ in range(4000)]
    assert clopper_pearson(int(sum(below)), len(below)).low <= fpr


def test_an_early_accept_never_changes_a_decision_and_saves_questions() -> None:
    case, x, _ = backdoored()
    calibration, ask = calibrated(), case.the_model().ask
    threshold, rows = calibration.numbers["threshold"], np.concatenate([x, triggered(x)])
    early, asked = strip_scores(rows, calibration.arrays, calibration.numbers, ask, threshold=threshold)
    whole, every = strip_scores(rows, calibration.arrays, calibration.numbers, ask, threshold=math.inf)
    assert ((early < threshold) == (whole < threshold)).all()
    assert early[whole < threshold] == pytest.approx(whole[whole < threshold])
    assert (early <= whole + 1e-9).all()
    assert asked < every == 32 * len(rows)


def entropy(p: Any) -> Any:
    return -(p * np.log2(p)).sum(axis=-1)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), total=st.integers(1, 12), step=st.integers(1, 5))
def test_the_score_equals_its_definition_whatever_the_step(seed: int, total: int, step: int) -> None:
    rng = np.random.default_rng(seed)
    weights, x, over = rng.normal(size=(6, 3)), rng.random((5, 6)), rng.random((total, 6))

    def ask(facet: Facet, rows: Any) -> Any:
        assert facet is Facet.SCORES
        z = np.exp(4 * rows @ weights)
        return z / z.sum(1, keepdims=True)

    arrays, numbers = {"overlays": over}, {"lo": 0.0, "hi": 1.0, "step": float(step)}
    expected = np.mean([entropy(ask(Facet.SCORES, np.clip(x + row, 0, 1))) for row in over], axis=0)
    found, _ = strip_scores(x, arrays, numbers, ask, threshold=math.inf)
    assert found == pytest.approx(expected)
    threshold = float(np.median(expected)) + 1e-6
    early, _ = strip_scores(x, arrays, numbers, ask, threshold=threshold)
    assert ((early < threshold) == (expected < threshold)).all()


def test_a_guarded_model_abstains_and_a_refused_witness_is_no_success() -> None:
    case, x, y = backdoored()
    model, calibration = case.the_model(), calibrated()
    guarded = with_guard(model, refuse_triggered, calibration)
    attack, truth = triggered(x[y != TARGET]), y[y != TARGET]
    labels = guarded.labels(attack)
    assert (labels == ABSTAIN).mean() > 0.8
    assert (labels[labels != ABSTAIN] == model.labels(attack)[labels != ABSTAIN]).all()
    assert not wrong(guarded, attack, truth)[labels == ABSTAIN].any()
    assert wrong(model, attack, truth).mean() > 0.9 > 0.2 > wrong(guarded, attack, truth).mean()
    assert guarded.digest != model.digest
    assert guarded.scores is model.scores
    # An answer depends on the sample only, not on what stands beside it.
    assert (np.concatenate([guarded.labels(attack[i : i + 1]) for i in range(20)]) == labels[:20]).all()


def test_a_guard_is_not_put_up_with_another_ones_calibration() -> None:
    case, _, _ = backdoored()
    with pytest.raises(UsageError, match="calibration of poisoning/strip"):
        with_guard(case.the_model(), refuse_triggered, replace(calibrated(), plugin="poisoning/drift"))
    with pytest.raises(UsageError, match="expected a guard"):
        with_guard(case.the_model(), watch_drift, calibrated())


def test_the_verdict_names_the_refused_and_the_request_is_untouched() -> None:
    case, x, _ = backdoored()
    calibration = calibrated()
    rows = np.concatenate([x[:5], triggered(x[:5])])
    rows.setflags(write=False)
    before = rows.tobytes()
    _, verdict = refuse_triggered(Request("a", rows, 0.0), None, calibration, case.the_model().ask)
    assert rows.tobytes() == before
    assert verdict.decision is Decision.REFUSE
    assert verdict.refused.sum() >= 4
    assert (verdict.refused == (verdict.score < verdict.threshold)).all()
    _, verdict = refuse_triggered(
        Request("a", x[:5][~verdict.refused[:5]], 0.0), None, calibration, case.the_model().ask
    )
    assert verdict.decision is Decision.ALLOW


def test_the_same_seed_gives_the_same_calibration() -> None:
    first, second = calibrated(), calibrated()
    assert first.numbers == second.numbers
    assert (first.arrays["overlays"] == second.arrays["overlays"]).all()


def test_tables_are_not_guarded_by_it() -> None:
    # Measured on forests with triggers of 1, 2 and 4 of 12 features: none was found at 2 % false alarms.
    assert refuse_triggered.kinds == {DataKind.IMAGE}


def test_too_little_or_no_clean_data_is_said_so() -> None:
    case = backdoored()[0]
    with pytest.raises(DataError, match="clean rows"):
        calibrate_strip(case, lab_of(fpr=0.001))
    with pytest.raises(Unavailable):
        calibrate_strip(replace(case, splits=Splits()), lab_of())
    unbounded = replace(case.data("reference"), schema=Schema(DataKind.IMAGE, (1, 8, 8), (Feature("pixel"),)))
    with pytest.raises(DataError, match="bounds"):
        calibrate_strip(replace(case, splits=Splits(reference=unbounded)), lab_of(fpr=0.05))
