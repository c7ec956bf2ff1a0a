"""Objects by C-STORE: a Storage SCP that answers 0000 only for what is durable, and C-ECHO.

    bytes -> P-DATA values -> a command, then its data set, fragment by fragment, into the sealed landing -> the status

One landing an object, one part: a Part 10 file whose data set is what came over the wire, whatever its class and its
transfer syntax. pynetdicom sends to it in the tests and is not used here: its acceptor gives each association two
threads that poll, collects a PDU at the length that a stranger states, and took six times as long as dcmtk's before
anything was sealed or synced. On the event loop an association that stands still costs a socket, and a slow disk stops
the sender instead of filling the memory. Ids such as D12 name rows of the checklist in docs/dicom-storage.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from adapters.dicom import commands, upper_layer
from adapters.dicom.commands import Command
from adapters.dicom.receiving import KEEP, Incoming, Offer, Storing
from adapters.dicom.upper_layer import Abort, Context, Pdu, Proposal, Reject
from adapters.source import Intake
from adapters.sources.certificates import Secured, Tls, names_of
from models.errors import Malformed, Misconfigured

NAME = "dicom-storage"
MAX_PDU = 1 << 18
"""Bytes that we ask for in one P-DATA PDU (D4). Longer ones are taken, too: nothing collects them."""
CHUNK = 1 << 18
HANDSHAKE = 10.0
"""Seconds for TLS; until then a connection is none, and takes nobody's place."""
GRACE = 10.0
"""Seconds that a stop gives to objects in progress."""
WAITING = 64
"""Connections besides `max_associations` that may not have asked for an association yet."""
_TICK = 0.5
_RENEW = 5.0
_KEEP_ALIVE = 180

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Peer:
    """Who may associate: an AE title, and the addresses that it comes from (none: any)."""

    ae_title: str
    networks: tuple[Network, ...] = ()

    def at(self, address: str) -> bool:
        if not self.networks:
            return True
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
        return any((mapped or found) in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class StorageListening:
    """How one source listens."""

    host: str
    port: int
    ae_title: str
    """Ours: what an association must call (D1)."""
    peers: tuple[Peer, ...] = ()
    """None named: any AE title."""
    ignore_case: bool = False
    """Of AE titles. They are case sensitive (PS3.5 6.2, AE); some archives send them otherwise."""
    tls: Tls | None = None
    max_associations: int = 32
    on_conflict: str = KEEP
    min_free: int = 0
    """Bytes free on the disk, below which objects are refused with A700."""
    request_seconds: int = 30
    """For an association request to come (ARTIM, PS3.8 9.1.5)."""
    idle_seconds: int = 60
    """Of an association that sends nothing between two messages."""
    stall_seconds: int = 30
    """Of silence inside a message, and for a peer to take its answer."""


class DicomStorage:
    """A Source (`adapters.source`): listens until it is cancelled, then finishes the objects in progress."""

    def __init__(
        self,
        listening: StorageListening,
        source: str,
        namespace: str,
        *,
        free: Callable[[], int] | None = None,
        ready: Callable[[int], None] | None = None,
    ) -> None:
        """`free`: bytes free where the store writes. `ready`: told the port once connections are taken."""
        self.listening = listening
        self.source = source
        self.storing = Storing(source, namespace, listening.on_conflict, free, listening.min_free)
        self.counts: Counter[str] = self.storing.counts
        self.connections: set[_Association] = set()
        self._ready = ready

    @property
    def open(self) -> int:
        """Associations that are established."""
        return sum(each.established for each in self.connections)

    async def run(self, intake: Intake) -> None:
        """Errors: Misconfigured (the address or the certificate cannot be used)."""
        at = self.listening
        secured = Secured(at.tls) if at.tls else None
        try:
            server = await asyncio.start_server(
                lambda reader, writer: self._connected(reader, writer, intake),
                at.host,
                at.port,
                limit=CHUNK,
                backlog=256,
                ssl=secured.context if secured else None,
                ssl_handshake_timeout=HANDSHAKE if secured else None,
            )
        except OSError as error:
            raise Misconfigured(f"cannot listen for {self.source}: {error.strerror}", where="listen") from None
        try:
            if self._ready is not None:
                self._ready(server.sockets[0].getsockname()[1])
            renewed = 0.0
            while True:
                await asyncio.sleep(_TICK)
                now = asyncio.get_running_loop().time()
                for each in list(self.connections):
                    each.look(now)
                if secured is not None and now - renewed > _RENEW:
                    renewed = now
                    secured.renew()
        finally:
            server.close()
            await self._finish()

    async def _finish(self) -> None:
        """No new association; objects in progress are stored and answered, within `GRACE`."""
        tasks = [each.task for each in self.connections]
        for each in list(self.connections):
            each.stop()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, intake: Intake) -> None:
        self.counts["connections"] += 1
        association = _Association(self, reader, writer, intake)
        if not self._lets_in(association):
            writer.transport.abort()
            return
        self.connections.add(association)
        try:
            await association.run()
        finally:
            self.connections.discard(association)

    def _lets_in(self, association: _Association) -> bool:
        """Before a word is said: by address, by certificate, and by how many wait already."""
        at = self.listening
        if at.peers and not any(peer.at(association.address) for peer in at.peers):
            self.counts["strangers"] += 1
            return False
        if at.tls is not None and at.tls.subjects and names_of(association.certificate).isdisjoint(at.tls.subjects):
            self.counts["strangers"] += 1
            return False
        if len(self.connections) >= at.max_associations + WAITING:
            self.counts["too many connections"] += 1
            return False
        return True

    def rejects(self, proposal: Proposal, address: str) -> Reject | None:
        """Why an association is refused (D1), the permanent reasons first."""
        at = self.listening
        if not proposal.version & 1:
            return upper_layer.VERSION_UNKNOWN
        if proposal.application != upper_layer.APPLICATION_CONTEXT:
            return upper_layer.CONTEXT_UNKNOWN
        if not self._same(proposal.called, at.ae_title):
            return upper_layer.CALLED_UNKNOWN
        known = any(self._same(peer.ae_title, proposal.calling) and peer.at(address) for peer in at.peers)
        if not proposal.calling or (at.peers and not known):
            return upper_layer.CALLING_UNKNOWN
        if self.open >= at.max_associations:
            return upper_layer.TOO_MANY
        return None

    def _same(self, one: str, other: str) -> bool:
        return one == other or (self.listening.ignore_case and one.upper() == other.upper())


class _Ended(Exception):
    """The association is over. `said`: what is still sent."""

    def __init__(self, why: str, said: bytes = b"") -> None:
        super().__init__(why)
        self.why, self.said = why, said


def _broken(why: str, cause: Abort = Abort.INVALID_PARAMETER) -> _Ended:
    return _Ended(why, upper_layer.abort(cause))


class _Association:
    """One requestor: its messages one after the other."""

    def __init__(
        self, storage: DicomStorage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, intake: Intake
    ) -> None:
        self._storage, self._writer, self._intake = storage, writer, intake
        self._bytes = _Bytes(reader)
        self.task = cast("asyncio.Task[None]", asyncio.current_task())
        peer = writer.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self.certificate = writer.get_extra_info("peercert") or {}
        self.established = False
        self._loop = asyncio.get_running_loop()
        self._due = float("inf")
        """When silence ends the association; never while we are at work."""
        self._timeout = ""
        self._busy = False
        """Inside a message."""
        self._stopping = False
        self._left = 0
        """Bytes of the current P-DATA PDU that are still to come."""
        self._proposal: Proposal | None = None
        self._contexts: dict[int, Context] = {}
        _prepare(writer.get_extra_info("socket"))

    # ---- from outside ------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """End it where it was silent for too long."""
        if now > self._due and not self._timeout:
            self._timeout = "stalled messages" if self._busy else "silent associations"
            self.task.cancel()

    def stop(self) -> None:
        """End it as soon as nothing is in progress."""
        self._stopping = True
        if not self._busy:
            self._timeout = "stopped associations"
            self.task.cancel()

    # ---- the life of it ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            await self._negotiate()
            while not self._stopping:
                await self._message()
            self._last("stopped associations", upper_layer.abort(None))
        except _Ended as ended:
            self._last(ended.why, ended.said)
        except asyncio.CancelledError:
            self._last(self._timeout or "stopped associations", upper_layer.abort(None))
            if not self._timeout:
                raise
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError, OSError):
            self._last("lost connections", b"")
        except Exception:  # a mistake of ours: the peer hears that it failed, and may come again
            self._last("mistakes", upper_layer.abort(None))
            raise
        finally:
            with contextlib.suppress(Exception):
                self._writer.close()

    def _last(self, why: str, said: bytes) -> None:
        self._storage.counts[why] += 1
        if said and not self._writer.transport.is_closing():
            self._writer.write(said)

    def _patience(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds

    async def _negotiate(self) -> None:
        self._patience(self._storage.listening.request_seconds)
        kind, length = await self._header()
        if kind == Pdu.ABORT:
            raise _Ended("aborted associations")
        if kind != Pdu.ASSOCIATE_RQ:
            raise _broken("broken associations", Abort.UNEXPECTED_PDU)
        if length > upper_layer.MAX_REQUEST:
            raise _broken("broken associations")
        try:
            self._proposal = proposal = upper_layer.proposal_of(await self._bytes.exactly(length))
            refused = self._storage.rejects(proposal, self.address)
            if refused is not None:
                raise _Ended("rejected associations", upper_layer.reject(refused))
            answer, contexts = upper_layer.accept(proposal, MAX_PDU)
        except Malformed:
            raise _broken("broken associations") from None
        self._contexts = dict(contexts)
        self.established = True
        self._storage.counts["associations"] += 1
        await self._send(answer)

    async def _message(self) -> None:
        """One command and, where one follows, its data set."""
        self._patience(self._storage.listening.idle_seconds)
        encoded, context_id = bytearray(), 0
        while True:
            length, found_id, control = await self._value()
            if not control & 1 or (encoded and found_id != context_id):
                raise _broken("broken associations", Abort.UNEXPECTED_PDU)
            if len(encoded) + length > commands.MAX_COMMAND or found_id not in self._contexts:
                raise _broken("broken associations")
            context_id = found_id
            encoded += await self._bytes.exactly(length)
            if control & 2:
                break
        try:
            command = commands.command_of(bytes(encoded))
        except Malformed:
            raise _broken("broken associations") from None
        if command.field == commands.CANCEL:
            self._busy = False
            return
        if command.field & commands.RESPONSE:
            raise _broken("broken associations", Abort.UNEXPECTED_PDU)
        status, comment = await self._served(command, context_id)
        await self._send(self._answer(context_id, command, status, comment))
        self._busy = False

    async def _served(self, command: Command, context_id: int) -> tuple[int, str]:
        if command.field == commands.STORE:
            if not command.data_set:
                raise _broken("broken associations")
            return await self._store(command, context_id)
        if command.data_set:
            await self._data_set(None, context_id)
        return (0, "") if command.field == commands.ECHO else (commands.UNRECOGNISED, "")

    async def _store(self, command: Command, context_id: int) -> tuple[int, str]:
        context, proposal = self._contexts[context_id], cast(Proposal, self._proposal)
        offer = Offer(
            command.sop_class,
            command.sop_instance,
            context.abstract,
            context.syntax,
            calling=proposal.calling,
            called=proposal.called,
            address=self.address,
            move_originator=command.move_originator,
            move_message_id=command.move_message_id,
        )
        incoming = self._storage.storing.begin(offer, self._intake)
        try:
            await self._data_set(incoming, context_id)
            self._due = float("inf")
            status = await incoming.end()
        except BaseException:
            await incoming.abandon()
            raise
        return status, incoming.refusal[1] if incoming.refusal is not None else ""

    async def _data_set(self, incoming: Incoming | None, context_id: int) -> None:
        """Fragments as far as they came: what a PDU or a value says of its length is never allocated.

        Many fragments are in one read (an archive sends some 16 kB in each), and go on together.
        """
        came, pieces, held = self._bytes, list[memoryview](), 0
        while True:
            length, found_id, control = await self._value()
            if control & 1 or found_id != context_id:
                raise _broken("broken associations", Abort.UNEXPECTED_PDU)
            while length:
                piece = came.some(length)
                length -= len(piece)
                pieces.append(piece)
                held += len(piece)
                if came.spent or held >= CHUNK or (control & 2 and not length):
                    if incoming is not None:
                        await incoming.write(b"".join(pieces))
                    pieces.clear()
                    held = 0
                if length and came.spent:
                    self._patience(self._storage.listening.stall_seconds)
                    await came.more()
            if control & 2:
                return

    # ---- values and PDUs ---------------------------------------------------------------------------------------------

    async def _value(self) -> tuple[int, int, int]:
        """(bytes, context id, control) of the next presentation data value (PS3.8 9.3.5.1)."""
        while not self._left:
            kind, length = await self._header()
            if kind == Pdu.RELEASE_RQ and not self._busy:
                raise _Ended("released associations", upper_layer.RELEASED)
            if kind == Pdu.ABORT:
                raise _Ended("aborted associations")
            if kind != Pdu.DATA:
                unknown = kind not in Pdu.__members__.values()
                raise _broken("broken associations", Abort.UNKNOWN_PDU if unknown else Abort.UNEXPECTED_PDU)
            self._left = length
        if self._left < 6:
            raise _broken("broken associations")
        length, context_id, control = _VALUE.unpack(await self._bytes.exactly(6))
        if not 2 <= length <= self._left - 4:
            raise _broken("broken associations")
        self._left -= length + 4
        self._busy = True
        self._patience(self._storage.listening.stall_seconds)
        return length - 2, context_id, control

    async def _header(self) -> tuple[int, int]:
        first = await self._bytes.exactly(6)
        kind, length = _HEADER.unpack(first)
        if kind in (Pdu.RELEASE_RQ, Pdu.RELEASE_RP, Pdu.ABORT):
            if length != 4:
                raise _broken("broken associations")
            await self._bytes.exactly(4)
        return int(kind), int(length)

    def _answer(self, context_id: int, command: Command, status: int, comment: str) -> bytes:
        said = commands.answer(command, status, comment)
        return upper_layer.command_pdus(context_id, said, cast(Proposal, self._proposal).max_pdu)

    async def _send(self, said: bytes) -> None:
        self._patience(self._storage.listening.stall_seconds)
        self._writer.write(said)
        await self._writer.drain()


class _Bytes:
    """What came, taken in pieces of any length."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._came = memoryview(b"")
        self._at = 0

    @property
    def spent(self) -> bool:
        """Whether all that came is taken: whoever wants more has to wait."""
        return self._at == len(self._came)

    def some(self, most: int) -> memoryview:
        """Up to so many bytes, of those that are here."""
        piece = self._came[self._at : self._at + most]
        self._at += len(piece)
        return piece

    async def exactly(self, length: int) -> bytes:
        """Raises IncompleteReadError."""
        found = bytes(self.some(length))
        while len(found) < length:
            await self.more()
            found += self.some(length - len(found))
        return found

    async def more(self) -> None:
        """Wait until there is something, when all was taken. Raises IncompleteReadError."""
        data = await self._reader.read(CHUNK)
        if not data:
            raise asyncio.IncompleteReadError(b"", None)
        self._came, self._at = memoryview(data), 0


_HEADER = struct.Struct(">BxL")
_VALUE = struct.Struct(">LBB")


def _prepare(found: socket.socket | None) -> None:
    """No waiting for a fuller packet (spec: 12.7 times slower), and the question whether the peer is still there."""
    if found is not None:
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_ALIVE)
