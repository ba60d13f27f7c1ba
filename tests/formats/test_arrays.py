from __future__ import annotations

import hashlib
import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from casemate.core.data import plain_bytes, texts
from casemate.errors import FormatError
from casemate.formats import arrays

GOLDEN = Path(__file__).parent / "golden" / "arrays-1.bin"

DTYPES = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes()
    | hnp.unsigned_integer_dtypes()
    | hnp.floating_dtypes(sizes=[16, 32, 64])
    | hnp.complex_number_dtypes(sizes=[64, 128])
    | hnp.datetime64_dtypes()
    | hnp.timedelta64_dtypes()
    | hnp.unicode_string_dtypes(max_len=4)
    | hnp.byte_string_dtypes(max_len=4)
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
VALUES = st.dictionaries(st.text(max_size=5), ARRAYS | st.integers() | st.floats() | JSON, max_size=4)

SAMPLE: dict[str, object] = {
    "broken": np.array([True, False, True]),
    "config": {"eps": 1.0, "steps": [1, 2], "name": "é"},
    "count": 2**70,
    "dates": np.array(["2027-03-31", "NaT"], dtype="M8[D]"),
    "empty": np.empty((0, 4), dtype="<f4"),
    "grid": np.arange(6, dtype="<i4").reshape(2, 3),
    "high": math.inf,
    "nothing": None,
    "score": np.array([0.5, math.nan, -0.0]),
    "words": np.array(["chat", "äöü"]),
}


def same(first: object, second: object) -> bool:
    """Equal in type, shape and every bit."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and repr(first) == repr(second)


def sealed(header: object, payload: bytes = b"") -> bytes:
    """What an attacker who knows the layout can make: any header under a valid seal."""
    text = header if isinstance(header, bytes) else json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    body = len(text).to_bytes(4, "little") + text + payload
    return b"CMARRAY1" + hashlib.sha256(body).digest() + body


def claim(**entry: object) -> dict[str, object]:
    return {"entries": {"x": entry}, "version": 1}


@given(VALUES)
def test_unpacking_gives_back_every_type_shape_and_bit(values: dict[str, object]) -> None:
    assert same(arrays.unpack(arrays.pack(values)), values)


@given(VALUES, st.randoms())
def test_equal_values_give_equal_bytes_in_any_order(values: dict[str, object], random: object) -> None:
    items = list(values.items())
    random.shuffle(items)  # type: ignore[attr-defined]  # hypothesis gives a Random
    assert arrays.pack(dict(items)) == arrays.pack(values)
    assert arrays.pack(arrays.unpack(arrays.pack(values))) == arrays.pack(values)


def test_layout_in_memory_does_not_matter_but_byte_order_is_kept() -> None:
    grid = np.arange(6.0).reshape(2, 3)
    assert (
        arrays.pack({"x": np.asfortranarray(grid)}) == arrays.pack({"x": grid}) == arrays.pack({"x": grid.T.copy().T})
    )
    back = arrays.unpack(arrays.pack({"x": grid.astype(">f8")}))["x"]
    assert isinstance(back, np.ndarray)
    assert back.dtype.str == ">f8"


def test_arrays_come_back_writable_and_apart_from_the_bytes() -> None:
    data = arrays.pack({"x": np.zeros(3)})
    back = arrays.unpack(data)["x"]
    assert isinstance(back, np.ndarray)
    back[0] = 1
    assert data == arrays.pack({"x": np.zeros(3)})


def test_the_first_released_version_is_read_and_written_for_ever() -> None:
    assert same(arrays.unpack(GOLDEN.read_bytes()), SAMPLE)
    assert arrays.pack(SAMPLE) == GOLDEN.read_bytes()


def test_the_layout_is_as_documented() -> None:
    header = {"entries": {"x": {"dtype": "<i2", "kind": "array", "shape": [2]}}, "version": 1}
    assert arrays.pack({"x": np.array([1, 2], dtype="<i2")}) == sealed(header, b"\x01\x00\x02\x00")


def test_numpy_scalars_and_tuples_come_back_as_pythons() -> None:
    back = arrays.unpack(
        arrays.pack(
            {"a": np.float32(0.5), "b": np.int8(3), "c": np.bool(True), "d": (1, (2.0,)), "e": np.float64("nan")}
        )
    )
    assert same({**back, "e": 0}, {"a": 0.5, "b": 3, "c": True, "d": [1, [2.0]], "e": 0})
    assert isinstance(back["e"], float)
    assert math.isnan(back["e"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([object()]), "got dtype object"),
        (np.array(["a"], dtype=object), r"astype\(str\)"),
        (np.zeros(1, dtype=[("a", "f8")]), "got dtype"),
        (np.zeros(1, dtype="V3"), "got dtype"),
        (np.zeros(1, dtype=np.longdouble), "got dtype"),
        (np.ma.masked_array([1], mask=[1]), "a masked one"),
        ({"deep": [math.nan]}, r"got nan at \$\.entries\.name\.value\.deep\[0\]"),
        ({1, 2}, "got set"),
        (object(), "got object"),
        (b"bytes", "got bytes"),
    ],
)
def test_what_the_container_cannot_hold_is_refused(value: object, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        arrays.pack({"name": value})


def test_names_must_be_text_and_the_header_is_capped_when_writing_too() -> None:
    with pytest.raises(FormatError, match="names that are str"):
        arrays.pack({1: 2})  # type: ignore[dict-item]  # what is tested
    with pytest.raises(FormatError, match="store long lists as arrays"):
        arrays.pack({"x": "a" * (arrays.MAX_HEADER + 1)})
    with pytest.raises(FormatError, match="stack the arrays"):
        arrays.pack({str(i): None for i in range(arrays.MAX_ENTRIES + 1)})


@given(st.data())
def test_any_changed_or_missing_byte_is_found(data: st.DataObject) -> None:
    whole = GOLDEN.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flip = data.draw(st.integers(1, 255))
    for other in (whole[:place], whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :], whole + b"\0"):
        with pytest.raises(FormatError):
            arrays.unpack(other)


@settings(max_examples=300)
@given(st.data())
def test_forged_bytes_under_a_valid_seal_are_read_or_refused_and_cost_no_more_than_their_length(
    data: st.DataObject,
) -> None:
    body = bytearray(GOLDEN.read_bytes()[40:])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"9", b"[", b"O", b"e9"])
        )
        body = body or bytearray(b"\0")
    forged = b"CMARRAY1" + hashlib.sha256(body).digest() + body
    try:
        values = arrays.unpack(bytes(forged))
    except FormatError:
        return
    assert arrays.pack(values) == forged


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_with_a_format_error(data: bytes) -> None:
    for text in (data, b"CMARRAY1" + data, sealed(data)):
        with pytest.raises(FormatError):
            arrays.unpack(text)


HUGE = 2**62
FORGERIES = {
    "more bytes than the file holds": sealed(claim(kind="array", dtype="<f8", shape=[HUGE])),
    "a product that overflows 64 bits": sealed(claim(kind="array", dtype="<f8", shape=[2**40, 2**40])),
    "empty, but of sizes that overflow": sealed(claim(kind="array", dtype="<f8", shape=[0, 2**53, 2**53])),
    "negative sizes": sealed(claim(kind="array", dtype="|i1", shape=[-1, -1]), b"\0"),
    "a size that is true": sealed(claim(kind="array", dtype="|i1", shape=[True]), b"\0"),
    "a size that is a float": sealed(claim(kind="array", dtype="|i1", shape=[1.0]), b"\0"),
    "too many dimensions": sealed(claim(kind="array", dtype="|i1", shape=[1] * 65), b"\0"),
    "no list of sizes": sealed(claim(kind="array", dtype="|i1", shape="1"), b"\0"),
    "python objects": sealed(claim(kind="array", dtype="|O", shape=[1]), b"\0" * 8),
    "a structured dtype": sealed(claim(kind="array", dtype="f8,f8", shape=[1]), b"\0" * 16),
    "a void dtype": sealed(claim(kind="array", dtype="|V8", shape=[1]), b"\0" * 8),
    "text of a huge width": sealed(claim(kind="array", dtype="<U999999999", shape=[1])),
    "text of no width": sealed(claim(kind="array", dtype="<U0", shape=[HUGE])),
    "a date unit of a huge multiple": sealed(claim(kind="array", dtype="<M8[99999999999s]", shape=[0])),
    "a dtype that numpy would rename": sealed(claim(kind="array", dtype="<M8[1s]", shape=[0])),
    "a dtype that is no text": sealed(claim(kind="array", dtype=8, shape=[1]), b"\0" * 8),
    "code points beyond Unicode": sealed(claim(kind="array", dtype="<U1", shape=[1]), b"\xff\xff\xff\xff"),
    "big-endian code points beyond Unicode": sealed(claim(kind="array", dtype=">U1", shape=[1]), b"\x01\0\0\0"),
    "booleans of two": sealed(claim(kind="array", dtype="|b1", shape=[1]), b"\x02"),
    "bytes behind the last array": sealed(claim(kind="array", dtype="|i1", shape=[1]), b"\0\0"),
    "an unknown kind": sealed(claim(kind="pickle")),
    "an unknown field": sealed(claim(kind="int", value="0x1", more=1)),
    "a missing field": sealed(claim(kind="array", dtype="|i1")),
    "no kind": sealed(claim(value=1)),
    "an entry that is a list": sealed({"entries": {"x": []}, "version": 1}),
    "entries that are a list": sealed({"entries": [], "version": 1}),
    "another version": sealed({"entries": {}, "version": 2}),
    "a version that is true": sealed({"entries": {}, "version": True}),
    "an unknown key": sealed({"entries": {}, "version": 1, "x": 1}),
    "a header that is a list": sealed([]),
    "a header with spaces": sealed(b'{"entries": {},"version":1}'),
    "a name twice": sealed(b'{"entries":{"x":{"kind":"json","value":1},"x":{"kind":"json","value":2}},"version":1}'),
    "out of order": sealed(b'{"entries":{"y":{"kind":"json","value":1},"x":{"kind":"json","value":1}},"version":1}'),
    "an integer in another spelling": sealed(claim(kind="int", value="0X1")),
    "an integer minus zero": sealed(claim(kind="int", value="-0x0")),
    "an integer that is none": sealed(claim(kind="int", value=1)),
    "a float in another spelling": sealed(claim(kind="float", value="1.50")),
    "a float that is none": sealed(claim(kind="float", value="one")),
    "nested without end": sealed(b"[" * 100_000),
    "a header longer than the file": b"CMARRAY1" + hashlib.sha256(b"\xff\xff\xff\xff").digest() + b"\xff\xff\xff\xff",
    "another magic": b"CMARRAY2" + arrays.pack({})[8:],
    "nothing": b"",
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_claim_is_refused_before_memory_is_taken(forgery: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            arrays.unpack(forgery)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000 + 20 * len(forgery)


# ------------------------------------------------------------------------------------------------- texts of any length

TEXTS = st.lists(st.text(max_size=40), max_size=8)


@given(TEXTS, st.sampled_from([(-1,), (-1, 1), (1, -1, 1)]))
def test_texts_of_any_length_come_back_as_they_were(values: list[str], shape: tuple[int, ...]) -> None:
    stored = texts(values).reshape(shape) if values else texts(values)
    back = arrays.unpack(arrays.pack({"x": stored, "after": np.arange(3)}))
    assert isinstance(back["x"], np.ndarray)
    assert back["x"].dtype == np.dtypes.StringDType()
    assert back["x"].shape == stored.shape
    assert list(back["x"].reshape(-1)) == values
    np.testing.assert_array_equal(back["after"], [0, 1, 2])


def test_the_layout_of_texts_is_lengths_and_then_utf_8() -> None:
    header = {"entries": {"x": {"kind": "texts", "shape": [2], "size": 19}}, "version": 1}
    payload = b"\2" + b"\0" * 7 + b"\1" + b"\0" * 7 + "äa".encode()
    assert arrays.pack({"x": texts(["ä", "a"])}) == sealed(header, payload)


@pytest.mark.parametrize(
    ("shape", "size", "payload"),
    [
        ([1], 9, b"\2" + b"\0" * 7 + b"ab"),  # more bytes than the entry claims
        ([1], 10, b"\3" + b"\0" * 7 + b"ab"),  # a text longer than what is there
        ([2], 17, b"\xff" * 8 + b"\2" + b"\0" * 7 + b"a"),  # lengths that wrap around to the right sum
        ([2**60], 9, b"\1" + b"\0" * 7 + b"a"),
        ([1], 9, b"\1" + b"\0" * 7 + b"\xff"),
        ([1], -1, b""),
        ([0], 1, b"a"),
        ([-1], 8, b"\0" * 8),
    ],
)
def test_forged_texts_are_refused(shape: list[int], size: int, payload: bytes) -> None:
    with pytest.raises(FormatError):
        arrays.unpack(sealed(claim(kind="texts", shape=shape, size=size), payload))


@given(TEXTS, TEXTS)
def test_plain_bytes_of_texts_tell_them_apart(first: list[str], second: list[str]) -> None:
    same_bytes = bytes(plain_bytes(texts(first))) == bytes(plain_bytes(texts(second)))
    if len(first) == len(second):
        assert same_bytes == (first == second)
    assert bytes(plain_bytes(texts(first))) == bytes(plain_bytes(np.array(first, dtype=object)))


def test_plain_bytes_of_numbers_are_those_in_memory_order_of_c() -> None:
    grid = np.arange(6.0).reshape(2, 3)
    assert bytes(plain_bytes(grid.T)) == grid.T.tobytes()
    assert bytes(plain_bytes(np.empty((0, 3)))) == b""
