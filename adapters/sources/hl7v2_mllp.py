"""HL7 v2 messages over MLLP: a listener that answers yes only for what is durable.

    bytes -> frames (`adapters.hl7v2.frames`) -> one landing a message -> the acknowledgement

A positive answer means that the message's bytes and its key are on disk; what is done with it later is our own affair
(`ack_after = "persist"`), or, where the sender shall hear of it, is done first (`"applied"`). The same message again is
answered the same and stored once, over whichever connection it comes. Ids such as F7 or A6 name rows of the receiver's
checklist in docs/hl7v2.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import socket
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from adapters.hl7v2.acks import Acknowledger, Cause, Code, Header, Problem, header_of, plan
from adapters.hl7v2.batch import Entry, is_batch, split
from adapters.hl7v2.frames import START, TRAILER, Dropped, Event, Frame, FrameDecoder, Oversize, Skipped
from adapters.hl7v2.places import path
from adapters.readers.hl7v2 import MESSAGE
from adapters.source import Arrival, Intake
from adapters.sources.certificates import Secured, Tls, names_of
from adapters.sources.room import Room
from models.errors import CdsError, Misconfigured
from models.nouns import LandingMeta, instant

NAME = "hl7v2-mllp"
KEEP_ALIVE = 180
"""Seconds of silence after which TCP itself asks whether the sender is there: firewalls forget in ten minutes."""
LENIENT_SECONDS = 0.25
"""Of silence after 0x1C, where a sender leaves its CR out."""
QUEUED = 64
HELD = 1 << 20
"""Frames, and their bytes, of one connection that wait, before it is not read any more: senders send one at a time."""
HANDSHAKE = 10.0
"""Seconds for a sender to secure its connection; until then it is none, and does not count as one."""
GRACE = 5.0
"""Seconds that a stop gives to frames in progress."""
_RENEW = 5.0
_NO_LIMIT = 1 << 62
_CURRENT = frozenset({"", '""', "T"})
"""Of table 0207: current processing, at once or at intervals."""

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
Applied = Callable[[str], Awaitable[str | None]]
"""Landing -> None once its message is applied, or why it could not be, in our words."""


@dataclass(frozen=True, slots=True)
class Listening:
    """How one source listens."""

    host: str
    port: int
    allow: Networks = ()
    """Addresses that may connect; none named: any that can reach the interface."""
    tls: Tls | None = None
    max_message: int = 16 << 20
    max_connections: int = 256
    lenient_trailer: bool = False
    idle_seconds: int = 30
    """Of silence inside a frame."""
    write_seconds: int = 30
    """For a sender to take its answer."""
    silence_minutes: int = 0
    """Without any message, before it is said that the feed is silent; 0: never."""
    ack_after: str = "persist"
    on_trouble: str = "AE"
    """AE or AR: what a sender hears that may try again later."""
    processing: frozenset[str] = frozenset({"P"})
    """Processing ids (MSH-11, table 0103) that are taken."""
    modes: frozenset[str] = frozenset()
    """Processing modes (MSH-11.2, table 0207) that are taken besides current processing: A archive, I initial load, R
    restore from archive. What they bring is old, and its MSH-7 is new."""
    receivers: frozenset[tuple[str, str]] = frozenset()
    """First components of MSH-5 and MSH-6 that are ours, "" for any MSH-6; none named: whatever stands there."""


@dataclass(slots=True)
class Counts:
    """What happened so far: numbers only."""

    of: Counter[str] = field(default_factory=Counter)
    last_message: float | None = None
    """Seconds since 1970."""
    open: int = 0


class Mllp:
    """A Source (`adapters.source`): listens until it is cancelled, then finishes what is in progress."""

    def __init__(
        self,
        listening: Listening,
        source: str,
        namespace: str,
        *,
        charset: str | None = None,
        applied: Applied | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC).astimezone(),
        ready: Callable[[int], None] | None = None,
        room: Room[_Connection] | None = None,
    ) -> None:
        """`ready`: told the port once connections are taken. `applied`: needed for `ack_after = "applied"`. `room`:
        the one that all sources share."""
        self.listening = listening
        self.source = source
        self.namespace = namespace
        self.charset = charset
        self.counts = Counts()
        self.acknowledger = Acknowledger(now)
        self.applied = applied if listening.ack_after == "applied" else None
        self.connections: set[_Connection] = set()
        self.room = room or Room(_NO_LIMIT)
        self._ready = ready
        self._empty: asyncio.Event | None = None

    def left(self, connection: _Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self.room.leave(connection)
        self.counts.open = len(self.connections)
        if self._empty is not None and not self.connections:
            self._empty.set()

    async def run(self, intake: Intake) -> None:
        """Errors: Misconfigured (the address or the certificate cannot be used)."""
        at = self.listening
        secured = Secured(at.tls) if at.tls else None
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: _Connection(self, intake),
                at.host,
                at.port,
                ssl=secured.context if secured else None,
                backlog=512,
                ssl_handshake_timeout=HANDSHAKE if secured else None,
            )
        except OSError as error:
            raise Misconfigured(f"cannot listen for {self.source}: {error.strerror}", where="listen") from None
        try:
            if self._ready is not None:
                self._ready(server.sockets[0].getsockname()[1])
            while True:
                await asyncio.sleep(_RENEW)
                if secured is not None:
                    secured.renew()
        finally:
            server.close()
            await self._finish()

    async def _finish(self) -> None:
        """F10: no new connection; frames in progress are completed and answered, within `GRACE`."""
        self._empty = asyncio.Event()
        for each in list(self.connections):
            each.stop()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), GRACE)
        for each in list(self.connections):
            each.abort()

    def lets_in(self, address: str) -> bool:
        if not self.listening.allow:
            return True
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
        return any((mapped or found) in network for network in self.listening.allow)

    # ---- one message -------------------------------------------------------------------------------------------------

    async def take_frame(self, payload: bytes, intake: Intake) -> list[bytes]:
        """A message, or a batch in one frame (C11): each of its messages is landed and answered for itself."""
        if not is_batch(payload):
            return await self.take(payload, intake)
        answers, empty = list[bytes](), True
        for each in split([payload], max_message=self.listening.max_message):
            if isinstance(each, Entry):
                answers += await self.take(each.raw, intake)
                empty = False
            else:
                self.counts.of["odd batches"] += 1
        return await self.take(payload, intake) if empty else answers

    async def take(self, payload: bytes, intake: Intake) -> list[bytes]:
        """Land a message; gives the acknowledgements that are due. Raises nothing that is of the message's making."""
        header = header_of(payload, self.charset)
        self.counts.of["messages"] += 1
        self.counts.last_message = time.time()
        if header.is_ack:
            self.counts.of["acknowledgements"] += 1
            return []
        refused = self._refused(header)
        if refused is not None:
            return self._answers(header, Code.AR, refused)
        staged = intake.stage(LandingMeta(self.source, self.namespace, MESSAGE, instant(datetime.now(UTC))))
        key = self._key(header)
        try:
            await staged.write(payload)
            receipt = await staged.commit(key, other=key + hashlib.sha256(payload).digest())
        except (CdsError, OSError) as error:  # F9, A6: what is not durable is not acknowledged
            await staged.abandon()
            self.counts.of["refused"] += 1
            text = error.what if isinstance(error, CdsError) else "the message could not be stored"
            return self._answers(header, Code(self.listening.on_trouble), Problem(Cause.INTERNAL, text=text))
        self.counts.of["duplicates" if receipt.arrival is Arrival.DUPLICATE else "stored"] += 1
        if receipt.beside is not None:  # C1
            self.counts.of["numbers used again"] += 1
        trouble = await self.applied(receipt.landing) if self.applied is not None else None
        if trouble is not None:
            self.counts.of["not applied"] += 1
            return self._answers(header, Code.AE, Problem(Cause.INTERNAL, text=trouble), accepted=True)
        return self._answers(header, Code.AA, None)

    def _key(self, header: Header) -> bytes:
        """C1: who sends, and the number that it gave the message."""
        return b"\x1f".join((b"mllp", self.source.encode(), *header.sending, header.control_id))

    def _refused(self, header: Header) -> Problem | None:
        """What keeps a message from being taken at all, whatever it says (A2)."""
        if not header.type:
            return Problem(Cause.SEQUENCE, text="there is no readable MSH at the beginning")
        if not header.control_id:
            return Problem(Cause.REQUIRED, text="MSH-10 is empty")
        version = header.version.partition(header.delimiters.component.encode())[0]
        if version and not version.startswith(b"2"):
            return Problem(Cause.VERSION, text="a version that is not of HL7 v2")
        separator = header.delimiters.component.encode()
        processing, _, rest = header.processing_id.partition(separator)
        if (processing.decode("ascii", "replace") or "P") not in self.listening.processing:
            return Problem(Cause.PROCESSING_ID, text="this receiver does not take the processing id of MSH-11")
        mode = rest.partition(separator)[0].decode("ascii", "replace").strip()
        if mode not in _CURRENT and mode not in self.listening.modes:
            return Problem(Cause.PROCESSING_ID, path("MSH-11.2"), "this receiver takes current processing alone")
        if self.listening.receivers and not self._ours(header):
            return Problem(Cause.INTERNAL, path("MSH-5"), "MSH-5 and MSH-6 name another receiver")
        return None

    def _ours(self, header: Header) -> bool:
        """C12: whether the message is for us."""
        separator = header.delimiters.component.encode()
        application, facility = (each.partition(separator)[0].decode("utf-8", "replace") for each in header.receiving)
        return not self.listening.receivers.isdisjoint(((application, facility), (application, "")))

    def _answers(self, header: Header, code: Code, problem: Problem | None, *, accepted: bool = False) -> list[bytes]:
        """The acknowledgements that are due (A1): one in the original mode; of acceptance and of the application, as
        MSH-15 and MSH-16 ask, in the enhanced one. `accepted`: it is durable, whatever `code` says of it."""
        due = plan(header)
        problems = [problem] if problem is not None else []
        answers = []
        if due.enhanced:
            stored = code.positive or accepted
            first = Code.CA if stored else {Code.AE: Code.CE}.get(code, Code.CR)
            if due.accept.due(first.positive):
                answers.append(self._answer(header, first, [] if stored else problems))
            if stored and due.application.due(code.positive):
                answers.append(self._answer(header, code, problems))
        elif due.application.due(code.positive):
            answers.append(self._answer(header, code, problems))
        return answers

    def _answer(self, header: Header, code: Code, problems: list[Problem]) -> bytes:
        self.counts.of[f"answered {code.value}"] += 1
        text = problems[0].text if problems else ""
        return self.acknowledger.answer(header, code, problems, text=text)

    def too_long(self, event: Oversize) -> list[bytes]:
        """F5: refused by the control id that its first bytes hold."""
        self.counts.of["oversize"] += 1
        header = header_of(event.head, self.charset)
        problem = Problem(Cause.LENGTH, text=f"the message is longer than {self.listening.max_message} bytes")
        return [] if header.is_ack else self._answers(header, Code.AR, problem)


class _Connection(asyncio.Protocol):
    """One sender. Frames are taken one after the other, and answered in order."""

    def __init__(self, mllp: Mllp, intake: Intake) -> None:
        self._mllp, self._intake = mllp, intake
        self._decoder = FrameDecoder(mllp.listening.max_message, mllp.listening.lenient_trailer)
        self._waiting: deque[Event] = deque()
        self._held = 0
        """Bytes in `_waiting`."""
        self._taking = 0
        """Bytes of the frame that is being landed."""
        self._transport: asyncio.Transport | None = None
        self._working: asyncio.Task[None] | None = None
        self._paused = False
        self._drained = asyncio.Event()
        self._drained.set()
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._stopping = False

    # ---- asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        counts, at = self._mllp.counts, self._mllp.listening
        peer = transport.get_extra_info("peername")
        counts.of["connections"] += 1
        if len(self._mllp.connections) >= at.max_connections:
            counts.of["too many connections"] += 1
            self._transport.abort()
            return
        if not (peer and self._mllp.lets_in(str(peer[0]))) or not self._known(transport):
            counts.of["strangers"] += 1
            self._transport.abort()
            return
        _kept_alive(transport.get_extra_info("socket"))
        self._mllp.connections.add(self)
        counts.open = len(self._mllp.connections)

    def _known(self, transport: asyncio.BaseTransport) -> bool:
        """F8: whether the client's certificate carries a name that is expected."""
        tls = self._mllp.listening.tls
        if tls is None or not tls.subjects:
            return True
        shown = transport.get_extra_info("peercert") or {}
        return not names_of(shown).isdisjoint(tls.subjects)

    def data_received(self, data: bytes) -> None:
        self._heard = time.monotonic()
        events = self._decoder.feed(data)
        if events:
            self._taken(events)
        self._hold()
        if self._decoder.inside and (self._timer is None or self._lacks_cr):
            self._watch()

    def _hold(self) -> None:
        """F9: say what this connection keeps in memory; where all keep too much, those that keep most are given up."""
        for each in self._mllp.room.hold(self, self._decoder.kept + self._held + self._taking):
            each.give_up()

    def give_up(self) -> None:
        """Nothing that waits was acknowledged: the sender comes again."""
        self._mllp.counts.of["no room"] += 1
        self._forget()
        self.abort()

    def eof_received(self) -> bool:
        self._taken(self._decoder.eof())
        if self._working is not None:
            self._stopping = True  # the last answers are still written, but for TLS, where one end cannot be shut alone
            return self._mllp.listening.tls is None
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        self._taken(self._decoder.eof())  # F6: nothing is made of half a frame; whole ones are taken, if unheard
        self._drained.set()
        if self._timer is not None:
            self._timer.cancel()
        self._mllp.left(self)

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    # ---- frames ------------------------------------------------------------------------------------------------------

    def _taken(self, events: list[Event]) -> None:
        counts = self._mllp.counts.of
        for event in events:
            match event:
                case Skipped(count):
                    counts["skipped bytes"] += count
                case Dropped():
                    counts["dropped frames"] += event.count
                case _:
                    self._waiting.append(event)
                    self._held += _bytes_of(event)
        if self._waiting and self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())
        full = len(self._waiting) > QUEUED or self._held > HELD
        if full and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    async def _work(self) -> None:
        try:
            while self._waiting:
                event = self._waiting.popleft()
                self._taking = _bytes_of(event)
                self._held -= self._taking
                if isinstance(event, Frame):
                    answers = await self._mllp.take_frame(event.payload, self._intake)
                else:
                    answers = self._mllp.too_long(cast(Oversize, event))
                if answers and not await self._write(answers):
                    self._forget()
                self._taking = 0
                if self._transport is not None and not self._transport.is_closing():
                    self._hold()
                eased = len(self._waiting) <= QUEUED // 2 and self._held <= HELD // 2
                if self._paused and eased and self._transport is not None:
                    self._paused = False
                    self._transport.resume_reading()
        except Exception:  # a mistake of ours: no answer would be true, and the sender may come again
            self._mllp.counts.of["mistakes"] += 1
            self._forget()
            self.abort()
            raise
        finally:
            self._working = None
            if self._stopping and not self._waiting and not self._decoder.inside:
                self.close()

    async def _write(self, answers: list[bytes]) -> bool:
        """F7: False where the sender does not take its answer, and the connection was given up."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        transport.write(b"".join(START + answer + TRAILER for answer in answers))
        if not self._drained.is_set():
            try:
                await asyncio.wait_for(self._drained.wait(), self._mllp.listening.write_seconds)
            except TimeoutError:
                self._mllp.counts.of["slow readers"] += 1
                transport.abort()
                return False
        return True

    def _forget(self) -> None:
        self._waiting.clear()
        self._held = 0

    @property
    def _lacks_cr(self) -> bool:
        """A trailer, it seems, of a sender that leaves the CR out."""
        return self._mllp.listening.lenient_trailer and self._decoder.awaits_cr

    def _watch(self) -> None:
        """Look again after a while: whether a trailer lacks its CR, whether a frame stands still."""
        wait = LENIENT_SECONDS if self._lacks_cr else float(self._mllp.listening.idle_seconds)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait, self._look)

    def _look(self) -> None:
        self._timer = None
        silent = time.monotonic() - self._heard
        if self._decoder.awaits_cr and silent >= LENIENT_SECONDS * 0.9:
            self._taken(self._decoder.idle())
        if not self._decoder.inside:
            return
        if silent >= self._mllp.listening.idle_seconds * 0.99 and not self._paused:
            self._mllp.counts.of["stalled frames"] += 1
            self.abort()
            return
        self._watch()

    # ---- the end -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Close as soon as nothing is in progress."""
        self._stopping = True
        if self._working is None and not self._decoder.inside:
            self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _bytes_of(event: Event) -> int:
    return len(event.payload) if isinstance(event, Frame) else 0


def _kept_alive(found: socket.socket | None) -> None:
    if found is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE)
