"""`casemate report`: any format of any run, to a file or a pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from tests.report import samples

from casemate import cli
from casemate.core.report import Timings
from casemate.errors import UsageError
from casemate.report import FORMATS, acceptance, rendered
from casemate.report import json as report_json
from casemate.store import open_store

SCRIPT = "import sys; from casemate.cli import main; main()"
BEGINNINGS = {
    "html": b"<!doctype html>",
    "json": b"{",
    "sarif": b'{\n  "$schema"',
    "junit": b'<?xml version="1.0"',
    "markdown": b"## Casemate: digits-cnn",
    "cyclonedx": b'{\n  "$schema"',
}


def written(folder, report=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_bytes(report_json.dumps(report or samples.report()))
    return folder


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "casemate-report")
    return tmp_path


def asked(capfdbinary, *arguments):
    code = cli.run(["report", *map(str, arguments)])
    out, err = capfdbinary.readouterr()
    return code, out, err.decode()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_goes_to_a_pipe_or_into_a_file(capfdbinary, at, name):
    code, out, err = asked(capfdbinary, "--format", name)
    assert (code, err) == (0, "")
    assert out[:40].lower().startswith(BEGINNINGS[name].lower())
    code, nothing, _ = asked(capfdbinary, "casemate-report/report.json", "-f", name, "-o", "made")
    assert (code, nothing) == (0, b"")
    assert (at / "made").read_bytes() == out


def test_json_is_the_record_itself(capfdbinary, at):
    assert asked(capfdbinary, "-f", "json")[1] == (at / "casemate-report" / "report.json").read_bytes()


def test_every_format_of_the_command_is_one_of_the_registry():
    from casemate.cli.report import Format

    assert [str(form) for form in Format] == list(FORMATS)
    with pytest.raises(UsageError, match="pdf"):
        rendered(samples.report(), "pdf")


def test_sarif_points_into_the_configuration_that_is_named(capfdbinary, at):
    (at / "my.toml").write_text('[model]\npath = "m"\n\n[probe."evasion/standard"]\neps = 0.1\n')
    run = json.loads(asked(capfdbinary, "-f", "sarif", "--config", "my.toml")[1])["runs"][0]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("my.toml", 4)


def test_a_run_is_found_by_its_id_and_never_mistaken_for_another(capfdbinary, at):
    store = open_store(at / ".casemate")
    runs = {}
    for name in ("a", "b"):
        run = store.begin(name, "request", str(at / name))
        written(at / name, samples.report(name=name, timings=Timings(run=run)))
        store.finish(run, "failed", "digest", ())
        runs[name] = run
    unfinished = store.begin("c", "request", str(at / "c"))
    store.close()
    assert b"Casemate: a" in asked(capfdbinary, runs["a"])[1]
    assert asked(capfdbinary, "last")[::2] == (2, asked(capfdbinary, unfinished)[2])
    written(at / "a", samples.report(timings=Timings(run=runs["b"])))
    code, out, err = asked(capfdbinary, runs["a"])
    assert (code, out) == (2, b"")
    assert runs["b"] in err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nowhere"], "nowhere"),
        (["0123456789abcdef"], "0123456789abcdef"),
        (["-f", "pdf"], "pdf"),
        (["-o", "casemate-report"], "name a file in it"),
        (["-o", "no/such/folder/x"], "no/such/folder"),
        (["broken"], "expected"),
    ],
)
def test_a_wrong_order_is_2_and_writes_nothing(capfdbinary, at, arguments, part):
    (at / "broken").mkdir()
    (at / "broken" / "report.json").write_text("{}")
    before = sorted(at.rglob("*"))
    code, out, err = asked(capfdbinary, *arguments)
    assert (code, out) == (2, b"")
    assert part in err
    assert "Traceback" not in err
    assert sorted(at.rglob("*")) == before


def test_xml_keeps_its_encoding_where_the_terminal_has_another(at):
    written(at / "casemate-report", samples.report(name="größe 数"))
    command = [sys.executable, "-c", SCRIPT, "report", "-f", "junit"]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True)
    assert ElementTree.fromstring(done.stdout).get("name") == "casemate größe 数"


def test_of_two_acceptances_the_one_that_still_holds_is_told():
    from datetime import date

    from casemate.core.judgement import rule
    from casemate.core.policy import Accepted, Policy

    (first, *_) = samples.report().findings
    policy = Policy(
        accepted=(Accepted(first.plugin, date(2020, 1, 1), "old"), Accepted(first.id, date(2030, 1, 1), "new"))
    )
    report = samples.report(policy=policy)
    report = replace(report, ruling=rule(report.outcomes, policy, samples.TODAY))
    found = acceptance(report, first)
    assert found is not None
    assert found.reason == "new"
    assert acceptance(samples.passing(), first) is None
