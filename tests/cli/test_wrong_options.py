"""Options and data that cannot work end an audit with exit code 2 and one error, before it leaves anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from casemate import cli

TOML = """
[model]
path = "model.skops"

[data]
test = "test.csv"
target = "label"
sensitive = ["sex"]

[audit]
profile = "quick"
"""


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"score": rng.normal(size=60), "sex": rng.integers(0, 2, 60)})
    label = np.where(frame["score"] > 0, "yes", "no")
    skops.io.dump(LogisticRegression().fit(frame, label), tmp_path / "model.skops")
    frame.assign(label=label).to_csv(tmp_path / "test.csv", index=False)
    (tmp_path / "casemate.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], at: Path, *arguments: str) -> str:
    code = cli.run(["audit", *arguments])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("expected") == 1
    assert len(err.splitlines()) <= 4
    assert not (at / "casemate-report").exists()
    return " ".join(err.split())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("evasion/standard.samples=0", "a whole number from 1 as samples of evasion/standard got 0"),
        ("evasion/standard.effort='hard'", "one of quick, standard, full as effort"),
        ("evasion/standard.restarts=-1", "a whole number from 1 as restarts"),
        ("evasion/standard.steps=0", "a whole number from 1 as steps"),
        ("evasion/standard.targets=0", "a whole number from 1 as targets"),
        ("evasion/standard.queries=0", "a whole number from 1 as queries"),
        ("evasion/standard.norm=[]", "something in norm"),
        ("evasion/corruptions.corruptions=['fog']", "expected corruptions among"),
        ("fairness/group_gaps.positive='maybe'", "expected positive to be one of no, yes got 'maybe'"),
        ("privacy/shadow_pool.models=3", "an even number of shadow models got 3"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_one_error(
    capsys: pytest.CaptureFixture[str], at: Path, setting: str, words: str
) -> None:
    assert words in refused(capsys, at, "--set", setting)


def test_a_missing_value_that_the_model_does_not_take_is_refused_with_one_error(
    capsys: pytest.CaptureFixture[str], at: Path
) -> None:
    frame = pd.read_csv(at / "test.csv")
    frame.loc[7, "score"] = np.nan
    frame.to_csv(at / "test.csv", index=False)
    err = refused(capsys, at)
    assert "to take rows with a missing value, as 7 of the test data got ValueError" in err
    assert "fill them in, or audit the pipeline that does" in err


@pytest.mark.parametrize("name", ["samples", "steps", "restarts", "targets", "queries"])
def test_the_least_that_is_taken_breaks_nothing(capsys: pytest.CaptureFixture[str], at: Path, name: str) -> None:
    few = [part for key in ("samples=8", f"{name}=1") for part in ("--set", f"evasion/standard.{key}")]
    assert cli.run(["audit", "--only", "evasion/standard", *few]) in (0, 1, 3)
    assert "broke" not in capsys.readouterr().out
