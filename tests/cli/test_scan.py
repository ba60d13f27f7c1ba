"""`casemate scan`: exit codes, what is printed and written, locks and policies, and what an interruption leaves."""

from __future__ import annotations

import io
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from casemate import cli
from casemate.artifacts import scans

EVIL = b"cos\nsystem\n(S'true'\ntR."
OWN = b"cmy_company.layers\nGate\n(tR."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clean.pkl").write_bytes(pickle.dumps({"weights": [1.0, 2.0]}))
    (tmp_path / "own.pkl").write_bytes(OWN)
    (tmp_path / "evil.pkl").write_bytes(EVIL)
    (tmp_path / "odd.bin").write_bytes(bytes(range(1, 9)))
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps([1, 2, 3])[:-2])
    return tmp_path


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    monkeypatch.chdir(folder)

    def ask(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(["scan", *arguments])
        return code, *capsys.readouterr()

    return ask


@pytest.mark.parametrize(
    ("arguments", "code", "first"),
    [
        (["clean.pkl"], 0, "passed  1 file in "),
        (["evil.pkl", "clean.pkl"], 1, "FAILED  1 of 2 files is malicious: do not load it"),
        (["own.pkl"], 1, "FAILED  1 of 1 file is not known to be harmless"),
        (["own.pkl", "--fail-on", "malicious"], 0, "passed  nothing malicious; 1 of 1 file is not known"),
        (["odd.bin", "clean.pkl"], 3, "undecided  1 of 2 files could not be judged"),
        (["cut.pkl"], 3, "undecided  1 of 1 file could not be judged"),
        (["evil.pkl", "cut.pkl", "odd.bin"], 1, "FAILED  1 of 3 files is malicious"),
        (["*.pkl"], 1, "FAILED  1 of 4 files is malicious"),
    ],
)
def test_the_verdict_is_the_first_line_and_the_exit_code(
    arguments: list[str], code: int, first: str, asked: Any
) -> None:
    got, out, err = asked(*arguments)
    assert (got, err) == (code, "")
    assert out.startswith(first)
    assert out.splitlines()[-1].startswith(("passed", *"123456789"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["absent.pkl"],
        ["*.absent"],
        ["clean.pkl", "--policy", "evil.pkl"],
        ["clean.pkl", "--lock", "evil.pkl"],
        ["clean.pkl", "--lock", "absent"],
        ["clean.pkl", "--output", "."],
        ["clean.pkl", "--output", "absent/x.txt"],
        ["clean.pkl", "--write-lock", "absent/x.lock"],
        ["clean.pkl", "--fail-on", "clean"],
        [],
    ],
)
def test_bad_input_is_2_and_one_block(arguments: list[str], asked: Any) -> None:
    code, out, err = asked(*arguments)
    assert (code, out) == (2, "")
    assert "error:" in err
    assert "Traceback" not in err


def test_standard_input_is_a_file(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for data, code in ((EVIL, 1), (pickle.dumps(1), 0), (b"", 3)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert asked("-")[0] == code
    monkeypatch.setattr(sys, "stdin", None)
    assert asked("-")[0] == 2


def test_a_file_that_is_called_like_standard_input_is_still_a_file(asked: Any, folder: Path) -> None:
    """Below `.` its path was `-`: standard input was read in its place, and it passed."""
    (folder / "-").write_bytes(EVIL)
    code, out, _ = asked(".")
    assert code == 1
    assert "malicious  -  pickle" in out.splitlines()
    assert asked("./-")[0] == 1


def test_a_lock_reports_what_is_new_and_is_not_written_by_a_scan_that_reads_it(asked: Any, folder: Path) -> None:
    assert asked("clean.pkl", "--write-lock", "a.lock")[0] == 0
    before = (folder / "a.lock").read_bytes()
    assert asked("./clean.pkl", "--lock", "a.lock")[0] == 0
    code, out, _ = asked("clean.pkl", "odd.bin", "--lock", "a.lock")
    assert code == 1
    assert "a file that the lock does not know" in out
    assert (folder / "a.lock").read_bytes() == before


def test_a_policy_that_has_passed_says_so(asked: Any, folder: Path) -> None:
    for until, code, says in (
        ("2000-01-01", 1, "until 2000-01-01, which has passed"),
        ("2999-01-01", 0, "1 found and"),
    ):
        (folder / "p.toml").write_text(
            f'[[allow]]\nname = "my_company.layers.Gate"\nuntil = {until}\nreason = "reviewed"\n'
        )
        got, out, _ = asked("own.pkl", "--policy", "p.toml")
        assert got == code
        assert says in out


@pytest.mark.parametrize("form", ["text", "json", "sarif"])
def test_a_file_is_written_whole_and_nothing_is_printed(form: str, asked: Any, folder: Path) -> None:
    assert asked(".", "--format", form, "--output", "out")[:2] == (1, "")
    written = (folder / "out").read_text()
    assert "\x1b" not in written
    assert written.startswith("FAILED") if form == "text" else json.loads(written)


def test_an_interruption_shows_what_is_known_and_writes_nothing(
    asked: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scans.scan_file

    def scanned(path: Path, **how: Any) -> Any:
        if path.name == "own.pkl":
            raise KeyboardInterrupt
        return whole(path, **how)

    monkeypatch.setattr(scans, "scan_file", scanned)
    code, out, err = asked("clean.pkl", "own.pkl", "evil.pkl", "--write-lock", "a.lock")
    assert (code, err) == (130, "interrupted\n")
    assert out.startswith("interrupted  after 1 of 3 files")
    assert "passed" not in out
    assert asked("evil.pkl", "own.pkl")[1].startswith("FAILED  1 of 1 file is malicious")
    for form in ("text", "json", "sarif"):
        assert asked("clean.pkl", "own.pkl", "--format", form, "--output", "out") == (130, "", "interrupted\n")
    assert asked("clean.pkl", "own.pkl", "--format", "json") == (130, "", "interrupted\n")
    assert not (folder / "out").exists()
    assert not (folder / "a.lock").exists()
