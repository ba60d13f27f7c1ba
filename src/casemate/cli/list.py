"""`casemate list`: the catalogue of plug-ins, threats and metrics, and the runs in the store."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["What", "list_"]


class What(StrEnum):
    """What can be listed."""

    PLUGINS = "plugins"
    THREATS = "threats"
    METRICS = "metrics"
    RUNS = "runs"


def list_(
    what: Annotated[What, typer.Argument(help="What to list.")] = What.PLUGINS,
    store: Annotated[str, typer.Option(help="For runs: a folder or a database URL.")] = ".casemate",
) -> int:
    """List plug-ins, threats, metrics or runs."""
    from casemate.cli._show import show

    tables = {What.PLUGINS: _plugins, What.THREATS: _threats, What.METRICS: _metrics}
    show(_runs(store) if what is What.RUNS else tables[what]())
    return 0


def _plugins() -> Table:
    from casemate import catalog
    from casemate.cli._show import columns

    table = columns("id", "kind", "cost", "what it does")
    for plugin in catalog.plugins():
        table.add_row(plugin.id, plugin.kind, plugin.cost, plugin.summary)
    return table


def _threats() -> Table:
    from casemate import catalog
    from casemate.cli._show import columns
    from casemate.report import words

    table = columns("threat", "title", "ids", "plug-ins")
    threats = {plugin.threat.name: plugin.threat for plugin in catalog.plugins()}
    for name, threat in sorted(threats.items()):
        ids = "; ".join(f"{title} {text}" for title, text in words.names(threat))
        users = sorted({plugin.id for plugin in catalog.plugins() if plugin.threat.name == name})
        table.add_row(name, threat.title, ids, ", ".join(users))
    return table


def _metrics() -> Table:
    from casemate import catalog
    from casemate.cli._show import columns

    table = columns("metric", "quantity", "unit", "errs", "measured by")
    rows = {metric.name: (metric, plugin.id) for plugin in catalog.plugins() for metric in plugin.metrics}
    for name, (metric, plugin_id) in sorted(rows.items()):
        table.add_row(name, metric.quantity, metric.unit, metric.errs.replace("_", " "), plugin_id)
    return table


def _runs(where: str) -> Table:
    from pathlib import Path

    from casemate.cli._show import columns
    from casemate.report import words
    from casemate.store import open_store

    table = columns("run", "begun", "name", "state", "report", whole=("run", "begun", "state"))
    if "://" not in where and not Path(where).is_dir():
        return table  # looking must not make a store
    store = open_store(where)
    try:
        for row in store.runs():
            table.add_row(row.id, words.date(row.created), row.name, row.state, _near(row.output))
    finally:
        store.close()
    return table


def _near(path: str) -> str:
    """A path as seen from here, where it lies below."""
    from pathlib import Path

    return str(Path(path).relative_to(Path.cwd())) if path and Path(path).is_relative_to(Path.cwd()) else path
