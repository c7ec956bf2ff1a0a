"""The write transaction: one at a time, ended once, on a connection that saw no trouble."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cds_server.store.engine import Database
from models.errors import ReadOnlyStore, RecordUnavailable


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/x.db", tmp_path)
    with opened.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE lease (name TEXT PRIMARY KEY, until TEXT)")
    yield opened
    opened.close()


def names(database: Database) -> list[str]:
    with database.reading() as connection:
        return [row[0] for row in connection.exec_driver_sql("SELECT name FROM lease ORDER BY name")]


def test_a_commit_keeps_and_a_roll_back_undoes_and_both_free_the_lock(database: Database) -> None:
    kept = database.begin(database.turn())
    kept.cursor.execute("INSERT INTO lease VALUES ('kept', '')")
    with pytest.raises(BlockingIOError):
        database.turn(wait=False)
    kept.commit()
    undone = database.begin(database.turn(wait=False))
    undone.cursor.execute("INSERT INTO lease VALUES ('undone', '')")
    undone.roll_back()
    database.turn(wait=False).end()
    assert names(database) == ["kept"]


def test_it_is_ended_once(database: Database) -> None:
    """A caller that gives up while another thread commits: what is durable stays, and nobody has the lock twice."""
    transaction = database.begin(database.turn())
    transaction.cursor.execute("INSERT INTO lease VALUES ('kept', '')")
    ends = [threading.Thread(target=transaction.commit), threading.Thread(target=transaction.roll_back)]
    ends[0].start()
    ends[0].join()
    ends[1].start()
    ends[1].join()
    other = database.turn(wait=False)
    transaction.roll_back()
    with pytest.raises(BlockingIOError):
        database.turn(wait=False)
    other.end()
    assert names(database) == ["kept"]


def test_a_connection_is_used_again_unless_it_saw_trouble(database: Database) -> None:
    first = database.begin(database.turn())
    first.commit()
    second = database.begin(database.turn())
    assert second.cursor is first.cursor
    second.roll_back()
    third = database.begin(database.turn())
    assert third.cursor is not second.cursor
    with pytest.raises(sqlite3.ProgrammingError):
        second.cursor.execute("SELECT 1")
    third.commit()


@pytest.mark.parametrize("synced", [False, True])
def test_whether_a_commit_is_synced_is_said_each_time(database: Database, synced: bool) -> None:
    for each in (synced, not synced, synced):
        transaction = database.begin(database.turn(), synced=each)
        (level,) = transaction.cursor.execute("PRAGMA synchronous").fetchone()
        assert level == (2 if each else 1)
        transaction.commit()


def test_where_it_cannot_begin_the_lock_is_free(database: Database) -> None:
    database.begin(database.turn()).commit()
    (kept,) = database._idle
    kept.connection.close()
    with pytest.raises(sqlite3.ProgrammingError):
        database.begin(database.turn())
    database.begin(database.turn(wait=False)).commit()


def test_a_try_to_write_says_what_is_wrong_and_is_over_with_it(database: Database) -> None:
    database.try_writing()
    (kept,) = database._idle
    kept.cursor.execute("PRAGMA query_only = ON")
    with pytest.raises(ReadOnlyStore):
        database.try_writing()
    database.try_writing()
    with database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE lease")
    with pytest.raises(RecordUnavailable):
        database.try_writing()
    database.turn(wait=False).end()
