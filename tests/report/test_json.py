from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.report import samples

from casemate.core.evidence import Direction, Evidence, Quantity
from casemate.core.judgement import rule
from casemate.core.outcome import Clean, Failed, Finding, Inconclusive, Severity, Skipped, SkipReason
from casemate.core.policy import Accepted, Gate, Policy
from casemate.core.report import Timings
from casemate.errors import FormatError
from casemate.formats import canonical
from casemate.report import json as report_json

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT / "tests" / "formats" / "golden" / "report-1.json"
GOLDEN = REAL.with_name("report-1-constructed.json")  # made by hand: every kind of outcome
REAL_DIGEST = "sha256:5616d88f82e27933ac7af22bedecf786aec2818a033f4ff146772ef0f4d9f51c"

words = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.one_of(st.booleans(), st.integers(-(2**53), 2**53), numbers, words)


@st.composite
def evidence(draw):
    low, value, high = sorted(draw(st.lists(numbers, min_size=3, max_size=3)))
    return Evidence(
        metric=draw(words),
        quantity=draw(st.sampled_from(Quantity)),
        value=value,
        low=low,
        high=high,
        n=draw(st.integers(0, 2**53)),
        unit=draw(words),
        confidence=draw(st.floats(0.01, 1.0)),
        interval=draw(words),
        method=draw(words),
        errs=draw(st.sampled_from(Direction)),
        about=draw(words),
        at=draw(st.dictionaries(words, values, max_size=2)),
        baseline=draw(st.none() | st.floats(0, 1e300)),
        files=draw(st.lists(words, max_size=2).map(tuple)),
    )


some_evidence = st.lists(evidence(), max_size=2).map(tuple)
severities = st.sampled_from(Severity)
outcomes = st.one_of(
    st.builds(Finding, words, words, words, severities, severities, words, some_evidence, words),
    st.builds(Clean, words, words, some_evidence),
    st.builds(Inconclusive, words, words, severities, words, some_evidence),
    st.builds(Skipped, words, st.sampled_from(SkipReason), words, words, some_evidence),
    st.builds(Failed, words, words, about=words),
)
bars = st.one_of(
    st.tuples(numbers, st.none()), st.tuples(st.none(), numbers), st.tuples(numbers, numbers).map(sorted).map(tuple)
)
gates = st.builds(
    lambda metric, at, about, bar: Gate(metric, at, about, *bar),
    words,
    st.dictionaries(words, values, max_size=2),
    words,
    bars,
)
policies = st.builds(
    Policy,
    severities,
    st.lists(gates, max_size=2).map(tuple),
    st.lists(st.builds(Accepted, words, st.dates(), words), max_size=2).map(tuple),
)


@st.composite
def reports(draw):
    found = tuple(draw(st.lists(outcomes, max_size=4)))
    policy = draw(policies)
    return replace(
        samples.passing(),
        outcomes=found,
        policy=policy,
        ruling=rule(found, policy, samples.TODAY),
        settings=draw(st.dictionaries(words, values | st.lists(values, max_size=2), max_size=3)),
        notes=tuple(draw(st.lists(words, max_size=2))),
    )


@given(reports())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_reads_back_as_the_same_report(report):
    written = report_json.dumps(report)
    again = report_json.loads(written)
    assert again == report
    assert report_json.dumps(again) == written
    assert report_json.digest(again) == report_json.digest(report)


@given(reports())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_fits_the_schema(report):
    jsonschema.validate(json.loads(report_json.dumps(report)), report_json.schema(), jsonschema.Draft202012Validator)


def test_a_real_report_of_version_1_reads_for_ever():
    # An audit of the digits example, whose budget ended in the membership probe.
    written = REAL.read_bytes()
    report = report_json.loads(written)
    assert (report.name, report.ruling.exit_code) == ("digits", 1)
    (finding,) = report.findings
    assert (finding.id, finding.severity) == ("evasion/standard#ec6ba48fe491", Severity.CRITICAL)
    assert [(item.at["eps"], item.value, item.n) for item in finding.evidence] == [
        (0.05, 45 / 64, 64),
        (0.1, 1 / 64, 64),
        (0.2, 0.0, 64),
    ]
    assert [(o.plugin, o.reason) for o in report.untested] == [
        ("fairness/group_gaps", SkipReason.NOT_APPLICABLE),
        ("privacy/membership", SkipReason.BUDGET),
    ]
    assert report_json.digest(report) == REAL_DIGEST
    assert report_json.dumps(report) == written
    jsonschema.validate(json.loads(written), report_json.schema(), jsonschema.Draft202012Validator)


def test_the_constructed_report_of_version_1_reads_for_ever():
    written = GOLDEN.read_bytes()
    report = report_json.loads(written)
    assert report.name == "digits-cnn"
    assert report.ruling.exit_code == 1
    assert [str(finding.severity) for finding in report.findings] == [
        "high",
        "high",
        "medium",
        "medium",
        "medium",
        "low",
        "low",
    ]
    jsonschema.validate(json.loads(written), report_json.schema(), jsonschema.Draft202012Validator)


def test_the_committed_schema_is_the_code():
    made = runpy.run_path(str(ROOT / "scripts" / "write_schemas.py"))["schemas"]()
    for name, text in made.items():
        assert (ROOT / "schemas" / name).read_bytes() == text, "run scripts/write_schemas.py"


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(report_json.schema())


def test_the_digest_leaves_out_timings_and_nothing_else():
    report = samples.report()
    assert report_json.digest(replace(report, timings=Timings())) == report_json.digest(report)
    assert report_json.digest(replace(report, seed=8)) != report_json.digest(report)
    assert report_json.digest(replace(report, notes=())) != report_json.digest(report)


def test_a_float_that_is_written_like_a_large_integer_reads_back():
    # Found by the law above: 2**53 + 2 as a float was written without a point and read as an integer JSON cannot hold.
    report = replace(samples.report(), settings={"eps": float(2**53 + 2)})
    assert report_json.loads(report_json.dumps(report)) == report


def test_an_infinite_number_is_refused_when_writing():
    with pytest.raises(FormatError, match="finite"):
        report_json.dumps(replace(samples.report(), settings={"eps": float("inf")}))


def test_a_key_added_later_takes_its_default():
    plain = json.loads(GOLDEN.read_bytes())
    del plain["calibrations"]
    assert report_json.loads(json.dumps(plain)).calibrations == {}


def _set(plain, path, value):
    *way, last = path
    for step in way:
        plain = plain[step]
    plain[last] = value


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (["version"], 2, "version 1"),
        (["version"], None, "version 1"),
        (["surprise"], 1, r"\$\.surprise"),
        (["ruling", "surprise"], 1, r"\$\.ruling\.surprise"),
        (["outcomes", 0, "evidence", 0, "surprise"], 1, "surprise"),
        (["seed"], "7", "seed"),
        (["policy", "accepted", 0, "until"], 0, "until"),
        (["seed"], 7.5, "seed"),
        (["seed"], True, "seed"),
        (["name"], None, "name"),
        (["ruling", "status"], "fine", "ruling.status"),
        (["outcomes", 0, "outcome"], "miracle", "outcomes.0"),
        (["outcomes", 0], 3, "outcomes.0"),
        (["outcomes", 0, "severity"], "terrible", "severity"),
        (["outcomes", 0, "evidence", 0, "value"], "0.5", "value"),
        (["outcomes", 0, "evidence", 0, "value"], 9.0, "against the law"),
        (["policy", "accepted", 0, "until"], "some day", "until"),
        (["data", "test", "shape"], "wide", "shape"),
    ],
)
def test_what_this_release_would_not_write_is_refused(path, value, says):
    plain = json.loads(GOLDEN.read_bytes())
    _set(plain, path, value)
    with pytest.raises(FormatError, match=says):
        report_json.loads(json.dumps(plain))


def test_an_outcome_without_its_tag_is_refused():
    # `outcome` has a default in the records, so a finding without it could be read as a clean result.
    plain = json.loads(GOLDEN.read_bytes())
    del plain["outcomes"][0]["outcome"]
    with pytest.raises(FormatError, match="an outcome"):
        report_json.loads(json.dumps(plain))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"version": 1}', '{"a": 1, "a": 2}'])
def test_other_bytes_are_refused(text):
    with pytest.raises(FormatError):
        report_json.loads(text)


def test_numbers_written_by_another_tool_are_the_same_numbers():
    plain = json.loads(GOLDEN.read_bytes())
    text = json.dumps(plain).replace('"confidence": 0.95', '"confidence": 0.950')
    assert canonical.digest(json.loads(text)) == canonical.digest(plain)
    assert report_json.loads(text) == report_json.loads(GOLDEN.read_bytes())


@pytest.mark.parametrize("status", ["passed", "undecided"])
def test_a_verdict_that_its_gates_contradict_is_refused(status):
    # A report with a failed gate and the word "passed" was rendered as passed.
    given = json.loads(report_json.dumps(samples.report()))
    given["ruling"]["status"] = status
    with pytest.raises(FormatError, match=f"expected the verdict failed that the gates give, got {status}"):
        report_json.loads(json.dumps(given))
    given["ruling"] |= {"status": "passed", "gates": []}
    with pytest.raises(FormatError, match="expected the verdict undecided"):
        report_json.loads(json.dumps(given))
