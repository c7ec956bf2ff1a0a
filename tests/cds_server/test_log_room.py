"""The write-ahead log has room before it is needed, and what made the room is believed by nobody."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from cds_server.audit import audit
from cds_server.decisions import now
from cds_server.intake import StoreIntake
from cds_server.store.log_room import make_log_room
from cds_server.store.store import Store
from models.errors import DiskFull
from models.nouns import LandingMeta
from tests.cds_server.stores import ACTOR

SIZE = 1 << 20


def land(store: Store, body: bytes) -> str:
    async def landed() -> str:
        staged = StoreIntake(store, ACTOR).stage(LandingMeta("pacs", "a", "application/dicom", now()))
        await staged.write(body)
        return (await staged.commit()).landing

    return asyncio.run(landed())


def log_of(store: Store) -> Path:
    return Path(f"{store.database.engine.url.database}-wal")


def test_commits_find_room_and_what_made_it_is_nowhere(store: Store, data_dir: Path, tmp_path: Path) -> None:
    first = land(store, b"before")
    make_log_room(store.database, SIZE)
    if not store.database.sqlite:
        return
    size = log_of(store).stat().st_size
    assert size >= SIZE
    make_log_room(store.database, SIZE)
    second = land(store, b"after")
    assert log_of(store).stat().st_size == size
    assert store.reads.query("SELECT COUNT(*) FROM sqlite_master WHERE name = 'log_room'")[0][0] == 0
    assert [row[0] for row in store.reads.query("SELECT ref FROM landing ORDER BY id")] == [first, second]

    copied = tmp_path / "power-cut"  # what the disk holds now: the log is read from its start, as after a crash
    shutil.copytree(data_dir, copied, ignore=shutil.ignore_patterns("*-shm"))
    again = Store.open(copied, f"sqlite:///{copied / 'cds.db'}")
    try:
        assert [row[0] for row in again.reads.query("SELECT ref FROM landing ORDER BY id")] == [first, second]
        assert audit(copied, again.database.url, deep=True).findings == ()
    finally:
        again.close()


def test_where_there_is_no_room_nothing_is_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise DiskFull("the record cannot be written: the disk is full", where="database")

    with monkeypatch.context() as patch:
        patch.setattr(type(store.database), "writing", full)
        make_log_room(store.database, SIZE)
    assert land(store, b"after")
