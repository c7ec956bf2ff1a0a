"""Configuration: `cds.toml`, and the environment over it. Read once, at the door; inside, settings are arguments.

A missing or wrong value stops the start with one sentence that names the key and the file. Secrets come from the
environment or from files, and are never printed.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from models.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Ehr:
    """One EHR that calls us."""

    namespace: str
    issuer: str | None = None
    fhir_base: str | None = None
    client_id: str | None = None
    sees: tuple[str, ...] = ()
    """Namespaces that its calls may see besides its own."""
    test: bool = False
    """Test-marked records may be scored for it."""


@dataclass(frozen=True, slots=True)
class SourceSetting:
    name: str
    kind: str
    namespace: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    origin: str
    """The file that was read, or `environment`: named in every complaint."""
    data_dir: Path
    database_url: str
    public_url: str
    host: str
    port: int
    trust: str
    """`open`: unauthenticated clients are let in, on loopback only. `jwt`: each EHR signs its calls."""
    ehrs: tuple[Ehr, ...]
    sources: tuple[SourceSetting, ...]
    joining_systems: frozenset[str]
    deadline_ms: int
    max_body: int
    log_level: str
    actors: frozenset[str]
    """Names that `--as` may take."""

    def ehr(self, namespace: str) -> Ehr:
        for ehr in self.ehrs:
            if ehr.namespace == namespace:
                return ehr
        return Ehr(namespace=namespace)

    @property
    def model_roots(self) -> tuple[Path, ...]:
        """Where enrolled and recalibrated ModelVersions stand, besides the shipped ones."""
        return (self.data_dir / "models",)


_TOP = {
    "data_dir",
    "database_url",
    "public_url",
    "host",
    "port",
    "trust",
    "ehr",
    "source",
    "identity",
    "deadline_ms",
    "max_body",
    "log_level",
    "actors",
}


def load(environ: Mapping[str, str], **overrides: Any) -> Settings:
    """Settings from `CDS_CONFIG` (default `cds.toml` where it exists), `CDS_*` variables, then command-line overrides.

    Raises: Misconfigured, one sentence that names the key and the file.
    """
    path, table = _file(environ)
    origin = path.name if path else "environment"
    unknown = sorted(set(table) - _TOP)
    if unknown:
        raise Misconfigured(f"unknown key {unknown[0]!r} in {origin}")

    def value(key: str, default: Any) -> Any:
        if overrides.get(key) is not None:
            return overrides[key]
        return environ.get(f"CDS_{key.upper()}", table.get(key, default))

    data_dir = Path(str(value("data_dir", "./var")))
    host, port = str(value("host", "127.0.0.1")), _integer(value("port", 8000), "port", origin, 0, 65535)
    public_url = str(value("public_url", f"http://{_bracketed(host)}:{port}")).rstrip("/")
    settings = Settings(
        origin=origin,
        data_dir=data_dir,
        database_url=str(value("database_url", f"sqlite:///{data_dir / 'cds.db'}")),
        public_url=_url(public_url, "public_url", origin),
        host=host,
        port=port,
        trust=str(value("trust", "jwt")),
        ehrs=tuple(_ehr(entry, index, origin) for index, entry in enumerate(_tables(table, "ehr", origin))),
        sources=tuple(_source(entry, index, origin) for index, entry in enumerate(_tables(table, "source", origin))),
        joining_systems=frozenset(_joining(table, origin)),
        deadline_ms=_integer(value("deadline_ms", 500), "deadline_ms", origin, 10, 60_000),
        max_body=_integer(value("max_body", 4 << 20), "max_body", origin, 1024, 1 << 30),
        log_level=str(value("log_level", "info")).lower(),
        actors=frozenset(map(str, table.get("actors", ()))),
    )
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    if settings.trust not in ("open", "jwt"):
        raise Misconfigured(f"trust in {settings.origin} is neither 'open' nor 'jwt'")
    public_host = urlsplit(settings.public_url).hostname or ""
    if settings.trust == "open" and not (loopback(settings.host) and loopback(public_host)):
        raise Misconfigured(
            f"trust = 'open' in {settings.origin} lets anybody in: it is refused unless both host and public_url are loopback"
        )
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise Misconfigured(f"log_level in {settings.origin} is none of debug, info, warning, error")
    if not settings.database_url.startswith(("sqlite:///", "postgresql+psycopg://")):
        raise Misconfigured(f"database_url in {settings.origin} is neither sqlite:/// nor postgresql+psycopg://")
    names = [ehr.namespace for ehr in settings.ehrs]
    if len(set(names)) != len(names):
        raise Misconfigured(f"two [[ehr]] tables in {settings.origin} have the same namespace")


def loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _file(environ: Mapping[str, str]) -> tuple[Path | None, dict[str, Any]]:
    named = environ.get("CDS_CONFIG")
    path = Path(named or "cds.toml")
    if not path.exists():
        if named:
            raise Misconfigured(f"CDS_CONFIG names {path.name}, which does not exist")
        return None, {}
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path.name} is not TOML ({error})") from None


def _tables(table: Mapping[str, Any], key: str, origin: str) -> list[Mapping[str, Any]]:
    entries = table.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Misconfigured(f"{key} in {origin} is not a list of tables: write [[{key}]]")
    return entries


def _ehr(entry: Mapping[str, Any], index: int, origin: str) -> Ehr:
    if not entry.get("namespace"):
        raise Misconfigured(f"[[ehr]] number {index + 1} in {origin} has no namespace")
    return Ehr(
        namespace=str(entry["namespace"]),
        issuer=entry.get("issuer"),
        fhir_base=str(entry["fhir_base"]).rstrip("/") if entry.get("fhir_base") else None,
        client_id=entry.get("client_id"),
        sees=tuple(entry.get("sees", ())),
        test=bool(entry.get("test", False)),
    )


def _source(entry: Mapping[str, Any], index: int, origin: str) -> SourceSetting:
    for key in ("name", "kind", "namespace"):
        if not entry.get(key):
            raise Misconfigured(f"[[source]] number {index + 1} in {origin} has no {key}")
    rest = {key: value for key, value in entry.items() if key not in ("name", "kind", "namespace")}
    return SourceSetting(
        name=str(entry["name"]), kind=str(entry["kind"]), namespace=str(entry["namespace"]), options=rest
    )


def _joining(table: Mapping[str, Any], origin: str) -> list[str]:
    identity = table.get("identity", {})
    systems = identity.get("joining_systems", []) if isinstance(identity, dict) else None
    if not isinstance(systems, list) or not all(isinstance(system, str) and system for system in systems):
        raise Misconfigured(f"joining_systems of [identity] in {origin} is not a list of identifier systems")
    return systems


def _integer(value: Any, key: str, origin: str, low: int, high: int) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise Misconfigured(f"{key} in {origin} is not a whole number") from None
    if not low <= number <= high:
        raise Misconfigured(f"{key} in {origin} is not between {low} and {high}")
    return number


def _url(value: str, key: str, origin: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misconfigured(f"{key} in {origin} is not an http or https URL")
    return value


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def from_environment(**overrides: Any) -> Settings:
    """Settings of this process."""
    return load(os.environ, **overrides)
