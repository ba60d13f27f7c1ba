"""Surrogates: they learn what the model says within their budget, keep the schema, and are no use at chance."""

from __future__ import annotations

import threading
from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from tests.evasion.makers import attacked, digits, image_schema, torch_model
from torch import nn

from casemate._workshop import Workshop
from casemate.core.bracket import Goal
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.metering import metered_case
from casemate.core.model import ABSTAIN, Model
from casemate.core.norms import Norm
from casemate.core.planner import applicable
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.errors import BudgetExhausted, ModelError, Unavailable
from casemate.evasion.square import square_attack
from casemate.evasion.surrogate import SurrogateOptions, lent, surrogate_of, train_surrogate
from casemate.evasion.transfer import transfer_attack
from casemate.executors import Inline
from casemate.formats import arrays

WEIGHTS = np.array([1.0, -2.0, 0.5, 1.5, -1.0, 0.25])
SCHEMA = Schema(DataKind.TABLE, (6,), tuple(Feature(f"f{i}", lo=-4.0, hi=4.0) for i in range(6)))
OPTIONS = SurrogateOptions(queries=600, rounds=2, epochs=24, width=32)


def says(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.nan_to_num(x) @ WEIGHTS > 0).astype(np.int64)


def case_of(answer=says, *, schema: Schema = SCHEMA, n: int = 400, **more) -> Case:  # type: ignore[no-untyped-def]
    x = np.random.default_rng(5).uniform(-1.5, 1.5, size=(2 * n, *schema.shape))
    model = Model("m", "m", labels=answer, classes=("no", "yes"), **more)
    train, test = Data(x[:n], schema), Data(x[n:], schema, y=np.asarray(says(x[n:])))
    return Case(model=model, splits=Splits(train=train, test=test))


def lab_of(meter: Meter | None = None, options: SurrogateOptions = OPTIONS) -> Lab:
    return Lab(train_surrogate.id, 3, options, meter=meter or Meter())


def shop_lab(meter: Meter | None = None) -> Lab:
    shop = Workshop(seed=3, profile=Profile.QUICK, plugins=(train_surrogate,), executor=Inline())
    return shop.lab(train_surrogate, OPTIONS, meter or Meter())


def test_labels_alone_teach_a_surrogate_whose_gradients_break_what_can_be_broken_and_nothing_else() -> None:
    case, _ = lent(case_of(), shop_lab())
    assert applicable(transfer_attack, case) is None
    for goal, reach in ((Goal(Norm.LINF, 0.25), np.abs(WEIGHTS).sum()), (Goal(Norm.L2, 0.5), np.linalg.norm(WEIGHTS))):
        ledger, _ = attacked(transfer_attack, case, goal)
        breakable = np.abs(case.data("test").x @ WEIGHTS) < goal.eps * reach
        found = ledger.broken(goal.eps)
        assert 40 < breakable.sum() < 360
        assert not (found & ~breakable).any()
        assert found.sum() > 0.9 * breakable.sum()


def test_scores_of_a_model_without_gradients_lend_more_than_a_search_with_as_many_questions_finds() -> None:
    x, y = digits()
    images, schema = x.reshape(-1, 1, 8, 8).astype(np.float32), image_schema(1, 8, 8)
    near = KNeighborsClassifier(10).fit(x[:900], y[:900])
    model = Model(
        "near", "near", labels=lambda v: near.predict(v.reshape(len(v), -1)),
        scores=lambda v: near.predict_proba(v.reshape(len(v), -1)), classes=tuple("0123456789"),
    )  # fmt: skip
    splits = Splits(train=Data(images[:900], schema), test=Data(images[900:964], schema, y[900:964]))
    case, (agreement,) = lent(Case(model=model, splits=splits), shop_lab())
    goal, clean = Goal(Norm.LINF, 0.2), model.labels(images[900:964]) == y[900:964]
    borrowed, _ = attacked(transfer_attack, case, goal)
    options = transfer_attack.options()
    asked = options.starts * options.checks + -(-600 // 64)  # of the model, the surrogate's own questions among them
    searched, _ = attacked(square_attack, case, goal, options=square_attack.options(queries=asked))
    assert agreement.value > 0.8
    assert (borrowed.broken(0.2) & clean).sum() > (searched.broken(0.2) & clean).sum()


def test_a_surrogate_at_chance_is_an_error_and_the_probe_that_asked_is_told() -> None:
    case = case_of(lambda x: (np.abs(np.sin(1e6 * x.sum(axis=1))) > 0.5).astype(np.int64))
    with pytest.raises(ModelError, match="more often than chance"):
        train_surrogate(case, lab_of())
    same, (note,) = lent(case, shop_lab())
    assert same is case
    assert note.metric == "evasion.surrogate_missing"
    assert "chance" in note.method
    constant = case_of(lambda x: np.zeros(len(x), dtype=np.int64))
    with pytest.raises(ModelError, match="more often than chance"):
        train_surrogate(constant, lab_of())


@pytest.mark.parametrize("limit", [None, 200_000])
def test_a_surrogate_that_fails_is_paid_for_once_and_asked_for_once(limit: int | None) -> None:
    # Once it cost nothing on the meter, and everyone who asked had it trained again.
    asked: list[int] = []

    def chance(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        return (np.abs(np.sin(1e6 * x.sum(axis=1))) > 0.5).astype(np.int64)

    case, meter = case_of(chance), Meter(limit=limit)
    lab = shop_lab(meter)
    notes = [lent(metered_case(case, meter), lab)[1] for _ in range(3)]
    assert notes[0] == notes[1] == notes[2]
    assert "chance" in notes[0][0].method
    assert sum(asked) == 600
    assert meter.spent.forwards > meter.spent.backwards > 5_000  # the training too
    alone = Meter(limit=limit)
    with pytest.raises(ModelError, match="more often than chance"):
        lab.plugins[0].function(metered_case(case, alone), replace(lab, meter=alone, options=quick()))
    assert meter.spent == alone.spent


def quick() -> SurrogateOptions:
    options: SurrogateOptions = train_surrogate.configured(Profile.QUICK, None)
    return options


def test_one_that_is_lent_twice_under_a_count_is_built_once() -> None:
    meter = Meter(limit=200_000)
    lab = shop_lab(meter)
    first, second = (lent(metered_case(case_of(), meter), lab)[0] for _ in range(2))
    assert first.surrogates[0].digest == second.surrogates[0].digest
    assert meter.spent.propagations < 20_000


def test_every_question_keeps_the_schema_and_is_counted_and_the_weights_are_the_same_each_time() -> None:
    features = (
        Feature("whole", FeatureKind.INTEGER, lo=-2, hi=2),
        Feature("kind", FeatureKind.CATEGORY, lo=0, hi=2, categories=("a", "b", "c")),
        Feature("fixed", immutable=True),
        Feature("gap", missing_ok=True, lo=-2, hi=2),
        *(Feature(f"f{i}", lo=-1.5, hi=1.5) for i in range(2)),
    )
    schema = Schema(DataKind.TABLE, (6,), features)
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.5, 1.5, (300, 6))
    x[:, 0], x[:, 1] = np.rint(x[:, 0]), rng.integers(0, 3, 300)
    x[::4, 3] = np.nan
    asked: list[np.ndarray] = []

    def answer(v: np.ndarray) -> np.ndarray:
        asked.append(v)
        return says(v + 3.0 * (v[:, [1]] == 1))

    case = replace(case_of(answer), splits=Splits(tune=Data(x, schema)))
    meter = Meter()
    lab = lab_of(meter)
    first = train_surrogate(metered_case(case, meter), lab)
    points = np.concatenate(asked)
    assert len(points) == first["asked"] <= OPTIONS.queries
    assert schema.allowed(points).all()
    assert set(points[:, 2]) <= set(x[:, 2])
    moved = len(points) - 300
    assert moved == 300
    learned = 8 * (240 + 390 + 540)  # eight epochs a round, on more and more rows
    assert (meter.spent.forwards, meter.spent.backwards) == (600 + moved + learned, moved + learned)
    assert arrays.pack(train_surrogate(case, lab_of())) == arrays.pack(first)
    assert np.isfinite(
        np.concatenate([np.ravel(v) for k, v in first.items() if k.startswith("w") and k[1:].isdigit()])
    ).all()


def test_the_agreement_is_that_of_the_stored_net_on_rows_that_it_never_saw() -> None:
    case = case_of()
    stored = train_surrogate(case, lab_of())
    net, fresh = surrogate_of(stored, SCHEMA), case.data("test").x
    truth = float((net.labels(fresh) == says(fresh)).mean())
    assert stored["held"] == 60
    assert stored["agreement"] == stored["agreed"] / stored["held"]
    assert truth == pytest.approx(stored["agreement"], abs=0.08)
    assert stored["chance"] == pytest.approx(0.5, abs=0.1)


def test_it_travels_to_other_processes_in_the_case() -> None:
    case, (note,) = lent(case_of(), shop_lab())
    there: Case = cloudpickle.loads(cloudpickle.dumps(case))
    x = case.data("test").x
    assert np.array_equal(there.surrogates[0].labels(x), case.surrogates[0].labels(x))
    assert note.metric == "evasion.surrogate_agreement"
    assert there.surrogates[0].digest == case.surrogates[0].digest


class Stairs(nn.Module):
    """A net behind an input that is rounded: it shows no gradient."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.inner(torch.round(x * 8) / 8)
        return answer


def test_it_is_lent_only_where_gradients_are_missing_or_hidden() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    open_ = torch_model(net)
    case = replace(case_of(), model=open_)
    assert lent(case, shop_lab())[0] is case
    hidden, (_,) = lent(replace(case, model=torch_model(Stairs(net))), shop_lab())
    assert Facet.SURROGATES in hidden.offers
    assert lent(hidden, shop_lab()) == (hidden, ())


def test_a_net_of_few_features_or_with_gaps_is_lent_none_and_one_that_cannot_be_copied_is() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Filled(), nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    schema = Schema(DataKind.TABLE, (3,), tuple(Feature(f"f{i}", missing_ok=True) for i in range(3)))
    x = np.random.default_rng(0).normal(size=(400, 3))
    x[::10, 0] = np.nan
    model = torch_model(net)
    splits = Splits(train=Data(x, schema), test=Data(x, schema, np.asarray(model.labels(x))))
    case = Case(model=model, splits=splits)
    assert lent(case, shop_lab()) == (case, ())
    net.lock = threading.Lock()
    assert Facet.SURROGATES in lent(case, shop_lab())[0].offers


class Filled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(x)


def test_without_other_data_it_learns_from_test_rows_that_are_not_attacked() -> None:
    whole = case_of()
    case = replace(whole, splits=Splits(test=whole.data("test")))
    found, (note,) = lent(case, shop_lab(), attacked=np.arange(100))
    assert Facet.SURROGATES in found.offers
    assert "test rows that are not attacked" in note.method
    same, (why,) = lent(case, shop_lab(), attacked=np.arange(390))
    assert same is case
    assert "at least 60 rows" in why.method
    with pytest.raises(Unavailable, match="train, tune or reference"):
        train_surrogate(case, lab_of())


def test_a_count_limits_it_to_a_part_of_what_is_left() -> None:
    meter = Meter(limit=40_000)
    train_surrogate(metered_case(case_of(), meter), lab_of(meter))
    assert 5_000 < meter.spent.propagations <= 10_000
    with pytest.raises(BudgetExhausted):
        train_surrogate(case_of(), lab_of(Meter(limit=4_000)))
    meter = Meter(limit=4_000)
    same, (note,) = lent(case_of(), shop_lab(meter))
    assert not same.surrogates
    assert meter.refusals == 0
    assert "budget" in note.method


def test_rows_that_the_model_refuses_teach_nothing() -> None:
    refuses = case_of(lambda x: np.where(x[:, 0] > 0, ABSTAIN, says(x)))
    assert train_surrogate(refuses, lab_of())["classes"] == 2
    with pytest.raises(Unavailable, match="refuses most"):
        train_surrogate(case_of(lambda x: np.full(len(x), ABSTAIN)), lab_of())
