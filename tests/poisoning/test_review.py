"""The review of training data: silent on clean rows, and right about planted ones and where they come from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from casemate import catalog
from casemate._workshop import Workshop
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.evidence import Evidence
from casemate.core.facets import DataKind, PluginKind, Profile
from casemate.core.judgement import judge
from casemate.core.outcome import Finding, Inconclusive
from casemate.core.schema import Feature, Schema
from casemate.errors import ConfigError, Unavailable
from casemate.executors import Inline
from casemate.formats import arrays
from casemate.poisoning.review import ranked

REVIEW = next(p for p in catalog.plugins() if p.id == "poisoning/review")
BUILT = ("poisoning/neighbours", "poisoning/embeddings")
SCHEMA = Schema(DataKind.TABLE, (64,), tuple(Feature(f"p{i}", lo=0.0, hi=16.0) for i in range(64)))


def digits(seed: int, flipped: int = 0, source: Any = None) -> tuple[Case, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(y))
    x, y = x[rows], y[rows].copy()
    bad = np.arange(flipped)
    y[bad] = (y[bad] + rng.integers(1, 10, flipped)) % 10
    train = Data(x[:1000], SCHEMA, y=y[:1000], source=None if source is None else source(rng, 1000, bad))
    clean = Data(x[1000:], SCHEMA, y=y[1000:], sample_id=np.arange(1000, len(y)))
    return Case(splits=Splits(train=train, reference=clean)), bad


def review(case: Case, **options: Any) -> tuple[list[Evidence], dict[str, Any]]:
    known = tuple(p for p in catalog.plugins() if p.kind is not PluginKind.DETECTOR or p.id in BUILT)
    shop = Workshop(seed=3, profile=Profile.STANDARD, plugins=known, executor=Inline())
    lab = shop.lab(REVIEW, REVIEW.configured(Profile.STANDARD, options), Meter())
    found = list(REVIEW.function(case, lab))
    return found, dict(arrays.unpack(next(data for data in shop.kept.values())))


def test_flipped_labels_are_a_finding_and_the_flipped_rows_come_first() -> None:
    case, bad = digits(0, flipped=30)
    found, table = review(case)
    finding = judge("poisoning/review", found)[0]
    assert isinstance(finding, Finding)
    assert "exchangeable" in finding.evidence[0].method
    confidence, suspicion, reason = ranked(table, 0.05)
    first = np.lexsort((-suspicion, -confidence))[:30]
    assert np.isin(table["sample_id"][first], bad).mean() >= 0.9
    assert (reason[first] == 0).all()
    suspects = next(e for e in found if e.metric == "poisoning.suspect_rows")
    assert 0.02 <= suspects.value <= 0.05


def test_clean_rows_raise_no_alarm_and_none_is_suspect() -> None:
    alarms = 0
    for seed in range(8):
        found, table = review(digits(seed)[0])
        alarms += found[0].value <= 0.05
        assert found[0].value <= 0.05 or not ranked(table, 0.05)[0].any()
    assert alarms <= 2


def test_the_source_of_falsified_rows_is_blamed() -> None:
    def marked(rng: np.random.Generator, n: int, bad: np.ndarray) -> np.ndarray:
        source = rng.choice(["north", "south", "west"], n)
        source[bad] = "west"
        return source

    case, _ = digits(1, flipped=30, source=marked)
    found, _ = review(replace(case, splits=Splits(train=case.splits.train)))  # without a clean part
    finding = judge("poisoning/review", found)[0]
    assert isinstance(finding, Finding)
    assert finding.about.endswith("sources")
    assert "are of west" in finding.evidence[0].method
    rates = {e.about: e for e in found if e.metric == "poisoning.suspect_rows_of_source"}
    assert rates["west"].low > max(rates["north"].high, rates["south"].high)


def test_honest_sources_are_not_blamed() -> None:
    alarms = 0
    for seed in range(6):
        case, _ = digits(seed, flipped=20, source=lambda rng, n, bad: rng.choice(["north", "south", "west"], n))
        alarms += review(replace(case, splits=Splits(train=case.splits.train)))[0][0].value <= 0.05
    assert alarms <= 2


def test_too_few_clean_rows_leave_it_open() -> None:
    case, _ = digits(0, flipped=30)
    assert case.splits.reference is not None
    few = replace(case, splits=replace(case.splits, reference=case.splits.reference.take(np.arange(4))))
    found, _ = review(few)
    outcome = judge("poisoning/review", found)[0]
    assert isinstance(outcome, Inconclusive)
    assert "could not fall below" in found[0].method


def test_rows_alone_are_ranked_and_not_judged() -> None:
    case, bad = digits(0, flipped=30)
    found, table = review(replace(case, splits=Splits(train=case.splits.train)))
    assert [e.metric for e in found] == ["poisoning.suspect_rows"]
    first = np.argsort(-ranked(table, 0.05)[1])[:30]
    assert np.isin(table["sample_id"][first], bad).mean() >= 0.8


def test_a_sample_of_the_rows_says_so() -> None:
    found, table = review(digits(0)[0], rows=300)
    assert len(table["ours"]) == 300
    assert "of 300 rows drawn from 1,797" in found[-1].method


def test_a_part_that_is_not_there_is_refused() -> None:
    case, _ = digits(0)
    with pytest.raises(Unavailable, match="name a tune file"):
        review(case, reference="tune")
    with pytest.raises(ConfigError, match="mend it"):
        review(case, reference="spare")
