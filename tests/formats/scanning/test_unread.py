from __future__ import annotations

import gzip
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import Looked, corpus, held, looked

from casemate.formats.scanning.readers import compressed, rds, unread
from casemate.formats.scanning.signs import Level

HEAD = b"X\n" + struct.pack(">3i", 2, 0x40301, 0x20300)


def look(data: bytes, name: str = "m") -> Looked:
    return looked(data, unread.READERS, rds.READERS, compressed.READERS, name=name)


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}i", *values)


def text(value: bytes) -> bytes:
    return words(0x40009, len(value)) + value


def symbol(value: bytes) -> bytes:
    return words(1) + text(value)


CALL = words(6) + symbol(b"system") + words(2) + words(16, 1) + text(b"true") + words(254)


@pytest.mark.parametrize("magic", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\x01\0"])
def test_an_archive_that_no_loader_opens_is_malicious_under_a_models_name_and_unknown_elsewhere(magic: bytes) -> None:
    for suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl"):
        assert look(magic + bytes(40), f"model{suffix}").level is Level.MALICIOUS
    assert look(magic + bytes(40), "model.7z").level is Level.UNKNOWN
    assert look(corpus("torch/sevenzip.pt"), "sevenzip.pt").level is Level.MALICIOUS


@pytest.mark.parametrize("data", [b"\x1c\0\0\0TFL3" + bytes(20), b"SQLite format 3\0", b"%PDF-1.4", b"MSCF" + bytes(9)])
def test_formats_that_nothing_reads_are_named_and_never_pass(data: bytes) -> None:
    found = look(data)
    assert found.rules == {"format/not-read"}
    assert found.level is Level.UNKNOWN


def test_data_of_r_are_unknown_and_no_more() -> None:
    plain = words(0x313, 2, 14, 2) + bytes(16) + words(16, 1) + text(b"a")  # list(c(0, 0), "a") with names
    plain += words(0x402) + symbol(b"names") + words(16, 1) + text(b"b") + words(254)
    for data in (HEAD + plain, gzip.compress(HEAD + plain), b"RDX2\n" + HEAD + plain):
        assert look(data).rules == {"rds/not-judged"}


def test_a_table_whose_text_begins_like_r_is_left_to_others() -> None:
    assert look(b"A\n2\n3\n", "t.csv").handed == {"": b"A\n2\n3\n"}


def test_a_promise_that_was_never_forced_is_malicious() -> None:
    """CVE-2024-27322: environment as the tag, no value, an expression."""
    found = look(HEAD + words(0x405, 253, 252) + CALL)
    assert "rds/promise" in found.rules
    assert found.level is Level.MALICIOUS
    assert "rds/promise" in look(corpus("r/promise_gz.rds")).rules


def test_a_promise_that_was_forced_is_for_review_like_any_function() -> None:
    forced = words(5) + words(14, 1) + bytes(8) + CALL
    function = words(0x403, 253, 254) + CALL
    for data in (forced, function):
        found = look(HEAD + data)
        assert found.rules == {"rds/not-judged", "rds/code"}
        assert found.level is Level.SUSPICIOUS


def test_deep_or_endless_data_of_r_ends() -> None:
    assert look(HEAD + words(19, 1) * 50_000).level is Level.UNREADABLE
    assert look(HEAD + words(2, 254) * 20_000 + words(254)).level is Level.UNKNOWN
    assert look(HEAD + words(14, -1, 1 << 20, 0)).level is Level.UNREADABLE


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_damage_gives_signs_and_never_an_error(data) -> None:
    broken = bytearray(HEAD + words(0x313, 2) + words(0x405, 253, 252) + CALL + words(4, 0, 254, 254, 254, 254))
    for at in data.draw(st.lists(st.integers(14, len(broken) - 1), max_size=6)):
        broken[at] = data.draw(st.integers(0, 255))
    held(bytes(broken[: data.draw(st.integers(14, len(broken)))]), rds.READERS)
