"""The first schema: runs, their states, results, resources, outcomes, events; four of them append-only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "001"
down_revision = None

_APPEND_ONLY = ("runs", "run_states", "outcomes", "events")


def upgrade() -> None:
    """Create the tables and the triggers that keep rows as they are."""
    text = sa.Text
    op.create_table(
        "runs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("request", sa.String(80), nullable=False),
        sa.Column("output", text, nullable=False),
    )
    op.create_table(
        "run_states",
        _serial(),
        sa.Column("run", sa.String(32), sa.ForeignKey("runs.id"), nullable=False, index=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("report", sa.String(80), nullable=False),
    )
    op.create_table(
        "results",
        sa.Column("run", sa.String(32), primary_key=True),
        sa.Column("key", sa.String(80), primary_key=True),
        sa.Column("blob", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "resources",
        sa.Column("key", sa.String(80), primary_key=True),
        sa.Column("blob", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "outcomes",
        _serial(),
        sa.Column("run", sa.String(32), nullable=False, index=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("plugin", text, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("body", text, nullable=False),
    )
    op.create_table(
        "events",
        _serial(),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("bundle", sa.String(80), nullable=False, index=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("body", text, nullable=False),
    )
    _keep_rows()


def _serial() -> sa.Column[int]:
    return sa.Column("serial", sa.Integer, primary_key=True, autoincrement=True)


def _keep_rows() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for table in _APPEND_ONLY:
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION casemate_keep() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_keep BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION casemate_keep()"
        )
