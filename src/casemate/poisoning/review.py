"""Review of training data: p-values with a named null for the data set, then the rows that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Cost, Facet, PluginKind, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.options import Count, OpenShare, Share
from casemate.core.planner import applicable
from casemate.core.plugin import Plugin, probe
from casemate.core.stats import Interval, clopper_pearson, holm
from casemate.errors import ConfigError, Unavailable
from casemate.poisoning import THREAT
from casemate.poisoning._verdicts import attainable, confidence_of, excess_among_highest, rare_parts

__all__ = ["ReviewOptions", "Test", "ranked", "review_data", "tested"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

REVIEW = Metric(
    "poisoning.review",
    Quantity.P_VALUE,
    Direction.TOO_HIGH,
    says="some of the training rows are not like the rest",
    mend="look at the rows of the largest confidence and where they come from, set them apart, and train again",
    unit="p",
)
SUSPECTS = Metric("poisoning.suspect_rows", Quantity.NOTE, Direction.TOO_LOW)
BY_SOURCE = Metric("poisoning.suspect_rows_of_source", Quantity.NOTE, Direction.TOO_LOW)
_SOURCES = 50  # most sources that are tested, those with the most rows
_LEAST = 20  # rows of a source, below which nothing can be said of it


@dataclass(frozen=True, slots=True)
class ReviewOptions:
    """`rows` are reviewed at most, by chance of train and reference alike; `alpha` is the odds of any false alarm.

    `reference` is the part whose rows are taken to be clean: `reference`, `tune` or `test`; empty takes the first of
    reference and test that is there. `suspect` is the confidence from which a row counts as suspect.
    """

    rows: Count = 200_000
    alpha: OpenShare = 0.05
    reference: Literal["", "reference", "tune", "test"] = ""
    suspect: Share = 0.5


@probe(
    threat=THREAT,
    source="permutation tests: Fisher, 1935; Holm, Scand. J. Stat. 6, 1979; Tarone, Biometrics 46, 1990; what is "
    "tested: see each detector",
    needs={Facet.TRAIN},
    cost=Cost.CHEAP,
    metrics=(REVIEW, SUSPECTS, BY_SOURCE),
    options=ReviewOptions,
    profiles={Profile.QUICK: {"rows": 20_000}},
    replay=lambda case, arrays, lab: _measure(arrays["rows"], lab),
)
def review_data(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Whether training rows were falsified, as p-values with a named null, and which rows, ranked with confidence.

    Every detector scores the rows of train and of a clean part together, without being told which is which. Nulls: rows
    of both parts are exchangeable within labels (a clean reference, or else the test rows, which an attacker of both
    would have poisoned alike); sources are exchangeable within labels, where rows say where they come from; and what a
    detector tests itself. Holm over all tests, so that the odds of any false alarm are at most alpha. A row's
    confidence is the share of rows with such a score that the clean rows do not account for; 0 unless its detector
    raised an alarm. Errs towards silence: few clean rows, or a detector that does not see it, hide what is there.
    """
    yield from _measure(_scored(case, lab), lab)


def _scored(case: Case, lab: Lab) -> Stored:
    """Everything that the verdicts are made of: rows in the order in which the detectors saw them."""
    train, part = case.data("train"), _reference(case, lab.options)
    clean = case.splits.parts().get(part)
    total = len(train) + (len(clean) if clean is not None else 0)
    rows = lab.rows_rng("rows").permutation(total)[: lab.options.rows]
    pool = Case(name=case.name, splits=Splits(train=_pooled(train, clean, rows)), recipe=case.recipe)
    ours = rows < len(train)
    table: dict[str, Any] = {
        "ours": ours,
        "sample_id": np.concatenate([train.sample_id, clean.sample_id if clean is not None else []])[rows].astype(int),
        "label": _codes(pool.data("train").y, len(rows)),
        "part": part,
        "of": total,
        "detectors": [],
        "seed": lab.seed_for("ties"),
    }
    if train.source is not None:
        names, codes = np.unique(train.source.astype(str), return_inverse=True)
        table["source"] = np.where(ours, codes[np.where(ours, rows, 0)], -1)
        table["sources"] = [str(name) for name in names]
    detectors = [p for p in lab.plugins if p.kind is PluginKind.DETECTOR]
    for done, detector in enumerate(detectors):
        lab.progress(done, len(detectors))
        table |= _asked(detector, pool, lab, table["detectors"])
    return table


def _asked(detector: Plugin, pool: Case, lab: Lab, known: list[str]) -> Stored:
    """What one detector says, under its own prefix; nothing where it does not apply."""
    if applicable(detector, pool) is not None:
        return {}
    try:
        found = lab.get(detector.id, pool)
    except Unavailable:
        return {}
    known.append(detector.id)
    return {f"{detector.id}:{name}": value for name, value in found.items()}


def _pooled(train: Data, clean: Data | None, rows: Array) -> Data:
    parts = [train] if clean is None else [train, clean]
    x = np.concatenate([part.x for part in parts])[rows]
    labelled = all(part.y is not None for part in parts)
    return Data(x, train.schema, y=np.concatenate([part.labels for part in parts])[rows] if labelled else None)


def _reference(case: Case, options: ReviewOptions) -> str:
    parts = case.splits.parts()
    if options.reference:
        if options.reference not in ("reference", "tune", "test"):
            raise ConfigError(
                f"expected reference, tune or test as reference of poisoning/review, got {options.reference!r}: mend it"
            )
        case.data(options.reference)
        return options.reference
    return next((name for name in ("reference", "test") if name in parts), "")


def _codes(y: Array | None, n: int) -> NDArray[np.int64]:
    """Labels as strata; those of a regression in ten equal shares."""
    if y is None:
        return np.zeros(n, dtype=np.int64)
    if y.dtype.kind == "f":
        return np.searchsorted(np.quantile(y, np.linspace(0.1, 0.9, 9)), y).astype(np.int64)
    return np.unique(y, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Test:
    """One p-value: of which detector, under which null, about which rows, and what was seen."""

    detector: str
    null: str
    p: float
    saw: str
    confidence: Floats
    could: float = 0.0
    about: str = ""


def _measure(table: Stored, lab: Lab) -> Iterator[Evidence]:
    options: ReviewOptions = lab.options
    files = (lab.keep("rows", table),)
    tests, adjusted = tested(table)
    for test, p in zip(tests, adjusted, strict=True):
        name = test.detector.partition("/")[2].replace("_", " ")
        method = f"{test.saw}; null: {test.null}; p {test.p:.3g}, Holm over {len(tests)} tests"
        about = f"{name}{f', {test.about}' if test.about else ''}"
        value: Interval | float = float(p)
        if test.could > options.alpha:
            method += f"; with so few rows p could not fall below {test.could:.2g}"
            value = Interval(float(p), 0.0, 1.0, len(table["ours"]), 0.95, "too few rows")
        at = {"detector": test.detector, "null": test.null}
        yield REVIEW.measured(value, method=method, n=len(table["ours"]), about=about, at=at, files=files)
    yield from _rows(table, options, files)


def _tests(table: Stored, name: str) -> Iterator[Test]:
    """The tests of one detector: against the clean part, of each source, and its own."""
    score, ours, label = np.asarray(table[f"{name}:score"], dtype=np.float64), table["ours"], table["label"]
    rng = np.random.default_rng(table["seed"])
    if not ours.all():
        null = f"train and {table['part']} rows are exchangeable within labels"
        found, could = excess_among_highest(score, ours, label, rng), attainable(ours, label)
        saw = f"{found.found} of the {found.k} highest scores are train rows, {found.expected:.1f} expected"
        yield Test(name, null, found.p, saw, confidence_of(score, ours), could)
        if f"{name}:part_row" in table:
            yield _parts(table, name, null)
    if "source" in table:
        yield _of_sources(table, name, score, rng)
    if f"{name}:p" in table:
        own = np.asarray(table[f"{name}:confidence"], dtype=np.float64)
        yield Test(name, str(table[f"{name}:null"]), float(table[f"{name}:p"]), str(table[f"{name}:saw"]), own)


def _parts(table: Stored, name: str, null: str) -> Test:
    """Whether train rows carry some part more often than the clean rows with their label do."""
    part, row = np.asarray(table[f"{name}:part"]), np.asarray(table[f"{name}:part_row"])
    ours, label = table["ours"], table["label"]
    p = rare_parts(part, row, ours, label)
    if not p.size:
        return Test(name, null, 1.0, "no part is shared", np.zeros(len(ours)), about="shared parts")
    strata = np.unique(label, return_inverse=True)[1]
    of_row = np.ones(len(ours))
    np.minimum.at(of_row, row, p[part, strata[row]])
    best = np.unravel_index(int(p.argmin()), p.shape)
    carries = row[(part == best[0]) & (strata[row] == best[1])]
    saw = f"{int(ours[carries].sum())} of the {len(carries)} rows with {table[f'{name}:parts'][best[0]]} are train rows"
    confidence = np.where(of_row <= 0.05, confidence_of(-of_row, ours), 0.0)
    return Test(name, null, float(p.min()), saw, confidence, about="shared parts")


def _of_sources(table: Stored, name: str, score: Floats, rng: np.random.Generator) -> Test:
    """Whether some source has more of the highest scores than the others; Bonferroni over the sources."""
    source, label = np.asarray(table["source"]), table["label"]
    ours = source >= 0
    counts = np.bincount(source[ours], minlength=len(table["sources"]))
    tried = [int(i) for i in np.argsort(-counts, kind="stable")[:_SOURCES] if _LEAST <= counts[i] < ours.sum()]
    null = "sources are exchangeable within labels"
    best = Test(name, null, 1.0, "no source has enough rows", np.zeros(len(source)), about="sources")
    for i in tried:
        found = excess_among_highest(score[ours], source[ours] == i, label[ours], rng)
        p = min(1.0, found.p * len(tried))
        if p < best.p:
            confidence = np.zeros(len(source))
            confidence[ours] = np.where(source[ours] == i, confidence_of(score[ours], source[ours] == i), 0.0)
            told = f"{found.found} of the {found.k} highest scores are of {table['sources'][i]}"
            best = Test(name, null, p, f"{told}, {found.expected:.1f} expected", confidence, about="sources")
    return best


def _rows(table: Stored, options: ReviewOptions, files: tuple[str, ...]) -> Iterator[Evidence]:
    """How many rows of train are suspect, of all and of each source."""
    ours = np.asarray(table["ours"])
    confidence = ranked(table, options.alpha)[0]
    suspect = (confidence >= options.suspect) & ours
    total = table["of"]
    sampled = "" if total == len(ours) else f", of {len(ours):,} rows drawn from {total:,}"
    method = f"train rows with a confidence of at least {options.suspect:g}{sampled}"
    yield SUSPECTS.measured(clopper_pearson(int(suspect.sum()), int(ours.sum())), method=method, files=files)
    for i, name in enumerate(table.get("sources", [])):
        mine = np.asarray(table["source"]) == i
        if mine.sum() >= _LEAST:
            rate = clopper_pearson(int((suspect & mine).sum()), int(mine.sum()))
            yield BY_SOURCE.measured(rate, method=method, about=name, files=files)


def tested(table: Stored) -> tuple[list[Test], Floats]:
    """All tests of a review's kept rows, and their p-values by Holm, `(m,)`."""
    tests = [test for name in table["detectors"] for test in _tests(table, name)]
    return tests, holm([test.p for test in tests]) if tests else np.zeros(0)


def ranked(table: Stored, alpha: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Confidence, suspicion and the test that gives the confidence (-1: none), of every row of a review `(n,)` each.

    The worst rows are those of the largest confidence, and among equal ones of the largest suspicion: the detectors'
    surprise at the row's score, weighted by what they say of the whole.
    """
    tests, adjusted = tested(table)
    n = len(table["ours"])
    confidence, reason = np.zeros(n), np.full(n, -1)
    for i in np.flatnonzero(adjusted <= alpha):
        better = tests[i].confidence > confidence
        confidence[better], reason[better] = tests[i].confidence[better], i
    weight: dict[str, float] = {}
    for test, p in zip(tests, adjusted, strict=True):
        weight[test.detector] = max(weight.get(test.detector, 0.1), -np.log10(max(p, 1e-30)))
    order = np.zeros(n)
    for name in table["detectors"]:
        order += weight.get(name, 0.1) * _surprise(np.asarray(table[f"{name}:score"], dtype=np.float64))
    return confidence, order, reason


def _surprise(score: Floats) -> Floats:
    """-log of the share of rows with at least such a score, `(n,)`; 0 for a NaN."""
    known = np.sort(score[~np.isnan(score)])
    above = len(known) - np.searchsorted(known, np.where(np.isnan(score), -np.inf, score), side="left")
    return np.where(np.isnan(score), 0.0, -np.log((above + 1) / (len(known) + 1)))
