"""A `[[destination]]`: where results go by themselves, which of them, and whom its receiver knows.

Nothing is sent without such an entry. What is wrong with one stops the start, not its first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.dicom.peers import PeerTls
from adapters.hl7v2.composed import LOCAL, Assigner, Envelope
from adapters.sinks.fhir import NAME as FHIR
from adapters.sinks.hl7v2_mllp import NAME as MLLP
from adapters.sinks.hl7v2_mllp import Mllp, Peer, client_tls
from cds_server import dicom_destinations, fhir_destinations
from cds_server.configured import Table, loopback
from cds_server.dicom_destinations import STORE, STOW, Archive
from cds_server.settings import Settings, SourceSetting
from models.errors import Misconfigured

if TYPE_CHECKING:
    from adapters.sink import Sink

_KEYS = frozenset({"what", "services", "models", "outputs", "retry_from_seconds", "retry_to_seconds", "processing"})
_MLLP_KEYS = frozenset(
    {"host", "port", "tls", "tls_ca_file", "tls_cert_file", "tls_key_file", "plain_text", "timeout_seconds"}
    | {"sending_application", "sending_facility", "receiving_application", "receiving_facility"}
    | {"assigners", "local_assigner", "code_system"}
)
_KINDS = {MLLP: _MLLP_KEYS, **dicom_destinations.KEYS, **fhir_destinations.KEYS}
_FEEDS = frozenset({"hl7v2-mllp", "hl7v2-files"})
"""Kinds of sources whose local ids we made ourselves, of an identifier and its assigner: nobody else knows them."""


@dataclass(frozen=True, slots=True)
class Security:
    """TLS towards a receiver; read anew for each connection, so that renewed certificates count."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    name: str
    namespace: str
    host: str
    port: int
    envelope: Envelope
    services: frozenset[str]
    """Whose results go there; empty: of every service whose model is listed."""
    models: frozenset[str]
    outputs: frozenset[str]
    """Names of outputs that go; empty: all."""
    assigners: Mapping[str, Assigner] = field(default_factory=dict)
    """Identifier system (URI) -> how the receiver names it. Given: no other identifier is sent."""
    local_assigner: Assigner | None = None
    """Of the namespace's own record ids, where the receiver knows patients by them."""
    security: Security | None = None
    timeout: float = 30.0
    retry_from: float = 5.0
    retry_to: float = 300.0
    archive: Archive | None = None
    """Where results go as DICOM, or FHIR; None: they go as HL7 v2, to `host` and `port`."""
    fhir: bool = False

    def sink(self) -> Sink:
        """The way there; one for each process that sends."""
        return self.archive.sink() if self.archive is not None else Mllp(self.peer)

    def check(self) -> None:
        """Raises: Misconfigured (certificates that cannot be used)."""
        if self.archive is not None:
            self.archive.check()
        else:
            self.peer()

    @property
    def production(self) -> bool:
        return self.envelope.processing == "P"

    def wants(self, service: str, model: str) -> bool:
        """`model`: its name, without a version."""
        return (not self.services or service in self.services) and (not self.models or model in self.models)

    def peer(self) -> Peer:
        """Raises: Misconfigured (certificates that cannot be used)."""
        tls = None
        if self.security is not None:
            tls = client_tls(self.security.ca_file, self.security.cert_file, self.security.key_file)
        return Peer(self.host, self.port, tls, self.timeout)


def destinations(settings: Settings) -> dict[str, Destination]:
    """Those of the configuration, by name. Raises Misconfigured."""
    return {each.name: read(each, settings) for each in settings.destinations}


def read(entry: SourceSetting, settings: Settings) -> Destination:
    """One of them. Raises: Misconfigured, one sentence that names the key and the file."""
    table = Table(entry.options, f"[[destination]] {entry.name!r}", settings.origin)
    if entry.kind not in _KINDS:
        raise table.wrong("kind", f"is none of {', '.join(_KINDS)}")
    table.known_only(_KEYS | _KINDS[entry.kind])
    if (table.text("what") or "scores") != "scores":
        raise table.wrong("what", "is not 'scores'")
    services, models = frozenset(table.texts("services")), frozenset(table.texts("models"))
    if not services and not models:
        raise table.wrong("services", "and models name nothing: say whose results go there")
    known_services, known_models = _known(settings)
    if services - known_services:
        raise table.wrong("services", "names a service that there is not")
    if models - known_models:
        raise table.wrong("models", "names a model by which no service speaks")
    retry_from = table.seconds("retry_from_seconds", 5, 1, 3600)
    retry_to = table.seconds("retry_to_seconds", 300, 1, 86_400)
    if retry_to < retry_from:
        raise table.wrong("retry_to_seconds", "is less than retry_from_seconds")
    archive, host, port, security = _there(entry, table, settings)
    return Destination(
        name=entry.name,
        namespace=entry.namespace,
        host=host,
        port=port,
        envelope=_envelope(table),
        services=services,
        models=models,
        outputs=frozenset(table.texts("outputs")),
        assigners=_assigners(table),
        local_assigner=_local(table, entry.namespace, settings),
        security=security,
        timeout=float(table.seconds("timeout_seconds", 30, 1, 3600)),
        retry_from=float(retry_from),
        retry_to=float(retry_to),
        archive=archive,
        fhir=entry.kind == FHIR,
    )


def _there(entry: SourceSetting, table: Table, settings: Settings) -> tuple[Archive | None, str, int, Security | None]:
    """An archive, a FHIR server; or host, port and TLS of an MLLP receiver."""
    if entry.kind == FHIR:
        if any(source.namespace == entry.namespace and source.kind in _FEEDS for source in settings.sources):
            raise table.wrong("namespace", "is of an HL7 v2 feed, whose ids are ours: no FHIR server knows them")
        return fhir_destinations.read(table, settings), "", 0, None
    security = _security(table, settings) if entry.kind in (MLLP, STORE) else None
    if entry.kind in (STORE, STOW):
        tls = PeerTls(security.ca_file, security.cert_file, security.key_file) if security is not None else None
        return dicom_destinations.read(entry.kind, table, settings, entry.name, tls), "", 0, None
    host = table.required("host")
    if security is None and not loopback(host) and not table.flag("plain_text"):
        raise table.wrong(
            "tls", "is off beyond this machine: results would be read on the way (or say plain_text = true)"
        )
    return None, host, table.whole("port", 0, 1, 65_535), security


def _known(settings: Settings) -> tuple[frozenset[str], frozenset[str]]:
    from cds_server.services import all_services

    specs = all_services(conformance=settings.conformance)
    return frozenset(spec.id for spec in specs), frozenset(model for spec in specs for model in spec.models)


def _envelope(table: Table) -> Envelope:
    processing = table.text("processing") or "P"
    if processing not in ("P", "T", "D"):
        raise table.wrong("processing", "is none of P, T and D (table 0103)")
    system = table.text("code_system") or LOCAL
    if not system.startswith("99") or not system.isalnum() or not 3 <= len(system) <= 12:
        raise table.wrong("code_system", "is not 99 and up to ten letters or digits (table 0396)")
    return Envelope(
        sending=(table.text("sending_application") or "CDS", table.text("sending_facility") or ""),
        receiving=(table.text("receiving_application") or "", table.text("receiving_facility") or ""),
        processing=processing,
        system=system,
    )


def _security(table: Table, settings: Settings) -> Security | None:
    ca, cert, key = (table.text(f"tls_{each}_file") for each in ("ca", "cert", "key"))
    if not table.flag("tls"):
        if ca or cert or key:
            raise table.wrong("tls", "is off: the files of TLS are of no use")
        return None
    if bool(cert) != bool(key):
        raise table.wrong("tls_cert_file", "and tls_key_file belong together")
    for name, path in (("tls_ca_file", ca), ("tls_cert_file", cert), ("tls_key_file", key)):
        if path is not None and not Path(path).is_file():
            raise table.wrong(name, "names no file")
    return Security(Path(ca) if ca else settings.ca_file, Path(cert) if cert else None, Path(key) if key else None)


def _assigners(table: Table) -> Mapping[str, Assigner]:
    named = table.entries.get("assigners", {})
    if not isinstance(named, Mapping) or not all(isinstance(each, str) for each in named.values()):
        raise table.wrong("assigners", "is not a table of identifier systems and assigners")
    return {system: _assigner(table, "assigners", text) for system, text in named.items()}


def _assigner(table: Table, key: str, text: str) -> Assigner:
    """`HOSP`, or `HOSP&1.2.3&ISO`."""
    parts = text.split("&")
    if len(parts) not in (1, 3) or not any(parts) or any(each != each.strip() for each in parts):
        raise table.wrong(key, "is not NAME or NAME&ID&TYPE (HD)")
    return Assigner(*parts)


def _local(table: Table, namespace: str, settings: Settings) -> Assigner | None:
    text = table.text("local_assigner")
    if text is None:
        return None
    if any(source.namespace == namespace and source.kind in _FEEDS for source in settings.sources):
        raise table.wrong(
            "local_assigner", "is for ids that others know: those of an HL7 v2 feed are ours (name assigners)"
        )
    return _assigner(table, "local_assigner", text)


def check(settings: Settings) -> bool:
    """Whether there is any destination. Raises Misconfigured where one cannot be used, its certificates too."""
    found = destinations(settings)
    for each in found.values():
        try:
            each.check()
        except Misconfigured as error:
            raise Misconfigured(f"tls of [[destination]] {each.name!r} in {settings.origin}: {error.what}") from None
    return bool(found)
