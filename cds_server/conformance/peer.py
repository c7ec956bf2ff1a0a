"""How the black-box check reaches a server: HTTP without redirects, and a fresh signed token where one is wanted."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from models.errors import Misconfigured, PeerFailed
from models.nouns import JSON

LIFE = 300
"""Seconds that a token lives."""
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_ALGORITHMS = [*_CURVES.values(), "RS256", "RS384", "RS512", "EdDSA"]


class Client(Protocol):
    """A port: `httpx.Client`, as `cds_server.http` builds it."""

    def request(
        self, method: str, url: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply: ...


class Reply(Protocol):
    status_code: int

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Said:
    """What a server answered. Status 0: nothing, within the time."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes = b""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body. Errors: ValueError where it is not JSON as RFC 8259 has it."""
        return json.loads(self.raw, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class Signer:
    """Signs as a CDS client does (CDS Hooks 2.0.1, Trusting CDS Clients)."""

    def __init__(
        self, key_file: Path, issuer: str, *, kid: str | None = None, jku: str | None = None, tenant: str | None = None
    ) -> None:
        """`key_file`: a private key as PEM, JWK or JWK Set (its first key). Errors: Misconfigured."""
        self._key = _key(key_file)
        self._issuer, self._jku, self._tenant = issuer, jku, tenant
        self._kid = kid or self._key.kid or self._key.thumbprint()
        self._algorithm = _algorithm(self._key)

    def token(self, url: str, **changes: Any) -> str:
        """A fresh token for this URL; `changes` stand over the claims (`...`: left out)."""
        now = int(time.time())
        claims = {"iss": self._issuer, "aud": url, "iat": now, "exp": now + LIFE, "jti": secrets.token_urlsafe(24)}
        if self._tenant:
            claims["tenant"] = self._tenant
        claims = {name: value for name, value in {**claims, **changes}.items() if value is not ...}
        header = {"alg": self._algorithm, "kid": self._kid, "typ": "JWT"} | ({"jku": self._jku} if self._jku else {})
        return jwt.encode(header, claims, self._key, registry=JWSRegistry(algorithms=_ALGORITHMS))


def _key(path: Path) -> RSAKey | ECKey | OKPKey:
    try:
        raw = path.read_bytes()
        key = _read_key(raw)
    except OSError as error:
        raise Misconfigured(f"the file cannot be read ({error.strerror})", where="--key") from None
    except (JoseError, ValueError, IndexError):
        raise Misconfigured("the file is no private key in PEM, JWK or JWK Set", where="--key") from None
    if isinstance(key, OctKey) or not key.is_private:
        raise Misconfigured("a CDS client signs with a private key, never with a shared one", where="--key")
    return key


def _read_key(raw: bytes) -> RSAKey | ECKey | OKPKey | OctKey:
    if raw.lstrip().startswith(b"{"):
        held = json.loads(raw)
        keys = KeySet.import_key_set(held if "keys" in held else {"keys": [held]}).keys
        return keys[0]
    return RSAKey.import_key(raw) if b"RSA" in raw else _pem(raw)


def _pem(raw: bytes) -> RSAKey | ECKey:
    """PKCS #8 does not say in its frame what it holds."""
    try:
        return ECKey.import_key(raw)
    except (JoseError, ValueError, TypeError):
        return RSAKey.import_key(raw)


def _algorithm(key: RSAKey | ECKey | OKPKey) -> str:
    if isinstance(key, ECKey):
        return _CURVES.get(str(key.as_dict(private=False).get("crv")), "ES384")
    return "RS384" if isinstance(key, RSAKey) else "EdDSA"


class Peer:
    """The server under check."""

    def __init__(self, base: str, client: Client, signer: Signer | None = None) -> None:
        self.base = base.rstrip("/")
        self.signer = signer
        self._client = client

    @property
    def discovery_url(self) -> str:
        return f"{self.base}/cds-services"

    def service_url(self, service: str) -> str:
        return f"{self.base}/cds-services/{service}"

    def discover(self) -> Said:
        """Errors: PeerFailed where nobody answers at all."""
        said = self.send("GET", self.discovery_url)
        if not said.status:
            raise PeerFailed("the server does not answer", where="URL")
        return said

    def call(self, service: str, body: JSON) -> Said:
        return self.post(self.service_url(service), json.dumps(body).encode())

    def post(self, url: str, raw: bytes, **headers: str) -> Said:
        told = {"content-type": "application/json"} | {name.replace("_", "-"): each for name, each in headers.items()}
        return self.send("POST", url, raw, told)

    def send(self, method: str, url: str, raw: bytes | None = None, headers: Mapping[str, str] | None = None) -> Said:
        """One exchange, signed unless `headers` bring an authorization of their own (empty: none)."""
        told = dict(headers or {})
        if "authorization" not in told and self.signer is not None and method != "OPTIONS":
            told["authorization"] = f"Bearer {self.signer.token(url)}"
        told = {name: value for name, value in told.items() if value}
        began = time.perf_counter()
        try:
            reply = self._client.request(method, url, content=raw, headers=told)
        except Exception:  # noqa: BLE001 - whatever the client that was handed in raises: there is no answer
            return Said(0, seconds=time.perf_counter() - began)
        headers = {name.lower(): value for name, value in reply.headers.items()}
        return Said(reply.status_code, headers, reply.content, time.perf_counter() - began)
