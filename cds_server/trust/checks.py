"""What `cds doctor` says about the world outside: keys of each EHR, certificates, and whose clock is wrong."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from cds_server import http
from cds_server.configured import loopback
from cds_server.ehrs import Ehr
from cds_server.settings import Settings
from cds_server.trust.keysets import MAX_BYTES
from cds_server.trust.published import PUBLISHED
from cds_server.trust.tokens import SigningKey, Untrusted, read_keys
from models.errors import CdsError

SECONDS = 3.0
SOON, NOW = 30, 7
"""Days before a certificate's end: worth a look; must be renewed."""
OFF, FAR = 10, 45
"""Seconds that our clock may be off another's: tokens are believed for 60 around theirs."""

Check = tuple[str, str, str]
"""What was looked at; `ok`, `LOOK` or `FAILS`; what to know or to do."""


def outside(settings: Settings) -> list[Check]:
    """Every check of the world outside, asked side by side."""
    signing = settings.ehrs if settings.trust == "jwt" else ()
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda ehr: keys_of(ehr, settings.ca_file), signing))
        ends = list(pool.map(lambda name: certificate(name, settings.ca_file), sorted(_tls_names(settings))))
    told = [check for found in keys for check in found.checks]
    if settings.trust == "jwt" and not any(ehr.signs for ehr in settings.ehrs):
        told.append(("callers", "LOOK", "no [[ehr]] has an issuer and keys: every call is refused"))
    return told + ends + clocks(stamp for found in keys for stamp in found.stamps)


# ---- the keys of an EHR ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    checks: tuple[Check, ...]
    stamps: tuple[float, ...] = ()
    """By how many seconds our clock is before each server that was asked."""


def keys_of(ehr: Ehr, ca_file: Path | None) -> Found:
    name = f"ehr {ehr.namespace}"
    if not ehr.signs:
        return Found(((f"{name} keys", "LOOK", "no issuer or no keys: its calls are refused"),))
    checks: list[Check] = []
    stamps: list[float] = []
    if not ehr.allowed_fhir:
        checks.append((f"{name} FHIR", "LOOK", "no fhir_base: a call that names a FHIR server is refused"))
    if ehr.jwks is not None:
        checks.append(_judged(f"{name} keys", ehr, _read(ehr.jwks)))
        return Found(tuple(checks))
    for url in dict.fromkeys(each for each in (ehr.jwks_url, *ehr.jku) if each):
        keys, stamp = _asked(url, ca_file)
        checks.append(_judged(f"{name} keys", ehr, keys))
        stamps += [stamp] if stamp is not None else []
    return Found(tuple(checks), tuple(stamps))


def _judged(name: str, ehr: Ehr, keys: dict[str, SigningKey] | str) -> Check:
    if isinstance(keys, str):
        return (name, "FAILS", keys)
    usable = [key for key in keys.values() if not key.algorithms.isdisjoint(ehr.algorithms)]
    published = [PUBLISHED[key.thumbprint] for key in usable if key.thumbprint in PUBLISHED]
    if not usable:
        return (name, "FAILS", f"the key set has no key for {', '.join(ehr.algorithms)}")
    if published:
        state = "LOOK" if ehr.published_keys else "FAILS"
        return (name, state, f"anybody can sign with a key of this set: {published[0]}")
    return (name, "ok", f"{len(usable)} of {len(keys)} usable")


def _read(path: Path) -> dict[str, SigningKey] | str:
    try:
        return read_keys(path.read_bytes())
    except (OSError, Untrusted):
        return "the file of jwks cannot be read as a key set"


def _asked(url: str, ca_file: Path | None) -> tuple[dict[str, SigningKey] | str, float | None]:
    """Keys or what is wrong, and by how much our clock is before that server's (RFC 9110, 6.6.1)."""
    try:
        body, date = http.fetch_now(url, seconds=SECONDS, limit=MAX_BYTES, verify=http.authorities(ca_file))
    except CdsError as error:
        return f"the key set does not come: {error.what}", None
    try:
        stamp = time.time() - parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        stamp = None
    try:
        return read_keys(body), stamp
    except Untrusted as error:
        return str(error), stamp


# ---- clocks and certificates -----------------------------------------------------------------------------------------


def clocks(stamps: Iterable[float]) -> list[Check]:
    """Our clock against those whose tokens we judge; by the median, so that one wrong server is not our fault."""
    ordered = sorted(stamps)
    if not ordered:
        return []
    off = round(ordered[len(ordered) // 2])
    side = "ahead of" if off > 0 else "behind"
    state = "ok" if abs(off) <= OFF else "LOOK" if abs(off) <= FAR else "FAILS"
    what = f"{abs(off)} s {side} the EHRs' key servers" + ("" if state == "ok" else ": set it by NTP, or tokens expire")
    return [("clock outside", state, what)]


def _tls_names(settings: Settings) -> set[tuple[str, int]]:
    """Host and port of every https URL that we are known by, or ask."""
    urls = [settings.public_url, settings.staff.issuer if settings.staff else None]
    for ehr in settings.ehrs:
        urls += [ehr.jwks_url, *ehr.jku, *ehr.allowed_fhir]
    parts = (urlsplit(url) for url in urls if url)
    return {(str(part.hostname), part.port or 443) for part in parts if part.scheme == "https" and part.hostname}


def certificate(name: tuple[str, int], ca_file: Path | None) -> Check:
    """How long the certificate is good that a host shows."""
    host, port = name
    label = f"certificate {host}" + (f":{port}" if port != 443 else "")
    trusted = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    try:
        with (
            socket.create_connection(name, timeout=SECONDS) as plain,
            trusted.wrap_socket(plain, server_hostname=host) as shown,
        ):
            told = shown.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return (label, "FAILS", f"it is not believed: {error.verify_message}")
    except OSError as error:
        where = "is not reached from here" if not loopback(host) else "does not answer"
        return (label, "LOOK", f"the host {where} ({type(error).__name__}): look from outside")
    days = int((ssl.cert_time_to_seconds(str(told["notAfter"])) - time.time()) // 86_400)
    state = "ok" if days > SOON else "LOOK" if days > NOW else "FAILS"
    return (label, state, f"ends in {days} days" + ("" if state == "ok" else ": renew it"))
