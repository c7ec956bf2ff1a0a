"""For tests of the asking side: a storage that keeps what it receives, an intake and a memory, all in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ComprehensiveSRStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    MRImageStorage,
    Verification,
)

from adapters.dicom import quiet
from adapters.dicom.states import PULL
from adapters.source import Arrival, Receipt
from models.canonical import canonical
from models.nouns import JSON, LandingMeta

quiet.silence()
CLASSES = (
    CTImageStorage,
    MRImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ComprehensiveSRStorage,
)


@dataclass(slots=True)
class Stored:
    """What is stored, by SOP Instance UID (`adapters.sources.dicom_move.Received`, and an Intake for C-GET)."""

    uids: dict[str, bytes] = field(default_factory=dict)
    refuse: Callable[[str, int], int] = lambda _uid, _count: 0
    """(SOP Instance UID, how many are stored) -> status to answer with."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    originators: set[str] = field(default_factory=set)
    came: list[str] = field(default_factory=list)
    """Every object that was offered, in order: more than once, where it came more than once."""

    async def holds(self, study: str, uids: Collection[str]) -> set[str]:
        with self.lock:
            return {uid for uid in uids if uid in self.uids}

    def handle(self, event: evt.Event) -> int:
        request: Any = event.request
        uid = str(request.AffectedSOPInstanceUID)
        with self.lock:
            self.came.append(uid)
            if status := self.refuse(uid, len(self.uids)):
                return status
            self.uids[uid] = request.DataSet.getvalue()
            self.originators.add(str(request.MoveOriginatorApplicationEntityTitle or "").strip())
        return 0

    # -- as an Intake --------------------------------------------------------------------------------------------------

    def stage(self, meta: LandingMeta) -> Staged:
        return Staged(self, meta)


class Staged:
    def __init__(self, stored: Stored, meta: LandingMeta) -> None:
        self._stored, self.meta, self._bytes = stored, meta, bytearray()

    async def write(self, chunk: bytes) -> None:
        self._bytes += chunk

    async def end_part(self) -> None:
        pass

    async def commit(
        self,
        dedup_key: bytes | None = None,
        *,
        learnt: JSON | None = None,
        other: bytes | None = None,
        beside: JSON | None = None,
    ) -> Receipt:
        uid = (dedup_key or b"").rpartition(b"\x1f")[2].decode()
        with self._stored.lock:
            self._stored.came.append(uid)
            known = uid in self._stored.uids
            self._stored.uids.setdefault(uid, bytes(self._bytes))
        return Receipt(Arrival.DUPLICATE if known else Arrival.STORED, "0" * 32, 1)

    async def abandon(self) -> None:
        self._bytes.clear()


@contextmanager
def storage(stored: Stored, ae_title: str, port: int) -> Iterator[None]:
    """A C-STORE door on loopback that keeps what comes in `stored`."""
    ae = AE(ae_title=ae_title)
    ae.maximum_pdu_size = 0
    plain = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
    for each in (Verification, *CLASSES):
        ae.add_supported_context(each, plain)
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, stored.handle)])
    assert server is not None
    try:
        yield
    finally:
        server.shutdown()


@dataclass(slots=True)
class Remembering:
    """`adapters.states.Memory`: each step checked against the table, and kept as canonical JSON, as the store does."""

    state: str = "asked"
    remembers: dict[str, Any] = field(default_factory=dict)
    steps: list[tuple[str, str | None]] = field(default_factory=list)
    job: str = "0" * 32
    before: Callable[[str], None] = lambda _to: None
    """Called before a step is kept; raising is a kill."""

    async def move(self, to: str, *, cause: str | None = None, **remember: Any) -> None:
        assert to == self.state or to in PULL.moves[self.state], f"{self.state} -> {to}"
        self.before(to)
        canonical(remember)  # only what can be sealed
        self.state, self.remembers = to, {**self.remembers, **remember}
        self.steps.append((str(to), cause))

    async def landed(self, key: bytes) -> bytes | None:
        return None

    @property
    def cause(self) -> str | None:
        return self.steps[-1][1] if self.steps else None


class Hurried:
    """`adapters.peer.Clock` whose pauses are a hundredth as long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(seconds / 100)
