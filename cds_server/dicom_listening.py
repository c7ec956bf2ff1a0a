"""DICOM storage sources: what a `[[source]]` of kind `dicom-storage` says, and the process that each of them is.

One process a source: objects are sealed and hashed where they arrive, and one interpreter is one processor. Beside them
the feeds of `cds_server.listening`, in the process that watches over all.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess

import uvloop

from adapters.dicom.receiving import KEEP, REFUSE
from adapters.sources.dicom_storage import NAME, DicomStorage, Peer, StorageListening
from cds_server import listening, logs
from cds_server.configured import Table, loopback
from cds_server.feeds import _address as address_of
from cds_server.feeds import _tls as tls_of
from cds_server.intake import StoreIntake
from cds_server.lifetime import end_with_parent
from cds_server.logs import log
from cds_server.settings import Settings, SourceSetting
from cds_server.store.store import Store
from models.errors import CdsError, Misconfigured

AGAIN = 5.0
"""Seconds after which a storage process that ended is started again."""
STOP_WITHIN = 15
"""Seconds that a storage process is given to finish the objects in progress."""
FREE_MB = 1024
_KEYS = frozenset(
    {"listen", "ae_title", "ignore_case", "peers", "max_associations", "on_conflict", "min_free_mb"}
    | {"tls_cert_file", "tls_key_file", "tls_client_ca_file", "tls_subjects"}
    | {"request_seconds", "idle_seconds", "stall_seconds"}
)


@dataclass(frozen=True, slots=True)
class StorageSource:
    name: str
    namespace: str
    listening: StorageListening


def storage_sources(settings: Settings) -> dict[str, StorageSource]:
    """Those of the configuration, by name. Raises Misconfigured."""
    return {each.name: _read(each, settings) for each in settings.sources if each.kind == NAME}


def listens(settings: Settings) -> bool:
    """Whether any source waits for others to come. Raises Misconfigured for what is wrong with one."""
    return bool(storage_sources(settings)) | bool(listening.listeners(settings))


def listen(
    settings: Settings,
    names: Sequence[str] = (),
    ready: listening.Ready | None = None,
    *,
    again: float | None = None,
) -> None:
    """All sources that listen, or those that are named, until SIGTERM or SIGINT. Raises Misconfigured.

    A single storage source runs in this process; of several, each is a process of its own, started again if it dies.
    """
    storage, feeds = _chosen(settings, names)
    if len(storage) == 1 and not feeds:
        run_storage(settings, storage[0], ready)
        return
    if not storage:
        listening.listen(settings, names, ready, again=again)
        return
    processes = [_Apart(settings, each.name) for each in storage]
    try:
        if feeds:
            listening.listen(settings, feeds, ready, again=again)
        else:
            _wait_for_the_end()
    finally:
        for each in processes:
            each.stopping.set()
            each.process.terminate()
        for each in processes:
            each.stop()


def beside(settings: Settings) -> None:
    """What `cds serve` runs in a process of its own."""
    end_with_parent(signal.SIGTERM)
    logs.configure(settings.log_level)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        storage, feeds = _chosen(settings, ())
        if len(storage) == 1 and not feeds:
            _run_again(settings, storage[0])
        else:
            listen(settings, again=AGAIN)
    except CdsError as error:
        log().error("feeds stopped", what=error.what, where=error.where)
        raise SystemExit(error.exit_code) from None


def _chosen(settings: Settings, names: Sequence[str]) -> tuple[list[StorageSource], list[str]]:
    storage = storage_sources(settings)
    feeds = [each.name for each in listening.listeners(settings)]
    for name in names:
        if name not in storage and name not in feeds:
            known = ", ".join([*feeds, *storage]) or "none"
            raise Misconfigured(f"there is no [[source]] that listens by that name in {settings.origin}: {known}")
    chosen = list(dict.fromkeys(names)) or [*feeds, *storage]
    return [storage[name] for name in chosen if name in storage], [name for name in chosen if name in feeds]


# ---- one of them -----------------------------------------------------------------------------------------------------


def run_storage(settings: Settings, source: StorageSource, ready: listening.Ready | None = None) -> None:
    """In this process, until SIGTERM or SIGINT. Raises Misconfigured where it cannot listen."""
    sys.setswitchinterval(listening.HANDOVER)
    store = Store.open(settings.data_dir, settings.database_url)

    def told(port: int) -> None:
        log().info("listening", source=source.name, port=port, pid=os.getpid())
        if ready is not None:
            ready(source.name, port)

    storage = DicomStorage(
        source.listening,
        source.name,
        source.namespace,
        free=lambda: shutil.disk_usage(settings.data_dir).free,
        ready=told,
    )
    try:
        uvloop.run(_until_stopped(storage, StoreIntake(store, f"feed:{source.name}")))
    finally:
        log().info("listened", source=source.name, count=store.writer.acts, what=_told(storage.counts))
        store.close()


async def _until_stopped(storage: DicomStorage, intake: StoreIntake) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    running, waiting = loop.create_task(storage.run(intake)), loop.create_task(stopping.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    for task in (running, waiting):
        task.cancel()
    for result in await asyncio.gather(running, waiting, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)


# ---- processes -------------------------------------------------------------------------------------------------------


def _storage_process(settings: Settings, name: str) -> None:
    end_with_parent(signal.SIGTERM)
    logs.configure(settings.log_level)
    _run_again(settings, storage_sources(settings)[name])


def _run_again(settings: Settings, source: StorageSource) -> None:
    """An address that is taken, or a certificate that cannot be used, may be mended while the others go on."""
    while True:
        try:
            run_storage(settings, source)
        except Misconfigured as error:
            log().error("a source does not listen", source=source.name, what=error.what)
            signal.sigtimedwait((), AGAIN)
        else:
            return


class _Apart:
    """The process of one source, and the thread that starts it again when it died."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self.stopping = threading.Event()
        self.process = self._started()
        self._thread = threading.Thread(target=self._watch, name=f"cds-{name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """After `stopping` was set and the process was told."""
        self._thread.join()
        self.process.terminate()
        self.process.join(timeout=STOP_WITHIN)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _started(self) -> SpawnProcess:
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_storage_process, args=(self._settings, self._name))
        process.start()
        return process

    def _watch(self) -> None:
        while not self.stopping.wait(0.5):
            if not self.process.is_alive():
                log().error("a storage process died", source=self._name, status=self.process.exitcode)
                if not self.stopping.wait(1.0):
                    self.process = self._started()


def _wait_for_the_end() -> None:
    ended = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: ended.set())
    while not ended.wait(1.0):  # a signal is served between two waits
        pass


# ---- the configuration -----------------------------------------------------------------------------------------------


def _read(source: SourceSetting, settings: Settings) -> StorageSource:
    table = Table(source.options, f"[[source]] {source.name!r}", settings.origin)
    table.known_only(_KEYS)
    host, port = address_of(table)
    tls, peers = tls_of(table), _peers(table)
    if tls is None and not loopback(host):
        if not peers or not all(peer.networks for peer in peers):
            raise table.wrong(
                "listen", "is without TLS beyond this machine: name every peer and its address, or a certificate"
            )
        if host in ("0.0.0.0", "::"):  # noqa: S104 (refused here)
            raise table.wrong("listen", "is without TLS on every interface: name one, or a certificate")
    on_conflict = table.text("on_conflict") or KEEP
    if on_conflict not in (KEEP, REFUSE):
        raise table.wrong("on_conflict", f"is neither {KEEP!r} nor {REFUSE!r}")
    return StorageSource(
        source.name,
        source.namespace,
        StorageListening(
            host=host,
            port=port,
            ae_title=_ae_title(table),
            peers=peers,
            ignore_case=table.flag("ignore_case"),
            tls=tls,
            max_associations=table.whole("max_associations", 32, 1, 4096),
            on_conflict=on_conflict,
            min_free=table.whole("min_free_mb", FREE_MB, 0, 1 << 30) << 20,
            request_seconds=table.seconds("request_seconds", 30, 1, 3600),
            idle_seconds=table.seconds("idle_seconds", 60, 1, 86_400),
            stall_seconds=table.seconds("stall_seconds", 30, 1, 3600),
        ),
    )


def _ae_title(table: Table) -> str:
    title = table.required("ae_title").strip()
    if not 0 < len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise table.wrong("ae_title", "is no AE title: at most 16 characters of ASCII, no backslash")
    return title


def _peers(table: Table) -> tuple[Peer, ...]:
    given = table.entries.get("peers", [])
    if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
        raise table.wrong("peers", 'is not a list of tables: [{ ae_title = "PACS", address = "10.1.2.3" }]')
    peers = []
    for each in given:
        peer = Table(each, f"peers of {table.named}", table.origin)
        peer.known_only(frozenset({"ae_title", "address"}))
        named = each.get("address", [])
        named = [named] if isinstance(named, str) else named
        networks = []
        with contextlib.suppress(ValueError, TypeError):
            networks = [ipaddress.ip_network(address) for address in named]
        if len(networks) != len(named):
            raise peer.wrong("address", "is no address or network, or list of them (10.1.0.0/16)")
        peers.append(Peer(_ae_title(peer), tuple(networks)))
    return tuple(peers)
