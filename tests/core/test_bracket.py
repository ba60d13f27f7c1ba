from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.core.bracket import Ledger
from casemate.core.norms import Norm
from casemate.errors import Contradiction

bounds = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 5)), max_size=12)


def ledger() -> Ledger:
    return Ledger(Norm.LINF, np.zeros((4, 2)))


@given(bounds, bounds)
def test_the_ledger_keeps_the_largest_lower_and_the_smallest_upper_bound(lowers: list, uppers: list) -> None:
    book, low, high = ledger(), np.zeros(4), np.full(4, np.inf)
    try:
        for row, value in lowers:
            low[row] = max(low[row], value)
            book.raise_lower(np.array([row]), np.array([value]), "proof")
        for row, value in uppers:
            high[row] = min(high[row], value)
            book.drop_upper(np.array([row]), np.array([value]), np.full((1, 2), value), "attack")
    except Contradiction:
        assert (low > high).any()
        return
    np.testing.assert_array_equal(book.lower, low)
    np.testing.assert_array_equal(book.upper, high)
    found = np.isfinite(high)
    np.testing.assert_array_equal(book.witness[found, 0], high[found])


@given(bounds, bounds)
def test_crossed_bounds_never_stay_silent(lowers: list, uppers: list) -> None:
    low, high = np.zeros(4), np.full(4, np.inf)
    for row, value in lowers:
        low[row] = max(low[row], value)
    for row, value in uppers:
        high[row] = min(high[row], value)
    book = ledger()

    def fill() -> None:
        for row, value in uppers:
            book.drop_upper(np.array([row]), np.array([value]), np.zeros((1, 2)), "attack")
        for row, value in lowers:
            book.raise_lower(np.array([row]), np.array([value]), "proof")

    if (low > high * (1 + 1e-6) + 1e-12).any():
        with pytest.raises(Contradiction, match="proof above"):
            fill()
    else:
        fill()


def test_the_same_claims_in_any_order_give_the_same_ledger() -> None:
    claims = [(0, 0.5), (1, 0.25), (0, 0.125), (2, 1.0)]
    books = [ledger(), ledger()]
    for book, order in zip(books, (claims, claims[::-1]), strict=True):
        for row, value in order:
            book.drop_upper(np.array([row]), np.array([value]), np.full((1, 2), value), "attack")
    np.testing.assert_array_equal(books[0].upper, books[1].upper)
    np.testing.assert_array_equal(books[0].witness, books[1].witness)


def test_a_sample_counts_as_broken_at_exactly_the_distance_of_its_witness() -> None:
    book = ledger()
    book.drop_upper(np.array([0]), np.array([0.1]), np.full((1, 2), 0.1), "attack")
    assert book.broken(0.1).tolist() == [True, False, False, False]
    assert not book.broken(0.0999).any()
    assert book.bracket(0).upper_by == "attack"


def test_joining_the_parts_gives_the_whole() -> None:
    whole, part = ledger(), Ledger(Norm.LINF, np.zeros((2, 2)))
    part.raise_lower(np.array([1]), np.array([0.2]), "proof")
    part.drop_upper(np.array([0]), np.array([0.5]), np.ones((1, 2)), "attack")
    whole.join(np.array([3, 1]), part.arrays())
    assert whole.upper[3] == 0.5
    assert whole.lower[1] == 0.2
    assert whole.lower_by[1] == "proof"
