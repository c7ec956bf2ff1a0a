"""Both ends of the storage door in its tests: the door on a real store in a thread, and a requestor of bare sockets.

The requestor says whatever it is told to, also what no toolkit would say.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from adapters.dicom.part10 import data_set_at
from adapters.source import Intake
from adapters.sources.dicom_storage import DicomStorage, StorageListening
from cds_server.audit import audit
from cds_server.intake import StoreIntake
from cds_server.store.reads import LandingRow
from cds_server.store.store import Store
from models.errors import Misconfigured

SMALL = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
PATIENCE = 30.0
"""Seconds for what must come, on a machine that is busy."""
OURS = "OURS"
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"


def until(true: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, f"never: {what}"
        time.sleep(0.02)


# ---- the door --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Door:
    """`DicomStorage` on an event loop of its own."""

    store: Store
    listening: StorageListening
    free: Callable[[], int] | None = None
    wrap: Callable[[Intake], Intake] = lambda intake: intake
    port: int = 0
    storage: DicomStorage = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _task: asyncio.Task[None] = field(init=False)
    _thread: threading.Thread = field(init=False)

    def open(self) -> Door:
        ready, failed = threading.Event(), list[Misconfigured]()

        def told(port: int) -> None:
            self.port = port
            ready.set()

        self.storage = DicomStorage(self.listening, "pacs", "hospital", free=self.free, ready=told)

        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self.storage.run(self.wrap(StoreIntake(self.store, "feed:pacs"))))
            try:
                await self._task
            except asyncio.CancelledError:
                pass
            except Misconfigured as error:
                failed.append(error)
                ready.set()

        self._thread = threading.Thread(target=asyncio.run, args=(run(),))
        self._thread.start()
        assert ready.wait(PATIENCE)
        if failed:
            self._thread.join()
            raise failed[0]
        return self

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was stopped before
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.storage.counts)

    def rows(self, statement: str) -> list[Any]:
        with self.store.database.reading() as connection:
            return list(connection.exec_driver_sql(statement).fetchall())

    def landings(self) -> list[LandingRow]:
        found = [self.store.reads.landing(int(row[0])) for row in self.rows("SELECT id FROM landing ORDER BY id")]
        return [each for each in found if each is not None]

    def file(self, sop_instance: str) -> bytes:
        """The one object that is stored under a UID, out of the sealed store."""
        files = [self.store.part(each, 0) for each in self.landings()]
        (found,) = [file for file in files if f"{sop_instance}".encode() in file[:1024]]
        return found

    def manifests(self) -> list[dict[str, Any]]:
        return [json.loads(self.store.manifest(each)) for each in self.landings()]


@contextlib.contextmanager
def opened(folder: Path, listening: StorageListening | None = None, **more: Any) -> Iterator[Door]:
    """A door on a store of its own; its ledger is verified at the end, and nothing may be left half received."""
    folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{folder / 'cds.db'}"
    store = Store.open(folder, url)
    try:
        door = Door(store, listening or StorageListening("127.0.0.1", 0, OURS), **more).open()
        try:
            yield door
        finally:
            door.close()
        assert door.storage.counts["mistakes"] == 0
        assert list((folder / "staging").iterdir()) == []
    finally:
        store.close()
    assert audit(folder, url, deep=True).findings == ()


def data_set_of(file: bytes) -> bytes:
    return file[data_set_at(file) :]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One door for all tests of a module that leave it as it was."""
    with opened(tmp_path_factory.mktemp("door") / "var") as made:
        yield made


def listening(**more: Any) -> StorageListening:
    return StorageListening("127.0.0.1", 0, OURS, **more)


# ---- objects ---------------------------------------------------------------------------------------------------------


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """Explicit VR Little Endian."""
    value += b"\0" * (len(value) % 2)
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2sHL", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def object_of(instance: str, *, sop_class: str = CT, body: bytes = bytes(200), before: bytes = b"") -> bytes:
    """The data set of a small object."""
    return (
        before
        + element(8, 0x16, b"UI", sop_class.encode())
        + element(8, 0x18, b"UI", instance.encode())
        + element(0x10, 0x10, b"PN", b"Secret^Name")
        + element(0x7FE0, 0x10, b"OW", body)
    )


_NUMBERS = iter(range(1, 10_000_000))


def fresh() -> str:
    """A UID that was not used before."""
    return f"1.2.826.0.1.3680043.10.1561.9.{next(_NUMBERS)}"


# ---- the requestor ---------------------------------------------------------------------------------------------------


def request(
    contexts: Sequence[tuple[str, Sequence[str]]] = ((CT, (EXPLICIT,)),),
    *,
    called: str = OURS,
    calling: str = "SCU",
    max_pdu: int = 16382,
) -> bytes:
    """An A-ASSOCIATE-RQ; contexts get the ids 1, 3, 5 …"""
    asked = A_ASSOCIATE()
    asked.application_context_name = UID("1.2.840.10008.3.1.1.1")
    asked.calling_ae_title, asked.called_ae_title = calling, called
    made = []
    for number, (abstract, syntaxes) in enumerate(contexts):
        made.append(build_context(abstract, list(syntaxes)))
        made[-1].context_id = 2 * number + 1
    asked.presentation_context_definition_list = made
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = max_pdu
    implementation.implementation_class_uid = UID("1.2.3.4")
    asked.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(asked).encode())


def command(field_: int, instance: bytes, sop_class: bytes, message: int = 1, *, data_set: bool = True) -> bytes:
    def one(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHL", 0, number, len(value)) + value

    body = one(2, sop_class) + one(0x100, struct.pack("<H", field_)) + one(0x110, struct.pack("<H", message))
    body += one(0x700, b"\0\0") + one(0x800, struct.pack("<H", 1 if data_set else 0x101))
    body += one(0x1000, instance) if instance else b""
    return one(0, struct.pack("<L", len(body))) + body


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def values(context_id: int, control: int, payload: bytes, step: int = 16376) -> bytes:
    """P-DATA PDUs of one value each; `control` is that of the last one."""
    pieces = [payload[at : at + step] for at in range(0, max(len(payload), 1), step)]
    out = []
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        out.append(pdu(4, struct.pack(">LBB", len(piece) + 2, context_id, control if last else control & 1) + piece))
    return b"".join(out)


class Requestor:
    """One association over a bare socket."""

    def __init__(self, port: int, asked: bytes | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answered: tuple[int, bytes] = (0, b"")
        if asked != b"":
            self.send(asked or request())
            self.answered = self.pdu()

    def __enter__(self) -> Requestor:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, raw: bytes, step: int | None = None) -> None:
        for at in range(0, len(raw), step or max(len(raw), 1)):
            self.socket.sendall(raw[at : at + (step or len(raw))])

    def pdu(self) -> tuple[int, bytes]:
        """(type, body) of the next one; (0, b"") at the end."""
        try:
            head = self._exactly(6)
            if len(head) < 6:
                return 0, b""
            kind, length = struct.unpack(">BxL", head)
            return kind, self._exactly(length)
        except ConnectionError:
            return 0, b""

    def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count and (more := self.socket.recv(count - len(got))):
            got += more
        return got

    def store(
        self,
        instance: str | bytes,
        data_set: bytes,
        *,
        sop_class: str = CT,
        context_id: int = 1,
        step: int = 16376,
    ) -> int:
        """C-STORE; gives the status."""
        raw = instance.encode() if isinstance(instance, str) else instance
        self.send(values(context_id, 3, command(1, raw, sop_class.encode())))
        self.send(values(context_id, 2, data_set, step))
        return self.status()

    def status(self) -> int:
        kind, body = self.pdu()
        assert kind == 4, f"PDU type {kind}: {body.hex()}"
        whole = body[6:]
        while not body[5] & 2:
            _, body = self.pdu()
            whole += body[6:]
        at = 0
        while at < len(whole):
            _, number, length = struct.unpack_from("<HHL", whole, at)
            if number == 0x900:
                return int(struct.unpack_from("<H", whole, at + 8)[0])
            at += 8 + length
        raise AssertionError("a response without a status")

    def release(self) -> None:
        self.send(pdu(5, bytes(4)))
        assert self.pdu()[0] == 6
