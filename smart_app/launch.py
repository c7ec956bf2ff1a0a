"""The launch as OAuth 2.0 sees it: what is sent to the authorization server, what is believed of what comes back.

SMART App Launch 2.2, App Launch; RFC 6749, 4.1 and 6; RFC 7636 (S256, always); RFC 9207; RFC 7523, 2.2; OpenID Connect
Core 1.0, 3.1.3. Authlib spells requests and checks claims. State, nonce and verifier are made here for one launch, kept
by the server, and good once.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, Self
from urllib.parse import quote

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]

from models.errors import Malformed, Misconfigured, NotAllowed, Unauthenticated
from smart_app.discovery import Endpoints
from smart_app.ports import Signer
from smart_app.registered import Method, Registered

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS = 240
"""SMART allows 300; a minute is left for clocks that differ."""
SKEW = 60
MAX_LAUNCH = 4096
_IDENTITY = ("openid", "fhirUser")
_SAYS = {
    "access_denied": "the EHR did not grant access",
    "invalid_request": "the EHR did not take the request as it was made",
    "invalid_scope": "the EHR does not grant what the app asks for",
    "unauthorized_client": "the EHR does not know the app as it is registered here",
    "unsupported_response_type": "the EHR does not take this kind of launch",
    "server_error": "the EHR's authorization server failed",
    "temporarily_unavailable": "the EHR's authorization server is busy",
    "login_required": "the EHR wants a sign-in first",
    "interaction_required": "the EHR wants a sign-in first",
    "consent_required": "the EHR did not grant access",
}
"""RFC 6749, 4.1.2.1, and OpenID Connect Core 1.0, 3.1.2.6. Any other code is the server's own text, and stays out."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A launch between our redirect and its callback. What the callback is held against was settled before it."""

    ref: str
    namespace: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect: str
    scopes: tuple[str, ...]
    authorization: str
    token: str
    issuer: str | None
    jwks: str | None
    algorithms: tuple[str, ...] | None
    states_issuer: bool
    form: bool
    launch: str | None = field(default=None, repr=False)
    """The EHR's handle, as it came; None: a standalone launch."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        lists = {name: tuple(plain[name]) if plain[name] is not None else None for name in ("scopes", "algorithms")}
        return cls(**{**plain, **lists})


@dataclass(frozen=True, slots=True)
class Who:
    """Who looks, as the ID token says it."""

    claims: Mapping[str, Any] = field(repr=False)
    subject: str = field(repr=False)
    """The issuer's `sub`."""


# ---- to the authorization server -------------------------------------------------------------------------------------


def begin(app: Registered, at: Endpoints, public_url: str, launch: str | None) -> Pending:
    """A launch that begins now. `launch` is opaque: it is sent back as it came, and never looked into.

    Errors: Malformed, for a handle that no URL parameter can be.
    """
    if launch is not None and not (0 < len(launch) <= MAX_LAUNCH and launch.isprintable()):
        raise Malformed("the launch parameter is empty, too long, or not text")
    return Pending(
        ref=secrets.token_hex(16),
        namespace=app.namespace,
        state=secrets.token_urlsafe(32),  # 256 bits; SMART wants 122
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(48),
        redirect=f"{public_url}/app/callback",
        scopes=scopes(app, at, standalone=launch is None),
        authorization=at.authorization,
        token=at.token,
        issuer=app.issuer or at.issuer,
        jwks=at.jwks,
        algorithms=at.algorithms,
        states_issuer=at.states_issuer,
        form=app.post and at.takes_forms,
        launch=launch,
    )


def scopes(app: Registered, at: Endpoints, *, standalone: bool) -> tuple[str, ...]:
    """The least that the app needs: who looks, whose case, and that patient's own resource."""
    wanted = app.scopes or (f"patient/Patient.{'read' if at.v1 else 'r'}",)
    access = "offline_access" if app.offline else "online_access"
    return tuple(dict.fromkeys(("launch/patient" if standalone else "launch", *_IDENTITY, access, *wanted)))


def parameters(app: Registered, pending: Pending) -> dict[str, str]:
    """Of the authorization request (SMART App Launch 2.2, Obtain authorization code)."""
    asked = {
        "response_type": "code",
        "client_id": app.client_id,
        "redirect_uri": pending.redirect,
        "scope": " ".join(pending.scopes),
        "state": pending.state,
        "aud": app.base,
        "nonce": pending.nonce,
        "code_challenge": create_s256_code_challenge(pending.verifier),
        "code_challenge_method": "S256",
    }
    return asked if pending.launch is None else {**asked, "launch": pending.launch}


def authorization_url(app: Registered, pending: Pending) -> str:
    """Where the browser is sent."""
    asked = parameters(app, pending)
    names = ("client_id", "response_type", "redirect_uri", "scope", "state")
    rest = {name: value for name, value in asked.items() if name not in names}
    return str(prepare_grant_uri(pending.authorization, *(asked[name] for name in names), **rest))


def code_form(pending: Pending, code: str) -> dict[str, str]:
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": pending.redirect,
        "code_verifier": pending.verifier,
    }


def refresh_form(refresh: str) -> dict[str, str]:
    """No scope: the same as were granted (RFC 6749, 6)."""
    return {"grant_type": "refresh_token", "refresh_token": refresh}


def authenticated(
    app: Registered, form: Mapping[str, str], signer: Signer, url: str, algorithms: Sequence[str] | None, now: int
) -> tuple[dict[str, str], str | None]:
    """A form for the token endpoint at `url`, and its Authorization header, where the client has one.

    A public client names itself in the form, a confidential one proves itself and is not named a second time. An
    assertion is made anew for each request. Errors: Misconfigured (no key to sign with).
    """
    if app.method is Method.PUBLIC:
        return {**form, "client_id": app.client_id}, None
    if app.method is Method.SYMMETRIC:
        pair = ":".join(quote(each, safe="") for each in (app.client_id, app.secret or ""))
        return dict(form), "Basic " + base64.b64encode(pair.encode()).decode()
    ours = signer.algorithms()
    if not ours:
        meant = f" --for {app.keys}" if app.keys else ""
        raise Misconfigured(f"there is no key to sign with: cds keys new{meant}")
    algorithm = next((each for each in ours if each in (algorithms or ours)), ours[0])
    claims = {
        "iss": app.client_id,
        "sub": app.client_id,
        "aud": app.audience or url,  # text, not a list: some servers compare it as it stands
        "iat": now,
        "exp": now + ASSERTION_SECONDS,
        "jti": str(uuid.uuid4()),
    }
    assertion = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signer.sign(claims, algorithm)}
    return {**form, **assertion}, None


# ---- what comes back -------------------------------------------------------------------------------------------------


def code_of(given: Mapping[str, Sequence[str]], pending: Pending) -> str:
    """The code of a callback whose state was taken.

    Errors: NotAllowed (the EHR said no, in our words), Unauthenticated (a mix-up of servers), Malformed.
    """
    for name in ("state", "code", "iss", "error"):
        if len(given.get(name, ())) > 1:
            raise Malformed(f"the callback has {name} twice")
    (state,) = given.get("state", [""]) or [""]
    if not hmac.compare_digest(state.encode(), pending.state.encode()):
        raise Unauthenticated(cause="app: state is another launch's")
    named = next(iter(given.get("iss", ())), None)
    if named is None and pending.states_issuer:
        raise Unauthenticated(cause="app: the callback has no iss, which its server promises")
    if named is not None and named != pending.issuer:  # RFC 9207, 2.4: the code is another server's
        raise Unauthenticated(cause="app: iss of the callback is another authorization server's")
    if said := next(iter(given.get("error", ())), None):
        raise NotAllowed(_SAYS.get(said, "the EHR ended the launch with an error"))
    code = next(iter(given.get("code", ())), "")
    if not code or len(code) > 8192 or not code.isprintable():
        raise Malformed("the callback has neither a code nor an error")
    return code


def check_claims(app: Registered, pending: Pending, claims: Mapping[str, Any], alg: str, access: str, now: int) -> Who:
    """Whom a signed ID token names, once each claim is what this launch wants (OpenID Connect Core 1.0, 3.1.3.7).

    Errors: Unauthenticated.
    """
    if pending.issuer is None:
        raise Unauthenticated(cause="app: the EHR names no issuer of ID tokens")
    plain = {name: float(value) if isinstance(value, Decimal) else value for name, value in claims.items()}
    checked = CodeIDToken(
        plain,
        {"alg": alg},
        {
            "iss": {"essential": True, "value": pending.issuer},
            "aud": {"essential": True, "value": app.client_id},
        },
        {"nonce": pending.nonce, "client_id": app.client_id, "access_token": access},
    )
    try:
        checked.validate(now=now, leeway=SKEW)
    except Exception as error:  # noqa: BLE001 - whichever of its kinds: nobody is known by it
        raise Unauthenticated(cause=f"app: the ID token is refused ({type(error).__name__})") from None
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 512:
        raise Unauthenticated(cause="app: the ID token names nobody")
    return Who(claims, subject)
