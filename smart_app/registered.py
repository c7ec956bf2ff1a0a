"""The app as one EHR registered it: where it is launched from, who it is there, and how it proves that.

SMART App Launch 2.2, Register App with EHR: a fixed launch URL, one exact redirect URL, an authentication method. The
configuration makes it (`cds_server.ehrs`); nothing that a request says is ever added to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

LAUNCH, CALLBACK, START = "/app/launch", "/app/callback", "/app"
"""Below the public URL: what is registered with the EHR as launch URL and redirect URL; and the standalone start."""
IDLE, LONGEST = 1800, 8 * 3600
"""Seconds without a request, and in all, after which a session is over."""
_PORTS: Mapping[str, int] = {"https": 443, "http": 80}


class Method(StrEnum):
    """How the app proves itself at the token endpoint (SMART App Launch 2.2, Client Authentication)."""

    PUBLIC = "public"
    SYMMETRIC = "symmetric"
    ASYMMETRIC = "asymmetric"


@dataclass(frozen=True, slots=True)
class Registered:
    """One registration. Holding one means that it was checked."""

    namespace: str
    title: str
    """The EHR's name for people who choose it."""
    base: str
    """Its FHIR base URL, without a slash at its end: the one `iss` that it may launch with, and the `aud` we send."""
    client_id: str
    method: Method = Method.ASYMMETRIC
    secret: str | None = field(default=None, repr=False)
    """Of a symmetric client."""
    keys: str | None = None
    """Whose keys sign for an asymmetric one (`cds keys new --for`); None: the general set."""
    scopes: tuple[str, ...] = ()
    """Clinical scopes; none: reading the Patient, in the version that the EHR speaks."""
    hosts: tuple[str, ...] = ()
    """Where its authorization server is, besides the host of its FHIR base."""
    private_network: bool = False
    """Its hosts may lead to private addresses."""
    audience: str | None = None
    """What the assertion's `aud` is, where it is not the token URL (FAPI 2.0: the issuer)."""
    issuer: str | None = None
    """The one issuer of its ID tokens; None: the one that its discovery names."""
    ancestors: tuple[str, ...] = ()
    """Origins that may frame the app's pages."""
    style_hosts: tuple[str, ...] = ()
    """Where its `smart_style_url` may be, besides the host of its FHIR base."""
    image_viewer: str | None = None
    """URL template of the hospital's image viewer: `{study}`, `{series}`, `{accession}`, `{patient}`."""
    idle: int = IDLE
    longest: int = LONGEST
    post: bool = False
    """The authorization request is sent as a form, where the EHR says that it takes one."""
    offline: bool = False
    """A refresh token is asked for that outlives the EHR's own session."""


def normal(url: str) -> str | None:
    """A base URL in one spelling: scheme and host in lower case, no default port, no slash at its end (RFC 3986, 6.2).

    None for what is no base URL: with a query, a fragment, a user, signs that programs read differently. Two spellings
    that differ in anything else are two servers.
    """
    if not url.isascii() or not url.isprintable() or any(sign in url for sign in ' \\<>"^`{}|?#@'):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0 or parts.netloc.endswith(":"):
        return None
    if "//" in parts.path or any(step in (".", "..") for step in parts.path.lower().replace("%2e", ".").split("/")):
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"
    return f"{parts.scheme}://{place}{parts.path.removesuffix('/')}"


def by_issuer(iss: str, registered: Mapping[str, Registered]) -> Registered | None:
    """Whose launch this is: the registration whose base `iss` names exactly. Nothing is asked of anybody here."""
    asked = normal(iss)
    return next((each for each in registered.values() if asked is not None and normal(each.base) == asked), None)
