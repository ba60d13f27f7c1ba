from __future__ import annotations

import io
import sys

from casemate.cli import _progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_first_two_seconds_are_silent(capsys):
    with _progress.progress() as update:
        update("evasion/standard", 1, 10)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_is_a_plain_line_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    with _progress.progress() as update:
        for second in range(24):
            now[0] = float(second)
            update("evasion/standard", second, 24)
    assert capsys.readouterr().err.splitlines() == [f"evasion/standard: {second} of 24" for second in (2, 12, 22)]


def test_without_a_terminal_each_plug_in_says_that_it_begins(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    with _progress.progress() as update:
        for second, name in (
            (1, "a/quick"),
            (3, "a/long"),
            (4, "a/long"),
            (5, "b/next"),
            (9, "b/next"),
            (15, "b/next"),
        ):
            now[0] = float(second)
            update(name, second, 2000)
    told = ["a/long: 3 of 2,000", "b/next: 5 of 2,000", "b/next: 15 of 2,000"]
    assert capsys.readouterr().err.splitlines() == told


def test_a_terminal_gets_a_bar_for_each_plug_in(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(_progress, "_QUIET", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    with _progress.progress() as update:
        update("evasion/standard", 1, 10)
        for _ in range(200):
            if "evasion/standard" in stream.getvalue():
                break
            _progress.time.sleep(0.02)
    assert "1/10" in stream.getvalue()


def test_a_bar_that_never_came_up_leaves_nothing(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with _progress.progress() as update:
        update("evasion/standard", 1, 10)
    assert "evasion" not in stream.getvalue()
