"""When the write-ahead log is copied into the database."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cds_server.store import copier
from cds_server.store.copier import Copier
from models.errors import DiskFull


class Counted:
    """Stands for the database: counts the copies, and holds them up."""

    def __init__(self) -> None:
        self.copies = 0
        self.free = threading.Event()
        self.free.set()

    def checkpoint(self) -> None:
        self.free.wait(10)
        self.copies += 1
        raise DiskFull("full", where="database")  # which the next commit will say


def settled(of: Copier) -> None:
    of._thread.submit(bool).result()


@pytest.fixture
def database() -> Any:
    return Counted()


def test_it_copies_after_so_many_rows_and_one_at_a_time(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copier, "_APART", 0.0)
    of = Copier(database)
    of.wrote(99, 100)
    settled(of)
    assert database.copies == 0
    database.free.clear()
    of.wrote(1, 100)
    for _ in range(5):
        of.wrote(100, 100)  # while it copies
    database.free.set()
    settled(of)
    assert database.copies == 1
    of.wrote(1, 100)  # what came meanwhile
    settled(of)
    assert database.copies == 2
    of.close()


def test_small_rows_do_not_make_it_copy_all_the_time(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("cds_server.store.copier.time.monotonic", lambda: clock[0])
    of = Copier(database)
    for _ in range(20):
        of.wrote(100, 100)
        settled(of)
        clock[0] += copier._APART / 10
    of.close()
    assert database.copies == 2
