"""`casemate bom`: a bill of an audited model, or of files of which nothing else is known."""

from __future__ import annotations

import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tests.cli.signing_app import asked
from tests.report import samples

from casemate.report import json as report_json


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_bytes(report_json.dumps(samples.report()))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"weights")
    (tmp_path / "booster.json").write_text('{"learner": {}}')
    return tmp_path


def bill(capfd, *arguments):
    code, out, err = asked(capfd, "bom", *arguments)
    assert (code, err) == (0, "")
    fault = JsonStrictValidator(SchemaVersion.V1_7).validate_str(out)
    assert fault is None, fault
    return json.loads(out)


def test_a_run_with_its_environment_and_its_files(capfd, at):
    made = bill(capfd, "run", "--model", "model")
    model = made["metadata"]["component"]
    assert [item["name"] for item in model["components"]] == ["weights.bin"]
    assert model["modelCard"]["quantitativeAnalysis"]
    assert {"numpy", "casemate"} <= {item["name"] for item in made["components"]}
    assert "components" not in bill(capfd, "run", "--no-environment")["metadata"]["component"]


@pytest.mark.parametrize("path", ["model", "model/weights.bin", "booster.json"])
def test_files_without_a_report(capfd, at, path):
    made = bill(capfd, path, "--no-environment")
    assert made["metadata"]["component"]["name"] == path.rpartition("/")[2]
    assert made["components"] == []
    assert asked(capfd, "bom", path, "--no-environment", "-o", "made.json")[:2] == (0, "")
    assert json.loads((at / "made.json").read_bytes()) == made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none",), "none"),
        (("model", "--model", "model"), "beside --model"),
        (("run", "--model", "none"), "No such file"),
        (("run", "-o", "model"), "got the folder"),
        (("run", "-o", "run/report.json"), "an --output of its own"),
        (("booster.json", "-o", "booster.json"), "an --output of its own"),
    ],
)
def test_wrong_use_exits_with_2(capfd, at, arguments, message):
    code, out, err = asked(capfd, "bom", *arguments)
    assert (code, out) == (2, "")
    assert message in err.replace(" got ", ", got ").replace(", , ", ", ") or message in err
    assert (at / "run" / "report.json").read_bytes() == report_json.dumps(samples.report())
