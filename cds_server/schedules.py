"""Sources that are pulled by the clock (`every`): each run is a process of its own, so that none can hurt a call.

Several servers may share a store: the lease of a source lets one of them pull, and what is due is read from the jobs.
"""

from __future__ import annotations

import functools
import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.context import SpawnProcess

from adapters.bulk.states import EXPORT
from cds_server import dicom_schedule, logs
from cds_server.bulk_sources import KIND, BulkSource, bulk_sources
from cds_server.dicom_sources import dicom_sources
from cds_server.jobs import Jobs, is_due
from cds_server.lifetime import end_with_parent
from cds_server.logs import log
from cds_server.settings import Settings
from cds_server.store.store import Store
from models.errors import CdsError, Conflict

ACTOR = "system"
LOOK = 5.0
"""Seconds between two looks at what is due."""
AGAIN = 600.0
"""Seconds until a run that failed is taken up again, or `every`, whichever is less."""


REST = 30.0
"""Seconds that a source has for itself after a run: where somebody pulls it by hand, it stays due, and each look would
start a process that finds it taken."""


@dataclass(slots=True)
class _Clocked:
    name: str
    every: timedelta
    due: Callable[[Store], bool]
    process: SpawnProcess | None = None
    not_before: float = 0.0


class Schedules:
    """Starts the runs that are due; one process a source."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clocked = [
            _Clocked(name, source.every, functools.partial(_bulk_due, source=source))
            for name, source in bulk_sources(settings).items()
            if source.every is not None
        ] + [
            _Clocked(name, source.every, functools.partial(dicom_schedule.is_due, source=source))
            for name, source in dicom_sources(settings).items()
            if source.every is not None
        ]
        self._looked = float("-inf")

    def look(self, store: Store) -> None:
        """Start what is due. Cheap, where it is called again within `LOOK` seconds."""
        now = time.monotonic()
        if not self._clocked or now - self._looked < LOOK:
            return
        self._looked = now
        for each in self._clocked:
            if each.process is not None and not each.process.is_alive():
                each.not_before = now + REST
                if each.process.exitcode:
                    each.not_before = now + min(each.every.total_seconds(), AGAIN)
                    log().error("scheduled pull failed", source=each.name, status=each.process.exitcode)
                each.process = None
            if each.process is None and now >= each.not_before and each.due(store):
                each.process = multiprocessing.get_context("spawn").Process(
                    target=pull, args=(self._settings, each.name)
                )
                each.process.start()

    def stop(self) -> None:
        """End what runs: it is taken up by whoever comes next."""
        for each in self._clocked:
            if each.process is not None and each.process.is_alive():
                each.process.terminate()
                each.process.join(timeout=10)


def _bulk_due(store: Store, source: BulkSource) -> bool:
    return source.every is not None and is_due(Jobs(store, KIND, EXPORT), EXPORT, source.name, source.every)


def pull(settings: Settings, name: str) -> None:
    """One scheduled run, in a process of its own: exits with 0, or with the code of the error."""
    end_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(settings.log_level)
    store = Store.open(settings.data_dir, settings.database_url, settings.master)
    try:
        log().info("scheduled pull", source=name, outcome=_pulled(settings, store, name))
    except Conflict:
        log().info("scheduled pull", source=name, outcome="another process pulls it")
    except CdsError as error:
        log().error("scheduled pull failed", source=name, what=error.what)
        raise SystemExit(error.exit_code) from None
    finally:
        store.close()


def _pulled(settings: Settings, store: Store, name: str) -> str:
    """What became of it. Loads what the one kind takes."""
    bulk = bulk_sources(settings).get(name)
    if bulk is not None:
        from cds_server.pulls import Pulls

        pulled = Pulls(settings, store, bulk, ACTOR).run(due_after=bulk.every)
        return str(pulled.state) if pulled else "not due"
    from cds_server.dicom_pulls import DicomPulls

    jobs = DicomPulls(settings, store, dicom_sources(settings)[name], ACTOR).run_due()
    return "not due" if jobs is None else ", ".join(str(job.state) for job in jobs)
