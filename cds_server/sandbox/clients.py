"""Apps that are registered at the sandbox, and how they prove who they are at the token endpoint.

SMART App Launch 2.2: public clients by PKCE alone, confidential ones by a secret (HTTP Basic, RFC 6749 2.3.1) or by a
signed assertion (Client Authentication: Asymmetric).
"""

from __future__ import annotations

import base64
import hmac
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from urllib.parse import unquote_plus

from cds_server.ehrs import Ehr
from cds_server.sandbox.scopes import PLAIN
from cds_server.trust.tokens import SigningKey, Untrusted, check_claims, check_signature, take_apart

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ("RS384", "ES384")
"""The two that every server takes (2.2, Asymmetric, Registering)."""
ASSERTION_SECONDS = 300
KEY_SECONDS = 5.0
"""Until an app's key set is there."""
MOST_ASSERTIONS = 5000


class Proof(StrEnum):
    """How a client proves itself; the names of RFC 8414."""

    NONE = "none"
    SECRET = "client_secret_basic"  # noqa: S105 - the method's name
    KEY = "private_key_jwt"


class Keys(Protocol):
    """`cds_server.trust.keysets`."""

    async def key(self, kid: str, patience: float) -> SigningKey | None: ...


@dataclass(frozen=True, slots=True)
class App:
    """A registered client."""

    id: str
    name: str
    proof: Proof
    launch_url: str
    redirect_uris: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)
    keys: Keys | None = None
    scopes: tuple[str, ...] = PLAIN


class Unproved(Exception):
    """The client is not who it says (`invalid_client`); why, in our own words."""


class Apps:
    """The registry."""

    def __init__(self, apps: Sequence[App], token_url: str) -> None:
        self._apps = {app.id: app for app in apps}
        self._token_url = token_url
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()

    def all(self) -> Sequence[App]:
        return tuple(self._apps.values())

    def get(self, id_: str) -> App | None:
        return self._apps.get(id_)

    async def proved(self, form: Mapping[str, str], authorization: str | None, now: float) -> App:
        """The client of a token request. Errors: Unproved."""
        if "client_assertion" in form or "client_assertion_type" in form:
            if authorization:
                raise Unproved("more than one way to prove a client")
            return await self._by_key(form, now)
        if authorization:
            return self._by_secret(authorization)
        app = self._apps.get(form.get("client_id", ""))
        if app is None or app.proof is not Proof.NONE:
            raise Unproved("this client has to prove who it is")
        return app

    def _by_secret(self, authorization: str) -> App:
        scheme, _, encoded = authorization.partition(" ")
        try:
            user, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            user = secret = ""
        app = self._apps.get(unquote_plus(user))
        if scheme.lower() != "basic" or app is None or app.proof is not Proof.SECRET or app.secret is None:
            raise Unproved("no such client with a secret")
        if not hmac.compare_digest(app.secret.encode(), unquote_plus(secret).encode()):
            raise Unproved("the secret is another one")
        return app

    async def _by_key(self, form: Mapping[str, str], now: float) -> App:
        if form.get("client_assertion_type") != ASSERTION:
            raise Unproved("client_assertion_type is not that of a JWT")
        try:
            presented = take_apart(form.get("client_assertion", ""))
            claims = presented.claims
            app = self._apps.get(str(claims.get("iss")))
            if app is None or app.proof is not Proof.KEY or app.keys is None or claims.get("sub") != app.id:
                raise Untrusted("iss and sub are no client with keys")
            if form.get("client_id", app.id) != app.id:
                raise Untrusted("client_id is another client")
            rules = Ehr(namespace=app.id, lifetime=ASSERTION_SECONDS, skew=30)
            known = {"iat": int(now), **claims}  # iat is not asked for: then only exp bounds it
            jti = check_claims(known, rules, [self._token_url], now)
            if presented.algorithm not in ALGORITHMS:
                raise Untrusted("alg is neither RS384 nor ES384")
            key = await app.keys.key(presented.kid, KEY_SECONDS)
            if key is None:
                raise Untrusted("kid is not in the client's key set")
            check_signature(presented, key)
        except Untrusted as error:
            raise Unproved(str(error)) from None
        if (app.id, jti) in self._seen:
            raise Unproved("jti was used before")
        self._seen[app.id, jti] = now
        while len(self._seen) > MOST_ASSERTIONS:
            self._seen.popitem(last=False)
        return app
