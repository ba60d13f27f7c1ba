from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from tests.evasion.makers import (
    NORMS,
    attacked,
    batch_from,
    digits,
    image_case,
    sklearn_linear,
    table_case,
    torch_linear,
)

from casemate.core.bracket import Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.model import Affine, Model
from casemate.core.norms import Norm
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.errors import ModelError
from casemate.evasion.linear import linear_attack, linear_certificate

FREE = Goal(Norm.LINF, float("inf"))
CASES = {
    "sklearn, table, float64": lambda: table_case(sklearn_linear()),
    "torch, images, float32": lambda: image_case(torch_linear()),
    "torch, images, float64": lambda: image_case(torch_linear(torch.float64), dtype=np.float64),
}


def optimum(norm: Norm, affine: Affine, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An independent oracle: the optimal step is min(t, room) for linf and min(t |a|, room) for l2; t by bisection."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    best = np.full(len(x), np.inf)
    for j in range(len(affine.bias)):
        a = affine.weights[j] - affine.weights[y]
        need = affine.bias[y] - affine.bias[j] - (a * flat).sum(1)
        room = np.where(a > 0, 1.0 - flat, flat)
        pace = np.ones_like(a) if norm is Norm.LINF else np.abs(a)
        near, far = np.zeros(len(x)), np.full(len(x), 1e4)
        for _ in range(100):
            t = (near + far) / 2
            short = (np.abs(a) * np.minimum(t[:, None] * pace, room)).sum(1) < need
            near, far = np.where(short, t, near), np.where(short, far, t)
        step = np.minimum(far[:, None] * pace, room)
        size = np.abs(step).max(1) if norm is Norm.LINF else np.linalg.norm(step, axis=1)
        size = np.where(need <= 0, 0.0, np.where((np.abs(a) * room).sum(1) >= need, size, np.inf))
        best = np.where(y == j, best, np.minimum(best, size))
    return best


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", CASES)
def test_every_bracket_decision_equals_the_closed_form_on_every_sample(name: str, norm: Norm) -> None:
    case = CASES[name]()
    batch = batch_from(case, slice(0, 60))
    model = case.the_model()
    assert model.affine is not None
    exact = optimum(norm, model.affine, batch.x, batch.y)
    ledger, _ = attacked(linear_attack, case, replace(FREE, norm=norm), batch=batch)
    lower, _ = attacked(linear_certificate, case, replace(FREE, norm=norm), batch=batch)
    right = exact > 0
    assert right.sum() > 50
    tight = 1e-6 if "float64" in name else 1e-4
    assert np.all(ledger.upper <= exact * (1 + tight) + 1e-12)
    # In float32 the model itself may answer wrongly a hair below the optimum of the formula; the certificate knows.
    assert np.all(ledger.upper[right] >= lower.lower[right])
    assert np.all(lower.lower[right] <= exact[right])
    # The slack is a worst case over 64 terms in the model's dtype, so it weighs most where the distance is small.
    assert np.max((exact - lower.lower)[right]) <= (1e-12 if "float64" in name else 2e-4)
    for eps in np.quantile(exact[right], [0.1, 0.3, 0.5, 0.7, 0.9]) * (1 + 3 * tight):
        assert np.array_equal(ledger.broken(eps), exact <= eps)
        assert np.array_equal(lower.lower >= eps * (1 - 1e-2), exact >= eps * (1 - 1e-2)) or "float32" in name


def test_the_closed_form_agrees_with_linear_programming_when_features_are_fixed_and_scaled() -> None:
    rng = np.random.default_rng(1)
    d, k = 6, 3
    affine = Affine(rng.normal(size=(k, d)), rng.normal(size=k))
    features = tuple(
        Feature(f"f{i}", lo=-1.0, hi=1.0, scale=float(rng.uniform(0.5, 2)), immutable=i == 2) for i in range(d)
    )
    schema = Schema(DataKind.TABLE, (d,), features)
    x = rng.uniform(-1, 1, size=(20, d))
    case = affine_case(affine, x, schema)
    ledger, _ = attacked(linear_attack, case, FREE)
    lower, _ = attacked(linear_certificate, case, FREE)
    for i, (row, label) in enumerate(zip(x, case.data("test").labels, strict=True)):
        distances = [programme(affine, row, int(label), j, schema) for j in range(k) if j != label]
        assert ledger.upper[i] == pytest.approx(min(distances), rel=1e-5, abs=1e-9)
        assert lower.lower[i] == pytest.approx(min(distances), rel=1e-5, abs=1e-9)
        assert np.all(ledger.witness[i, 2] == row[2])


def programme(affine: Affine, row: np.ndarray, label: int, j: int, schema: Schema) -> float:
    """min r subject to a . x' >= c, |x' - row| <= r scale, x' in the box."""
    a = affine.weights[j] - affine.weights[label]
    c = affine.bias[label] - affine.bias[j]
    d = len(row)
    eye = np.eye(d)
    above = np.hstack([eye, -schema.scale[:, None]])
    below = np.hstack([-eye, -schema.scale[:, None]])
    matrix = np.vstack([above, below, np.append(-a, 0.0)])
    bounds = [(f.lo, f.hi) for f in schema.features] + [(0, None)]
    found = linprog(np.append(np.zeros(d), 1.0), matrix, np.concatenate([row, -row, [-c]]), bounds=bounds)
    return float(found.fun) if found.success else float("inf")


def affine_case(affine: Affine, x: np.ndarray, schema: Schema) -> Case:
    def logits(a: np.ndarray) -> np.ndarray:
        return a.reshape(len(a), -1) @ affine.weights.T + affine.bias

    model = Model("affine", "affine", labels=lambda a: logits(a).argmax(1), logits=logits, affine=affine)
    return Case(model=model, splits=Splits(test=Data(x, schema, logits(x).argmax(1))))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([Norm.LINF, Norm.L2, Norm.L1]))
def test_a_float32_model_never_answers_wrongly_inside_a_certified_radius(seed: int, norm: Norm) -> None:
    """Points at the certified radius in the worst direction, evaluated in float32 in several orders of summation."""
    rng = np.random.default_rng(seed)
    d = 40
    affine = Affine(*(rng.normal(size=shape).astype(np.float32).astype(np.float64) for shape in ((3, d), (3,))))
    x = rng.uniform(0, 1, size=(8, d)).astype(np.float32)
    schema = Schema(DataKind.IMAGE, (1, 1, d), (Feature("pixel", lo=0.0, hi=1.0),))
    case = affine_case(affine, x.reshape(-1, 1, 1, d), schema)
    ledger, _ = attacked(linear_attack, case, replace(FREE, norm=norm))
    lower, _ = attacked(linear_certificate, case, replace(FREE, norm=norm))
    share = np.where(np.isfinite(ledger.upper), lower.lower / np.maximum(ledger.upper, 1e-300), 0.0)
    near = (x + (ledger.witness.reshape(8, d) - x) * np.minimum(share, 1)[:, None] * (1 - 1e-6)).astype(np.float32)
    labels = case.data("test").labels
    for order in (np.arange(d), np.arange(d)[::-1], rng.permutation(d)):
        terms = near[:, None, order] * affine.weights[None, :, order].astype(np.float32)
        logits = np.cumsum(terms, axis=2, dtype=np.float32)[:, :, -1] + affine.bias.astype(np.float32)
        assert np.array_equal(logits.argmax(1), labels)


def test_a_target_is_reached_and_no_other_class_counts() -> None:
    case = table_case(sklearn_linear(), n=40)
    ledger, _ = attacked(linear_attack, case, replace(FREE, target=3))
    moved = (ledger.upper_by == "evasion/linear") & (ledger.upper > 0)
    assert moved.sum() > 20
    assert np.all(case.the_model().labels(ledger.witness[moved]) == 3)


def test_nothing_beyond_eps_is_claimed() -> None:
    case = table_case(sklearn_linear())
    free, _ = attacked(linear_attack, case, FREE)
    eps = float(np.median(free.upper))
    held, _ = attacked(linear_attack, case, replace(FREE, eps=eps))
    assert np.array_equal(np.isfinite(held.upper), free.upper <= eps)


def test_whole_number_features_are_left_alone_where_a_fraction_would_be_needed() -> None:
    affine = Affine(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([0.5, 0.0]))
    features = (Feature("count", kind=FeatureKind.INTEGER, lo=0, hi=5), Feature("weight", lo=0, hi=5))
    case = affine_case(affine, np.array([[0.0, 0.0]]), Schema(DataKind.TABLE, (2,), features))
    ledger, _ = attacked(linear_attack, case, FREE)
    lower, _ = attacked(linear_certificate, case, FREE)
    assert ledger.upper[0] == pytest.approx(0.5, rel=1e-6)  # by the weight alone
    assert lower.lower[0] == pytest.approx(0.25, rel=1e-6)  # as if the count were continuous


def test_where_the_box_leaves_no_way_across_the_radius_is_infinite_and_nothing_is_claimed() -> None:
    affine = Affine(np.array([[1.0], [0.0]]), np.array([0.0, -1.0]))
    case = affine_case(affine, np.array([[0.5]]), Schema(DataKind.TABLE, (1,), (Feature("f", lo=0.0, hi=1.0),)))
    lower, _ = attacked(linear_certificate, case, FREE)
    ledger, _ = attacked(linear_attack, case, FREE)
    assert lower.lower[0] == np.inf
    assert ledger.upper[0] == np.inf


def test_weights_that_do_not_fit_are_refused() -> None:
    case = table_case(replace(sklearn_linear(), affine=Affine(np.zeros((1, 64)), np.zeros(1))), n=5)
    with pytest.raises(ModelError, match="one row for each class"):
        attacked(linear_certificate, case, FREE)
    assert len(digits()[0]) > 5


@pytest.mark.parametrize("norm", NORMS)
def test_a_target_can_be_far_from_a_row_that_is_answered_wrongly_another_way(norm: Norm) -> None:
    # Once the certificate of a target met the bound of 0 that any wrong answer sets, and the run failed.
    case = table_case(sklearn_linear(), n=60)
    data = case.data("test")
    shifted = replace(case, splits=Splits(test=replace(data, y=(data.labels + 1) % 10)))
    goal = Goal(norm, float("inf"), target=3)
    ledger, _ = attacked(linear_certificate, shifted, goal)
    found, _ = attacked(linear_attack, shifted, goal)
    ledger.join(np.arange(60), found.arrays())  # raises where the two contradict each other
    given, wanted = np.asarray(case.the_model().labels(data.x)), shifted.data("test").labels != 3
    there = wanted & (given == 3)
    assert (ledger.upper[there] == 0).all()
    assert (ledger.upper[wanted & ~there] > 0).all()
    assert (ledger.lower[wanted & ~there] > 0).any()
