from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.stats import clopper_pearson
from casemate.errors import LawBroken

RATE = Metric("toy.rate", Quantity.SUCCESS_RATE, Direction.EITHER)
number = st.floats(allow_nan=True, allow_infinity=True)


def made(value: float, low: float, high: float, confidence: float = 0.95, n: int = 5) -> Evidence:
    good = RATE.measured(clopper_pearson(1, 2), method="count")
    return dataclasses.replace(good, value=value, low=low, high=high, confidence=confidence, n=n)


@given(number, number, number)
def test_evidence_exists_only_with_finite_numbers_and_its_value_inside_its_interval(
    v: float, lo: float, hi: float
) -> None:
    holds = lo <= v <= hi and abs(lo) < float("inf") and abs(hi) < float("inf")
    if holds:
        assert made(v, lo, hi).value == v
    else:
        with pytest.raises(LawBroken, match="expected"):
            made(v, lo, hi)


@pytest.mark.parametrize(("confidence", "n"), [(0.0, 5), (1.5, 5), (0.95, -1)])
def test_evidence_without_a_real_confidence_or_count_is_refused(confidence: float, n: int) -> None:
    with pytest.raises(LawBroken, match="confidence"):
        made(0.5, 0.4, 0.6, confidence, n)


def test_a_bare_number_has_an_interval_without_width() -> None:
    item = RATE.measured(0.25, method="proof", n=12)
    assert (item.low, item.value, item.high, item.n, item.confidence) == (0.25, 0.25, 0.25, 12, 1.0)
