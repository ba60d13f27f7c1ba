from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console
from tests.report import samples

from casemate.report import terminal, words


def shown(report, *, width=160, **options):
    console = Console(file=io.StringIO(), width=width, no_color=True, markup=True)
    console.print(terminal.verdict_table(report, **options))
    return console.file.getvalue()


def test_findings_come_first_and_the_verdict_last():
    text = shown(samples.report())
    order = [
        text.index(part) for part in ("Findings (6)", "Inconclusive (1)", "Not tested (4)", "Accepted (1)", "Gates (5)")
    ]
    assert order == sorted(order)
    assert text.rstrip().endswith("Failed: at least one gate does not hold.")


def test_a_number_has_its_interval_its_direction_and_its_size():
    text = shown(samples.report())
    assert "at most 0.083 [0.067, 0.102]  eps = 0.2, norm = L∞, n = 1,000" in text
    assert "at least 0.060 (6.0 × chance) [0.046, 0.077]" in text


def test_what_broke_is_never_folded_away():
    assert "extraction/knockoff: ValueError: the endpoint answered 503 four times" in shown(samples.report())


def test_passes_and_skips_are_counted_unless_asked_for():
    brief, verbose = shown(samples.report()), shown(samples.report(), verbose=True)
    assert "Passed (1)" in brief
    assert "fairness.selection_gap: race" not in brief
    assert "fairness.selection_gap: race" in verbose
    assert "needs gradients" not in brief
    assert "needs gradients" in verbose


def test_markup_in_a_name_is_text():
    assert "fairness.selection_gap: [bold]x[/nope]" in shown(samples.report(label="[bold]x[/nope]"))


def test_measurements_stand_in_the_order_of_eps_whatever_their_severity():
    values = {0.5: 0.2, 0.1: 0.85, 0.25: 0.6}
    items = [samples.ROBUST.measured(samples.share(v, v, v), method="m", at={"eps": eps}) for eps, v in values.items()]
    text = shown(replace(samples.report(), outcomes=tuple(samples.judge("a/b", items))))
    assert re.findall(r"eps = ([\d.]+)", text)[:3] == ["0.1", "0.25", "0.5"]


def test_where_not_all_fit_the_gravest_are_shown_still_in_order():
    items = [
        samples.ROBUST.measured(samples.share(v, v, v), method="m", at={"eps": round(1 - v, 3)})
        for v in (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.85)
    ]
    report = replace(samples.report(), outcomes=tuple(samples.judge("a/b", items)))
    text = shown(report)
    found = [float(eps) for eps in re.findall(r"eps = ([\d.]+), n =", text)]
    assert found == sorted(found)
    assert found[-6:] == [0.45, 0.55, 0.65, 0.75, 0.85, 0.95]
    assert "and 2 more" in text
    assert "and 2 more" not in shown(report, verbose=True)


@pytest.mark.parametrize("width", [80, 100])
def test_no_word_is_broken_on_a_narrow_terminal(width):
    text = shown(samples.report(), width=width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("evasion.robust_accuracy", "fairness/group_gaps#15ffd8c120e4", "inconclusive", "undecided"):
        assert word in text.lower()


def test_accepted_titles_begin_as_others_do():
    assert "The logits are probabilities  preflight/model#" in shown(samples.report())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (1.0, "1"),
        (40.0, "40"),
        (3e-7, "3e-07"),
        (-0.5, "-0.500"),
        (1234.5, "1,234"),
        (16281.0, "16,281"),
    ],
)
def test_numbers_have_one_form(value, text):
    assert words.number(value) == text


def test_a_name_cannot_steer_the_terminal():
    # A group whose name began with ESC ] 0 ; set the window's title, one with ESC [ 1 A wrote over the line above.
    text = shown(samples.report(label="a\x1b]0;pwn\x07\x1b[1A\u202e\x9b31m"))
    assert not set(text) & set("\x1b\x07\u202e\x9b")
    assert {"[U+001B]", "[U+202E]"} <= set(re.findall(r"\[U\+\w+\]", text))
