"""From a folder with a model and a table to a verdict and back: init, audit, explain, replay, compare, resume."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from casemate import cli
from casemate.core.report import Timings
from casemate.report import json as report_json
from casemate.report import words

TOML = """
[model]
path = "model.skops"

[data]
test = "test.csv"
train = "train.csv"
target = "label"
sensitive = ["sex"]

[audit]
profile = "quick"
"""
FAIRNESS = ("--only", "fairness/group_gaps", "--set", "fairness/group_gaps.positive=yes")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in which a biased model and its data lie: the model gives women `yes` far less often."""
    folder = tmp_path_factory.mktemp("credit")
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        sex = rng.integers(0, 2, 1200)
        score = rng.normal(size=1200) + 2.0 * sex
        label = np.where(score + rng.normal(scale=0.3, size=1200) > 1.0, "yes", "no")
        frame = pd.DataFrame({"score": score, "sex": sex, "label": label})
        frame.to_csv(folder / f"{name}.csv", index=False)
        if name == "train":
            model = LogisticRegression().fit(frame[["score", "sex"]], frame["label"])
            skops.io.dump(model, folder / "model.skops")
    return folder


@pytest.fixture
def at(made, tmp_path, monkeypatch):
    """A copy of that folder as the working directory, with a casemate.toml."""
    for file in made.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "casemate.toml").write_text(TOML)
    return tmp_path


def asked(capsys, *arguments):
    code = cli.run(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_init_writes_a_configuration_that_audits_and_never_overwrites_one(capsys, at):
    (at / "casemate.toml").unlink()
    code, out, _ = asked(capsys, "init")
    assert code == 0
    text = (at / "casemate.toml").read_text()
    assert text in out
    for part in ("model.skops", "test.csv", "train.csv", "label", "sex"):
        assert part in text
    (at / "casemate.toml").write_text(text + "# mine\n")
    code, _, err = asked(capsys, "init")
    assert (code, err.count("--force")) == (2, 1)
    assert (at / "casemate.toml").read_text().endswith("# mine\n")
    assert asked(capsys, "init", "--force")[0] == 0
    assert asked(capsys, "audit", *FAIRNESS)[0] == 1


def test_init_where_there_is_nothing_writes_nothing(capsys, tmp_path):
    assert asked(capsys, "init", str(tmp_path))[0] == 2
    assert asked(capsys, "init", str(tmp_path / "nowhere"))[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_the_line_from_audit_to_replay(capsys, at):
    code, out, err = asked(capsys, "audit", *FAIRNESS)
    assert code == 1, err
    assert "Failed: at least one gate does not hold." in out
    assert "casemate-report/report.html" in out
    report = report_json.loads((at / "casemate-report" / "report.json").read_bytes())
    assert report.ruling.exit_code == 1
    finding = report.findings[0]
    assert finding.id in out
    assert finding.id in (at / "casemate-report" / "report.html").read_text()
    code, out, _ = asked(capsys, "explain", finding.fingerprint)
    assert (code, words.full(finding.mend) in " ".join(out.split())) == (0, True)
    assert f"\n  casemate replay '{finding.id}'\n" in out
    code, out, err = asked(capsys, "replay", finding.id)
    assert code == 0, err
    assert "It holds." in out
    code, out, _ = asked(capsys, "list", "runs")
    assert (code, report.timings.run in out, "failed" in out) == (0, True, True)


def test_the_commands_that_an_audit_prints_work_where_it_was_run(capsys, at):
    (at / "my settings").mkdir()
    (at / "casemate.toml").rename(at / "my settings" / "it.toml")
    for name in ("model.skops", "test.csv", "train.csv"):
        (at / name).rename(at / "my settings" / name)
    out = asked(capsys, "audit", "my settings/it.toml", *FAIRNESS, "-o", "a report")[1]
    lines = [line.strip() for line in out.splitlines() if line.startswith("  casemate ")]
    assert [shlex.split(line)[1] for line in lines] == ["explain", "replay"]
    for line in lines:
        code, out, err = asked(capsys, *shlex.split(line)[1:])
        assert (code, err) == (0, "")
    assert "It holds." in out
    assert max(len(row) for row in out.splitlines()) <= 100


def test_evidence_that_was_changed_does_not_replay(capsys, at):
    asked(capsys, "audit", *FAIRNESS)
    report = report_json.loads((at / "casemate-report" / "report.json").read_bytes())
    finding = report.findings[0]
    path = at / "casemate-report" / report.files[finding.evidence[0].files[0]]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert asked(capsys, "replay", finding.id)[0] == 1


def test_the_same_seed_gives_the_same_report_and_compare_finds_no_difference(capsys, at):
    for name in ("a", "b"):
        asked(capsys, "audit", *FAIRNESS, "--output", name, "--seed", "7")
    a, b = (report_json.loads((at / name / "report.json").read_bytes()) for name in ("a", "b"))
    assert replace(a, timings=Timings()) == replace(b, timings=Timings())
    assert a.seed == 7
    code, out, _ = asked(capsys, "compare", "a", "b")
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith("fairness.selection_gap")]
    assert rows
    assert not [row for row in rows if row.split()[-1] == "yes"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nowhere.toml"], "nowhere.toml"),
        (["--only", "nonsense/nothing"], "nonsense/nothing"),
        (["--set", "fairness/group_gaps.nonsense=1"], "nonsense"),
        (["--budget", "soon"], "soon"),
        (["--executor", "nonsense"], "nonsense"),
        (["--resume"], "resume"),
        (["--resume", "abcdef123456"], "abcdef123456"),
    ],
)
def test_a_wrong_order_is_2_and_writes_no_report(capsys, at, arguments, part):
    code, out, err = asked(capsys, "audit", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error:")
    assert part in err
    assert not (at / "casemate-report").exists()


def begun(store):
    """Whether the store holds a run, asked without the store's own code, which would make one."""
    if not store.exists():
        return False
    with contextlib.closing(sqlite3.connect(store)) as connection, contextlib.suppress(sqlite3.OperationalError):
        return connection.execute("select count(*) from runs").fetchone()[0] > 0
    return False


def interrupt_once_begun(store):
    deadline = time.monotonic() + 60
    while not begun(store) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_audit_says_how_to_go_on_and_goes_on(capsys, at):
    order = ("audit", "--only", "evasion", "--budget", "400_000")
    # A real signal to this process: it hits the audit between the beginning of the run and the end of its first probe.
    # A shell that started the tests in the background made them ignore it: as on a terminal, here it counts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt_once_begun, args=(at / ".casemate" / "store.db",), daemon=True).start()
        code, out, err = asked(capsys, *order)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, out) == (130, "")
    line = "casemate audit --only evasion --budget 400_000 --resume"
    assert err == f"interrupted: nothing is lost; go on with: {line}\n"
    assert not (at / "casemate-report" / "report.json").exists()
    code, out, err = asked(capsys, *shlex.split(line)[1:])
    assert code in (0, 1, 3), err
    assert (at / "casemate-report" / "report.json").exists()
    runs = asked(capsys, "list", "runs")[1]
    assert len(re.findall(r"^[0-9a-f]{16} ", runs, re.MULTILINE)) == 1, "the run was resumed, not begun again"


BEFORE = (  # reading the order, building the case, planning, opening the store, noting the run
    "casemate.config.load",
    "casemate.config.order_of",
    "casemate.config.case_of",
    "casemate.catalog.plugins",
    "casemate._audit.open_store",
    "casemate._audit.alone_in",
    "casemate.store.Store.begin",
)


@pytest.mark.parametrize("step", BEFORE)
def test_an_audit_interrupted_before_it_began_promises_nothing(capsys, at, monkeypatch, step):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(step, interrupted)
    code, out, err = asked(capsys, "audit")
    assert (code, out) == (130, "")
    assert err == "interrupted before the audit had begun: give the same command again\n"
    monkeypatch.undo()
    monkeypatch.chdir(at)
    code, _, err = asked(capsys, "audit", "--resume")
    assert (code, "expected a run to resume" in " ".join(err.split())) == (2, True), "there was nothing to promise"


MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from casemate.cli import main\n"
    "if __name__ == '__main__': main()"
)
LONG = ("audit", "--only", "evasion/standard", "--set", "evasion/standard.samples=1200")


def finished(store):
    """How many units of work the store holds, asked as above."""
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(store)) as connection:
        return connection.execute("select count(*) from results").fetchone()[0]
    return 0


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    """The report of an audit that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    for file in made.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "casemate.toml").write_text(TOML)
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert cli.run(LONG) in (0, 1, 3)
    finally:
        os.chdir(before)
    return report_json.loads((folder / "casemate-report" / "report.json").read_bytes())


@pytest.mark.parametrize("moment", ["workers are starting", "workers are at work"])
def test_ctrl_c_ends_every_process_at_once_and_the_resumed_run_gives_the_same_report(capsys, at, whole, moment):
    starting = moment == "workers are starting"
    command = [sys.executable, "-c", MAIN, *LONG, "--executor", "pool:2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    seen = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if len(seen.children(recursive=True)) >= 2 if starting else finished(".casemate/store.db") >= 2:
            break
        time.sleep(0.002)
    workers = seen.children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group gets it
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, ""), err
    *progress, last = err.splitlines()
    assert last == f"interrupted: nothing is lost; go on with: {shlex.join(['casemate', *command[3:], '--resume'])}"
    assert all(" of " in line for line in progress), err
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert (len(gone) >= 2, alive) == (True, [])
    assert finished(".casemate/store.db") in (range(1) if starting else range(2, 19))
    code, _, err = asked(capsys, *LONG, "--resume")
    assert code == whole.ruling.exit_code, err
    report = report_json.loads((at / "casemate-report" / "report.json").read_bytes())
    assert report_json.digest(report) == report_json.digest(whole)
