"""What a job needs of this process while an adapter works on it: its memory in the store, and the time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cds_server.jobs import Job, Jobs
from cds_server.logs import log
from cds_server.pull_results import landing_of
from cds_server.store.store import Store


class SystemClock:
    """`adapters.peer.Clock`."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Remembered:
    """`adapters.states.Memory` of one job."""

    def __init__(self, jobs: Jobs, store: Store, job: Job, namespace: str, actor: str) -> None:
        self._jobs, self._store, self._namespace, self._actor = jobs, store, namespace, actor
        self.row = job

    @property
    def job(self) -> str:
        return self.row.ref

    @property
    def state(self) -> str:
        return self.row.state

    @property
    def remembers(self) -> Mapping[str, Any]:
        return self.row.remembers

    async def move(self, to: str, *, cause: str | None = None, **remember: Any) -> None:
        await self.step(to, cause=cause, remember=remember)

    async def step(
        self, to: str, *, cause: str | None = None, cursor: str | None = None, remember: Mapping[str, Any] | None = None
    ) -> None:
        self.row = await asyncio.to_thread(
            self._jobs.move, self.row, to, self._actor, cause=cause, cursor=cursor, remember=remember
        )
        log().info("pull", source=self.row.source, job=self.row.ref, outcome=str(to), what=cause)

    async def landed(self, key: bytes) -> bytes | None:
        return await asyncio.to_thread(self._landed, key)

    def _landed(self, key: bytes) -> bytes | None:
        landing = landing_of(self._store, self._namespace, key)
        if landing is None:
            return None
        return self._store.part(landing, 0) if landing.parts else b""
