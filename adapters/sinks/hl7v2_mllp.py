"""Sends HL7 v2 messages over MLLP (transport specification release 1): one in flight, its answer matched by its number.

A late answer is the danger of this protocol: matched to the next message, it would say of that one what was said of
another. So an answer counts only where MSA-2 is the number of the message in flight. A second answer to a message that
has its answer is passed over; any other ends the connection, and the message is sent again on a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from adapters.hl7v2.acks import When, header_of, plan
from adapters.hl7v2.frames import Frame, FrameDecoder, frame
from adapters.hl7v2.message import parse
from adapters.sink import Taken, Told
from models.errors import BadInput, Misconfigured, PeerFailed

NAME = "hl7v2-mllp"
CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
"""For a receiver to say goodbye (TLS); after that we leave without."""
_CHUNK = 1 << 16
_MOST_ANSWER = 1 << 20
"""Bytes of an answer; the usual one has two hundred."""
POSITIVE = frozenset({"AA", "CA"})
_TAKEN = {"AA": Taken.YES, "CA": Taken.YES, "AE": Taken.NO, "CE": Taken.NO, "AR": Taken.LATER, "CR": Taken.LATER}
"""Table 0008. E: an error of the content, which the same bytes will have again. R: not for their content (2.9.2.2)."""
NOT_DUE = "-"
"""In place of a code: the message asks for no answer (MSH-15 and MSH-16), or is one itself."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said to one message."""

    code: str
    """MSA-1; `NOT_DUE`; "?" where the answer cannot be read."""
    control_id: str
    """MSH-10 of the message."""
    seconds: float

    @property
    def positive(self) -> bool:
        return self.code in POSITIVE or self.code == NOT_DUE


@dataclass(frozen=True, slots=True)
class Peer:
    """Where to send."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    wait: float = 30.0
    """Seconds for an answer."""


def client_tls(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later, the receiver's certificate checked against `ca` (none: the system's). Raises Misconfigured."""
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert is not None:
            context.load_cert_chain(cert, key)
    except (ssl.SSLError, OSError):
        raise Misconfigured("the certificate, its key or the authorities cannot be used") from None
    return context


class Connection:
    """One connection to a receiver. Made by `connected`.

    `exact`: an answer that names neither this message nor one that was answered on this connection is a fault of the
    line (PeerFailed). Otherwise it is passed over: by hand one message after the other is sent, and each is looked at.
    """

    def __init__(
        self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, exact: bool = False
    ) -> None:
        self._peer, self._reader, self._writer, self._exact = peer, reader, writer, exact
        self._decoder = FrameDecoder(_MOST_ANSWER, lenient_trailer=True)
        self._waiting: list[bytes] = []
        self._answered: set[str] = set()

    @property
    def ended(self) -> bool:
        """The receiver went away while nothing was said."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def send(self, raw: bytes) -> Answer:
        """One message; gives its answer.

        Raises: PeerFailed (no answer in time, one that is not to this message, the connection ended), Malformed (a byte
        of the frame in the message).
        """
        header = header_of(raw)
        number = header.control_id.decode("utf-8", "replace")
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._peer.wait):
                self._writer.write(frame(raw))
                await self._writer.drain()
                due = plan(header)
                if due.accept is due.application is When.NEVER:
                    return Answer(NOT_DUE, number, time.perf_counter() - began)
                code = await self._answer(number)
        except TimeoutError:
            raise PeerFailed(f"no answer within {self._peer.wait:g} seconds") from None
        except (OSError, ssl.SSLError):
            raise PeerFailed("the connection broke before the answer") from None
        if self._exact:
            self._answered.add(number)
        return Answer(code, number, time.perf_counter() - began)

    async def _answer(self, number: str) -> str:
        while True:
            code, whose = _said(await self._next())
            if whose == number or (not whose and not self._exact):
                return code
            if self._exact and whose not in self._answered:
                raise PeerFailed("an answer that is not to this message" if whose else "an answer that cannot be read")

    async def _next(self) -> bytes:
        while not self._waiting:
            data = await self._reader.read(_CHUNK)
            events = self._decoder.feed(data) if data else self._decoder.eof()
            self._waiting += [event.payload for event in events if isinstance(event, Frame)]
            if not data and not self._waiting:
                raise PeerFailed("the receiver closed the connection without an answer")
        return self._waiting.pop(0)


def _said(raw: bytes) -> tuple[str, str]:
    """MSA-1 and MSA-2 of an answer."""
    try:
        answer = parse(raw)
    except BadInput:
        return "?", ""
    code = answer.get("MSA-1").strip()
    return (code if code.isalnum() and len(code) == 2 else "?"), answer.get("MSA-2").strip()


@contextlib.asynccontextmanager
async def connected(peer: Peer, *, exact: bool = False) -> AsyncIterator[Connection]:
    """Raises: PeerFailed (nobody listens there, the certificate is not believed)."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(peer.host, peer.port, ssl=peer.tls)
    except ssl.SSLError:
        raise PeerFailed("no TLS connection: a certificate is not believed, or there is no TLS") from None
    except (OSError, TimeoutError):
        raise PeerFailed(f"no connection to {peer.host}:{peer.port}") from None
    try:
        yield Connection(peer, reader, writer, exact=exact)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await writer.wait_closed()


class Mllp:
    """`adapters.sink.Sink`. `peer` is asked at each connection, so that renewed certificates count."""

    def __init__(self, peer: Callable[[], Peer]) -> None:
        self._peer = peer
        self._line: Connection | None = None
        self._open = contextlib.AsyncExitStack()

    async def deliver(self, message: bytes) -> Told:
        """Raises: PeerFailed (nobody knows whether it arrived), Misconfigured (our certificate cannot be used),
        Malformed (no frame can hold it)."""
        if self._line is None or self._line.ended:
            await self.close()
            self._line = await self._open.enter_async_context(connected(self._peer(), exact=True))
        try:
            answer = await self._line.send(message)
            taken = _TAKEN.get(answer.code)
            if taken is None:
                raise PeerFailed("an answer whose code is none of table 0008")
        except BaseException:  # whatever it was: an answer that comes late must meet nobody
            await self.close()
            raise
        if taken is Taken.LATER:
            await self.close()
        return Told(taken, answer.code)

    async def close(self) -> None:
        self._line = None
        await self._open.aclose()
