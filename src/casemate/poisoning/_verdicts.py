"""From scores of rows to p-values with a named null: which of two kinds of rows are among the highest, and how often.

All tests condition on the scores: under the null the kinds of the rows are a random order, so that the number of one
kind among the k highest is hypergeometric, whatever the scores are and however they depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

__all__ = ["Excess", "attainable", "confidence_of", "excess_among_highest", "rare_parts"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_GRID = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
_LARGEST = 0.5  # of the rows: a half that looks worse than the other is a shift, not a tail


@dataclass(frozen=True, slots=True)
class Excess:
    """How many more rows of a kind than expected are among the `k` highest of a stratum; `p` holds for all tries.

    `found` of the `k` are of the kind, `expected` would be; `stratum` is -1 where all strata are taken together.
    """

    p: float
    k: int = 0
    found: int = 0
    expected: float = 0.0
    stratum: int = -1


def excess_among_highest(score: Array, kind: Array, strata: Array, rng: np.random.Generator) -> Excess:
    """Test whether rows of a kind `(n,)` have the higher scores `(n,)`, within strata `(n,)` of whole numbers.

    Null: within each stratum every order of the kinds is as likely (exchangeability). For each number k of a grid up to
    half of the rows: among the k highest of one stratum, hypergeometric; and among the same share of the highest of
    every stratum, a sum of hypergeometrics. Bonferroni over all of these. NaN scores are left out (they are not
    tested), ties are broken at random without regard to the kind. Exact, hence errs high: Bonferroni ignores that the
    counts depend on each other.
    """
    known = ~np.isnan(score)
    score, kind, strata = score[known], np.asarray(kind, dtype=bool)[known], strata[known]
    order = np.lexsort((rng.random(len(score)), -score))
    parts = {int(value): kind[order][strata[order] == value] for value in np.unique(strata)}
    tried = [_highest(part, value) for value, part in parts.items()]
    if len(parts) > 1:
        tried.append(_together(list(parts.values())))
    found = [item for items in tried for item in items]
    if not found:
        return Excess(1.0)
    best = min(found, key=lambda item: item.p)
    return Excess(min(1.0, best.p * len(found)), best.k, best.found, best.expected, best.stratum)


def attainable(kind: Array, strata: Array) -> float:
    """The least p that `excess_among_highest` could give for so many rows of both kinds: above alpha it is mute."""
    kind = np.asarray(kind, dtype=bool)
    return excess_among_highest(kind.astype(np.float64), kind, strata, np.random.default_rng(0)).p


def rare_parts(part: Array, row: Array, kind: Array, strata: Array) -> Floats:
    """Test which parts (a value, a word, a block) rows of a kind carry more often within a stratum: p `(m, strata)`.

    `part (l,)` in 0..m-1 is carried by `row (l,)`, each pair once. Null: within each stratum every order of the kinds
    is as likely. p is the hypergeometric tail, corrected by the number of pairs that could have become significant at
    all (Tarone, Biometrics 46, 1990). Errs high.
    """
    kind, strata = np.asarray(kind, dtype=bool), np.unique(strata, return_inverse=True)[1]
    m, groups = int(part.max(initial=-1)) + 1, int(strata.max(initial=0)) + 1
    key = part * groups + strata[row]
    carried = np.bincount(key, minlength=m * groups)
    ours = np.bincount(key[kind[row]], minlength=m * groups)
    size, of_kind = (np.tile(np.bincount(strata[rows], minlength=groups), m) for rows in (slice(None), kind))
    p, least = (hypergeom.sf(count - 1, size, of_kind, carried) for count in (ours, np.minimum(of_kind, carried)))
    corrected: Floats = np.minimum(1.0, p * _testable(least)).reshape(m, groups)
    return corrected


def confidence_of(score: Array, kind: Array) -> Floats:
    """How likely a row of the kind with such a score is one that the others do not account for, `(n,)`.

    One minus (rows expected by the rate among the others) / (rows of the kind), where the scores are as high; the rate
    as a function of the score by isotonic regression (Barlow et al., 1972), which pools neighbouring scores until it
    never falls. One row more of the others, with the highest score, stands for what few clean rows cannot tell. Errs
    low. NaN scores get 0.
    """
    from sklearn.isotonic import isotonic_regression

    kind, known = np.asarray(kind, dtype=bool), ~np.isnan(score)
    ours, others = int(kind[known].sum()), int((~kind[known]).sum())
    confident = np.zeros(len(score))
    if not ours:
        return confident
    _, place, count = np.unique(score[known], return_inverse=True, return_counts=True)
    hits = np.bincount(place, weights=kind[known])
    count[-1] += 1
    share = isotonic_regression(hits / count, sample_weight=count.astype(np.float64), y_min=0.0, y_max=1.0)
    expected = (1 - share) * ours / (others + 1)
    confident[known] = np.clip(1 - np.divide(expected, share, out=np.ones_like(share), where=share > 0), 0, 1)[place]
    return confident


def _highest(kind: Array, stratum: int) -> list[Excess]:
    total, of_kind = len(kind), int(kind.sum())
    ks = [k for k in _GRID if k <= total * _LARGEST]
    found = np.cumsum(kind)[np.array(ks, dtype=int) - 1] if ks else np.zeros(0)
    return [
        Excess(float(hypergeom.sf(int(x) - 1, total, of_kind, k)), k, int(x), k * of_kind / total, stratum)
        for k, x in zip(ks, found, strict=True)
    ]


def _together(parts: Sequence[Array]) -> list[Excess]:
    """The same share of every stratum, so many that they are k in all."""
    total, tried = sum(len(part) for part in parts), []
    for k in (k for k in _GRID if k <= total * _LARGEST):
        shares = [round(k * len(part) / total) for part in parts]
        laws = [(len(part), int(part.sum()), share) for part, share in zip(parts, shares, strict=True)]
        found = int(sum(int(part[:share].sum()) for part, share in zip(parts, shares, strict=True)))
        expected = sum(n * share / size for size, n, share in laws)
        tried.append(Excess(_tail(laws, found), sum(shares), found, float(expected)))
    return tried


def _tail(laws: Sequence[tuple[int, int, int]], found: int) -> float:
    """P(sum of hypergeometrics (rows, rows of the kind, drawn) >= found)."""
    law = np.ones(1)
    for rows, of_kind, drawn in laws:
        law = np.convolve(law, hypergeom.pmf(np.arange(min(of_kind, drawn) + 1), rows, of_kind, drawn))
    return float(min(1.0, law[found:].sum()))


def _testable(least: Floats) -> int:
    """Tarone's number: the smallest c such that at most c parts could reach p <= alpha / c; alpha is .05."""
    ordered = np.sort(least)
    for c in range(1, len(ordered) + 1):
        if np.searchsorted(ordered, 0.05 / c, side="right") <= c:
            return c
    return max(1, len(ordered))
