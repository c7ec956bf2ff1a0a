"""The process of one DICOM storage source. It loads what receiving takes and no more: there may be many of them."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uvloop

from adapters.sources.dicom_storage import DicomStorage, StorageListening
from cds_server import logs
from cds_server.feed_counts import keep
from cds_server.intake import StoreIntake
from cds_server.lifetime import end_with_parent
from cds_server.logs import log
from cds_server.store.key_store import Master
from cds_server.store.log_room import make_log_room
from cds_server.store.store import Store
from models.errors import CdsError, Misconfigured

HANDOVER = 0.0005
"""As in `serve`: the thread that synced the disk must not wait for the interpreter."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""
KEPT, APART = 16 << 20, 8 << 20
"""Bytes that stay ours when they are free; an allocation of more is apart from others, and given back."""
AGAIN = 5.0
"""Seconds after which a source tries again that could not listen."""
OPEN = "open associations"
TOLD = frozenset({"conflicts", "strangers", "too many connections", "mistakes", "answered A700", "answered 0110"})
"""What is counted and logged, too."""


@dataclass(frozen=True, slots=True)
class StorageSource:
    name: str
    namespace: str
    listening: StorageListening


def storing(
    data_dir: Path,
    database_url: str,
    log_level: str,
    source: StorageSource,
    *,
    loud: bool = False,
    master: Master | None = None,
) -> None:
    """Until SIGTERM or SIGINT, or until the parent ends. `loud`: says on stderr where it listens.

    An address that is taken, or a certificate that cannot be used, may be mended while others go on: it tries again.
    """
    end_with_parent(signal.SIGTERM)
    logs.configure(log_level)
    sys.setswitchinterval(HANDOVER)
    gc.freeze()  # what is here now stays: going through it again and again would stop an object
    gc.set_threshold(20_000, 20, 50)
    _keep_memory()
    try:
        while not _listened(data_dir, database_url, source, master, loud=loud):
            time.sleep(AGAIN)
    except CdsError as error:
        log().error("a source stopped", source=source.name, what=error.what, where=error.where)
        raise SystemExit(error.exit_code) from None


def _keep_memory() -> None:
    """Each object takes some buffers of its own length: to give them back and be given zeroed ones again is some
    hundred page faults an object."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc's
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, KEPT)
        mallopt(_MMAP_THRESHOLD, APART)


def _listened(data_dir: Path, database_url: str, source: StorageSource, master: Master | None, *, loud: bool) -> bool:
    """False where it could not listen."""
    store = Store.open(data_dir, database_url, master)
    make_log_room(store.database)

    def ready(port: int) -> None:
        log().info("listening", source=source.name, port=port, pid=os.getpid())
        if loud:
            sys.stderr.write(f"{source.name} listens on port {port}\n")

    storage = DicomStorage(
        source.listening,
        source.name,
        source.namespace,
        free=lambda: shutil.disk_usage(data_dir).free,
        ready=ready,
    )
    try:
        uvloop.run(_until_stopped(storage, store))
    except Misconfigured as error:
        log().error("a source does not listen", source=source.name, what=error.what, where=error.where)
        return False
    finally:
        log().info("listened", source=source.name, count=store.writer.acts, what=_told(storage.counts))
        store.close()
    return True


async def _until_stopped(storage: DicomStorage, store: Store) -> None:
    intake = StoreIntake(store, f"feed:{storage.source}", appended=True, alone=lambda: storage.open == 1)
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    present = {OPEN: lambda: storage.open}
    counting = loop.create_task(keep(store, storage.source, storage.counts, TOLD, present))
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    running, waiting = loop.create_task(storage.run(intake)), loop.create_task(stopping.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    for task in (running, waiting):
        task.cancel()
    results = await asyncio.gather(running, waiting, return_exceptions=True)
    counting.cancel()  # after the last object was answered
    await asyncio.gather(counting, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)
