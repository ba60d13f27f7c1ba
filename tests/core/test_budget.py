from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.core.budget import Budget, Meter, Spent, allocate, parse_budget
from casemate.core.facets import Cost
from casemate.errors import BudgetExhausted, ConfigError


@given(st.integers(0, 10**9), st.lists(st.sampled_from(list(Cost)), min_size=1, max_size=12))
def test_shares_of_a_budget_add_up_to_it_and_dearer_plug_ins_get_more(total: int, costs: list[Cost]) -> None:
    shares = allocate(total, costs)
    assert sum(share or 0 for share in shares) == total
    cheap = [s for s, c in zip(shares[1:], costs[1:], strict=True) if c is Cost.CHEAP]
    dear = [s for s, c in zip(shares[1:], costs[1:], strict=True) if c is Cost.EXPENSIVE]
    assert all(a <= b for a in cheap for b in dear)


def test_no_budget_means_no_limit() -> None:
    assert allocate(None, [Cost.CHEAP, Cost.CHEAP]) == [None, None]


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=20))
def test_a_meter_never_passes_its_limit_and_counts_every_refusal(limit: int, charges: list[tuple[int, int]]) -> None:
    meter, refused = Meter(limit=limit), 0
    for forwards, backwards in charges:
        before = meter.spent
        try:
            meter.charge(forwards, backwards)
        except BudgetExhausted:
            refused += 1
            assert meter.spent == before
    assert meter.spent.propagations <= limit
    assert meter.refusals == refused


def test_a_deadline_refuses_what_comes_after_it() -> None:
    meter = Meter(deadline=time.monotonic() - 1)
    with pytest.raises(BudgetExhausted):
        meter.charge(1)
    assert meter.spent == Spent()


def test_the_harness_measures_even_when_the_budget_has_ended() -> None:
    meter = Meter(limit=1)
    meter.observe(5)
    assert meter.spent.forwards == 5
    assert meter.left == 0


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90s", Budget(seconds=90)),
        ("1.5h", Budget(seconds=5400)),
        (2_000_000, Budget(propagations=2_000_000)),
        ({"propagations": 7}, Budget(propagations=7)),
        (None, Budget()),
    ],
)
def test_budgets_are_read_in_all_their_forms(text: object, budget: Budget) -> None:
    assert parse_budget(text) == budget  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "15", "m", "-5m", "0s", 0, -3, True, {"propagation": 3}, {"propagations": 0}, "1d"]
)
def test_other_budgets_are_refused_with_an_example_of_a_good_one(text: object) -> None:
    with pytest.raises(ConfigError, match="15m"):
        parse_budget(text)  # type: ignore[arg-type]
