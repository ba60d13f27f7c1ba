from __future__ import annotations

import io
import pickle
import struct
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import PICKLE, Looked, corpus, held, looked

from casemate.formats.scanning.readers import tars
from casemate.formats.scanning.signs import Level


def look(data: bytes) -> Looked:
    return looked(data, tars.READERS)


def tarred(*members: tuple[str, bytes], form: int = tarfile.PAX_FORMAT, **fields) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def resealed(data: bytes, at: int = 0) -> bytes:
    """The same with the header's checksum made right again."""
    out = bytearray(data)
    out[at + 148 : at + 156] = b" " * 8
    out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_member_is_handed_on_under_its_whole_name_in_every_dialect(form: int) -> None:
    members = {"a.pkl": PICKLE, "d/" * 60 + "b": b"x" * 1500, "empty": b""}
    if form != tarfile.USTAR_FORMAT:
        members["é" * 90] = b"long"
    found = look(tarred(*members.items(), form=form))
    assert not found.signs
    assert found.handed == {name: data for name, data in members.items() if data}


def test_the_oldest_dialect_is_known_by_its_checksum() -> None:
    data = bytearray(tarred(("a", PICKLE), form=tarfile.USTAR_FORMAT))
    data[257:500] = bytes(243)
    assert look(resealed(bytes(data))).handed == {"a": PICKLE}


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (tarred(("../../x", PICKLE)), "tar/path"),
        (tarred(("/etc/x", PICKLE)), "tar/path"),
        (tarred(("x/" * 80 + "../" * 90 + "y", PICKLE)), "tar/path"),
        (tarred(("a", b""), type=tarfile.SYMTYPE, linkname="../x"), "tar/link"),
        (tarred(("d/a", b""), type=tarfile.LNKTYPE, linkname="../x"), "tar/link"),
        (tarred(("a", b""), type=tarfile.SYMTYPE, linkname="/x" * 80), "tar/link"),
        (tarred(("a", b""), type=tarfile.CHRTYPE), "tar/device"),
        (tarred(("a", b""), type=tarfile.BLKTYPE), "tar/device"),
        (tarred(("a", b""), type=tarfile.FIFOTYPE), "tar/device"),
    ],
)
def test_names_links_and_devices_that_leave_the_folder_are_malicious(data: bytes, rule: str) -> None:
    found = look(data)
    assert rule in found.rules
    assert found.level is Level.MALICIOUS


def test_a_link_within_the_archive_is_no_sign() -> None:
    assert not look(tarred(("d/a", b""), type=tarfile.SYMTYPE, linkname="../b")).signs
    assert not look(tarred(("d/a", b""), type=tarfile.LNKTYPE, linkname="d/b")).signs


def test_what_follows_the_end_is_looked_at() -> None:
    found = look(tarred(("a", b"x")) + tarred(("b", PICKLE)))
    assert found.rules == {"tar/trailing"}
    assert PICKLE in found.handed.values()


def test_two_sizes_of_one_member_are_told_and_both_are_followed() -> None:
    data = tarred(("a", PICKLE), pax_headers={"size": "512"}) + b""
    found = look(data)
    assert "tar/two-sizes" in found.rules
    assert any(item.startswith(PICKLE) for item in found.handed.values())


def test_a_size_beyond_the_file_or_below_zero_is_unreadable_and_what_is_there_is_looked_at() -> None:
    data = bytearray(tarred(("a", PICKLE)))
    data[124:136] = b"77777777777\0"
    found = look(resealed(bytes(data)))
    assert found.level is Level.UNREADABLE
    assert found.handed["a"].startswith(PICKLE)
    data[124:136] = b"\xff" * 12
    assert look(resealed(bytes(data))).level is Level.UNREADABLE


def test_a_header_of_the_wrong_checksum_ends_the_archive_for_some_tools_and_is_unreadable() -> None:
    data = bytearray(tarred(("a", b"x"), ("b", PICKLE)))
    data[1024 + 148] ^= 1
    found = look(bytes(data))
    assert found.level is Level.UNREADABLE
    assert any(PICKLE in item for item in found.handed.values())


def test_a_size_is_read_as_python_reads_it() -> None:
    """Found by damage: white space of any kind may stand before it."""
    data = bytearray(tarred(("a", PICKLE), ("b", PICKLE), form=tarfile.USTAR_FORMAT))
    data[124:125] = b"\r"
    assert look(resealed(bytes(data))).handed == {"a": PICKLE, "b": PICKLE}


def test_two_members_of_one_name_are_told() -> None:
    assert look(tarred(("a", b"x"), ("a", PICKLE))).rules == {"tar/same-name"}


def test_the_tar_of_the_first_torch_is_read_around_its_numbers() -> None:
    """What torch 0.1 wrote: pickles with raw numbers between, here the one storage and the one tensor of a vector."""
    storages = pickle.dumps(1, 2) + pickle.dumps(("7", "cpu", "torch FloatStorage"), 2)
    storages += struct.pack("<q3f", 3, 1, 2, 3) + pickle.dumps([], 2)
    tensors = pickle.dumps(1, 2) + pickle.dumps(("8", "7", "torch FloatTensor"), 2)
    tensors += struct.pack("<i4xqqq", 1, 3, 1, 0)
    found = look(tarred(("storages", storages), ("tensors", tensors), ("pickle", PICKLE)))
    assert not found.signs
    assert found.handed["pickle"] == PICKLE
    assert len(found.handed) == 6
    for name, data in found.handed.items():
        assert name == "pickle" or pickle.loads(data) is not None
    assert look(tarred(("storages", storages[:-30]))).level is Level.UNREADABLE
    evil = storages[: -len(pickle.dumps([], 2))] + PICKLE
    assert PICKLE in look(tarred(("storages", evil))).handed.values()


def test_files_of_the_corpus() -> None:
    assert "tar/link" in look(corpus("archive/link.tar")).rules


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_python_still_reads_of_a_damaged_tar_was_looked_at(data) -> None:
    payloads = [bytes([65 + i]) * 30 + PICKLE for i in range(3)]
    form = data.draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    broken = bytearray(tarred(*zip(("a", "n/" * 60 + "b", "c"), payloads, strict=True), form=form))
    for _ in range(data.draw(st.integers(1, 3))):
        at = 512 * data.draw(st.integers(0, 6))
        field, size = data.draw(st.sampled_from([(0, 5), (124, 12), (156, 1), (257, 8), (345, 10), (0, 500)]))
        broken[at + field + data.draw(st.integers(0, size - 1))] = data.draw(
            st.sampled_from([0, 32, 48, 55, 76, 128, 255])
        )
        broken = bytearray(resealed(bytes(broken), at))
    handed = look(bytes(broken)).handed.values()
    try:
        with tarfile.open(fileobj=io.BytesIO(broken), mode="r:") as archive:
            files = [archive.extractfile(item) for item in archive.getmembers() if item.isreg()]
            read = [file.read() for file in files if file is not None]
    except (tarfile.TarError, ValueError, OSError, EOFError, OverflowError):
        return
    for payload in payloads:
        assert not any(payload in item for item in read) or any(payload in item for item in handed)


def test_members_whose_long_names_begin_alike_are_two() -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert not look(tarred(("n" * 150 + "a", b"x"), ("n" * 150 + "b", b"y"), form=form)).signs


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_gives_signs_and_never_an_error(data) -> None:
    whole = tarred(("é" * 90, PICKLE), ("storages", b"\x80\x02K\x01.\x80"), ("b", b"x"))
    broken = bytearray(whole[: data.draw(st.integers(600, len(whole)))])
    for at in data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=6)):
        broken[at] = data.draw(st.integers(0, 255))
    held(resealed(bytes(broken)), tars.READERS)
