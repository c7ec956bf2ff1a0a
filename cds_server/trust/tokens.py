"""A client's JWT: taken apart strictly, held against what is registered, its signature checked.

CDS Hooks 2.0.1, Trusting CDS Clients; RFC 7515, 7519 and 8725. Each function raises `Untrusted` with a cause for the
log; the caller is told nothing but 401.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key as JoseKey
from joserfc.jwk import RSAKey, import_key

from cds_server.ehrs import Ehr
from models.errors import Malformed
from models.nouns import JSON
from models.strict import loads

MAX_TOKEN = 8192
MAX_ID = 512
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_CURVE = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
"""RFC 7518, 3.4: each ECDSA algorithm has its one curve."""
_PUBLIC = ("kty", "crv", "x", "y", "n", "e")
_MIN_RSA = 2048
_LATEST = 1 << 40
_ENDS = ("", "", "AQgw", "AEIMQUYcgkosw048")
"""Last characters of base64 whose unused bits are zero, by how many stand after the last whole four (RFC 4648, 3.5)."""
_BITS = (256, 384, 512)
_RULES = jws.JWSRegistry(algorithms=[*_CURVE, *(f"RS{bits}" for bits in _BITS), *(f"PS{bits}" for bits in _BITS)])
"""What joserfc asks of a header, and its algorithms. A token is taken apart and its signature checked by these, not by
joserfc's own reading of a token, which parses both halves again."""


class Untrusted(Exception):
    """Why a token says nothing; in our own words, for the log."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A token as it was presented; nothing in it is true yet."""

    token: str
    algorithm: str
    kid: str
    jku: str | None
    regular: bool
    """The header holds what a signature's header may, and is as short as one."""
    claims: JSON


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One public key of an issuer."""

    kid: str
    key: JoseKey
    algorithms: frozenset[str]
    """Those that it may be used for."""
    thumbprint: str
    """RFC 7638."""


def take_apart(token: str, *, typ: bool = True, kid: bool = True) -> Presented:
    """A compact JWS. Never looks at keys that it brings along (`jwk`, `x5c`, `x5u`).

    `typ`: it must say that it is a JWT; so in CDS Hooks, not in OpenID Connect. `kid`: it must name its key, which an
    ID token may leave out where its issuer has one key only (OpenID Connect Core 1.0, 10.1); then it is empty.
    """
    if len(token) > MAX_TOKEN or not _FORM.fullmatch(token):
        raise Untrusted("not a compact JWS")
    first, second, _ = token.split(".")
    return Presented(token, *_header(first, typ, kid), _object(second, "payload"))


@functools.lru_cache(maxsize=64)
def _header(part: str, typ: bool, kid: bool) -> tuple[str, str, str | None, bool]:
    """`alg`, `kid`, `jku`, and whether it is regular; of all tokens that a key signs, the header is the same text."""
    header = _object(part, "header")
    if "crit" in header:  # RFC 7515, 4.1.11: what must be understood and is not
        raise Untrusted("header has crit")
    if typ and str(header.get("typ", "")).upper() != "JWT":
        raise Untrusted("typ is not JWT")
    jku = header.get("jku")
    if jku is not None and not isinstance(jku, str):
        raise Untrusted("jku is not text")
    named = _id(header, "kid") if kid or "kid" in header else ""
    try:
        _RULES.validate_header_size(part.encode())
        _RULES.check_header(header)
    except (JoseError, ValueError):
        return _id(header, "alg"), named, jku, False
    return _id(header, "alg"), named, jku, True


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        value = loads(_decoded(part), what=what)
    except (ValueError, Malformed):
        raise Untrusted(f"{what} is not JSON") from None
    if not isinstance(value, dict):
        raise Untrusted(f"{what} is not an object")
    return value


def _decoded(part: str) -> bytes:
    """The bytes of one part (RFC 7515, 2). Errors: ValueError where another text would say the same."""
    over = len(part) % 4
    if over and part[-1] not in _ENDS[over]:
        raise ValueError("bits that say nothing are set")
    return base64.urlsafe_b64decode(part + "=" * (-over % 4))


def _id(members: JSON, name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise Untrusted(f"{name} is missing")
    return value


# ---- claims ----------------------------------------------------------------------------------------------------------


def check_claims(claims: JSON, ehr: Ehr, audiences: Sequence[str], now: float) -> str:
    """Hold the claims against a registration, in the order of the best practices but for `iss`, which chose it.

    `audiences` are the URLs of the door that was called. Gives the `jti`.
    """
    named = claims.get("aud")
    if isinstance(named, str):
        named = [named]
    if not isinstance(named, list) or not any(isinstance(each, str) and each in audiences for each in named):
        raise Untrusted("aud is another endpoint")
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    if expires + ehr.skew <= now:
        raise Untrusted("exp has passed")
    if issued - ehr.skew > now:
        raise Untrusted("iat lies in the future")
    if expires <= issued or expires - issued > ehr.lifetime:
        raise Untrusted("exp is too far from iat")
    if "nbf" in claims and _time(claims, "nbf") - ehr.skew > now:
        raise Untrusted("nbf lies in the future")
    if ehr.tenants and claims.get("tenant") not in ehr.tenants:
        raise Untrusted("tenant is not registered")
    return _id(claims, "jti")


def _time(claims: JSON, name: str) -> float:
    """NumericDate (RFC 7519, 2): seconds since 1970, also with a fraction."""
    value = claims.get(name)
    if value is None or isinstance(value, (bool, str, list, dict)) or not 0 <= value < _LATEST:
        raise Untrusted(f"{name} is missing")
    return float(value)


# ---- keys and signatures ---------------------------------------------------------------------------------------------


def check_signature(presented: Presented, key: SigningKey) -> None:
    """By the one algorithm that the header names and the key is for: a public key is never taken as a shared secret."""
    if presented.algorithm not in key.algorithms:
        raise Untrusted("alg is not one of the key's")
    signed, _, signature = presented.token.rpartition(".")
    try:
        _RULES.validate_signature_size(signature.encode())
        algorithm = _RULES.get_alg(presented.algorithm)
        algorithm.check_key(key.key)
        good = presented.regular and algorithm.verify(signed.encode(), _decoded(signature), key.key)
    except (JoseError, ValueError):
        good = False
    if not good:
        raise Untrusted("the signature is not of this key")


def read_keys(raw: bytes) -> dict[str, SigningKey]:
    """The usable keys of a JWK Set (RFC 7517), by `kid`.

    Left out: keys without `kid` or with one that stands twice, for something else than signing, symmetric, weak, or
    with their private part (everybody could sign). Errors: Untrusted where it is no JWK Set.
    """
    try:
        body = loads(raw, what="the key set")
    except Malformed:
        raise Untrusted("the key set is not JSON") from None
    listed = body.get("keys") if isinstance(body, dict) else None
    if not isinstance(listed, list):
        raise Untrusted("the key set has no keys")
    found: dict[str, SigningKey | None] = {}
    for each in listed[:100]:
        key = _signing_key(each) if isinstance(each, dict) else None
        if key is not None:
            found[key.kid] = None if key.kid in found else key
    return {kid: key for kid, key in found.items() if key is not None}


def _signing_key(members: dict[str, Any]) -> SigningKey | None:
    kid, kind = members.get("kid"), members.get("kty")
    if not isinstance(kid, str) or not kid or kind not in ("EC", "RSA", "OKP") or "d" in members:
        return None
    if members.get("use", "sig") != "sig" or "verify" not in members.get("key_ops", ["verify"]):
        return None
    algorithms = _algorithms(kind, members.get("crv"))
    if "alg" in members:
        algorithms &= {members["alg"]} if isinstance(members["alg"], str) else set()
    public = {name: members[name] for name in _PUBLIC if isinstance(members.get(name), str)}
    try:
        key = import_key(public)
        thumbprint = key.thumbprint()
        weak = isinstance(key, RSAKey) and key.raw_value.key_size < _MIN_RSA
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None if weak or not algorithms else SigningKey(kid, key, frozenset(algorithms), thumbprint)


def _algorithms(kind: str, curve: Any) -> set[str]:
    if kind == "RSA":
        return {f"{family}{bits}" for family in ("RS", "PS") for bits in _BITS}
    return {name for name, its in _CURVE.items() if its == curve}
