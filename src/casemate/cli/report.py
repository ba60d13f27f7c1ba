"""`casemate report`: the report of a run in another format."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Format", "report"]


class Format(StrEnum):
    """The formats of a report."""

    HTML = "html"
    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"
    MARKDOWN = "markdown"
    CYCLONEDX = "cyclonedx"


def report(
    run: Annotated[str, typer.Argument(help="The folder of a report, or the id of a run.")] = "casemate-report",
    form: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.MARKDOWN,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; else it is printed.")] = None,
    config: Annotated[Path, typer.Option(help="The file that SARIF's findings point into.")] = Path("casemate.toml"),
    store: Annotated[str, typer.Option(help="Where runs are kept: a folder or a database URL.")] = ".casemate",
) -> int:
    """Write the report of a run in another format."""
    from casemate.cli._runs import report_named
    from casemate.cli._show import printed
    from casemate.report import rendered

    found, folder = report_named(run, store)
    data = rendered(found, str(form), config=config, folder=folder)
    if output is None:
        printed(data)
        return 0
    from casemate.errors import UsageError
    from casemate.formats import atomic

    if output.is_dir():
        raise UsageError(f"expected a file for the report, got the folder {output}: name a file in it")
    atomic.write(output, data)
    return 0
