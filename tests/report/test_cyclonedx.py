"""CycloneDX 1.7: valid by the schema that its own library ships, with every measurement and its interval."""

from __future__ import annotations

import json
from dataclasses import replace

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.report import samples

from casemate.core.report import Timings
from casemate.report import cyclonedx

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_7)


def bill(report=None):
    text = cyclonedx.render(report or samples.report())
    fault = VALIDATOR.validate_str(text)
    assert fault is None, fault
    return json.loads(text)


def test_the_validator_is_one_that_refuses():
    broken = json.loads(cyclonedx.render(samples.report()))
    broken["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["value"] = 1.5
    assert VALIDATOR.validate_str(json.dumps(broken)) is not None


def test_the_model_is_what_the_bill_is_about():
    report = samples.report()
    made = bill(report)
    model = made["metadata"]["component"]
    assert (model["type"], model["name"]) == ("machine-learning-model", "digits-cnn")
    assert "hashes" not in model  # those of files; what was audited has a fingerprint
    facts = {p["name"]: p["value"] for p in model["properties"]}
    assert (facts["casemate:bundle"], facts["casemate:fingerprint"]) == (report.bundle, report.model)
    parameters = model["modelCard"]["modelParameters"]
    assert parameters["inputs"] == [{"format": "image 1 x 28 x 28"}]
    refs = {component["bom-ref"] for component in made["components"]}
    assert {item["ref"] for item in parameters["datasets"]} == refs == {"data/test", "data/train"}
    (train,) = [c for c in made["components"] if c["bom-ref"] == "data/train"]
    assert (train["type"], "hashes" in train) == ("data", False)
    told = {p["name"]: p["value"] for p in train["data"][0]["contents"]["properties"]}
    assert (told["casemate:rows"], told["casemate:digest"]) == ("20000", report.data["train"].digest)


def test_every_measurement_is_a_metric_with_its_interval():
    report = samples.report()
    metrics = bill(report)["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    evidence = [item for outcome in report.outcomes for item in outcome.evidence]
    assert len(metrics) == len(evidence)

    def key(name, value, low, high):
        return name, float(value), float(low), float(high)

    got = sorted(
        key(m["type"], m["value"], *m.get("confidenceInterval", dict.fromkeys("ab", m["value"])).values())
        for m in metrics
    )
    assert got == sorted(key(e.metric, e.value, e.low, e.high) for e in evidence)
    (worst,) = [m for m in metrics if m["value"] == "0.083"]
    assert worst["slice"] == "eps = 0.2, norm = linf, n = 1,000 (at most)"


def test_findings_are_where_a_reader_of_bills_looks_for_them():
    report = samples.report()
    made = bill(report)
    wanted = [f.id for f in report.findings if f.plugin.startswith(("evasion/", "privacy/"))]
    assert [v["id"] for v in made["vulnerabilities"]] == wanted
    assert made["vulnerabilities"][0]["ratings"][0]["severity"] == "high"
    card = made["metadata"]["component"]["modelCard"]["considerations"]
    assert [item["groupAtRisk"] for item in card["fairnessAssessments"]] == ["fairness.selection_gap: sex"]
    limits = " ".join(card["technicalLimitations"])
    for outcome in report.untested:
        assert f"{outcome.plugin} was not tested" in limits
    assert "Test rows are also in the training data" in limits


def test_an_accepted_vulnerability_says_until_when_and_why():
    from datetime import date

    from casemate.core.judgement import rule
    from casemate.core.policy import Accepted, Policy

    policy = Policy(accepted=(Accepted("evasion/standard", date(2027, 1, 1), "retired in March"),))
    report = samples.report(policy=policy)
    report = replace(report, ruling=rule(report.outcomes, policy, samples.TODAY))
    found = {v["id"].partition("#")[0]: v["analysis"] for v in bill(report)["vulnerabilities"]}
    assert found["evasion/standard"]["response"] == ["will_not_fix"]
    assert found["evasion/standard"]["detail"] == "accepted until 2027-01-01: retired in March"
    assert found["privacy/membership"] == {"state": "exploitable"}


def test_the_serial_number_belongs_to_the_audit_and_not_to_its_timings():
    first = samples.report()
    again = replace(first, timings=Timings())
    assert bill(first)["serialNumber"] == bill(again)["serialNumber"]
    assert bill(first)["serialNumber"] != bill(replace(first, seed=8))["serialNumber"]


@settings(max_examples=15)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_name_gives_a_valid_bill(name):
    assert bill(samples.report(label=name, name=name))["metadata"]["component"]["name"] == name
