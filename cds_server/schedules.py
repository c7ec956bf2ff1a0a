"""Sources that are pulled by the clock (`every`): each run is a process of its own, so that none can hurt a call.

Several servers may share a store: the lease of a source lets one of them pull, and what is due is read from the jobs.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess

from adapters.bulk.states import EXPORT
from cds_server import logs
from cds_server.bulk_sources import KIND, BulkSource, bulk_sources
from cds_server.jobs import Jobs, is_due
from cds_server.lifetime import end_with_parent
from cds_server.logs import log
from cds_server.pulls import Pulls
from cds_server.settings import Settings
from cds_server.store.store import Store
from models.errors import CdsError, Conflict

ACTOR = "system"
LOOK = 5.0
"""Seconds between two looks at what is due."""
AGAIN = 600.0
"""Seconds until a run that failed is taken up again, or `every`, whichever is less."""


@dataclass(slots=True)
class _Clocked:
    source: BulkSource
    process: SpawnProcess | None = None
    not_before: float = 0.0


class Schedules:
    """Starts the runs that are due; one process a source."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clocked = [_Clocked(source) for source in bulk_sources(settings).values() if source.every is not None]
        self._looked = float("-inf")

    def look(self, store: Store) -> None:
        """Start what is due. Cheap, where it is called again within `LOOK` seconds."""
        now = time.monotonic()
        if not self._clocked or now - self._looked < LOOK:
            return
        self._looked = now
        for each in self._clocked:
            if each.process is not None and not each.process.is_alive():
                if each.process.exitcode:
                    every = each.source.every.total_seconds() if each.source.every else AGAIN
                    each.not_before = now + min(every, AGAIN)
                    log().error("scheduled pull failed", source=each.source.name, status=each.process.exitcode)
                each.process = None
            if each.process is None and now >= each.not_before and self._due(store, each.source):
                each.process = multiprocessing.get_context("spawn").Process(
                    target=pull, args=(self._settings, each.source.name)
                )
                each.process.start()

    @staticmethod
    def _due(store: Store, source: BulkSource) -> bool:
        return source.every is not None and is_due(Jobs(store, KIND, EXPORT), EXPORT, source.name, source.every)

    def stop(self) -> None:
        """End what runs: it is taken up by whoever comes next."""
        for each in self._clocked:
            if each.process is not None and each.process.is_alive():
                each.process.terminate()
                each.process.join(timeout=10)


def pull(settings: Settings, name: str) -> None:
    """One scheduled run, in a process of its own: exits with 0, or with the code of the error."""
    end_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(settings.log_level)
    source = bulk_sources(settings)[name]
    store = Store.open(settings.data_dir, settings.database_url)
    try:
        pulled = Pulls(settings, store, source, ACTOR).run(due_after=source.every)
        state = pulled.state if pulled else "not due"
        log().info("scheduled pull", source=name, outcome=str(state))
    except Conflict:
        log().info("scheduled pull", source=name, outcome="another process pulls it")
    except CdsError as error:
        log().error("scheduled pull failed", source=name, what=error.what)
        raise SystemExit(error.exit_code) from None
    finally:
        store.close()
