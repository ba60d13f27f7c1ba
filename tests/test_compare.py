"""Differences between two reports: what the p-values are, and what they are adjusted over."""

from __future__ import annotations

import shutil
from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pytest

import casemate
from casemate import _compare
from casemate.core.evidence import Direction, Metric, Quantity
from casemate.core.judgement import judge
from casemate.core.stats import clopper_pearson

ROBUST = Metric("evasion.robust_accuracy", Quantity.ROBUSTNESS, Direction.TOO_HIGH)
NOTED = Metric("evasion.robust_curve", Quantity.NOTE, Direction.TOO_HIGH)


def pair(gained: int, lost: int, n: int = 64, metric: Metric = ROBUST) -> _compare.Difference:
    a, b = np.zeros(n), np.zeros(n)
    a[:lost] = 1
    b[lost : lost + gained] = 1
    sides = [metric.measured(clopper_pearson(int(x.sum()), n), method="m", at={"eps": 0.125}) for x in (a, b)]
    return _compare._difference(sides[0], sides[1], (a, b))


def test_the_p_of_paired_zeros_and_ones_is_the_binomial_tail() -> None:
    row = pair(gained=10, lost=2)
    assert row.p == pytest.approx(2 * sum(comb(12, k) for k in range(3)) / 2**12)
    assert (row.paired, row.noted, row.value, row.at) == (True, False, 8 / 64, "eps = 0.125")
    assert pair(gained=3, lost=3).p == 1.0


def test_other_values_and_independent_samples_have_no_p() -> None:
    a, b = np.linspace(0, 1, 20), np.linspace(0.1, 1, 20)
    items = [ROBUST.measured(float(x.mean()), method="m") for x in (a, b)]
    assert _compare._difference(items[0], items[1], (a, b)).p is None
    assert _compare._difference(items[0], items[1], None).p is None


def test_p_values_are_adjusted_over_what_is_judged_and_over_notes_apart() -> None:
    rows = [pair(10, 2), pair(8, 1), pair(10, 2, metric=NOTED)]
    bare = replace(rows[0], p=None)
    p = [row.p for row in rows]
    assert None not in p
    adjusted = _compare._adjusted([rows[0], bare, rows[1], rows[2]])
    # p[0] is the smaller of the two judged ones: twice it is at least the other's, which stays above by Holm's steps
    assert min(p[0], p[1]) == p[0]
    assert [row.p for row in adjusted] == [pytest.approx(2 * p[0]), None, pytest.approx(max(2 * p[0], p[1])), p[2]]


def test_rows_of_other_test_data_are_never_paired(tmp_path: Path) -> None:
    # Sample ids are row numbers: 60 rows were paired with 60 others, and the interval was precise and wrong.
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    y = (x[:, 0] > 0).astype(int)
    model = LogisticRegression().fit(x, y)
    for name, rows in (("a", slice(0, 60)), ("b", slice(60, 120)), ("again", slice(0, 60))):
        asked = {"profile": "quick", "only": ["evasion/corruptions"], "output": tmp_path / name}
        casemate.audit(model, test=(x[rows], y[rows]), **asked)
    other, same = (_compare.compare(tmp_path / "a", tmp_path / name) for name in ("b", "again"))
    assert any(row.paired for row in same)
    assert not any(row.paired for row in other)
    assert {(row.metric, row.about, row.at) for row in same} == {(row.metric, row.about, row.at) for row in other}
    assert "tested on different data" in other.page()
    assert "tested on different data" not in same.page()
    shutil.rmtree(tmp_path / "again/evidence")
    left = _compare.compare(tmp_path / "a", tmp_path / "again")
    assert len(left) == len(same)
    assert not any(row.paired for row in left)


def test_one_metric_of_two_plug_ins_is_compared_with_its_own() -> None:
    from tests.report import samples

    items = [ROBUST.measured(clopper_pearson(hits, 64), method="m") for hits in (8, 60)]
    found = [outcome for name, item in zip(("a/x", "b/y"), items, strict=True) for outcome in judge(name, [item])]
    report = samples.report(outcomes=tuple(found))
    assert [row.value for row in _compare.compare_reports(report, report, None, None)] == [0, 0]
