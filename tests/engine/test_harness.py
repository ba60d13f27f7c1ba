from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.core.bracket import Batch, Claim, Goal, Ledger
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind, PluginKind
from casemate.core.lab import Lab
from casemate.core.metering import observed
from casemate.core.model import ABSTAIN, Model
from casemate.core.norms import Norm
from casemate.core.outcome import Threat
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Relation, Schema
from casemate.engine.harness import answers_at_random, batch_of, open_ledger, pursue, steadied, wrong
from casemate.errors import BudgetExhausted, Contradiction, LawBroken, ModelError

N = 8
GOAL = Goal(Norm.LINF, 0.25)
ROWS = np.arange(N)

Trick = Callable[[Case, Batch, Goal, Lab], Iterator[Claim]]


def labels(x: np.ndarray) -> np.ndarray:
    """Class 1 where the first feature is above 0.5."""
    return (x[:, 0] > 0.5).astype(np.int64)


def case_of(answer: Callable[[np.ndarray], np.ndarray] = labels) -> Case:
    """Rows at 0.3, all of class 0, so that the nearest wrong answer is just beyond 0.2 away."""
    features = (Feature("a", lo=0.0, hi=1.0), Feature("b", lo=0.0, hi=1.0, immutable=True))
    schema = Schema(DataKind.TABLE, (2,), features)
    x = np.full((N, 2), 0.3)
    data = Data(x, schema, np.zeros(N, dtype=np.int64))
    return Case(model=Model("half", "half", labels=answer), splits=Splits(test=data))


def run(
    trick: Trick, *, kind: PluginKind = PluginKind.ATTACK, case: Case | None = None, limit: int | None = None
) -> Ledger:
    case = case_of() if case is None else case
    data = case.data("test")
    batch = batch_of(data.x, data.labels, data.sample_id)
    ledger = open_ledger(case, batch, GOAL.norm)
    plugin = Plugin(kind, "tests/trick", trick, Threat("t", "t"), "malice")
    run.whole = pursue(  # type: ignore[attr-defined]
        plugin, case, batch, GOAL, Lab("tests/trick", 0, meter=Meter(limit=limit)), ledger=ledger, rows=ROWS
    )
    return ledger


def moved(batch: Batch, by: float, column: int = 0) -> np.ndarray:
    x = batch.x.copy()
    x[:, column] += by
    return x


def test_an_honest_claim_is_joined_at_its_measured_distance() -> None:
    def honest(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(ROWS, x=moved(batch, 0.21))

    ledger = run(honest)
    assert np.allclose(ledger.upper, 0.21)
    assert set(ledger.upper_by) == {"tests/trick"}


@given(st.floats(0.25 * (1 + 1e-5), 0.7))
def test_a_success_claimed_outside_the_ball_breaks_the_law(by: float) -> None:
    def outside(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(ROWS, x=moved(batch, by))

    with pytest.raises(LawBroken, match="stay within"):
        run(outside)


def test_a_change_of_an_immutable_feature_is_outside_every_ball() -> None:
    def forbidden(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(ROWS, x=moved(batch, 0.01, column=1))

    with pytest.raises(LawBroken, match="stay within"):
        run(forbidden)


@pytest.mark.parametrize("by", [0.1, float("nan")])
def test_a_claimed_success_that_is_none_does_not_count(by: float) -> None:
    def wishful(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(ROWS, x=moved(batch, by))

    if np.isnan(by):
        with pytest.raises(LawBroken, match="stay within"):  # a value that went missing is at distance inf
            run(wishful)
    else:
        assert np.isinf(run(wishful).upper).all()


def test_a_sample_that_the_schema_forbids_does_not_count() -> None:
    def below_zero(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(ROWS, x=moved(batch, 0.21))

    case = case_of()
    schema = replace(case.data("test").schema, features=(Feature("a", lo=0.0, hi=0.5), Feature("b", lo=0.0, hi=1.0)))
    narrow = replace(case, splits=Splits(test=replace(case.data("test"), schema=schema)))
    assert np.isinf(run(below_zero, case=narrow).upper).all()


def test_a_sample_that_breaks_the_schema_itself_can_be_broken_but_goes_no_further_out() -> None:
    # Once no witness of such a row was allowed, and it counted as robust.
    features = (Feature("a", lo=0.0, hi=1.0), Feature("b", lo=0.0, hi=0.2), Feature("c", lo=0.0, hi=1.0))
    schema = Schema(DataKind.TABLE, (3,), features, (Relation("c", "b"),))
    x = np.tile([0.3, 0.3, 0.4], (N, 1))  # b is out of bounds, and c is not below it
    case = replace(case_of(), splits=Splits(test=Data(x, schema, np.zeros(N, dtype=np.int64))))

    def several(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        x = moved(batch, 0.21)
        x[1, 1] += 0.01  # further out
        x[2, 1] -= 0.01  # less far
        x[3, 2] = 0.2  # mended
        x[4, 0] = x[4, 1] = 0.51
        yield Claim(ROWS, x=x)

    assert np.isinf(run(several, case=case).upper).tolist() == [False, True, False, False, True, False, False, False]


def test_a_changed_input_breaks_the_law() -> None:
    def scribbles(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        batch.x.setflags(write=True)
        batch.x[0, 0] = 0.9
        yield Claim(ROWS[1:], x=moved(batch, 0.21)[1:])

    with pytest.raises(LawBroken, match="inputs untouched"):
        run(scribbles)


def test_a_read_only_input_cannot_be_changed_by_accident() -> None:
    def clumsy(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        batch.x += 1
        yield Claim(ROWS, x=batch.x)

    with pytest.raises(ValueError, match="read-only"):
        run(clumsy)


def test_an_attack_that_goes_on_after_its_budget_ended_breaks_the_law() -> None:
    def deaf(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        for _ in range(5):
            try:
                case.the_model().labels(batch.x)
            except BudgetExhausted:
                continue
        yield Claim(ROWS, x=moved(batch, 0.21))

    with pytest.raises(LawBroken, match="stop when its budget ended"):
        run(deaf, limit=10)


def test_what_was_claimed_before_the_budget_ended_stays() -> None:
    def interrupted(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(ROWS[:3], x=moved(batch, 0.21)[:3])
        lab.meter.charge(forwards=100)
        yield Claim(ROWS, x=moved(batch, 0.21))

    ledger = run(interrupted, limit=10)
    assert np.isfinite(ledger.upper).tolist() == [True] * 3 + [False] * 5
    assert run.whole is False  # type: ignore[attr-defined]


@pytest.mark.parametrize("rows", [[0, 0], [-1], [N], [[0]]])
def test_rows_that_are_not_of_the_batch_break_the_law(rows: Any) -> None:
    def astray(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        picked = np.array(rows)
        yield Claim(picked, x=np.full((picked.size, 2), 0.51))

    with pytest.raises(LawBroken, match="distinct rows"):
        run(astray)


def test_a_claim_without_a_sample_for_each_row_breaks_the_law() -> None:
    def short(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(ROWS, x=batch.x[:2])

    with pytest.raises(LawBroken, match="one sample for each row"):
        run(short)


@pytest.mark.parametrize("radius", [None, np.zeros(3), np.full(N, np.nan)])
def test_a_certificate_without_a_radius_for_each_row_breaks_the_law(radius: np.ndarray | None) -> None:
    def vague(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(ROWS, radius=radius)

    with pytest.raises(LawBroken, match="radius"):
        run(vague, kind=PluginKind.CERTIFICATE)


@pytest.mark.parametrize("certificate_first", [True, False])
def test_a_false_certificate_and_an_attack_contradict_each_other_in_either_order(certificate_first: bool) -> None:
    case = case_of()
    data = case.data("test")
    batch = batch_of(data.x, data.labels, data.sample_id)
    ledger = open_ledger(case, batch, GOAL.norm)

    def false_proof(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(ROWS, radius=np.full(N, 0.24))

    def honest(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(ROWS, x=moved(batch, 0.21))

    pair = [(PluginKind.CERTIFICATE, "tests/proof", false_proof), (PluginKind.ATTACK, "tests/attack", honest)]
    first, second = pair if certificate_first else pair[::-1]

    def go(kind: PluginKind, name: str, trick: Trick) -> bool:
        plugin = Plugin(kind, name, trick, Threat("t", "t"), "malice")
        return pursue(plugin, case, batch, GOAL, Lab(name, 0), ledger=ledger, rows=ROWS)

    assert go(*first)
    with pytest.raises(Contradiction, match=r"tests/proof above .* by tests/attack"):
        go(*second)


def test_a_sample_that_is_wrong_as_it_is_is_broken_at_distance_zero_and_gets_no_radius() -> None:
    def proof(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(ROWS, radius=np.full(N, 0.2))

    ledger = run(proof, kind=PluginKind.CERTIFICATE, case=case_of(lambda x: np.ones(len(x), dtype=np.int64)))
    assert (ledger.upper == 0).all()
    assert (ledger.lower == 0).all()


def test_a_refused_sample_is_not_a_wrong_answer() -> None:
    model = Model("refuses", "refuses", labels=lambda x: np.full(len(x), ABSTAIN))
    assert not wrong(model, np.zeros((3, 2)), np.zeros(3, dtype=np.int64)).any()


def test_a_model_that_does_not_answer_every_sample_is_refused() -> None:
    model = Model("short", "short", labels=lambda x: np.zeros(1, dtype=np.int64))
    with pytest.raises(ModelError, match="expected 3 labels"):
        wrong(model, np.zeros((3, 2)), np.zeros(3, dtype=np.int64))


def test_the_harness_itself_is_counted_and_never_refused() -> None:
    meter = Meter(limit=2)
    model = observed(case_of().the_model(), meter)
    model.labels(np.zeros((50, 2)))
    assert meter.spent.forwards == 50
    assert meter.refusals == 0


def wavering(share: float) -> Callable[[np.ndarray], np.ndarray]:
    """Wrong with a chance of `share` where the first feature is above 0.5, drawn from numpy's global generator."""

    def answer(x: np.ndarray) -> np.ndarray:
        return ((x[:, 0] > 0.5) & (np.random.random(len(x)) < share)).astype(np.int64)

    return answer


@pytest.mark.parametrize(("share", "broken"), [(0.2, 0), (0.9, N)])
def test_a_random_model_is_judged_by_the_votes_of_several_answers(share: float, broken: int) -> None:
    """One lucky answer of a model that is nearly always right is no success, and one unlucky answer no failure."""
    x = np.where(np.arange(N)[:, None] % 2, [0.3, 0.3], [0.6, 0.3])  # those at 0.6 waver, so that it can be seen to
    case = case_of(wavering(share))
    case = replace(case, splits=Splits(test=replace(case.data("test"), x=x)))

    def hopeful(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        for _ in range(4):
            yield Claim(ROWS, x=moved(batch, 0.25))

    state = np.random.get_state()[1].copy()
    assert np.array_equal(steadied(case).labels(np.full((N, 2), 0.6)), np.full(N, int(broken > 0)))
    first, again = (run(hopeful, case=case).upper for _ in range(2))
    assert np.array_equal(first, again)
    assert int(np.isfinite(first).sum()) == broken
    assert np.array_equal(state, np.random.get_state()[1])


def test_a_steady_model_is_asked_for_a_few_rows_once_and_then_answers_for_itself() -> None:
    asked: list[int] = []

    def counted(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        return labels(x)

    case = case_of(counted)
    assert steadied(case) is case.the_model()
    assert steadied(replace(case, model=observed(case.the_model(), Meter()))).labels is not None
    assert asked == [8, 8]


def test_a_random_model_gives_a_plug_in_the_same_answers_for_the_same_seed() -> None:
    x = np.tile([0.6, 0.3], (N, 1))
    case = case_of(wavering(0.5))
    case = replace(case, splits=Splits(test=replace(case.data("test"), x=x)))
    seen: list[np.ndarray] = []

    def curious(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        seen.append(np.concatenate([case.the_model().labels(batch.x) for _ in range(3)]))
        yield from ()

    run(curious, case=case)
    run(curious, case=case)
    assert np.array_equal(seen[0], seen[1])
    assert 0 < seen[0].mean() < 1


def test_an_attack_that_votes_gets_the_votes_of_the_harness() -> None:
    """Once it drew others: of 30 claims on noisy digits 4 were taken for broken that the harness refused."""
    chances = np.linspace(0.3, 0.7, N)

    def answer(x: np.ndarray) -> np.ndarray:
        return ((x[:, 0] > 0.5) & (np.random.random(len(x)) < x[:, 1])).astype(np.int64)

    case = case_of(answer)
    x = np.stack([np.full(N, 0.6), chances], axis=1)
    case = replace(case, splits=Splits(test=replace(case.data("test"), x=x)))
    said: list[np.ndarray] = []

    def voter(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        said.extend(wrong(steadied(case), batch.x, batch.y) for _ in range(3))
        yield Claim(ROWS, x=batch.x)
        said.append(wrong(steadied(case), batch.x, batch.y))

    ledger = run(voter, case=case)
    assert 0 < said[0].sum() < N
    assert all(np.array_equal(votes, np.isfinite(ledger.upper)) for votes in said)


@pytest.mark.parametrize("way", ["send", "list", "iterator"])
def test_whoever_listens_is_sent_which_claims_hold_and_nobody_has_to(way: str) -> None:
    told: list[Any] = []

    def attack(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        x = moved(batch, 0.21)
        x[1] = batch.x[1]  # still right
        claims = [Claim(np.arange(2), x=x[:2]), Claim(np.arange(2), lead=np.ones(2)), Claim(np.arange(2, 3), x=x[2:3])]
        if way == "send":
            for claim in claims:
                held: Any = yield claim
                told.append(held)
        elif way == "list":
            yield from claims
        else:
            yield from iter(claims)

    ledger = run(attack)
    assert np.isfinite(ledger.upper[:3]).tolist() == [True, False, True]
    if way == "send":
        assert [None if held is None else held.tolist() for held in told] == [[True, False], None, [True]]


def test_a_model_is_asked_anew_whether_it_is_random_when_the_rows_are_others() -> None:
    rng = np.random.default_rng(0)

    def answer(x: np.ndarray) -> np.ndarray:
        own = labels(x)
        return np.where(x[:, 1] > 5, rng.integers(0, 2, len(x)), own)

    steady, random = case_of(answer), case_of(answer)
    data = random.data("test")
    x = data.x.copy()
    x[:, 1] = 6.0
    random = replace(random, model=steady.the_model(), splits=Splits(test=Data(x, data.schema, data.labels)))
    assert (answers_at_random(steady), answers_at_random(random)) == (False, True)
