"""P-values by exchangeability: against brute force over all orders, their level, and what they say of rows."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from casemate.poisoning._verdicts import attainable, confidence_of, excess_among_highest, rare_parts


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_tail_of_one_stratum_is_the_share_of_all_orders_with_as_many_among_the_highest() -> None:
    score, kind = np.arange(12.0), np.array([0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 1], dtype=bool)
    orders = [np.isin(np.arange(12), chosen) for chosen in combinations(range(12), 5)]
    as_many = sum(int(order[-5:].sum() >= kind[-5:].sum()) for order in orders)  # k = 5 alone is half or less of 12
    found = excess_among_highest(score, kind, np.zeros(12, dtype=int), rng())
    assert found.p == pytest.approx(as_many / comb(12, 5))
    assert (found.k, found.found, found.expected) == (5, 3, pytest.approx(25 / 12))


def test_two_strata_are_tested_alone_and_together() -> None:
    kind = np.tile(np.repeat([True, False], 10), 2)  # both strata: the ten of the kind have the highest scores
    score = np.tile(np.arange(20.0, 0.0, -1.0), 2)
    found = excess_among_highest(score, kind, np.repeat([0, 1], 20), rng())
    assert found.p == pytest.approx((1 / comb(20, 10)) ** 2 * 7)  # k = 5, 10 of each stratum; 5, 10, 20 of both
    assert (found.stratum, found.k, found.found) == (-1, 20, 20)
    assert attainable(kind, np.repeat([0, 1], 20)) == pytest.approx(found.p)


def test_the_level_holds_whatever_the_scores_are() -> None:
    draw = rng()
    scores = [
        draw.integers(0, 3, 90).astype(float),
        draw.standard_cauchy(90),
        np.where(draw.random(90) < 0.2, np.nan, 1),
    ]
    strata = draw.integers(0, 3, 90)
    for score in scores:
        alarms = sum(excess_among_highest(score, draw.permutation(90) < 40, strata, draw).p <= 0.05 for _ in range(300))
        assert binomtest(alarms, 300, 0.05, alternative="greater").pvalue > 1e-3


@given(st.integers(0, 2**32 - 1))
def test_neither_units_nor_the_order_of_rows_change_a_p_value(seed: int) -> None:
    draw = np.random.default_rng(seed)
    score, kind, strata = draw.normal(size=50), draw.random(50) < 0.5, draw.integers(0, 2, 50)
    one = excess_among_highest(score, kind, strata, rng())
    rows = draw.permutation(50)
    assert excess_among_highest(np.exp(3 * score)[rows], kind[rows], strata[rows], rng()) == one
    assert np.array_equal(confidence_of(score, kind)[rows], confidence_of(np.exp(score)[rows], kind[rows]))


def test_parts_that_only_one_kind_carries_are_found_and_the_others_are_not() -> None:
    draw = rng()
    kind, strata = draw.permutation(400) < 200, draw.integers(0, 2, 400)
    planted = np.flatnonzero(kind & (strata == 1))[:20]
    common = draw.choice(400, 60, replace=False)
    part = np.concatenate([np.zeros(20, int), np.ones(60, int), np.arange(2, 402)])  # 400 parts that one row carries
    p = rare_parts(part, np.concatenate([planted, common, np.arange(400)]), kind, strata)
    assert p.shape == (402, 2)
    assert p[0, 1] < 1e-4
    assert p.min(axis=1)[1:].min() > 0.05


def test_what_only_single_rows_carry_costs_nothing() -> None:
    kind, strata = np.arange(100) < 50, np.zeros(100, dtype=int)
    one = rare_parts(np.zeros(10, int), np.arange(10), kind, strata)
    many = rare_parts(np.concatenate([np.zeros(10, int), np.arange(1, 101)]), np.r_[:10, :100], kind, strata)
    assert one[0, 0] == many[0, 0]


def test_confidence_is_the_share_that_clean_rows_do_not_account_for() -> None:
    kind = np.repeat([True, False], [130, 100])
    score = np.concatenate([np.linspace(0, 1, 100), np.full(30, 2.0), np.linspace(0, 1, 100)])
    confidence = confidence_of(score, kind)
    assert confidence[100:130] == pytest.approx(1 - 130 / 101 / 30)
    assert (confidence[np.flatnonzero(score < 0.5)] < 0.4).all()
    assert (np.diff(confidence[np.argsort(score)]) >= 0).all()
    assert not confidence_of(np.full(230, np.nan), kind).any()


def test_nothing_to_test_says_nothing() -> None:
    none = np.zeros(0)
    assert excess_among_highest(none, none.astype(bool), none.astype(int), rng()).p == 1
    assert excess_among_highest(np.arange(9.0), np.ones(9, dtype=bool), np.zeros(9, dtype=int), rng()).p == 1
    assert rare_parts(none.astype(int), none.astype(int), np.ones(3, dtype=bool), np.zeros(3, dtype=int)).shape == (
        0,
        1,
    )
