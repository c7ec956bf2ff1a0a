"""Sends what is due, in a process beside the server: each destination for itself, one result in flight.

A lease says which process sends to a destination. An answer of yes ends a result; one that refuses its content parks it
for a person. Everything else (no answer, no connection, not now) is tried again, the same bytes first, after a pause
that doubles up to `retry_to_seconds`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Sequence

from adapters.sink import Sink, Taken
from cds_server import logs
from cds_server.destinations import Destination, destinations
from cds_server.jobs import LEASE, Job, holder, lease, release
from cds_server.lifetime import end_with_parent
from cds_server.logs import log
from cds_server.outbox import Line, acknowledged, begin, message_of, parked, troubled
from cds_server.settings import Settings
from cds_server.store.store import Store
from models.errors import BadInput, CdsError, Conflict, Misconfigured, NotAllowed, PeerFailed

ACTOR = "system"
LOOK = 0.5
"""Seconds between two looks at an empty queue."""
LINGER = 10.0
"""Seconds that a line stays open without a result: many receivers close one that is silent for longer."""


def prepare(settings: Settings, store: Store) -> None:
    """Before the first call: what is recorded from here on is due."""
    begin(store, [each.name for each in settings.destinations])


def beside(settings: Settings) -> None:
    """What `cds serve` runs in a process of its own, until SIGTERM: an answer that is due is still waited for."""
    end_with_parent(signal.SIGTERM)
    logs.configure(settings.log_level)
    store = Store.open(settings.data_dir, settings.database_url, settings.master)
    try:
        asyncio.run(send(store, list(destinations(settings).values())))
    except CdsError as error:
        log().error("sending stopped", what=error.what, where=error.where)
        raise SystemExit(error.exit_code) from None
    finally:
        store.close()


async def send(store: Store, to: Sequence[Destination]) -> None:
    """Until SIGTERM or SIGINT."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    log().info("sending", count=len(to), pid=os.getpid())
    await asyncio.gather(*(Sender(store, each, stopping).run() for each in to))


class Sender:
    """The results of one destination."""

    def __init__(self, store: Store, destination: Destination, stopping: asyncio.Event) -> None:
        self._store, self._destination, self._stopping = store, destination, stopping
        self._sink: Sink = destination.sink()
        self._holder = holder()
        self._lease = f"send:{destination.name}"
        self._failures = 0

    async def run(self) -> None:
        """Until `stopping` is set. A store that cannot be read or written for a while is waited for."""
        heart = asyncio.create_task(self._keep_lease())
        line: Line | None = None
        spoke = time.monotonic()
        try:
            while not self._stopping.is_set():
                try:
                    if not await asyncio.to_thread(lease, self._store, self._lease, self._holder):
                        await self._sink.close()
                        line = None  # whoever sends now knows better what is done
                        await self._pause(LEASE / 4)
                        continue
                    if line is None:
                        line = await asyncio.to_thread(Line, self._store, self._destination.name)
                    job = await asyncio.to_thread(line.next)
                    if job is None:
                        if time.monotonic() - spoke > LINGER:
                            await self._sink.close()
                        await self._pause(LOOK)
                    else:
                        await self._one(line, job)
                        spoke = time.monotonic()
                except Conflict:
                    line = None
                except CdsError as error:
                    log().error("results cannot be sent", source=self._destination.name, what=error.what)
                    line = None
                    await self._pause(self._destination.retry_from)
        finally:
            heart.cancel()
            await self._sink.close()
            with contextlib.suppress(CdsError):
                await asyncio.to_thread(release, self._store, self._lease, self._holder)

    async def _one(self, line: Line, job: Job) -> None:
        try:
            told = await self._sink.deliver(message_of(job))
        except (PeerFailed, Misconfigured, NotAllowed, BadInput) as error:
            await self._later(job, error.what)
            return
        if told.taken is Taken.YES:
            await asyncio.to_thread(acknowledged, self._store, line, job, ACTOR)
            self._failures = 0
        elif told.taken is Taken.NO:
            await asyncio.to_thread(parked, self._store, job, told.code, ACTOR)
            log().warning("a result was refused", source=self._destination.name, job=job.ref, outcome=told.code)
            self._failures = 0
        else:
            await self._later(job, f"answered {told.code}: not now")

    async def _later(self, job: Job, cause: str) -> None:
        await asyncio.to_thread(troubled, self._store, job, cause, ACTOR)
        pause = min(self._destination.retry_to, self._destination.retry_from * 2.0 ** min(self._failures, 20))
        self._failures += 1
        log().warning(
            "a result was not taken, and is sent again",
            source=self._destination.name,
            job=job.ref,
            what=cause,
            count=self._failures,
        )
        await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 4)
            with contextlib.suppress(CdsError):  # a database that is away for a moment is no reason to stop beating
                await asyncio.to_thread(lease, self._store, self._lease, self._holder)
