"""Projections as tensors: the same points as the exact ones of `core.norms`, for every norm, bounds and scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.core.budget import Meter
from casemate.core.facets import DataKind
from casemate.core.norms import Ball, Norm, distance, halfspace_distance, project
from casemate.core.schema import Feature, Schema
from casemate.engine.ground import ground_of
from casemate.engine.prepared import Prepared
from casemate.engine.reach import reach_of

torch = pytest.importorskip("torch")

D = 7
NORMS = (Norm.LINF, Norm.L2, Norm.L1, Norm.L0)


def setting(seed: int, norm: Norm, *, missing: bool = False):
    """Samples, a schema with a fixed (or missing) feature and unequal scales, and its ground in float64."""
    rng = np.random.default_rng(seed)
    lo, hi = rng.uniform(-2, -0.5, D), rng.uniform(0.5, 2, D)
    scale = rng.uniform(0.2, 3, D)
    fixed = D if missing else 2
    features = tuple(Feature(f"f{i}", lo=lo[i], hi=hi[i], scale=scale[i], immutable=i == fixed) for i in range(D))
    x = rng.uniform(lo, hi, (5, D))
    x[0, 1] = hi[1]  # on a bound
    x[:, 2] = np.nan if missing else x[:, 2]
    reach = reach_of(norm, np.inf, x, Schema(DataKind.TABLE, (D,), features))
    prepared = Prepared(torch.nn.Identity(), torch.device("cpu"), torch.float64, Meter())
    return rng, x, lo, hi, np.where(np.arange(D) == 2, 0.0, scale), ground_of(prepared, reach)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(NORMS), st.floats(0.05, 4.0))
def test_the_projection_is_the_exact_one(seed, norm, eps):
    rng, x, lo, hi, scale, ground = setting(seed, norm)
    eps = float(np.ceil(eps)) if norm is Norm.L0 else eps
    far = x + rng.normal(0, 2, x.shape)
    found = ground.inside(torch.tensor(far), eps).numpy()
    exact = project(Ball(norm, eps, lo, hi, scale), x, far)
    np.testing.assert_allclose(found, exact, atol=1e-9)
    assert (distance(norm, x, found, scale) <= eps * (1 + 1e-9)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(NORMS))
def test_the_nearest_point_across_a_plane_is_the_exact_one(seed, norm):
    rng, x, lo, hi, scale, ground = setting(seed, norm)
    slope, rise = rng.normal(size=x.shape), rng.uniform(-0.5, 3, len(x))
    found = ground.across(torch.tensor(x), torch.tensor(slope), torch.tensor(rise)).numpy()
    exact, _ = halfspace_distance(norm, x, slope, (slope * x).sum(1) + rise, lo=lo, hi=hi, scale=scale)
    there = np.isfinite(exact)
    np.testing.assert_allclose(distance(norm, x, found, scale)[there], exact[there], atol=1e-9)
    gained = (slope * (found - x)).sum(1)
    assert (gained[there] >= rise[there] - 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(NORMS))
def test_a_missing_value_stays_and_changes_nothing_for_the_others(seed, norm):
    there = np.arange(D) != 2
    outcomes = []
    for missing in (False, True):
        rng, x, _, _, _, ground = setting(seed, norm, missing=missing)
        step, slope = torch.tensor(rng.normal(0, 2, x.shape)), torch.tensor(rng.normal(size=x.shape) * there)
        rise, eps = torch.tensor(rng.uniform(0, 2, len(x))), torch.tensor(np.ceil(rng.uniform(0, 2, len(x))))
        inside, across = ground.inside(ground.x + step, eps), ground.across(ground.x, slope, rise)
        if missing:
            assert inside[:, 2].isnan().all()
            assert across[:, 2].isnan().all()
        outcomes.append([*(part[:, there].numpy() for part in (inside, across)), ground.far(inside).numpy()])
    for fixed, gone in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(fixed, gone)


def test_each_sample_has_its_own_radius():
    _, x, _, _, scale, ground = setting(3, Norm.L2)
    eps = np.array([0.0, 0.1, 0.5, 1.0, 50.0])
    found = ground.inside(torch.tensor(x + 5), torch.tensor(eps)).numpy()
    far = distance(Norm.L2, x, found, scale)
    assert (far <= eps + 1e-12).all()
    assert far[1] == pytest.approx(0.1)
    np.testing.assert_array_equal(found[0], x[0])


def test_samples_leave_together_with_all_that_belongs_to_them():
    _, x, _, _, _, ground = setting(4, Norm.LINF)
    kept = ground.keep(torch.tensor([False, True, False, False, True]))
    assert kept.row.tolist() == [1, 4]
    np.testing.assert_array_equal(kept.x.numpy(), x[[1, 4]])
    assert len(kept.low) == len(kept.high) == len(kept) == 2


@pytest.mark.parametrize("norm", NORMS)
def test_a_few_samples_at_a_time_go_where_all_at_once_go(norm, monkeypatch):
    # Of 64 pictures of 3 x 224 x 224 the nearest points across a plane took 0.4 to 0.5 GB beside them, now 0.1.
    rng, x, *_, ground = setting(3, norm)
    far, slope, rise = (torch.tensor(rng.normal(0, 2, size)) for size in (x.shape, x.shape, len(x)))
    eps = torch.tensor(rng.uniform(1, 3, len(x)))
    start, rise = torch.tensor(x), rise.abs()
    whole = ground.inside(far, eps), ground.across(start, slope, rise), ground.far(far)
    monkeypatch.setattr("casemate.engine.ground._CELLS", 2 * D)
    parts = ground.inside(far, eps), ground.across(start, slope, rise), ground.far(far)
    for found, expected in zip(parts, whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
