"""Configuration: `cds.toml`, and the environment over it. Read once, at the door; inside, settings are arguments.

A missing or wrong value stops the start with one sentence that names the key and the file. Secrets come from the
environment or from files, and are never printed.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cds_server.access.settings import AccessSettings, read_access
from cds_server.configured import Table, loopback, reachable, unseal_by
from cds_server.ehrs import Ehr, check_apps, check_issuers, namespace_of, origins, read_ehr
from cds_server.ledger_settings import (
    CHECKPOINT_SECONDS,
    AnchorSetting,
    WitnessSetting,
    read_anchors,
    read_ledger,
    read_witnesses,
)
from cds_server.master_key import read_master
from cds_server.retention_settings import Retention, read_retention
from cds_server.store.key_store import Master
from models.errors import Misconfigured

__all__ = ["Ehr", "Settings", "SourceSetting", "StaffSetting", "from_environment", "load", "loopback"]


@dataclass(frozen=True, slots=True)
class SourceSetting:
    """A way in (`[[source]]`) or out (`[[destination]]`), before anybody who knows its kind has read its options."""

    name: str
    kind: str
    namespace: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StaffSetting:
    """The identity provider by which staff sign in (OpenID Connect), and who of them may."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    claim: str = "groups"
    """Of the ID token: what it says somebody is."""
    allow: tuple[str, ...] = ()
    """Values of that claim that may look at metrics and ledger; none listed: nobody."""
    hosts: tuple[str, ...] = ()
    """Host names where the provider keeps its endpoints, besides the issuer's own."""


@lru_cache(maxsize=64)
def _unnamed(namespace: str) -> Ehr:
    """An EHR that the configuration does not name: asked for several times in each call."""
    return Ehr(namespace=namespace)


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
    conformance: bool = False
    """The conformance service answers the hooks that no clinical service uses: for sandboxes and tests only."""
    hygiene: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Service -> its rules as they stand in the file; `hygiene` knows what they mean."""
    cors_origins: frozenset[str] = frozenset()
    """Origins whose pages may call the CDS Hooks doors."""
    ops_token: str | None = field(default=None, repr=False)
    """Opens metrics and ledger from elsewhere than this machine."""
    staff: StaffSetting | None = None
    destinations: tuple[SourceSetting, ...] = ()
    """Where results go by themselves; `namespace` is the one whose patients the receiver knows."""
    ca_file: Path | None = None
    """Certificate authorities that we believe about peers, instead of the public ones (a hospital's own)."""
    checkpoint_seconds: int = CHECKPOINT_SECONDS
    """Between two signed heads of the log, where entries came; 0: only by hand."""
    witnesses: tuple[WitnessSetting, ...] = ()
    anchors: tuple[AnchorSetting, ...] = ()
    retention: Retention = field(default_factory=Retention)
    master: Master | None = None
    """What seals the keys at rest; None: they stand in the clear in the key store."""
    access: AccessSettings = field(default_factory=AccessSettings)

    def ehr(self, namespace: str) -> Ehr:
        for ehr in self.ehrs:
            if ehr.namespace == namespace:
                return ehr
        return _unnamed(namespace)

    @property
    def model_roots(self) -> tuple[Path, ...]:
        """Where enrolled and recalibrated ModelVersions stand, besides the shipped ones."""
        return (self.data_dir / "models",)


_TOP = frozenset(
    {"data_dir", "database_url", "public_url", "host", "port", "trust", "ehr", "source", "identity", "hygiene"}
    | {
        "destination",
        "deadline_ms",
        "max_body",
        "log_level",
        "actors",
        "conformance",
        "cors_origins",
        "ops_token_file",
        "staff",
        "ca_file",
        "ledger",
        "witness",
        "master_key",
        "anchor",
        "retention",
        "access",
    }
)
MIN_TOKEN = 16
_DATABASES = ("sqlite:///", "postgresql+psycopg://")
_STAFF = frozenset({"issuer", "client_id", "client_secret_file", "claim", "allow", "hosts"})


def load(environ: Mapping[str, str], **overrides: Any) -> Settings:
    """Settings from `CDS_CONFIG` (default `cds.toml` where it exists), `CDS_*` variables, then command-line overrides.

    Raises: Misconfigured, one sentence that names the key and the file.
    """
    path, table = _file(environ)
    origin = path.name if path else "environment"
    _known_only(table, _TOP, "", origin)
    asked = _Asked(environ, table, overrides, origin)
    master = read_master(table.get("master_key"), origin, environ)
    unseal_by(master)
    data_dir = Path(asked.text("data_dir", "./var"))
    ehrs = tuple(read_ehr(entry, index, origin) for index, entry in enumerate(_tables(table, "ehr", origin)))
    trust = asked.text("trust", "jwt")
    host, port = asked.text("host", "127.0.0.1"), asked.integer("port", 8000, 0, 65535)
    settings = Settings(
        origin=origin,
        data_dir=data_dir,
        database_url=asked.text("database_url", f"{_DATABASES[0]}{data_dir / 'cds.db'}"),
        public_url=asked.text("public_url", f"http://{_bracketed(host)}:{port}").rstrip("/"),
        host=host,
        port=port,
        trust=trust,
        ehrs=tuple(
            read_ehr(entry, index, origin, environ) for index, entry in enumerate(_tables(table, "ehr", origin))
        ),
        sources=_named(table, "source", origin),
        destinations=_named(table, "destination", origin),
        joining_systems=frozenset(_joining(table, origin)),
        deadline_ms=asked.integer("deadline_ms", 500, 10, 60_000),
        max_body=asked.integer("max_body", 4 << 20, 1024, 1 << 30),
        log_level=asked.text("log_level", "info").lower(),
        actors=frozenset(_texts(table.get("actors", []), "actors", origin)),
        conformance=asked.flag("conformance", asked.text("trust", "jwt") == "open"),
        hygiene=_hygiene(table, origin),
        cors_origins=origins(asked.listed("cors_origins"), asked.named("cors_origins")),
        ops_token=Table(table, "the file", origin).secret("ops_token", environ, "CDS_OPS_TOKEN"),
        staff=_staff(table, origin, environ),
        ca_file=asked.file("ca_file"),
        checkpoint_seconds=read_ledger(table.get("ledger", {}), origin),
        witnesses=read_witnesses(_tables(table, "witness", origin), origin),
        anchors=read_anchors(_tables(table, "anchor", origin), origin),
        retention=read_retention(table.get("retention"), origin),
        master=master,
        access=read_access(table.get("access"), origin, [ehr.namespace for ehr in ehrs], open_trust=trust == "open"),
    )
    _check(settings, asked)
    return settings


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where a value may come from: the command line, then the environment, then the file."""

    environ: Mapping[str, str]
    table: Mapping[str, Any]
    overrides: Mapping[str, Any]
    origin: str

    def named(self, key: str) -> str:
        """The key and where its value stands, for a complaint."""
        if self.overrides.get(key) is not None:
            return f"{key} on the command line"
        variable = f"CDS_{key.upper()}"
        return f"{variable} in the environment" if variable in self.environ else f"{key} in {self.origin}"

    def text(self, key: str, default: str) -> str:
        value = self._value(key, default)
        if not isinstance(value, (str, Path)) or not str(value):
            raise Misconfigured(f"{self.named(key)} is not text")
        return str(value)

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self._value(key, default)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and not (isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value)):
            raise Misconfigured(f"{self.named(key)} is not a whole number")
        if not low <= int(value) <= high:
            raise Misconfigured(f"{self.named(key)} is not between {low} and {high}")
        return int(value)

    def file(self, key: str) -> Path | None:
        value = self._value(key, None)
        if value is None:
            return None
        if not isinstance(value, str) or not Path(value).is_file():
            raise Misconfigured(f"{self.named(key)} names no file")
        return Path(value)

    def listed(self, key: str) -> tuple[str, ...]:
        """A list in the file; words in the environment."""
        variable = self.environ.get(f"CDS_{key.upper()}")
        if variable is not None:
            return tuple(variable.split())
        return tuple(_texts(self.table.get(key, []), key, self.origin))

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        known = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
        if not isinstance(known, bool):
            raise Misconfigured(f"{self.named(key)} is neither true nor false")
        return known

    def _value(self, key: str, default: Any) -> Any:
        if self.overrides.get(key) is not None:
            return self.overrides[key]
        return self.environ.get(f"CDS_{key.upper()}", self.table.get(key, default))


def _check(settings: Settings, asked: _Asked) -> None:
    if settings.trust not in ("open", "jwt"):
        raise Misconfigured(f"{asked.named('trust')} is neither 'open' nor 'jwt'")
    public_host = _host_of(settings.public_url)
    if public_host is None:
        raise Misconfigured(f"{asked.named('public_url')} is not an http or https URL")
    if settings.trust == "open" and not (loopback(settings.host) and loopback(public_host)):
        raise Misconfigured(
            f"{asked.named('trust')} lets anybody in: it is refused unless both host and public_url are loopback"
        )
    check_issuers(settings.ehrs, settings.origin)
    check_apps(settings.ehrs, settings.public_url, settings.origin)
    if settings.ops_token is not None and len(settings.ops_token) < MIN_TOKEN:
        raise Misconfigured(f"the token for metrics and ledger is shorter than {MIN_TOKEN} characters")
    if settings.conformance and settings.trust != "open" and not all(ehr.test for ehr in settings.ehrs):
        raise Misconfigured(
            f"{asked.named('conformance')} shows cards about no patient: it is refused unless trust is 'open' or every "
            "[[ehr]] is one for tests"
        )
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise Misconfigured(f"{asked.named('log_level')} is none of debug, info, warning, error")
    if not settings.database_url.startswith(_DATABASES):
        raise Misconfigured(f"{asked.named('database_url')} is neither {' nor '.join(_DATABASES)}")
    for key, names in (
        ("[[ehr]] tables", [ehr.namespace for ehr in settings.ehrs]),
        ("[[source]] tables", [source.name for source in settings.sources]),
        ("[[destination]] tables", [each.name for each in settings.destinations]),
    ):
        if len(set(names)) != len(names):
            what = "namespace" if "ehr" in key else "name"
            raise Misconfigured(f"two {key} in {settings.origin} have the same {what}")


def _file(environ: Mapping[str, str]) -> tuple[Path | None, dict[str, Any]]:
    named = environ.get("CDS_CONFIG")
    path = Path(named or "cds.toml")
    if not path.is_file():
        if named:
            raise Misconfigured(f"CDS_CONFIG names {path.name}, which is no file")
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


def _named(table: Mapping[str, Any], key: str, origin: str) -> tuple[SourceSetting, ...]:
    return tuple(
        _source(entry, f"[[{key}]] number {n}", origin) for n, entry in enumerate(_tables(table, key, origin), 1)
    )


def _source(entry: Mapping[str, Any], named: str, origin: str) -> SourceSetting:
    text = {key: _text(entry, key, named, origin) for key in ("name", "kind")}
    for key, value in text.items():
        if not value:
            raise Misconfigured(f"{named} in {origin} has no {key}")
    rest = {key: value for key, value in entry.items() if key not in ("name", "kind", "namespace")}
    return SourceSetting(str(text["name"]), str(text["kind"]), namespace_of(Table(entry, named, origin)), rest)


def _joining(table: Mapping[str, Any], origin: str) -> list[str]:
    identity = table.get("identity", {})
    if not isinstance(identity, dict):
        raise Misconfigured(f"identity in {origin} is not a table: write [identity]")
    _known_only(identity, frozenset({"joining_systems"}), " of [identity]", origin)
    return _texts(identity.get("joining_systems", []), "joining_systems of [identity]", origin)


def _staff(table: Mapping[str, Any], origin: str, environ: Mapping[str, str]) -> StaffSetting | None:
    entry = table.get("staff")
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise Misconfigured(f"staff in {origin} is not a table: write [staff]")
    staff = Table(entry, "[staff]", origin)
    staff.known_only(_STAFF)
    secret = staff.secret("client_secret", environ, "CDS_STAFF_CLIENT_SECRET")
    if secret is None:
        raise Misconfigured(f"[staff] in {origin} has no client_secret_file (nor is CDS_STAFF_CLIENT_SECRET set)")
    if not reachable(staff.required("issuer")):
        raise staff.wrong("issuer", "is not an https URL (http only on loopback)")
    return StaffSetting(
        issuer=staff.required("issuer"),
        client_id=staff.required("client_id"),
        client_secret=secret,
        claim=staff.text("claim") or "groups",
        allow=staff.texts("allow"),
        hosts=staff.texts("hosts"),
    )


def _hygiene(table: Mapping[str, Any], origin: str) -> Mapping[str, Mapping[str, Any]]:
    rules = table.get("hygiene", {})
    if not isinstance(rules, dict) or not all(isinstance(each, dict) for each in rules.values()):
        raise Misconfigured(f"hygiene in {origin} is not a table of tables: write [hygiene.NAME]")
    return rules


def _text(entry: Mapping[str, Any], key: str, named: str, origin: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise Misconfigured(f"{key} of {named} in {origin} is not text")
    return value


def _texts(value: Any, named: str, origin: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(member, str) and member for member in value):
        raise Misconfigured(f"{named} in {origin} is not a list of texts")
    return value


def _known_only(table: Mapping[str, Any], known: frozenset[str], of: str, origin: str) -> None:
    if unknown := sorted(set(table) - known):
        raise Misconfigured(f"unknown key {unknown[0]!r}{of} in {origin}")


def _host_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.hostname if parts.scheme in ("http", "https") else None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def from_environment(**overrides: Any) -> Settings:
    """Settings of this process."""
    return load(os.environ, **overrides)
