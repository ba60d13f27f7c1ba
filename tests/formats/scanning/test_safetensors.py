# ruff: noqa: E501 - a sample is one line
from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from tests.formats.scanning.desks import PICKLE, Looked, corpus, held, looked

from casemate.formats.scanning.readers import safetensors
from casemate.formats.scanning.signs import Level

TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def look(data: bytes) -> Looked:
    return looked(data, safetensors.READERS, name="model.safetensors")


def packed(header: object, data: bytes = b"\0" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8"])
def test_what_the_library_itself_saves_is_clean(dtype: str) -> None:
    tensors = {"b": np.zeros((3, 5), dtype), "a": np.zeros((), dtype), "empty": np.zeros((0, 4), dtype)}
    data = save(tensors, metadata={"format": "np", "note": "trained on 1000 rows"})
    found = look(data)
    assert found.formats == ("safetensors",)
    assert not found.signs
    assert not found.handed


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (packed(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'), "safetensors/same-name"),
        (packed(b'{"a":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}'), "safetensors/same-name"),
        (packed({"a": TENSOR}, b"\0" * 4), "safetensors/tensor"),
        (packed({"a": {**TENSOR, "shape": [3]}}), "safetensors/tensor"),
        (packed({"a": {**TENSOR, "shape": [-2]}}), "safetensors/tensor"),
        (packed({"a": {**TENSOR, "shape": [True, 2]}}), "safetensors/tensor"),
        (packed({"a": {**TENSOR, "shape": [1 << 62, 1 << 62]}}), "safetensors/tensor"),
        (packed({"a": {**TENSOR, "data_offsets": [8, 0]}}), "safetensors/tensor"),
        (packed({"a": {**TENSOR, "dtype": "X9"}}), "safetensors/tensor"),
        (packed({"a": {**TENSOR, "more": 1}}), "safetensors/tensor"),
        (packed({"a": [1, 2]}), "safetensors/tensor"),
        (packed({"a": TENSOR, "b": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}), "safetensors/overlap"),
        (packed({"a": TENSOR, "__metadata__": {"k": {"nested": 1}}}), "safetensors/metadata"),
        (packed({"a": TENSOR, "__metadata__": {"k": "AKIAQYLPMN5HHHFPZAM2"}}), "secret/credential"),
    ],
)  # fmt: skip
def test_a_header_that_can_be_read_in_two_ways_or_does_not_add_up_is_suspicious(data: bytes, rule: str) -> None:
    found = look(data)
    assert rule in found.rules
    assert found.level is Level.SUSPICIOUS


def test_bytes_of_no_tensor_are_told_and_looked_at() -> None:
    found = look(packed({"a": TENSOR}, b"\0" * 8 + PICKLE))
    assert found.rules == {"safetensors/trailing"}
    assert list(found.handed.values()) == [PICKLE]
    late = {"a": TENSOR, "b": {"dtype": "U8", "shape": [1], "data_offsets": [8 + len(PICKLE), 9 + len(PICKLE)]}}
    found = look(packed(late, b"\0" * 8 + PICKLE + b"\0"))
    assert found.rules == {"safetensors/gap"}
    assert list(found.handed.values()) == [PICKLE]


def test_blanks_before_the_header_hide_nothing() -> None:
    text = b"  " + json.dumps({"a": {**TENSOR, "shape": [3]}}).encode()
    assert "safetensors/tensor" in look(packed(text)).rules


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1 << 40])
def test_a_header_of_absurd_length_is_malicious(length: int) -> None:
    assert look(struct.pack("<Q", length) + b"{}").level is Level.MALICIOUS


def test_headers_that_are_no_json_are_unreadable() -> None:
    for header in (b'{"a":', b"{" + b"\xff", b"{" + b'"a":[' * 2000):
        assert look(packed(header)).level is Level.UNREADABLE
    assert look(struct.pack("<Q", 500) + b"{}").level is Level.UNREADABLE


def test_files_of_the_corpus() -> None:
    assert look(corpus("benign/generated/st/m.safetensors")).level is Level.CLEAN
    assert look(corpus("safetensors/oob.safetensors")).level is Level.SUSPICIOUS
    assert look(corpus("safetensors/dup_key.safetensors")).level is Level.SUSPICIOUS


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 120), st.integers(0, 255), st.booleans())
def test_damaged_files_end_without_failing(at: int, byte: int, cut: bool) -> None:
    data = bytearray(packed({"a": TENSOR, "__metadata__": {"format": "pt"}}))
    data[at % len(data)] = byte
    held(bytes(data[:at] if cut else data), safetensors.READERS)
