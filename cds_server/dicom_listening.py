"""DICOM storage sources: what a `[[source]]` of kind `dicom-storage` says, and the process that each of them is.

One process a source: objects are sealed and hashed where they arrive, and one interpreter is one processor. Beside them
the feeds of `cds_server.listening`, in the process that watches over all.
"""

from __future__ import annotations

import contextlib
import ipaddress
import multiprocessing
import signal
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.context import SpawnProcess

from adapters.dicom.receiving import KEEP, REFUSE
from adapters.sources.dicom_storage import NAME, Peer, StorageListening
from cds_server import listening, logs
from cds_server.configured import Table, loopback
from cds_server.dicom_archives import KEYS as ARCHIVE
from cds_server.feeds import address_of, tls_of
from cds_server.lifetime import end_with_parent
from cds_server.logs import log
from cds_server.settings import Settings, SourceSetting
from cds_server.storage_process import StorageSource, storing
from models.errors import CdsError, Misconfigured

STOP_WITHIN = 15
"""Seconds that a storage process is given to finish the objects in progress."""
FREE_MB = 1024
_KEYS = frozenset(
    {"listen", "ae_title", "ignore_case", "peers", "max_associations", "on_conflict", "min_free_mb"}
    | {"tls_cert_file", "tls_key_file", "tls_client_ca_file", "tls_subjects"}
    | {"request_seconds", "idle_seconds", "stall_seconds"}
)


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

    Each storage source is a process of its own, started again if it dies.
    """
    storage, feeds = _chosen(settings, names)
    if not storage:
        listening.listen(settings, names, ready, again=again)
        return
    processes = [_Apart(settings, each, loud=ready is not None) for each in storage]
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
    try:
        listen(settings, again=listening.AGAIN)
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


# ---- processes -------------------------------------------------------------------------------------------------------


class _Apart:
    """The process of one source, and the thread that starts it again when it died."""

    def __init__(self, settings: Settings, source: StorageSource, *, loud: bool) -> None:
        self._settings, self._source, self._loud = settings, source, loud
        self.stopping = threading.Event()
        self.process = self._started()
        self._thread = threading.Thread(target=self._watch, name=f"cds-{source.name}", daemon=True)
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
        at = self._settings
        process = multiprocessing.get_context("spawn").Process(
            target=storing,
            args=(at.data_dir, at.database_url, at.log_level, self._source),
            kwargs={"loud": self._loud, "master": at.master},
        )
        process.start()
        return process

    def _watch(self) -> None:
        while not self.stopping.wait(0.5):
            if not self.process.is_alive():
                log().error("a storage process died", source=self._source.name, status=self.process.exitcode)
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
    table.known_only(_KEYS | ARCHIVE)
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
