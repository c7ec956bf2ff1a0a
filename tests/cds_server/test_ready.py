"""Keys that are on disk before the write lock is taken, and names whose keys are on disk before anybody asks."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from adapters.source import Arrival
from cds_server.store.pack import FIRST, LAST, MANIFEST, PART, part_ref
from cds_server.store.ready import MOST, Names, ReadyKeys
from cds_server.store.store import Store
from cds_server.store.vault import KEYS_A_STATEMENT, object_ref
from cds_server.store.writer import Tx
from models.errors import DiskFull, KeysUnavailable, RecordUnavailable
from tests.cds_server.stores import land_parts

REF = b"p" + bytes(20)


def on_disk(data_dir: Path) -> dict[bytes, bytes]:
    """What another process finds in the key store."""
    with contextlib.closing(sqlite3.connect(f"file:{data_dir / 'keys.db'}?mode=ro", uri=True)) as keys:
        return dict(keys.execute("SELECT ref, key FROM object_key"))


def entry(tx: Tx) -> None:
    tx.entry("test", "user:test", {})


def filled(keys: ReadyKeys) -> None:
    """Wait until what is made ahead is made."""
    keys._thread.submit(bool).result()


# ---- keys of an act --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_a_loop", [True, False])
def test_keys_of_an_act_are_on_disk_before_it_has_the_lock(store: Store, data_dir: Path, on_a_loop: bool) -> None:
    """And nobody who waits for the lock waits for them: another could have it while they are stored."""
    order: list[str] = []
    put, turn = store.vault.keys.put, store.database.turn

    def watched_put(keys: Any) -> None:
        turn().end()  # would wait for ever for a lock that we hold
        order.append("keys")
        put(keys)

    def act(tx: Tx) -> bytes:
        order.append("act")
        entry(tx)
        return on_disk(data_dir)[REF]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.vault.keys, "put", watched_put)
        if on_a_loop:
            found = asyncio.run(store.writer.write(act, keys={REF: b"k" * 32}))
        else:
            found = store.writer.submit(act, keys={REF: b"k" * 32}).result()
    assert found == b"k" * 32
    assert order == ["keys", "act"]


@pytest.mark.parametrize("on_a_loop", [True, False])
def test_an_act_whose_keys_are_refused_never_runs_and_others_do(store: Store, on_a_loop: bool) -> None:
    ran: list[str] = []

    def refused(_: Any) -> None:
        raise DiskFull("full", where="keys.db")

    def named(name: str) -> Any:
        def act(tx: Tx) -> str:
            ran.append(name)
            entry(tx)
            return name

        return act

    async def on_loop() -> list[Any]:
        write = store.writer.write
        acts = (write(named("a")), write(named("b"), keys={REF: b"k" * 32}), write(named("c")))
        return list(await asyncio.gather(*acts, return_exceptions=True))

    def in_a_thread() -> list[Any]:
        submit = store.writer.submit
        futures = [submit(named("a")), submit(named("b"), keys={REF: b"k" * 32}), submit(named("c"))]
        return [future.exception(10) or future.result() for future in futures]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.vault.keys, "put", refused)
        told = asyncio.run(on_loop()) if on_a_loop else in_a_thread()
    assert isinstance(told[1], DiskFull)
    assert (told[0], told[2], ran) == ("a", "c", ["a", "c"])
    assert store.reads.head()[0] == 2


def test_no_row_is_durable_whose_key_is_not(store: Store, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between the two disks: keys without a row, never a row without keys."""
    land_parts(store, [b"first"])
    before = on_disk(data_dir)

    def crash(_: Any) -> None:
        raise RecordUnavailable("the power went")

    with monkeypatch.context() as patch:
        patch.setattr("cds_server.store.writer._Group.sync", crash)
        with pytest.raises(RecordUnavailable):
            land_parts(store, [b"second", b"third"], key=b"2")
    lost = on_disk(data_dir).keys() - before.keys()
    assert {len(ref) for ref in lost} == {21}
    assert len(lost) == 3  # two parts and a manifest
    assert store.reads.query("SELECT COUNT(*) FROM landing") == [(1,)]
    again = land_parts(store, [b"second", b"third"], key=b"2")
    assert again.arrival is Arrival.STORED
    landing = store.reads.landing_by_ref(again.landing)
    assert landing is not None
    assert [body for _, body in store.parts(landing)] == [b"second", b"third"]
    assert store.manifest(landing) == b'{"file":"x.ndjson"}'


def test_a_landing_has_all_its_keys_before_its_act(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts and manifest, of which none is left to the sync under the lock, also where other bytes came before."""
    fresh: list[dict[bytes, bytes]] = []
    finish = Tx.finish

    def watched(tx: Tx) -> None:
        fresh.append(dict(tx.fresh_keys))
        finish(tx)

    monkeypatch.setattr(Tx, "finish", watched)
    for _ in range(20):
        land_parts(store, [b"one", b"two"], key=b"7")
        land_parts(store, [b"one", b"other"], key=b"7")
    assert land_parts(store, [b"one", b"two"], key=b"8").arrival is Arrival.STORED
    assert fresh == [{}] * 41


# ---- names that are ready --------------------------------------------------------------------------------------------


def test_a_name_that_is_ready_has_its_key_on_disk_and_is_had_once(store: Store, data_dir: Path) -> None:
    names, seen = [], 0
    for _ in range(3 * MOST):
        name = store.vault.ready.name(b"t")
        filled(store.vault.ready)
        names.append(name)
        for ref, key in name.keys.items():
            seen += 1
            assert ref == object_ref(b"t", name.ref) == object_ref(b"t", name.uuid)
            assert store.vault.keys.get(ref) == key
    assert len({name.ref for name in names}) == len(names)
    assert seen >= len(names) - 10  # the first few are made as they are needed
    kept = {ref for name in names for ref in name.keys}
    assert 0 < len(on_disk(data_dir).keys() - kept) <= MOST


def test_whoever_asks_for_few_leaves_none_behind(store: Store, data_dir: Path) -> None:
    for _ in range(5):
        assert store.vault.ready.name(b"t").keys == {}
    filled(store.vault.ready)
    assert on_disk(data_dir) == {}


def test_names_are_handed_out_once_to_many_threads(store: Store) -> None:
    got: list[str] = []

    def ask() -> None:
        got.extend(store.vault.ready.name(b"t").ref for _ in range(400))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(set(got)) == 1600


def test_nothing_is_sealed_under_a_key_that_went_with_its_file(store: Store, data_dir: Path) -> None:
    """Ready keys were on disk; then the key store was taken away."""
    for number in range(40):
        land_parts(store, [b"message %d" % number])
        filled(store.vault.ready)
    assert store.vault.ready.name(PART, FIRST, LAST).keys
    (data_dir / "keys.db").rename(data_dir / "taken.db")
    assert not store.vault.ready.name(PART, FIRST, LAST).keys
    with pytest.raises(KeysUnavailable):
        land_parts(store, [b"one more"])
    (data_dir / "taken.db").rename(data_dir / "keys.db")
    assert land_parts(store, [b"one more"]).arrival is Arrival.STORED


def test_a_full_disk_stops_what_is_made_ahead_and_not_what_is_asked(store: Store) -> None:
    def full(_: Any) -> None:
        raise DiskFull("full", where="keys.db")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.vault.keys, "put", full)
        assert all(not store.vault.ready.name(b"t").keys for _ in range(50))
        filled(store.vault.ready)
    for _ in range(3):
        store.vault.ready.name(b"t")
        filled(store.vault.ready)
    assert store.vault.ready.name(b"t").keys


def test_what_landed_with_ready_keys_opens_and_no_duplicate_leaves_keys_for_ever(store: Store, data_dir: Path) -> None:
    """A storm of resends: what was stored for a message that was there already is destroyed."""
    receipts = [land_parts(store, [b"message %d" % number], key=b"%d" % number) for number in range(30)]
    for _ in range(18):
        for number in range(30):
            assert land_parts(store, [b"message %d" % number], key=b"%d" % number).arrival is Arrival.DUPLICATE
    filled(store.vault.ready)
    for number, receipt in enumerate(receipts):
        landing = store.reads.landing_by_ref(receipt.landing)
        assert landing is not None
        assert store.part(landing, 0) == b"message %d" % number
        assert store.vault.keys.get(part_ref(receipt.landing, MANIFEST)) is not None
    left = len(on_disk(data_dir)) - 2 * 30
    assert left <= MOST + 2 * 256  # ready, and waiting for their end: not two for each of 540


def test_many_keys_are_stored_together_or_not_at_all(store: Store, data_dir: Path) -> None:
    many = [(b"x" + number.to_bytes(16), b"k" * 32) for number in range(2 * KEYS_A_STATEMENT + 1)]
    with pytest.raises(KeysUnavailable):
        store.vault.keys.put([*many, (b"y", None)])  # type: ignore[list-item]
    assert on_disk(data_dir) == {}
    with pytest.raises(KeysUnavailable):
        store.vault.keys.put([*many, (many[0][0], b"j" * 32)])
    assert on_disk(data_dir) == {}
    store.vault.keys.put(many)
    assert len(on_disk(data_dir)) == len(many)
    store.vault.keys.destroy([ref for ref, _ in many[1:]])
    assert on_disk(data_dir) == {many[0][0]: b"k" * 32}


def test_a_name_is_sealed_under_once_and_what_is_not_needed_is_destroyed(store: Store, data_dir: Path) -> None:
    for _ in range(20):
        store.vault.ready.name(b"t")
        filled(store.vault.ready)
    names, fresh = Names(store.vault.ready), dict[bytes, bytes]()
    used, unused = names.uuid(b"t"), names.ref(b"t")
    sealed = store.vault.seal(object_ref(b"t", used), b"once", fresh, names)
    assert fresh == {}
    assert store.vault.open(object_ref(b"t", used), sealed.cipher) == b"once"
    store.vault.seal(object_ref(b"t", used), b"twice", fresh, names)
    with pytest.raises(KeysUnavailable):
        store.vault.keys.put(fresh.items())
    assert object_ref(b"t", unused) in on_disk(data_dir)
    names.done()
    store.vault.ready.spent({b"none" + bytes([n // 256, n % 256]): b"" for n in range(300)})  # as many as are destroyed
    filled(store.vault.ready)
    assert object_ref(b"t", unused) not in on_disk(data_dir)
    assert store.vault.open(object_ref(b"t", used), sealed.cipher) == b"once"
