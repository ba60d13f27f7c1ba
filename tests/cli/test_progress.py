from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.cli import _progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(_progress.time, "monotonic", made)
    return made


# ---------------------------------------------------------------------------------------------------------- time left


@given(each=st.floats(0.01, 1e4), total=st.integers(3, 300), recalled=st.integers(0, 100), done=st.integers(2, 299))
def test_even_shards_are_told_exactly_whatever_a_resumed_run_found_finished(each, total, recalled, done):
    clock = Clock()
    pace = _progress.Pace(clock)
    recalled = min(recalled, total - 3)
    done = min(done, total - recalled - 1)
    pace.tell("a/b", recalled, total)
    for shard in range(1, done + 1):
        clock.now = shard * each
        pace.tell("a/b", recalled + shard, total)
    assert pace.left() == pytest.approx(each * (total - recalled - done))


def test_nothing_is_foretold_from_less_than_two_shards_or_when_all_are_done():
    clock = Clock()
    pace = _progress.Pace(clock)
    told = []
    for done in range(5):
        clock.now += 10
        pace.tell("a/b", done, 4)
        told.append(pace.left())
    assert told == [None, None, 20.0, 10.0, None]


def test_between_two_shards_it_counts_down_and_never_below_nothing():
    clock = Clock()
    pace = _progress.Pace(clock)
    for done in range(3):
        clock.now = 10.0 * done
        pace.tell("a/b", done, 5)
    told = []
    for later in (0, 5, 25, 100):
        clock.now = 20.0 + later
        told.append(pace.left())
    assert told == [30.0, 25.0, 5.0, 0.0]


@pytest.mark.parametrize("again", [("a/b", 0, 4), ("a/b", 3, 9), ("c/d", 3, 4)])
def test_another_round_or_plug_in_is_measured_anew(again):
    clock = Clock()
    pace = _progress.Pace(clock)
    for done in range(4):
        clock.now += 10
        pace.tell("a/b", done, 4)
    assert pace.left() == 10.0
    pace.tell(*again)
    assert pace.left() is None


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_longer_time_is_never_told_as_a_shorter_one_and_is_right_within_its_step(a, b):
    order = ["a few", "s left", "min left"]
    short, long = (_progress.spoken(seconds) for seconds in sorted((a, b)))

    def size(text):
        digits = [int(part) for part in text.split() if part.isdigit()]
        kind = next(i for i, part in enumerate(order) if part in text)
        if " h " in text:
            return 60.0 * (60 * digits[0] + digits[1])
        return 0.0 if kind == 0 and "few" in text else float(digits[0]) * (60 if "min" in text else 1)

    assert size(short) <= size(long)
    for seconds in (a, b):
        assert abs(size(_progress.spoken(seconds)) - seconds) <= max(7.5, 30.0 if seconds > 57 else 0.0)


# --------------------------------------------------------------------------------------------------------------- lines


def test_the_first_two_seconds_are_silent(capsys):
    with _progress.progress() as update:
        update("audit", 0, 3)
        update("evasion/standard", 1, 10)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_is_a_plain_line_now_and_then(capsys, clock):
    with _progress.progress() as update:
        for second in range(24):
            clock.now = float(second)
            update("evasion/standard", second, 24)
    assert capsys.readouterr().err.splitlines() == [
        "evasion/standard: 2 of 24, about 20 s left",
        "evasion/standard: 12 of 24, about 10 s left",
        "evasion/standard: 22 of 24, a few seconds left",
    ]


def test_without_a_terminal_each_plug_in_says_that_it_begins_and_which_of_how_many_it_is(capsys, clock):
    with _progress.progress() as update:
        for second, name, done, total in (
            (1, "audit", 0, 3),
            (1, "a/quick", 0, 1),
            (2, "audit", 1, 3),
            (3, "a/long", 3, 2000),
            (4, "a/long", 4, 2000),
            (5, "audit", 2, 3),
            (5, "b/next", 0, 2000),
            (9, "b/next", 4, 2000),
            (15, "b/next", 10, 2000),
        ):
            clock.now = float(second)
            update(name, done, total)
    told = ["2/3 a/long: 3 of 2,000", "3/3 b/next: 0 of 2,000", "3/3 b/next: 10 of 2,000, about 33 min left"]
    assert capsys.readouterr().err.splitlines() == told


# ---------------------------------------------------------------------------------------------------------------- bars


def on_terminal(monkeypatch, updates, until):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(_progress, "_QUIET", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with _progress.progress() as update:
        for order in updates:
            update(*order)
        for _ in range(200):
            if until in stream.getvalue():
                break
            _progress.time.sleep(0.02)
    return stream.getvalue()


def test_a_terminal_gets_a_bar_for_the_audit_and_one_for_the_plug_in_at_work(monkeypatch):
    updates = [("audit", 4, 27), ("preflight/bounds", 0, 1), ("audit", 5, 27), ("evasion/standard", 1, 10)]
    shown = on_terminal(monkeypatch, updates, "1/10")
    assert "1/10" in shown
    assert "5/27" in shown
    assert "evasion/standard" in shown
    last = shown.rpartition("5/27")[2]
    assert "preflight/bounds" not in last, "a plug-in that is done leaves no bar behind"


def test_a_terminal_is_told_the_time_left(monkeypatch):
    updates = [("evasion/standard", done, 1000) for done in range(4)]
    assert "left" in on_terminal(monkeypatch, updates, "left")


def test_a_bar_that_never_came_up_leaves_nothing(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with _progress.progress() as update:
        update("evasion/standard", 1, 10)
    assert "evasion" not in stream.getvalue()
