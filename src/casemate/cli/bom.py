"""`casemate bom`: a CycloneDX bill of materials of an audited model, or of model files alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from casemate.core.report import Report
    from casemate.formats.manifest import Manifest

__all__ = ["bom"]


def bom(
    run: Annotated[str, typer.Argument(metavar="RUN|PATH", help="A report's folder, a run's id, or model files.")] = (
        "casemate-report"
    ),
    model: Annotated[Path | None, typer.Option(help="The files of the model that RUN is about, listed too.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; else it is printed.")] = None,
    environment: Annotated[
        bool, typer.Option("--environment/--no-environment", help="List the packages of this Python.")
    ] = True,
    store: Annotated[str, typer.Option(help="Where runs are kept: a folder or a database URL.")] = ".casemate",
) -> int:
    """Write a bill of materials (CycloneDX 1.7 with a model card)."""
    from importlib.metadata import version

    from casemate.artifacts.bom import package_components
    from casemate.errors import UsageError
    from casemate.report import cyclonedx

    read = {Path(run).resolve(), Path(run, "report.json").resolve()} | ({model.resolve()} if model else set())
    if output is not None and output.resolve() in read:
        raise UsageError(f"expected an --output of its own, got {output}, which is read: name another")
    report = _report(run, store)
    packages = package_components() if environment else []
    if report is not None:
        listed = None if model is None else _files(model)
        text = cyclonedx.render(report, files=listed, packages=packages)
    elif model is not None:
        raise UsageError(f"expected a run beside --model, got the files {run}: leave --model out")
    else:
        path = Path(run)
        text = cyclonedx.render_files(path.resolve().name, _files(path), version=version("casemate"), packages=packages)
    _write(text, output)
    return 0


def _report(run: str, store: str) -> Report | None:
    """The report that is meant; nothing where the name is that of model files."""
    from casemate.cli._runs import report_named
    from casemate.errors import FormatError

    path = Path(run)
    if path.is_dir() and not (path / "report.json").is_file():
        return None
    if path.is_file():
        if path.suffix.lower() != ".json":
            return None
        try:
            return report_named(run, store)[0]
        except FormatError:
            if path.name == "report.json":
                raise
            return None  # a booster's file is JSON too
    return report_named(run, store)[0]


def _files(path: Path) -> Manifest:
    from casemate.cli._progress import progress
    from casemate.formats import manifest

    with progress() as tell:
        return manifest.of_path(path, told=lambda done, total: tell("bom", done, total))


def _write(text: str, output: Path | None) -> None:
    from casemate.cli._show import printed
    from casemate.errors import UsageError
    from casemate.formats import atomic

    if output is None:
        printed(text.encode())
        return
    if output.is_dir():
        raise UsageError(f"expected a file for the bill, got the folder {output}: name a file in it")
    atomic.write(output, text.encode())
