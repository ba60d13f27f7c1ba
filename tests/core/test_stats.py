"""Intervals against enumeration, simulation, textbooks and scipy; tests against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as sps

from casemate.core import stats
from casemate.core.stats import Interval
from casemate.errors import UsageError

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
P_VALUES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.05, 1.0]), max_size=30)
RATES = np.array([0.001, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97, 0.99, 0.999])


# ------------------------------------------------------------------------------------------ one rate


@pytest.mark.parametrize(("kind", "method"), [(stats.clopper_pearson, "exact"), (stats.wilson, "wilson")])
@given(counts=COUNTS, confidence=st.sampled_from([0.8, 0.95, 0.999]))
@settings(max_examples=60, deadline=None)
def test_rate_intervals_equal_scipys(kind, method, counts, confidence):
    expected = sps.binomtest(*counts).proportion_ci(confidence, method=method)
    got = kind(*counts, confidence)
    assert got.low == pytest.approx(expected.low, abs=1e-9)
    assert got.high == pytest.approx(expected.high, abs=1e-9)


@pytest.mark.parametrize("kind", [stats.clopper_pearson, stats.wilson])
@given(counts=COUNTS)
@settings(max_examples=60, deadline=None)
def test_rate_intervals_mirror_grow_with_successes_and_nest_in_confidence(kind, counts):
    s, n = counts
    here, mirror, sure = kind(s, n), kind(n - s, n), kind(s, n, 0.99)
    assert (mirror.low, mirror.high) == pytest.approx((1 - here.high, 1 - here.low), abs=1e-9)
    assert sure.low <= here.low <= here.value == s / n <= here.high <= sure.high
    if s < n:
        more = kind(s + 1, n)
        assert more.low >= here.low
        assert more.high >= here.high


@pytest.mark.parametrize("n", [1, 5, 30, 100])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_clopper_pearson_never_covers_less_than_it_says(n, confidence):
    s = np.arange(n + 1)
    low, high = stats.clopper_pearson_bounds(s, n, confidence)
    p = np.linspace(0.0005, 0.9995, 700)[:, None]
    assert np.sum(sps.binom.pmf(s, n, p) * ((low <= p) & (p <= high)), axis=1).min() >= confidence


@pytest.mark.parametrize("p", [0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
@pytest.mark.parametrize("n", [30, 100, 1000])
def test_clopper_pearson_covers_in_simulated_draws_and_is_hardly_wider_than_wilson(n, p):
    low, high = stats.clopper_pearson_bounds(np.arange(n + 1), n)
    drawn = np.random.default_rng(n).binomial(n, p, 1000)
    assert np.mean((low[drawn] <= p) & (p <= high[drawn])) >= 0.935
    chance = sps.binom.pmf(np.arange(n + 1), n, p)
    short = np.array([interval.high - interval.low for interval in (stats.wilson(s, n) for s in range(n + 1))])
    assert chance @ (high - low) / (chance @ short) <= 1.12


def test_textbook_values():
    rule_of_three = stats.clopper_pearson(0, 100, 0.9)
    assert rule_of_three.high == pytest.approx(1 - 0.05**0.01)
    assert stats.mcnemar_exact(1, 9) == pytest.approx(22 / 1024)
    assert stats.mcnemar_exact(0, 0) == stats.mcnemar_exact(4, 4) == 1.0


@given(b=st.integers(0, 60), c=st.integers(0, 60))
def test_mcnemar_equals_the_binomial_test(b, c):
    expected = sps.binomtest(b, b + c).pvalue if b + c else 1.0
    assert stats.mcnemar_exact(b, c) == pytest.approx(expected, abs=1e-12)


@given(value=st.floats(0, 1), bound=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95]))
@settings(max_examples=80, deadline=None)
def test_so_many_samples_decide_and_one_fewer_does_not(value, bound, confidence):
    n = stats.samples_to_decide(value, bound, confidence)
    if n is None:
        assert abs(value - bound) < 1e-5
        return

    def decided(total):
        s = np.floor(value * total + 1e-9) if value > bound else np.ceil(value * total - 1e-9)
        low, high = stats.clopper_pearson_bounds(s, total, confidence)
        return low > bound or high < bound

    assert decided(n)
    assert n == 1 or not decided(n - 1)


def test_how_many_samples_decide_grows_as_the_gap_shrinks():
    assert [stats.samples_to_decide(0.5, b) for b in (0.1, 0.3, 0.4, 0.45)] == sorted(
        stats.samples_to_decide(0.5, b) for b in (0.1, 0.3, 0.4, 0.45)
    )
    assert stats.samples_to_decide(1.0, 0.9) == 36  # 0.025 ** (1 / n) > 0.9
    assert stats.samples_to_decide(0.5, 0.5) is None


# ------------------------------------------------------------------------------------------ comparisons


@pytest.mark.parametrize(("n1", "n2"), [(1, 1), (3, 3), (2, 9), (6, 6)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_a_difference_of_proportions_covers_in_full_enumeration(n1, n2, confidence):
    first, second = (sps.binom.pmf(np.arange(n + 1)[:, None], n, RATES) for n in (n1, n2))
    true = RATES[:, None] - RATES
    covered = np.zeros_like(true)
    for i, j in itertools.product(range(n1 + 1), range(n2 + 1)):
        got = stats.difference_of_proportions(i, n1, j, n2, confidence=confidence)
        covered += first[i][:, None] * second[j] * ((got.low <= true + 1e-9) & (true <= got.high + 1e-9))
    assert covered.min() >= confidence


@pytest.mark.parametrize(
    ("s1", "n1", "s2", "n2"), [(7, 10, 3, 12), (45, 50, 100, 200), (9, 10, 480, 1000), (500, 1000, 1, 9)]
)
def test_the_melded_bound_is_the_quantile_of_the_difference_of_two_betas(s1, n1, s2, n2):
    low = stats.difference_of_proportions(s1, n1, s2, n2).low
    one, two = sps.beta(s1, n1 - s1 + 1), sps.beta(s2 + 1, n2 - s2)
    mass, _ = integrate.quad(lambda b: one.cdf(low + b) * two.pdf(b), *two.ppf([1e-12, 1 - 1e-12]), limit=200)
    assert mass == pytest.approx(0.025, rel=2e-3)


@pytest.mark.parametrize(("n", "p"), [(30, (0.3, 0.1)), (30, (0.95, 0.05)), (100, (0.03, 0.02))])
def test_a_difference_of_proportions_covers_in_simulated_draws(n, p):
    drawn = np.random.default_rng(n).binomial(n, p, (1000, 2))
    pairs, times = np.unique(drawn, axis=0, return_counts=True)
    got = [stats.difference_of_proportions(int(i), n, int(j), n) for i, j in pairs]
    assert np.average([one.low <= p[0] - p[1] <= one.high for one in got], weights=times) >= 0.935


@given(one=COUNTS, two=COUNTS)
@settings(max_examples=15, deadline=None)
def test_a_difference_of_proportions_is_antisymmetric(one, two):
    here = stats.difference_of_proportions(*one, *two)
    swapped = stats.difference_of_proportions(*two, *one)
    assert (swapped.low, swapped.value, swapped.high) == pytest.approx((-here.high, -here.value, -here.low), abs=1e-9)
    assert here.low >= -1
    assert here.high <= 1


@pytest.mark.parametrize("n", [1, 4, 9])
def test_a_paired_difference_covers_in_full_enumeration(n):
    plus, minus = np.meshgrid(RATES, RATES)
    plus, minus = plus[plus + minus < 0.9995], minus[plus + minus < 0.9995]
    rates = np.stack([plus, minus, 1 - plus - minus], axis=-1)
    covered = np.zeros(len(plus))
    for b in range(n + 1):
        for c in range(n + 1 - b):
            got = stats.paired_difference(*_pairs(b, c, n))
            chance = sps.multinomial.pmf([b, c, n - b - c], n, rates)
            covered += chance * ((got.low <= plus - minus + 1e-9) & (plus - minus <= got.high + 1e-9))
    assert covered.min() >= 0.95


@given(b=st.integers(0, 25), c=st.integers(0, 25), rest=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_a_paired_difference_agrees_with_mcnemar_on_what_is_significant(b, c, rest):
    if b + c + rest == 0:
        return
    got = stats.paired_difference(*_pairs(b, c, b + c + rest))
    mirror = stats.paired_difference(*_pairs(c, b, b + c + rest))
    assert (got.low > 0 or got.high < 0) == (stats.mcnemar_exact(b, c) <= 0.05)
    assert (mirror.low, mirror.high) == pytest.approx((-got.high, -got.low), abs=1e-9)


@pytest.mark.parametrize("n", [100, 1000])
def test_a_paired_difference_is_nearly_as_short_as_the_normal_one_when_there_is_much_data(n):
    b, c = n // 5, n // 10
    got = stats.paired_difference(*_pairs(b, c, n))
    normal = 2 * 1.96 * np.sqrt(b + c - (b - c) ** 2 / n) / n
    assert 1.0 <= (got.high - got.low) / normal <= 1.15


def _pairs(b, c, n):
    return np.repeat([1, 0, 1], [b, c, n - b - c]), np.repeat([0, 1, 1], [b, c, n - b - c])


@pytest.mark.parametrize("rates", [[0.5, 0.5], [0.1, 0.3, 0.3], [0.9, 0.92, 0.97, 0.2, 0.5]])
@pytest.mark.parametrize("n", [30, 100, 1000])
def test_the_largest_gap_is_covered_in_simulated_draws(rates, n):
    sizes = np.array([n, *[max(5, n // 3)] * (len(rates) - 1)])
    drawn = np.random.default_rng(n).binomial(sizes, rates, (300, len(rates)))
    got = [stats.max_gap(row, sizes) for row in drawn]
    assert np.mean([one.low <= np.ptp(rates) <= one.high for one in got]) >= 0.95


def test_the_largest_gap_says_zero_is_possible_unless_two_groups_are_apart():
    thin = stats.max_gap([5, 1], [10, 1])
    assert thin.low == 0.0
    apart = stats.max_gap([90, 10, 50], [100, 100, 100])
    assert apart.value == pytest.approx(0.8)
    assert 0 < apart.low < apart.value < apart.high < 1
    shuffled = stats.max_gap([50, 90, 10], [100, 100, 100])
    assert shuffled == apart


# ------------------------------------------------------------------------------------------ multiple comparisons


@given(p=P_VALUES, seed=st.integers(0, 99))
def test_adjusted_p_values_are_ordered_bounded_and_follow_permutations(p, seed):
    p = np.array(p)
    holm, bh = stats.holm(p), stats.benjamini_hochberg(p)
    assert np.all((p <= bh) & (bh <= holm + 1e-15) & (holm <= 1))
    order = np.random.default_rng(seed).permutation(len(p))
    np.testing.assert_array_equal(stats.holm(p[order]), holm[order])
    np.testing.assert_array_equal(stats.benjamini_hochberg(p[order]), bh[order])
    np.testing.assert_allclose(bh, sps.false_discovery_control(p) if len(p) else p, atol=1e-12)
    rank = np.argsort(p, kind="stable")
    assert np.all(np.diff(holm[rank]) >= 0)
    assert np.all(np.diff(bh[rank]) >= 0)


def test_holm_steps_down_as_defined():
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(stats.benjamini_hochberg([0.01, 0.04, 0.03, 0.005]), [0.02, 0.04, 0.04, 0.02])


def test_holm_keeps_the_family_wise_error_on_null_data():
    p = np.random.default_rng(0).random((2000, 20))
    assert np.mean([stats.holm(row).min() <= 0.05 for row in p]) <= 0.065


# ------------------------------------------------------------------------------------------ bootstrap


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize("law", ["normal", "exponential"])
def test_the_bootstrap_covers_a_mean(law, n):
    rng = np.random.default_rng(n)
    runs = {30: 150, 100: 100}[n]
    draw = {"normal": lambda: rng.normal(1, 1, n), "exponential": lambda: rng.exponential(1, n)}[law]
    held = [
        one.low <= 1 <= one.high for one in (stats.bootstrap_interval(draw(), rng=rng, draws=1000) for _ in range(runs))
    ]
    assert np.mean(held) >= 0.9


def test_the_bootstrap_agrees_with_scipys_bca_on_a_skewed_sample():
    values = np.random.default_rng(1).exponential(1, 400)
    got = stats.bootstrap_interval(values, rng=np.random.default_rng(2), draws=20_000)
    ref = sps.bootstrap((values,), np.mean, n_resamples=20_000, rng=np.random.default_rng(3)).confidence_interval
    assert (got.low, got.high) == pytest.approx((ref.low, ref.high), abs=0.05 * (ref.high - ref.low))


def test_a_paired_bootstrap_uses_the_pairing_and_any_statistic():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 10, 500)
    a, b = base + rng.normal(1, 0.1, 500), base
    for statistic in (np.mean, np.median):
        got = stats.paired_bootstrap(a, b, rng=np.random.default_rng(1), statistic=statistic, draws=500)
        assert got.value == pytest.approx(statistic(a) - statistic(b))
        assert 0.5 < got.low <= got.high < 1.5 + 2 * (statistic is np.median)
    same = [stats.paired_bootstrap(a, b, rng=np.random.default_rng(5), draws=200) for _ in range(2)]
    assert same[0] == same[1]


def test_a_bootstrap_of_constant_data_has_no_width_as_its_docstring_says():
    got = stats.bootstrap_interval(np.ones(20), rng=np.random.default_rng(0))
    assert (got.low, got.value, got.high) == (1, 1, 1)


def test_a_large_sample_takes_the_grouped_jackknife_with_the_same_acceleration():
    values = np.random.default_rng(0).exponential(1, 4000)
    full = sps.skew(values) / (6 * np.sqrt(len(values)))

    def mean(rows):
        return values[rows].mean(axis=-1)

    assert stats._acceleration(mean, 4000, np.random.default_rng(0)) == pytest.approx(full, abs=0.01)
    assert stats._acceleration(
        lambda rows: values[:300][rows].mean(axis=-1), 300, np.random.default_rng(0)
    ) == pytest.approx(sps.skew(values[:300]) / (6 * np.sqrt(300)), rel=0.01)


# ------------------------------------------------------------------------------------------ scores


@given(a=st.lists(st.integers(-3, 3), min_size=1, max_size=30), b=st.lists(st.integers(-3, 3), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_the_auc_counts_pairs_and_its_interval_mirrors(a, b):
    got = stats.roc_auc(a, b)
    pairs = np.subtract.outer(a, b)
    assert got.value == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    back = stats.roc_auc(b, a)
    assert (back.low, back.value, back.high) == pytest.approx((1 - got.high, 1 - got.value, 1 - got.low), abs=1e-9)
    assert got.high - got.low > 1e-3


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.3])
@pytest.mark.parametrize(("m", "n"), [(30, 30), (30, 200), (100, 100)])
def test_the_auc_is_covered_near_a_half_and_near_one(shift, m, n):
    rng = np.random.default_rng(m + n)
    true = sps.norm.cdf(shift / np.sqrt(2))
    got = [stats.roc_auc(rng.normal(shift, 1, m), rng.normal(0, 1, n)) for _ in range(300)]
    assert np.mean([one.low <= true <= one.high for one in got]) >= 0.935


def test_a_perfect_auc_is_not_certain_and_becomes_more_so_with_data():
    few, many = stats.roc_auc([1, 2, 3], [0, 0, 0]), stats.roc_auc(np.ones(300), np.zeros(300))
    assert few.value == many.value == 1.0
    assert few.low < 0.7 < 0.97 < many.low < 1.0


@pytest.mark.parametrize("fpr", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("m", "n"), [(30, 30), (100, 100), (1000, 1000)])
def test_tpr_at_fpr_is_covered_though_the_threshold_is_estimated(fpr, shift, m, n):
    rng = np.random.default_rng(n)
    true = sps.norm.sf(sps.norm.isf(fpr) - shift)
    got = [stats.tpr_at_fpr(rng.normal(shift, 1, m), rng.normal(0, 1, n), fpr) for _ in range(120)]
    assert np.mean([one.low <= true <= one.high for one in got]) >= 0.95


def test_tpr_at_fpr_is_covered_when_scores_are_tied():
    rng = np.random.default_rng(0)
    # P(negative > 3) = 0.08 <= 0.1 < P(negative > 2): the rule is score > 3, where positives are 0.3.
    levels, negative, positive = np.arange(5), [0.5, 0.2, 0.1, 0.12, 0.08], [0.2, 0.2, 0.1, 0.2, 0.3]
    got = [
        stats.tpr_at_fpr(rng.choice(levels, 60, p=positive), rng.choice(levels, 200, p=negative), 0.1)
        for _ in range(300)
    ]
    assert np.mean([one.low <= 0.3 <= one.high for one in got]) >= 0.95


@given(
    neg=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    pos=st.lists(st.integers(0, 8), min_size=1, max_size=20),
    fpr=st.floats(0.001, 0.6),
)
@settings(max_examples=80, deadline=None)
def test_the_threshold_is_the_most_generous_one_within_the_fpr(neg, pos, fpr):
    neg, pos = np.array(neg), np.array(pos)
    allowed = [t for t in [-1, *range(9)] if np.mean(neg > t) <= fpr]
    got = stats.tpr_at_fpr(pos, neg, fpr)
    assert got.value >= np.mean(pos > max(allowed))
    assert got.value == max(np.mean(pos > t) for t in allowed if t in neg or t == -1)


def test_too_few_negatives_leave_tpr_at_fpr_open_below():
    got = stats.tpr_at_fpr(np.full(500, 9.0), np.zeros(100), 0.001)
    assert (got.low, got.value, got.high) == (0.0, 1.0, 1.0)
    assert stats.tpr_at_fpr(np.full(500, 9.0), np.zeros(10_000), 0.001).low > 0.98
    one = stats.tpr_at_fpr([0.5], [0.6], 0.01)
    assert (one.low, one.value) == (0.0, 0.0)
    assert one.high > 0.98


# ------------------------------------------------------------------------------------------ drift


@pytest.mark.parametrize(("n", "m"), [(20, 30), (200, 300)])
def test_ks_p_values_equal_scipys_column_by_column(n, m):
    rng = np.random.default_rng(0)
    one, two = rng.normal(0, 1, (n, 5)), rng.normal(0, 1, (m, 5)) + np.arange(5) * 0.2
    method = "exact" if n * m <= 10_000 else "asymp"
    expected = [sps.ks_2samp(one[:, k], two[:, k], method=method).pvalue for k in range(5)]
    np.testing.assert_allclose(stats.ks_p_values(one, two), expected, rtol=1e-9)


@pytest.mark.parametrize(("n", "m"), [(40, 25), (300, 120)])
def test_ks_false_alarms_stay_at_their_level_with_and_without_ties(n, m):
    rng = np.random.default_rng(n)
    for values in (rng.random((n + m, 300)), rng.integers(0, 4, (n + m, 300))):
        assert np.mean(stats.ks_p_values(values[:n], values[n:]) <= 0.05) <= 0.075


# ------------------------------------------------------------------------------------------ refusals


def test_an_interval_holds_its_value():
    assert Interval(np.float64(0.5), 0, 1, np.int64(3), 0.95, "m") == Interval(0.5, 0.0, 1.0, 3, 0.95, "m")
    for bad in [(0.5, 0.6, 1.0), (0.5, 0.0, 0.4), (np.nan, 0.0, 1.0), (0.5, -np.inf, 1.0)]:
        with pytest.raises(UsageError, match="low <= value <= high"):
            Interval(*bad, 3, 0.95, "m")


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.clopper_pearson(0, 0),
        lambda: stats.clopper_pearson(4, 3),
        lambda: stats.clopper_pearson(-1, 3),
        lambda: stats.clopper_pearson(1.5, 3),
        lambda: stats.clopper_pearson(1, 3, 1.0),
        lambda: stats.wilson(1, 3, 95),
        lambda: stats.wilson(0, 0),
        lambda: stats.clopper_pearson_bounds([1, np.nan], [3, 3]),
        lambda: stats.samples_to_decide(1.2, 0.5),
        lambda: stats.difference_of_proportions(1, 2, 1, 0),
        lambda: stats.paired_difference([0, 1], [1]),
        lambda: stats.paired_difference([0, 2], [1, 1]),
        lambda: stats.paired_difference([], []),
        lambda: stats.max_gap([1], [2]),
        lambda: stats.max_gap([1, 0], [2, 0]),
        lambda: stats.mcnemar_exact(-1, 2),
        lambda: stats.holm([0.5, np.nan]),
        lambda: stats.benjamini_hochberg([1.5]),
        lambda: stats.bootstrap_interval([1.0], rng=np.random.default_rng(0)),
        lambda: stats.bootstrap_interval([1.0, 2.0], rng=np.random.default_rng(0), draws=5),
        lambda: stats.paired_bootstrap([1.0, 2.0], [1.0], rng=np.random.default_rng(0)),
        lambda: stats.roc_auc([], [1.0]),
        lambda: stats.roc_auc([np.nan], [1.0]),
        lambda: stats.tpr_at_fpr([1.0], [0.0], 0.0),
        lambda: stats.ks_p_values(np.zeros((3, 2)), np.zeros((3, 1))),
        lambda: stats.ks_p_values(np.full((3, 1), np.nan), np.zeros((3, 1))),
    ],
)
def test_a_wrong_argument_is_a_usage_error(call):
    with pytest.raises(UsageError, match="expected"):
        call()
