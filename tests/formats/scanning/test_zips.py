from __future__ import annotations

import io
import stat
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import PICKLE, Looked, corpus, held, looked

from casemate.formats.scanning.desk import Desk
from casemate.formats.scanning.limits import Limits
from casemate.formats.scanning.readers import numpy_arrays, torch_zips, zips
from casemate.formats.scanning.signs import Level
from casemate.formats.scanning.source import opened

READERS = (zips.READERS, numpy_arrays.READERS, torch_zips.READERS)


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
        archive.comment = comment
    return out.getvalue()


def look(data: bytes, **more) -> Looked:
    return looked(data, *READERS, **more)


PLAIN = packed({"a/data.pkl": PICKLE, "b.txt": b"hello"})
CENTRAL = PLAIN.index(b"PK\1\2")


def patched(at: int, form: str, *values: int, data: bytes = PLAIN) -> bytes:
    out = bytearray(data)
    struct.pack_into(form, out, at, *values)
    return bytes(out)


@pytest.mark.parametrize("method", [0, 8, 12, 14])
def test_each_member_is_handed_on_whole_whatever_packs_it(method: int) -> None:
    members = {"a.bin": PICKLE, "d/b": b"\1" * 100_000, "empty": b""}
    found = look(packed(members, method))
    assert not found.signs
    assert found.handed == {name: data for name, data in members.items() if data}


@pytest.mark.parametrize(
    ("data", "rule", "level"),
    [
        (patched(CENTRAL + 8, "<H", 1), "zip/false-encryption", Level.MALICIOUS),
        (patched(6, "<H", 1), "zip/false-encryption", Level.MALICIOUS),
        (PLAIN.replace(b"a/data.pkl", b"a/data.txt", 1), "zip/two-names", Level.MALICIOUS),
        (patched(CENTRAL + 16, "<L", 7), "zip/checksum", Level.SUSPICIOUS),
        (patched(22, "<L", 5), "zip/headers-differ", Level.SUSPICIOUS),
        (patched(8, "<H", 8), "zip/headers-differ", Level.SUSPICIOUS),
        (patched(CENTRAL + 24, "<L", 5), "zip/size", Level.SUSPICIOUS),
        (patched(CENTRAL + 10, "<H", 99), "zip/member", Level.SUSPICIOUS),
        (patched(len(PLAIN) - 12, "<H", 1), "zip/count", Level.SUSPICIOUS),
        (packed({"../../x": PICKLE}), "zip/path", Level.MALICIOUS),
        (packed({"/etc/x": PICKLE}), "zip/path", Level.MALICIOUS),
        (packed({"C:x": PICKLE}), "zip/path", Level.MALICIOUS),
        (packed({"a#b": PICKLE}).replace(b"a#b", b"a\0b"), "zip/path", Level.MALICIOUS),
        (packed({"a#b": PICKLE}).replace(b"a#b", b"a\\b"), "zip/backslash", Level.SUSPICIOUS),
        (packed({"..#..#b": PICKLE}).replace(b"..#..#b", b"..\\..\\b"), "zip/path", Level.MALICIOUS),
        (PICKLE + PLAIN, "zip/bytes-before", Level.SUSPICIOUS),
        (PLAIN + PICKLE, "zip/bytes-after", Level.SUSPICIOUS),
        (packed({"a": b"a", "a#": PICKLE}).replace(b"a#", b"a\0"), "zip/path", Level.MALICIOUS),
    ],
)
def test_a_zip_that_tools_read_in_two_ways_is_told_and_its_payload_is_still_looked_at(data, rule, level) -> None:
    found = look(data)
    assert rule in found.rules
    assert found.level is level
    assert any(PICKLE in item or item.startswith(PICKLE[:20]) for item in found.handed.values())


def test_both_members_of_one_name_are_looked_at() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("a", b"harmless")
        archive.writestr("a", PICKLE)
    seen: list[bytes] = []
    found = look(out.getvalue())
    seen += found.handed.values()
    assert "zip/same-name" in found.rules
    assert PICKLE in seen


def test_a_member_that_no_directory_lists_is_found_by_its_own_header() -> None:
    hidden = packed({"hidden.pkl": PICKLE})
    hidden = hidden[: hidden.index(b"PK\1\2")]
    found = look(hidden + PLAIN)
    assert {"zip/hidden-member"} == found.rules
    assert found.handed["hidden.pkl"] == PICKLE


def test_a_zip_without_its_directory_is_read_as_a_stream_and_never_passes() -> None:
    found = look(PLAIN[:CENTRAL])
    assert found.handed["a/data.pkl"] == PICKLE
    assert found.level is Level.UNREADABLE


def test_two_directories_of_one_file_are_both_followed() -> None:
    """Python trusts the directory's size, torch its offset: here each leads to another list."""
    evil = packed({"evil": PICKLE})
    good = packed({"good": b"harmless"})
    at = good.index(b"PK\1\2")
    joined = evil[: evil.index(b"PK\5\6")]
    start, size = evil.index(b"PK\1\2"), len(good) - 22 - at
    moved = bytearray(good[at:-22])
    struct.pack_into("<L", moved, 42, len(joined))
    data = joined + good[:at] + moved + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, start, 0)
    found = look(data)
    assert "zip/two-directories" in found.rules
    assert PICKLE in found.handed.values()
    assert b"harmless" in found.handed.values()


def test_members_that_share_bytes_are_a_bomb() -> None:
    inner = packed({"b": b"xyz"})[:34]
    data = packed({"a": inner, "b": b"xyz"})
    second = data.rindex(b"PK\1\2")
    assert "zip/overlap" in look(patched(second + 42, "<L", data.index(inner), data=data)).rules
    assert "zip/overlap" not in look(data).rules


@pytest.mark.parametrize("mode", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_device_is_malicious(mode: int) -> None:
    info = zipfile.ZipInfo("x")
    info.external_attr = mode << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, b"")
    assert look(out.getvalue()).rules == {"zip/device"}


@pytest.mark.parametrize(("target", "level"), [("../../x", "malicious"), ("/x", "malicious"), ("../y", "clean")])
def test_a_link_is_malicious_where_it_leaves_the_archive(target: str, level: str) -> None:
    info = zipfile.ZipInfo("folder/x")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, target)
    assert look(out.getvalue()).level.value == level


def test_what_is_truly_encrypted_cannot_be_read() -> None:
    data = patched(CENTRAL + 8, "<H", 1, data=patched(CENTRAL + 24, "<L", len(PICKLE) - 12))
    found = look(data)
    assert "zip/encrypted" in found.rules
    assert "zip/false-encryption" not in found.rules


def test_bytes_after_a_deflated_stream_are_looked_at() -> None:
    squeezed = zlib.compressobj(wbits=-15)
    stream = squeezed.compress(b"harmless") + squeezed.flush() + PICKLE
    sizes = zlib.crc32(b"harmless"), len(stream), 8, 1, 0
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, *sizes) + b"a" + stream
    listed = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, *sizes[:3], 1, 0, 0, 0, 0, 0, 0) + b"a"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(listed), len(local), 0)
    found = look(local + listed + end)
    assert found.rules == {"zip/slack"}
    assert found.handed["after a"] == PICKLE


def test_a_comment_is_looked_at() -> None:
    assert look(packed({"a": b"b"}, comment=PICKLE)).handed["comment of the zip"] == PICKLE


def test_bombs_end_at_the_limit_of_unpacked_bytes_and_of_depth() -> None:
    flat = packed({f"{i}": b"\0" * (1 << 24) for i in range(5)}, 8)
    assert "limits/expanded" in look(flat).rules
    nested = b"x"
    for _ in range(10):
        nested = packed({"z": nested}, 8)
    assert "limits/depth" in look(nested).rules
    assert "limits/expanded" in look(corpus("archive/bomb_nested.zip")).rules


def test_zip64_and_streamed_members_are_read_without_a_sign() -> None:
    out = io.BytesIO()

    class Pipe(io.RawIOBase):  # zipfile puts sizes after the data where it cannot seek
        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            return out.write(data)

    with zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a", "b"):
            with archive.open(name, "w", force_zip64=name == "b") as file:
                file.write(PICKLE)
    found = look(out.getvalue())
    assert not found.signs
    assert found.handed == {"a": PICKLE, "b": PICKLE}


def test_a_zip_in_a_zip_is_read_as_a_member_and_its_directory_is_no_second_one() -> None:
    for size in range(0, 200, 13):
        found = look(packed({"in.zip": PLAIN, "x": b"x" * size}))
        assert not found.signs
        assert found.handed["in.zip!/a/data.pkl"] == PICKLE


def test_arrays_of_zeros_are_no_bomb_and_arrays_of_objects_are_followed() -> None:
    out = io.BytesIO()
    np.savez_compressed(out, a=np.zeros(20_000_000), b=np.array([None, 1], object))
    found = look(out.getvalue())
    assert not found.signs
    assert list(found.handed) == ["b.npy!/objects"]


@pytest.mark.parametrize(
    ("path", "member"),
    [
        ("archive/nested_zip2.zip", "inner.zip!/m.pt!/archive/data.pkl"),
        ("torch/polyglot_zip_pickle.pkl", "before the zip"),
        ("torch/polyglot_pickle_zip.pt", "archive/data.pkl"),
        ("torch/zip_deflate.pt", "archive/data.pkl"),
        ("torch/zip_plain.pt", "archive/data.pkl"),
        ("torch/zip_as.safetensors", "archive/data.pkl"),
        ("torch/zip_renamed_member.pt", "archive/config.p"),
        ("torch/zip_flag_encrypted.pt", "archive/data.pkl"),
        ("torch/zip_local_name_mismatch.pt", "archive/data.pkl"),
        ("torch/torchscript_evil_constants.pt", "archive/constants.pkl"),
        ("numpy/second_member.npz", "b.npy!/objects"),
    ],
)
def test_payloads_of_the_corpus_are_handed_to_the_reader_of_pickles(path: str, member: str) -> None:
    assert b"system" in look(corpus(path)).handed[member]


def test_a_directory_that_claims_no_members_is_read_all_the_same() -> None:
    """Found by damage: Python does not ask how many there should be."""
    found = look(patched(len(PLAIN) - 12, "<H", 0))
    assert found.rules == {"zip/count"}
    assert found.handed["a/data.pkl"] == PICKLE


def test_a_checkpoint_of_two_gigabytes_is_known_by_its_headers(tmp_path) -> None:
    """No time is asserted, for machines differ; where the tensors would be there are holes."""
    path, size, listed = tmp_path / "big.pt", 500_000_000, b""
    with path.open("wb") as file:
        for name, data in [
            (b"m/data.pkl", b"\x80\x02}."),
            *((b"m/data/%d" % i, b"") for i in range(4)),
            (b"m/version", b"3"),
        ]:
            length, at = len(data) or size, file.tell()
            told = struct.pack("<3L2H", zlib.crc32(data), length, length, len(name), 0)
            file.write(struct.pack("<4s5H", b"PK\3\4", 0, 0, 0, 0, 0) + told + name)
            file.write(data) if data else file.seek(size, 1)
            listed += (
                struct.pack("<4s6H", b"PK\1\2", 0, 0, 0, 0, 0, 0) + told + struct.pack("<3H2L", 0, 0, 0, 0, at) + name
            )
        start = file.tell()
        file.write(listed + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 6, 6, len(listed), start, 0))
    source = opened(path)
    assert source.size > 2_000_000_000
    desk = Desk([reader for group in READERS for reader in group], Limits(), source.size)
    signs = list(desk.look(source))
    assert ("m/data/3", size) in desk.members
    assert [sign.place.member for sign in signs] == ["m/data.pkl"]  # for no reader of pickles is at this desk


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_gives_signs_and_never_an_error_nor_silence(data) -> None:
    whole = packed(
        {"a/data.pkl": PICKLE, "a/data/0": b"\1" * 40, "b": b"hello" * 9}, data.draw(st.sampled_from([0, 8]))
    )
    held(whole[: data.draw(st.integers(0, len(whole)))], *READERS)
    broken = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6)):
        broken[at] = data.draw(st.integers(0, 255))
    held(bytes(broken), *READERS)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_python_still_reads_of_a_damaged_zip_was_looked_at(data) -> None:
    """Against the standard library: no header can be bent so that it shows a payload that stays unseen here."""
    payloads = [bytes([65 + i]) * 30 + PICKLE for i in range(3)]
    members = dict(zip(("m/data.pkl", "m/b", "m/c"), payloads, strict=True))
    broken = bytearray(packed(members, data.draw(st.sampled_from([0, 8]))))
    records = [at for at in range(len(broken)) if broken[at : at + 2] == b"PK"]
    for _ in range(data.draw(st.integers(1, 4))):
        at = min(data.draw(st.sampled_from(records)) + data.draw(st.integers(0, 47)), len(broken) - 1)
        broken[at] = data.draw(st.sampled_from([0, 1, 8, 47, 80, 255]) | st.integers(0, 255))
    handed = look(bytes(broken)).handed.values()
    try:
        archive = zipfile.ZipFile(io.BytesIO(broken))
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return
    for info in archive.infolist():
        try:
            read = archive.read(info)
        except Exception:
            continue
        for payload in payloads:
            assert payload not in read or any(payload in item for item in handed)


def test_a_payload_is_not_hidden_by_calling_it_a_link() -> None:
    """Found by damage: torch reads a member whatever its mode says."""
    info = zipfile.ZipInfo("m/data.pkl")
    info.external_attr = stat.S_IFLNK << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, PICKLE)
    assert look(out.getvalue()).handed["m/data.pkl"] == PICKLE


def test_every_prefix_of_a_zip_is_unreadable() -> None:
    for n in range(4, len(PLAIN)):
        assert look(PLAIN[:n]).level in (Level.UNREADABLE, Level.SUSPICIOUS), n
