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
    base = [need for need in needs if not need.extra]
    trouble = [f"{need.name} is missing: {need.line}" for need in base if not need.version]
    if not needs:
        trouble.append(f"{_DISTRIBUTION} is not installed as a package: pip install -e .")
    trouble += _store_trouble(store)
    import platform

    show(f"Python {platform.python_version()} on {platform.platform()}", "", _table(base), "", _extras(needs))
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

    table = columns("Casemate itself", "version", "to install it")
    for need in needs:
        table.add_row(need.name, need.version or "missing", "" if need.version else need.line)
    return table


def _extras(needs: list[Need]) -> Table:
    """Each extra with the packages that it brings, by what can be imported: two packages may own one name."""
    from importlib import metadata

    from casemate.adapters.extras import EXTRAS
    from casemate.cli._show import columns

    owners = metadata.packages_distributions()
    brings: dict[str, list[Need]] = {}
    for module, extra in EXTRAS.items():
        name = next(iter(owners.get(module, ())), module)
        brings.setdefault(extra, []).append(Need(name, _importable(module, name), extra))
    for need in needs:
        if need.extra and need.extra not in EXTRAS.values():
            brings.setdefault(need.extra, []).append(need)
    table = columns("extra", "what it brings", "to install it")
    for extra, packages in sorted(brings.items()):
        told = ", ".join(f"{need.name} {need.version or 'missing'}" for need in packages)
        table.add_row(extra, told, "" if all(need.version for need in packages) else packages[0].line)
    return table


def _importable(module: str, name: str) -> str:
    """The version of what a module belongs to, `""` where it cannot be imported."""
    return (_version(name) or "installed") if importlib.util.find_spec(module) is not None else ""


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
