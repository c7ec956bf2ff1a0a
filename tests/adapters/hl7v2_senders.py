"""What stands at both ends of the listener in its tests: senders over real sockets, an intake that keeps in memory."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from adapters.hl7v2.frames import Frame, FrameDecoder, frame
from adapters.source import Arrival, Receipt
from adapters.sources.hl7v2_mllp import Applied, Listening, Mllp
from models.nouns import JSON, LandingMeta

PATIENCE = 20.0
"""Seconds for what must come, on a machine that is busy."""


def adt(
    control_id: str = "M1",
    *,
    kind: str = "ADT^A01^ADT_A01",
    mode: str = "P",
    version: str = "2.5.1",
    accept: str = "",
    application: str = "",
    body: str = "PID|1||123^^^HOSP^MR||DOE^JOAN\r",
) -> bytes:
    header = (
        f"MSH|^~\\&|LAB|HOSP|CDS|X|20260301090000+0100||{kind}|{control_id}|{mode}|{version}|||{accept}|{application}"
    )
    return f"{header}\r{body}".encode()


@dataclass(slots=True)
class Kept:
    """An intake by the contract of `adapters.source`, in memory."""

    messages: list[bytes] = field(default_factory=list)
    keys: dict[bytes, bytes] = field(default_factory=dict)
    trouble: Exception | None = None
    """Raised by what is committed next, until it is taken away."""
    gate: asyncio.Event | None = None
    """Commits wait for it."""
    staged: int = 0
    abandoned: int = 0

    def stage(self, meta: LandingMeta) -> _Staged:
        assert (meta.source, meta.namespace, meta.media_type) == ("lab", "hosp", "x-application/hl7-v2+er7")
        self.staged += 1
        return _Staged(self)


class _Staged:
    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._bytes = b""

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
        kept = self._kept
        if kept.gate is not None:
            await kept.gate.wait()
        await asyncio.sleep(0)
        if kept.trouble is not None:
            raise kept.trouble
        assert dedup_key is not None
        assert other is not None
        for key in (dedup_key, other):
            if key not in kept.keys:
                kept.keys[key] = self._bytes
                kept.messages.append(self._bytes)
                first = "landing" if key == other else None
                return Receipt(Arrival.STORED, f"landing{len(kept.messages)}", 1, first)
            if kept.keys[key] == self._bytes:
                return Receipt(Arrival.DUPLICATE, "landing", 1)
        raise AssertionError("a digest of other bytes")

    async def abandon(self) -> None:
        self._kept.abandoned += 1


@dataclass(slots=True)
class Sender:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _decoder: FrameDecoder = field(default_factory=FrameDecoder)
    _came: list[bytes] = field(default_factory=list)

    async def send(self, raw: bytes, step: int | None = None) -> None:
        """Bytes as they are; `step`: so many in a write of their own."""
        for at in range(0, len(raw), step or len(raw)):
            self.writer.write(raw[at : at + (step or len(raw))])
            await self.writer.drain()

    async def answers(self, count: int = 1) -> list[bytes]:
        """The next answers; fails where the connection ends before."""
        async with asyncio.timeout(PATIENCE):
            while len(self._came) < count:
                data = await self.reader.read(65536)
                assert data, "the connection ended"
                for event in self._decoder.feed(data):
                    assert isinstance(event, Frame), "an answer is nothing but frames"
                    self._came.append(event.payload)
        taken, self._came = self._came[:count], self._came[count:]
        return taken

    async def said(self, count: int = 1) -> list[str]:
        """`AA M1` of the next answers."""
        return [said(each) for each in await self.answers(count)]

    async def tell(self, *messages: bytes) -> list[str]:
        """Send messages, and hear one answer each."""
        for message in messages:
            await self.send(frame(message))
        return await self.said(len(messages))

    async def closed(self) -> bytes:
        """Whatever comes until the other end closes."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for a while, and the connection lives."""
        if self._came:
            return False
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()


def said(answer: bytes) -> str:
    """MSA-1 and MSA-2."""
    (line,) = [line for line in answer.split(b"\r") if line.startswith(b"MSA")]
    fields = line.split(b"|")
    return b" ".join(fields[1:3]).decode()


def cause(answer: bytes) -> str:
    """ERR-3.1."""
    (line,) = [line for line in answer.split(b"\r") if line.startswith(b"ERR")]
    return line.split(b"|")[3].split(b"^")[0].decode()


@dataclass(slots=True)
class Feed:
    """A listener that runs, and what it keeps."""

    mllp: Mllp
    kept: Kept
    port: int
    task: asyncio.Task[None]
    _senders: list[Sender] = field(default_factory=list)

    async def sender(self, **options: Any) -> Sender:
        made = Sender(*await asyncio.open_connection("127.0.0.1", self.port, **options))
        self._senders.append(made)
        return made

    async def counted(self, what: str, least: int = 1) -> None:
        """Wait until the listener has counted it."""
        await until(lambda: self.mllp.counts.of[what] >= least)

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 (counts are numbers, not events)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def feeding(kept: Kept | None = None, applied: Applied | None = None, **options: Any) -> AsyncIterator[Feed]:
    """A listener of the source `lab` on a free port of loopback; `options`: of `Listening`."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    held = Kept() if kept is None else kept
    mllp = Mllp(Listening("127.0.0.1", 0, **options), "lab", "hosp", applied=applied, ready=port.set_result)
    task = asyncio.create_task(mllp.run(held))
    either: list[asyncio.Future[Any]] = [task, port]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    feed = Feed(mllp, held, await port, task)
    try:
        yield feed
    finally:
        for sender in feed._senders:
            await sender.close()
        await feed.stop()
