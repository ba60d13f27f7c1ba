"""The commands that need no audit: their words, their exit codes, and what they never do."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.report import samples

from casemate import cli
from casemate.cli import _settings
from casemate.errors import ConfigError
from casemate.report import json as report_json

SCRIPT = "import sys; from casemate.cli import main; main()"


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "casemate-report"
    found.mkdir()
    (found / "report.json").write_bytes(report_json.dumps(samples.report()))
    return found


def asked(capsys, *arguments):
    code = cli.run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_without_a_command_it_shows_the_help(capsys):
    code, out, err = asked(capsys)
    assert (code, err) == (0, "")
    for command in ("init", "audit", "explain", "replay", "compare", "list", "doctor"):
        assert f"\n  {command} " in out


def test_the_help_of_every_command_fits_on_its_line(capsys):
    assert "..." not in asked(capsys, "--help")[1].split("Commands:")[1]


@pytest.mark.parametrize("command", ["init", "audit", "explain", "replay", "compare", "list", "doctor"])
def test_every_command_has_help(capsys, command):
    code, out, _ = asked(capsys, command, "--help")
    assert code == 0
    assert f"Usage: casemate {command}" in out


def test_the_version_is_that_of_the_package(capsys):
    assert asked(capsys, "--version")[:2] == (0, "casemate 0.1.0\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["audti"],
        ["list", "nonsense"],
        ["list", "--nonsense"],
        ["explain"],
        ["audit", "--threads", "0"],
        ["compare", "a"],
    ],
)
def test_a_usage_error_is_2_and_one_block_on_stderr(capsys, arguments):
    code, out, err = asked(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ")
    assert err.count("error:") == 1
    assert "Traceback" not in err


def test_explain_says_what_how_which_way_and_again(capsys, folder):
    code, out, _ = asked(capsys, "explain", "evasion/standard#356dd09f02f8", "--report", folder)
    assert code == 0
    for part in (
        "high: Changes too small",
        "AML.T0015",
        "at most 0.083 [0.067, 0.102]",
        "APGD, then Square",
        "can only lower it",
    ):
        assert part in out
    assert f"casemate replay 'evasion/standard#356dd09f02f8' --report {folder} --config CONFIG\n" in out
    assert "95 % interval: Clopper-Pearson" in out


def test_explain_takes_the_beginning_of_an_id_and_the_fingerprint_alone(capsys, folder):
    whole = asked(capsys, "explain", "evasion/standard#356dd09f02f8", "--report", folder)[1]
    assert asked(capsys, "explain", "evasion/standard#3", "--report", folder)[1] == whole
    assert asked(capsys, "explain", "356dd", "--report", folder)[1] == whole


def test_explain_names_the_candidates_of_an_ambiguous_beginning(capsys, folder):
    code, _, err = asked(capsys, "explain", "evasion/standard#", "--report", folder)
    assert code == 2
    assert "evasion/standard#356dd09f02f8" in err


def test_explain_a_plugin_shows_every_outcome_of_it_in_the_report(capsys, folder):
    code, out, _ = asked(capsys, "explain", "fairness/group_gaps", "--report", folder)
    assert code == 0
    assert "medium: Groups are given" in out
    assert "inconclusive, could be medium" in out
    assert "clean: fairness.selection_gap: race" in out


def test_explain_counts_notes_unless_asked_for(capsys, folder):
    brief = asked(capsys, "explain", "evasion/standard", "--report", folder)[1]
    assert "certified_accuracy" not in brief
    assert "4 notes, measured and not judged: -v lists them." in brief
    verbose = asked(capsys, "explain", "evasion/standard", "--report", folder, "-v")[1]
    assert "certified_accuracy" in verbose
    noted = asked(capsys, "explain", "preflight/accuracy", "--report", folder)[1]
    assert "0.986 [0.977, 0.992]" in noted


@pytest.mark.parametrize("plugin", ["evasion/trees", "extraction/knockoff"])
def test_explain_says_why_something_was_not_tested(capsys, folder, plugin):
    code, out, _ = asked(capsys, "explain", plugin, "--report", folder)
    assert code == 0
    assert "lightgbm" in out or "503" in out


def test_explain_a_plugin_needs_no_report(capsys, tmp_path):
    code, out, _ = asked(capsys, "explain", "fairness/group_gaps", "--report", tmp_path)
    assert code == 0
    assert "Hardt" in out
    assert "fairness.selection_gap" in out


def test_explain_a_finding_without_its_report_is_a_usage_error(capsys, tmp_path):
    code, _, err = asked(capsys, "explain", "fairness/group_gaps#123", "--report", tmp_path)
    assert code == 2
    assert "there is no report" in err


def test_a_report_that_was_changed_by_hand_is_refused(capsys, folder):
    path = folder / "report.json"
    path.write_bytes(path.read_bytes().replace(b'"seed": 7', b'"seed": "7"'))
    code, out, err = asked(capsys, "explain", "evasion/standard#3", "--report", folder)
    assert (code, out) == (2, "")
    assert "expected  7" in err


def test_compare_shows_the_difference_with_an_interval(capsys, folder, tmp_path):
    report = samples.report()
    items = [samples.SELECTION.measured(samples.share(0.051, 0.040, 0.064, 4000), method="all pairs", about="sex")]
    better = tuple(samples.judge("fairness/group_gaps", items))
    other = tmp_path / "other"
    other.mkdir()
    (other / "report.json").write_bytes(report_json.dumps(replace(report, outcomes=better)))
    code, out, _ = asked(capsys, "compare", folder, other)
    assert code == 0
    lines = out.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith("fairness.selection_gap")]
    # independent measurements: [0.040 - 0.204, 0.064 - 0.161]
    assert lines[at].split() == ["fairness.selection_gap", "0.182", "0.051", "-0.131", "differs"]
    assert lines[at + 1].split() == ["sex", "[-0.164,", "-0.097]"]
    assert "not paired" in out


@pytest.mark.parametrize("width", ["80", "100"])
def test_a_comparison_breaks_no_word_and_says_how_sure_it_is(capsys, folder, monkeypatch, width):
    from casemate import _compare

    name = "preflight.scores_not_probabilities"  # the longest
    rows = [
        _compare.Difference(name, "test", "eps = 0.1", 0.9, 0.5, -0.5, -0.3, 16_281, paired=True, p=0.0021),
        _compare.Difference("a.b", "", "", 0.9, 0.8, -0.2, -0.01, 128, paired=True, p=0.2),
        _compare.Difference("a.noted", "", "", 0.9, 0.8, -0.2, -0.01, 128, paired=False, noted=True),
        _compare.Difference("a.same", "", "", 0.0, 0.0, 0.0, 0.0, 128, paired=False),
    ]
    monkeypatch.setattr(_compare, "compare", lambda a, b: rows)
    monkeypatch.setenv("COLUMNS", width)
    out = asked(capsys, "compare", folder, folder)[1]
    for part in (
        name,
        "differs",
        "p = 0.002",
        "unclear",
        "p = 0.200",
        "[-0.500, -0.300]",
        "n = 16,281, paired",
        "Holm",
    ):
        assert part in out
    assert max(len(line) for line in out.split("p: McNemar")[0].splitlines()) <= int(width)
    assert "a.noted" not in out
    assert "Not shown: 1 measurement that came out the same and 1 note; -v shows all." in out
    out = asked(capsys, "compare", folder, folder, "-v")[1]
    assert "a.noted" in out
    assert "a.same" in out


def test_compare_says_so_when_nothing_is_shared(capsys, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "report.json").write_bytes(report_json.dumps(replace(samples.report(), outcomes=())))
    code, out, _ = asked(capsys, "compare", folder, other)
    assert (code, out) == (0, "The two reports share no measurement.\n")


def test_compare_without_a_report_is_a_usage_error(capsys, folder, tmp_path):
    assert asked(capsys, "compare", folder, tmp_path / "nothing")[0] == 2


def test_replay_of_an_unknown_finding_is_told_before_the_model_is_loaded(capsys, folder):
    code, _, err = asked(capsys, "replay", "nonsense", "--report", folder, "--config", "not-there.toml")
    assert code == 2
    assert "evasion/standard#356dd09f02f8" in err


@pytest.mark.parametrize(
    ("what", "part"),
    [("plugins", "fairness/group_gaps"), ("threats", "AML.T0015"), ("metrics", "fairness.selection_gap")],
)
def test_list_shows_the_catalogue(capsys, what, part):
    code, out, _ = asked(capsys, "list", what)
    assert code == 0
    assert part in out


def test_listing_runs_shows_them_and_makes_no_store(capsys, tmp_path):
    where = tmp_path / "store"
    assert asked(capsys, "list", "runs", "--store", where)[0] == 0
    assert not where.exists()
    from casemate.store import open_store

    store = open_store(where)
    run = store.begin("digits", "sha256:0", "out")
    store.close()
    code, out, _ = asked(capsys, "list", "runs", "--store", where)
    assert code == 0
    assert run in out
    assert "running" in out


@pytest.mark.parametrize("width", ["80", "100"])
def test_a_run_keeps_its_id_and_its_time_whole(capsys, tmp_path, monkeypatch, width):
    from casemate.store import open_store

    store = open_store(tmp_path / "store")
    run = store.begin("a model with quite a long name", "sha256:0", "/a/very/long/path" * 6)
    created = store.runs()[0].created
    store.close()
    monkeypatch.setenv("COLUMNS", width)
    out = asked(capsys, "list", "runs", "--store", tmp_path / "store")[1]
    row = next(line for line in out.splitlines() if line.startswith(run))
    assert f"{created[:10]} {created[11:16]} UTC" in row
    assert "running" in row
    assert max(map(len, out.splitlines())) <= int(width)


def test_a_wrong_choice_is_told_without_the_words_of_a_library(capsys):
    err = asked(capsys, "audit", "--profile", "nonsense")[2]
    assert "Value error" not in err
    assert "Invalid value for '--profile': 'nonsense' is not one of 'quick', 'standard', 'full'." in err


def test_a_database_that_is_not_there_is_3(capsys):
    code, _, err = asked(capsys, "list", "runs", "--store", "postgresql+nonsense://localhost/x")
    assert (code, err.count("error:")) == (3, 1)


def test_doctor_finds_nothing_wrong_here(capsys, tmp_path):
    code, out, _ = asked(capsys, "doctor", "--store", tmp_path / "store")
    assert code == 0
    assert "scikit-learn" in out
    assert not (tmp_path / "store").exists()


def test_doctor_says_3_when_the_store_cannot_be_written(capsys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, out, _ = asked(capsys, "doctor", "--store", blocked)
    assert code == 3
    assert "not a writable folder" in out


def test_options_on_the_command_line_are_toml_values():
    given = _settings.given_options(["evasion/standard.eps=[0.1, 0.2]", "evasion/standard.norm=l2", "a/b.n = 3"])
    assert given == {"evasion/standard": {"eps": [0.1, 0.2], "norm": "l2"}, "a/b": {"n": 3}}


@pytest.mark.parametrize("text", ["", "a/b", "a/b.n", "=3", ".n=3", "a/b.=3", "n=3"])
def test_an_option_of_another_form_is_refused(text):
    with pytest.raises(ConfigError, match="--set"):
        _settings.given_options([text])


@pytest.mark.parametrize(
    ("given", "prepared"),
    [
        (["audit", "--resume"], ["audit", "--resume", "last"]),
        (["audit", "--resume", "--seed", "1"], ["audit", "--resume", "last", "--seed", "1"]),
        (["audit", "--resume", "my.toml"], ["audit", "--resume", "last", "my.toml"]),
        (["audit", "--resume", "5f2c9a77d01b34e8", "my.toml"], ["audit", "--resume", "5f2c9a77d01b34e8", "my.toml"]),
        (["audit", "--resume", "last"], ["audit", "--resume", "last"]),
    ],
)
def test_resume_alone_means_the_last_run(given, prepared):
    assert cli._resumable(given) == prepared


def process(*arguments, cwd, **variables):
    environment = {**os.environ, **variables}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_reader_that_leaves_is_no_error(tmp_path):
    running = process("list", "metrics", cwd=tmp_path)
    running.stdout.close()
    assert running.stderr.read() == b""
    running.stderr.close()
    assert running.wait() == 0


def test_without_a_terminal_there_is_no_colour_and_an_old_encoding_is_no_error(tmp_path):
    running = process("list", "plugins", cwd=tmp_path, PYTHONIOENCODING="ascii")
    out, err = running.communicate()
    assert (running.returncode, err) == (0, b"")
    assert b"\x1b" not in out
    assert b"fairness/group_gaps" in out
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize("value", ["[" * 3000, "9" * 5000])
def test_a_value_without_end_is_told_and_not_thrown(value, tmp_path, capsys):
    (tmp_path / "casemate.toml").write_text("")
    code = cli.run(["audit", str(tmp_path / "casemate.toml"), "--set", f"evasion/standard.samples={value}"])
    assert (code, "Traceback" in capsys.readouterr().err) == (2, False)


def test_init_names_no_file_that_is_not_there(tmp_path, capsys):
    assert cli.run(["init", str(tmp_path), "--model", str(tmp_path / "gone.onnx")]) == 2
    assert "gone.onnx, got nothing" in " ".join(capsys.readouterr().err.replace("\n  got ", ", got").split())
    assert list(tmp_path.iterdir()) == []
