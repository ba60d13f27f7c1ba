from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import PICKLE, Looked, corpus, held, looked

from casemate.formats.scanning.readers import numpy_arrays
from casemate.formats.scanning.signs import Level


def look(data: bytes, name: str = "a.npy") -> Looked:
    return looked(data, numpy_arrays.READERS, name=name)


def saved(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version)
    return out.getvalue()


def headed(header: str, rest: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + rest


ARRAYS = [
    np.zeros(0), np.float32(3).reshape(()), np.arange(6).reshape(2, 3).T, np.array(["é", "bcd"]), np.array([b"a"]),
    np.zeros(3, "?"), np.zeros(2, "f2"), np.zeros(2, "c16"), np.array(["2020"], "M8[D]"), np.zeros(2, "m8[25s]"),
    np.zeros(2, [("a", "<f4", (2, 3)), ("b", [("c", "S5"), ("é", "U2")])]), np.zeros(2, "V7"), np.zeros(2, "S0"),
    np.zeros(2, np.dtype([("a", "u1"), ("b", "<f8")], align=True)), np.zeros((2, 0, 3), ">i8"),
]  # fmt: skip


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype))
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.filterwarnings("ignore:metadata on a dtype")
def test_arrays_of_numbers_are_clean_and_their_size_is_known_from_the_header(array, version) -> None:
    try:
        data = saved(array, version)
    except ValueError:  # names beyond Latin 1 need version 3
        assert version == (1, 0) or version == (2, 0)
        return
    found = look(data)
    assert not found.signs
    assert not found.handed
    assert numpy_arrays.plain_size(data[:200]) == len(data)


@pytest.mark.parametrize("kind", [object, [("a", "f4"), ("b", "O")], [("a", [("b", "O", (2,))])]])
def test_the_pickle_of_an_array_of_objects_is_handed_on(kind) -> None:
    data = saved(np.zeros(3, kind))
    found = look(data, "model.pkl")
    assert found.handed["objects"].startswith(b"\x80")
    assert found.handed["objects"].endswith(b".")
    assert numpy_arrays.plain_size(data) is None


def test_arrays_after_each_other_are_read_and_anything_else_after_one_is_told() -> None:
    data = saved(np.arange(3))
    assert not look(data * 3).signs
    found = look(data + PICKLE)
    assert found.rules == {"npy/trailing"}
    assert list(found.handed.values()) == [PICKLE]


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}",  # the numbers are missing
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 300 + ",)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': [3]}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': ()}",
        "{'descr': [('a',)], 'fortran_order': False, 'shape': ()}",
        "{'descr': 3, 'fortran_order': False, 'shape': ()}",
        "{'descr': '<f8', 'shape': ()}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (), 'x': 1}",
        "__import__('os').system('true')",
        "(" * 5000,
        "-" * 60_000 + "1",
        "[" * 150 + "]" * 150,
        "",
        "\x00",
    ],
    ids=lambda text: text[:40],
)
def test_a_header_that_numpy_would_not_write_is_unreadable(header: str) -> None:
    assert look(headed(header)).level is Level.UNREADABLE


def test_a_header_or_version_beyond_the_file_is_unreadable() -> None:
    data = saved(np.arange(3))
    for n in range(6, len(data)):
        assert look(data[:n]).level is Level.UNREADABLE, n
    assert look(b"\x93NUMPY\2\0\xff\xff\xff\xff").level is Level.UNREADABLE
    assert look(b"\x93NUMPY\7\0" + data[8:]).level is Level.UNREADABLE


def test_an_array_that_claims_far_more_than_a_machine_holds_is_a_bomb() -> None:
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (999999, 999999)}"
    assert look(headed(header)).level is Level.MALICIOUS


def test_files_of_the_corpus() -> None:
    assert b"system" in look(corpus("malicious/generated/numpy/obj.npy")).handed["objects"]
    for name in ("S5", "U5", "f4", "struct_names", "u1"):
        assert not look(corpus(f"benign/generated/numpy/{name}.npy")).signs


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_damage_gives_signs_and_never_an_error(data) -> None:
    broken = bytearray(saved(np.zeros(3, [("a", "<f4", (2, 2)), ("b", "S3")])))
    for at in data.draw(st.lists(st.integers(6, len(broken) - 1), max_size=5)):
        broken[at] = data.draw(st.integers(0, 255))
    held(bytes(broken), numpy_arrays.READERS)
