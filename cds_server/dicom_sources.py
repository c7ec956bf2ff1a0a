"""A `[[source]]` of kind `dicom` or `dicomweb`: an archive that is asked for studies; where what it sends arrives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from adapters.dicom.peers import QUIRKS, DicomPeer, Moves, PeerTls, Quirks, Retrieve, Root, Timeouts, Window, overridden
from adapters.dicom.reconcile import Limits
from cds_server.configured import Table, loopback
from cds_server.dicom_archives import KEYS as ARCHIVE
from cds_server.dicom_listening import storage_sources
from cds_server.dicomweb_access import KEYS as ACCESS
from cds_server.dicomweb_access import WebAccess, access
from cds_server.settings import Settings, SourceSetting
from cds_server.storage_process import StorageSource
from cds_server.vendor_door import place
from models.errors import Misconfigured

KIND = "dicom"
"""`adapters.sources.dicom_move.NAME`, without loading what speaks DICOM: settings are read by everybody."""
WEB = "dicomweb"
_SECONDS = {
    "connect_seconds": ("connect", 10, 1, 600),
    "accept_seconds": ("accept", 30, 1, 600),
    "answer_seconds": ("answer", 60, 1, 3600),
    "stall_seconds": ("stall", 300, 1, 86_400),
    "settle_seconds": ("settle", 3, 0, 3600),
    "settle_async_seconds": ("settle_async", 60, 1, 86_400),
    "longest_seconds": ("longest", 21_600, 10, 604_800),
}
_KEYS = frozenset(
    {"host", "port", "ae_title", "our_ae_title", "root", "moves", "retrieve", "destination", "storage"}
    | {"without_tls", "tls_ca_file", "tls_cert_file", "tls_key_file", "tls_server_name"}
    | {"max_pdu", "concurrency", "windows", "profile", "quirks", "rounds", "longest_pause_seconds"}
    | set(_SECONDS)
)
_WEB_KEYS = ACCESS | {
    "concurrency",
    "windows",
    "profile",
    "quirks",
    "rounds",
    "longest_pause_seconds",
    "longest_seconds",
}
_CLOCK_KEYS = frozenset({"every", "modalities", "since", "look_back_days"})
_MODALITY = re.compile(r"[A-Z0-9_]{2,16}")


@dataclass(frozen=True, slots=True)
class DicomSource:
    name: str
    namespace: str
    """Of what it sends: that of the storage, where one is named."""
    peer: DicomPeer
    stored_as: str
    """The source that what it sends is stored under: one object is then known by whichever way it came."""
    limits: Limits
    every: timedelta | None = None
    """How often it is asked for new studies; None: only by `cds pull`."""
    modalities: tuple[str, ...] = ()
    """Of the studies that the clock asks for; none: all."""
    since: str = ""
    """YYYYMMDD: where the clock's first question begins; "": `look_back_days` ago."""
    look_back_days: int = 2
    web: WebAccess | None = None
    """Where it is asked over HTTP; then `peer` says no more than how much of it is asked, and when."""


def dicom_sources(settings: Settings) -> dict[str, DicomSource]:
    """Those of the configuration, by name. Raises Misconfigured."""
    storages = storage_sources(settings)
    return {
        each.name: _read_web(each, settings) if each.kind == WEB else read(each, settings, storages)
        for each in settings.sources
        if each.kind in (KIND, WEB)
    }


def read(source: SourceSetting, settings: Settings, storages: Mapping[str, StorageSource]) -> DicomSource:
    """One of them. Raises: Misconfigured, one sentence that names the key and the file."""
    table = Table(source.options, f"[[source]] {source.name!r}", settings.origin)
    table.known_only(_KEYS | _CLOCK_KEYS | ARCHIVE)
    retrieve = _one_of(table, "retrieve", Retrieve, Retrieve.MOVE)
    storage = _storage(table, storages)
    if storage is not None and storage.namespace != source.namespace:
        raise table.wrong("storage", "names a source of another namespace: what is asked for and what comes are one")
    if retrieve is Retrieve.MOVE and storage is None:
        raise Misconfigured(
            f"{table.named} in {table.origin} has no storage: name the [[source]] of kind 'dicom-storage' that its "
            "C-MOVE sends to, or set retrieve to 'get'"
        )
    destination = table.text("destination") or (storage.listening.ae_title if storage else "")
    try:
        peer = DicomPeer(
            name=source.name,
            host=table.required("host"),
            port=table.whole("port", 104, 1, 65_535),
            ae_title=table.required("ae_title"),
            our_ae_title=table.text("our_ae_title") or (storage.listening.ae_title if storage else "CDS"),
            root=_one_of(table, "root", Root, Root.STUDY),
            moves=_one_of(table, "moves", Moves, Moves.SYNC),
            retrieve=retrieve,
            destination=destination if retrieve is Retrieve.MOVE else "",
            tls=_tls(table),
            max_pdu=table.whole("max_pdu", 131_072, 0, 1 << 24),
            timeouts=replace(
                Timeouts(),
                **{field: float(table.seconds(key, *rest)) for key, (field, *rest) in _SECONDS.items()},
            ),
            concurrency=table.whole("concurrency", 1, 1, 8),
            windows=_windows(table),
            quirks=_quirks(table),
        )
    except Misconfigured as error:
        if error.where is None:
            raise
        raise table.wrong(error.where, error.what) from None
    if 0 < peer.max_pdu < 4096:
        raise table.wrong("max_pdu", "is below 4096 (0: as much as comes)")
    stored_as = storage.name if storage else source.name
    return DicomSource(source.name, source.namespace, peer, stored_as, _limits(table), **_clocked(table, peer.root))


def _read_web(source: SourceSetting, settings: Settings) -> DicomSource:
    """One that is asked over HTTP. Raises: Misconfigured."""
    table = Table(source.options, f"[[source]] {source.name!r}", settings.origin)
    table.known_only(_WEB_KEYS | _CLOCK_KEYS | ARCHIVE)
    web = access(table, settings)
    at = place(web.url)
    peer = DicomPeer(
        name=source.name,
        host=at.host,
        port=at.port,
        ae_title="DICOMWEB",
        our_ae_title="CDS",
        retrieve=Retrieve.GET,
        timeouts=replace(Timeouts(), longest=float(table.seconds("longest_seconds", 21_600, 10, 604_800))),
        concurrency=table.whole("concurrency", 1, 1, 8),
        windows=_windows(table),
        quirks=_quirks(table),
    )
    found = _clocked(table, peer.root)
    return DicomSource(source.name, source.namespace, peer, source.name, _limits(table), **found, web=web)


def _limits(table: Table) -> Limits:
    return Limits(
        rounds=table.whole("rounds", Limits().rounds, 1, 100),
        longest_pause=float(table.seconds("longest_pause_seconds", 300, 1, 86_400)),
    )


def _clocked(table: Table, root: Root) -> dict[str, Any]:
    """What is asked by the clock."""
    every, modalities, since = table.span("every"), table.texts("modalities"), table.text("since") or ""
    for key in ("modalities", "since", "look_back_days"):
        if every is None and key in table.entries:
            raise table.wrong(key, "is for what the clock asks: set every, too")
    if every is not None and root is not Root.STUDY:
        raise table.wrong("every", "needs root = 'study': the patient root knows no question about all patients")
    if not all(_MODALITY.fullmatch(each) for each in modalities):
        raise table.wrong("modalities", "has one that is no modality, as CT or MR (0008,0060)")
    try:
        begins = f"{date.fromisoformat(since):%Y%m%d}" if since else ""
    except ValueError:
        raise table.wrong("since", "is no day as 2026-01-31") from None
    back = table.whole("look_back_days", 2, 1, 365)
    return {"every": every, "modalities": modalities, "since": begins, "look_back_days": back}


def _one_of(table: Table, key: str, kind: Any, default: Any) -> Any:
    text = table.text(key)
    if text is None:
        return default
    if text not in list(kind):
        raise table.wrong(key, f"is none of {', '.join(kind)}")
    return kind(text)


def _storage(table: Table, storages: Mapping[str, StorageSource]) -> StorageSource | None:
    named = table.text("storage")
    if named is not None and named not in storages:
        raise table.wrong("storage", "names no [[source]] of kind 'dicom-storage'")
    return storages[named] if named is not None else None


def _tls(table: Table) -> PeerTls | None:
    files = {key: table.text(f"tls_{key}_file") for key in ("ca", "cert", "key")}
    name = table.text("tls_server_name")
    if table.flag("without_tls"):
        if name or any(files.values()):
            raise table.wrong("without_tls", "is set beside TLS files")
        return None
    if not any(files.values()) and name is None:
        if loopback(table.required("host")):
            return None
        raise table.wrong("host", "is beyond this machine: set tls_ca_file, or without_tls = true where it speaks none")
    for key, path in files.items():
        if path is not None and not Path(path).is_file():
            raise table.wrong(f"tls_{key}_file", "names no file")
    if (files["cert"] is None) is not (files["key"] is None):
        raise table.wrong("tls_cert_file", "and tls_key_file belong together")
    ca, cert, private = (Path(each) if each else None for each in files.values())
    return PeerTls(ca, cert, private, name)


def _windows(table: Table) -> tuple[Window, ...]:
    try:
        return tuple(Window.read(each) for each in table.texts("windows"))
    except Misconfigured as error:
        raise table.wrong("windows", f"has one that {error.what}") from None


def _quirks(table: Table) -> Quirks:
    named = table.text("profile") or "generic"
    if named not in QUIRKS:
        raise table.wrong("profile", f"is none of {', '.join(QUIRKS)}")
    given: Any = table.entries.get("quirks", {})
    if not isinstance(given, Mapping):
        raise table.wrong("quirks", "is not a table")
    try:
        return overridden(QUIRKS[named], given)
    except Misconfigured as error:
        raise table.wrong("quirks", f"cannot be used: {error}") from None
