"""A `[[source]]` of kind `fhir-bulk`: whom it asks for what, how often, and what its server may do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from adapters.bulk.asking import origin
from adapters.bulk.profiles import PROFILES, EhrProfile, overridden
from adapters.bulk.request import PARAMETERS, ExportRequest, Level
from adapters.sources.fhir_bulk import NAME, Limits
from cds_server.configured import Table, loopback
from cds_server.keys import NAME as REGISTRATION
from cds_server.settings import Settings, SourceSetting
from cds_server.vendor_door import HostRules, place
from models.errors import Misconfigured

KIND = NAME
_KEYS = frozenset(
    {"url", "level", "group", "types", "type_filters", "elements", "until", "associated", "organize_by"}
    | {"partial_manifests", "profile", "quirks", "drop_refused"}
    | {"auth", "client_id", "registration", "token_url", "audience", "scopes", "token_origins"}
    | {"hosts", "plain_http", "private_network", "proxy_file", "ca_file"}
    | {"every", "reconcile", "reconcile_most", "days", "files_in_parallel", "longest_wait", "failure_wait"}
    | {"lineage_file", "lineage_url"}
)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749, 3.3."""
RECONCILE_MOST = 10


@dataclass(frozen=True, slots=True)
class BulkSource:
    name: str
    namespace: str
    url: str
    request: ExportRequest
    """As configured: without since and patients, which each run decides."""
    profile: EhrProfile
    rules: HostRules
    token_origins: frozenset[tuple[str, str, int]]
    client_id: str | None
    """None: the server wants no token."""
    registration: str | None
    """Whose keys sign (`cds keys new --for`)."""
    token_url: str | None
    audience: str | None
    scopes: tuple[str, ...]
    """None: those that reading the types needs."""
    proxy: str | None
    ca_file: Path | None
    every: timedelta | None
    """None: only by `cds pull`."""
    reconcile: timedelta | None
    """How often everything is pulled anew, and what is no longer there is closed."""
    reconcile_most: int
    """Percent of what is held of a type that one reconciliation may close without a person's word."""
    limits: Limits
    may_drop: frozenset[str]
    lineage_file: Path | None
    lineage_url: str | None

    @property
    def scope(self) -> str:
        return self.request.scope(self.url)


def bulk_sources(settings: Settings) -> dict[str, BulkSource]:
    """Those of the configuration, by name. Raises Misconfigured."""
    return {each.name: read(each, settings) for each in settings.sources if each.kind == KIND}


def read(source: SourceSetting, settings: Settings) -> BulkSource:
    """One of them. Raises: Misconfigured, one sentence that names the key and the file."""
    table = Table(source.options, f"[[source]] {source.name!r}", settings.origin)
    table.known_only(_KEYS)
    url = table.required("url").rstrip("/")
    rules = _rules(table, url)
    auth = table.text("auth") or "backend-services"
    if auth not in ("backend-services", "none"):
        raise table.wrong("auth", "is neither 'backend-services' nor 'none'")
    if auth == "none" and not loopback(place(url).host):
        raise table.wrong("auth", "is 'none', which is for a server on this very machine only")
    proxy = table.secret("proxy", {}, "")
    lineage_url = table.url("lineage_url")
    ca_file = table.text("ca_file")
    if ca_file is not None and not Path(ca_file).is_file():
        raise table.wrong("ca_file", "names no file")
    return BulkSource(
        name=source.name,
        namespace=source.namespace,
        url=url,
        request=_request(table),
        profile=_profile(table),
        rules=rules,
        token_origins=frozenset(origin(each) for each in table.urls("token_origins")),
        client_id=table.required("client_id") if auth == "backend-services" else None,
        registration=_registration(table),
        token_url=_token_url(table, rules),
        audience=table.text("audience"),
        scopes=_scopes(table),
        proxy=proxy,
        ca_file=Path(ca_file) if ca_file else settings.ca_file,
        every=table.span("every"),
        reconcile=table.span("reconcile"),
        reconcile_most=table.whole("reconcile_most", RECONCILE_MOST, 0, 100),
        limits=Limits(
            days=table.whole("days", 30, 1, 365),
            longest=float(table.whole("longest_wait", 300, 1, 3600)),
            failure_unit=float(table.whole("failure_wait", 60, 0, 3600)),
            in_parallel=table.whole("files_in_parallel", 4, 1, 16),
        ),
        may_drop=_may_drop(table),
        lineage_file=Path(found) if (found := table.text("lineage_file")) else None,
        lineage_url=lineage_url,
    )


def _rules(table: Table, url: str) -> HostRules:
    hosts, plain_http = table.texts("hosts"), table.texts("plain_http")
    private_network = table.flag("private_network")
    try:
        return HostRules(url, hosts=hosts, plain_http=plain_http, private_network=private_network)
    except Misconfigured as error:
        raise table.wrong("url", f"cannot be asked: {error.what}") from None


def _token_url(table: Table, rules: HostRules) -> str | None:
    url = table.text("token_url")
    if url is not None and (reason := rules.refuses(url)):
        raise table.wrong("token_url", f"cannot be asked: {reason}")
    return url


def _scopes(table: Table) -> tuple[str, ...]:
    scopes = table.texts("scopes")
    if not all(map(_SCOPE.fullmatch, scopes)):
        raise table.wrong("scopes", "has one that is no scope: they are listed one by one")
    return scopes


def _registration(table: Table) -> str | None:
    name = table.text("registration")
    if name is not None and not REGISTRATION.fullmatch(name):
        raise table.wrong("registration", "is no name that keys can have (letters, digits, '_' and '-')")
    return name


def _request(table: Table) -> ExportRequest:
    level = table.text("level") or "system"
    if level not in list(Level):
        raise table.wrong("level", "is none of system, patient, group")
    asked: dict[str, Any] = {
        **{key: table.text(key) for key in ("group", "until", "organize_by")},
        **{key: table.texts(key) for key in ("types", "type_filters", "elements", "associated")},
        "partial_manifests": table.flag("partial_manifests"),
    }
    try:
        return ExportRequest(Level(level), **asked)
    except Misconfigured as error:
        raise Misconfigured(f"{table.named} in {table.origin}: {error}") from None


def _profile(table: Table) -> EhrProfile:
    named = table.text("profile") or "generic"
    if named not in PROFILES:
        raise table.wrong("profile", f"is none of {', '.join(PROFILES)}")
    quirks: Any = table.entries.get("quirks", {})
    if not isinstance(quirks, Mapping):
        raise table.wrong("quirks", "is not a table")
    try:
        return overridden(PROFILES[named], quirks)
    except Misconfigured as error:
        raise table.wrong("quirks", f"cannot be used: {error.what}") from None


def _may_drop(table: Table) -> frozenset[str]:
    named = frozenset(table.texts("drop_refused"))
    if unknown := sorted(named - set(PARAMETERS) | (named & {"patient", "_since"})):
        raise table.wrong("drop_refused", f"names {unknown[0]!r}, which is never left out, or is no such parameter")
    return named
