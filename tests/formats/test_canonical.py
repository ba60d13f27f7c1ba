from __future__ import annotations

import datetime
import enum
import json
import struct
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import FormatError
from casemate.formats import canonical

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)

# RFC 8785, appendix B: IEEE 754 bits and the text they must be written as
APPENDIX_B = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


@pytest.mark.parametrize(("bits", "text"), APPENDIX_B.items())
def test_numbers_are_written_as_rfc_8785_appendix_b_lists_them(bits: str, text: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical.dumps(number).decode() == text
    assert canonical.loads(text) == number


def test_keys_are_sorted_by_utf_16_code_units_as_in_rfc_8785_section_3_2_3() -> None:
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    assert list(json.loads(canonical.dumps(dict.fromkeys(keys)))) == [
        "\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33",
    ]  # fmt: skip


def test_strings_escape_only_what_they_must() -> None:
    assert canonical.dumps('\u20ac$\x0f\nA\'B"\\\\"/\x7f') == '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/\x7f"'.encode()


@given(VALUES)
def test_reading_what_was_written_gives_it_back_and_the_same_text(value: object) -> None:
    text = canonical.dumps(value)
    assert canonical.loads(text) == value
    assert canonical.dumps(canonical.loads(text)) == text
    assert json.loads(text, parse_int=float) == value  # an independent reader, with doubles only as in ECMAScript


@given(st.dictionaries(TEXT, VALUES, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_matter(value: dict[str, object], random: object) -> None:
    items = list(value.items())
    random.shuffle(items)  # type: ignore[attr-defined]  # hypothesis gives a Random
    assert canonical.digest(dict(items)) == canonical.digest(value)


@given(VALUES)
def test_the_pretty_text_has_the_same_digest(value: object) -> None:
    pretty = canonical.dumps_pretty(value)
    assert pretty.endswith(b"\n")
    assert canonical.digest(canonical.loads(pretty)) == canonical.digest(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_kept_floats_come_back_with_type_and_sign(number: float) -> None:
    back = canonical.loads(canonical.dumps(number, keep_float=True))
    assert type(back) is float
    assert struct.pack("d", back) == struct.pack("d", number)


def test_the_pretty_text_is_indented_by_two() -> None:
    assert canonical.dumps_pretty({"b": [1, {}], "a": []}) == b'{\n  "a": [],\n  "b": [\n    1,\n    {}\n  ]\n}\n'


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float64(1.5), "1.5"),
        (np.float32(0.1), "0.10000000149011612"),
        (np.int64(-3), "-3"),
        (np.bool(True), "true"),
        (np.str_("a"), '"a"'),
        ((1, (2,)), "[1,[2]]"),
        (Colour.RED, '"red"'),
        ({Colour.RED: 1}, '{"red":1}'),
        (types.MappingProxyType({"a": None}), '{"a":null}'),
        (datetime.date(2027, 3, 31), '"2027-03-31"'),
        (
            datetime.datetime(2027, 3, 31, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
            '"2027-03-31T00:00:00Z"',
        ),
        (datetime.datetime(2027, 3, 31, 0, 0, 0, 5, tzinfo=datetime.UTC), '"2027-03-31T00:00:00.000005Z"'),
        (1.0, "1"),
        (-0.0, "0"),
        (2**53, "9007199254740992"),
    ],
)
def test_plain_python_and_numpy_values_are_converted(value: object, text: str) -> None:
    assert canonical.dumps(value).decode() == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {"b": float("nan")}]}, r"finite number, got nan at \$\.a\[1\]\.b"),
        ([np.float32("inf")], r"got inf at \$\[0\]"),
        ({"s": {1}}, r"got set at \$\.s: .*sorted"),
        ({"n": 2**53 + 1}, r"one of 54 bits at \$\.n: write it as a string"),
        ({"x": np.zeros(2)}, r"got ndarray at \$\.x: use tolist"),
        ({"x": b"a"}, r"got bytes at \$\.x"),
        ({1: 2}, r"keys that are str, got int 1 at \$"),
        ({"a": {None: 1}}, r"NoneType None at \$\.a"),
        ({Colour.RED: 1, "red": 2}, r"'red' twice at \$"),
        ({datetime.date(2027, 1, 1): 1}, r"keys that are str, got date"),
        ({"when": datetime.datetime(2027, 1, 1)}, r"\$\.when: expected an aware datetime"),
        (np.datetime64("2027-01-01"), r"got datetime64 at \$"),
        (np.longdouble(1), r"got longdouble at \$"),
        (1j, r"got complex at \$"),
        ("\ud800", "lone surrogate"),
        ({"\ud800": 1}, "lone surrogate"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_place(value: object, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        canonical.dumps(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(FormatError, match="contains itself"):
        canonical.dumps(loop)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a":1,"b":{"a":1,"a":2}}', "'a' twice"),
        (b'{"a":1,"\\u0061":2}', "'a' twice"),
        (b"[NaN]", "got NaN"),
        (b"[-Infinity]", "got -Infinity"),
        (b"1e999", "a double holds, got 1e999"),
        (b"9007199254740993", r"within 2\*\*53"),
        (b"1" * 5000, r"within 2\*\*53"),
        (b'"\xff"', "got byte 0xff at 1"),
        (b'["\\ud800"]', "lone surrogate"),
        (b'{"\\udc00":1}', "lone surrogate"),
        ('"\ud800"', "lone surrogate"),
        (b"[1,]", "expected JSON"),
        (b"", "expected JSON"),
        (b'{"a":1} x', "extra data"),
        (b"\xef\xbb\xbf{}", "expected JSON"),
        (b"[" * 1_000_000, "at most 100 levels"),
        (b'{"a":' * 200_000, "at most 100 levels"),
        (b'"' + b'\\"' * 200_000, "expected JSON"),
    ],
)
def test_hostile_text_is_refused_with_one_clear_error(text: bytes | str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        canonical.loads(text)


def test_text_beyond_the_cap_is_not_parsed() -> None:
    with pytest.raises(FormatError, match="at most 10 bytes of JSON, got 11"):
        canonical.loads(b"[1,1,1,1,1]", max_bytes=10)


def test_the_deepest_value_that_is_written_can_be_read_and_one_level_more_is_refused_by_both() -> None:
    deep: object = 0
    for _ in range(canonical.MAX_DEPTH):
        deep = [deep]
    assert canonical.loads(canonical.dumps(deep)) == deep
    with pytest.raises(FormatError):
        canonical.dumps([deep])
    with pytest.raises(FormatError):
        canonical.loads(b"[" + canonical.dumps(deep) + b"]")
    assert canonical.loads(b'"' + b"[" * 1000 + b'"') == "[" * 1000  # brackets in a string are not depth


@settings(max_examples=200)
@given(st.binary(max_size=60) | VALUES.map(lambda value: canonical.dumps(value)[:-1]))
def test_any_bytes_are_read_or_refused_with_a_format_error(data: bytes) -> None:
    try:
        value = canonical.loads(data)
    except FormatError:
        return
    assert canonical.loads(canonical.dumps(value)) == value


@given(st.datetimes(timezones=st.just(datetime.UTC)))
def test_a_timestamp_round_trips(moment: datetime.datetime) -> None:
    assert canonical.parse_timestamp(canonical.timestamp(moment)) == moment


@pytest.mark.parametrize(
    "text",
    [
        "2027-01-01",
        "2027-01-01T00:00:00",
        "2027-01-01T00:00:00+00:00",
        "2027-02-30T00:00:00Z",
        "2027-01-01T00:00:00.000000Z",
        5,
        None,
    ],
)
def test_only_one_form_of_a_time_is_read(text: object) -> None:
    with pytest.raises(FormatError, match="expected a UTC time"):
        canonical.parse_timestamp(text)


def test_a_time_beyond_year_9999_in_utc_is_refused() -> None:
    late = datetime.datetime(9999, 12, 31, 23, tzinfo=datetime.timezone(datetime.timedelta(hours=-5)))
    with pytest.raises(FormatError, match="years 1 to 9999"):
        canonical.timestamp(late)


def test_the_digest_is_sha_256_of_the_text() -> None:
    # printf '{"a":1}' | sha256sum
    assert canonical.digest({"a": 1.0}) == "sha256:015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
