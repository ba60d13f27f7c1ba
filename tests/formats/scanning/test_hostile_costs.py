"""What once took minutes, gigabytes, or let a model through: each ends within the limits, and says something."""

from __future__ import annotations

import time

import pytest

from casemate.formats.scanning.limits import LimitReached, Limits, Meter
from casemate.formats.scanning.readers._few import few
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.signs import Level, Place, Sign
from casemate.formats.scanning.source import Source
from casemate.formats.scanning.walking import scan_bytes

SLOWEST = 60.0  # seconds of the processor: what these once took; how quick they are now is in the evidence, not here
CASES = {
    "secrets, quadratic": (b"sk-" * 2_000_000, "m.txt"),
    "modes, quadratic": (b"chmod " + b"7" * 1_000_000, "Dockerfile"),
    "commands, each looked past": (b"curl " * 1_000_000, "Dockerfile"),
    "packed text, quadratic": (b'{"keras_version":1,"a":"gA' + b" " * 1_000_000 + b'!"}', "m.json"),
    "installs, quadratic": (
        b'{"cells":[{"cell_type":"code","source":"!pip install ' + b"a" * 1_000_000 + b'"}]}', "m.ipynb",
    ),
    "comments of a graph, quadratic": (b"node {" + b"#op\n" * 500_000, "m.pbtxt"),
    "notes of a model, quadratic": (
        b"\x08\x08\x3a\x8a\x89\x7a\x52\x84\x89\x7a" + b"{{" * 1_000_002 + b"\x2a\0", "m.onnx",
    ),
    "lines of findings": (b"".join(b"os.a%d\n" % i for i in range(40_000)), "m.py"),
    "tiny fields": (b"\x08\x08\x3a\x80\x80\x80\x02" + b"\x0a\x02\x22\0" * (1 << 20), "m.onnx"),
    "lines of packages": (b"a\n" * 3_000_000, "requirements.txt"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_file_ends_in_time(case: str) -> None:
    start = time.thread_time()
    scan_bytes(*CASES[case])
    assert time.thread_time() - start < SLOWEST


def test_a_busy_machine_uses_up_no_time_and_work_does() -> None:
    # What passed before the first look counted by the clock on the wall: on a busy machine a harmless file ran out.
    meter = Meter(Limits(seconds=0.1), 100)
    time.sleep(0.3)
    meter.tick()
    begun = time.thread_time()

    def work() -> None:
        while time.thread_time() - begun < 5:
            meter.tick()

    with pytest.raises(LimitReached, match="more than"):
        work()
    assert 0.05 < time.thread_time() - begun < 1


def test_a_graph_behind_many_fields_is_still_a_model() -> None:
    graph = b"\x3a\x0f\x0a\x0d\x22\x03Foo\x3a\x06my.own"  # was passed over behind 20,000 fields
    for many in (0, 30_000, 200_000):
        found = scan_bytes(b"\x08\x09" * (many + 1) + graph, "m.onnx")
        assert "onnx/custom-operator" in {sign.rule for sign in found.signs}
    hidden = scan_bytes(b"\x08\x09" * 600_000 + graph, "m.onnx")
    assert hidden.level is Level.UNREADABLE
    decoys = scan_bytes(b"\x08\x09" + b"\x3a\0" * 100 + graph, "m.onnx")
    assert decoys.level is not Level.CLEAN
    assert "onnx" in decoys.formats


def test_a_long_text_that_reads_as_fields_is_a_text() -> None:
    assert scan_bytes(b"0\n" * 2_000_000, "labels.csv").level is Level.CLEAN
    assert scan_bytes(b"0\n" * 2_000_000 + b"\x3a\x02\x12\0", "labels.csv").level is Level.UNREADABLE


def test_a_hundred_mild_signs_hide_no_grave_one_and_no_policy_allows_the_rest() -> None:
    def sign(level: Level, subject: str) -> Sign:
        return Sign(level, "a/b", subject, Place("m"), "", "", subject=subject)

    mild = [sign(Level.SUSPICIOUS, f"s{i}") for i in range(150)]
    told = list(few(iter([*mild, sign(Level.MALICIOUS, "grave")])))
    assert sign(Level.MALICIOUS, "grave") in told
    assert [item.subject for item in told].count("") == 1
    assert told[-1].what.endswith("and 49 more like it")


def test_a_secret_is_found_behind_marks_without_one() -> None:
    token = "sk-" + "a1b2c3d4e5f6g7h8" * 4
    assert any(secrets_in(Source("m", b""), "sk- " * 1000 + token))
