from __future__ import annotations

import io
import struct
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import PICKLE, Looked, corpus, held, looked

from casemate.formats.scanning.readers import inert
from casemate.formats.scanning.signs import Level


def look(data: bytes) -> Looked:
    return looked(data, inert.READERS)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(b"IDAT", b"IEND" * 9) + chunk(b"IEND", b"")
JPEG = (
    b"\xff\xd8\xff\xe0\0\x06JFIF\xff\xfe\0\x06\xff\xd9\xff\xd9\xff\xda\0\x04\1\2" + b"\x12\xff\0\x34\xff\xd0\x99" * 9
    + b"\xff\xc4\0\x04\1\2\xff\xda\0\x04\1\2\x77\xff\xd9"
)  # fmt: skip
GIF = b"GIF89a\1\0\1\0\x80\0\0" + bytes(6) + b"\x21\xf9\x04\0\0\0\0\0" + b"\x2c\0\0\0\0\1\0\1\0\0\x02\x02\x44\x01\0\x3b"
WEBP = b"RIFF" + struct.pack("<I", 4 + 8 + 6) + b"WEBPVP8 " + struct.pack("<I", 6) + b"abcdef"
TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", None]})


def arrow(stream: bool, table: pa.Table = TABLE) -> bytes:
    out = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def parquet(table: pa.Table = TABLE) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def pickled() -> pa.Table:
    """A column that claims to be of a type of Python's, as pyarrow wrote before it stopped to."""
    notes = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": PICKLE}
    return pa.table([pa.array([1])], schema=pa.schema([pa.field("a", pa.int64(), metadata=notes)]))


@pytest.mark.parametrize("data", [PNG, JPEG, GIF, WEBP])
def test_what_follows_the_end_of_an_image_is_told_and_looked_at(data: bytes) -> None:
    assert not look(data).signs
    assert not look(data).handed
    found = look(data + PICKLE)
    assert found.rules == {"image/trailing"}
    assert found.at("image/trailing") == len(data)
    assert list(found.handed.values()) == [PICKLE]


@pytest.mark.parametrize("data", [PNG, JPEG, GIF, WEBP])
def test_an_image_that_is_cut_is_unreadable(data: bytes) -> None:
    for n in range(13, len(data)):
        assert look(data[:n]).level is Level.UNREADABLE, n


def test_tables_are_clean() -> None:
    for data in (arrow(True), arrow(False), parquet()):
        assert not look(data).signs
        assert not look(data).handed


def test_a_type_of_python_in_the_schema_is_told() -> None:
    """CVE-2023-47248."""
    for data in (arrow(True, pickled()), arrow(False, pickled()), parquet(pickled())):
        assert look(data).rules == {"arrow/pickled-type"}


def test_a_pickle_under_the_name_of_an_image_is_no_image() -> None:
    assert look(corpus("ext/payload.png")).handed[""].startswith(b"\x80\x04")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_gives_signs_and_never_an_error(data) -> None:
    whole = data.draw(st.sampled_from([PNG, JPEG, GIF, WEBP, arrow(True), arrow(False), parquet()]))
    broken = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    for at in data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=5)):
        broken[at] = data.draw(st.integers(0, 255))
    held(bytes(broken), inert.READERS)
