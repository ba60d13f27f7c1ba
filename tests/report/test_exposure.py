"""What the page says of a whole report: nothing that was left open looks like a pass, and the best mend comes first."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tests.report import samples

from casemate.core.judgement import Ruling, Status
from casemate.core.outcome import Clean, Failed, Finding, Inconclusive, Severity, Skipped, SkipReason
from casemate.report import exposure, html

PASS = Clean("a/b", "a.m", (samples.LEAK.measured(0.0, method="m", n=10),))
NOTE = Clean("a/b", "notes", (samples.CLEAN_ACCURACY.measured(0.9, method="m"),))
UNCLEAR = Inconclusive("a/b", "a.m", Severity.HIGH, "more samples")
BROKE = Failed("a/b", "ValueError")
NO_BUDGET = Skipped("a/b", SkipReason.BUDGET, "it ended")
ELSEWHERE = Skipped("a/b", SkipReason.NOT_APPLICABLE, "needs groups")


def finding(severity, mend="", plugin="a/b"):
    return Finding(plugin, "a.m", "bad", severity, severity, f"{severity}{len(mend)}", (), mend)


FOUND = finding(Severity.LOW)


def of(*outcomes, accepted=()):
    ruling = Ruling(Status.PASSED, (), tuple(accepted))
    return replace(samples.report(), outcomes=outcomes, ruling=ruling, plugins={}, policy=samples.passing().policy)


@pytest.mark.parametrize(
    ("outcomes", "state", "worst", "could_be"),
    [
        ((PASS,), "passed", "none", "none"),
        ((PASS, ELSEWHERE), "passed", "none", "none"),
        ((PASS, BROKE), "incomplete", "none", "none"),
        ((PASS, NO_BUDGET), "incomplete", "none", "none"),
        ((PASS, UNCLEAR), "unclear", "none", "high"),
        ((PASS, FOUND, UNCLEAR), "found", "low", "high"),
        ((NOTE,), "untested", "none", "none"),
        ((NOTE, BROKE), "untested", "none", "none"),
        ((ELSEWHERE,), "untested", "none", "none"),
    ],
)
def test_only_what_was_tested_without_a_doubt_is_told_as_nothing_found(outcomes, state, worst, could_be):
    report = of(*outcomes)
    (row,) = exposure.by_threat(report)
    assert (row.state, row.worst, row.could_be) == (state, worst, could_be)
    table = html.render(report).split('class="exposure"')[1].split("</table>")[0]
    assert ("nothing found" in table) == (state == "passed")
    assert len(re.findall('<i class="on">', table)) == row.worst.rank
    assert len(re.findall('<i class="maybe">', table)) == row.could_be.rank - row.worst.rank


def test_an_accepted_finding_is_neither_open_nor_nothing():
    (row,) = exposure.by_threat(of(PASS, FOUND, accepted=[FOUND.id]))
    assert (row.state, row.worst, row.open, row.accepted) == ("accepted", "none", 0, 1)


def test_the_worst_threat_comes_first_and_what_was_not_tested_before_what_passed():
    rows = exposure.by_threat(samples.report())
    assert [row.name for row in rows[:4]] == ["evasion", "bias", "setup", "membership_inference"]
    assert [str(row.worst) for row in rows[:4]] == ["high", "medium", "medium", "medium"]
    report = of(PASS, replace(ELSEWHERE, plugin="z/z"))
    assert [row.name for row in exposure.by_threat(report)] == ["z", "a"]


def test_the_mend_of_the_worst_findings_comes_first_then_that_of_most():
    found = [
        finding(Severity.LOW, "many low"),
        finding(Severity.LOW, "many low"),
        finding(Severity.HIGH, "one high"),
        finding(Severity.HIGH, "high and low"),
        finding(Severity.LOW, "high and low"),
        finding(Severity.CRITICAL),
        *(finding(Severity.LOW, f"other {i}") for i in range(9)),
    ]
    mends = exposure.best_mends(found)
    assert [mend.text for mend in mends] == ["high and low", "one high", "many low", "other 0", "other 1"]
    assert (mends[0].told, mends[0].worst) == ("1 high, 1 low", Severity.HIGH)


def test_what_broke_is_told_before_what_does_not_apply():
    groups = exposure.by_reason(samples.report())
    assert [(group.opens, len(group.items)) for group in groups] == [(True, 1), (True, 1), (True, 1), (False, 1)]
    assert isinstance(groups[0].items[0], Failed)
    assert groups[-1].items[0].reason is SkipReason.NOT_APPLICABLE
