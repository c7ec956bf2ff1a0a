"""A `[[source]]` of HL7 v2 messages: where it listens, whom it lets in, how its messages are read."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from adapters.hl7v2.charsets import charset_of
from adapters.hl7v2.feed import Feed
from adapters.hl7v2.frames import MAX_MESSAGE
from adapters.sources.certificates import Tls
from adapters.sources.hl7v2_mllp import NAME as MLLP
from adapters.sources.hl7v2_mllp import Listening, Networks
from adapters.terminology.concept_maps import ConceptMaps
from cds_server.configured import Table, loopback
from cds_server.hl7_sampling import KEYS as SAMPLING
from cds_server.hl7_sampling import OFF, Sampling, sampling_of
from cds_server.reading import Rules, SourceRules
from cds_server.settings import Settings, SourceSetting
from models.canonical import canonical
from models.errors import Unreadable

FILES = "hl7v2-files"
_READING = frozenset({"charset", "zone", "systems", "maps", "patient_types", "unit_system", "accept_claims", "groups"})
_LISTENING = frozenset(
    {"listen", "allow", "tls_cert_file", "tls_key_file", "tls_client_ca_file", "tls_subjects"}
    | {"max_message", "max_connections", "lenient_trailer", "idle_seconds", "write_seconds", "silence_minutes"}
    | {"ack_after", "on_trouble", "processing", "modes", "receivers"}
)
_KEYS = {MLLP: _READING | _LISTENING | SAMPLING, FILES: _READING | SAMPLING}


@dataclass(frozen=True, slots=True)
class FeedSource:
    name: str
    kind: str
    namespace: str
    feed: Feed
    digest: str
    """Of what decides how a message is read, besides the reader's own version."""
    listening: Listening | None
    sampling: Sampling = OFF


def feed_sources(settings: Settings) -> dict[str, FeedSource]:
    """Those of the configuration, by name. Raises Misconfigured."""
    return {each.name: read(each, settings) for each in settings.sources if each.kind in _KEYS}


def rules_of(settings: Settings) -> SourceRules:
    """How the parts of each feed are read. Raises Misconfigured."""
    return {name: Rules(each.feed, each.digest) for name, each in feed_sources(settings).items()}


def read(source: SourceSetting, settings: Settings) -> FeedSource:
    """One of them. Raises: Misconfigured, one sentence that names the key and the file."""
    table = Table(source.options, f"[[source]] {source.name!r}", settings.origin)
    table.known_only(_KEYS[source.kind])
    maps = ConceptMaps.read([Path(each) for each in table.texts("maps")])
    feed = Feed(
        namespace=source.namespace,
        charset=_charset(table),
        zone=zone_of(table),
        systems=systems_of(table),
        maps=maps,
        patient_types=table.texts("patient_types") or Feed().patient_types,
        unit_system=table.text("unit_system") or Feed().unit_system,
        accept_claims=table.flag("accept_claims"),
        groups=_one_of(table, "groups", ("snapshot", "add")),
    )
    listening = _listening(table) if source.kind == MLLP else None
    sampling = sampling_of(table, feed.charset)
    return FeedSource(source.name, source.kind, source.namespace, feed, _digest(feed, maps), listening, sampling)


def _digest(feed: Feed, maps: ConceptMaps) -> str:
    """A redo reads anew what was read with another zone, or by other names, too."""
    said = {each.name: getattr(feed, each.name) for each in fields(feed) if each.name != "maps"}
    said |= {"systems": dict(feed.systems), "patient_types": list(feed.patient_types), "maps": maps.digest}
    return hashlib.sha256(canonical(said)).hexdigest()


def _charset(table: Table) -> str | None:
    named = table.text("charset")
    if named is not None:
        try:
            charset_of((named,))
        except Unreadable:
            raise table.wrong("charset", "is no character set of table 0211 that can be read") from None
    return named


def zone_of(table: Table) -> str | None:
    """Where clocks stand that say nothing of it."""
    named = table.text("zone")
    if named is not None:
        try:
            ZoneInfo(named)
        except (ZoneInfoNotFoundError, ValueError):
            raise table.wrong("zone", "is no name of an IANA time zone") from None
    return named


def systems_of(table: Table) -> Mapping[str, str]:
    """The URI of each assigner."""
    named = table.entries.get("systems", {})
    if not isinstance(named, Mapping) or not all(isinstance(uri, str) and ":" in uri for uri in named.values()):
        raise table.wrong("systems", "is not a table of names and URIs")
    return dict(named)


def _listening(table: Table) -> Listening:
    host, port = address_of(table)
    tls = tls_of(table)
    allow = _networks(table)
    if tls is None and not loopback(host) and not allow:
        raise table.wrong(
            "listen", "is without TLS beyond this machine: name who may connect in allow, or a certificate"
        )
    if tls is None and host in ("0.0.0.0", "::", ""):  # noqa: S104 (refused here)
        raise table.wrong("listen", "is without TLS on every interface: name one, or a certificate")
    processing = frozenset(table.texts("processing") or ("P",))
    if not processing <= {"P", "T", "D"}:
        raise table.wrong("processing", "is not a list of P, T and D (table 0103)")
    modes = frozenset(table.texts("modes"))
    if not modes <= {"A", "I", "R"}:
        raise table.wrong("modes", "is not a list of A, I and R (table 0207)")
    return Listening(
        host=host,
        port=port,
        allow=allow,
        tls=tls,
        max_message=table.whole("max_message", MAX_MESSAGE, 1 << 10, 1 << 30),
        max_connections=table.whole("max_connections", 256, 1, 65_536),
        lenient_trailer=table.flag("lenient_trailer"),
        idle_seconds=table.seconds("idle_seconds", 30, 1, 3600),
        write_seconds=table.seconds("write_seconds", 30, 1, 3600),
        silence_minutes=table.whole("silence_minutes", 0, 0, 100_000),
        ack_after=_one_of(table, "ack_after", ("persist", "applied")),
        on_trouble=_one_of(table, "on_trouble", ("AE", "AR")),
        processing=processing,
        modes=modes,
        receivers=_receivers(table),
    )


def _one_of(table: Table, key: str, values: tuple[str, str]) -> str:
    """One of two words; the first one where none stands there."""
    found = table.text(key) or values[0]
    if found not in values:
        raise table.wrong(key, f"is neither '{values[0]}' nor '{values[1]}'")
    return found


def _receivers(table: Table) -> frozenset[tuple[str, str]]:
    """`APPLICATION`, or `APPLICATION|FACILITY`: values of MSH-5 and MSH-6."""
    found = set()
    for each in table.texts("receivers"):
        application, _, facility = (part.strip() for part in each.partition("|"))
        if not application or "|" in facility:
            raise table.wrong("receivers", "is not a list of APPLICATION or APPLICATION|FACILITY (MSH-5, MSH-6)")
        found.add((application, facility))
    return frozenset(found)


def address_of(table: Table) -> tuple[str, int]:
    """Where a source listens. Raises Misconfigured."""
    host, separator, port = table.required("listen").rpartition(":")
    if not separator or not port.isdecimal() or not 0 <= int(port) <= 65_535 or not host:
        raise table.wrong("listen", "is not HOST:PORT")
    return host.strip("[]"), int(port)


def _networks(table: Table) -> Networks:
    try:
        return tuple(ipaddress.ip_network(each) for each in table.texts("allow"))
    except ValueError:
        raise table.wrong("allow", "is not a list of addresses and networks (10.1.0.0/16)") from None


def tls_of(table: Table) -> Tls | None:
    """Its certificate and whose it asks for. Raises Misconfigured."""
    cert, key = table.text("tls_cert_file"), table.text("tls_key_file")
    client_ca = table.text("tls_client_ca_file")
    if cert is None and key is None:
        if client_ca is not None:
            raise table.wrong("tls_client_ca_file", "is of no use without tls_cert_file")
        return None
    if cert is None or key is None:
        raise table.wrong("tls_cert_file", "and tls_key_file belong together")
    for name, path in (("tls_cert_file", cert), ("tls_key_file", key), ("tls_client_ca_file", client_ca)):
        if path is not None and not Path(path).is_file():
            raise table.wrong(name, "names no file")
    subjects = frozenset(table.texts("tls_subjects"))
    if subjects and client_ca is None:
        raise table.wrong("tls_subjects", "are checked only where clients show certificates (tls_client_ca_file)")
    return Tls(Path(cert), Path(key), Path(client_ca) if client_ca else None, subjects)
