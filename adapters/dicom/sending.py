"""C-STORE of one object, and the question whether the archive will keep it: storage commitment (PS3.4, annex J; D14).

Blocking, for a thread. The answer to the question comes as an N-EVENT-REPORT, on the association that asked or on one
that the archive opens to us, soon or after minutes; `Reports` awaits it, `reception` is where the second kind comes in.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from adapters.dicom import part10, quiet
from adapters.dicom.association import EXPLICIT, IMPLICIT, MESSAGE, Link, context
from adapters.dicom.elements import parse
from adapters.dicom.headers import Header, header_of
from adapters.dicom.peers import DicomPeer
from models.errors import BadInput, Misconfigured, PeerFailed

quiet.silence()
MISSING = 0x0112
"""Failure Reason of a commitment (PS3.3 C.14.1.1): it does not hold the object."""
_LARGEST = 1 << 20
"""Bytes of a report that is read: one object needs hundreds."""
_NOT_DONE = 0x0110


@dataclass(slots=True)
class _Awaited:
    came: threading.Event = field(default_factory=threading.Event)
    status: int = 0


class Reports:
    """N-EVENT-REPORTs by transaction. Its number is ours and random: whoever knows it was asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._awaited: dict[tuple[str, str], _Awaited] = {}

    @contextlib.contextmanager
    def expecting(self, transaction: str, sop_uid: str) -> Iterator[_Awaited]:
        made, key = _Awaited(), (transaction, sop_uid)
        with self._lock:
            self._awaited[key] = made
        try:
            yield made
        finally:
            with self._lock:
                self._awaited.pop(key, None)

    def handle(self, event: evt.Event) -> tuple[int, None]:
        """In a thread of pynetdicom: the status to answer with."""
        try:
            request: Any = event.request
            raw = request.EventInformation
            if raw is None:
                return _NOT_DONE, None
            raw.seek(0)  # pynetdicom may have looked at it
            encoded = raw.read(_LARGEST + 1)
            if len(encoded) > _LARGEST:
                return _NOT_DONE, None
            self._heard(encoded, str(event.context.transfer_syntax))
        except Exception:  # noqa: BLE001 (an answer is owed, whatever came)
            return _NOT_DONE, None
        return 0x0000, None

    def _heard(self, encoded: bytes, syntax: str) -> None:
        data = parse(part10.head(b"1", b"1", syntax.encode()) + encoded).data
        transaction = data.uid(0x00081195)
        told = [(row.uid(0x00081155), 0) for row in data.items(0x00081199)]
        told += [(row.uid(0x00081155), row.whole(0x00081197) or _NOT_DONE) for row in data.items(0x00081198)]
        with self._lock:
            for sop_uid, status in told:
                awaited = self._awaited.get((transaction, sop_uid))
                if awaited is not None:
                    awaited.status = status
                    awaited.came.set()


@dataclass(frozen=True, slots=True)
class Commitment:
    """How an archive is asked to keep what it was sent."""

    reports: Reports
    wait: float = 60.0
    """Seconds for its word; then the object is sent again, and it is asked again."""
    elsewhere: bool = False
    """Its word comes on an association of its own: ours is released first. Some archives wait for that."""


def send(peer: DicomPeer, file: bytes, transaction: str, commitment: Commitment | None = None) -> int:
    """One Part 10 file, its data set as it is; gives the status of the C-STORE, or, where that is fine and a commitment
    is asked for, 0 for committed and else the archive's reason.

    Raises: NoAssociation, PeerFailed (no answer, or no word of commitment in time: nobody knows), Malformed and its
    kinds (no Part 10 file), Misconfigured (our certificate).
    """
    header = header_of(file)
    contexts = [context(header.sop_class, (header.syntax,))]
    handlers: list[tuple[Any, Any]] = []
    if commitment is not None:
        contexts.append(context(str(StorageCommitmentPushModel), (EXPLICIT, IMPLICIT)))
        handlers.append((evt.EVT_N_EVENT_REPORT, commitment.reports.handle))
    link = Link(peer, contexts, answer=peer.timeouts.answer, handlers=handlers)
    if commitment is None:
        with link:
            return _stored(link, peer, header, file)
    with commitment.reports.expecting(transaction, header.sop_uid) as awaited:
        with link:
            status = _stored(link, peer, header, file)
            if status not in (0x0000, 0x0111) and not 0xB000 <= status <= 0xBFFF:
                return status
            asked = _asked(link, peer, header, transaction)
            if asked != 0x0000:
                return asked
            if not commitment.elsewhere:
                _wait(awaited, link, commitment.wait)
        if not awaited.came.is_set() and (not commitment.elsewhere or not awaited.came.wait(commitment.wait)):
            raise PeerFailed("it took the object, and does not say that it will keep it", where=peer.name)
        return awaited.status


def _wait(awaited: _Awaited, link: Link, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not awaited.came.wait(0.1) and time.monotonic() < ends and link.established:
        pass


def _stored(link: Link, peer: DicomPeer, header: Header, file: bytes) -> int:
    association = link.association
    accepted = {str(each.abstract_syntax): each for each in association.accepted_contexts}
    if header.sop_class not in accepted:
        raise PeerFailed("it does not take objects of this SOP class and transfer syntax", where=peer.name)
    request = C_STORE()
    request.MessageID, request.Priority = MESSAGE, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(header.sop_class), UID(header.sop_uid)
    request.DataSet = BytesIO(file[part10.data_set_at(file) :])
    association._reactor_checkpoint.clear()  # its own thread must not take the answer
    try:
        while not association._is_paused and association.is_established:
            time.sleep(0.0005)
        association.dimse.send_msg(request, int(accepted[header.sop_class].context_id or 0))
        _, response = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    if not isinstance(response, C_STORE) or not response.is_valid_response or response.Status is None:
        link.abort()
        raise PeerFailed("no answer to the C-STORE", where=peer.name)
    return int(response.Status)


def _asked(link: Link, peer: DicomPeer, header: Header, transaction: str) -> int:
    accepted = {str(each.abstract_syntax) for each in link.association.accepted_contexts}
    if str(StorageCommitmentPushModel) not in accepted:
        raise PeerFailed("it does not know storage commitment, which the configuration asks for", where=peer.name)
    asked, row = Dataset(), Dataset()
    asked.TransactionUID = transaction
    row.ReferencedSOPClassUID, row.ReferencedSOPInstanceUID = header.sop_class, header.sop_uid
    asked.ReferencedSOPSequence = [row]
    try:
        answer, _ = link.association.send_n_action(
            asked, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance, msg_id=MESSAGE + 1
        )
    except (RuntimeError, ValueError):
        raise PeerFailed("the association ended before it was asked for a commitment", where=peer.name) from None
    status = getattr(answer, "Status", None)
    if status is None:
        raise PeerFailed("no answer to the question for a commitment", where=peer.name)
    return int(status)


@contextlib.contextmanager
def reception(
    reports: Reports, ours: str, theirs: str, host: str, port: int, tls: ssl.SSLContext | None = None
) -> Iterator[None]:
    """Where an archive that opens an association for its word comes in. Nothing else is taken, from nobody else.

    Raises: Misconfigured (the address cannot be listened on).
    """
    entity = AE(ae_title=ours)
    entity.require_called_aet = True
    entity.require_calling_aet = [theirs]
    entity.maximum_associations = 4
    entity.network_timeout = 30
    entity.add_supported_context(Verification)
    # the archive is the provider of this service though it asks for the association: its role (PS3.7 D.3.3.4)
    entity.add_supported_context(StorageCommitmentPushModel, [EXPLICIT, IMPLICIT], scu_role=True, scp_role=True)
    try:
        server = entity.start_server(
            (host, port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reports.handle)], ssl_context=tls
        )
    except (OSError, BadInput):
        raise Misconfigured("the address for words of commitment cannot be listened on") from None
    try:
        yield
    finally:
        if server is not None:
            server.shutdown()
