"""`casemate init`: a commented casemate.toml for the model and data found in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from casemate.errors import UsageError

__all__ = ["init"]


def init(
    folder: Annotated[Path, typer.Argument(help="Where to look, and where casemate.toml goes.")] = Path(),
    model: Annotated[Path | None, typer.Option(help="The model, where the guess is wrong.")] = None,
    data: Annotated[Path | None, typer.Option(help="The test data, where the guess is wrong.")] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict, where the guess is wrong.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a casemate.toml that is there.")] = False,
) -> int:
    """Write a commented casemate.toml for what is found here."""
    from casemate import config
    from casemate.cli._show import show
    from casemate.formats import atomic

    path = folder / "casemate.toml"
    if not folder.is_dir():
        raise UsageError(f"expected a folder, got {folder}: name the folder that holds the model and the data")
    if path.exists() and not force:
        raise UsageError(f"expected no casemate.toml yet, got {path}: edit it, or replace it with --force")
    if missing := [given for given in (model, data) if given is not None and not given.exists()]:
        raise UsageError(f"expected a model or data at {missing[0]}, got nothing: mend --model or --data")
    try:
        text = config.propose(folder, model=model, data=data, target=target)
    except OSError as error:
        raise UsageError(
            f"expected a folder that can be read, got {error.filename} ({error.strerror}): name --model and --data"
        ) from error
    atomic.write(path, text.encode())
    show(text, f"Wrote {path}. Look it through, then run `casemate audit`.")
    return 0
