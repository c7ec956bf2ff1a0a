"""Staff sign in for what is not the SMART app: OpenID Connect, authorization code with PKCE, sessions in the store.

    GET  /staff/sign-in     to the identity provider, and back to `next`
    GET  /staff/callback    code, tokens, ID token checked; a session where the configured claim says so, on record
    POST /staff/sign-out    the session is gone, for all workers
    GET  /staff             who is signed in

OpenID Connect Core 1.0, 3.1; RFC 7636; RFC 9207. The provider's tokens are used once and kept nowhere. The cookie is
random; the store has its keyed digest.
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
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cds_server import http, wire
from cds_server.ehrs import ASYMMETRIC
from cds_server.logs import log
from cds_server.settings import Settings, StaffSetting
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from cds_server.trust.keysets import FetchedKeys
from cds_server.trust.published import PUBLISHED
from cds_server.trust.tokens import Untrusted, check_signature, take_apart
from models.errors import CdsError, NotAllowed, PeerFailed, Unauthenticated
from models.strict import loads

SESSION_SECONDS = 8 * 3600
SIGN_IN_SECONDS = 600
SKEW = 60
CALLBACK = "/staff/callback"
_LIMIT = 1 << 18
_NEXT = ("/staff", "/metrics", "/ledger/")
"""Where a sign-in may lead: places of our own, by name."""


class Staff:
    def __init__(self, settings: Settings, store: Store, clock: Callable[[], float] = time.time) -> None:
        if settings.staff is None:
            raise ValueError("no identity provider is configured")
        self._with: StaffSetting = settings.staff
        self._store = store
        self._clock = clock
        self._public = settings.public_url
        self._secure = settings.public_url.startswith("https:")
        self._cookie = "__Host-cds-staff" if self._secure else "cds-staff"
        self._door = http.Outbound(_places(settings.staff), verify=http.authorities(settings.ca_file))
        self._provider: Mapping[str, str] | None = None
        self._keys: FetchedKeys | None = None

    async def aclose(self) -> None:
        await self._door.aclose()

    def subject(self, request: Request) -> str | None:
        """Who is signed in with this request's cookie; None: nobody."""
        cookie = request.cookies.get(self._cookie)
        if not cookie:
            return None
        found = self._store.reads.query(
            "SELECT subject FROM staff_session WHERE digest = ? AND until > ?",
            (self._digest(cookie), int(self._clock())),
        )
        return str(found[0][0]) if found else None

    # -- the four doors ------------------------------------------------------------------------------------------------

    async def sign_in(self, request: Request) -> Response:
        provider = await self._discovered()
        wanted = request.query_params.get("next", "/staff")
        pending = {
            "state": secrets.token_urlsafe(24),
            "nonce": secrets.token_urlsafe(24),
            "verifier": secrets.token_urlsafe(48),
            "next": wanted if wanted.startswith(_NEXT) else "/staff",
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
        self._set(response, "cds-sign-in", self._sealed(pending), SIGN_IN_SECONDS, path="/staff")
        return response

    async def callback(self, request: Request) -> Response:
        pending = self._opened(request.cookies.get("cds-sign-in", ""))
        code = self._code(request, pending)
        try:
            claims = await self._signed_in(code, pending)
        except Untrusted as error:
            raise Unauthenticated(cause=f"staff: {error}") from None
        subject = str(claims["sub"])
        if not self._may(claims):
            log().warning("staff refused", what=f"{self._with.claim} allows nothing here")
            raise NotAllowed("you are signed in, but nothing here is open to you")
        cookie = secrets.token_urlsafe(32)
        await self._store.writer.write(lambda tx: self._begin(tx, subject, cookie))
        response = RedirectResponse(self._public + str(pending["next"]), 302, headers={"Cache-Control": "no-store"})
        self._set(response, self._cookie, cookie, SESSION_SECONDS)
        response.delete_cookie("cds-sign-in", path="/staff")
        return response

    async def sign_out(self, request: Request) -> Response:
        subject, cookie = self.subject(request), request.cookies.get(self._cookie)
        if subject is not None and cookie is not None:

            def act(tx: Tx) -> None:
                tx.execute("DELETE FROM staff_session WHERE digest = ?", (self._digest(cookie),))
                tx.entry("sign-out", f"staff:{subject}", {})

            await self._store.writer.write(act)
        response = Response(status_code=204)
        response.delete_cookie(self._cookie, secure=self._secure, httponly=True)
        return response

    async def who(self, request: Request) -> Response:
        subject = self.subject(request)
        if subject is None:
            raise Unauthenticated(cause="nobody of the staff is signed in")
        return wire.json_response({"subject": subject})

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

    def _may(self, claims: Mapping[str, Any]) -> bool:
        said = claims.get(self._with.claim)
        values = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        return not set(map(str, values)).isdisjoint(self._with.allow)

    async def _ask(self, url: str) -> Mapping[str, Any]:
        return _object(await self._door.get(url, {"Accept": "application/json"}, limit=_LIMIT))

    # -- sessions and cookies ------------------------------------------------------------------------------------------

    def _begin(self, tx: Tx, subject: str, cookie: str) -> None:
        now = int(self._clock())
        tx.execute("DELETE FROM staff_session WHERE until <= ?", (now,))
        tx.execute(
            "INSERT INTO staff_session (digest, subject, until) VALUES (?, ?, ?)",
            (self._digest(cookie), subject, now + SESSION_SECONDS),
        )
        tx.entry("sign-in", f"staff:{subject}", {})

    def _digest(self, cookie: str) -> bytes:
        return self._store.vault.index("staff", cookie)

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

    def _set(self, response: Response, name: str, value: str, seconds: int, path: str = "/") -> None:
        response.set_cookie(name, value, max_age=seconds, path=path, secure=self._secure, httponly=True, samesite="lax")


def router(staff: Staff) -> APIRouter:
    api = APIRouter(redirect_slashes=False)
    api.add_route("/staff", staff.who, methods=["GET"])
    api.add_route("/staff/sign-in", staff.sign_in, methods=["GET"])
    api.add_route(CALLBACK, staff.callback, methods=["GET"])
    api.add_route("/staff/sign-out", staff.sign_out, methods=["POST"])
    return api


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
