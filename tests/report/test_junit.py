"""JUnit: red exactly where the verdict is, and XML whatever things are called."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st
from tests.report import samples

from casemate.core.judgement import Status, rule
from casemate.core.outcome import Severity, Skipped, SkipReason
from casemate.core.policy import Accepted, Gate, Policy
from casemate.report import junit


def tree(report):
    return ElementTree.fromstring(junit.render(report))


def cases(root, suite=""):
    return {c.get("name"): c for s in root if suite in ("", s.get("name")) for c in s}


def ending(case):
    return next((child.tag for child in case if child.tag != "system-out"), "passed")


def test_one_case_for_each_gate_and_each_plug_in():
    report = samples.report()
    root = tree(report)
    gates = cases(root, "gates")
    wanted = {Status.PASSED: "passed", Status.FAILED: "failure", Status.UNDECIDED: "error"}
    assert {name: ending(case) for name, case in gates.items()} == {
        gate.gate: wanted[gate.status] for gate in report.ruling.gates
    }
    plugins = [f"{c.get('classname').removeprefix('casemate.')}/{c.get('name')}" for s in root[1:] for c in s]
    assert plugins == sorted({o.plugin for o in report.outcomes} | set(report.plugins))
    assert {name: ending(case) for name, case in cases(root).items() if name not in gates} == {
        "standard": "failure",
        "trees": "skipped",
        "knockoff": "error",
        "group_gaps": "error",  # its selection gap is medium, and could be high
        "influence": "skipped",
        "strip": "passed",
        "accuracy": "passed",
        "data": "passed",
        "model": "passed",  # its finding is accepted
        "membership": "passed",
        "inversion": "skipped",
    }
    assert "at most 0.083 [0.067, 0.102]" in cases(root)["standard"].find("failure").text
    assert "casemate[boost]" in cases(root)["trees"].find("skipped").get("message")


def test_the_counts_are_those_of_the_cases():
    root = tree(samples.report())
    for suite in [*root, root]:
        found = list(suite.iter("testcase"))
        assert int(suite.get("tests")) == len(found)
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(key)) == sum(case.find(tag) is not None for case in found), (suite.get("name"), key)


@given(
    bar=st.sampled_from(Severity),
    accepted=st.sets(st.sampled_from(sorted({o.plugin for o in samples.outcomes()}))),
    gates=st.sets(st.sampled_from([0.0, 0.05, 0.15, 0.3])),
    kept=st.sets(st.integers(0, len(samples.outcomes()) - 1)),
)
def test_it_is_red_exactly_where_the_verdict_is(bar, accepted, gates, kept):
    outcomes = [o for i, o in enumerate(samples.outcomes()) if i in kept]
    policy = Policy(
        bar,
        tuple(Gate("fairness.selection_gap", about="sex", max=top) for top in gates),
        tuple(Accepted(name, dt.date(2027, 1, 1), "seen") for name in accepted),
    )
    ruling = rule(outcomes, policy, samples.TODAY)
    root = tree(samples.report(policy=policy, outcomes=tuple(outcomes), ruling=ruling))
    assert (int(root.get("failures")) > 0) == (ruling.status is Status.FAILED)
    red = int(root.get("failures")) + int(root.get("errors"))
    assert (red == 0) == (ruling.status is Status.PASSED)


@given(st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"), max_size=30))
def test_a_name_that_xml_can_hold_comes_back_as_it_was(name):
    assert tree(samples.report(name=name)).get("name") == f"casemate {name}"


@given(st.text(max_size=30))
def test_any_name_gives_xml_with_every_case_in_it(name):
    report = samples.report(label=name, name=name)
    report = replace(report, outcomes=(*report.outcomes, Skipped(f"x/{name}", SkipReason.BUDGET, name)))
    wanted = len(report.ruling.gates) + len({o.plugin for o in report.outcomes} | set(report.plugins))
    assert int(tree(report).get("tests")) == wanted


def test_control_characters_are_written_as_escapes():
    text = junit.render(samples.report(name="a\x00\x1b[31m\ufffe\ud800b\n<&\"'>"))
    name = ElementTree.fromstring(text).get("name")
    assert name == "casemate a\\x00\\x1b[31m\\ufffe\\ud800b\n<&\"'>"
    assert text.isprintable() or set(c for c in text if not c.isprintable()) == {"\n"}
