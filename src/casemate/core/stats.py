"""Intervals and tests. Every one says which way it errs; where a guarantee is possible, it is kept.

Rates: `clopper_pearson` (exact, never under its confidence), `wilson` (shorter, may fall below). Comparisons:
`difference_of_proportions`, `paired_difference`, `max_gap`. Any statistic: `bootstrap_interval`, `paired_bootstrap`.
Tests: `mcnemar_exact`, `ks_p_values`, with `holm` and `benjamini_hochberg`. Scores: `roc_auc`, `tpr_at_fpr`.
"""

# This module passes the 400 lines a module should have: one import for every number a gate is decided by.

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy  # loads scipy.special and scipy.stats at first use: `import casemate` must be fast
from numpy.typing import ArrayLike, NDArray

from casemate.errors import UsageError

__all__ = [
    "Interval",
    "benjamini_hochberg",
    "bootstrap_interval",
    "clopper_pearson",
    "clopper_pearson_bounds",
    "difference_of_proportions",
    "holm",
    "ks_p_values",
    "max_gap",
    "mcnemar_exact",
    "paired_bootstrap",
    "paired_difference",
    "roc_auc",
    "samples_to_decide",
    "tpr_at_fpr",
    "wilson",
]

Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]

# Numbers gathered at once by a bootstrap: 32 MB.
_GATHER = 1 << 22
# Above this many left-out groups the jackknife leaves out groups instead of single rows.
_JACKKNIFE = 400
# Beyond this n * m the two-sample KS statistic takes its limiting law.
_EXACT_KS = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with bounds that hold it; `n` independent observations; `confidence` in (0, 1).

    Raises: UsageError unless low <= value <= high are finite numbers.
    """

    value: float
    low: float
    high: float
    n: int
    confidence: float
    method: str

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "confidence"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "n", int(self.n))
        _check_confidence(self.confidence)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.value <= self.high):
            raise UsageError(
                f"expected finite low <= value <= high, got {self.low}, {self.value}, {self.high} ({self.method}): "
                "measure on finite values"
            )


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Bound a rate exactly: coverage is never below `confidence`, hence the interval errs wide.

    At n >= 30 and rates in [0.05, 0.95] its mean width is at most 1.12 times Wilson's. Raises: UsageError unless
    0 <= successes <= n and n >= 1. Source: Clopper and Pearson, Biometrika 26, 1934.
    """
    low, high = clopper_pearson_bounds(successes, n, confidence)
    return Interval(successes / n, float(low), float(high), n, confidence, "clopper_pearson")


def clopper_pearson_bounds(successes: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Clopper-Pearson bounds `(low, high)` of each pair of counts, broadcast together. Raises: as `clopper_pearson`."""
    hits, total = _check_counts(successes, n)
    _check_confidence(confidence)
    return _beta_bounds(hits, total, (1 - confidence) / 2)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Bound a rate by the score test: mean coverage is near `confidence`, single rates near 0 or 1 fall below it.

    Raises: as `clopper_pearson`. Source: Wilson, JASA 22, 1927; Brown, Cai and DasGupta, Statistical Science 16, 2001.
    """
    _check_counts(successes, n)
    z2 = _z(confidence) ** 2
    rate = successes / n
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2) / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    low, high = (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)
    return Interval(rate, min(low, rate), max(high, rate), n, confidence, "wilson")


def samples_to_decide(value: float, bound: float, confidence: float = 0.95) -> int | None:
    """Count the samples at which a Clopper-Pearson interval excludes `bound`, if the rate stays at `value`.

    `value` is rounded towards `bound` to whole successes, so it errs towards more; it is a forecast, as new samples may
    move the rate. The count is of all samples, not of further ones. None where it takes over 2**40 samples, as it does
    for value == bound. Raises: UsageError outside [0, 1].
    """
    if not (0 <= value <= 1 and 0 <= bound <= 1):
        raise UsageError(f"expected value and bound in [0, 1], got {value} and {bound}: give rates")
    _check_confidence(confidence)

    def decided(n: int) -> bool:
        hits = math.floor(value * n + 1e-9) if value > bound else math.ceil(value * n - 1e-9)
        low, high = clopper_pearson_bounds(hits, n, confidence)
        return bool(low > bound or high < bound)

    enough = 1
    while value == bound or not decided(enough):
        enough *= 2
        if value == bound or enough > 2**40:
            return None
    short = enough // 2
    while enough - short > 1:
        middle = (enough + short) // 2
        short, enough = (short, middle) if decided(middle) else (middle, enough)
    return enough


def difference_of_proportions(s1: int, n1: int, s2: int, n2: int, *, confidence: float = 0.95) -> Interval:
    """Bound rate 1 minus rate 2 of independent samples; errs wide.

    Melds the Clopper-Pearson confidence distributions, low = quantile of Beta(s1, n1 - s1 + 1) - Beta(s2 + 1, n2 - s2).
    Coverage at or above `confidence` is not proved, but holds in every enumeration tried (n1, n2 <= 40; see the tests).
    Raises: as `clopper_pearson`. Source: Fay, Proschan and Brittain, Biometrics 71, 2015.
    """
    _check_counts([s1, s2], [n1, n2])
    _check_confidence(confidence)
    tail = (1 - confidence) / 2
    value = s1 / n1 - s2 / n2
    low, high = _melded_low(s1, n1, s2, n2, tail=tail), -_melded_low(s2, n2, s1, n1, tail=tail)
    return Interval(value, min(low, value), max(high, value), n1 + n2, confidence, "melded_clopper_pearson")


def paired_difference(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Bound mean(a) - mean(b) of paired 0/1 vectors `(n,)`; errs wide, and agrees with `mcnemar_exact`.

    The share of discordant pairs and the share of those in favour of a are binomial, one given the other; their
    Clopper-Pearson confidence distributions are melded. Raises: UsageError for other values, no rows, unequal lengths.
    Source: Fay and Lumbard, Statistics in Medicine 40, 2021.
    """
    first, second = _check_pair(a, b)
    if not np.all(np.isin(first, (0, 1)) & np.isin(second, (0, 1))):
        raise UsageError("expected a and b of 0 and 1, got other values: use paired_bootstrap for numbers")
    _check_confidence(confidence)
    n, plus, minus = len(first), int(np.sum(first > second)), int(np.sum(first < second))
    value, tail = (plus - minus) / n, (1 - confidence) / 2
    low, high = _paired_low(plus, minus, n, tail), -_paired_low(minus, plus, n, tail)
    return Interval(value, min(low, value), max(high, value), n, confidence, "melded_mcnemar")


def max_gap(successes: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> Interval:
    """Bound the largest minus the smallest rate over g >= 2 groups, `(g,)` each; errs wide, most with many groups.

    Clopper-Pearson bounds hold for all groups at once (Bonferroni: each at 1 - (1 - confidence) / g), so coverage is
    never below `confidence`. low = max(0, max_ij low_i - high_j), high = max_ij high_i - low_j over i != j; `value` is
    biased upwards. Raises: as `clopper_pearson`, and for fewer than two groups or an empty one.
    """
    hits, total = _check_counts(successes, n)
    if hits.ndim != 1 or len(hits) < 2:
        raise UsageError(f"expected counts of at least 2 groups, got shape {hits.shape}: compare two groups or more")
    low, high = clopper_pearson_bounds(hits, total, 1 - (1 - confidence) / len(hits))
    apart = np.where(np.eye(len(hits), dtype=bool), -np.inf, high[:, None] - low[None, :])
    rates = hits / total
    bottom = max(0.0, float(low.max() - high.min()))
    return Interval(np.ptp(rates), bottom, apart.max(), int(total.sum()), confidence, "bonferroni_clopper_pearson")


def mcnemar_exact(b: int, c: int) -> float:
    """Test b against c discordant pairs for equal odds: two-sided exact p, errs high. Raises: UsageError below 0."""
    if min(b, c) < 0 or b != int(b) or c != int(c):
        raise UsageError(f"expected whole numbers of discordant pairs >= 0, got {b} and {c}: count them")
    return 1.0 if b == c else min(1.0, 2 * float(scipy.special.bdtr(min(b, c), b + c, 0.5)))


def holm(p: ArrayLike) -> Floats:
    """Adjust p-values `(m,)`, order kept: rejecting those <= alpha keeps P(any false rejection) <= alpha, always.

    Raises: UsageError for values outside [0, 1]. Source: Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    values = _check_p(p)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return _restore(np.minimum(stepped, 1.0), order)


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Adjust p-values `(m,)`, order kept: rejecting those <= q keeps the expected share of false rejections <= q.

    Holds for independent or positively dependent tests. Raises: as `holm`. Source: Benjamini and Hochberg, JRSS B 57,
    1995.
    """
    values = _check_p(p)
    order = np.argsort(values, kind="stable")
    m = len(values)
    stepped = values[order] * (m / np.arange(1, m + 1)) if m else values
    # Rounding must not put an adjusted value below its own p-value.
    return np.asarray(np.maximum(_restore(np.minimum.accumulate(stepped[::-1])[::-1], order), values))


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    *,
    rng: np.random.Generator,
    statistic: Statistic = np.mean,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Bound statistic(a) - statistic(b) of paired samples `(n,)`, rows drawn together; see `bootstrap_interval`.

    Raises: also for unequal lengths. For 0/1 values use `paired_difference`, which keeps its confidence.
    """
    first, second = _check_pair(a, b)
    return _bootstrap((first, second), statistic, rng=rng, draws=draws, confidence=confidence)


def bootstrap_interval(
    values: ArrayLike,
    *,
    rng: np.random.Generator,
    statistic: Statistic = np.mean,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Bound `statistic(values, axis=-1)` of a sample `(n,)` by the BCa bootstrap with levels widened for small n.

    Errs narrow: on skewed data at n = 30 it covers about 93 % at a nominal 95 %, and constant data give width 0.
    Statistics that jump (extremes, high quantiles) are not covered. Raises: UsageError for values that are not finite,
    n < 2 or draws < 100. Source: Efron, JASA 82, 1987; widening: Hesterberg, The
    American Statistician 69, 2015.
    """
    return _bootstrap((_check_vector(values),), statistic, rng=rng, draws=draws, confidence=confidence)


def roc_auc(scores_member: ArrayLike, scores_nonmember: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Bound P(member scores higher) + P(tie) / 2 from scores `(m,)` and `(n,)`; errs a little wide.

    The hull of two intervals: DeLong's variance on the logit scale, which follows the data, and the score interval with
    the Hanley-McNeil variance (Newcombe's method 5), which keeps its width when all pairs are ordered (AUC 0 or 1).
    Raises: UsageError for an empty or non-finite side. Sources: DeLong et al., Biometrics 44, 1988; Hanley and McNeil,
    Radiology 143, 1982; Newcombe, Statistics in Medicine 25, 2006, part 2.
    """
    member, other = _check_vector(scores_member), _check_vector(scores_nonmember)
    z = _z(confidence)
    above, below = _placements(member, np.sort(other)), 1 - _placements(other, np.sort(member))
    auc = float(above.mean())
    low, high = (_hanley_mcneil_bound(auc, len(member), len(other), side) for side in (-z, z))
    if 0 < auc < 1 and min(len(member), len(other)) > 1:
        spread = math.sqrt(above.var(ddof=1) / len(member) + below.var(ddof=1) / len(other)) / (auc * (1 - auc))
        centre = math.log(auc / (1 - auc))
        low = min(low, 1 / (1 + math.exp(min(700.0, z * spread - centre))))
        high = max(high, 1 / (1 + math.exp(max(-700.0, -z * spread - centre))))
    return Interval(auc, min(low, auc), max(high, auc), len(member) + len(other), confidence, "delong_newcombe_hull")


def tpr_at_fpr(scores_pos: ArrayLike, scores_neg: ArrayLike, fpr: float, confidence: float = 0.95) -> Interval:
    """Bound the true positive rate at a false positive rate, for the rule score > threshold; errs wide.

    `value`: threshold at the highest negatives such that the realised FPR is <= fpr, ties included. Bounds: the true
    (1 - fpr)-quantile of the negatives lies between two of their order statistics, and the rate of positives above each
    is Clopper-Pearson; the four one-sided errors get a quarter of 1 - confidence each, so coverage is never below
    `confidence`, for any two distributions. With under about log(4 / (1 - confidence)) / fpr negatives low is 0.
    Raises: UsageError for an empty or non-finite side, or fpr outside (0, 1).
    """
    positive, negative = _check_vector(scores_pos), _check_vector(scores_neg)
    if not 0 < fpr < 1:
        raise UsageError(f"expected fpr in (0, 1), got {fpr}: give a share such as 0.01")
    _check_confidence(confidence)
    n, tail = len(negative), (1 - confidence) / 4
    falling = np.concatenate([[np.inf], np.sort(negative)[::-1], [-np.inf]])
    tails = scipy.special.bdtr(np.arange(n + 1), n, fpr)
    allowed = math.floor(fpr * n + 1e-9)
    # falling[j] is the j-th highest; it lies below the quantile only if fewer than j negatives reach it: P(Bin < j).
    strict = min(int(np.searchsorted(tails, tail, side="right")), allowed + 1)
    lenient = max(int(np.searchsorted(tails, 1 - tail, side="left")) + 1, allowed + 1)
    hits = [int(np.sum(positive > falling[j])) for j in (strict, allowed + 1, lenient)]
    bounds = _beta_bounds(np.array(hits, dtype=np.float64), np.float64(len(positive)), tail)
    low, high = float(bounds[0][0]), float(bounds[1][2])
    return Interval(
        hits[1] / len(positive), low, high, len(positive) + n, confidence, "order_statistic_clopper_pearson"
    )


def ks_p_values(reference: ArrayLike, window: ArrayLike) -> Floats:
    """Two-sample Kolmogorov-Smirnov p per column of `(n, d)` and `(m, d)`, as `(d,)`; errs high with ties.

    Exact up to n * m = 10,000, then the one-sample law at n m / (n + m), rounded. Correct for the d tests with `holm`.
    Raises: UsageError for shapes that do not fit, no rows or NaN. Source: Hodges, Arkiv foer Matematik 3, 1958.
    """
    first, second = np.asarray(reference, dtype=np.float64), np.asarray(window, dtype=np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not (len(first) and len(second)):
        raise UsageError(
            f"expected reference (n, d) and window (m, d), got {first.shape} and {second.shape}: align columns"
        )
    if np.isnan(first).any() or np.isnan(second).any():
        raise UsageError("expected no NaN, got some: compare shares of missing values apart")
    n, m = len(first), len(second)
    if n * m <= _EXACT_KS:
        pairs = zip(first.T, second.T, strict=True)
        return np.array(
            [scipy.stats.ks_2samp(left, right, method="exact").pvalue for left, right in pairs], dtype=float
        )
    gap = np.array([_ks_distance(left, right) for left, right in zip(first.T, second.T, strict=True)], dtype=float)
    return np.asarray(np.clip(scipy.stats.kstwo.sf(gap, round(n * m / (n + m))), 0.0, 1.0))


def _beta_bounds(hits: Floats, total: Floats | np.float64, tail: float) -> tuple[Floats, Floats]:
    low = np.where(hits > 0, scipy.special.betaincinv(np.maximum(hits, 1), total - hits + 1, tail), 0.0)
    high = np.where(hits < total, scipy.special.betaincinv(hits + 1, np.maximum(total - hits, 1), 1 - tail), 1.0)
    return low, high


def _melded_low(s1: int, n1: int, s2: int, n2: int, *, tail: float) -> float:
    """Quantile of Beta(s1, n1 - s1 + 1) - Beta(s2 + 1, n2 - s2); a side without successes (failures) is 0 (1)."""
    if s1 == 0:
        return -1.0 if s2 == n2 else -float(scipy.special.betaincinv(s2 + 1, n2 - s2, 1 - tail))
    if s2 == n2:
        return float(scipy.special.betaincinv(s1, n1 - s1 + 1, tail)) - 1.0
    nodes, weights = _unit_nodes()
    # Summing over the narrower of the two keeps what is summed smooth.
    lower1, upper2 = scipy.special.betaincinv(s1, n1 - s1 + 1, nodes), scipy.special.betaincinv(s2 + 1, n2 - s2, nodes)

    def share_below(x: float) -> float:
        if n1 > n2:
            return float(weights @ scipy.special.betainc(n2 - s2, s2 + 1, np.clip(1 + x - lower1, 0.0, 1.0)))
        return float(weights @ scipy.special.betainc(s1, n1 - s1 + 1, np.clip(x + upper2, 0.0, 1.0)))

    return _quantile(share_below, tail)


def _paired_low(plus: int, minus: int, n: int, tail: float) -> float:
    """Quantile of psi (2 theta - 1), theta ~ Beta(plus, minus + 1), psi the discordant share's bound that lowers it."""
    nodes, weights = _unit_nodes()
    m = plus + minus
    psi_high = scipy.special.betaincinv(m + 1, n - m, nodes) if m < n else np.ones_like(nodes)
    if plus == 0:
        return -1.0 if m == n else -float(scipy.special.betaincinv(m + 1, n - m, 1 - tail))
    psi_low = scipy.special.betaincinv(m, n - m + 1, nodes)

    def share_below(x: float) -> float:
        psi = psi_low if x >= 0 else psi_high
        return float(weights @ scipy.special.betainc(plus, minus + 1, np.clip(0.5 + 0.5 * x / psi, 0.0, 1.0)))

    return _quantile(share_below, tail)


def _unit_nodes() -> tuple[Floats, Floats]:
    """Quantile levels and weights that average a function of a random level: the trapezoid rule on a normal scale."""
    z = np.linspace(-8.0, 8.0, 513)
    weights = np.exp(-0.5 * z * z)
    return scipy.special.ndtr(z), weights / weights.sum()


def _quantile(share_below: Callable[[float], float], tail: float) -> float:
    """Largest x in [-1, 1], to 1e-12 and rounded down, with a share of at most `tail` below it."""
    low, high = -1.0, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if share_below(middle) <= tail else (low, middle)
    return low


def _bootstrap(
    columns: tuple[Floats, ...], statistic: Statistic, *, rng: np.random.Generator, draws: int, confidence: float
) -> Interval:
    _check_confidence(confidence)
    n = len(columns[0])
    if n < 2 or draws < 100:
        raise UsageError(f"expected n >= 2 and draws >= 100, got {n} and {draws}: add rows or draws")

    def measure(rows: NDArray[np.intp]) -> Floats:
        parts = [statistic(column[rows], axis=-1) for column in columns]
        return np.asarray(parts[0] if len(parts) == 1 else parts[0] - parts[1], dtype=np.float64)

    value = float(measure(np.arange(n)[None, :])[0])
    step = max(1, _GATHER // n)
    drawn = np.concatenate([measure(rng.integers(0, n, (min(step, draws - at), n))) for at in range(0, draws, step)])
    # Ties with the value count half, or a statistic on a grid would look biased.
    share = np.clip((np.sum(drawn < value) + np.sum(drawn <= value)) / (2 * draws), 0.5 / draws, 1 - 0.5 / draws)
    bias, skew = float(scipy.special.ndtri(share)), _acceleration(measure, n, rng)
    reach = math.sqrt(n / (n - 1)) * float(scipy.special.stdtrit(n - 1, (1 + confidence) / 2))
    levels = [float(scipy.special.ndtr(bias + (bias + z) / max(1e-3, 1 - skew * (bias + z)))) for z in (-reach, reach)]
    low, high = np.quantile(drawn, levels)
    return Interval(value, min(low, value), max(high, value), n, confidence, "bca_bootstrap")


def _acceleration(measure: Callable[[NDArray[np.intp]], Floats], n: int, rng: np.random.Generator) -> float:
    """Skewness of the jackknife over rows, or over random groups of equal size where n is large."""
    groups = min(n, _JACKKNIFE)
    size = n // groups
    order = rng.permutation(n)[: groups * size].reshape(groups, size)
    left = np.array([measure(np.delete(order, group, axis=0).reshape(1, -1))[0] for group in range(groups)])
    away = left.mean() - left
    spread = float(np.sum(away**2))
    return float(np.sum(away**3)) / (6 * spread**1.5) if spread > 0 else 0.0


def _placements(scores: Floats, ordered: Floats) -> Floats:
    """Share of `ordered` below each score, ties counted half."""
    both = np.searchsorted(ordered, scores, side="left") + np.searchsorted(ordered, scores, side="right")
    return np.asarray(both / (2 * len(ordered)))


def _hanley_mcneil_bound(auc: float, m: int, n: int, z: float) -> float:
    """Farthest AUC in z's direction that a test with the Hanley-McNeil variance at that AUC does not reject."""
    mean_size = (m + n) / 2 - 1

    def rejected(trial: float) -> bool:
        shape = 1 + mean_size * ((1 - trial) / (2 - trial) + trial / (1 + trial))
        return (auc - trial) ** 2 > z * z * trial * (1 - trial) * shape / (m * n)

    kept, lost = auc, (1.0 if z > 0 else 0.0)
    if not rejected(lost):
        return lost
    for _ in range(60):
        middle = (kept + lost) / 2
        kept, lost = (kept, middle) if rejected(middle) else (middle, lost)
    return lost


def _ks_distance(left: Floats, right: Floats) -> float:
    both = np.concatenate([left, right])
    shares = [np.searchsorted(np.sort(side), both, side="right") / len(side) for side in (left, right)]
    return float(np.abs(shares[0] - shares[1]).max())


def _restore(values: Floats, order: NDArray[np.intp]) -> Floats:
    out = np.empty_like(values)
    out[order] = values
    return out


def _z(confidence: float) -> float:
    _check_confidence(confidence)
    return float(scipy.special.ndtri((1 + confidence) / 2))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UsageError(f"expected confidence in (0, 1), got {confidence}: give 0.95 for 95 %")


def _check_counts(successes: ArrayLike, n: ArrayLike) -> tuple[Floats, Floats]:
    hits, total = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    whole = np.all(hits == np.floor(hits)) and np.all(total == np.floor(total))
    if not (whole and np.all(np.isfinite(total)) and np.all((total >= 1) & (hits >= 0) & (hits <= total))):
        raise UsageError(
            f"expected whole counts 0 <= successes <= n and n >= 1, got {successes!r} of {n!r}: skip empty groups"
        )
    hits, total = np.broadcast_arrays(hits, total)
    return hits, total


def _check_vector(values: ArrayLike) -> Floats:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0 or not np.isfinite(vector).all():
        raise UsageError(f"expected finite values of shape (n,), n >= 1, got shape {vector.shape}: drop missing values")
    return vector


def _check_pair(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    first, second = _check_vector(a), _check_vector(b)
    if first.shape != second.shape:
        raise UsageError(f"expected a and b of one length, got {len(first)} and {len(second)}: pair them by sample id")
    return first, second


def _check_p(p: ArrayLike) -> Floats:
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise UsageError(f"expected p-values of shape (m,) in [0, 1], got shape {values.shape}: skip undefined tests")
    return values
