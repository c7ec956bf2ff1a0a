"""A `[[destination]]` of kind `dicom` or `dicomweb`: an archive that results go to as structured reports."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adapters.dicom.peers import DicomPeer, PeerTls, Timeouts
from cds_server.configured import Table, loopback
from cds_server.dicomweb_access import KEYS as WEB
from cds_server.dicomweb_access import WebAccess, access
from cds_server.settings import Settings
from models.errors import Misconfigured

if TYPE_CHECKING:
    from adapters.sink import Sink

STORE, STOW = "dicom", "dicomweb"
"""`adapters.sinks.dicom_store.NAME`, `adapters.sinks.dicomweb.NAME`, without loading what speaks DICOM."""
_STORE_KEYS = frozenset(
    {"host", "port", "ae_title", "our_ae_title", "tls", "tls_ca_file", "tls_cert_file", "tls_key_file", "plain_text"}
    | {"tls_server_name", "commitment", "commitment_seconds", "commitment_listen", "timeout_seconds"}
)
KEYS = {STORE: _STORE_KEYS, STOW: WEB}


@dataclass(frozen=True, slots=True)
class Archive:
    """How results get there. `check` raises Misconfigured where that cannot work; nothing is sent."""

    sink: Callable[[], Sink]
    check: Callable[[], None]


def read(kind: str, table: Table, settings: Settings, name: str, tls: PeerTls | None) -> Archive:
    """Raises: Misconfigured, one sentence that names the key and the file."""
    return _stow(access(table, settings)) if kind == STOW else _store(table, name, tls)


def _stow(web: WebAccess) -> Archive:
    def sink() -> Sink:
        from adapters.sinks.dicomweb import Stow

        return Stow(web.url, web.door, web.headers)

    def check() -> None:
        web.door()

    return Archive(sink, check)


def _store(table: Table, name: str, tls: PeerTls | None) -> Archive:
    host = table.required("host")
    if tls is None and not loopback(host) and not table.flag("plain_text"):
        raise table.wrong(
            "tls", "is off beyond this machine: results would be read on the way (or say plain_text = true)"
        )
    answer = float(table.seconds("timeout_seconds", 30, 1, 3600))
    try:
        peer = DicomPeer(
            name=name,
            host=host,
            port=table.whole("port", 104, 1, 65_535),
            ae_title=table.required("ae_title"),
            our_ae_title=table.text("our_ae_title") or "CDS",
            destination=table.text("our_ae_title") or "CDS",
            tls=replace(tls, server_name=table.text("tls_server_name")) if tls is not None else None,
            timeouts=replace(Timeouts(), answer=answer),
        )
    except Misconfigured as error:
        if error.where is None:
            raise
        raise table.wrong(error.where, error.what) from None
    listens = _listen(table)
    if not table.flag("commitment") and (listens is not None or "commitment_seconds" in table.entries):
        raise table.wrong("commitment", "is off: what else is said of it is of no use")
    wait = float(table.seconds("commitment_seconds", 60, 1, 86_400))

    def sink() -> Sink:
        from adapters.sinks.dicom_store import Committing, DicomStore

        committing = None
        if table.flag("commitment"):
            at, port = listens or ("127.0.0.1", 0)
            committing = Committing(wait, at, port, accepting(peer.tls) if port else None)
        return DicomStore(lambda: peer, committing)

    def check() -> None:
        from adapters.dicom.association import client_context

        if peer.tls is not None:
            client_context(peer.tls)
            accepting(peer.tls)

    return Archive(sink, check)


def _listen(table: Table) -> tuple[str, int] | None:
    text = table.text("commitment_listen")
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:
        raise table.wrong("commitment_listen", "is not address:port")
    return host.strip("[]"), int(port)


def accepting(tls: PeerTls | None) -> ssl.SSLContext | None:
    """TLS for associations that the archive opens: our certificate, and its own is asked for."""
    if tls is None or tls.cert_file is None:
        return None
    try:
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.ca_file) if tls.ca_file else None)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.load_cert_chain(tls.cert_file, tls.key_file)
        made.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, OSError):
        raise Misconfigured("the certificate, its key or the authorities cannot be used") from None
    return made
