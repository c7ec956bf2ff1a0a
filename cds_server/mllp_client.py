"""The sending side of MLLP: one message in flight, its answer matched by its number. And a feed caught in a file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from adapters.hl7v2.acks import When, header_of, plan
from adapters.hl7v2.frames import START, TRAILER, Frame, FrameDecoder, frame
from adapters.hl7v2.message import parse
from adapters.source import Arrival, Receipt
from models.errors import BadInput, DiskFull, Misconfigured, PeerFailed
from models.nouns import JSON, LandingMeta

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
"""For a receiver to say goodbye (TLS); after that we leave without."""
_CHUNK = 1 << 16
POSITIVE = frozenset({"AA", "CA"})
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
    """One connection to a receiver. Made by `connected`."""

    def __init__(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peer, self._reader, self._writer = peer, reader, writer
        self._decoder = FrameDecoder(lenient_trailer=True)
        self._waiting: list[bytes] = []

    async def send(self, raw: bytes) -> Answer:
        """One message; gives its answer. An acknowledgement of an earlier one (of the application, in the enhanced
        mode) that comes in between is passed over.

        Raises: PeerFailed (no answer in time, the connection ended), Malformed (a byte of the frame in the message).
        """
        header = header_of(raw)
        number = header.control_id.decode("utf-8", "replace")
        began = time.perf_counter()
        try:
            self._writer.write(frame(raw))
            await self._writer.drain()
            due = plan(header)
            if due.accept is due.application is When.NEVER:
                return Answer(NOT_DUE, number, time.perf_counter() - began)
            async with asyncio.timeout(self._peer.wait):
                while True:
                    code, whose = _said(await self._next())
                    if whose in (number, ""):
                        return Answer(code, number, time.perf_counter() - began)
        except TimeoutError:
            raise PeerFailed(f"no answer within {self._peer.wait:g} seconds") from None
        except (OSError, ssl.SSLError):
            raise PeerFailed("the connection broke before the answer") from None

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
async def connected(peer: Peer) -> AsyncIterator[Connection]:
    """Raises: PeerFailed (nobody listens there, the certificate is not believed)."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(peer.host, peer.port, ssl=peer.tls)
    except ssl.SSLError:
        raise PeerFailed("no TLS connection: a certificate is not believed, or there is no TLS") from None
    except (OSError, TimeoutError):
        raise PeerFailed(f"no connection to {peer.host}:{peer.port}") from None
    try:
        yield Connection(peer, reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await writer.wait_closed()


@dataclass(slots=True)
class Totals:
    """What came of a feed that was played."""

    codes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Of each answer."""
    took: float = 0.0
    not_sent: int = 0
    """Messages that no frame can hold."""

    @property
    def sent(self) -> int:
        return sum(self.codes.values())

    @property
    def fine(self) -> bool:
        return not self.not_sent and all(code in POSITIVE or code == NOT_DUE for code in self.codes)

    def within(self, share: float) -> float:
        """Seconds within which this share of the answers came (0.5: the median)."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def send_all(
    messages: Iterable[bytes], peer: Peer, *, rate: float = 0.0, told: Callable[[int, Answer | str], None] | None = None
) -> Totals:
    """Send messages one after the other, at most `rate` a second (0: as fast as they are answered).

    `told`: of each message, with its number from 1 and its answer, or why it was not sent. Raises: PeerFailed.
    """
    totals = Totals()
    async with connected(peer) as connection:
        began = time.perf_counter()
        for number, raw in enumerate(messages, 1):
            if rate:
                await asyncio.sleep(began + (number - 1) / rate - time.perf_counter())
            try:
                answer = await connection.send(raw)
            except BadInput as error:
                totals.not_sent += 1
                if told:
                    told(number, str(error))
                continue
            totals.codes[answer.code] += 1
            if answer.code != NOT_DUE:
                totals.seconds.append(answer.seconds)
            if told:
                told(number, answer)
        totals.took = time.perf_counter() - began
    return totals


# ---- a capture -------------------------------------------------------------------------------------------------------


class Capture:
    """An Intake that keeps each message in its frame at the end of one new file, of which only its owner may read.

    Raises: Misconfigured (the file exists: one feed, one file), OSError.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise Misconfigured("the file of a capture must be a new one", where="--out") from None
        self._turn = asyncio.Lock()
        self._size = 0
        self.count = 0

    def stage(self, meta: LandingMeta) -> _Caught:
        return _Caught(self)

    async def keep(self, raw: bytes) -> None:
        """Durable when this returns. Raises: DiskFull; then nothing of it stands in the file."""
        async with self._turn:
            await asyncio.to_thread(self._append, START + raw + TRAILER)
            self.count += 1

    def _append(self, framed: bytes) -> None:
        try:
            rest = memoryview(framed)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
            raise DiskFull("the capture cannot be written") from None
        self._size += len(framed)

    def close(self) -> None:
        os.close(self._file)


class _Caught:
    """One message on its way into the file."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._parts: list[bytes] = []

    async def write(self, chunk: bytes) -> None:
        self._parts.append(chunk)

    async def end_part(self) -> None:
        """A message is one part."""

    async def commit(
        self, dedup_key: bytes | None = None, *, learnt: JSON | None = None, other: bytes | None = None
    ) -> Receipt:
        """Every message is kept, one that was sent again too: what was captured is what was sent."""
        await self._capture.keep(b"".join(self._parts))
        return Receipt(Arrival.STORED, "", 1)

    async def abandon(self) -> None:
        self._parts.clear()
