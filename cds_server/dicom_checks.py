"""What `cds doctor` says about archives and storages: whether an archive answers to the names that are configured, and
whether each storage can be reached, has room, and shows a certificate that is good for a while."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from adapters.sources.certificates import Tls
from cds_server.settings import Settings
from cds_server.storage_process import StorageSource
from cds_server.trust.checks import NOW, SECONDS, SOON, Check
from models.errors import CdsError, Misconfigured

ANSWER = 10.0
"""Seconds that a doctor waits for an archive: enough for one that is well."""


def dicom(settings: Settings) -> list[Check]:
    """Every check of the sources of kind `dicom` and `dicom-storage`; archives are asked side by side."""
    from cds_server.dicom_listening import storage_sources
    from cds_server.dicom_sources import dicom_sources

    try:
        archives, storages = dicom_sources(settings), storage_sources(settings)
    except Misconfigured as error:
        return [("DICOM sources", "FAILS", str(error))]
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda each: _archive(each.name, each.peer), archives.values()))
        found = list(pool.map(lambda each: list(_storage(each, settings.data_dir)), storages.values()))
    return asked + [check for each in found for check in each]


def _archive(name: str, peer: object) -> Check:
    """C-ECHO, with the AE titles that pulls use (D6)."""
    from adapters.dicom.association import echo
    from adapters.dicom.peers import DicomPeer

    assert isinstance(peer, DicomPeer)  # noqa: S101 (loaded only here)
    waits = replace(peer.timeouts, connect=SECONDS, accept=ANSWER, answer=ANSWER)
    try:
        said = echo(replace(peer, timeouts=waits))
    except CdsError as error:
        return (f"archive {name}", "FAILS", error.what)
    if said.fine:
        return (f"archive {name}", "ok", f"answers to {peer.our_ae_title} after {said.seconds * 1000:.0f} ms")
    return (f"archive {name}", "FAILS", said.told + _advice(said.told))


def _advice(told: str) -> str:
    for words, advice in (
        ("calling ae title", ": it must know our AE title and address"),
        ("called ae title", ": ae_title is not what it calls itself"),
    ):
        if words in told:
            return advice
    return ""


def _storage(source: StorageSource, data_dir: Path) -> Iterator[Check]:
    name, at = f"storage {source.name}", source.listening
    yield (name, *_door(source))
    free = shutil.disk_usage(data_dir if data_dir.exists() else ".").free
    told = f"{free >> 20} MiB free; below {at.min_free >> 20} MiB objects are refused (A700)"
    yield (f"{name} disk", "FAILS" if free < at.min_free else "LOOK" if free < 2 * at.min_free else "ok", told)
    if at.tls is not None:
        yield (f"{name} certificate", *_ends(at.tls))


def _door(source: StorageSource) -> tuple[str, str]:
    """Whether it listens, and whether that is us: an answer to an association request, be it a refusal by our rules."""
    at = source.listening
    where = f"{at.host}:{at.port}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(at.host, at.host)  # noqa: S104 (asked, not listened on)
    try:
        socket.create_connection((host, at.port), timeout=SECONDS).close()
    except ConnectionRefusedError:
        return _free(source, where)
    except OSError as error:
        return (
            "FAILS",
            f"{where} cannot be reached from here ({type(error).__name__}): an address of this machine?",
        )
    if at.tls is not None:
        return "ok", f"something listens on {where} (not asked further: it speaks TLS)"
    from adapters.dicom.association import Cause, echo
    from adapters.dicom.peers import DicomPeer, Retrieve, Timeouts

    calling = at.peers[0].ae_title if at.peers else "DOCTOR"
    waits = Timeouts(connect=SECONDS, accept=ANSWER, answer=ANSWER)
    said = echo(DicomPeer(source.name, host, at.port, at.ae_title, calling, retrieve=Retrieve.GET, timeouts=waits))
    if said.fine:
        return "ok", f"answers on {where} as {at.ae_title}"
    if said.cause is Cause.REJECTED and "called ae title" in said.told:
        return "FAILS", f"something else has {where}: it does not know the AE title {at.ae_title}"
    if said.cause in (Cause.REJECTED, Cause.ABORTED):
        return "ok", f"listens on {where}, and lets its peers in only"
    return "LOOK", f"something listens on {where} and does not answer as DICOM: {said.told}"


def _free(source: StorageSource, where: str) -> tuple[str, str]:
    at = source.listening
    try:
        with socket.socket(socket.AF_INET6 if ":" in at.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((at.host, at.port))
    except PermissionError:
        return "FAILS", f"{where} may not be listened on by this account: a port above 1023, or CAP_NET_BIND_SERVICE"
    except OSError as error:
        return "FAILS", f"{where} cannot be listened on: {error.strerror}"
    return "LOOK", f"{where} is free and nothing listens: cds serve, or cds listen {source.name}"


def _ends(tls: Tls) -> tuple[str, str]:
    """How long our certificate is good, by a handshake of ours with ourselves, in memory: its key fits, then, too."""
    serving, asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is believed by itself, whoever signed it
    try:
        serving.load_cert_chain(tls.cert_file, tls.key_file)
        asking.load_verify_locations(tls.cert_file)
        end = _shown(serving, asking)
    except ssl.SSLCertVerificationError as error:
        return "FAILS", f"it is not believed: {error.verify_message}"
    except (OSError, ssl.SSLError):
        return "FAILS", "the certificate or its key cannot be used"
    days = int((end - time.time()) // 86_400)
    state = "ok" if days > SOON else "LOOK" if days > NOW else "FAILS"
    return state, f"ends in {days} days" + ("" if state == "ok" else ": renew it")


def _shown(serving: ssl.SSLContext, asking: ssl.SSLContext) -> float:
    """When the certificate ends that the one shows to the other; seconds since 1970."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = asking.wrap_bio(back, there), serving.wrap_bio(there, back, server_side=True)
    for side in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return float(ssl.cert_time_to_seconds(str((client.getpeercert() or {})["notAfter"])))
