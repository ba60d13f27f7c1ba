from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier
from tests.evasion.makers import attacked, batch_from, cnn, image_case, torch_linear, torch_model

from casemate import adapters
from casemate.adapters.function import wrap_function
from casemate.core.bracket import Batch, Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance, halfspace_distance
from casemate.core.schema import Feature, FeatureKind, Relation, Schema
from casemate.errors import ConfigError
from casemate.evasion.hop_skip_jump import HopSkipJumpOptions, hop_skip_jump_attack
from casemate.evasion.linear import linear_attack
from casemate.evasion.rays import RaysOptions, rays_attack, runs_of

INF = float("inf")


def halfspace(d: int, *, bounded: bool) -> tuple[Case, np.ndarray]:
    """Two classes that a plane divides, unequal scales and one fixed feature; with the exact distances."""
    rng = np.random.default_rng(d)
    scales, edge = rng.uniform(0.2, 5, d), 3.0 if bounded else INF
    features = tuple(
        Feature(f"f{i}", lo=-edge, hi=edge, scale=float(scale), immutable=i == 1) for i, scale in enumerate(scales)
    )
    schema = Schema(DataKind.TABLE, (d,), features)
    slope, x = rng.normal(size=d), rng.uniform(-3, 3, size=(24, d))
    labels = wrap_function(lambda z: (z @ slope >= 0.3).astype(np.int64), output="labels", classes=("0", "1"))
    y = (x @ slope >= 0.3).astype(np.int64)
    side = np.where(y == 1, -1.0, 1.0)
    exact, _ = halfspace_distance(
        Norm.LINF, x, side[:, None] * slope, side * 0.3, lo=schema.lo, hi=schema.hi, scale=schema.scale
    )
    return Case(model=labels, splits=Splits(test=Data(x, schema, y))), exact


@pytest.mark.parametrize(("d", "bounded"), [(3, True), (20, True), (60, True), (20, False)])
def test_behind_a_plane_it_finds_the_optimum_with_its_default_queries(d: int, bounded: bool) -> None:
    case, exact = halfspace(d, bounded=bounded)
    found, lab = attacked(rays_attack, case, Goal(Norm.LINF, INF))
    there = np.isfinite(exact)
    assert there.sum() > 12
    assert (found.upper[there] >= exact[there] * (1 - 1e-9)).all()
    assert (found.upper[there] <= exact[there] * 1.01).all()
    assert lab.meter.spent.forwards <= 24 * 1000 + 24  # the harness asks for each witness once


def test_between_ten_classes_it_comes_near_the_optimum_and_never_passes_it() -> None:
    case = image_case(torch_linear(), n=40)
    exact, _ = attacked(linear_attack, case, Goal(Norm.LINF, INF))
    found, _ = attacked(rays_attack, case, Goal(Norm.LINF, INF))
    ratio = found.upper[exact.upper > 0] / exact.upper[exact.upper > 0]
    assert ratio.min() >= 1 - 1e-4
    assert np.median(ratio) < 1.02


def test_it_comes_much_nearer_than_hop_skip_jump_for_the_same_queries() -> None:
    case = image_case(torch_model(cnn(), labels_only=True), n=32)
    for queries in (100, 400):
        ours, lab = attacked(rays_attack, case, Goal(Norm.LINF, INF), options=RaysOptions(queries))
        peer, _ = attacked(hop_skip_jump_attack, case, Goal(Norm.LINF, INF), options=HopSkipJumpOptions(queries))
        assert np.median(ours.upper) < 0.8 * np.median(peer.upper)
        assert lab.meter.spent.forwards <= 32 * (queries + 1)


def odd_table(seed: int) -> Case:
    """A tree on numbers of unequal scale, whole, missing, fixed, a category and a relation."""
    rng = np.random.default_rng(seed)
    features = (
        Feature("a", lo=-2.0, hi=2.0),
        Feature("b", FeatureKind.INTEGER, lo=0, hi=20, scale=3.0),
        Feature("c", lo=0.0, hi=1.0, scale=0.3, missing_ok=True),
        Feature("d", FeatureKind.CATEGORY, lo=0, hi=2, categories=("x", "y", "z")),
        Feature("e", lo=-1.0, hi=1.0, immutable=True),
        Feature("f", scale=2.0),
        Feature("g", scale=0.5),
    )
    n = 16
    hidden = np.where(rng.random(n) < 0.2, np.nan, rng.random(n))
    low = rng.normal(size=n)
    columns = (rng.uniform(-2, 2, n), rng.integers(0, 21, n), hidden, rng.integers(0, 3, n), rng.uniform(-1, 1, n))
    x = np.column_stack([*columns, low, low + rng.random(n)])
    y = (x[:, 0] + x[:, 1] / 10 + x[:, 3] / 3 + x[:, 5] > 1.2).astype(np.int64)
    schema = Schema(DataKind.TABLE, (7,), features, (Relation("f", "g"),))
    model = adapters.wrap(DecisionTreeClassifier(max_depth=6, random_state=0).fit(x, y), schema=schema)
    return Case(model=model, splits=Splits(test=Data(x, schema, model.labels(x))))


@settings(max_examples=12)
@given(st.integers(0, 1000), st.sampled_from([0.3, INF]))
def test_every_claim_keeps_the_schema_and_is_wrong_and_within_eps(seed: int, eps: float) -> None:
    case = odd_table(seed)
    data, model = case.data("test"), case.the_model()
    lab = Lab("evasion/rays", seed, options=RaysOptions(150))
    for claim in rays_attack(case, batch_from(case), Goal(Norm.LINF, eps), lab):
        assert claim.x is not None
        assert (distance(Norm.LINF, data.x[claim.rows], claim.x, data.schema.scale) <= eps).all()
        assert data.schema.allowed(claim.x).all()
        assert (model.labels(claim.x) != data.labels[claim.rows]).all()
        assert np.array_equal(claim.x[:, 3:5], data.x[claim.rows, 3:5])


def test_a_sample_fares_the_same_whichever_samples_share_its_batch() -> None:
    case = odd_table(3)
    whole, _ = attacked(rays_attack, case, Goal(Norm.LINF, INF), options=RaysOptions(150))
    batch = batch_from(case)
    rows = np.array([13, 2, 7])
    part, _ = attacked(rays_attack, case, Goal(Norm.LINF, INF), options=RaysOptions(150), batch=batch.take(rows))
    assert np.array_equal(part.witness, whole.witness[rows], equal_nan=True)
    nobody = Batch(batch.x[:0], batch.y[:0], batch.sample_id[:0])
    assert list(rays_attack(case, nobody, Goal(Norm.LINF, INF), Lab("evasion/rays", 0, options=RaysOptions()))) == []


def test_a_target_is_the_only_success_and_a_budget_keeps_what_was_found() -> None:
    case = image_case(torch_linear(), n=30)
    ledger, _ = attacked(rays_attack, case, Goal(Norm.LINF, INF, target=8), options=RaysOptions(200))
    found = ledger.upper_by == "evasion/rays"
    assert found.sum() > 10
    assert np.all(case.the_model().labels(ledger.witness[found]) == 8)
    stopped, lab = attacked(rays_attack, case, Goal(Norm.LINF, INF), limit=30 * 50)
    assert lab.meter.refusals == 1
    assert np.isfinite(stopped.upper).all()
    near, lab = attacked(rays_attack, case, Goal(Norm.LINF, 0.6))
    assert near.broken(0.6).all()
    assert lab.meter.spent.forwards < 30 * 50


def test_blocks_of_an_image_are_squares_and_every_feature_is_in_one() -> None:
    order = runs_of((3, 8, 8))
    assert sorted(order) == list(range(192))
    quarter = np.unravel_index(order[:48], (3, 8, 8))
    assert [set(axis.tolist()) for axis in quarter] == [{0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3}]
    assert runs_of((5,)).tolist() == [0, 1, 2, 3, 4]


def test_it_refuses_no_queries() -> None:
    with pytest.raises(ConfigError, match="queries"):
        attacked(rays_attack, image_case(torch_linear(), n=4), Goal(Norm.LINF, INF), options=RaysOptions(0))
