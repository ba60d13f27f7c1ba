from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier
from tests.evasion.makers import NORMS, attacked, batch_from, image_case, torch_linear

from casemate import adapters
from casemate._audit import Order, run
from casemate.adapters.function import wrap_function
from casemate.core.bracket import Batch, Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.evidence import Evidence
from casemate.core.facets import DataKind, Facet
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.evasion.hop_skip_jump import HopSkipJumpOptions, hop_skip_jump_attack
from casemate.evasion.linear import linear_attack

INF = float("inf")


@pytest.mark.parametrize(("norm", "near"), [(Norm.L2, 1.2), (Norm.LINF, 1.3)])
def test_on_a_linear_model_it_comes_near_the_closed_form_and_never_passes_it(norm: Norm, near: float) -> None:
    case = image_case(torch_linear(), n=30)
    exact, _ = attacked(linear_attack, case, Goal(norm, INF))
    right = exact.upper > 0
    medians = []
    for queries in (250, 1000, 4000):
        ledger, _ = attacked(hop_skip_jump_attack, case, Goal(norm, INF), options=HopSkipJumpOptions(queries))
        ratio = ledger.upper[right] / exact.upper[right]
        assert ratio.min() >= 1 - 1e-4
        medians.append(float(np.median(ratio)))
    assert medians == sorted(medians, reverse=True)
    assert medians[-1] < near


def table_case(seed: int, n: int = 24) -> Case:
    rng = np.random.default_rng(seed)
    features = (
        Feature("a", lo=-2.0, hi=2.0),
        Feature("b", FeatureKind.INTEGER, lo=0, hi=20, scale=3.0),
        Feature("c", lo=0.0, hi=1.0, scale=0.3, missing_ok=True),
        Feature("d", FeatureKind.CATEGORY, lo=0, hi=2, categories=("x", "y", "z")),
        Feature("e", lo=-1.0, hi=1.0, immutable=True),
    )
    x = np.column_stack(
        [
            rng.uniform(-2, 2, n),
            rng.integers(0, 21, n),
            np.where(rng.random(n) < 0.2, np.nan, rng.random(n)),
            rng.integers(0, 3, n),
            rng.uniform(-1, 1, n),
        ]
    )
    y = (x[:, 0] + x[:, 1] / 10 + x[:, 3] / 3 > 1.2).astype(np.int64)
    schema = Schema(DataKind.TABLE, (5,), features)
    tree = DecisionTreeClassifier(max_depth=6, random_state=0).fit(x, y)
    model = adapters.wrap(tree, schema=schema)
    return Case(model=model, splits=Splits(test=Data(x, schema, model.labels(x))))


@settings(max_examples=12)
@given(st.integers(0, 1000), st.sampled_from(NORMS), st.sampled_from([0.3, INF]))
def test_every_claim_is_lawful_wrong_and_nearer_than_the_one_before(seed: int, norm: Norm, eps: float) -> None:
    case = table_case(seed)
    data, model = case.data("test"), case.the_model()
    batch = batch_from(case)
    told = np.full(len(batch), INF)
    lab = Lab("evasion/hop_skip_jump", seed, options=HopSkipJumpOptions(queries=120))
    for claim in hop_skip_jump_attack(case, batch, Goal(norm, eps), lab):
        assert claim.x is not None
        far = distance(norm, data.x[claim.rows], claim.x, data.schema.scale)
        assert (far <= eps).all()
        assert (far < told[claim.rows]).all()
        assert data.schema.allowed(claim.x).all()
        assert (model.labels(claim.x) != data.labels[claim.rows]).all()
        told[claim.rows] = far


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_fares_the_same_whichever_samples_share_its_batch(norm: Norm) -> None:
    case = table_case(3)
    whole, _ = attacked(hop_skip_jump_attack, case, Goal(norm, INF), options=HopSkipJumpOptions(queries=150))
    batch = batch_from(case)
    for row in (0, 7, 20):
        alone = Batch(batch.x[[row]], batch.y[[row]], batch.sample_id[[row]])
        one = dict.fromkeys([row], INF)
        lab = Lab("evasion/hop_skip_jump", 3, options=HopSkipJumpOptions(queries=150))
        for claim in hop_skip_jump_attack(case, alone, Goal(norm, INF), lab):
            assert claim.x is not None
            one[row] = float(distance(norm, alone.x, claim.x, case.data("test").schema.scale)[0])
        assert one[row] == whole.upper[row]


def test_no_sample_is_asked_more_often_than_the_queries_say() -> None:
    case = table_case(5)
    asked = 0

    def counted(x: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(x)
        return case.the_model().labels(x)

    other = dataclasses.replace(case, model=wrap_function(counted, output="labels", classes=("0", "1")))
    lab = Lab("evasion/hop_skip_jump", 0, options=HopSkipJumpOptions(queries=200))
    for _ in hop_skip_jump_attack(other, batch_from(case), Goal(Norm.L2, INF), lab):
        pass
    assert asked <= 200 * len(case.data("test")) + 200


def robust(report_of: Case, **options: object) -> dict[float, Evidence]:
    report = run(report_of, Order(only=("evasion/standard",), options={"evasion/standard": dict(options)}))
    items = [item for outcome in report.outcomes for item in outcome.evidence]
    assert items, report.outcomes
    return {float(item.at["eps"]): item for item in items if item.metric == "evasion.robust_accuracy"}


def test_a_model_that_gives_labels_alone_is_measured_by_the_standard_probe() -> None:
    case = image_case(torch_linear(), n=24)
    exact, _ = attacked(linear_attack, case, Goal(Norm.L2, INF))
    eps = float(np.quantile(exact.upper, 0.5))
    labels = wrap_function(case.the_model().labels, output="labels", classes=case.the_model().classes)
    bare = dataclasses.replace(case, model=labels)
    assert Facet.SCORES not in bare.offers
    found = robust(bare, norm="l2", eps=(eps, 2 * eps), queries=600)
    assert found[eps].value >= float(np.mean(exact.upper > eps))
    assert found[2 * eps].value <= 0.3


def test_scores_that_are_rounded_to_a_label_do_not_make_a_model_look_robust() -> None:
    # A score search sees a plateau; the alarm by labels alone meets witnesses and runs on every sample.
    case = image_case(torch_linear(), n=24)
    model = case.the_model()
    names = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    hidden = wrap_function(lambda x: np.eye(len(names))[model.labels(x)], output="scores", classes=names)
    exact, _ = attacked(linear_attack, case, Goal(Norm.L2, INF))
    eps = 3 * float(np.quantile(exact.upper, 0.5))
    assert robust(dataclasses.replace(case, model=hidden), norm="l2", eps=eps, queries=400)[eps].value <= 0.2
