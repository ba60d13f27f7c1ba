# ruff: noqa: E501 (a table of hand-made bytes)
"""The desk asks only readers that can claim a source's first byte: never one fewer than all would be."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import CORPUS, PICKLE

from casemate.errors import UsageError
from casemate.formats.scanning import readers
from casemate.formats.scanning.desk import Desk, Reader
from casemate.formats.scanning.limits import Limits
from casemate.formats.scanning.signs import Level
from casemate.formats.scanning.source import Source
from casemate.formats.scanning.walking import scan_bytes, scan_file

NAMES = (
    "m",
    "m.pkl",
    "m.json",
    "m.ubj",
    "m.yaml",
    "MLmodel",
    "schema.json",
    "m.skops",
    "m.safetensors",
    "m.py",
    "m.jinja",
)
MAGICS = (
    b"{L\0\0\0\0\0\0\0\x01a", b"binf", b"tree\nversion=v4", b"CBM1", b"GGUF\3\0\0\0", b"\x1f\x8b\x08", b"BZh91", b"\xfd7zXZ\0",
    b"\x5d\0\0", b"\x78\x9c", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a",
    b"RIFF....WEBP", b"PAR1....PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff\x10\0\0\0", b'{"a": 1}', b' {"class_name": 1, "config": 1}',
    b"\xef\xbb\xbf[1]", b"\xff\xfe[\0", b"\0\0\xfe\xff", b'\0{"keras_version":1}', b"\x93NUMPY", b"RDX3\nX\n\0\0\0\3", b"X\n\0\0\0\2",
    b"A\n3\n123456\n", b"B\n\3\0\0\0", b'\f{"graph_module": {}}', b"<?xml", b" <a/>", b"\0<\0?", b"<\0?\0", b"<!--", b"7z\xbc\xaf\x27\x1c",
    b"....TFL3", b"SQLite format 3\0", b"\x7fELF", b"MZ", b"\xa7\r\r\n", b"#!/bin/sh\n", b"%PDF-", b"#a\nnode {", b"\vgraph_def {",
    b"saved_model_schema_version:", b"model_checkpoint_path: ", b"# c\nall_model_checkpoint_paths:", b"last_preserved_timestamp:", PICKLE,
    b"PK\3\4", b"--- a", b"import os\n", b"{{ a }}", b"....ORTM", b'{"__loader__": 1, "__class__": 2}', b"\x08\x08\x3a\x04\x0a\x02\x22\0",
)  # fmt: skip


def asked(source: Source) -> tuple[set[str], set[str]]:
    """Who claims it of those that are asked, and who would of all."""

    def claims(reader: Reader) -> bool:
        try:
            return reader.claims(source)
        except Exception:
            return True

    first, last = readers.known().by_first[source.head[0] if source.head else 256]
    return {item.name for item in (*first, *last) if claims(item)}, {
        item.name for item in readers.known() if claims(item)
    }


@given(st.sampled_from(MAGICS) | st.binary(max_size=3), st.binary(max_size=60), st.sampled_from(NAMES), st.booleans())
@example(b"", b"", "m.py", False)
@settings(deadline=None, max_examples=600)
def test_no_reader_is_left_out_that_would_claim(magic: bytes, rest: bytes, name: str, inert: bool) -> None:
    some, all_of_them = asked(Source(name, magic + rest, inert=inert))
    assert some == all_of_them


def test_no_reader_is_left_out_of_magics_and_first_bytes() -> None:
    claimed = set()
    for data in (*MAGICS, *(bytes([first]) for first in range(256))):
        for name in NAMES:
            some, all_of_them = asked(Source(name, data))
            assert some == all_of_them
            claimed |= all_of_them
    assert len(claimed) >= 35  # the magics reach nearly every reader


@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not beside this checkout")
def test_no_reader_is_left_out_of_any_file_of_the_corpus() -> None:
    count = 0
    with tarfile.open(CORPUS) as archive:
        for item in archive:
            if item.isfile() and (file := archive.extractfile(item)) is not None:
                some, all_of_them = asked(Source(item.name, file.read()))
                assert some == all_of_them, item.name
                count += 1
    assert count > 100


def test_a_reader_is_asked_only_for_its_first_bytes() -> None:
    seen = []
    spy = Reader("spy", lambda source: bool(seen.append(source.head)), lambda source, desk: iter(()), firsts=b"ab")
    for data in (b"a", b"b", b"c", b"", b"ba"):
        list(Desk((spy,), Limits(), len(data)).look(Source("m", data)))
    assert seen == [b"a", b"b", b"ba"]


def test_a_file_is_read_as_its_bytes_are(tmp_path: Path) -> None:
    for size in (0, 1, 5000, (1 << 24) + 1):
        path = tmp_path / "m.pkl"
        path.write_bytes(PICKLE[:-1] + bytes(size) + b".")
        found = scan_file(path, digest=True)
        assert found.size == len(PICKLE) + size
        assert found == scan_bytes(path.read_bytes(), str(path), digest=True)
        assert found.level is Level.MALICIOUS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_folders_devices_and_pipes_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UsageError, match="got a folder, device or pipe"):
            scan_file(path)
    for path in (tmp_path / "none", tmp_path / "a\0b"):
        with pytest.raises(UsageError, match="got nothing that can be read"):
            scan_file(path)
