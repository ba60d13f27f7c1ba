"""SARIF: valid by the standard's schema, every rule declared, the same fingerprints from run to run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report import samples

from casemate.core.outcome import Failed, Finding, Inconclusive, Skipped
from casemate.core.report import Timings
from casemate.report import rendered, sarif

SCHEMA = Path(__file__).parents[1] / "formats" / "sarif" / "sarif-2.1.0-rtm.5.json"
VALIDATOR = jsonschema.Draft4Validator(
    json.loads(SCHEMA.read_text(encoding="utf-8")), format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER
)
HOSTILE = "</script>[click](https://evil.example) {0} | `x` @all ‮ \x00\x0b"


def log(report=None, **more):
    found = json.loads(sarif.render(report or samples.report(), **more))
    VALIDATOR.validate(found)
    assert list(found["runs"]) == found["runs"][:1]
    return found["runs"][0]


def of_kind(run, kind):
    return [result for result in run["results"] if result["kind"] == kind]


def test_the_log_says_what_the_report_says():
    report = samples.report()
    run = log(report)
    assert run["tool"]["driver"]["version"] == "0.1.0"
    prints = [result["partialFingerprints"]["casemateFinding/v1"] for result in of_kind(run, "fail")]
    assert prints == [finding.fingerprint for finding in report.findings]
    levels = {"critical": "error", "high": "error", "medium": "warning", "low": "note"}
    assert [r["level"] for r in of_kind(run, "fail")] == [levels[f.severity] for f in report.findings]
    assert len(of_kind(run, "open")) == sum(isinstance(o, Inconclusive) for o in report.outcomes) == 1
    assert len(run["results"]) == len(report.findings) + 1
    (invocation,) = run["invocations"]
    assert (invocation["exitCode"], invocation["executionSuccessful"]) == (1, False)
    assert (invocation["startTimeUtc"], invocation["endTimeUtc"]) == ("2026-11-22T09:54:48Z", "2026-11-22T10:00:00Z")


def test_every_plug_in_that_ran_is_a_rule_found_something_or_not_and_all_references_hold():
    report = samples.report()
    run = log(report)
    rules = run["tool"]["driver"]["rules"]
    ids = [rule["id"] for rule in rules]
    assert ids == sorted({o.plugin for o in report.outcomes} | set(report.plugins))
    assert {"poisoning/strip", "preflight/accuracy"} <= set(ids)
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
    notices = [n for part in ("Execution", "Configuration") for n in run["invocations"][0][f"tool{part}Notifications"]]
    assert all(ids[n["associatedRule"]["index"]] == n["associatedRule"]["id"] for n in notices)
    assert {n["descriptor"]["id"] for n in notices} == {n["id"] for n in run["tool"]["driver"]["notifications"]}
    evasion = rules[ids.index("evasion/standard")]
    assert evasion["helpUri"] == "https://arxiv.org/abs/2003.01690"
    assert {"security", "evasion", "OWASP ML ML01"} <= set(evasion["properties"]["tags"])
    assert evasion["properties"]["security-severity"] == "8.0"
    assert all("casemate explain" in rule["help"]["text"] for rule in rules)


def test_what_was_not_tested_is_told_and_never_a_result():
    report = samples.report()
    run = log(report)
    told = {n["associatedRule"]["id"]: n for n in run["invocations"][0]["toolConfigurationNotifications"]}
    assert set(told) == {o.plugin for o in report.outcomes if isinstance(o, Skipped)}
    levels = {name: n["level"] for name, n in told.items()}
    assert levels == {"privacy/inversion": "note", "evasion/trees": "warning", "poisoning/influence": "warning"}
    (broken,) = run["invocations"][0]["toolExecutionNotifications"]
    assert broken["level"] == "error"
    assert "503" in broken["message"]["text"]
    untested = {o.plugin for o in report.outcomes if isinstance(o, Skipped | Failed)}
    assert not untested & {result["ruleId"] for result in run["results"]}


def test_an_accepted_finding_is_suppressed_with_its_reason_and_all_others_are_not():
    report = samples.report()
    results = log(report)["results"]
    assert all("suppressions" in result for result in results), "on all results or on none"
    (accepted,) = [result for result in results if result["suppressions"]]
    assert accepted["properties"]["finding"] in report.ruling.accepted
    (suppression,) = accepted["suppressions"]
    assert suppression["justification"] == "Accepted until 2027-03-31: the last layer is a softmax on purpose"


def test_another_run_of_the_same_audit_differs_in_times_only():
    first = samples.report()
    later = replace(first, timings=Timings("aaaabbbbccccdddd", "2027-01-01T00:00:00+00:00", 12.0, "inline", {}))
    a, b = log(first), log(later)
    assert a["results"] == b["results"]
    assert a["tool"] == b["tool"]
    assert a["automationDetails"] != b["automationDetails"]


def test_a_finding_points_at_its_section_of_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "my models" / "größe.toml"
    config.parent.mkdir()
    config.write_text('# x\n[model]\npath = "m"\n\n[ probe . "evasion/standard" ]\neps = 0.1\n', encoding="utf-8")
    run = log(config=Path("my models/größe.toml"))
    lines = {r["ruleId"]: r["locations"][0]["physicalLocation"] for r in run["results"]}
    assert lines["evasion/standard"]["region"] == {"startLine": 5}
    assert lines["fairness/group_gaps"]["region"] == {"startLine": 2}
    assert lines["evasion/standard"]["artifactLocation"] == {"uri": "my%20models/gr%C3%B6%C3%9Fe.toml", "index": 0}
    assert run["artifacts"][0]["location"]["uri"] == "my%20models/gr%C3%B6%C3%9Fe.toml"
    elsewhere = log(config=Path("/nowhere/casemate.toml"))["results"][0]["locations"][0]["physicalLocation"]
    assert elsewhere == {
        "artifactLocation": {"uri": "file:///nowhere/casemate.toml", "index": 0},
        "region": {"startLine": 1},
    }


def test_hostile_names_stay_text():
    run = log(samples.report(label=HOSTILE, name=HOSTILE))
    texts = [r["message"]["text"] for r in run["results"]]
    assert any("evil.example" in text for text in texts)
    assert not any("](" in text for text in texts)
    assert "/" not in run["automationDetails"]["id"].split("/", 1)[1].rpartition("/")[0]


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_name_gives_a_valid_log(name):
    report = samples.report(label=name, name=name)
    run = log(report)
    assert len(of_kind(run, "fail")) == sum(isinstance(o, Finding) for o in report.outcomes)


@pytest.mark.parametrize("created", ["", "yesterday"])
def test_a_report_without_times_is_a_log_without_times(created):
    run = log(samples.report(timings=Timings(created=created)))
    assert not [key for key in run["invocations"][0] if key.endswith("Utc")]


def test_a_passing_report_has_rules_and_no_result():
    run = log(samples.passing())
    assert run["results"] == []
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["fairness/group_gaps"]
    assert run["invocations"][0]["exitCode"] == 0
    assert json.loads(rendered(samples.passing(), "sarif"))["runs"][0] == run
