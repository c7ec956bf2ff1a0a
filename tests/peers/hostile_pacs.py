"""An archive of our own that answers as no test of Orthanc can make it: any status, any count, any bytes, or nothing.

What it "sends" by C-MOVE it puts straight into what the test holds for stored: its words are on trial, not the way.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_FIND, C_MOVE
from pynetdicom.dsutils import decode
from pynetdicom.service_class import QueryRetrieveServiceClass
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from adapters.dicom import quiet
from adapters.dicom.peers import DicomPeer, Timeouts
from tests.peers.pacs import free_ports
from tests.peers.stored import Stored

quiet.silence()
AE_TITLE, STUDY = "HOSTILE", "1.2.3"
PENDING = 0xFF00
EXPLICIT = "1.2.840.10008.1.2.1"
_TAGS = {
    "SpecificCharacterSet": (0x0008, 0x0005, b"CS"),
    "QueryRetrieveLevel": (0x0008, 0x0052, b"CS"),
    "SOPClassUID": (0x0008, 0x0016, b"UI"),
    "SOPInstanceUID": (0x0008, 0x0018, b"UI"),
    "StudyDate": (0x0008, 0x0020, b"DA"),
    "AccessionNumber": (0x0008, 0x0050, b"SH"),
    "FailedSOPInstanceUIDList": (0x0008, 0x0058, b"UI"),
    "PatientName": (0x0010, 0x0010, b"PN"),
    "PatientID": (0x0010, 0x0020, b"LO"),
    "StudyInstanceUID": (0x0020, 0x000D, b"UI"),
    "SeriesInstanceUID": (0x0020, 0x000E, b"UI"),
    "NumberOfStudyRelatedInstances": (0x0020, 0x1208, b"IS"),
}


def written(values: Mapping[str, bytes]) -> bytes:
    """An identifier in explicit little endian, of exactly these bytes (padded to an even length)."""
    out = b""
    for keyword in sorted(values, key=lambda each: _TAGS[each][:2]):
        group, element, vr = _TAGS[keyword]
        raw = values[keyword] + (b"" if len(values[keyword]) % 2 == 0 else b"\0" if vr == b"UI" else b" ")
        out += struct.pack("<HH2sH", group, element, vr, len(raw)) + raw
    return out


@dataclass(slots=True)
class Exchange:
    """One request, and how it is answered."""

    service: Any
    request: Any
    context: Any
    asked: dict[str, Any]

    def respond(self, status: int, identifier: bytes | None = None, **counts: int) -> None:
        """`counts`: remaining, completed, failed, warning."""
        kind = C_FIND if isinstance(self.request, C_FIND) else C_MOVE
        response: Any = kind()
        response.MessageIDBeingRespondedTo = self.request.MessageID
        response.AffectedSOPClassUID = self.request.AffectedSOPClassUID
        response.Status = status
        for name, value in counts.items():
            setattr(response, f"NumberOf{name.title()}Suboperations", value)
        if identifier is not None:
            response.Identifier = BytesIO(identifier)
        self.service.dimse.send_msg(response, self.context.context_id)

    @property
    def cancelled(self) -> bool:
        return bool(self.service.is_cancelled(self.request.MessageID))

    def abort(self) -> None:
        self.service.assoc.abort()

    @property
    def gone(self) -> bool:
        """Whether the other side has ended it."""
        return not self.service.assoc.is_established or self.service.assoc.acse.is_aborted()


Play = Callable[[Exchange], None]


@dataclass(slots=True)
class HostilePacs:
    """`series`: what it has of the study `STUDY`; `find` and `move`: what it plays instead of honest answers."""

    port: int
    series: dict[str, list[str]] = field(default_factory=dict)
    stored: Stored = field(default_factory=Stored)
    find: Play | None = None
    move: Play | None = None
    moved: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def play(self, *, find: Play | None = None, move: Play | None = None, images: int = 6) -> None:
        """Begin anew."""
        self.series = {"1.2.3.1": [f"1.2.3.1.{n}" for n in range(1, images + 1)], "1.2.3.2": ["1.2.3.2.1", "1.2.3.2.2"]}
        self.stored, self.find, self.move = Stored(), find, move
        self.moved, self.found = [], []
        self.stop.clear()

    def peer(self, **settings: Any) -> DicomPeer:
        times = Timeouts(
            connect=2, accept=2, answer=10, stall=0.6, idle_pendings=1.5, longest=20, settle=0.1, cancel=0.5
        )
        known = {"destination": "ANYWHERE", "timeouts": times, **settings}
        return DicomPeer("hostile", "127.0.0.1", self.port, AE_TITLE, "US", **known)

    @property
    def uids(self) -> set[str]:
        return {uid for each in self.series.values() for uid in each}

    def deliver(self, *uids: str) -> None:
        with self.stored.lock:
            self.stored.came.extend(uids)
            self.stored.uids.update(dict.fromkeys(uids, b""))

    def wanted(self, asked: Mapping[str, Any]) -> list[str]:
        """The instances that a C-MOVE asks for."""
        images = asked.get("SOPInstanceUID")
        if images:
            return [images] if isinstance(images, str) else [str(each) for each in images]
        if asked.get("SeriesInstanceUID"):
            return self.series.get(str(asked["SeriesInstanceUID"]), [])
        return sorted(self.uids)

    # -- honest answers ------------------------------------------------------------------------------------------------

    def answer(self, exchange: Exchange) -> None:
        asked = exchange.asked
        if isinstance(exchange.request, C_FIND):
            self.found.append(asked)
            (self.find or self.honest_find)(exchange)
        else:
            self.moved.append(asked)
            (self.move or self.honest_move)(exchange)

    def honest_find(self, exchange: Exchange) -> None:
        """It refuses a level without its parents, as many archives do."""
        level, asked = str(exchange.asked["QueryRetrieveLevel"]), exchange.asked
        series = str(asked.get("SeriesInstanceUID") or "")
        if level == "IMAGE" and not (asked.get("StudyInstanceUID") and series):
            exchange.respond(0xA900)
            return
        study = {"StudyInstanceUID": STUDY.encode(), "QueryRetrieveLevel": level.encode()}
        if level == "STUDY":
            rows = [{**study, "PatientID": b"p", "NumberOfStudyRelatedInstances": str(len(self.uids)).encode()}]
        elif level == "SERIES":
            rows = [{**study, "SeriesInstanceUID": each.encode()} for each in self.series]
        else:
            above = {**study, "SeriesInstanceUID": series.encode(), "SOPClassUID": b"1.2.840.10008.5.1.4.1.1.2"}
            rows = [{**above, "SOPInstanceUID": each.encode()} for each in self.series.get(series, [])]
        for row in rows:
            exchange.respond(PENDING, written(row))
        exchange.respond(0x0000)

    def honest_move(self, exchange: Exchange) -> None:
        wanted = self.wanted(exchange.asked)
        for at, uid in enumerate(wanted, 1):
            self.deliver(uid)
            exchange.respond(PENDING, remaining=len(wanted) - at, completed=at, failed=0, warning=0)
        exchange.respond(0x0000, completed=len(wanted), failed=0, warning=0)

    def linger(self, exchange: Exchange, seconds: float = 10.0) -> None:
        """Say nothing until the other side has had enough."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up and not exchange.gone and not self.stop.is_set():
            time.sleep(0.02)


@contextmanager
def serving() -> Iterator[HostilePacs]:
    (port,) = free_ports(1)
    pacs = HostilePacs(port)
    honest = QueryRetrieveServiceClass.SCP

    def played(service: Any, request: Any, context: Any) -> None:
        syntax = context.transfer_syntax[0]
        identifier = decode(request.Identifier, syntax.is_implicit_VR, syntax.is_little_endian)
        asked = {each.keyword: each.value for each in identifier}
        pacs.answer(Exchange(service, request, context, asked))

    ae = AE(ae_title=AE_TITLE)
    ae.add_supported_context(Verification)
    for each in (
        PatientRootQueryRetrieveInformationModelFind,
        PatientRootQueryRetrieveInformationModelMove,
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
    ):
        ae.add_supported_context(each, EXPLICIT)
    QueryRetrieveServiceClass.SCP = played  # type: ignore[method-assign]
    server = ae.start_server(("127.0.0.1", port), block=False)
    assert server is not None
    try:
        yield pacs
    finally:
        pacs.stop.set()
        server.shutdown()
        QueryRetrieveServiceClass.SCP = honest  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def hostile_pacs() -> Iterator[HostilePacs]:
    with serving() as pacs:
        pacs.play()
        yield pacs
