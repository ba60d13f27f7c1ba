from __future__ import annotations

import errno
import re
import tempfile
from pathlib import Path

import pytest

from casemate import errors
from casemate.cli import _boundary


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.ConfigError("x"), 2),
        (errors.DataError("x"), 2),
        (errors.ModelError("x"), 2),
        (errors.FormatError("x"), 2),
        (errors.CasemateError("x"), 2),
        (errors.IntegrityError("x"), 1),
        (errors.Unavailable("x"), 3),
        (errors.BudgetExhausted("x"), 3),
        (errors.LawBroken("x"), 4),
        (errors.Contradiction("x"), 4),
    ],
)
def test_each_error_has_its_exit_code(error, code, capsys):
    assert _boundary.guarded(raising(error)) == code
    assert capsys.readouterr().err == "error: x\n"


def test_every_class_of_error_is_in_the_table_above():
    (table,) = (mark.args[1] for mark in test_each_error_has_its_exit_code.pytestmark)
    assert {type(error) for error, _ in table} == {getattr(errors, name) for name in errors.__all__}


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_a_command_s_answer_is_the_exit_code(result, code):
    assert _boundary.guarded(lambda: result) == code


def test_expected_got_and_mend_are_lines_of_one_block():
    error = errors.UsageError("expected x in [0, 1], got max 255: wrong unit: divide by 255")
    assert _boundary.block(error).splitlines() == [
        "error:",
        "  expected  x in [0, 1]",
        "  got       max 255: wrong unit",
        "  mend      divide by 255",
    ]


@pytest.mark.parametrize("arguments", [[], ["scan", "m.pkl"], ["audit", "my model.toml"], ["audit", "--resume"]])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), 130])
def test_an_interruption_is_130_and_promises_nothing(interruption, arguments, capsys):
    # Of an audit it told how to go on, whether a run was there or not.
    command = raising(interruption) if isinstance(interruption, BaseException) else lambda: interruption
    assert _boundary.guarded(command, arguments=arguments) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["audit"], "casemate audit --resume"),
        (["audit", "my model.toml", "--seed", "7"], "casemate audit 'my model.toml' --seed 7 --resume"),
        (["audit", "--resume"], "casemate audit --resume"),
        (["audit", "--resume=last"], "casemate audit --resume=last"),
    ],
)
def test_a_run_that_was_interrupted_is_130_and_goes_on_under_its_own_order(arguments, line, capsys):
    assert _boundary.guarded(raising(_boundary.RunInterrupted()), arguments=arguments) == 130
    assert capsys.readouterr().err == f"interrupted: nothing is lost; go on with: {line}\n"


@pytest.mark.parametrize(
    "error", [ValueError("odd"), OSError(errno.ENOSPC, "disk full"), MemoryError(), RecursionError()]
)
def test_anything_else_is_4_and_its_traceback_is_kept(error, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert _boundary.guarded(raising(error)) == 4
    text = capsys.readouterr().err
    assert "Traceback" not in text
    kept = Path(re.search(r"kept in (.+)$", text, re.MULTILINE)[1])
    assert kept.parent == tmp_path
    assert kept.read_text().startswith("Traceback")


def test_debug_shows_the_traceback(capsys):
    assert _boundary.guarded(raising(ValueError("odd")), debug=True) == 4
    assert "Traceback" in capsys.readouterr().err
    assert _boundary.guarded(raising(errors.UsageError("x")), debug=True) == 2
    assert "Traceback" in capsys.readouterr().err
