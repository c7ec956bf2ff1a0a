"""The store: insert-only, gap-free under threads and processes, one failing act alone, a schema that is as said."""

from __future__ import annotations

import ast
import multiprocessing
import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from cds_server.store import writer
from cds_server.store.migrate import HEAD, current
from cds_server.store.store import Store
from cds_server.store.tables import COLUMNS, GOVERNED
from cds_server.store.writer import Tx
from models.errors import Misconfigured, NotFound, RecordUnavailable
from tests.cds_server.conftest import OpenStore
from tests.cds_server.stores import ACTOR, JOINING, append_many, land, learn, patient, stop_row, weight
from tests.peers import ROOT

FIXED = ("instance", "ledger_entry", *GOVERNED)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, data_dir: Path) -> str:
    """Of a database with nothing in it: the schema under test is the one that the product makes."""
    if request.param == "sqlite":
        return f"sqlite:///{data_dir / 'cds.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_no_row_changes(store: Store) -> None:
    learn(store, patient("1"), weight("w", "1", 60))
    for table in FIXED:
        _fill(store, table)
        column = COLUMNS.get(table, ("id", "seq"))[table == "ledger_entry"]
        for verb in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
            with (
                store.database.engine.connect() as connection,
                pytest.raises(DBAPIError, match=f"{table} is insert-only"),
            ):
                connection.exec_driver_sql(verb)


def _fill(store: Store, table: str) -> None:
    """A row in a governed table that has none: SQLite's triggers stand on rows."""
    if table not in GOVERNED or store.reads.query(f"SELECT 1 FROM {table}"):
        return
    columns = GOVERNED[table].__table__.columns  # type: ignore[attr-defined]
    plain = {"VARCHAR": "x", "BIGINT": 1, "INTEGER": 1, "BOOLEAN": False, "BLOB": b"x"}
    cells = {c.name: plain[str(c.type)] for c in columns if c.name not in ("id", "entry")}

    def act(tx: Tx) -> None:
        tx.add(table, **cells)
        tx.entry("test", ACTOR, {})

    store.writer.submit(act).result()


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_postgresql_refuses_changes_by_grant_and_by_trigger(store: Store) -> None:
    learn(store, patient("1"), weight("w", "1", 60))

    def refusals() -> set[str]:
        said = set()
        for table in FIXED:
            column = COLUMNS.get(table, ("id", "seq"))[table == "ledger_entry"]
            for verb in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
                with store.database.engine.connect() as connection, pytest.raises(DBAPIError) as refused:
                    connection.exec_driver_sql(verb)
                said.add(str(refused.value.orig).split("\n")[0].replace(table, "TABLE"))
        return said

    assert refusals() == {"permission denied for table TABLE"}
    with store.database.engine.begin() as connection:
        for table in FIXED:  # the owner may give itself the right back; the triggers still stand
            connection.exec_driver_sql(f"GRANT ALL ON {table} TO CURRENT_USER")
    assert refusals() == {"TABLE is insert-only"}


def test_the_sequence_has_no_gap_under_threads(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        numbers = list(pool.map(lambda _: store.writer.submit(stop_row).result(), range(200)))
    assert sorted(numbers) == list(range(1, 201))
    assert store.reads.head()[0] == 200
    assert [entry.seq for entry in store.reads.entries(batch=7)] == list(range(1, 201))


def test_the_sequence_has_no_gap_under_processes(open_store: OpenStore, data_dir: Path, url: str) -> None:
    """The first start is raced for too: three processes open an instance that is not there yet."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(str(data_dir), url, f"p{n}", 40)) for n in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(timeout=120)
    assert [process.exitcode for process in writers] == [0, 0, 0]
    store = open_store()
    assert store.reads.head()[0] == 120
    counts = store.reads.query("SELECT service, COUNT(*) FROM service_state GROUP BY service ORDER BY service")
    assert [tuple(row) for row in counts] == [("p0", 40), ("p1", 40), ("p2", 40)]


def test_a_failing_act_takes_nothing_else_with_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty acts wait behind a first one, so that they are one group; those that fail, fail alone."""
    monkeypatch.setattr(writer, "_HOLD", 60.0)  # of a busy machine, too
    begun, gate = threading.Event(), threading.Event()

    def held(tx: Tx) -> int:
        begun.set()
        gate.wait(10)
        return stop_row(tx)

    def failing(tx: Tx) -> int:
        tx.add("service_state", service="lost", state="stopped", reason=None, at=tx.now)
        tx.flush()
        raise NotFound("not this one")

    def breaking(tx: Tx) -> int:
        tx.read("SELECT nothing FROM nowhere")
        return 0

    acts = [store.writer.submit(held)]
    begun.wait(10)
    run = {0: failing, 1: breaking}
    acts += [store.writer.submit(run.get(n % 5, stop_row)) for n in range(20)]
    gate.set()
    wait(acts, timeout=30)
    errors = [type(act.exception()) for act in acts[1:]]
    assert errors == [NotFound, RecordUnavailable, type(None), type(None), type(None)] * 4
    assert sorted(act.result() for act in acts if not act.exception()) == list(range(1, 14))
    assert store.writer.groups == 2
    assert store.reads.one("SELECT COUNT(*) FROM service_state WHERE service = 'lost'")[0] == 0  # type: ignore[index]


def test_an_act_whose_caller_went_away_harms_nobody(store: Store) -> None:
    begun, gate = threading.Event(), threading.Event()

    def held(tx: Tx) -> int:
        begun.set()
        gate.wait(10)
        return stop_row(tx)

    running = store.writer.submit(held)
    begun.wait(10)
    waiting: Future[int] = store.writer.submit(stop_row)
    assert not running.cancel()
    assert waiting.cancel()
    gate.set()
    assert running.result(10) == 1
    assert store.writer.submit(stop_row).result(10) == 2


def test_an_act_without_an_entry_is_refused(store: Store) -> None:
    def act(tx: Tx) -> None:
        tx.add("service_state", service="x", state="stopped", reason=None, at=tx.now)

    with pytest.raises(AssertionError, match="without a ledger entry"):
        store.writer.submit(act).result()
    assert store.reads.head()[0] == 0
    assert store.reads.one("SELECT COUNT(*) FROM service_state")[0] == 0  # type: ignore[index]


def test_a_flushed_row_is_seen_by_its_act_and_stays_in_its_entry(store: Store) -> None:
    def act(tx: Tx) -> list[int]:
        seen = []
        for _ in range(3):
            tx.add("service_state", service="x", state="stopped", reason=None, at=tx.now)
            seen.append(tx.read("SELECT COUNT(*) FROM service_state")[0][0])
            tx.flush()
        tx.entry("test", ACTOR, {})
        return seen

    assert store.writer.submit(act).result() == [0, 1, 2]
    (entry,) = store.reads.entries()
    assert len(entry.row_leaves) == 3 * 32


def test_row_ids_name_their_entry(store: Store) -> None:
    learn(store, patient("1"), weight("w", "1", 60))
    for table in COLUMNS:
        for row_id, entry in store.reads.query(f'SELECT id, entry FROM "{table}"'):
            assert row_id >> 20 == entry
    ids = [row[0] for table in COLUMNS for row in store.reads.query(f'SELECT id FROM "{table}" WHERE entry = 2')]
    assert sorted(ids) == [2 << 20 | n for n in range(1, len(ids) + 1)]


def test_the_schema_is_what_the_tables_say(store: Store) -> None:
    with store.database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    assert current(store.database) == HEAD


def test_a_database_of_a_newer_version_is_refused(data_dir: Path, url: str) -> None:
    store = Store.open(data_dir, url)
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    store.close()
    with pytest.raises(Misconfigured, match="revision 9999, which this version does not know"):
        Store.open(data_dir, url)


def test_a_start_that_was_cut_off_is_taken_up(open_store: OpenStore, data_dir: Path) -> None:
    """The key store is made before the database names the instance; a crash between the two must not lock us out."""
    from cds_server.store.vault import KeyStore

    named = KeyStore.create(data_dir / "keys.db")
    assert open_store().instance == named


def test_two_digesters_lose_no_part(open_store: OpenStore) -> None:
    from cds_server.backlog import digest_backlog

    first, second = open_store(), open_store()
    land(first, patient("1"), *(weight(f"w{n}", "1", 50 + n) for n in range(150)))
    with ThreadPoolExecutor(2) as pool:
        tallies = list(pool.map(lambda s: digest_backlog(s, JOINING, ACTOR, validate=False), (first, second)))
    assert sum(tally.asserted for tally in tallies) + digest_backlog(first, JOINING, ACTOR).asserted == 151
    assert first.reads.undigested() == []
    spans = first.reads.query("SELECT part_from, part_to FROM digestion ORDER BY part_from")
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]


def test_sql_is_put_together_from_our_own_constants_only() -> None:
    """What `pyproject.toml` lets these files do (S608): every `{...}` in SQL text is one of the names listed here."""
    listed = (
        r"marks\(\w+\)|_?[A-Z][A-Z_]*|table|columns?|condition|narrowed|verb|pragma|verb\.lower\(\)|places|announced",
        r"', '\.join\(columns\)",
        r"', '\.join\('\?' \* len\(columns\)\)",
        r"', '\.join\(\('f\.' \+ column .*\)\)",
    )
    pattern = re.compile("|".join(listed))
    files = [*(ROOT / "cds_server").rglob("*.py")]
    seen = 0
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.JoinedStr):
                continue
            text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            if not re.search(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|REVOKE|WHERE|CREATE TRIGGER)\b", text):
                continue
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    seen += 1
                    assert pattern.fullmatch(ast.unparse(part.value)), (path.name, ast.unparse(part.value))
    assert seen > 10
