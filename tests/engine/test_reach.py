from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from casemate.core.facets import DataKind
from casemate.core.norms import Norm, distance
from casemate.core.schema import Feature, FeatureKind, Relation, Schema
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


def ruled_schema(rng: np.random.Generator) -> Schema:
    """Numbers of both kinds, a chain of relations, a category and a one-hot block at prices, one feature fixed."""
    kinds = [FeatureKind.INTEGER if rng.random() < 0.5 else FeatureKind.NUMERIC for _ in range(4)]
    numbers = tuple(
        Feature(f"n{i}", kind=kinds[i], lo=-6, hi=6, scale=float(rng.uniform(0.2, 3)), missing_ok=True)
        for i in range(4)
    )
    price = float(rng.uniform(0.1, 2))
    block = tuple(Feature(f"b{i}", lo=0, hi=1, block="b", switch_cost=price) for i in range(3))
    kind = Feature("kind", FeatureKind.CATEGORY, categories=("u", "v", "w"), switch_cost=float(rng.uniform(0.1, 2)))
    relations = (Relation("n0", "n1"), Relation("n1", "n2"), Relation("n0", "n3"))
    features = (*numbers, Feature("fixed", lo=-6, hi=6, immutable=True), *block, kind)
    return Schema(DataKind.TABLE, (9,), features, relations)


def ruled_rows(rng: np.random.Generator, schema: Schema, n: int = 6) -> np.ndarray:
    chain = np.sort(rng.integers(-5, 6, size=(n, 4)).astype(float), axis=1)[:, [0, 1, 2, 3]]
    x = np.column_stack([chain, rng.uniform(-5, 5, n), np.eye(3)[rng.integers(0, 3, n)], rng.integers(0, 3, n)])
    x[rng.random(n) < 0.3, 2] = np.nan
    assert schema.allowed(x).all()
    return x


@settings(max_examples=150)
@given(seeds, st.floats(0.01, 20), st.sampled_from([Norm.LINF, Norm.L2, Norm.L1]), st.sampled_from([4, 8]))
def test_a_settled_point_keeps_every_rule_of_the_schema_and_the_ball(
    seed: int, eps: float, norm: Norm, size: int
) -> None:
    rng = np.random.default_rng(seed)
    schema = ruled_schema(rng)
    x = ruled_rows(rng, schema).astype(f"f{size}")
    for limit in (eps, np.inf):
        reach = reach_of(norm, limit, x, schema)
        settled = reach.settle(np.nan_to_num(x) + rng.normal(size=x.shape) * rng.choice([0.5, 5, 50]))
        assert schema.allowed(settled).all()
        assert np.all(distance(norm, x, settled, schema.scale, schema.switches) <= limit * (1 + 1e-9))
        assert np.array_equal(reach.settle(settled), settled, equal_nan=True)


@given(seeds)
def test_what_is_inside_already_is_left_where_it_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    schema = ruled_schema(rng)
    x, other = ruled_rows(rng, schema), ruled_rows(rng, schema)
    other[:, 4] = x[:, 4]
    other[:, 2] = np.where(np.isnan(x[:, 2]), np.nan, other[:, [1, 3]].mean(axis=1).round())
    lawful = schema.allowed(other)
    far = distance(Norm.L2, x, other, schema.scale, schema.switches)
    for row in np.flatnonzero(lawful):
        reach = reach_of(Norm.L2, float(far[row]) * (1 + 1e-6) + 1e-9, x[[row]], schema)
        assert np.array_equal(reach.settle(other[[row]]), other[[row]], equal_nan=True)


def test_columns_of_a_broken_relation_meet_between_their_values() -> None:
    features = (Feature("from", lo=0, hi=9, scale=1.0), Feature("to", lo=0, hi=9, scale=1.0))
    schema = Schema(DataKind.TABLE, (2,), features, (Relation("from", "to"),))
    reach = reach_of(Norm.LINF, 3.0, np.array([[4.0, 5.0]]), schema)
    assert reach.settle(np.array([[7.0, 4.0]])).tolist() == [[5.0, 5.0]]  # from never went beyond what to began with
    assert reach.settle(np.array([[6.0, 6.5]])).tolist() == [[6.0, 6.5]]
    fixed = Schema(DataKind.TABLE, (2,), (features[0], replace(features[1], immutable=True)), schema.relations)
    assert reach_of(Norm.LINF, 3.0, np.array([[4.0, 5.0]]), fixed).settle(np.array([[7.0, 4.0]])).tolist() == [
        [5.0, 5.0]
    ]


@pytest.mark.parametrize(("norm", "size"), [(Norm.LINF, 2.0), (Norm.L2, 2.5), (Norm.L1, 3.5), (Norm.L0, 2.0)])
def test_a_switch_is_one_coordinate_at_its_price(norm: Norm, size: float) -> None:
    features = (Feature("n", scale=2.0), *(Feature(f"b{i}", block="b", switch_cost=2.0) for i in range(3)))
    schema = Schema(DataKind.TABLE, (4,), features)
    x, moved = np.array([[0.0, 1, 0, 0]]), np.array([[3.0, 0, 0, 1]])
    assert distance(norm, x, moved, schema.scale, schema.switches)[0] == size
    assert distance(norm, x, moved, schema.scale)[0] == np.inf
