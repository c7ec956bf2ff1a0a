"""One association with an archive, as the requestor; and why there is none, in words that lead somewhere (D6).

Blocking, for a thread; `abort` may be called from any other. TCP_NODELAY: a request and its identifier are two writes.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AddressInformation, AssociationSocket

from adapters.dicom import quiet
from adapters.dicom.peers import DicomPeer, PeerTls
from models.errors import Misconfigured, PeerFailed

quiet.silence()

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
MESSAGE = 1
"""Message ID of the one request that an association carries at a time."""
PENDING = (0xFF00, 0xFF01)
_ALERT = 1.0
"""Seconds for the refusal of our certificate to come."""
UNREAD = 32 << 20
"""Bytes that may come between two responses that we look at. An identifier has hundreds; no archive needs more."""


class Cause(StrEnum):
    """Why there is no association."""

    NAME = "its host has no address"
    REFUSED = "the connection is refused: nothing listens there"
    UNREACHABLE = "its host cannot be reached"
    TIMEOUT = "no connection in time"
    TLS = "no TLS connection: its certificate or ours is not accepted, or it speaks none"
    REJECTED = "it rejects the association"
    NO_CONTEXT = "it takes the association but not the service"
    ABORTED = "it ends the connection instead of answering"
    SILENT = "it takes the connection and says nothing"


class NoAssociation(PeerFailed):
    """`reason`: of a rejection (PS3.8, 9.3.4), in the standard's words."""

    def __init__(self, cause: Cause, peer: str, reason: str | None = None) -> None:
        super().__init__(f"{cause}, {reason}" if reason else str(cause), where=peer)
        self.cause = cause
        self.reason = reason


class _Socket(AssociationSocket):
    def _shutdown_socket(self) -> None:
        """Closed even where it never was connected: pynetdicom 3.0 leaves that one to the garbage collector."""
        sock = self.socket
        super()._shutdown_socket()
        if sock is not None:
            sock.close()


class _Ae(AE):
    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        made = _Socket(assoc, address=address)
        made.tls_args = tls_args
        return made


class Link:
    """`with Link(...) as link`: open, used, released; aborted where it was not finished."""

    def __init__(
        self,
        peer: DicomPeer,
        contexts: Sequence[PresentationContext],
        *,
        answer: float | None,
        handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
        negotiated: Sequence[Any] = (),
        limited: bool = True,
        received: Callable[[Association, P_DATA], None] | None = None,
    ) -> None:
        """`answer`: seconds to wait for a response (None: somebody else watches); `negotiated`: items of the extended
        negotiation; `limited`: `UNREAD` holds (not where objects come over it);
        `received`: takes each P-DATA instead of pynetdicom's provider, and passes on what is for that."""
        self._peer, self._contexts, self._answer = peer, list(contexts), answer
        self._handlers, self._negotiated = list(handlers), list(negotiated)
        self._limited, self._received = limited, received
        self._opened = False
        self._unread = 0
        self._ending = threading.Lock()
        self.aborted = False
        """By us."""
        self.cancelled = False
        """A C-CANCEL was sent."""
        self._association: Association | None = None

    def __enter__(self) -> Link:
        self.open()
        return self

    def __exit__(self, *failure: object) -> None:
        self.close(orderly=failure[0] is None)

    @property
    def association(self) -> Association:
        if self._association is None:
            raise PeerFailed("there is no association", where=self._peer.name)
        return self._association

    @property
    def established(self) -> bool:
        return self._association is not None and self._association.is_established

    def open(self) -> None:
        """Raises: NoAssociation, Misconfigured (our certificate cannot be used)."""
        peer = self._peer
        host = _address(peer)
        ae = _Ae(ae_title=peer.our_ae_title)
        ae.connection_timeout = peer.timeouts.connect
        ae.acse_timeout = peer.timeouts.accept
        ae.dimse_timeout = self._answer
        ae.network_timeout = None  # what is waited for, and how long, is said above and in the watch of a retrieval
        began = time.monotonic()
        try:
            association = ae.associate(
                host,
                peer.port,
                contexts=self._contexts,
                ae_title=peer.ae_title,
                max_pdu=peer.max_pdu,
                ext_neg=self._negotiated or None,
                tls_args=_tls(peer),
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, self._on_open),
                    (evt.EVT_DATA_RECV, self._on_data),
                    *self._handlers,
                ],
            )
        except (OSError, ValueError):
            raise NoAssociation(Cause.UNREACHABLE, peer.name) from None
        self._association = association
        association.dimse.get_msg = functools.partial(_awaited, association.dimse)  # type: ignore[method-assign]
        if self._received is not None:
            association.dimse.receive_primitive = functools.partial(self._received, association)  # type: ignore[method-assign]
        if not association.is_established:
            failure = self._why(association, host, time.monotonic() - began)
            if (transport := association.dul.socket) is not None:
                transport._shutdown_socket()  # after an answer that is none, it stays open
            raise failure

    def _why(self, association: Association, host: str, waited: float) -> NoAssociation:
        name = self._peer.name
        if not self._opened:
            return NoAssociation(_probe(self._peer, host), name)
        answer = association.acceptor.primitive
        if association.is_rejected and answer is not None:
            said = f"{answer.result_str.lower()}, by the {answer.source_str.lower()}: {answer.reason_str.lower()}"
            return NoAssociation(Cause.REJECTED, name, said)
        if answer is not None:
            return NoAssociation(Cause.NO_CONTEXT, name)
        if waited >= self._peer.timeouts.accept:
            return NoAssociation(Cause.SILENT, name)
        return NoAssociation(_probe(self._peer, host) if self._peer.tls else Cause.ABORTED, name)

    def _on_open(self, event: evt.Event) -> None:
        self._opened = True
        transport = event.assoc.dul.socket
        sock = transport.socket if transport is not None else None
        if sock is None:
            return
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _on_data(self, event: evt.Event) -> None:
        self._unread += len(event.data)
        if self._limited and self._unread > UNREAD:
            self.aborted = True
            event.assoc.abort(block=False)
            _wake(event.assoc)

    def responses(self, request: C_FIND | C_MOVE | C_GET, identifier: Dataset) -> Iterator[tuple[Any, str]]:
        """Send it, and give each response with its transfer syntax, undecoded: what pynetdicom decodes by itself, it
        warns of on the standard error, with the value. Ends after the final response.

        (None, "") before that: the association is broken; or aborted by us (`aborted`), since nothing came in time, or
        what came was no answer.
        """
        association = self.association
        context = association._get_valid_context(str(request.AffectedSOPClassUID), "", "scu")
        syntax = context.transfer_syntax[0]
        encoded = encode(identifier, syntax.is_implicit_VR, syntax.is_little_endian)
        request.Identifier = BytesIO(encoded or b"")
        request.MessageID, request.Priority = MESSAGE, 2
        association._reactor_checkpoint.clear()  # its own thread must not take the answers
        while not association._is_paused and association.is_established:
            time.sleep(0.0005)
        try:
            association.dimse.send_msg(request, int(context.context_id or 0))
            while True:
                _, response = association.dimse.get_msg(block=True)
                self._unread = 0
                if isinstance(response, C_STORE) and isinstance(request, C_GET):
                    association._c_store_scp(response)
                    continue
                if response is None and (self.aborted or association.acse.is_aborted()):
                    yield None, ""
                    return
                if not isinstance(response, type(request)) or not response.is_valid_response:
                    self.abort()
                    yield None, ""
                    return
                yield response, str(syntax)
                if response.Status not in PENDING:
                    return
        finally:
            association._reactor_checkpoint.set()

    def abort(self) -> None:
        """At once, from any thread; whoever waits for a response is woken."""
        with self._ending:
            self.aborted = True
            if self._association is not None and self._association.is_established:
                self._association.abort()
                _wake(self._association)

    def close(self, *, orderly: bool = True) -> None:
        association = self._association
        if association is None or not association.is_established:
            return
        if not orderly:
            self.abort()
            return
        with self._ending:
            association.release()
            if association.is_established:
                association.abort()


def _awaited(dimse: DIMSEServiceProvider, block: bool = False) -> Any:
    """A message, for who waits for one. pynetdicom's own thread looks for messages too, without waiting; the pause that
    it is given (3.0.4) begins after it was seen to have begun, and in 1 of 250 questions here it took an answer, and
    dropped it: a series less, and nobody noticed."""
    return DIMSEServiceProvider.get_msg(dimse, block=True) if block else (None, None)


def _wake(association: Association) -> None:
    """Whoever waits for a response without a limit: pynetdicom 3.0 wakes it for the peer's abort, not for ours."""
    association.dimse.msg_queue.put((None, None))


@dataclass(frozen=True, slots=True)
class Echo:
    """What came of a C-ECHO. `cause` None: it answered; `status` 0: and all is well."""

    peer: str
    seconds: float
    status: int | None = None
    cause: Cause | None = None
    reason: str | None = None

    @property
    def fine(self) -> bool:
        return self.cause is None and self.status == 0

    @property
    def told(self) -> str:
        if self.cause is not None:
            return f"{self.cause}, {self.reason}" if self.reason else str(self.cause)
        if self.status is None:
            return "it takes the association and does not answer the C-ECHO"
        return "it answers" if self.status == 0 else f"it answers with status {self.status:04X}"


def echo(peer: DicomPeer) -> Echo:
    """C-ECHO with the AE titles that everything else uses (D6). Raises: Misconfigured."""
    began = time.monotonic()
    try:
        with Link(peer, [context(Verification)], answer=peer.timeouts.answer) as link:
            status = link.association.send_c_echo()
            value = getattr(status, "Status", None)
            return Echo(peer.name, time.monotonic() - began, int(value) if value is not None else None)
    except NoAssociation as error:
        return Echo(peer.name, time.monotonic() - began, None, error.cause, error.reason)


def context(abstract: str, syntaxes: Sequence[str] = (EXPLICIT, IMPLICIT)) -> PresentationContext:
    made = PresentationContext()
    made.abstract_syntax = abstract
    made.transfer_syntax = list(syntaxes)
    return made


def _address(peer: DicomPeer) -> str:
    try:
        found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NoAssociation(Cause.NAME, peer.name) from None
    preferred = sorted(found, key=lambda each: each[0] != socket.AF_INET)
    return str(preferred[0][4][0])


def _tls(peer: DicomPeer) -> tuple[ssl.SSLContext, str] | None:
    return (client_context(peer.tls), peer.tls.server_name or peer.host) if peer.tls else None


def client_context(tls: PeerTls) -> ssl.SSLContext:
    """TLS 1.2 or later, the archive's certificate checked (BCP 195). Raises Misconfigured."""
    try:
        made = ssl.create_default_context(cafile=str(tls.ca_file) if tls.ca_file else None)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.cert_file is not None:
            made.load_cert_chain(tls.cert_file, tls.key_file)
    except (ssl.SSLError, OSError):
        raise Misconfigured("the certificate, its key or the authorities of an archive cannot be used") from None
    return made


@contextlib.contextmanager
def _connected(peer: DicomPeer, host: str) -> Iterator[socket.socket]:
    with socket.create_connection((host, peer.port), peer.timeouts.connect) as sock:
        yield sock


def _probe(peer: DicomPeer, host: str) -> Cause:
    """pynetdicom says that there was no connection, and not why: ask once more, by hand."""
    try:
        with _connected(peer, host) as sock:
            if (tls := _tls(peer)) is not None:
                with tls[0].wrap_socket(sock, server_hostname=tls[1]) as secured, contextlib.suppress(TimeoutError):
                    secured.settimeout(_ALERT)
                    secured.recv(1)  # TLS 1.3 refuses our certificate after the handshake (RFC 8446, 2)
        return Cause.ABORTED
    except ConnectionRefusedError:
        return Cause.REFUSED
    except ssl.SSLError:
        return Cause.TLS
    except TimeoutError:
        return Cause.TIMEOUT
    except ConnectionError:
        return Cause.TLS if peer.tls else Cause.ABORTED
    except OSError:
        return Cause.UNREACHABLE
