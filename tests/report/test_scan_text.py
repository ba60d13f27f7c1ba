"""A scan for people: the verdict first, one block for each file that did not pass, nothing that a terminal obeys."""

from __future__ import annotations

import datetime as dt

import pytest

from casemate.artifacts.allowances import Allowance
from casemate.artifacts.scans import Scan
from casemate.formats.scanning.signs import Certainty, Level, Place, Scanned, Sign
from casemate.report import scan_text


def sign(level: Level, what: str, offset: int = 0, member: str = "", rule: str = "pickle/a") -> Sign:
    place = Place("m.pkl", member, offset, "GLOBAL")
    return Sign(level, rule, what, place, "it runs code", "do not load it", Certainty.LIKELY)


def file(path: str, *signs: Sign) -> Scanned:
    return Scanned(path, 9, ("zip", "pickle"), signs)


def told(scan: Scan, **how: object) -> list[str]:
    return [line.plain for line in scan_text.render(scan, **how)]  # type: ignore[arg-type]


def test_the_verdict_comes_first_then_the_worst_file_and_what_is_alike_is_said_once() -> None:
    scan = Scan(
        (
            file("a.pkl"),
            file("b.pkl", sign(Level.UNKNOWN, "no known format")),
            file("c.pkl", *(sign(Level.MALICIOUS, f"calls os.system {i}", i, "x.pkl") for i in range(7))),
        ),
        left_out=(".git",),
    )
    assert told(scan, seconds=0.25) == [
        "FAILED  1 of 3 files is malicious: do not load it",
        "",
        "malicious  c.pkl  zip, pickle",
        *(f"  calls os.system {i}  x.pkl at byte {i} (GLOBAL)" for i in range(5)),
        "  and 2 more like these; --verbose shows them",
        "    why   it runs code",
        "    mend  do not load it",
        "    pickle/a, likely",
        "",
        "unknown    b.pkl  zip, pickle",
        "  no known format  at byte 0 (GLOBAL)",
        "    why   it runs code",
        "    mend  do not load it",
        "    pickle/a, likely",
        "",
        "not looked into: .git",
        "3 files in 0.2 s: 1 malicious, 1 unknown, 1 clean",
    ]
    assert sum("calls os.system" in line for line in told(scan, verbose=True)) == 7
    assert any(line.startswith("clean      a.pkl") for line in told(scan, verbose=True))


@pytest.mark.parametrize(
    ("levels", "fail_on", "first"),
    [
        ([[]], Level.SUSPICIOUS, "passed  1 file: 1 clean"),
        ([[], [Level.SUSPICIOUS]], Level.SUSPICIOUS, "FAILED  1 of 2 files is not known to be harmless"),
        (
            [[], [Level.SUSPICIOUS]],
            Level.MALICIOUS,
            "passed  nothing malicious; 1 of 2 files is not known to be harmless",
        ),
        ([[Level.UNREADABLE], [Level.UNKNOWN]], Level.SUSPICIOUS, "undecided  2 of 2 files could not be judged"),
        ([[Level.UNREADABLE, Level.SUSPICIOUS]], Level.MALICIOUS, "undecided  1 of 1 file could not be judged"),
        ([], Level.SUSPICIOUS, "undecided  there was nothing to scan"),
    ],
)
def test_the_first_line_is_the_verdict(levels: list[list[Level]], fail_on: Level, first: str) -> None:
    files = [file(f"{i}.pkl", *(sign(level, "x") for level in some)) for i, some in enumerate(levels)]
    assert told(Scan(tuple(files), fail_on=fail_on))[0] == first


@pytest.mark.parametrize("width", [40, 80])
def test_nothing_in_a_name_moves_the_cursor_or_breaks_a_block(width: int) -> None:
    evil = "\x1b[2J\x9b31m\r\nfake: passed\u202e\u2028 " + "long " * 30
    found = sign(Level.MALICIOUS, f"imports {evil}", member=evil)
    lines = told(Scan((file(evil, found),), left_out=(evil,)), width=width)
    assert all(character.isprintable() for line in lines for character in line)
    assert not any(line.startswith("fake") for line in lines)
    prose = [line for line in lines if line.startswith("    ")]
    assert len(prose) > 4
    assert all(len(line) <= width for line in prose)


def test_an_allowance_that_has_passed_is_told_and_one_that_holds_only_when_asked_for() -> None:
    item = Allowance("own.Gate", dt.date(2026, 1, 2), "Ada\x1b")
    assert "the policy allowed own.Gate until 2026-01-02, which has passed" in told(
        Scan((file("a.pkl", sign(Level.SUSPICIOUS, "x")),), expired=(item,))
    )
    scan = Scan((file("a.pkl"),), ((sign(Level.SUSPICIOUS, "x"), item),))
    assert told(scan) == ["passed  1 file: 1 clean; 1 found and allowed by the policy"]
    assert "allowed    own.Gate until 2026-01-02: Ada\\x1b" in told(scan, verbose=True)


def test_a_scan_that_was_stopped_never_says_passed() -> None:
    assert told(Scan((file("a.pkl"),)), total=9)[0] == "interrupted  after 1 of 9 files"
    assert told(Scan(()), total=9)[0] == "interrupted  after 0 of 9 files"
    bad = file("a.pkl", sign(Level.MALICIOUS, "x"))
    assert told(Scan((bad,)), total=9)[0] == "FAILED  1 of 1 file is malicious: do not load it"
