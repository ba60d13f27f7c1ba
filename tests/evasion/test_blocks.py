from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from tests.evasion.makers import NORMS, attacked, batch_from

from casemate.core.bracket import Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm, distance
from casemate.core.schema import Feature, FeatureKind, Relation, Schema
from casemate.evasion.blocks import BlocksOptions, blocks_attack


def tree_case(seed: int = 0, *, forest: bool = False) -> Case:
    """A tree on a table with a fixed column, a category, whole numbers, missing values and different scales."""
    rng = np.random.default_rng(seed)
    x = np.column_stack(
        [
            rng.normal(size=60) * 3,
            rng.normal(size=60),
            rng.integers(0, 3, 60),
            rng.integers(0, 9, 60),
            rng.normal(size=60),
        ]
    ).astype(np.float64)
    y = (x[:, 0] / 3 + x[:, 1] + (x[:, 3] > 4) > 0.5).astype(np.int64)
    x[::7, 4] = np.nan
    features = (
        Feature("wide", lo=-20.0, hi=20.0, scale=3.0),
        Feature("fixed", lo=-9.0, hi=9.0, immutable=True),
        Feature("kind", kind=FeatureKind.CATEGORY, categories=("a", "b", "c")),
        Feature("count", kind=FeatureKind.INTEGER, lo=0, hi=9, scale=2.0),
        Feature("gappy", lo=-9.0, hi=9.0, missing_ok=True),
    )
    kind = RandomForestClassifier(20, random_state=0) if forest else DecisionTreeClassifier(max_depth=4, random_state=0)
    fitted = kind.fit(x, y)
    model = Model("trees", "trees", labels=lambda a: fitted.predict(a), scores=lambda a: fitted.predict_proba(a))
    return Case(model=model, splits=Splits(test=Data(x, Schema(DataKind.TABLE, (5,), features), y)))


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(0.05, 1.5), st.sampled_from(NORMS))
def test_claims_keep_every_rule_of_the_schema(seed: int, eps: float, norm: Norm) -> None:
    case = tree_case(seed)
    data = case.data("test")
    for claim in blocks_attack(
        case, batch_from(case), Goal(norm, eps), Lab("evasion/blocks", seed, options=BlocksOptions(15))
    ):
        assert claim.x is not None
        assert data.schema.allowed(claim.x).all()
        assert np.all(distance(norm, data.x[claim.rows], claim.x, data.schema.scale) <= eps * (1 + 1e-12))
        assert np.array_equal(claim.x[:, [1, 2]], data.x[claim.rows][:, [1, 2]])
        assert np.array_equal(np.isnan(claim.x[:, 4]), np.isnan(data.x[claim.rows, 4]))


@pytest.mark.parametrize("norm", NORMS)
def test_it_breaks_a_forest_that_has_no_gradients(norm: Norm) -> None:
    case = tree_case(forest=True)
    eps = 1.0
    ledger, lab = attacked(blocks_attack, case, Goal(norm, eps), options=BlocksOptions(queries=100))
    assert ledger.broken(eps).mean() > 0.4
    assert lab.meter.spent.backwards == 0


def test_on_a_stump_every_decision_equals_the_closed_form() -> None:
    """One threshold: a row falls just where eps reaches across it."""
    x = np.linspace(-1, 1, 41)[:, None]
    y = (x[:, 0] > 0.1).astype(np.int64)
    stump = DecisionTreeClassifier(max_depth=1).fit(x, y)
    threshold = float(stump.tree_.threshold[0])
    model = Model("stump", "stump", labels=lambda a: stump.predict(a), scores=lambda a: stump.predict_proba(a))
    schema = Schema(DataKind.TABLE, (1,), (Feature("f", lo=-1.0, hi=1.0),))
    case = Case(model=model, splits=Splits(test=Data(x, schema, y)))
    ledger, _ = attacked(blocks_attack, case, Goal(Norm.LINF, 0.33), options=BlocksOptions(queries=30))
    # A row on the right falls at the threshold itself, one on the left just beyond it; no row lies between.
    assert np.array_equal(ledger.broken(0.33), np.abs(x[:, 0] - threshold) < 0.33)


def test_a_row_fares_the_same_whichever_rows_share_its_batch() -> None:
    case = tree_case(forest=True)
    whole, _ = attacked(blocks_attack, case, Goal(Norm.LINF, 0.5), options=BlocksOptions(queries=40))
    rows = np.arange(59, 0, -7)
    part, _ = attacked(
        blocks_attack, case, Goal(Norm.LINF, 0.5), options=BlocksOptions(queries=40), batch=batch_from(case, rows)
    )
    assert np.array_equal(part.witness, whole.witness[rows], equal_nan=True)


def whole_case(seed: int) -> Case:
    """Two related whole numbers, a category and a one-hot block at prices, under a tree: every row can be counted."""
    rng = np.random.default_rng(seed)
    pair = np.sort(rng.integers(0, 5, size=(40, 2)), axis=1)
    x = np.column_stack([pair, rng.integers(0, 3, 40), np.eye(2)[rng.integers(0, 2, 40)]]).astype(np.float64)
    y = (x[:, 0] * 2 + x[:, 1] + 2 * (x[:, 2] == 1) + 3 * x[:, 3] + rng.normal(size=40) > 6).astype(np.int64)
    features = (
        Feature("from", FeatureKind.INTEGER, lo=0, hi=4),
        Feature("to", FeatureKind.INTEGER, lo=0, hi=4, scale=2.0),
        Feature("kind", FeatureKind.CATEGORY, categories=("a", "b", "c"), switch_cost=1.5),
        Feature("is_x", FeatureKind.INTEGER, lo=0, hi=1, block="is", switch_cost=1.0),
        Feature("is_y", FeatureKind.INTEGER, lo=0, hi=1, block="is", switch_cost=1.0),
    )
    fitted = DecisionTreeClassifier(max_depth=5, random_state=0).fit(x, y)
    model = Model("tree", "tree", labels=lambda a: fitted.predict(a), scores=lambda a: fitted.predict_proba(a))
    schema = Schema(DataKind.TABLE, (5,), features, (Relation("from", "to"),))
    return Case(model=model, splits=Splits(test=Data(x[:16], schema, fitted.predict(x[:16]))))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [1.0, 1.5])
def test_it_finds_what_brute_force_finds_among_whole_numbers_relations_and_categories(norm: Norm, eps: float) -> None:
    case = whole_case(1)
    data, model = case.data("test"), case.the_model()
    every = np.array([(a, b, k, *hot) for a in range(5) for b in range(a, 5) for k in range(3) for hot in np.eye(2)])
    assert data.schema.allowed(every).all()
    nearest = np.array(
        [
            distance(norm, np.broadcast_to(x, every.shape), every, data.schema.scale, data.schema.switches)[
                model.labels(every) != y
            ].min()
            for x, y in zip(data.x, data.labels, strict=True)
        ]
    )
    ledger, _ = attacked(blocks_attack, case, Goal(norm, eps), options=BlocksOptions(queries=400))
    there = nearest <= eps
    if norm is Norm.LINF:
        assert np.array_equal(ledger.broken(eps), there)
    assert not np.any(ledger.broken(eps) & ~there)
    assert np.sum(ledger.broken(eps)) >= 0.8 * np.sum(there)
    assert 0 < ledger.broken(eps).sum() < 16
    found = np.isfinite(ledger.upper)
    assert np.all(ledger.upper[found] >= nearest[found])


def test_a_ball_much_larger_than_the_box_is_searched_without_overflow() -> None:
    # Once eps was divided by the length of a step of length 0.
    schema = Schema(DataKind.TABLE, (1,), (Feature("a", lo=0.0, hi=1.0),))
    tree = DecisionTreeClassifier(max_depth=1).fit([[0.2], [0.9]], [0, 1])
    model = Model("t", "t", labels=tree.predict, scores=tree.predict_proba)
    data = Data(np.linspace(0, 0.5, 8).reshape(-1, 1), schema, np.zeros(8, dtype=np.int64))
    stuck = replace(model, labels=lambda x: np.zeros(len(x), dtype=np.int64), scores=lambda x: np.eye(2)[[0] * len(x)])
    for asked, found in ((model, True), (stuck, False)):
        ledger, _ = attacked(blocks_attack, Case(model=asked, splits=Splits(test=data)), Goal(Norm.L2, 50.0))
        assert np.isfinite(ledger.upper).tolist() == [found] * 8
