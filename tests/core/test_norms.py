"""Distances, projections and half-spaces against brute force, general-purpose solvers and their own optimality."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from casemate.core.norms import Ball, Norm, clip, distance, halfspace_distance, inside, project
from casemate.errors import UsageError

NORMS = list(Norm)
EPS = {Norm.LINF: 0.2, Norm.L2: 0.6, Norm.L1: 0.9, Norm.L0: 2}
SEEDS = st.integers(0, 2**32 - 1)


def _problem(seed, n=40, d=6):
    """Points in a random box with different units, one feature immutable, candidates well outside."""
    rng = np.random.default_rng(seed)
    lo, hi = -rng.uniform(0.1, 2.0, d), rng.uniform(0.1, 2.0, d)
    x = rng.uniform(lo, hi, (n, d))
    x[: n // 4] = np.where(rng.random((n // 4, d)) < 0.5, lo, hi)
    scale = rng.uniform(0.2, 3.0, d) * (np.arange(d) != 1)
    return x, x + rng.normal(0, 1.5, (n, d)) * 10.0 ** rng.integers(-2, 2, (n, 1)), lo, hi, scale, rng


@pytest.mark.parametrize(
    ("norm", "expected"), [("linf", [4.0, 0.0]), ("l2", [5.0, 0.0]), ("l1", [7.0, 0.0]), ("l0", [2.0, 0.0])]
)
def test_distances_match_the_definitions_in_units_of_scale(norm, expected):
    x = np.zeros((2, 2, 2))
    x_adv = np.array([[[6.0, 0.0], [0.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(distance(norm, x, x_adv, [[2.0, 1.0], [1.0, 0.5]]), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_a_change_of_an_immutable_or_missing_value_is_infinitely_far(norm):
    x = np.array([[1.0, 2.0], [1.0, np.nan], [1.0, np.nan], [1.0, 2.0]])
    x_adv = np.array([[1.0, 2.5], [1.0, np.nan], [1.0, 0.0], [1.0, np.nan]])
    assert distance(norm, x, x_adv, [1.0, 0.0]).tolist() == [np.inf, 0.0, np.inf, np.inf]


def test_float32_differences_are_measured_in_float64():
    x, x_adv = np.float32([[0.3]]), np.float32([[0.4]])
    assert distance(Norm.LINF, x, x_adv)[0] == float(x_adv[0, 0]) - float(x[0, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("norm", NORMS)
@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_a_projection_is_inside_ball_and_box_without_any_tolerance(norm, dtype, seed):
    x, x_adv, lo, hi, scale, _ = _problem(seed)
    lo, hi = lo.astype(dtype), hi.astype(dtype)
    x, x_adv = np.clip(x.astype(dtype), lo, hi), x_adv.astype(dtype)
    ball = Ball(norm, EPS[norm], lo, hi, scale)
    out = project(ball, x, x_adv)
    assert out.dtype == dtype
    assert np.all(distance(norm, x, out, scale) <= EPS[norm])
    assert np.all((out >= lo) & (out <= hi))
    assert np.all(out[:, 1] == x[:, 1])
    assert np.all(inside(ball, x, out))
    np.testing.assert_array_equal(project(ball, x, out), out)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2, Norm.L1])
@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_a_convex_projection_satisfies_the_variational_inequality(norm, seed):
    x, x_adv, lo, hi, scale, rng = _problem(seed)
    ball = Ball(norm, EPS[norm], lo, hi, scale)
    free = scale > 0
    best = (project(ball, x, x_adv) - x)[:, free] / scale[free]
    wish = (x_adv - x)[:, free] / scale[free]
    for _ in range(20):
        other = (project(ball, x, x + rng.normal(0, 1, x.shape) * rng.choice([0.1, 1, 10])) - x)[:, free] / scale[free]
        gap = np.sum((wish - best) * (other - best), axis=1)
        assert np.all(gap <= 1e-9 * (1 + np.abs(wish).sum(axis=1)))


@pytest.mark.parametrize("norm", [Norm.L2, Norm.L1])
def test_a_convex_projection_equals_a_general_purpose_solver(norm):
    x, x_adv, lo, hi, scale, _ = _problem(3, n=12)
    scale[1] = 1.0
    got = (project(Ball(norm, EPS[norm], lo, hi, scale), x, x_adv) - x) / scale
    for row in range(len(x)):
        wish = (x_adv[row] - x[row]) / scale
        low, high = (lo - x[row]) / scale, (hi - x[row]) / scale
        pos, neg = np.maximum(high, 0), np.maximum(-low, 0)
        if norm is Norm.L1:
            # Split into positive and negative parts, which makes the l1 ball smooth.
            ball = {"type": "ineq", "fun": lambda v: EPS[Norm.L1] - v.sum()}
        else:
            ball = {"type": "ineq", "fun": lambda v: EPS[Norm.L2] ** 2 - np.sum((v[:6] - v[6:]) ** 2)}
        found = optimize.minimize(
            lambda v, wish=wish: np.sum((v[:6] - v[6:] - wish) ** 2),
            np.zeros(12),
            bounds=list(zip(np.zeros(12), np.concatenate([pos, neg]), strict=True)),
            constraints=[ball],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        mine = np.sum((got[row] - wish) ** 2)
        assert mine == pytest.approx(found.fun, rel=1e-6, abs=1e-9)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_the_l0_projection_equals_a_search_over_all_supports(seed):
    x, x_adv, lo, hi, scale, _ = _problem(seed, n=8)
    scale[1] = 1.0
    got = project(Ball(Norm.L0, 2, lo, hi, scale), x, x_adv)
    boxed = np.clip(x_adv, lo, hi)
    best = np.full(len(x), np.inf)
    for support in itertools.combinations(range(6), 2):
        trial = x.copy()
        trial[:, support] = boxed[:, support]
        best = np.minimum(best, np.sum(((trial - x_adv) / scale) ** 2, axis=1))
    np.testing.assert_allclose(np.sum(((got - x_adv) / scale) ** 2, axis=1), best, rtol=1e-9)


def test_l1_and_l2_projections_without_a_box_match_their_closed_forms():
    x = np.zeros((1, 3))
    free = {"lo": -np.inf, "hi": np.inf}
    np.testing.assert_allclose(project(Ball(Norm.L2, 1.0, **free), x, np.array([[3.0, 0.0, 4.0]])), [[0.6, 0.0, 0.8]])
    np.testing.assert_allclose(project(Ball(Norm.L1, 1.0, **free), x, np.array([[1.0, -0.6, 0.1]])), [[0.7, -0.3, 0.0]])


@pytest.mark.parametrize("norm", NORMS)
def test_eps_zero_and_missing_or_infinite_values_keep_x(norm):
    x = np.array([[0.5, np.nan, 0.25]])
    ball = Ball(norm, 0.0, 0.0, 1.0)
    np.testing.assert_array_equal(project(ball, x, np.array([[0.7, 0.3, np.nan]])), x)
    wide = project(Ball(norm, EPS[norm], 0.0, 1.0), x, np.array([[0.7, np.nan, np.inf]]))
    assert np.isnan(wide[0, 1])
    assert wide[0, 2] == 0.25
    assert project(ball, np.empty((0, 3)), np.empty((0, 3))).shape == (0, 3)


def test_a_row_already_inside_is_returned_bit_for_bit():
    x = np.float32([[0.1, 0.2]])
    x_adv = np.float32([[0.15, 0.1]])
    np.testing.assert_array_equal(project(Ball(Norm.L2, 0.2, 0.0, 1.0), x, x_adv), x_adv)


def test_bounds_that_float32_cannot_hold_are_rounded_inward():
    x = np.full((1, 1), 0.25, dtype=np.float32)
    ball = Ball(Norm.LINF, 1.0, 0.1, 0.7)
    for value in (-1.0, 1.0):
        out = project(ball, x, np.float32([[value]]))
        assert 0.1 <= float(out[0, 0]) <= 0.7
        np.testing.assert_array_equal(out, clip(ball, np.float32([[value]])))


def test_inside_allows_one_rounding_of_float32_and_no_more():
    x = np.float32([[0.3]])
    eps = 0.1
    ball = Ball(Norm.LINF, eps, 0.0, 1.0)
    assert inside(ball, x, x + np.float32(eps)).all()
    assert not inside(ball, x, x + np.float32(eps + 2e-7)).any()
    assert not inside(ball, np.float64([[0.3]]), np.float64([[0.3 + eps + 1e-9]])).any()
    assert not inside(Ball(Norm.LINF, 9.0, 0.0, 1.0), np.float64([[0.3]]), np.float64([[1.0 + 1e-12]])).any()
    assert inside(Ball(Norm.L0, 1, 0.0, 1.0), [[0, 0], [0, 0]], [[1, 0], [1, 1]]).tolist() == [True, False]
    assert not inside(Ball(Norm.LINF, 1.0, 0.0, 1.0, 0.0), x, np.nextafter(x, np.float32(1))).any()


def test_half_precision_gets_no_more_slack_than_single():
    x = np.float16([[0.5]])
    assert not inside(Ball(Norm.LINF, 0.1, 0.0, 1.0), x, np.float16([[0.6006]])).any()


def _halfspace(seed, n=12, d=5):
    x, _, lo, hi, scale, rng = _problem(seed, n, d)
    a = rng.normal(0, 1, (n, d)) * (rng.random((n, d)) < 0.9)
    return x, a, np.einsum("nd,nd->n", a, x) + rng.normal(0.4, 1.0, n), lo, hi, scale


@pytest.mark.parametrize("norm", NORMS)
@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_a_witness_crosses_the_plane_inside_box_and_distance(norm, seed):
    x, a, c, lo, hi, scale = _halfspace(seed)
    far, witness = halfspace_distance(norm, x, a, c, lo=lo, hi=hi, scale=scale)
    ok = np.isfinite(far)
    assert np.all(np.einsum("nd,nd->n", a, witness)[ok] >= c[ok])
    assert np.all((witness >= lo) & (witness <= hi))
    measured = distance(norm, x, witness, scale)
    np.testing.assert_allclose(measured[ok], far[ok], rtol=1e-9, atol=1e-9)
    best = np.einsum("nd,nd->n", a, np.where(scale > 0, np.where(a > 0, hi, lo), x))
    assert np.all(ok == (best >= c))
    np.testing.assert_array_equal(witness[~ok], x[~ok])
    assert np.all(far[np.einsum("nd,nd->n", a, x) >= c] == 0)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L1])
def test_linf_and_l1_distances_equal_a_linear_programme(norm):
    x, a, c, lo, hi, scale = _halfspace(5, n=30)
    scale[1] = 0.7
    far, _ = halfspace_distance(norm, x, a, c, lo=lo, hi=hi, scale=scale)
    d = x.shape[1]
    extra = 1 if norm is Norm.LINF else d
    each = np.ones((d, 1)) if norm is Norm.LINF else np.eye(d)
    for row in range(len(x)):
        rows = [np.hstack([np.eye(d) / scale[:, None], -each]), np.hstack([-np.eye(d) / scale[:, None], -each])]
        rows.append(np.hstack([-a[row : row + 1], np.zeros((1, extra))]))
        solved = optimize.linprog(
            np.r_[np.zeros(d), np.ones(extra)],
            A_ub=np.vstack(rows),
            b_ub=np.r_[x[row] / scale, -x[row] / scale, -c[row]],
            bounds=[*zip(lo, hi, strict=True), *[(0, None)] * extra],
        )
        expected = solved.fun if solved.status == 0 else np.inf
        assert far[row] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_the_l2_distance_is_certified_by_its_dual(seed):
    """Weak duality: every multiplier's Lagrangian bounds the squared distance from below; the best one meets it."""
    x, a, c, lo, hi, scale = _halfspace(seed)
    scale[1] = 0.7
    far, _ = halfspace_distance(Norm.L2, x, a, c, lo=lo, hi=hi, scale=scale)
    for row in np.flatnonzero(np.isfinite(far)):
        slope, low, high = a[row] * scale, (lo - x[row]) / scale, (hi - x[row]) / scale
        need = c[row] - a[row] @ x[row]

        def dual(log_multiplier, slope=slope, low=low, high=high, need=need):
            multiplier = np.exp(log_multiplier)
            z = np.clip(multiplier * slope, low, high)
            return -(0.5 * z @ z - multiplier * (slope @ z - need))

        top = optimize.minimize_scalar(dual, bounds=(-30, 30), method="bounded", options={"xatol": 1e-12})
        assert -top.fun <= 0.5 * far[row] ** 2 + 1e-9
        assert np.sqrt(max(0.0, -2 * top.fun)) == pytest.approx(far[row], abs=1e-5)


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_the_l0_distance_equals_a_search_over_all_supports(seed):
    x, a, c, lo, hi, scale = _halfspace(seed)
    far, _ = halfspace_distance(Norm.L0, x, a, c, lo=lo, hi=hi, scale=scale)
    full = np.where(scale > 0, np.where(a > 0, hi, lo) - x, 0.0) * a
    base = np.einsum("nd,nd->n", a, x)
    expected = np.where(base >= c, 0.0, np.inf)
    for size in range(5, 0, -1):
        for support in itertools.combinations(range(5), size):
            expected = np.where((base < c) & (base + full[:, support].sum(axis=1) >= c), size, expected)
    np.testing.assert_array_equal(far, expected)


def test_without_a_box_the_distances_are_the_dual_norm_formulas():
    x, a = np.array([[1.0, -1.0, 0.5]]), np.array([2.0, -1.0, 0.0])
    expected = {Norm.LINF: 4.0 / 3.0, Norm.L2: 4.0 / np.sqrt(5.0), Norm.L1: 2.0, Norm.L0: 1.0}
    for norm, value in expected.items():
        far, witness = halfspace_distance(norm, x, a, 7.0, lo=-np.inf, hi=np.inf)
        assert far[0] == pytest.approx(value, rel=1e-12)
        assert witness[0] @ a >= 7.0
        assert halfspace_distance(norm, x, np.zeros(3), 7.0, lo=-np.inf, hi=np.inf)[0].tolist() == [np.inf]


def test_a_plane_through_exactly_k_full_moves_needs_k_features_and_no_more():
    x = np.zeros((1, 4))
    far, witness = halfspace_distance(Norm.L0, x, np.ones(4), 2.0, lo=0.0, hi=1.0)
    assert far.tolist() == [2.0]
    assert distance(Norm.L0, x, witness).tolist() == [2.0]


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2, Norm.L1])
def test_a_point_just_short_of_the_distance_cannot_cross(norm):
    x, a, c, lo, hi, scale = _halfspace(11, n=200)
    far, _ = halfspace_distance(norm, x, a, c, lo=lo, hi=hi, scale=scale)
    rng = np.random.default_rng(0)
    for row in np.flatnonzero(np.isfinite(far) & (far > 1e-6)):
        trial = x[row] + rng.normal(0, 1, (50, 5)) * scale * far[row] * 3
        at = np.repeat(x[row : row + 1], 50, axis=0)
        near = project(Ball(norm, far[row] * (1 - 1e-9), lo, hi, scale), at, trial)
        assert np.all(near @ a[row] < c[row])


def test_a_ball_cannot_be_changed_after_it_was_made():
    lo = np.zeros(2)
    ball = Ball("l2", 1.0, lo, 1.0)
    lo[0] = 5.0
    assert ball.norm is Norm.L2
    assert ball.lo.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="read-only"):
        ball.lo[0] = 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: Ball("l3", 1.0, 0.0, 1.0),
        lambda: Ball(Norm.L2, -1.0, 0.0, 1.0),
        lambda: Ball(Norm.L2, np.nan, 0.0, 1.0),
        lambda: Ball(Norm.L2, 1.0, 1.0, 0.0),
        lambda: Ball(Norm.L2, 1.0, 0.0, np.nan),
        lambda: Ball(Norm.L2, 1.0, 0.0, 1.0, -1.0),
        lambda: distance("l2", np.zeros((2, 3)), np.zeros((2, 4))),
        lambda: distance("l2", np.zeros((2, 3)), np.zeros((2, 3)), np.ones(2)),
        lambda: project(Ball("l2", 1.0, 0.0, 1.0), np.zeros((1, 1)), np.zeros((1, 1), dtype=int)),
        lambda: project(Ball("l2", 1.0, 0.0, 1.0), np.full((1, 1), 255.0), np.zeros((1, 1))),
        lambda: project(Ball("l2", 1.0, 0.0, 1.0), np.full((1, 1), 0.1), np.zeros((1, 1), dtype=np.float32)),
        lambda: halfspace_distance("l2", np.zeros(3), np.ones(3), 1.0, lo=0.0, hi=1.0),
        lambda: halfspace_distance("l2", np.full((1, 3), np.nan), np.ones(3), 1.0, lo=0.0, hi=1.0),
        lambda: halfspace_distance("l2", np.zeros((2, 3)), np.ones(3), np.ones(3), lo=0.0, hi=1.0),
        lambda: halfspace_distance("l2", np.full((2, 3), 9.0), np.ones(3), 1.0, lo=0.0, hi=1.0),
    ],
)
def test_a_wrong_argument_is_a_usage_error(call):
    with pytest.raises(UsageError, match="expected"):
        call()
