"""The demo's exit code: a verdict about a model is no mishap, everything else is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from casemate import config
from examples import run_demo

EXAMPLES = Path(run_demo.__file__).resolve().parent


@pytest.mark.parametrize(
    ("code", "wanted"), [(0, 0), (1, 0), (3, 0), (2, 2), (4, 4), (130, 130), (-9, 137), (-15, 143), (99, 99)]
)
def test_a_verdict_ends_well_and_a_mishap_keeps_its_code(code: int, wanted: int) -> None:
    assert run_demo.mishap(code) == wanted


def test_every_audit_of_the_demo_has_a_configuration_and_leaves_nothing_but_out() -> None:
    for example in run_demo.EXAMPLES:
        assert (EXAMPLES / example.folder / "train.py").is_file()
        for audit in example.audits:
            assert config.load(EXAMPLES / example.folder / audit.config).model.path is not None
            assert audit.output.startswith("out/")


def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, train: str = "", audit: str = "") -> int:
    """The demo on a folder whose training and whose `casemate` are the given lines of Python."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "train.py").write_text(train)
    command = tmp_path / "casemate"
    command.write_text(f"#!{sys.executable}\nimport os, signal, sys\n{audit}\n")
    command.chmod(0o755)
    model = run_demo.Audit("a toy", "casemate.toml", "out/report")
    monkeypatch.setattr(run_demo, "HERE", tmp_path)
    monkeypatch.setattr(run_demo, "EXAMPLES", (run_demo.Example("toy", "nothing", (model, model)),))
    monkeypatch.setattr(run_demo, "_casemate", lambda: command)
    return run_demo.main([])


@pytest.mark.parametrize(("code", "verdict"), [(0, "passed"), (1, "failed"), (3, "undecided")])
def test_the_demo_ends_well_whatever_the_verdict(tmp_path, monkeypatch, capfd, code: int, verdict: str) -> None:
    assert demo(tmp_path, monkeypatch, audit=f"print('audited'); sys.exit({code})") == 0
    printed = capfd.readouterr().out
    assert printed.count("audited") == 2
    assert printed.count(f"a toy (toy): {verdict}") == 2
    assert "toy/out/report/report.html" in printed


@pytest.mark.parametrize("code", [2, 4, 130])
def test_an_audit_that_could_not_run_ends_the_demo_with_its_code(tmp_path, monkeypatch, capfd, code: int) -> None:
    assert demo(tmp_path, monkeypatch, audit=f"print('audited'); sys.exit({code})") == code
    shown = capfd.readouterr()
    assert shown.out.count("audited") == 1
    assert f"ended with {code}" in shown.err


def test_an_audit_that_was_killed_ends_the_demo_as_a_shell_would_say(tmp_path, monkeypatch, capfd) -> None:
    assert demo(tmp_path, monkeypatch, audit="os.kill(os.getpid(), signal.SIGKILL)") == 137


@pytest.mark.parametrize("code", [1, 3])
def test_a_training_that_fails_is_no_verdict(tmp_path, monkeypatch, capfd, code: int) -> None:
    # 1 is what Python ends a traceback with: a model of an earlier run must not be audited in its place.
    assert demo(tmp_path, monkeypatch, train=f"import sys; sys.exit({code})", audit="print('audited')") == 4
    assert "audited" not in capfd.readouterr().out


def test_an_unknown_example_is_a_usage_error(capfd) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_demo.main(["--only", "diigts"])
    assert stopped.value.code == 2
    assert "digits" in capfd.readouterr().err
