"""Random numbers keyed by names and sample ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from casemate.core import rng
from casemate.errors import UsageError

IDS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8, unique=True)
DRAWS = {
    "uniforms": rng.uniforms,
    "normals": rng.normals,
    "signs": rng.signs,
    "integers": lambda *args: rng.integers(*args, low=-3, high=11),
}


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    got = rng._philox(tuple(np.array([word], dtype=np.uint64) for word in counter), key)
    assert tuple(int(word[0]) for word in got) == words


def test_a_stream_is_the_same_for_ever():
    assert rng.derive_seed(7, "shuffle", 3) == 2629319054039645338
    assert rng.stream(7, "shuffle", 3).integers(2**62) == 3616414516399072737
    assert rng.uniforms(7, "start", [5, -5]).tolist() == [0.9400338030203645, 0.7582469592467427]


def test_names_are_kept_apart():
    keys = [("a", "bc"), ("ab", "c"), ("abc",), ("1",), (1,), (), ("",), ("", "")]
    assert len({rng.derive_seed(0, *key) for key in keys}) == len(keys)
    assert len({rng.stream(0, *key).integers(2**62) for key in keys}) == len(keys)
    assert rng.derive_seed(0, "a") != rng.derive_seed(1, "a")
    assert 0 <= rng.derive_seed(-1, "a") < 2**63


def test_numpy_integers_name_the_same_stream_as_python_integers():
    assert rng.derive_seed(np.int64(3), np.int32(4)) == rng.derive_seed(3, 4)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
@given(ids=IDS, seed=st.integers(0, 2**64), data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_samples_numbers_do_not_depend_on_its_batch(draw, ids, seed, data):
    order = data.draw(st.permutations(range(len(ids))))
    keep = order[: data.draw(st.integers(1, len(ids)))]
    whole = draw(seed, "name", np.array(ids, dtype=np.int64), (3, 5))
    part = draw(seed, "name", np.array(ids, dtype=np.int64)[keep], (3, 5))
    np.testing.assert_array_equal(part, whole[keep])


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_a_longer_shape_continues_a_shorter_one_and_chunks_do_not_show(draw):
    long = draw(1, ("square", 4), np.arange(3), 70_001)
    short = draw(1, ("square", 4), np.arange(3), (7, 11))
    np.testing.assert_array_equal(long[:, :77].reshape(3, 7, 11), short)
    many = draw(1, ("square", 4), np.arange(20_000), 3)
    np.testing.assert_array_equal(many[17_321], draw(1, ("square", 4), [17_321], 3)[0])


def test_uniforms_pass_kolmogorov_smirnov_within_and_across_samples():
    values = rng.uniforms(11, "ks", np.arange(250), 250)
    assert values.min() >= 0.0
    assert values.max() < 1.0
    per_row = [stats.kstest(row, "uniform").pvalue for row in values]
    per_column = [stats.kstest(column, "uniform").pvalue for column in values.T]
    assert stats.kstest(per_row, "uniform").pvalue > 1e-4
    assert stats.kstest(per_column, "uniform").pvalue > 1e-4


def test_streams_of_neighbouring_samples_names_and_seeds_are_uncorrelated():
    base = rng.normals(0, "a", np.arange(200), 500)
    others = [base[:, 1:], rng.normals(0, "b", np.arange(200), 500), rng.normals(1, "a", np.arange(200), 500)]
    for other in others:
        mine = base[:, : other.shape[1]].ravel()
        assert abs(np.corrcoef(mine, other.ravel())[0, 1]) < 4.5 / np.sqrt(mine.size)
    rows = np.corrcoef(base)[np.triu_indices(200, 1)]
    assert np.abs(rows).max() < 5.5 / np.sqrt(500)


def test_normals_are_normal_and_finite():
    values = rng.normals(5, "noise", np.arange(100), 1000).ravel()
    assert np.isfinite(values).all()
    assert stats.kstest(values, "norm").pvalue > 1e-4


def test_signs_are_fair_and_keep_the_dtype_of_a_product():
    values = rng.signs(5, "sign", np.arange(100), (1000,))
    assert set(np.unique(values)) == {-1, 1}
    assert abs(values.mean()) < 4.5 / np.sqrt(values.size)
    assert (np.float32(0.5) * values).dtype == np.float32


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-5, 5), (0, 7), (2**40, 2**40 + 2**32)])
def test_integers_stay_in_range_and_are_even(low, high):
    values = rng.integers(5, "whole", np.arange(50), 1000, low=low, high=high)
    assert values.min() >= low
    assert values.max() < high
    bins = min(high - low, 16)
    counts = np.bincount(((values - low) * bins // (high - low)).ravel(), minlength=bins)
    assert bins == 1 or high - low > 16 or stats.chisquare(counts).pvalue > 1e-4


def test_sample_streams_follow_the_sample_and_not_the_batch():
    first = [generator.random() for generator in rng.sample_streams(3, "tree", [9, -4, 2])]
    second = [generator.random() for generator in rng.sample_streams(3, "tree", [2, 9])]
    assert second == [first[2], first[0]]


def test_an_empty_batch_gives_an_empty_array():
    assert rng.uniforms(0, "a", [], (2, 3)).shape == (0, 2, 3)
    assert rng.signs(0, "a", [1], (0,)).shape == (1, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: rng.stream(1.5, "a"),
        lambda: rng.stream("a", 1),
        lambda: rng.stream(True, "a"),
        lambda: rng.stream(0, 2.0),
        lambda: rng.uniforms(0, "a", [0.5]),
        lambda: rng.uniforms(0, "a", [[1, 2]]),
        lambda: rng.uniforms(0, "a", np.array([2**63], dtype=np.uint64)),
        lambda: rng.uniforms(0, "a", [True, False]),
        lambda: rng.integers(0, "a", [1], low=3, high=3),
        lambda: rng.integers(0, "a", [1], high=2**32 + 1),
    ],
)
def test_a_wrong_argument_is_a_usage_error(call):
    with pytest.raises(UsageError, match="expected"):
        call()
