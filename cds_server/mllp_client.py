"""`cds hl7`: a file of messages sent one after the other (`adapters.sinks.hl7v2_mllp`), and a feed caught in a file."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from adapters.hl7v2.frames import START, TRAILER
from adapters.sinks.hl7v2_mllp import NOT_DUE, POSITIVE, Answer, Peer, connected
from adapters.source import Arrival, Receipt
from models.errors import BadInput, DiskFull, Misconfigured
from models.nouns import JSON, LandingMeta


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
        self,
        dedup_key: bytes | None = None,
        *,
        learnt: JSON | None = None,
        other: bytes | None = None,
        beside: JSON | None = None,
    ) -> Receipt:
        """Every message is kept, one that was sent again too: what was captured is what was sent."""
        await self._capture.keep(b"".join(self._parts))
        return Receipt(Arrival.STORED, "", 1)

    async def abandon(self) -> None:
        self._parts.clear()
