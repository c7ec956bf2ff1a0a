"""The sandbox application: a small EHR with FHIR, SMART and CDS Hooks, over a CDS server that it talks to by HTTP only.

Server-rendered, no JavaScript, nothing kept beyond the process. For loopback and fixtures only: it shows everything to
whoever reaches it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from cds_server import http, wire
from cds_server.sandbox.authorization import Authorization
from cds_server.sandbox.clients import App, Apps, Keys, Proof
from cds_server.sandbox.ehr import Client, Ehr, load_cases
from cds_server.sandbox.fhir import Fhir
from cds_server.sandbox.grants import TOKEN_SECONDS, Context, Grant, Grants
from cds_server.sandbox.issuer import Issuer
from cds_server.sandbox.pages import TITLES, Pages
from cds_server.sandbox.records import load_records
from cds_server.sandbox.rendering import ROOM, Rendering
from cds_server.sandbox.users import USERS
from cds_server.sandbox.visits import Visits
from cds_server.trust.keysets import FetchedKeys
from models.errors import CdsError
from models.nouns import JSON

__all__ = ["CLIENT", "TITLES", "create_app"]

LOOPBACK = ["127.0.0.1", "localhost"]
OWN_URL = "http://127.0.0.1:8001"
CLIENT = "cds-server"
"""The CDS server's client id; with `-symmetric` and `-public`, where it proves itself otherwise."""
SCOPE = "patient/*.rs"
"""Of the token that goes with a hook."""
_FOR_PROGRAMS = ("/fhir/", "/auth/token", "/auth/introspect", "/auth/revoke", "/auth/jwks")


def create_app(
    cds_url: str,
    fixtures: Path,
    client: Client | None = None,
    *,
    own_url: str = OWN_URL,
    secret: str | None = None,
    keys: Keys | None = None,
) -> Starlette:
    """The sandbox at `own_url` over a CDS server at `cds_url`, with the patients and hook requests in `fixtures`.

    `client` is an asynchronous HTTP client (ours by default); it is closed when the application stops. `secret`: of the
    client that proves itself by one; None: there is no such client. `keys`: of the client that signs (by default what
    the CDS server publishes). Errors: Misconfigured.
    """
    caller: Client = client or http.client()
    jwks_url = f"{cds_url}/.well-known/jwks.json"
    door = http.Outbound((jwks_url,))
    cases, records = load_cases(fixtures), load_records(fixtures)
    grants, rendering, issuer = Grants(), Rendering(cds_url), Issuer(f"{own_url}/auth")
    apps = Apps(_registered(cds_url, secret, keys or FetchedKeys(jwks_url, door)), f"{own_url}/auth/token")
    fhir = Fhir(own_url, records, grants)

    def look(template: str) -> Any:
        """A prefetch template of a read or a search, in the EHR's own records."""
        path, _, query = template.partition("?")
        kind, _, id_ = path.partition("/")
        return records.read(kind, id_) if id_ else fhir.found(kind, parse_qsl(query), None)

    def authorize(patient: str) -> JSON:
        """CDS Hooks 2.0.1, FHIR Resource Access: a token for this call and this patient."""
        grant = Grant(CLIENT, (SCOPE,), Context(USERS[0], patient))
        token = {"access_token": grants.issue(grant, grant.scopes), "token_type": "Bearer", "expires_in": TOKEN_SECONDS}
        token |= {"scope": SCOPE, "subject": CLIENT, "patient": patient}
        return {"fhirServer": fhir.base, "fhirAuthorization": token}

    def sign(url: str) -> str:
        return issuer.call_token(url, grants.clock())

    visits = Visits(Ehr(cds_url, caller, look, authorize, sign))
    pages = Pages(own_url, cases, records, visits, grants, apps.all(), rendering)
    authorization = Authorization(own_url, apps, grants, issuer, records, rendering)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await caller.aclose()
        await door.aclose()

    async def refused(request: Request, error: Exception) -> Response:
        """A page for a person, an OperationOutcome for a program."""
        if request.url.path.startswith(_FOR_PROGRAMS) and isinstance(error, CdsError):
            return wire.refusal(error)
        return await pages.refused(request, error)

    app = Starlette(
        routes=[
            *authorization.routes(),
            *fhir.routes(),
            *pages.routes(),
            Route("/favicon.ico", _icon),
            Mount("/static", StaticFiles(directory=ROOM / "static")),
        ],
        lifespan=lifespan,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)],
    )
    wire.install(app)
    app.add_exception_handler(CdsError, refused)
    return app


async def _icon(_: Request) -> Response:
    return Response((ROOM / "static" / "icon.svg").read_bytes(), media_type="image/svg+xml")


def _registered(cds_url: str, secret: str | None, keys: Keys) -> list[App]:
    """The CDS server's app, once for each way in which it may prove itself."""

    def app(id_: str, proof: Proof, **held: Any) -> App:
        return App(id_, "Evidence app", proof, f"{cds_url}/app/launch", (f"{cds_url}/app/callback",), **held)

    apps = [app(CLIENT, Proof.KEY, keys=keys), app(f"{CLIENT}-public", Proof.NONE)]
    return apps + ([app(f"{CLIENT}-symmetric", Proof.SECRET, secret=secret)] if secret else [])
