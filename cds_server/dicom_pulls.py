"""A pull from an archive: the jobs of one source, from the wish for studies until they are stored.

One process pulls a source at a time (a lease); what another one left unfinished is taken up first. Who stores what a
C-MOVE sends is another process: what is stored is looked up by the key of its landing, whoever received it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Collection, Iterator
from typing import Any

from adapters.dicom.finding import Found, find
from adapters.dicom.peers import Retrieve
from adapters.dicom.receiving import Storing, key_of
from adapters.dicom.states import PULL, State
from adapters.sources.dicom_move import Ask, DicomPull, Tell
from cds_server.dicom_sources import KIND, DicomSource
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
            asked.query(self._source.peer.root)
        with self._leased():
            return asyncio.run(self._run(asked))

    def would_ask(self, asked: Ask) -> Found:
        """The studies that a run would be about: no job is made. Errors: as `find`."""
        found = find(self._source.peer, asked.query(self._source.peer.root))
        found.matches[:] = [each for each in found.matches if asked.means(each)]
        return found

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

    async def _run(self, asked: Ask | None) -> list[Job]:
        heart = asyncio.create_task(self._keep_lease())
        try:
            planned = self.jobs.unfinished(self._source.name)
            if asked is not None and all(job.asked != asked.plain() for job in planned):
                order = Order(MODE, f"{KIND}:{self._source.name}", asked.plain())
                planned += self.jobs.queue(self._source.name, [order], self._actor)
            return [await self._one(job) for job in planned]
        finally:
            heart.cancel()

    async def _one(self, job: Job) -> Job:
        source, memory = self._source, self._memory(job)
        pull = DicomPull(
            source.peer,
            memory,
            Ask.of(job.asked),
            StoredObjects(self._store, source.namespace, source.stored_as),
            self._clock,
            storing=self._storing() if source.peer.retrieve is Retrieve.GET else None,
            limits=source.limits,
            tell=self._tell,
        )
        await pull.run(StoreIntake(self._store, f"pull:{source.name}"))
        return memory.row

    def _storing(self) -> Storing:
        place = self._settings.data_dir
        return Storing(
            self._source.stored_as,
            self._source.namespace,
            free=lambda: shutil.disk_usage(place).free,
            min_free=1 << 30,
        )

    def _memory(self, job: Job) -> Remembered:
        return Remembered(self.jobs, self._store, job, self._source.namespace, self._actor, told="dicom pull")

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


def plain(job: Job) -> dict[str, Any]:
    """What became of a job, without a UID: counts only."""
    results = job.remembers.get("results") or []
    counted = {key: sum(each[key] for each in results) for key in ("expected", "stored", "held_first", "late_series")}
    return {
        "job": job.ref,
        "state": job.state,
        "cause": job.cause,
        "queued_at": job.queued_at,
        "at": job.at,
        "studies": len(job.remembers.get("studies") or []),
        "partial": sum(not each["complete"] for each in results),
        **counted,
        "said": job.remembers.get("said", []),
    }
