"""C-MOVE and C-GET: ask an archive to send, and watch it (D5, D8, D10, D11).

What it answers are hints: a success that delivered nothing and a failure that delivered everything have been seen.
What came is known by what is stored (`adapters.dicom.reconcile`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.uid import UID
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from adapters.dicom.answers import match_of
from adapters.dicom.association import EXPLICIT, IMPLICIT, MESSAGE, PENDING, Link, context
from adapters.dicom.finding import Ended, identifier_of
from adapters.dicom.peers import DicomPeer, Retrieve, Root, Timeouts
from adapters.dicom.query import UNIQUE, Query, sound_uid
from adapters.dicom.receiving import Incoming, Offer, Status, Storing
from adapters.source import Intake
from models.errors import BadInput

CONTEXTS = 128
"""Of one association (PS3.8, 9.3.2.2: odd numbers of one byte). A C-GET needs one for itself."""
_FAILED = 100_000
"""UIDs of a FailedSOPInstanceUIDList that are looked at."""
_MOVES = {
    Root.PATIENT: PatientRootQueryRetrieveInformationModelMove,
    Root.STUDY: StudyRootQueryRetrieveInformationModelMove,
}
_GETS = {
    Root.PATIENT: PatientRootQueryRetrieveInformationModelGet,
    Root.STUDY: StudyRootQueryRetrieveInformationModelGet,
}
_COUNTS = ("Remaining", "Completed", "Failed", "Warning")
_COMPRESSED = (
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first order
    "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS, lossless
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.81",  # JPEG-LS, near lossless
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.2",  # big endian, retired
)
"""Transfer syntaxes that objects lie in, the frequent ones first. Each has a context of its own: an acceptor takes one
syntax of a context, and would transcode, or fail to send, what lies in another (D2)."""
USUAL = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.1.2",  # digital mammography, for presentation
    "1.2.840.10008.5.1.4.1.1.128",  # PET
    "1.2.840.10008.5.1.4.1.1.1.1",  # digital X-ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1",  # CR
    "1.2.840.10008.5.1.4.1.1.6.1",  # ultrasound
    "1.2.840.10008.5.1.4.1.1.7",  # secondary capture
    "1.2.840.10008.5.1.4.1.1.88.33",  # comprehensive SR
    "1.2.840.10008.5.1.4.1.1.66.4",  # segmentation
)
"""SOP classes that a C-GET asks for where the archive did not say which ones a study has."""


@dataclass(frozen=True, slots=True)
class Said:
    """What an archive said of a retrieval. Hints."""

    ended: Ended
    status: int | None = None
    responses: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    """remaining, completed, failed, warning: those that it named last."""
    failed_uids: tuple[str, ...] = ()
    """FailedSOPInstanceUIDList, where it gave one."""
    arrived: int = 0
    """Objects that came over this association (C-GET)."""

    @property
    def told(self) -> str:
        """In words without values."""
        status = f", status {self.status:04X}" if self.status is not None else ""
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return f"{self.ended}{status}" + (f" ({counts})" if counts else "")


class Watch:
    """Whether a retrieval still lives. Fed from any thread; `verdict` says why to end it."""

    def __init__(self, timeouts: Timeouts, now: Callable[[], float] = time.monotonic) -> None:
        self._timeouts, self._now = timeouts, now
        self._began = self._heard = self._moved = now()
        self._counts: tuple[int | None, ...] = ()
        self._arrived = 0
        self.responses = 0

    def heard(self, counts: tuple[int | None, ...]) -> None:
        """A response. One without counts says that it goes on, no more."""
        self.responses += 1
        self._heard = self._now()
        if counts != self._counts:
            self._counts, self._moved = counts, self._heard

    def arrived(self, total: int) -> None:
        """How many objects are stored."""
        if total != self._arrived:
            self._arrived = total
            self._heard = self._moved = self._now()

    def verdict(self) -> str | None:
        now, limits = self._now(), self._timeouts
        if now - self._heard > limits.stall:
            return "nothing was heard of it, and nothing came"
        if now - self._moved > limits.idle_pendings:
            return "it goes on saying that it goes on, and nothing comes"
        if now - self._began > limits.longest:
            return "it took too long"
        return None


async def _nothing() -> int:
    return 0


async def retrieve(
    peer: DicomPeer,
    query: Query,
    *,
    arrivals: Callable[[], Awaitable[int]] = _nothing,
    storing: Storing | None = None,
    intake: Intake | None = None,
    classes: Sequence[str] = (),
    tick: float = 1.0,
) -> Said:
    """One C-MOVE, or a C-GET where the peer's profile says so, until its final response; cancelled, then aborted, where
    it stalls or where we are cancelled.

    arrivals: how many of what was asked for is stored by now: with the responses, what keeps the watch quiet.
    storing, intake: where the objects of a C-GET go, each durable before it is answered for.
    classes: SOP Class UIDs of what is asked for, so that a C-GET negotiates for these.

    Raises: Malformed, Misconfigured (the request; nothing was sent), NoAssociation.
    """
    query.checked(peer.root, uid_lists=peer.quirks.uid_lists)
    watch = Watch(peer.timeouts)
    if peer.retrieve is Retrieve.GET:
        if storing is None or intake is None:
            raise ValueError("a C-GET needs somewhere to put what comes")
        inbound = _Inbound(storing, intake, asyncio.get_running_loop())
        link = _getting(peer, classes, inbound)
    else:
        inbound = None
        link = Link(peer, [context(str(_MOVES[peer.root]))], answer=None)
    work = asyncio.create_task(asyncio.to_thread(_exchange, peer, query, link, watch, inbound))
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=tick)
            watch.arrived(inbound.arrived if inbound is not None else await arrivals())
            if not work.done() and watch.verdict() is not None:
                await _end(peer, link, work)
        return await work
    except BaseException:
        if not work.done():
            await asyncio.shield(_end(peer, link, work))
        raise
    finally:
        if inbound is not None:
            await inbound.close()


async def _end(peer: DicomPeer, link: Link, work: asyncio.Task[Said]) -> None:
    """C-CANCEL; and where that is not heeded, abort."""
    if link.established and not link.cancelled:
        link.cancelled = True
        model = str((_GETS if peer.retrieve is Retrieve.GET else _MOVES)[peer.root])
        with contextlib.suppress(RuntimeError, ValueError):  # it ended meanwhile
            await asyncio.to_thread(link.association.send_c_cancel, MESSAGE, query_model=model)
        await asyncio.wait({work}, timeout=peer.timeouts.cancel)
    if not work.done():
        await asyncio.to_thread(link.abort)
        await asyncio.wait({work}, timeout=peer.timeouts.accept)


def _exchange(peer: DicomPeer, query: Query, link: Link, watch: Watch, inbound: _Inbound | None) -> Said:
    unique = {key: value for key, value in query.keys.items() if key in UNIQUE.values() and value}
    identifier = identifier_of(query.level, unique)  # unique keys only (PS3.4, C.4.2.1.4)
    request: C_MOVE | C_GET
    if inbound is None:
        request = C_MOVE()
        request.MoveDestination = peer.destination
    else:
        request = C_GET()
    request.AffectedSOPClassUID = UID(str((_MOVES if inbound is None else _GETS)[peer.root]))
    with link:
        said = _followed(link.responses(request, identifier), link, watch)
    if inbound is not None:
        said = Said(said.ended, said.status, said.responses, said.counts, said.failed_uids, inbound.arrived)
    return said


def _followed(responses: Iterator[tuple[Any, str]], link: Link, watch: Watch) -> Said:
    counts: dict[str, int] = {}
    for response, syntax in responses:
        if response is None:
            return Said(Ended.STALLED if link.aborted else Ended.BROKEN, None, watch.responses, counts)
        value = int(response.Status)
        named = tuple(getattr(response, f"NumberOf{each}Suboperations", None) for each in _COUNTS)
        counts.update({each.lower(): int(n) for each, n in zip(_COUNTS, named, strict=True) if n is not None})
        watch.heard(named)
        if value in PENDING:
            continue
        if link.cancelled or value == 0xFE00:
            ended = Ended.CANCELLED
        else:
            ended = Ended.DONE if value == 0 or value == 0xB000 else Ended.REFUSED
        return Said(ended, value, watch.responses, counts, _failed(response, syntax))
    return Said(Ended.BROKEN, None, watch.responses, counts)


def _failed(response: Any, syntax: str) -> tuple[str, ...]:
    """(0008,0058), which is not always there, and not always a list."""
    named = "FailedSOPInstanceUIDList"
    try:
        raw = response.Identifier.getvalue() if response.Identifier else b""
        return match_of(raw, syntax, (named,), most=_FAILED).values.get(named, ())
    except BadInput:
        return ()


# ---- C-GET -----------------------------------------------------------------------------------------------------------


class _Inbound:
    """Takes what comes over our own association, into the same sealed intake as C-STORE: fragment by fragment, whatever
    the length of an object. pynetdicom would collect it whole, in memory or in a file that everybody may read."""

    def __init__(self, storing: Storing, intake: Intake, loop: asyncio.AbstractEventLoop) -> None:
        self._storing, self._intake, self._loop = storing, intake, loop
        self._incoming: Incoming | None = None
        """The object that is under way."""
        self._broken = False
        self.arrived = 0

    def received(self, association: Association, primitive: P_DATA) -> None:
        """In pynetdicom's thread that reads: who sends faster than we store waits."""
        dimse = association.dimse
        for context_id, value in primitive.presentation_data_value_list:
            message = dimse.message
            if isinstance(message, C_STORE_RQ) and not value[0] & 1:
                self._piece(association, message, context_id, value[1:])
                value = value[:1]
            passed = P_DATA()
            passed.presentation_data_value_list = [[context_id, value]]  # type: ignore[list-item]
            DIMSEServiceProvider.receive_primitive(dimse, passed)

    def _piece(self, association: Association, message: C_STORE_RQ, context_id: int, data: bytes) -> None:
        if self._broken:
            return
        try:
            if self._incoming is None:
                self._incoming = self._storing.begin(_offer(association, message, context_id), self._intake)
            asyncio.run_coroutine_threadsafe(self._incoming.write(data), self._loop).result()
        except Exception:  # noqa: BLE001 (an answer is owed, whatever happened here)
            self._broken = True

    def handle(self, _: evt.Event) -> int:
        """In the thread of the exchange: the status to answer with; 0000 only once the object is on disk."""
        try:
            return asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        except Exception:  # noqa: BLE001 (an answer is owed, whatever happened here)
            return int(Status.FAILED)

    async def _end(self) -> int:
        incoming, broken = self._incoming, self._broken
        self._incoming, self._broken = None, False
        if incoming is None:
            return int(Status.FAILED if broken else Status.UNREADABLE)
        try:
            status = Status.FAILED if broken else await incoming.end()
        finally:
            await incoming.abandon()  # nothing, where it ended
        self.arrived += status == Status.SUCCESS
        return int(status)

    async def close(self) -> None:
        """The association is over: half an object is none."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            await incoming.abandon()


def _offer(association: Association, message: C_STORE_RQ, context_id: int) -> Offer:
    command, peer = message.command_set, association.acceptor
    presented = next(each for each in association.accepted_contexts if each.context_id == context_id)
    return Offer(
        sop_class=str(command.get("AffectedSOPClassUID", "")).encode("ascii", "replace"),
        sop_instance=str(command.get("AffectedSOPInstanceUID", "")).encode("ascii", "replace"),
        context_class=str(presented.abstract_syntax),
        syntax=str(presented.transfer_syntax[0]),
        calling=str(peer.ae_title).strip(),
        called=str(association.requestor.ae_title).strip(),
        address=str(peer.address),
    )


def _getting(peer: DicomPeer, classes: Sequence[str], inbound: _Inbound) -> Link:
    wanted = list(dict.fromkeys(each for each in classes if sound_uid(each))) or list(USUAL)
    wanted = wanted[: CONTEXTS - 1]
    contexts = [context(str(_GETS[peer.root])), *storage_contexts(wanted)]
    roles = [build_role(each, scp_role=True) for each in wanted]
    return Link(
        peer,
        contexts,
        answer=None,
        handlers=[(evt.EVT_C_STORE, inbound.handle)],
        negotiated=roles,
        limited=False,
        received=inbound.received,
    )


def storage_contexts(classes: Sequence[str]) -> list[PresentationContext]:
    """For each class one of the plain syntaxes, then one for each compressed one, as far as 127 go."""
    contexts = [context(each, (EXPLICIT, IMPLICIT)) for each in classes]
    for syntax in _COMPRESSED:
        contexts += [context(each, (syntax,)) for each in classes]
    return contexts[: CONTEXTS - 1]
