"""`casemate doctor`: what is installed, what is missing, what that leaves out, and how to mend it."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Need", "doctor"]

_DISTRIBUTION = "casemate"
_FOR_DEVELOPERS = frozenset({"dev", "docs", "examples"})
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*(?:;.*?extra\s*==\s*['\"](?P<extra>[\w-]+)['\"])?")


@dataclass(frozen=True, slots=True)
class Need:
    """A package that Casemate declares: its installed version (`""` for none), and the extra that brings it."""

    name: str
    version: str
    extra: str

    @property
    def line(self) -> str:
        """The line that installs it."""
        return (
            f"pip install '{_DISTRIBUTION}[{self.extra}]'"
            if self.extra
            else f"pip install --force-reinstall {_DISTRIBUTION}"
        )


def doctor(
    store: Annotated[str, typer.Option(help="The store to look at: a folder or a database URL.")] = ".casemate",
) -> int:
    """Say what is installed and what is missing."""
    from casemate.cli._show import show

    needs = _needs()
    missing = [need for need in needs if not need.version]
    trouble = [f"{need.name} is missing: {need.line}" for need in missing if not need.extra]
    if not needs:
        trouble.append(f"{_DISTRIBUTION} is not installed as a package: pip install -e .")
    trouble += _store_trouble(store)
    import platform

    show(f"Python {platform.python_version()} on {platform.platform()}", "", _table(needs))
    if not trouble:
        show("", *_disabled())
    show("", *(trouble or ["An ordinary audit has everything that it needs."]))
    return 3 if trouble else 0


def _needs() -> list[Need]:
    from importlib import metadata

    try:
        lines = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match is not None and match["extra"] not in _FOR_DEVELOPERS:
            found.append(Need(match["name"], _version(match["name"]), match["extra"] or ""))
    return sorted(found, key=lambda need: (need.extra, need.name.lower()))


def _version(name: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _table(needs: list[Need]) -> Table:
    from casemate.cli._show import columns

    table = columns("package", "version", "part of", "to install it")
    for need in needs:
        part = f"extra [{need.extra}]" if need.extra else "Casemate itself"
        table.add_row(need.name, need.version or "missing", part, "" if need.version else need.line)
    return table


def _disabled() -> list[str]:
    """The plug-ins that a missing module leaves out."""
    from casemate import catalog

    lines = []
    for plugin in catalog.plugins():
        absent = [name for name in plugin.requires if importlib.util.find_spec(name) is None]
        if absent:
            lines.append(f"{plugin.id} cannot run: {', '.join(absent)} missing")
    return lines or [f"All {len(catalog.plugins())} plug-ins can run."]


def _store_trouble(where: str) -> list[str]:
    if "://" in where:
        from casemate.errors import CasemateError
        from casemate.store import open_store

        try:
            open_store(where).close()
        except CasemateError as error:
            return [f"The store cannot be used: {error}"]
        return []
    folder = Path(where).absolute()
    while not folder.exists():
        folder = folder.parent
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return []
    return [f"The store cannot be written: {folder} is not a writable folder; name another with --store"]
