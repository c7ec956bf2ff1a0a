"""An EHR as the configuration registers it: who it is, whose keys sign its calls, what it may be asked for.

A registration is the whole of our trust: an issuer, a key set, an audience, a FHIR server that does not stand here does
not exist for us. Nothing that a request names is ever asked unless it stands here (SSRF).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cds_server.configured import Table, reachable
from cds_server.ehr_apps import APP_KEYS, read_app
from models.errors import Misconfigured
from smart_app.registered import Registered, normal

RECOMMENDED = ("ES384", "RS384")
"""CDS Hooks 2.0.1, JWT Signing Algorithm."""
ASYMMETRIC = frozenset(
    {"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA", "Ed25519"}
)
"""All that may be configured: never `none`, never one that is symmetric (the same section)."""
LIFETIME = 900
"""Seconds: Epic's tokens live fifteen minutes, no EHR's longer."""
SKEW = 60

NO_SECRETS: Mapping[str, str] = MappingProxyType({})
RESTRICTED = frozenset({"R", "V"})
"""v3-Confidentiality: restricted, very restricted."""

_NAMESPACE = re.compile(r"[A-Za-z0-9._-]+")
_KEYS = frozenset(
    {"namespace", "issuer", "fhir_base", "fhir_servers", "client_id", "sees", "test", "jwks", "jwks_url", "jku"}
    | {"algorithms", "audiences", "tenants", "lifetime", "skew", "published_keys", "withhold"}
    | APP_KEYS
)


@dataclass(frozen=True, slots=True)
class Ehr:
    """One EHR that calls us."""

    namespace: str
    issuer: str | None = None
    """`iss` of its tokens, letter by letter."""
    fhir_base: str | None = None
    client_id: str | None = None
    sees: tuple[str, ...] = ()
    """Namespaces that its calls may see besides its own."""
    test: bool = False
    """Test-marked records may be scored for it."""
    withhold: frozenset[str] = RESTRICTED
    """Security labels (meta.security) of stored data that its calls do not see; what a call brings itself, it sees."""
    fhir_servers: tuple[str, ...] = ()
    """FHIR servers that its calls may name besides `fhir_base`."""
    jwks: Path | None = None
    """Its key set, as agreed out of band; then nothing is fetched."""
    jwks_url: str | None = None
    """Where its key set is fetched."""
    jku: tuple[str, ...] = ()
    """Further values that the header `jku` may have: key sets of its own."""
    algorithms: tuple[str, ...] = RECOMMENDED
    audiences: tuple[str, ...] = ()
    """Base URLs by which it knows us besides our public one."""
    tenants: tuple[str, ...] = ()
    """Organisations that may call through it; none listed: `tenant` is not looked at."""
    lifetime: int = LIFETIME
    """Seconds between `iat` and `exp`, at most."""
    skew: int = SKEW
    """Seconds that its clock may be off."""
    published_keys: bool = False
    """Keys that everybody can sign with (the sandbox's, the specification's) are taken. Never with real data."""
    app: Registered | None = None
    """The SMART app as this EHR registered it; None: it launches none."""

    @property
    def signs(self) -> bool:
        """Whether its calls can be told from anybody's."""
        return self.issuer is not None and (self.jwks is not None or self.jwks_url is not None or bool(self.jku))

    @property
    def allowed_fhir(self) -> frozenset[str]:
        """FHIR servers that a call of this EHR may name, without a slash at their end."""
        return frozenset((self.fhir_base, *self.fhir_servers) if self.fhir_base else self.fhir_servers)


def read_ehr(entry: Mapping[str, Any], index: int, origin: str, environ: Mapping[str, str] = NO_SECRETS) -> Ehr:
    """One `[[ehr]]` of the file. Raises: Misconfigured."""
    table = Table(entry, f"[[ehr]] number {index + 1}", origin)
    table.known_only(_KEYS)
    namespace = namespace_of(table)
    ehr = Ehr(
        namespace=namespace,
        issuer=table.text("issuer"),
        fhir_base=_base(table.text("fhir_base")),
        client_id=table.text("client_id"),
        sees=table.texts("sees"),
        test=table.flag("test"),
        withhold=frozenset(table.texts("withhold")) if "withhold" in entry else RESTRICTED,
        fhir_servers=tuple(each.rstrip("/") for each in table.urls("fhir_servers")),
        jwks=_path(table.text("jwks")),
        jwks_url=table.url("jwks_url"),
        jku=table.urls("jku"),
        algorithms=table.texts("algorithms") or RECOMMENDED,
        audiences=tuple(each.rstrip("/") for each in table.texts("audiences")),
        tenants=table.texts("tenants"),
        lifetime=table.seconds("lifetime", LIFETIME, 1, LIFETIME),
        skew=table.seconds("skew", SKEW, 0, 300),
        published_keys=table.flag("published_keys"),
        app=read_app(table, namespace, _base(table.text("fhir_base")), environ),
    )
    for name in ehr.algorithms:
        if name not in ASYMMETRIC:
            raise table.wrong("algorithms", f"has one that is none of {', '.join(sorted(ASYMMETRIC))}")
    if ehr.jwks is not None and ehr.jwks_url is not None:
        raise table.wrong("jwks", "stands beside jwks_url: keys come from the file, or from the URL")
    if ehr.issuer is None and (ehr.jwks is not None or ehr.jwks_url is not None or ehr.jku):
        raise Misconfigured(f"{table.named} in {origin} has keys and no issuer: whose are they?")
    return ehr


def check_issuers(ehrs: Sequence[Ehr], origin: str) -> None:
    """EHRs may share an issuer (a vendor's cloud) where tenants tell them apart. Raises: Misconfigured."""
    claimed: dict[tuple[str, str | None], str] = {}
    by_issuer: dict[str, list[Ehr]] = {}
    for ehr in ehrs:
        if ehr.issuer is not None:
            by_issuer.setdefault(ehr.issuer, []).append(ehr)
    for sharing in by_issuer.values():
        if len(sharing) > 1 and not all(ehr.tenants for ehr in sharing):
            raise Misconfigured(f"[[ehr]] tables in {origin} share an issuer: each of them needs its tenants")
        for ehr in sharing:
            for tenant in ehr.tenants:
                if claimed.setdefault((str(ehr.issuer), tenant), ehr.namespace) != ehr.namespace:
                    raise Misconfigured(f"two [[ehr]] tables in {origin} have the same issuer and tenant")


def check_apps(ehrs: Sequence[Ehr], public_url: str, origin: str) -> None:
    """A launch's `iss` chooses one EHR, and its pages and codes travel by TLS. Raises: Misconfigured."""
    apps = [ehr.app for ehr in ehrs if ehr.app is not None]
    if len({normal(app.base) for app in apps}) != len(apps):
        raise Misconfigured(f"two [[ehr]] tables in {origin} launch the app from one fhir_base")
    if apps and not reachable(public_url):
        raise Misconfigured(f"public_url in {origin} is not an https URL (http only on loopback): the app needs TLS")


def namespace_of(table: Table) -> str:
    namespace = table.required("namespace")
    if not _NAMESPACE.fullmatch(namespace):  # NAMESPACE/ID names a patient on the command line
        raise table.wrong("namespace", "has other signs than letters, digits, '.', '_' and '-'")
    return namespace


def _base(url: str | None) -> str | None:
    return url.rstrip("/") if url else None


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None


def origins(values: tuple[str, ...], complaint: str) -> frozenset[str]:
    """Origins that browsers may call from: `https://host[:port]`, each by name. Raises: Misconfigured."""
    for value in values:
        if not reachable(value) or value.count("/") != 2 or value != value.lower() or "*" in value:
            raise Misconfigured(f"{complaint} has one that is not an origin: https://host[:port], without a path")
    return frozenset(values)
