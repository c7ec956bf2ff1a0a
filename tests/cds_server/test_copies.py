"""Backup while others write, restore elsewhere: the log verifies, the keys stand apart, everything opens."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cds_server.audit import audit
from cds_server.copies import backup, restore
from cds_server.settings import Settings
from cds_server.store.store import Store
from models.errors import KeysUnavailable, LedgerBroken, Misconfigured, PeerFailed
from tests.cds_server.stores import land_parts, learn, patient, stop_row, weight, weights
from tests.peers.postgres import PostgresServer


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """Settings of an empty instance of the same kind, in another place."""
    data_dir = tmp_path / "elsewhere"
    if settings.database_url.startswith("sqlite"):
        yield replace(settings, data_dir=data_dir, database_url=f"sqlite:///{data_dir / 'cds.db'}")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create_database()
    yield replace(settings, data_dir=data_dir, database_url=server.url(name))
    server.drop_database(name)


def test_a_backup_taken_while_others_write_is_whole(
    store: Store, settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    learn(store, patient("1"), weight("w", "1", 60))
    large = [os.urandom(50_000) for _ in range(3)]
    receipt = land_parts(store, large, media_type="application/octet-stream")
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            learn(store, weight(f"x{number}", "1", number))
            store.writer.submit(stop_row).result()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        made = backup(settings, tmp_path / "copy")
    finally:
        over.set()
        thread.join()
    assert made["blobs"] == 1
    restored = restore(elsewhere, tmp_path / "copy")
    assert restored["entries"] >= 3
    other = Store.open(elsewhere.data_dir, elsewhere.database_url)
    assert "60 kg" in weights(other, "a", "1")
    assert (
        len(weights(other, "a", "1"))
        == other.reads.query("SELECT COUNT(*) FROM resource WHERE type = 'Observation'")[0][0]
    )
    landing = other.reads.landing_by_ref(receipt.landing)
    assert landing is not None
    assert [body for _, body in other.parts(landing)] == large
    assert other.writer.submit(stop_row).result() == restored["entries"] + 1
    from sqlalchemy.exc import DBAPIError

    with (
        other.database.engine.connect() as connection,
        pytest.raises(DBAPIError, match=r"insert-only|permission denied"),
    ):
        connection.exec_driver_sql("DELETE FROM ledger_entry")
    other.close()
    assert audit(elsewhere.data_dir, elsewhere.database_url, deep=True).findings == ()


def test_the_keys_stand_apart(store: Store, settings: Settings, elsewhere: Settings, tmp_path: Path) -> None:
    learn(store, patient("1"), weight("w", "1", 60))
    backup(settings, tmp_path / "copy")
    (tmp_path / "copy/keys").rename(tmp_path / "safe")
    assert not list((tmp_path / "copy").rglob("keys.db"))
    assert (tmp_path / "safe/keys.db").stat().st_mode & 0o077 == 0
    with pytest.raises(Misconfigured, match="name their folder with --keys"):
        restore(elsewhere, tmp_path / "copy")
    restore(elsewhere, tmp_path / "copy", tmp_path / "safe")
    with pytest.raises(Misconfigured, match="already holds an instance"):
        restore(elsewhere, tmp_path / "copy", tmp_path / "safe")


def test_the_keys_of_another_instance_are_refused(
    store: Store, settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    learn(store, patient("1"))
    backup(settings, tmp_path / "copy")
    other = Store.open(tmp_path / "other", f"sqlite:///{tmp_path / 'other.db'}")
    other.close()
    with pytest.raises(KeysUnavailable, match="another instance"):
        restore(elsewhere, tmp_path / "copy", tmp_path / "other")


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_changed_copy_is_noticed(store: Store, settings: Settings, elsewhere: Settings, tmp_path: Path) -> None:
    land_parts(store, [os.urandom(100_000)])
    backup(settings, tmp_path / "copy")
    (blob,) = (path for path in (tmp_path / "copy/blobs").rglob("*") if path.is_file())
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(LedgerBroken, match="the sealed bytes of landing"):
        restore(elsewhere, tmp_path / "copy")


def test_what_is_no_backup_is_refused(settings: Settings, elsewhere: Settings, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(Misconfigured, match="must be empty"):
        backup(settings, tmp_path / "full")
    with pytest.raises(Misconfigured, match="has no keys"):
        restore(elsewhere, tmp_path / "full")


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_a_database_server_that_is_not_there_is_a_peer_that_failed(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    nowhere = replace(settings, database_url="postgresql+psycopg://cds:pa%40ss@127.0.0.1:1/none")
    with pytest.raises(PeerFailed, match="pg_dump failed with exit code") as failed:
        backup(nowhere, tmp_path / "copy")
    assert "pa" not in str(failed.value.where)
    assert failed.value.exit_code == 3
