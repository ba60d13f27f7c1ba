from __future__ import annotations

import io

import pytest
from rich.console import Console
from tests.report import samples

from casemate.report import terminal, words


def shown(report, **options):
    console = Console(file=io.StringIO(), width=160, no_color=True, markup=True)
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
    assert "at most 0.083 [0.067, 0.102]  eps = 0.2, norm = linf, n = 1,000" in text
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


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (1.0, "1"), (40.0, "40"), (3e-7, "3e-07"), (-0.5, "-0.500"), (1234.5, "1.23e+03")],
)
def test_numbers_have_one_form(value, text):
    assert words.number(value) == text
