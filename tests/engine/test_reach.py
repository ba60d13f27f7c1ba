from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casemate.core.facets import DataKind
from casemate.core.norms import Norm, distance
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.engine.reach import reach_of

seeds = st.integers(0, 10**6)
sizes = st.floats(1e-6, 1e3)


@given(seeds, sizes, st.sampled_from([Norm.LINF, Norm.L2, Norm.L1]), st.sampled_from([np.float32, np.float64]))
@example(0, 1.0000000000000002e-06, Norm.LINF, np.float64)  # x + eps was rounded away from x
def test_a_settled_point_is_inside_in_float64_without_any_tolerance(
    seed: int, eps: float, norm: Norm, dtype: type
) -> None:
    rng = np.random.default_rng(seed)
    features = tuple(
        Feature(f"f{i}", lo=-3.0, hi=4.0, scale=float(rng.uniform(0.01, 5)), immutable=bool(i == 3)) for i in range(6)
    )
    schema = Schema(DataKind.TABLE, (6,), features)
    x = rng.uniform(-3, 4, size=(5, 6)).astype(dtype)
    settled = reach_of(norm, eps, x, schema).settle(x + rng.normal(size=x.shape) * 10)
    assert settled.dtype == dtype
    assert np.all(distance(norm, x, settled, schema.scale) <= eps * (1 + 1e-12))
    assert np.all((settled >= -3) & (settled <= 4))
    assert np.array_equal(settled[:, 3], x[:, 3])


@given(seeds, sizes)
def test_the_corners_of_a_linf_ball_are_reached_up_to_one_rounding(seed: int, eps: float) -> None:
    x = np.random.default_rng(seed).uniform(-1, 1, size=(3, 4)).astype(np.float32)
    reach = reach_of(Norm.LINF, eps, x, None)
    gap = np.abs(reach.high.astype(np.float64) - x - eps)
    assert np.all(gap <= np.spacing(np.abs(reach.high) + np.float32(1e-30)) + 1e-12)


def test_missing_values_stay_missing_and_whole_numbers_whole() -> None:
    features = (Feature("a", missing_ok=True), Feature("n", kind=FeatureKind.INTEGER, lo=0, hi=9))
    x = np.array([[np.nan, 3.0], [0.5, 3.0]])
    reach = reach_of(Norm.LINF, 1.6, x, Schema(DataKind.TABLE, (2,), features))
    settled = reach.settle(np.full((2, 2), 100.0))
    assert np.isnan(settled[0, 0])
    assert settled[1, 0] == pytest.approx(2.1)
    assert settled[:, 1].tolist() == [4.0, 4.0]


def test_a_sample_outside_the_declared_bounds_keeps_its_place() -> None:
    schema = Schema(DataKind.TABLE, (1,), (Feature("a", lo=0.0, hi=1.0),))
    reach = reach_of(Norm.L2, 0.5, np.array([[1.7]]), schema)
    assert reach.settle(np.array([[5.0]])).tolist() == [[1.7]]
    assert reach.settle(np.array([[1.5]])).tolist() == [[1.5]]
