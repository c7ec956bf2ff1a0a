"""A pull from an archive: the jobs of one source, from the wish for studies until they are stored.

One process pulls a source at a time (a lease); what another one left unfinished is taken up first. Who stores what a
C-MOVE sends is another process: what is stored is looked up by the key of its landing, whoever received it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import Any

from adapters.dicom.finding import Found, find
from adapters.dicom.peers import Retrieve
from adapters.dicom.query import Match, Query
from adapters.dicom.receiving import Storing, key_of
from adapters.dicom.states import PULL, State
from adapters.sources.dicom_move import STUDIES, Ask, DicomPull, Tell
from adapters.sources.dicomweb import Dicomweb
from cds_server.dicom_schedule import NEW, begins, cursor_after, is_due, question, scope
from cds_server.dicom_sources import KIND, DicomSource
from cds_server.feed_counts import add
from cds_server.intake import StoreIntake
from cds_server.jobs import LEASE, Job, Jobs, Order, holder, lease, release
from cds_server.remembered import Remembered, SystemClock
from cds_server.settings import Settings
from cds_server.store.reads import marks
from cds_server.store.store import Store
from models.errors import CdsError, Conflict

MODE = "studies"
_AT_ONCE = 500
"""Keys of one look-up: databases limit the parameters of a statement."""


class StoredObjects:
    """`adapters.sources.dicom_move.Received`: an object is stored if a landing stands under its key."""

    def __init__(self, store: Store, namespace: str, source: str) -> None:
        self._store, self._namespace, self._source = store, namespace, source

    async def holds(self, study: str, uids: Collection[str]) -> set[str]:
        return await asyncio.to_thread(self._holds, list(uids)) if uids else set()

    def _holds(self, uids: list[str]) -> set[str]:
        vault, held = self._store.vault, set[str]()
        for at in range(0, len(uids), _AT_ONCE):
            asked = uids[at : at + _AT_ONCE]
            keys = {vault.index("landing", self._namespace, key_of(self._source, uid.encode())): uid for uid in asked}
            rows = self._store.reads.query(f"SELECT dedup FROM landing WHERE dedup IN ({marks(keys)})", tuple(keys))
            held.update(keys[bytes(dedup)] for (dedup,) in rows)
        return held


class DicomPulls:
    """One source of one instance."""

    def __init__(
        self, settings: Settings, store: Store, source: DicomSource, actor: str, tell: Tell | None = None
    ) -> None:
        self._settings, self._store, self._source, self._actor = settings, store, source, actor
        self._tell: Tell = tell or (lambda *_: None)
        self._clock = SystemClock()
        self._holder = holder()
        self.jobs = Jobs(store, KIND, PULL)

    def run(self, asked: Ask | None) -> list[Job]:
        """Take up what was left, then pull what is asked; the jobs, each at its end.

        Errors: Conflict (another process pulls this source), PeerFailed (the archive does not answer: the job is taken
        up by the next run), Malformed, Misconfigured (the question; no job is made), RecordUnavailable and its kinds.
        """
        if asked is not None:
            asked.queries(self._source.peer.root)
        with self._leased():
            return asyncio.run(self._run(asked, MODE))

    def run_due(self) -> list[Job] | None:
        """What the clock runs: take up what was left, and ask for new studies where that is due; None: nothing is.
        Errors: as `run`."""
        with self._leased():
            moment = datetime.now(UTC)
            if not is_due(self._store, self._source, moment):
                return None
            asks = begins(self.jobs, self._source, moment)
            asked = Ask.of(question(self.jobs, self._source, moment)) if asks else None
            return asyncio.run(self._run(asked, NEW))

    def would_ask(self, asked: Ask) -> list[Match]:
        """The studies that a run would be about: no job is made. Errors: as `find`; PeerFailed where it does not say
        all of them."""
        found: dict[str, Match] = {}
        for query in asked.queries(self._source.peer.root):
            matches = self._found(query).whole(self._source.name)
            found |= {each.text("StudyInstanceUID"): each for each in matches if asked.means(each)}
        return list(found.values())

    def _found(self, query: Query) -> Found:
        async def over_http() -> Found:
            async with self._over(self._storing()) as web:
                assert web is not None  # noqa: S101 (that is asked below)
                return await web.studies(query, STUDIES)

        return asyncio.run(over_http()) if self._source.web is not None else find(self._source.peer, query)

    def cancel(self) -> list[Job]:
        """End what is unfinished. Errors: Conflict."""
        with self._leased():
            return asyncio.run(self._cancel())

    @contextlib.contextmanager
    def _leased(self) -> Iterator[None]:
        name = f"pull:{self._source.name}"
        if not lease(self._store, name, self._holder):
            raise Conflict("another process pulls this source", where=self._source.name)
        try:
            yield
        finally:
            with contextlib.suppress(CdsError):
                release(self._store, name, self._holder)

    async def _run(self, asked: Ask | None, mode: str) -> list[Job]:
        heart = asyncio.create_task(self._keep_lease())
        try:
            planned = self.jobs.unfinished(self._source.name)
            if asked is not None and all(job.asked != asked.plain() for job in planned):
                kept = scope(self._source) if mode == NEW else f"{KIND}:{self._source.name}"
                order = Order(mode, kept, asked.plain())
                planned += self.jobs.queue(self._source.name, [order], self._actor)
            return [await self._one(job) for job in planned]
        finally:
            heart.cancel()

    async def _one(self, job: Job) -> Job:
        source, memory = self._source, self._memory(job)
        storing = self._storing() if source.peer.retrieve is Retrieve.GET else None
        async with self._over(storing) as over:
            pull = DicomPull(
                source.peer,
                memory,
                Ask.of(job.asked),
                StoredObjects(self._store, source.namespace, source.stored_as),
                self._clock,
                storing=storing,
                limits=source.limits,
                tell=self._tell,
                over=over,
            )
            try:
                await pull.run(StoreIntake(self._store, f"pull:{source.name}"))
            finally:
                await self._count(storing)
        return memory.row

    @contextlib.asynccontextmanager
    async def _over(self, storing: Storing | None) -> AsyncIterator[Dicomweb | None]:
        """How it is spoken to, where that is HTTP."""
        web, longest = self._source.web, self._source.peer.timeouts.longest
        if web is None or storing is None:
            yield None
            return
        door = web.door()
        try:
            yield Dicomweb(self._source.name, web.url, door, web.headers, storing, self._clock, longest)
        finally:
            await door.aclose()

    async def _count(self, storing: Storing | None) -> None:
        """What came by C-GET is counted as what a storage takes."""
        if storing is not None and storing.counts:
            with contextlib.suppress(CdsError):
                counted = functools.partial(add, source=storing.source, more=storing.counts)
                await self._store.writer.write(counted)

    def _storing(self) -> Storing:
        place = self._settings.data_dir
        return Storing(
            self._source.stored_as,
            self._source.namespace,
            free=lambda: shutil.disk_usage(place).free,
            min_free=1 << 30,
        )

    def _memory(self, job: Job) -> Remembered:
        kind = _OfTheClock if job.mode == NEW else Remembered
        memory = kind(self.jobs, self._store, job, self._source.namespace, self._actor)
        if isinstance(memory, _OfTheClock):
            memory.cursor = functools.partial(cursor_after, self.jobs, self._source, job)
        return memory

    async def _cancel(self) -> list[Job]:
        ended = []
        for job in self.jobs.unfinished(self._source.name):
            memory = self._memory(job)
            await memory.move(State.CANCELLED, cause="by an operator")
            ended.append(memory.row)
        return ended

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 4)
            with contextlib.suppress(CdsError):  # a database that is away for a moment is no reason to stop beating
                await asyncio.to_thread(lease, self._store, f"pull:{self._source.name}", self._holder)


class _OfTheClock(Remembered):
    """Its last step sets the cursor, in the same act."""

    cursor: Callable[[str], str | None] = staticmethod(lambda _: None)

    async def move(self, to: str, *, cause: str | None = None, **remember: Any) -> None:
        cursor = await asyncio.to_thread(self.cursor, to) if to in PULL.ends else None
        await self.step(to, cause=cause, cursor=cursor, remember=remember)


def plain(job: Job) -> dict[str, Any]:
    """What became of a job, without a UID: counts only."""
    results = job.remembers.get("results") or []
    counted = {key: sum(each[key] for each in results) for key in ("expected", "stored", "held_first", "late_series")}
    return {
        "job": job.ref,
        "mode": job.mode,
        "state": job.state,
        "cause": job.cause,
        "queued_at": job.queued_at,
        "at": job.at,
        "cursor": job.cursor,
        "studies": len(job.remembers.get("studies") or []),
        "partial": sum(not each["complete"] for each in results),
        **counted,
        "said": job.remembers.get("said", []),
    }
