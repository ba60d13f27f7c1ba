"""The tables of the store."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["APPEND_ONLY", "events", "metadata", "outcomes", "resources", "results", "run_states", "runs"]

metadata = sa.MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s"})

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("created", sa.String(32), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("request", sa.String(80), nullable=False),
    sa.Column("output", sa.Text, nullable=False),
)
"""One audit. `request` is the digest of everything that decides its report."""

run_states = sa.Table(
    "run_states",
    metadata,
    sa.Column("serial", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run", sa.String(32), sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("report", sa.String(80), nullable=False),
)
"""What became of a run; the last row counts."""

results = sa.Table(
    "results",
    metadata,
    sa.Column("run", sa.String(32), primary_key=True),
    sa.Column("key", sa.String(80), primary_key=True),
    sa.Column("blob", sa.LargeBinary, nullable=False),
)
"""Finished units of work of a run: the unit of resumption."""

resources = sa.Table(
    "resources",
    metadata,
    sa.Column("key", sa.String(80), primary_key=True),
    sa.Column("blob", sa.LargeBinary, nullable=False),
)
"""Resources by the digest of everything that decides them; shared by runs."""

outcomes = sa.Table(
    "outcomes",
    metadata,
    sa.Column("serial", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run", sa.String(32), nullable=False, index=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("plugin", sa.Text, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
"""Outcomes of audits and watches; a watch's `run` is the id of its stream."""

events = sa.Table(
    "events",
    metadata,
    sa.Column("serial", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("bundle", sa.String(80), nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
"""What serving emitted, in the order in which it arrived."""

APPEND_ONLY = ("runs", "run_states", "outcomes", "events")
"""Tables whose rows the database itself refuses to change or delete. `results` and `resources` are caches."""
