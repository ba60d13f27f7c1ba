from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from casemate.errors import FormatError, UsageError
from casemate.formats import digests

FIELDS = st.lists(st.binary(max_size=4) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=4)


def test_bytes_have_the_digest_of_fips_180_4() -> None:
    # the standard's one-block example, "abc"
    assert digests.sha256_bytes(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_has_the_digest_of_its_bytes_at_every_side_of_a_chunk(tmp_path: Path, size: int) -> None:
    data = b"x" * size
    (tmp_path / "f").write_bytes(data)
    assert digests.sha256_file(tmp_path / "f") == digests.sha256_bytes(data)


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="readable file"):
        digests.sha256_file(tmp_path / "none")
    with pytest.raises(UsageError, match="readable file"):
        digests.sha256_file(tmp_path)


def test_the_digest_of_an_array_is_of_type_shape_and_little_endian_bytes() -> None:
    array = np.array([[1, 2], [3, 4]], dtype=">i2")
    fields = [b"casemate.array.1", b"<i2", b"2,2", b"\x01\x00\x02\x00\x03\x00\x04\x00"]
    whole = b"".join(
        tag + len(field).to_bytes(8, "little") + field
        for tag, field in zip([b"s", b"s", b"s", b"b"], fields, strict=True)
    )
    assert digests.sha256_array(array) == "sha256:" + hashlib.sha256(whole).hexdigest()


@given(
    hnp.arrays(
        hnp.integer_dtypes() | hnp.floating_dtypes(sizes=[16, 32, 64]) | hnp.boolean_dtypes(),
        hnp.array_shapes(min_dims=0, min_side=0),
    )
)
def test_layout_and_byte_order_do_not_change_an_arrays_digest(array: np.ndarray) -> None:
    digest = digests.sha256_array(array)
    assert digests.sha256_array(np.array(array, order="F")) == digest
    assert digests.sha256_array(array.astype(array.dtype.newbyteorder(">"))) == digest
    if array.ndim:
        assert digests.sha256_array(np.repeat(array, 2, axis=0)[::2]) == digest


@pytest.mark.parametrize(
    "other",
    [
        np.array([1.0, 2.0], dtype="f4"), np.array([[1.0, 2.0]]), np.array([1.0, 3.0]), np.array([1, 2]),
        np.array(["1.0", "2.0"]), np.array([1, 2], dtype="M8[s]"),
    ],
)  # fmt: skip
def test_type_shape_and_values_each_change_an_arrays_digest(other: np.ndarray) -> None:
    assert digests.sha256_array(other) != digests.sha256_array(np.array([1.0, 2.0]))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5), max_size=5))
def test_text_has_one_digest_however_it_is_held(words: list[str]) -> None:
    held = np.array(words, dtype=object)
    assert digests.sha256_array(held) == digests.sha256_array(np.array(words, dtype="U5"))
    assert digests.sha256_array(held) == digests.sha256_array(np.array(words, dtype="U9"))


def test_words_do_not_run_into_each_other() -> None:
    assert digests.sha256_array(np.array(["ab", "c"])) != digests.sha256_array(np.array(["a", "bc"]))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(["a", None], dtype=object), "got NoneType at 1"),
        (np.array([1.5, "a"], dtype=object), "got float at 0"),
        (np.array(["\ud800"], dtype=object), "lone surrogate at 0"),
        (np.zeros(2, dtype=[("a", "f8")]), "got dtype"),
        (np.zeros(2, dtype=np.longdouble), "got dtype"),
        (np.ma.masked_array([1, 2], mask=[0, 1]), "a masked one"),
    ],
)
def test_arrays_whose_bytes_are_not_their_value_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        digests.sha256_array(array)


@given(FIELDS, FIELDS)
def test_two_lists_of_fields_share_a_digest_only_if_they_are_equal(
    first: list[bytes | str], second: list[bytes | str]
) -> None:
    same = digests.Hasher("test").add(*first).digest() == digests.Hasher("test").add(*second).digest()
    assert same == ([(type(f), f) for f in first] == [(type(f), f) for f in second])


def test_the_domain_separates_uses_and_reading_the_digest_does_not_end_it() -> None:
    hasher = digests.Hasher("a")
    assert hasher.digest() != digests.Hasher("b").digest()
    assert hasher.add("x").digest() == digests.Hasher("a").add("x").digest()
    with pytest.raises(FormatError, match="lone surrogate"):
        hasher.add("\ud800")


def test_only_one_form_of_a_digest_is_accepted() -> None:
    good = digests.sha256_bytes(b"")
    assert digests.hex_of(good) == hashlib.sha256(b"").hexdigest()
    for bad in [good.upper(), good[:-1], good + "0", good.removeprefix("sha256:"), good + "\n", "", None, b"x"]:
        assert not digests.is_digest(bad)
    with pytest.raises(FormatError, match="64 hex digits"):
        digests.hex_of("md5:00")
