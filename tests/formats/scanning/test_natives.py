from __future__ import annotations

import py_compile
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.formats.scanning.desks import Looked, corpus, looked

from casemate.formats.scanning.readers import natives
from casemate.formats.scanning.signs import Level


def look(data: bytes, name: str = "m") -> Looked:
    return looked(data, natives.READERS, name=name)


PROGRAMS = {
    "elf": b"\x7fELF\2\1\1" + bytes(80),
    "pe": b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0",
    "ape": b"MZqFpD='\n",
    "macho": b"\xcf\xfa\xed\xfe\x07\0\0\x01" + bytes(20),
    "macho-fat": b"\xca\xfe\xba\xbe\0\0\0\2" + bytes(20),
    "java": b"\xca\xfe\xba\xbe\0\0\0\x41" + bytes(20),
    "java-objects": b"\xac\xed\0\5sr",
    "wasm": b"\0asm\1\0\0\0",
    "script": b"#!/bin/sh\ntrue\n",
    "script-of-env": b"#! /usr/bin/env perl\n",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_for_review_whatever_they_are_called(name: str) -> None:
    for file in ("model.bin", "weights.png"):
        found = look(PROGRAMS[name], file)
        assert found.rules == {"native/program"}
        assert found.level is Level.SUSPICIOUS


def test_programs_of_this_machine_are_known(tmp_path: Path) -> None:
    assert look(Path(sys.executable).resolve().read_bytes()[:4096]).rules == {"native/program"}
    (tmp_path / "a.py").write_text("x = 1\n")
    py_compile.compile(str(tmp_path / "a.py"), str(tmp_path / "a.pyc"))
    assert look((tmp_path / "a.pyc").read_bytes()).rules == {"native/program"}


def test_a_python_script_is_left_to_the_reader_of_python() -> None:
    script = b"#!/usr/bin/env python3\nprint(1)\n"
    assert not look(script, "train.py").signs
    assert look(script, "weights").signs


@pytest.mark.parametrize(
    "data", [b"MZ", b"MZ" + bytes(200), b"#! no path", b"#!", b"\xca\xfe\xba\xbe", b"\xfe\xed\xfa\xce"]
)
def test_what_only_begins_like_a_program_is_none(data: bytes) -> None:
    assert not look(data).signs


def test_random_numbers_are_no_programs() -> None:
    rng = np.random.default_rng(0)
    for size in (16, 64, 4096):
        assert not any(look(rng.bytes(size)).signs for _ in range(300))


def test_the_llamafile_of_the_corpus_is_for_review() -> None:
    assert look(corpus("misc/llamafile_elf.llamafile")).level is Level.SUSPICIOUS
