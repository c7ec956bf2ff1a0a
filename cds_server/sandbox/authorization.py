"""The sandbox's SMART authorization server (SMART App Launch 2.2; RFC 6749, 7009, 7636, 7662, 9207).

/fhir/.well-known/smart-configuration   what it can do
/auth/authorize    EHR launch: at once; standalone: a page to choose user and patient
/auth/token        codes and refresh tokens, each good once; PKCE always
/auth/introspect, /auth/revoke, /auth/jwks, /auth/style.json
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from cds_server import wire
from cds_server.sandbox.clients import ALGORITHMS, App, Apps, Proof, Unproved
from cds_server.sandbox.grants import TOKEN_SECONDS, Asked, Context, Grant, Grants, Token
from cds_server.sandbox.issuer import ALGORITHM, Issuer
from cds_server.sandbox.records import Records
from cds_server.sandbox.render import chart_of
from cds_server.sandbox.rendering import Rendering, once, own_page_only, read_form
from cds_server.sandbox.scopes import PLAIN, granted
from cds_server.sandbox.users import USERS, user_of
from models.errors import BadInput, Malformed, NotAllowed, NotFound
from models.nouns import JSON

CAPABILITIES = [
    *(f"launch-{how}" for how in ("ehr", "standalone")),
    *(f"client-{how}" for how in ("public", "confidential-symmetric", "confidential-asymmetric")),
    *(f"context-{what}" for what in ("banner", "style", "ehr-patient", "ehr-encounter", "standalone-patient")),
    *(f"permission-{what}" for what in ("offline", "online", "patient", "user", "v1", "v2")),
    "authorize-post",
    "sso-openid-connect",
]
STYLE = {
    "color_background": "#f3f5f8",
    "color_error": "#b3261e",
    "color_highlight": "#1f5f8b",
    "color_modal_backdrop": "",
    "color_success": "#23704a",
    "color_text": "#1d2733",
    "dim_border_radius": "6px",
    "dim_font_size": "14px",
    "dim_spacing_size": "16px",
    "font_family_body": "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
    "font_family_heading": "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
}
"""As SMART App Launch 2.2, Styling, names them."""
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_CHALLENGE = 43
"""Characters of a SHA-256 in base64url."""


class _Declined(Exception):
    """An authorization request that is refused by a redirect (RFC 6749, 4.1.2.1)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error


class _Invalid(Exception):
    """A token request that is refused (RFC 6749, 5.2)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error


class Authorization:
    def __init__(
        self, own_url: str, apps: Apps, grants: Grants, issuer: Issuer, records: Records, rendering: Rendering
    ) -> None:
        self._own = own_url
        self.fhir_base = f"{own_url}/fhir"
        self._apps = apps
        self._grants = grants
        self._issuer = issuer
        self._records = records
        self._rendering = rendering

    def routes(self) -> list[Route]:
        return [
            Route("/fhir/.well-known/smart-configuration", self.configuration),
            Route("/auth/.well-known/openid-configuration", self.configuration),
            Route("/auth/authorize", self.authorize, methods=["GET", "POST"]),
            Route("/auth/choose", self.choose, methods=["POST"]),
            Route("/auth/token", self.token, methods=["POST"]),
            Route("/auth/introspect", self.introspect, methods=["POST"]),
            Route("/auth/revoke", self.revoke, methods=["POST"]),
            Route("/auth/jwks", self.jwks),
            Route("/auth/style.json", self.style),
        ]

    # ---- what stands open --------------------------------------------------------------------------------------------

    async def configuration(self, _: Request) -> Response:
        at = f"{self._own}/auth"
        return wire.json_response(
            {
                "issuer": self._issuer.url,
                "jwks_uri": f"{at}/jwks",
                "authorization_endpoint": f"{at}/authorize",
                "token_endpoint": f"{at}/token",
                "introspection_endpoint": f"{at}/introspect",
                "revocation_endpoint": f"{at}/revoke",
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": [each.value for each in Proof],
                "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "subject_types_supported": ["public"],
                "authorization_response_iss_parameter_supported": True,
                "scopes_supported": [*PLAIN, "patient/*.rs", "user/*.rs"],
                "capabilities": CAPABILITIES,
            }
        )

    async def jwks(self, _: Request) -> Response:
        return wire.json_response(self._issuer.jwks())

    async def style(self, _: Request) -> Response:
        return wire.json_response(STYLE)

    # ---- authorize ---------------------------------------------------------------------------------------------------

    async def authorize(self, request: Request) -> Response:
        given = await read_form(request) if request.method == "POST" else once(request.scope["query_string"])
        app, redirect_uri = self._known(given)
        try:
            asked = self._asked(given, app, redirect_uri)
            launch = given.get("launch")
            if launch is None:
                return self._picker(self._grants.asked.put(asked), asked, app)
            context = self._grants.launches.spend(launch)
            if context is None or "launch" not in asked.scopes:
                raise _Declined("invalid_request", "launch is unknown, or its scope was not asked for")
            return self._back(asked, code=self._grants.code(asked, context))
        except _Declined as no:
            return self._back(
                Asked(app.id, redirect_uri, given.get("state", ""), (), ""), error=no.error, error_description=str(no)
            )

    def _known(self, given: Mapping[str, str]) -> tuple[App, str]:
        """Nobody is sent to an address that was not registered, letter by letter. Errors: NotAllowed."""
        app = self._apps.get(given.get("client_id", ""))
        if app is None:
            raise NotAllowed("no app is registered under this client_id")
        if given.get("redirect_uri") not in app.redirect_uris:
            raise NotAllowed("redirect_uri is not one that is registered for this app")
        return app, given["redirect_uri"]

    def _asked(self, given: Mapping[str, str], app: App, redirect_uri: str) -> Asked:
        if given.get("response_type") != "code":
            raise _Declined("unsupported_response_type", "response_type is not code")
        if not given.get("state"):
            raise _Declined("invalid_request", "state is missing")
        if given.get("aud", "").rstrip("/") != self.fhir_base:
            raise _Declined("invalid_request", "aud is not this FHIR server")
        if given.get("code_challenge_method") != "S256" or len(given.get("code_challenge", "")) != _CHALLENGE:
            raise _Declined("invalid_request", "PKCE by S256 is required")
        scopes = granted(given.get("scope", ""), app.scopes)
        if "launch" not in given and "launch" in scopes:
            scopes.remove("launch")
        if not scopes:
            raise _Declined("invalid_scope", "none of these scopes can be granted")
        return Asked(app.id, redirect_uri, given["state"], tuple(scopes), given["code_challenge"], given.get("nonce"))

    def _picker(self, handle: str, asked: Asked, app: App) -> Response:
        today = datetime.now(UTC).date()
        return self._rendering.page(
            "choose.html",
            leads_to=[_origin(asked.redirect_uri)],
            title=f"Open {app.name}",
            app=app,
            asked=handle,
            scopes=asked.scopes,
            users=USERS,
            patients=[(each["id"], chart_of([each], (), today)) for each in self._records.all("Patient")],
            needs_patient=_needs_patient(asked.scopes),
        )

    async def choose(self, request: Request) -> Response:
        """What a person chose on the picker's page: goes back to the app with a code, or with a refusal."""
        own_page_only(request)
        form = await read_form(request)
        asked = self._grants.asked.spend(form.get("asked", ""))
        if asked is None:
            raise NotFound("this request is over; begin again in the app")
        if form.get("do") == "deny":
            return self._back(asked, error="access_denied", error_description="the person said no")
        patient = form.get("patient")
        if _needs_patient(asked.scopes) and self._records.read("Patient", patient or "") is None:
            return self._back(asked, error="access_denied", error_description="no patient was chosen")
        encounter = next(self._records.of_patient("Encounter", patient), None) if patient else None
        context = Context(
            user_of(form.get("user")),
            patient if _needs_patient(asked.scopes) else None,
            encounter["id"] if encounter and "launch/encounter" in asked.scopes else None,
        )
        return self._back(asked, code=self._grants.code(asked, context))

    def _back(self, asked: Asked, **said: str) -> Response:
        """To the app's registered address, with who says so (RFC 9207)."""
        answer = {**said, "state": asked.state, "iss": self._issuer.url}
        joined = "&" if urlsplit(asked.redirect_uri).query else "?"
        return RedirectResponse(f"{asked.redirect_uri}{joined}{urlencode(answer)}", 303, headers=_PRIVATE)

    # ---- token -------------------------------------------------------------------------------------------------------

    async def token(self, request: Request) -> Response:
        try:
            form = await _posted(request)
            app = await self._apps.proved(form, request.headers.get("authorization"), self._grants.clock())
            if form.get("grant_type") == "authorization_code":
                return self._tokens(*self._by_code(form, app))
            if form.get("grant_type") == "refresh_token":
                return self._tokens(*self._by_refresh(form, app))
            raise _Invalid("unsupported_grant_type", "neither authorization_code nor refresh_token")
        except Unproved as no:
            return _refused("invalid_client", str(no), 401)
        except _Invalid as no:
            return _refused(no.error, str(no))

    def _by_code(self, form: Mapping[str, str], app: App) -> tuple[Grant, tuple[str, ...], Asked | None]:
        code = self._grants.redeem(form.get("code", ""))
        if code is None or code.grant.ended or code.asked.client != app.id:
            raise _Invalid("invalid_grant", "the code is unknown, used or over")
        if form.get("redirect_uri") != code.asked.redirect_uri:
            raise _Invalid("invalid_grant", "redirect_uri is another one")
        hashed = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if not hmac.compare_digest(base64.urlsafe_b64encode(hashed).rstrip(b"="), code.asked.challenge.encode()):
            raise _Invalid("invalid_grant", "code_verifier is not the one of the challenge")
        return code.grant, code.grant.scopes, code.asked

    def _by_refresh(self, form: Mapping[str, str], app: App) -> tuple[Grant, tuple[str, ...], Asked | None]:
        grant = self._grants.renew(form.get("refresh_token", ""))
        if grant is None or grant.client != app.id:
            raise _Invalid("invalid_grant", "the refresh token is unknown, used or over")
        scopes = tuple(form["scope"].split(" ")) if "scope" in form else grant.scopes
        if not set(scopes) <= set(grant.scopes):
            raise _Invalid("invalid_scope", "more than was granted")
        return grant, scopes, None

    def _tokens(self, grant: Grant, scopes: tuple[str, ...], asked: Asked | None) -> Response:
        body: dict[str, Any] = {
            "access_token": self._grants.issue(grant, scopes),
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS,
            "scope": " ".join(scopes),
            **self._told(grant),
        }
        if {"offline_access", "online_access"} & set(grant.scopes):
            body["refresh_token"] = self._grants.refresh.put(grant)
        if asked is not None and "openid" in scopes:  # the name: a courtesy (OpenID Connect Core, 5.1)
            user = grant.context.user
            named = {"fhirUser": f"{self.fhir_base}/{user.resource}"} if "fhirUser" in scopes else {}
            profile = {"name": user.name} if {"profile", "fhirUser"} & set(scopes) else {}
            body["id_token"] = self._issuer.id_token(
                grant.client, user.id, self._grants.clock(), nonce=asked.nonce, **named, **profile
            )
        return Response(wire.encode(body), 200, headers=_NO_STORE, media_type=wire.JSON_TYPE)

    def _told(self, grant: Grant) -> JSON:
        """The launch context that goes with a token (2.2, Launch context arrives with your access_token)."""
        context = grant.context
        told: dict[str, Any] = {"need_patient_banner": context.banner}
        optional = {
            "patient": context.patient,
            "encounter": context.encounter,
            "intent": context.intent,
            "appContext": context.app_context,
            "smart_style_url": f"{self._own}/auth/style.json" if context.style else None,
            "fhirContext": list(context.fhir_context),
        }
        return told | {name: value for name, value in optional.items() if value}

    # ---- what a token means ------------------------------------------------------------------------------------------

    async def introspect(self, request: Request) -> Response:
        """RFC 7662, for registered apps and for whoever holds a token that is good."""
        try:
            form = await _posted(request)
            bearer = _bearer(request)
            if bearer is None or self._grants.token(bearer) is None:
                await self._apps.proved(form, request.headers.get("authorization"), self._grants.clock())
        except Unproved as no:
            return _refused("invalid_client", str(no), 401)
        except _Invalid as no:
            return _refused(no.error, str(no))
        token = self._grants.token(form.get("token", ""))
        body = {"active": False} if token is None else self._introspected(token)
        return Response(wire.encode(body), 200, headers=_NO_STORE, media_type=wire.JSON_TYPE)

    def _introspected(self, token: Token) -> JSON:
        user = token.grant.context.user
        who = {"iss": self._issuer.url, "sub": user.id} if "openid" in token.scopes else {}
        fhir_user = {"fhirUser": f"{self.fhir_base}/{user.resource}"} if "fhirUser" in token.scopes else {}
        return {
            "active": True,
            "client_id": token.grant.client,
            "scope": " ".join(token.scopes),
            "iat": token.issued,
            "exp": token.expires,
            **self._told(token.grant),
            **who,
            **fhir_user,
        }

    async def revoke(self, request: Request) -> Response:
        """RFC 7009: an unknown token is as good as revoked."""
        try:
            form = await _posted(request)
            app = await self._apps.proved(form, request.headers.get("authorization"), self._grants.clock())
        except Unproved as no:
            return _refused("invalid_client", str(no), 401)
        except _Invalid as no:
            return _refused(no.error, str(no))
        self._grants.revoke(form.get("token", ""), app.id)
        return Response(status_code=200, headers=_NO_STORE)


_PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


async def _posted(request: Request) -> dict[str, str]:
    try:
        return await read_form(request)
    except (BadInput, Malformed) as error:
        raise _Invalid("invalid_request", error.what) from None


def _refused(error: str, description: str, status: int = 400) -> Response:
    headers = {**_NO_STORE, **({"WWW-Authenticate": "Basic"} if status == 401 else {})}
    body = wire.encode({"error": error, "error_description": description})
    return Response(body, status, headers=headers, media_type=wire.JSON_TYPE)


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else None


def _needs_patient(scopes: tuple[str, ...]) -> bool:
    return any(each == "launch/patient" or each.startswith("patient/") for each in scopes)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
