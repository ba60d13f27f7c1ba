"""Test rows that the model has already seen, exactly or nearly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.options import Count, Natural, Within
from casemate.core.plugin import probe
from casemate.preflight import THREAT
from casemate.preflight._common import sampled

__all__ = ["LeakageOptions", "check_leakage"]

_MEND = "remove these rows from one of the splits; split by person, source or time rather than by row"
EXACT = Metric(
    "preflight.exact_duplicates",
    Quantity.DEFECT_SHARE,
    Direction.EXACT,
    says="test rows are also in other splits: every accuracy is flattered",
    mend=_MEND,
)
NEAR = Metric(
    "preflight.near_duplicates",
    Quantity.DEFECT_SHARE,
    Direction.EITHER,
    says="test rows are nearly the same as training rows",
    mend=_MEND,
)
REPEATS = Metric("preflight.repeats_within", Quantity.NOTE, Direction.EXACT)
UNTRIED = Metric("preflight.near_duplicates_untried", Quantity.NOTE, Direction.EXACT, unit="features")
Array = NDArray[Any]
_CHUNK = 1 << 24  # numbers in one block of distances: 128 MB
_ROWS, _LETTERS = 1000, 1000  # texts in one block, and what of each is compared


@dataclass(frozen=True, slots=True)
class LeakageOptions:
    """`samples`: most test rows compared for nearness; `train_rows`: most rows they are compared with.

    `near`: share of the 1 % quantile of distances between training rows that counts as the same; `least_features`:
    below this many features neighbours are too close to tell from copies. `alike`: share of all shingles of two texts
    that both have, from which they count as the same; one typing error in a sentence of 60 letters leaves 0.84.
    """

    samples: Count = 512
    train_rows: Count = 20_000
    near: Annotated[float, Within(least=0)] = 0.25
    least_features: Natural = 8
    alike: Annotated[float, Within(above=0, most=1)] = 0.8


@probe(
    threat=THREAT,
    source="Kapoor and Narayanan, Patterns 4, 2023 (L1.4 duplicates); Barz and Denzler, J. Imaging 6, 2020 (near "
    "ones); Broder, On the resemblance and containment of documents, 1997 (texts)",
    needs={Facet.TEST, Facet.TRAIN},
    kinds={DataKind.IMAGE, DataKind.TABLE, DataKind.TEXT},
    metrics=(EXACT, NEAR, REPEATS, UNTRIED),
    options=LeakageOptions,
    profiles={Profile.QUICK: {"samples": 256, "train_rows": 5000}, Profile.FULL: {"samples": 2000}},
)
def check_leakage(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Count test rows that are also in another split, or within a hair of a training row.

    Exact: share of all test rows whose bytes occur in the other split; rows that repeat by nature count as well, so the
    share of repeats within the training data is noted beside it. Near: share of a sample whose nearest training row, in
    units of each feature's standard deviation, is closer than `near` times the 1 % quantile of distances between
    nearest training rows. Errs low where the training rows are sampled or repeat one another.

    Texts are near at a resemblance of at least `alike`: of the runs of five letters (capitals, marks and spaces apart)
    in the first thousand letters of either, the share that both have. Errs low for copies that were reworded.
    """
    test, train = case.data("test"), case.data("train")
    own = _keys(test.x)
    for part, data in case.splits.parts().items():
        if part != "test":
            seen = np.isin(own, _keys(data.x))
            method = f"{seen.sum()} of {len(test)} test rows are also in {part}"
            yield EXACT.measured(seen.mean(), method=method, about=part, n=len(test))
    repeats = 1 - len(np.unique(_keys(train.x))) / len(train)
    yield REPEATS.measured(
        repeats, method="share of training rows that repeat an earlier one", about="train", n=len(train)
    )
    features = int(np.prod(test.x.shape[1:]))
    if test.schema.kind is DataKind.TEXT:
        yield _near_texts(test, train, lab)
    elif features < lab.options.least_features:
        method = f"{features} features: too few to tell a near copy from a neighbour"
        yield UNTRIED.measured(features, method=method, about="train")
    else:
        yield _near(test, train, lab)


def _near(test: Data, train: Data, lab: Lab) -> Evidence:
    rows, base = sampled(test, lab, lab.options.samples), sampled(train, lab, lab.options.train_rows, "train")
    flat = np.nan_to_num(np.asarray(base.x, dtype=np.float64).reshape(len(base), -1))
    spread = flat.std(axis=0)
    spread[spread == 0] = 1
    flat /= spread
    probes = np.nan_to_num(np.asarray(rows.x, dtype=np.float64).reshape(len(rows), -1)) / spread
    chosen = np.sort(lab.rng("own").choice(len(base), size=min(lab.options.samples, len(base)), replace=False))
    apart = _nearest(flat[chosen], flat, skip=chosen)
    usual = apart[apart > 0]
    threshold = lab.options.near * float(np.quantile(usual, 0.01)) if len(usual) else 0.0
    close = (_nearest(probes, flat) <= threshold) & ~np.isin(_keys(rows.x), _keys(base.x))
    method = f"{close.sum()} of {len(rows)} sampled rows within {threshold:.3g} of one of {len(base)} training rows"
    return NEAR.measured(close.mean(), method=method, about="train", n=len(rows))


def _near_texts(test: Data, train: Data, lab: Lab) -> Evidence:
    rows, base = sampled(test, lab, lab.options.samples), sampled(train, lab, lab.options.train_rows, "train")
    ours = _shingles(rows.x)
    sizes, best = np.asarray(ours.sum(axis=1)).reshape(-1, 1), np.zeros(len(rows))
    for start in range(0, len(base), _ROWS):
        theirs = _shingles(base.x[start : start + _ROWS])
        both = np.asarray((ours @ theirs.T).todense())
        either = sizes + np.asarray(theirs.sum(axis=1)).reshape(1, -1) - both
        best = np.maximum(best, (both / np.maximum(either, 1)).max(axis=1))
    close = (best >= lab.options.alike) & ~np.isin(_keys(rows.x), _keys(base.x))
    method = (
        f"{close.sum()} of {len(rows)} sampled texts share {lab.options.alike:.0%} of their shingles with one of "
        f"{len(base)} training texts"
    )
    return NEAR.measured(close.mean(), method=method, about="train", n=len(rows))


def _shingles(x: Array) -> Any:
    """Which runs of five letters are in each text, sparse `(n, 2^20)`; two of them meet by chance once in a million."""
    from sklearn.feature_extraction.text import HashingVectorizer

    plain = [" ".join(re.findall(r"\w+", str(text)[:_LETTERS].casefold())) for text in x]
    how = {"analyzer": "char", "ngram_range": (5, 5), "binary": True, "norm": None, "alternate_sign": False}
    return HashingVectorizer(**how, lowercase=False).transform(plain)


def _nearest(a: Array, b: Array, skip: Array | None = None) -> Array:
    """Distance of each row of `a (m, d)` to the nearest of `b (n, d)`, `(m,)`; row i is not compared with `b[skip[i]]`.

    The squared distances of the expanded form lose digits near 0, so the winner is measured again.
    """
    found = np.empty(len(a))
    step = max(1, _CHUNK // len(b))
    norms = (b**2).sum(axis=1)
    for start in range(0, len(a), step):
        part = a[start : start + step]
        squares = norms - 2 * part @ b.T
        if skip is not None:
            squares[np.arange(len(part)), skip[start : start + step]] = np.inf
        found[start : start + step] = np.linalg.norm(part - b[squares.argmin(axis=1)], axis=1)
    return found


def _keys(x: Array) -> NDArray[np.uint64]:
    """64 bits for each row, equal for equal rows, `(n,)`; among a million rows any two others meet with odds of 3e-8.

    The sum over features of splitmix64's finaliser (Steele, Lea and Flood, OOPSLA 2014) of value bits and position.
    """
    if x.dtype.kind == "T":
        return np.array([hash(text) % 2**64 for text in x], dtype=np.uint64)
    keys = np.empty(len(x), dtype=np.uint64)
    features = int(np.prod(x.shape[1:]))
    place = np.arange(1, features + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    step = max(1, (_CHUNK >> 3) // max(features, 1))
    for start in range(0, len(x), step):
        # Adding 0 turns -0.0 into 0.0, which is equal and has other bits.
        part = np.asarray(x[start : start + step], dtype=np.float64).reshape(-1, features) + 0.0
        bits = part.view(np.uint64) + place
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        keys[start : start + step] = (bits ^ (bits >> np.uint64(31))).sum(axis=1, dtype=np.uint64)
    return keys
