from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib

import joblib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import PICKLE, Looked, corpus, held, looked

from casemate.formats.scanning.readers import compressed, tars
from casemate.formats.scanning.signs import Level


def look(data: bytes, name: str = "model.pkl.gz") -> Looked:
    return looked(data, compressed.READERS, name=name)


def lz4_block(data: bytes) -> bytes:
    """One LZ4 block of literals alone."""
    n = len(data)
    return (bytes([n << 4]) if n < 15 else b"\xf0" + b"\xff" * ((n - 15) // 255) + bytes([(n - 15) % 255])) + data


def lz4(*blocks: bytes, flags: int = 0x60, raw: bool = False) -> bytes:
    body = b"".join(struct.pack("<I", len(item) | raw << 31) + item for item in blocks)
    return b"\x04\x22\x4d\x18" + bytes([flags, 0x70, 0]) + body + bytes(4)


PACKED = {
    "gzip": gzip.compress(PICKLE),
    "bzip2": bz2.compress(PICKLE),
    "xz": lzma.compress(PICKLE),
    "lzma": lzma.compress(PICKLE, lzma.FORMAT_ALONE),
    "zlib": zlib.compress(PICKLE),
    "lz4": lz4(lz4_block(PICKLE)),
}
SEVERAL = ("gzip", "bzip2", "xz", "lz4")


@pytest.mark.parametrize("name", PACKED)
def test_what_is_inside_is_handed_on(name: str) -> None:
    found = look(PACKED[name])
    assert not found.signs
    assert found.handed == {"model.pkl": PICKLE}
    assert found.formats == (name, "spy")


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_zlib_is_known_at_every_level(level: int) -> None:
    assert look(zlib.compress(PICKLE, level)).handed == {"model.pkl": PICKLE}


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "lzma", "xz"])
def test_joblib_files_are_opened_in_every_compression(method: str, tmp_path) -> None:
    joblib.dump({"a": 1}, tmp_path / "m", compress=(method, 3))
    found = look((tmp_path / "m").read_bytes(), "m")
    assert not found.signs
    assert found.handed["m"].startswith(b"\x80")


@pytest.mark.parametrize("name", SEVERAL)
def test_several_streams_are_one_text(name: str) -> None:
    found = look(PACKED[name] * 2 + bytes(8))
    assert not found.signs
    assert found.handed["model.pkl"] == PICKLE * 2


@pytest.mark.parametrize("name", sorted(PACKED))
def test_what_follows_a_stream_is_told_and_looked_at(name: str) -> None:
    found = look(PACKED[name] + PICKLE)
    assert found.rules == {f"{name}/trailing"}
    assert found.handed[f"after {len(PACKED[name])}"] == PICKLE


@pytest.mark.parametrize("name", PACKED)
def test_a_stream_cut_anywhere_is_unreadable_and_what_came_before_is_looked_at(name: str) -> None:
    noise = bytes(i * i * 31 % 251 for i in range(9000))  # long enough that something comes out before the cut
    whole = {"gzip": gzip.compress(noise), "bzip2": bz2.compress(noise), "zlib": zlib.compress(noise)}.get(name)
    data = whole or PACKED[name]
    for n in range(len(data) // 2, len(data) - 1, max(1, len(data) // 40)):
        found = look(data[:n])
        assert found.level in (Level.UNREADABLE, Level.CLEAN), n
        assert found.level is Level.UNREADABLE or found.handed.keys() == {""}, n


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_ends_at_the_limit(pack) -> None:
    assert "limits/expanded" in look(pack(bytes(80_000_000))).rules


def test_xz_may_not_ask_for_more_memory_than_a_scan_has() -> None:
    data = bytearray(lzma.compress(b"x"))
    data[16] = 40  # the dictionary's size, four gigabytes less one, in the header of the block
    end = 12 + (data[12] + 1) * 4
    data[end - 4 : end] = zlib.crc32(data[12 : end - 4]).to_bytes(4, "little")
    found = look(bytes(data))
    assert found.level is Level.UNREADABLE
    assert "memory" in found.signs[0].what.lower()


def test_what_is_longer_than_memory_should_hold_is_kept_in_a_file_and_read_the_same() -> None:
    whole = bytes(range(256)) * (40 << 12)
    assert look(gzip.compress(whole, 1)).handed["model.pkl"] == whole


def test_lz4_matches_reach_back_into_earlier_blocks_where_these_are_linked() -> None:
    """By hand from the format: token, literals, offset 8, match of 20 bytes; last, five literals."""
    first = bytes([0x8F]) + b"abcdefgh" + b"\x08\0" + bytes([1]) + bytes([0x50]) + b"vwxyz"
    once = (b"abcdefgh" * 4)[: 8 + 20] + b"vwxyz"
    again = bytes([0x04]) + struct.pack("<H", len(once)) + bytes([0x50]) + b"12345"
    assert look(lz4(first, again, flags=0x40)).handed["model.pkl"] == once + b"abcdefgh" + b"12345"
    assert look(lz4(first, again, flags=0x60)).level is Level.UNREADABLE  # unlinked, there is nothing to reach
    assert look(lz4(PICKLE, raw=True)).handed["model.pkl"] == PICKLE


def test_a_zstandard_stream_is_read() -> None:
    frame = b"\x28\xb5\x2f\xfd\x20" + bytes([len(PICKLE)]) + (len(PICKLE) << 3 | 1).to_bytes(3, "little") + PICKLE
    assert look(frame, "m.zst").handed == {"m": PICKLE}
    behind = look(frame + PICKLE, "m.zst")
    assert behind.rules == {"zstd/trailing"}
    assert behind.handed == {"m": PICKLE, f"after {len(frame)}": PICKLE}


def test_text_that_begins_like_zlib_is_not_taken_for_it() -> None:
    for text in (b"x^2 + y^2 = 1, the circle", b"x\x9cnot a stream of zlib at all", b"x\x01"):
        assert look(text, "m.txt").handed == {"": text}


@pytest.mark.parametrize(
    ("path", "member"),
    [
        ("archive/model.pkl.bz2", "model.pkl"),
        ("archive/model.pkl.xz", "model.pkl"),
        ("archive/model.pkl.zlib", "model.pkl"),
        ("archive/model.tar.gz", "model.tar!/m/model.pkl"),
        ("joblib/evil_gz.joblib", "evil_gz.joblib"),
        ("joblib/evil_lzma_alone.joblib", "evil_lzma_alone.joblib"),
        ("sklearn/rf_gzip.joblib", "rf_gzip.joblib"),
        ("sklearn/rf_lzma.joblib", "rf_lzma.joblib"),
        ("sklearn/rf_zlib.joblib", "rf_zlib.joblib"),
    ],
)
def test_files_of_the_corpus_are_opened(path: str, member: str) -> None:
    found = looked(corpus(path), compressed.READERS, tars.READERS, name=path)
    assert not found.signs
    assert list(found.handed) == [member]
    assert found.handed[member].startswith(b"\x80\x04")


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(PACKED)), data=st.data())
def test_any_damage_gives_signs_and_never_an_error(name: str, data) -> None:
    whole = PACKED[name]
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for at in data.draw(st.lists(st.integers(0, max(0, len(broken) - 1)), max_size=5)):
        if broken:
            broken[at] = data.draw(st.integers(0, 255))
    held(bytes(broken), compressed.READERS)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=3000))
def test_lz4_of_literals_gives_back_any_text(data: bytes) -> None:
    assert look(lz4(lz4_block(b"=" + data))).handed == {"model.pkl": b"=" + data}
