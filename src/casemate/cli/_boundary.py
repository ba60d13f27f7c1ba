"""The one error boundary: what was raised becomes an exit code and one clear block on stderr."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence

from casemate.errors import BudgetExhausted, CasemateError, IntegrityError, LawBroken, Unavailable

__all__ = ["RunInterrupted", "block", "guarded", "resumption"]

_MESSAGE = re.compile(r"expected (?P<expected>.+?), got (?P<got>.+): (?P<mend>.+)", re.DOTALL)


class RunInterrupted(Exception):  # an inner signal: the boundary turns it into a line that says how to go on
    """An audit was interrupted after its run had been noted in the store, from where it can go on."""


def guarded(command: Callable[[], object], *, arguments: Sequence[str] = (), debug: bool = False) -> int:
    """Run a command and return its exit code, whatever it raises; `arguments` are what the user wrote.

    An interruption promises nothing, unless it is `RunInterrupted`: only then is there a run to go on with.
    """
    try:
        result = command()
        code = result if isinstance(result, int) else 0
    except SystemExit as request:  # the parser leaves this way when a pipe closes
        return request.code if isinstance(request.code, int) else int(bool(request.code))
    except RunInterrupted:
        _tell(resumption(arguments))
        return 130
    except KeyboardInterrupt:
        code = 130
    except CasemateError as error:
        if debug:
            traceback.print_exc()
        _tell(block(error))
        return _code(error)
    except Exception as error:  # the boundary: nothing may pass it
        return _usage(error) or _unexpected(error, debug=debug)
    if code == 130:
        _tell("interrupted")
    return code


def resumption(arguments: Sequence[str]) -> str:
    """What a run's interruption says: it goes on only under the order that began it, so the whole command is told.

    >>> resumption(["audit", "my model.toml", "--seed", "7"])
    "interrupted: nothing is lost; go on with: casemate audit 'my model.toml' --seed 7 --resume"
    """
    resume = [] if any(argument.startswith("--resume") for argument in arguments) else ["--resume"]
    return f"interrupted: nothing is lost; go on with: {shlex.join(['casemate', *arguments, *resume])}"


def block(error: CasemateError) -> str:
    """The message in lines: what was expected, what was got, how to mend it."""
    text = str(error).strip()
    match = _MESSAGE.fullmatch(text)
    if match is None:
        return f"error: {text}"
    lines = (f"  {name:<9} {match[name].strip()}" for name in ("expected", "got", "mend"))
    return "\n".join(["error:", *lines])


def _code(error: CasemateError) -> int:
    if isinstance(error, IntegrityError):
        return 1
    if isinstance(error, Unavailable | BudgetExhausted):
        return 3
    return 4 if isinstance(error, LawBroken) else 2


def _usage(error: Exception) -> int:
    """2 for the parser's complaints, 0 for anything else; they are told by their shape, for their home has moved."""
    show = getattr(error, "format_message", None)
    if show is None or not hasattr(error, "exit_code"):
        return 0
    context = getattr(error, "ctx", None)
    if context is not None:
        _tell(context.get_usage())
    _tell(f"error: {show().replace('Value error, ', '')}")
    return 2


def _unexpected(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
        return 4
    kept = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="casemate-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
            kept = f"; the traceback is kept in {file.name}"
    except OSError:
        kept = "; run it again with --debug for the traceback"
    fault = "This is a fault of Casemate or of a plug-in, not of your input"
    _tell(f"error: {type(error).__name__}: {error}\n  {fault}{kept}")
    return 4


def _tell(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
