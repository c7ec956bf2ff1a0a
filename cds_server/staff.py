"""Staff sign in for what is not the SMART app: OpenID Connect, authorization code with PKCE, sessions in the store.

    GET  /staff/sign-in     to the identity provider, and back to `next`
    GET  /staff/callback    code, tokens, ID token checked; a session for whom a role or `allow` names, on record

OpenID Connect Core 1.0, 3.1; RFC 7636; RFC 9207. The provider's tokens are used once and kept nowhere; the session is
of `staff_sessions`. Where everything is open and no provider configured, `sandbox_staff` stands in this place.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cds_server import http
from cds_server.ehrs import ASYMMETRIC
from cds_server.logs import log
from cds_server.settings import Settings, StaffSetting
from cds_server.staff_sessions import Person, StaffSessions, lead
from cds_server.store.store import Store
from cds_server.trust.keysets import FetchedKeys
from cds_server.trust.published import PUBLISHED
from cds_server.trust.tokens import Untrusted, check_signature, take_apart
from models.errors import CdsError, NotAllowed, PeerFailed, Unauthenticated
from models.strict import loads

SIGN_IN_SECONDS = 600
SKEW = 60
CALLBACK = "/staff/callback"
_LIMIT = 1 << 18
_NAME, _VALUES = 200, 500
"""Characters of a name and values of a claim that are kept: a provider may list every group of a hospital."""


class Staff:
    def __init__(
        self, settings: Settings, store: Store, sessions: StaffSessions, clock: Callable[[], float] = time.time
    ) -> None:
        if settings.staff is None:
            raise ValueError("no identity provider is configured")
        self._with: StaffSetting = settings.staff
        self._store = store
        self._clock = clock
        self._public = settings.public_url
        self._sessions = sessions
        self._door = http.Outbound(_places(settings.staff), verify=http.authorities(settings.ca_file))
        self._provider: Mapping[str, str] | None = None
        self._keys: FetchedKeys | None = None

    async def aclose(self) -> None:
        await self._door.aclose()

    # -- the two doors -------------------------------------------------------------------------------------------------

    async def sign_in(self, request: Request) -> Response:
        provider = await self._discovered()
        wanted = request.query_params.get("next", "/staff")
        pending = {
            "state": secrets.token_urlsafe(24),
            "nonce": secrets.token_urlsafe(24),
            "verifier": secrets.token_urlsafe(48),
            "next": lead(wanted),
            "until": int(self._clock()) + SIGN_IN_SECONDS,
        }
        to = prepare_grant_uri(
            provider["authorization_endpoint"],
            client_id=self._with.client_id,
            response_type="code",
            redirect_uri=self._public + CALLBACK,
            scope="openid profile",
            state=pending["state"],
            nonce=pending["nonce"],
            code_challenge=create_s256_code_challenge(pending["verifier"]),
            code_challenge_method="S256",
        )
        response = RedirectResponse(to, 302, headers={"Cache-Control": "no-store"})
        self._sessions.set(response, "cds-sign-in", self._sealed(pending), SIGN_IN_SECONDS, path="/staff")
        return response

    async def callback(self, request: Request) -> Response:
        pending = self._opened(request.cookies.get("cds-sign-in", ""))
        code = self._code(request, pending)
        try:
            claims = await self._signed_in(code, pending)
        except Untrusted as error:
            raise Unauthenticated(cause=f"staff: {error}") from None
        values = self._values(claims)
        name = claims.get("name") or claims.get("preferred_username") or claims["sub"]
        operator = not values.isdisjoint(self._with.allow)
        person = Person(str(claims["sub"]), str(name)[:_NAME], tuple(sorted(values)), operator)
        try:
            response = await self._sessions.begin(person, self._public + str(pending["next"]))
        except NotAllowed:
            log().warning("staff refused", what=f"{self._with.claim} allows nothing here")
            raise
        response.delete_cookie("cds-sign-in", path="/staff")
        return response

    # -- OpenID Connect ------------------------------------------------------------------------------------------------

    async def _discovered(self) -> Mapping[str, str]:
        """The provider's own description, asked once (OpenID Connect Discovery 1.0, 4)."""
        if self._provider is None:
            issuer = self._with.issuer
            found = await self._ask(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            if found.get("issuer") != issuer or not all(isinstance(found.get(name), str) for name in names):
                raise PeerFailed("the identity provider describes another issuer, or not enough")
            if not all(self._door.allows(found[name]) for name in names):
                raise PeerFailed("the identity provider names endpoints on hosts that [staff] does not list")
            self._provider = found
            self._keys = FetchedKeys(found["jwks_uri"], self._door)
        return self._provider

    async def _signed_in(self, code: str, pending: Mapping[str, Any]) -> Mapping[str, Any]:
        """The claims of the ID token that the code is worth (OpenID Connect Core 1.0, 3.1.3)."""
        provider = await self._discovered()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._public + CALLBACK,
            "code_verifier": str(pending["verifier"]),
        }
        given = _object(
            await self._door.post_form(
                provider["token_endpoint"], form, (self._with.client_id, self._with.client_secret), limit=_LIMIT
            )
        )
        presented = take_apart(str(given.get("id_token", "")), typ=False)
        if presented.algorithm not in ASYMMETRIC or self._keys is None:
            raise Untrusted("alg is not asymmetric")
        key = await self._keys.key(presented.kid, 3.0)
        if key is None or key.thumbprint in PUBLISHED:
            raise Untrusted("kid is not in the key set")
        check_signature(presented, key)
        claims: Mapping[str, Any] = presented.claims
        checked = CodeIDToken(
            dict(presented.claims),
            {"alg": presented.algorithm},
            {
                "iss": {"essential": True, "value": self._with.issuer},
                "aud": {"essential": True, "value": self._with.client_id},
            },
            {
                "nonce": pending["nonce"],
                "client_id": self._with.client_id,
                "access_token": given.get("access_token"),
            },
        )
        try:
            checked.validate(now=int(self._clock()), leeway=SKEW)
        except Exception as error:  # noqa: BLE001 - whichever of its kinds: nobody is signed in by it
            raise Untrusted(f"the ID token is refused ({type(error).__name__})") from None
        return claims

    def _code(self, request: Request, pending: Mapping[str, Any]) -> str:
        given = request.query_params
        if not hmac.compare_digest(given.get("state", ""), str(pending["state"])):
            raise Unauthenticated(cause="staff: state is another one's")
        if given.get("iss", self._with.issuer) != self._with.issuer:  # RFC 9207: a mix-up of providers
            raise Unauthenticated(cause="staff: iss is another provider's")
        if not given.get("code"):
            raise Unauthenticated(cause="staff: the provider gave no code")
        return given["code"]

    def _values(self, claims: Mapping[str, Any]) -> frozenset[str]:
        said = claims.get(self._with.claim)
        values = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        return frozenset(map(str, values[:_VALUES]))

    async def _ask(self, url: str) -> Mapping[str, Any]:
        return _object(await self._door.get(url, {"Accept": "application/json"}, limit=_LIMIT))

    # -- the cookie of a sign-in ---------------------------------------------------------------------------------------

    def _sealed(self, pending: Mapping[str, Any]) -> str:
        body = json.dumps(pending).encode()
        return base64.urlsafe_b64encode(self._store.vault.index("staff-sign-in", body) + body).decode()

    def _opened(self, cookie: str) -> Mapping[str, Any]:
        """What `sign_in` put into the cookie, by whichever worker. Errors: Unauthenticated."""
        try:
            raw = base64.urlsafe_b64decode(cookie)
        except ValueError:
            raw = b""
        mac, body = raw[:32], raw[32:]
        if not hmac.compare_digest(mac, self._store.vault.index("staff-sign-in", body)):
            raise Unauthenticated(cause="staff: no sign-in was begun here")
        pending: Mapping[str, Any] = json.loads(body)
        if pending["until"] <= self._clock():
            raise Unauthenticated(cause="staff: the sign-in took too long")
        return pending


def _places(setting: StaffSetting) -> list[str]:
    """The issuer's own host, and the hosts that the configuration adds."""
    scheme, _, rest = setting.issuer.partition("://")
    return [f"{scheme}://{rest.partition('/')[0]}", *(f"https://{host}" for host in setting.hosts)]


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        value = loads(raw, what="the identity provider's answer")
    except CdsError:
        value = None
    if not isinstance(value, dict):
        raise PeerFailed("the identity provider's answer is not a JSON object")
    return value
