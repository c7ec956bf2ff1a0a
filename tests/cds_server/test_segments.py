"""Sealed bytes that share a file: the same bytes come back, nothing is acknowledged unsynced, and a crash leaves zeros
that the next process cuts off."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.source import Arrival, Receipt
from cds_server.audit import audit
from cds_server.copies import backup, restore
from cds_server.decisions import now
from cds_server.intake import StoreIntake
from cds_server.settings import Settings
from cds_server.store import segments, writer
from cds_server.store.rooms import LONGEST, Room
from cds_server.store.segments import FOLDER, Place, Segments
from cds_server.store.store import Store
from models.errors import DiskFull, KeysUnavailable, RecordUnavailable
from models.nouns import LandingMeta
from tests.cds_server.stores import ACTOR

SMALL_SEGMENT = 1 << 20
BLOCK = 4096


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SIZE", SMALL_SEGMENT)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("blobs", "staging"):
        (tmp_path / name).mkdir()
    return tmp_path / "blobs", tmp_path / "staging"


def intake_of(store: Store) -> StoreIntake:
    made = StoreIntake(store, ACTOR, appended=True)
    store.segments.wait()
    return made


async def land(intake: StoreIntake, body: bytes, key: bytes | None = None, **more: Any) -> Receipt:
    staged = intake.stage(LandingMeta("pacs", "a", "application/dicom", now(), {"calling_ae_title": "CT1"}))
    await staged.write(body)
    return await staged.commit(key, **more)


def bodies(count: int, length: int = 100_000) -> list[bytes]:
    return [os.urandom(length + number) for number in range(count)]


def blocks(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def packed(data: bytes) -> Room:
    room = Room()
    place = room.more(len(data))
    assert place is not None
    place[:] = data
    return room


def in_segments(store: Store) -> list[str]:
    rows = store.reads.query("SELECT pack_file FROM landing WHERE pack_file IS NOT NULL ORDER BY id")
    return [row[0] for row in rows if row[0].startswith(f"{FOLDER}/")]


# ---- through the intake ----------------------------------------------------------------------------------------------


def test_landings_of_some_hundred_kilobytes_share_files_and_come_back(store: Store) -> None:
    intake = intake_of(store)
    small, middle, large = os.urandom(1000), bodies(25), os.urandom(LONGEST + 1)

    async def run() -> list[Receipt]:
        found = [await land(intake, small)]
        for body in middle:
            found.append(await land(intake, body))
            store.segments.wait()  # the next segment is there when it is needed
        return [*found, await land(intake, large)]

    receipts = asyncio.run(run())
    for receipt, body in zip(receipts, [small, *middle, large], strict=True):
        landing = store.reads.landing_by_ref(receipt.landing)
        assert landing is not None
        assert store.part(landing, 0) == body
        assert store.manifest(landing) == b'{"calling_ae_title":"CT1"}'
        with store.stream(landing, 0) as stream:
            assert stream.seek(-10, os.SEEK_END) == len(body) - 10
            assert stream.read() == body[-10:]
    places = [Place.of(each) for each in in_segments(store)]
    assert len(places) == 25
    assert len({place.file for place in places}) == 3  # ten of them fit into each
    assert audit(store.data_dir, store.database.url, deep=True).findings == ()
    store.close()
    for file in {place.file for place in places}:
        end = max(place.offset + blocks(place.length or 0) for place in places if place.file == file)
        assert (store.data_dir / "blobs" / file).stat().st_size == end
    assert len(list((store.data_dir / "blobs" / FOLDER).iterdir())) == 3
    assert list((store.data_dir / "staging").iterdir()) == []


def test_without_a_segment_at_hand_a_landing_has_a_file_of_its_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segments, "make_ready", lambda _: None)
    monkeypatch.setattr(Segments, "_make", lambda _: None)
    body = bodies(1)[0]
    receipt = asyncio.run(land(intake_of(store), body))
    landing = store.reads.landing_by_ref(receipt.landing)
    assert landing is not None
    assert landing.pack_file == f"{landing.ref[:2]}/{landing.ref}"
    assert store.part(landing, 0) == body


def test_what_was_known_before_gives_its_place_back(store: Store) -> None:
    intake, (body, other, third) = intake_of(store), bodies(3)

    async def run() -> None:
        first = await land(intake, body, b"1")
        end = store.segments._current.end  # type: ignore[union-attr]
        for _ in range(30):  # a study that is sent again takes no room
            assert (await land(intake, body, b"1")).arrival is Arrival.DUPLICATE
        assert (await land(intake, other, b"1")).arrival is Arrival.CONFLICT
        assert store.segments._current.end == end  # type: ignore[union-attr]
        again = await asyncio.gather(*(land(intake, body, b"1") for _ in range(3)), land(intake, third, b"2"))
        assert [each.arrival for each in again] == [Arrival.DUPLICATE] * 3 + [Arrival.STORED]
        for receipt, expected in ((first, body), (again[3], third)):
            landing = store.reads.landing_by_ref(receipt.landing)
            assert landing is not None
            assert store.part(landing, 0) == expected

    asyncio.run(run())
    assert audit(store.data_dir, store.database.url, deep=True).findings == ()


def test_bytes_and_keys_are_synced_before_the_write_lock_is_had(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    intake, order = intake_of(store), list[str]()

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*args: Any, **how: Any) -> Any:
            order.append(name)
            return call(*args, **how)

        return calling

    monkeypatch.setattr(os, "fdatasync", watched("bytes", os.fdatasync))
    monkeypatch.setattr(type(store.database), "turn", watched("lock", type(store.database).turn))
    monkeypatch.setattr(type(store.vault.keys), "put", watched("keys", type(store.vault.keys).put))
    asyncio.run(land(intake, bodies(1)[0]))
    assert order == ["keys", "bytes", "lock"]


def test_a_sync_that_fails_refuses_and_its_segment_is_not_believed_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake, (first, second, third) = intake_of(store), bodies(3)
    receipt = asyncio.run(land(intake, first))
    segment = store.segments._current

    def failing(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(DiskFull):
            asyncio.run(land(intake, second))
    store.segments.wait()
    stored = asyncio.run(land(intake, third))  # the kernel would say that all is well, of what it dropped
    landing = store.reads.landing_by_ref(stored.landing)
    assert landing is not None
    assert segment is not None
    assert not str(landing.pack_file).startswith(segment.name)
    assert [row[0] for row in store.reads.query("SELECT ref FROM landing ORDER BY id")] == [
        receipt.landing,
        stored.landing,
    ]


# ---- a copy taken meanwhile, and what is changed ---------------------------------------------------------------------


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_backup_taken_while_segments_grow_is_whole(store: Store, settings: Settings, tmp_path: Path) -> None:
    intake, over, landed = intake_of(store), threading.Event(), dict[str, bytes]()

    async def run() -> None:
        while not over.is_set():
            body = bodies(1)[0]
            landed[(await land(intake, body)).landing] = body

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        while len(landed) < 12:
            over.wait(0.01)
        backup(settings, tmp_path / "copy")
    finally:
        over.set()
        thread.join()
    elsewhere = replace(settings, data_dir=tmp_path / "new", database_url=f"sqlite:///{tmp_path / 'new' / 'cds.db'}")
    assert restore(elsewhere, tmp_path / "copy")["entries"] >= 12  # verifies, deep
    other = Store.open(elsewhere.data_dir, elsewhere.database_url)
    try:
        for (ref,) in other.reads.query("SELECT ref FROM landing"):
            landing = other.reads.landing_by_ref(ref)
            assert landing is not None
            assert other.part(landing, 0) == landed[ref]
        receipt = asyncio.run(land(intake_of(other), b"x" * 100_000))  # what was copied is not appended to
        fresh = other.reads.landing_by_ref(receipt.landing)
        assert fresh is not None
        assert not (tmp_path / "copy/blobs" / Place.of(str(fresh.pack_file)).file).exists()
    finally:
        other.close()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_changed_or_cut_off_segment_is_noticed_at_the_landing_that_it_concerns(store: Store) -> None:
    intake = intake_of(store)
    receipts = [asyncio.run(land(intake, body)) for body in bodies(3)]
    places = [Place.of(each) for each in in_segments(store)]
    path = store.data_dir / "blobs" / places[0].file
    whole = path.read_bytes()
    second = store.reads.landing_by_ref(receipts[1].landing)
    third = store.reads.landing_by_ref(receipts[2].landing)
    assert second is not None
    assert third is not None
    changed = bytearray(whole)
    changed[places[1].offset + 50] ^= 1
    path.write_bytes(changed)
    with pytest.raises(KeysUnavailable):
        store.part(second, 0)
    assert store.part(third, 0)
    (finding,) = audit(store.data_dir, store.database.url, deep=True).findings
    assert receipts[1].landing in str(finding)
    path.write_bytes(whole[: places[2].offset + 10])
    with pytest.raises(RecordUnavailable):
        store.part(third, 0)
    path.unlink()
    with pytest.raises(RecordUnavailable, match="blob of a landing is missing"):
        store.part(second, 0)
    path.write_bytes(whole)


def test_a_place_is_read_as_it_is_written() -> None:
    for said in ("ab/abcd", "seg/ab12:0:17", "seg/ab12:123:456"):
        assert str(Place.of(said)) == said
    for said in ("seg/a:1", "seg/a:1:2:3", "seg/a:-1:2", "seg/a:x:2", "seg/a::", "seg/a:\u0661:2"):
        with pytest.raises(RecordUnavailable):
            Place.of(said)


def test_a_span_of_a_file_reads_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 8)
    with Place("file", 100, 1000).open(tmp_path) as span:
        inside = io.BytesIO((bytes(range(256)) * 8)[100:1100])
        for offset, whence, length in ((0, 0, 10), (500, 0, 600), (-3, 2, 5), (5, 1, 5), (2000, 0, 5), (0, 0, -1)):
            assert span.seek(offset, whence) == inside.seek(offset, whence)
            assert span.read(length) == inside.read(length)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_one_sync_serves_all_that_was_written_before_it(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Segments(*folders)
    made.make_ready()
    made.wait()
    synced, sync = list[int](), os.fdatasync

    def watched(file: int) -> None:
        synced.append(file)
        sync(file)

    monkeypatch.setattr(os, "fdatasync", watched)
    several = [made.append(packed(b"x" * 1000)) for _ in range(5)]
    for each in several[1:]:
        assert each is not None
        each.sync()
    assert len(synced) == 1
    later = made.append(packed(b"y"))
    assert later is not None
    assert later.place.offset == 5 * BLOCK
    later.sync()
    assert len(synced) == 2
    made.close()
    later.sync()  # closing synced it
    assert (folders[0] / later.place.file).stat().st_size == 6 * BLOCK


def test_a_segment_that_was_never_written_to_leaves_nothing(folders: tuple[Path, Path]) -> None:
    made = Segments(*folders)
    made.make_ready()
    made.wait()
    assert len(list((folders[0] / FOLDER).iterdir())) == 1
    made.close()
    assert list((folders[0] / FOLDER).iterdir()) == []
    assert list(folders[1].iterdir()) == []
    assert made.append(packed(b"x")) is None


def test_a_disk_without_room_makes_no_segment(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    made = Segments(*folders)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        made.make_ready()
        made.wait()
    assert list((folders[0] / FOLDER).iterdir()) == []
    assert list(folders[1].iterdir()) == []
    assert made.append(packed(b"x")) is None  # and asks for one again
    made.wait()
    assert made.append(packed(b"x")) is not None
    made.close()


_KILLED = """
import os, signal, sys
from pathlib import Path
from cds_server.store import rooms, segments
segments.SIZE = 1 << 20
made = segments.Segments(Path(sys.argv[1]), Path(sys.argv[2]))
made.make_ready()
made.wait()
data = os.urandom(99_999) + bytes([1]) + bytes(9)
room = rooms.Room()
room.more(len(data))[:] = data
found = made.append(room)
found.sync()
made.wait()
print(found.place, data[:32].hex(), flush=True)
if sys.argv[3] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
"""


def _other_process(folders: tuple[Path, Path], then: str) -> tuple[subprocess.Popen[str], Place, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, *map(str, folders), then],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said, begin = process.stdout.readline().split()
    return process, Place.of(said), begin


def test_zeros_of_a_process_that_was_killed_are_cut_off_and_those_of_a_living_one_are_not(
    folders: tuple[Path, Path],
) -> None:
    dead, place, begin = _other_process(folders, "kill")
    dead.communicate()
    assert dead.returncode == -signal.SIGKILL
    living, own, _ = _other_process(folders, "live")
    sizes = {each.name: each.stat().st_size for each in (folders[0] / FOLDER).iterdir()}
    left = (folders[0] / place.file).read_bytes()
    assert len(left) == 100_016  # zeros as long as a seal stay behind the last byte that is none
    assert left[:32].hex() == begin
    assert sizes[Path(own.file).name] == SMALL_SEGMENT
    made = Segments(*folders)
    made.make_ready()
    made.wait()
    assert (folders[0] / own.file).stat().st_size == SMALL_SEGMENT
    made.close()
    living.kill()
    living.communicate()
    again = Segments(*folders)
    again.make_ready()
    again.wait()
    assert (folders[0] / own.file).stat().st_size == 100_016
    again.close()
    assert list(folders[1].iterdir()) == []
    assert {each.stat().st_size for each in (folders[0] / FOLDER).iterdir()} == {100_016}


# ---- a deliverer who is alone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_who_is_alone_waits_a_moment_for_another_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_SOON", 30.0)
    monkeypatch.setattr(type(store.writer), "_queued", lambda *_: pytest.fail("another thread's turn"))
    intake = StoreIntake(store, ACTOR, appended=True, alone=lambda: True)
    turn = store.database.turn()
    given_back = threading.Timer(0.02, turn.end)
    given_back.start()
    assert asyncio.run(land(intake, b"x")).arrival is Arrival.STORED
    given_back.join()


def test_an_act_is_done_however_long_its_beginning_took(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a group may have had the lock for its whole time before its first act: nobody answered then."""
    monkeypatch.setattr(writer, "_HOLD", 0.0)
    intake = StoreIntake(store, ACTOR, appended=True, alone=lambda: True)

    async def within(seconds: float) -> Receipt:
        return await asyncio.wait_for(land(intake, b"x"), seconds)

    assert asyncio.run(within(30)).arrival is Arrival.STORED


def test_who_is_alone_has_the_act_done_on_the_loops_own_thread(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    intake, threads = StoreIntake(store, ACTOR, appended=True, alone=lambda: True), list[str]()
    store.segments.wait()
    grouped = type(store.writer)._grouped

    def watched(*args: Any) -> None:
        threads.append(threading.current_thread().name)
        grouped(*args)

    monkeypatch.setattr(type(store.writer), "_grouped", watched)
    first, second, third = bodies(3)
    receipts = [asyncio.run(land(intake, first, b"1"))]
    if store.database.sqlite:
        assert threads == ["MainThread"]
        turn = store.database.turn()  # somebody else writes: who waits lets the loop go on

        async def meanwhile() -> Receipt:
            landing = asyncio.ensure_future(land(intake, second, b"2"))
            await asyncio.sleep(0.05)
            assert not landing.done()
            turn.end()
            return await landing

        receipts.append(asyncio.run(meanwhile()))
        assert threads == ["MainThread", "cds-writer"]
    else:
        assert threads == ["cds-writer"]  # to ask is to wait for another machine
        receipts.append(asyncio.run(land(intake, second, b"2")))

    def failing(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(DiskFull):
            asyncio.run(land(intake, third, b"3"))
    for receipt, body in zip(receipts, (first, second), strict=True):
        landing = store.reads.landing_by_ref(receipt.landing)
        assert landing is not None
        assert store.part(landing, 0) == body
    assert asyncio.run(land(intake, first, b"1")).arrival is Arrival.DUPLICATE
    assert store.reads.query("SELECT COUNT(*) FROM landing")[0][0] == 2
