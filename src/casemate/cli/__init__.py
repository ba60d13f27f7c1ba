"""The command line: one file a command, the only place that prints and sets exit codes.

Exit codes: 0 passed; 1 a gate failed, or bytes are not what they were; 2 usage or configuration; 3 undecided or
unavailable; 4 an error of our own; 130 interrupted.
"""

from __future__ import annotations

import builtins
import io
import re
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from casemate.cli import (
    audit,
    bom,
    compare,
    convert,
    doctor,
    explain,
    init,
    key,
    list,
    replay,
    report,
    scan,
    sign,
    verify,
)
from casemate.cli._boundary import guarded

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="casemate",
    help="Attack a machine-learning model, and show the evidence.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in (
    ("init", init.init),
    ("scan", scan.scan),
    ("audit", audit.audit),
    ("explain", explain.explain),
    ("replay", replay.replay),
    ("compare", compare.compare),
    ("report", report.report),
    ("convert", convert.convert),
    ("sign", sign.sign),
    ("verify", verify.verify),
    ("bom", bom.bom),
    ("list", list.list_),
    ("doctor", doctor.doctor),
):
    app.command(_name)(_command)
app.add_typer(key.app, name="key")

Strings = builtins.list[str]
_RUN = re.compile(r"[0-9a-f]{6,32}|last")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
) -> None:
    del debug  # read by `run`, which must know it before anything can go wrong
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"casemate {installed('casemate')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> NoReturn:
    """Run the command line on this process's arguments and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal's encoding lacks must not end the run
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    debug = "--debug" in arguments
    given = [argument for argument in arguments if argument != "--debug"]
    prepared = _resumable(given)
    return guarded(
        lambda: app(args=prepared, prog_name="casemate", standalone_mode=False), arguments=given, debug=debug
    )


def _resumable(arguments: Sequence[str]) -> Strings:
    """`--resume` alone means the last run: an option with an optional value, which the parser cannot express."""
    prepared: Strings = []
    for position, argument in enumerate(arguments):
        prepared.append(argument)
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        if argument == "--resume" and not _RUN.fullmatch(following):
            prepared.append("last")
    return prepared
