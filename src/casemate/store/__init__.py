"""The store: runs, finished units, outcomes, resources, events. SQLite in `.casemate/` by default, any URL else.

Rows of `runs`, `run_states`, `outcomes` and `events` are only added: the database refuses to change or delete them.
`results` and `resources` are caches of work, keyed by the digest of everything that decides them; beside them stands
how many queries a run has sent.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casemate.core.outcome import Outcome
from casemate.core.records import Event
from casemate.errors import Unavailable, UsageError
from casemate.store.faults import no_room, opening_fault

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["RunRow", "Store", "open_store"]

_QUERIES = "queries"  # no digest, so no key of a unit of work


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as listed: `state` is `running`, or the verdict it ended with."""

    id: str
    created: str
    name: str
    request: str
    output: str
    state: str
    report: str


def open_store(where: str | Path = ".casemate") -> Store:
    """Open (and bring up to date) the store in a folder, or at a database URL.

    A new store is made whole or not at all: what a full disk or a kill leaves of it is an empty database, which the
    next run fills. Raises `UsageError` where the folder cannot be made, and `Unavailable` where its disk is full, its
    file is no store, or the database cannot be reached.
    """
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    text, file, engine = str(where), None, None
    if "://" not in text:
        file = _made(Path(text)) / "store.db"
        text = f"sqlite:///{file}"
    try:
        engine = sa.create_engine(text)
        if engine.dialect.name == "sqlite":
            _settle_sqlite(engine)
        _migrate(engine)
    except SQLAlchemyError as error:
        if engine is not None:
            engine.dispose()
        raise opening_fault(error, None if engine is None else engine.url.database, named=file is not None) from error
    except ModuleNotFoundError as error:
        raise Unavailable(f"expected the driver {error.name}, got none: pip install 'casemate[postgres]'") from error
    return Store(engine)


class Store:
    """An open store; every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def begin(self, name: str, request: str, output: str) -> str:
        """Note that a run begins; returns its id.

        Raises `Unavailable` where the disk is full: there is no run then, so none to go on with.
        """
        from sqlalchemy.exc import OperationalError

        from casemate.store import tables

        run = secrets.token_hex(8)
        row = {"id": run, "created": _now(), "name": name, "request": request, "output": output}
        state = {"run": run, "at": _now(), "state": "running", "report": ""}
        try:
            with self._engine.begin() as connection:
                connection.execute(tables.runs.insert(), row)
                connection.execute(tables.run_states.insert(), state)
        except OperationalError as error:
            if (fault := no_room(error, self._engine.url.database)) is None:
                raise
            raise fault from error
        return run

    def finish(self, run: str, state: str, report: str, outcomes: Iterable[Outcome]) -> None:
        """Note how a run ended, with the digest of its report and its outcomes."""
        from casemate.store import tables

        rows = _outcome_rows(run, outcomes)
        with self._engine.begin() as connection:
            connection.execute(tables.run_states.insert(), {"run": run, "at": _now(), "state": state, "report": report})
            if rows:
                connection.execute(tables.outcomes.insert(), rows)

    def add_outcomes(self, stream: str, outcomes: Iterable[Outcome]) -> None:
        """Keep outcomes that did not come from an audit, such as a watch's."""
        from casemate.store import tables

        rows = _outcome_rows(stream, outcomes)
        if rows:
            with self._engine.begin() as connection:
                connection.execute(tables.outcomes.insert(), rows)

    def outcomes(self, run: str) -> list[Outcome]:
        """The outcomes of a run or a stream, in order."""
        import sqlalchemy as sa

        from casemate.formats import wire
        from casemate.store import tables

        query = sa.select(tables.outcomes.c.body).where(tables.outcomes.c.run == run).order_by(tables.outcomes.c.serial)
        with self._engine.connect() as connection:
            return [wire.read_outcome(body) for body in connection.execute(query).scalars()]

    def runs(self) -> list[RunRow]:
        """All runs, newest last."""
        import sqlalchemy as sa

        from casemate.store import tables

        r, s = tables.runs.c, tables.run_states.c
        last = sa.select(sa.func.max(s.serial)).group_by(s.run).scalar_subquery()
        query = (
            sa.select(r.id, r.created, r.name, r.request, r.output, s.state, s.report)
            .join_from(tables.runs, tables.run_states)
            .where(s.serial.in_(last))
            .order_by(s.serial)
        )
        with self._engine.connect() as connection:
            return [RunRow(*row) for row in connection.execute(query)]

    def result(self, run: str, key: str) -> bytes | None:
        """A finished unit of work of a run."""
        from casemate.store import tables

        c = tables.results.c
        return self._blob(c.blob, (c.run == run) & (c.key == key))

    def put_result(self, run: str, key: str, blob: bytes) -> None:
        """Keep a finished unit of work."""
        from casemate.store import tables

        self._put(tables.results, {"run": run, "key": key, "blob": blob})

    def queries(self, run: str) -> int:
        """How many queries a run has sent to an endpoint; 0 where none is noted."""
        return int(self.result(run, _QUERIES) or 0)

    def put_queries(self, run: str, queries: int) -> None:
        """Note how many queries a run has sent; the last note counts."""
        import sqlalchemy as sa

        from casemate.store import tables

        c = tables.results.c
        row = {"run": run, "key": _QUERIES, "blob": str(queries).encode()}
        with self._engine.begin() as connection:
            connection.execute(sa.delete(tables.results).where((c.run == run) & (c.key == _QUERIES)))
            connection.execute(tables.results.insert(), row)

    def resource(self, key: str) -> bytes | None:
        """A resource by its key."""
        from casemate.store import tables

        c = tables.resources.c
        return self._blob(c.blob, c.key == key)

    def put_resource(self, key: str, blob: bytes) -> None:
        """Keep a resource."""
        from casemate.store import tables

        self._put(tables.resources, {"key": key, "blob": blob})

    def add_event(self, event: Event) -> None:
        """Append what serving emitted."""
        from casemate.formats import wire
        from casemate.store import tables

        row = {"id": event.id, "bundle": event.bundle_digest, "at": event.received_at, "body": wire.write_event(event)}
        with self._engine.begin() as connection:
            connection.execute(tables.events.insert(), row)

    def events(self, bundle: str, *, after: int = 0, limit: int = 10_000) -> list[tuple[int, Event]]:
        """Events of a bundle with their serial numbers, in the order of arrival, after a serial number."""
        import sqlalchemy as sa

        from casemate.formats import wire
        from casemate.store import tables

        c = tables.events.c
        query = sa.select(c.serial, c.body).where(c.bundle == bundle, c.serial > after).order_by(c.serial).limit(limit)
        with self._engine.connect() as connection:
            return [(serial, wire.read_event(body)) for serial, body in connection.execute(query)]

    def _blob(self, column: Any, where: Any) -> bytes | None:
        import sqlalchemy as sa

        with self._engine.connect() as connection:
            found: bytes | None = connection.execute(sa.select(column).where(where)).scalar_one_or_none()
        return found

    def _put(self, table: Any, row: dict[str, Any]) -> None:
        from sqlalchemy.exc import IntegrityError as Exists

        try:
            with self._engine.begin() as connection:
                connection.execute(table.insert(), row)
        except Exists:
            return  # the key is a digest of what decides the blob: the row that is there says the same


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"expected a folder for the store, got {folder} ({error.strerror}): use --store") from error
    return folder


def _settle_sqlite(engine: Engine) -> None:
    import sqlalchemy as sa

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins no transaction for a CREATE TABLE: we begin them all
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        alone = connection.get_execution_options().get("alone", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if alone else "BEGIN")


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with engine.execution_options(alone=True).begin() as connection:  # of two that make a store, one waits
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _outcome_rows(run: str, outcomes: Iterable[Outcome]) -> list[dict[str, str]]:
    from casemate.formats import wire

    at = _now()
    return [
        {"run": run, "at": at, "plugin": o.plugin, "outcome": o.outcome, "body": wire.write_outcome(o)}
        for o in outcomes
    ]


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
