"""The pytest plug-in, in processes of its own: what fails, what it says, what it costs who does not use it."""

from __future__ import annotations

import json
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

TESTS = """
import casemate
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 2))
Y = (X[:, 0] > 0).astype(int)
MODEL = LogisticRegression().fit(X, Y)
FEW = {"only": ["preflight"], "fail_on": "none"}


def accuracy(least):
    return [casemate.Gate("preflight.clean_accuracy", min=least)]


def test_passes(casemate_gate):
    report = casemate_gate(MODEL, test=(X, Y), gates=accuracy(0.8), **FEW)
    assert (report.ruling.exit_code, report.settings["profile"]) == (0, "quick")


def test_fails(casemate_gate):
    casemate_gate(MODEL, test=(X, 1 - Y), gates=accuracy(0.8), **FEW)


def test_is_undecided(casemate_gate):
    gates = [casemate.Gate("evasion.robust_accuracy", min=0.5)]
    casemate_gate(MODEL, test=(X, Y), gates=gates, **FEW)


def test_takes_a_configuration(casemate_gate):
    casemate_gate("casemate.toml")


def test_takes_a_policy(casemate_gate):
    report = casemate_gate(MODEL, test=(X, Y), policy=casemate.Policy(gates=tuple(accuracy(0.7))), only=["preflight"])
    assert report.policy.gates == tuple(accuracy(0.7))


def test_refuses_what_would_be_lost(casemate_gate):
    with pytest.raises(casemate.UsageError, match="policy alone"):
        casemate_gate(MODEL, test=(X, Y), policy=casemate.Policy(), gates=accuracy(0.8))
    with pytest.raises(casemate.UsageError, match="nothing beside"):
        casemate_gate("casemate.toml", fail_on="low")
    with pytest.raises(casemate.UsageError, match="severity"):
        casemate_gate(MODEL, test=(X, Y), fail_on="hihg")
"""

TOML = """
[model]
path = "model.skops"
[data]
test = "test.csv"
target = "label"
[audit]
profile = "standard"
[probe."evasion/standard"]
norm = "linf"
eps = 0.001
[policy]
fail_on = "none"
[[policy.gate]]
metric = "preflight.clean_accuracy"
min = 0.8
[[policy.gate]]
metric = "evasion.robust_accuracy"
at = { eps = 0.001 }
min = 0.999999
[[policy.gate]]
metric = "fairness.selection_gap"
max = 0.1
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of its own with a model, a configuration and tests."""
    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(300, 2)), columns=["a", "b"])
    frame["label"] = (frame["a"] > 0).astype(int)
    skops.io.dump(LogisticRegression().fit(frame[["a", "b"]], frame["label"]), folder / "model.skops")
    frame.to_csv(folder / "test.csv", index=False)
    (folder / "casemate.toml").write_text(TOML)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (folder / "test_model.py").write_text(TESTS)
    return folder


def run(folder, *arguments):
    """pytest in a process of its own: exit code, what it printed, and name -> (ending, message)."""
    result = folder / "result.xml"
    result.unlink(missing_ok=True)
    options = ["-p", "casemate.gate", "-p", "no:randomly", "-p", "no:cacheprovider", f"--junitxml={result}", "-q"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    cases = {}
    for case in ElementTree.parse(result).iter("testcase") if result.exists() else ():
        mark = next(iter(case), None)
        cases[case.get("name")] = ("passed", "") if mark is None else (mark.tag, mark.get("message"))
    return done.returncode, done.stdout + done.stderr, cases


def test_a_test_fails_with_the_gates_that_do_not_hold(project):
    code, out, cases = run(project, "test_model.py")
    assert code == 1, out
    assert {name: ending for name, (ending, _) in cases.items()} == {
        "test_passes": "passed",
        "test_fails": "failure",
        "test_is_undecided": "failure",
        "test_takes_a_configuration": "failure",
        "test_takes_a_policy": "passed",
        "test_refuses_what_would_be_lost": "passed",
    }
    failed, undecided = cases["test_fails"][1], cases["test_is_undecided"][1]
    assert "casemate: Failed: at least one gate does not hold." in failed
    assert "FAILED  preflight.clean_accuracy at least 0.8: measured" in failed
    assert "no pass" not in failed
    assert "UNDECIDED  evasion.robust_accuracy at least 0.5: not measured in this run" in undecided
    assert "Nothing failed, but undecided is no pass" in undecided
    assert "Traceback" not in out
    assert "site-packages" not in out, "a verdict needs no stack"


def test_a_configuration_is_collected_as_one_item_for_each_gate(project):
    gates = {
        "something was tested": "passed",
        "preflight.clean_accuracy at least 0.8": "passed",
        "evasion.robust_accuracy (eps = 0.001) at least 0.999999": "failure",
        "fairness.selection_gap at most 0.1": "failure",
    }
    code, out, cases = run(project, "--casemate", "--casemate-profile", "quick", "casemate.toml")
    assert code == 1, out
    assert {name: ending for name, (ending, _) in cases.items()} == gates
    assert "casemate audit casemate.toml shows the whole" in cases["fairness.selection_gap at most 0.1"][1]
    code, out, _ = run(project, "--casemate", "--collect-only")
    assert code == 0
    assert all(name in out for name in [*gates, "test_passes"])


def test_a_wrong_configuration_is_told_in_a_line(project, tmp_path):
    (tmp_path / "casemate.toml").write_text("[modle]\n")
    code, out, _ = run(tmp_path, "--casemate")
    assert code == 2
    assert "expected a key of the file in casemate.toml, got 'modle'" in out
    assert "Traceback" not in out
    (tmp_path / "casemate.toml").write_text('[model]\npath = "gone.skops"\n[data]\ntest = "t.csv"\n')
    code, out, cases = run(tmp_path, "--casemate")
    assert (code, {ending for ending, _ in cases.values()}) == (1, {"failure"})
    assert "gone.skops" in out


def test_an_endpoint_is_audited_only_by_who_says_that_it_may_be(tmp_path):
    (tmp_path / "t.csv").write_text("a,label\n1,x\n2,y\n3,x\n")
    model, data = '[model]\nurl = "http://127.0.0.1:1"\ntries = 1', '[data]\ntest = "t.csv"\ntarget = "label"'
    (tmp_path / "casemate.toml").write_text(f"{model}\n{data}\n")
    code, out, _ = run(tmp_path, "--casemate")
    assert (code, "then pass --i-am-authorised" in out, "no connection" in out) == (1, True, False)
    code, out, _ = run(tmp_path, "--casemate", "--i-am-authorised")
    assert (code, "no connection" in out) == (1, True), "asked, but nobody was there"


def test_it_costs_nothing_where_it_is_not_used(tmp_path):
    (tmp_path / "casemate.toml").write_text("[modle]\n")  # not even looked at
    (tmp_path / "test_it.py").write_text(
        "import json, sys\n"
        "def test_it():\n"
        "    print('LOADED', json.dumps([name for name in sys.modules if name.startswith('casemate')]))\n"
    )
    code, out, _ = run(tmp_path, "-s")
    assert code == 0, out
    loaded = next(line for line in out.splitlines() if line.startswith("LOADED"))
    assert json.loads(loaded.removeprefix("LOADED ")) == ["casemate", "casemate.gate"]
