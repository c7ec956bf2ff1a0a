"""The sandbox application: pick a patient, fire the hook, see the card, accept or override it, see the ledger's entry.

It talks to the CDS server as any EHR would, over HTTP. Server-rendered, no JavaScript, nothing kept beyond the process.
For loopback and fixtures only: it shows everything to whoever reaches it.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from cds_server import http, wire
from cds_server.hooks.reasons import CLINICAL
from cds_server.hooks.routes import INFERENCES
from cds_server.sandbox import render
from cds_server.sandbox.clock import redated
from cds_server.sandbox.ehr import Called, Case, Client, Ehr, Entry, load_cases
from models.errors import CdsError, NotAllowed, NotFound, PeerFailed
from models.nouns import JSON, instant

ROOM = Path(__file__).parent
MAX_FORM = 16 * 1024
MAX_VISITS = 200
LOOPBACK = ["127.0.0.1", "localhost"]

TITLES = {
    "patient-view": "Open the chart",
    "encounter-start": "Start the encounter",
    "order-select": "Select an order",
    "order-sign": "Sign the draft orders",
}

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass(slots=True)
class Visit:
    """One firing of a hook: what came back, and what the clinician did with it."""

    id: str
    case: Case
    hook: str
    called: list[Called]
    entries: list[Entry] = field(default_factory=list)
    done: dict[str, str] = field(default_factory=dict)
    """Card uuid -> what was done with it, in words."""
    problem: str = ""


# ---- the pages -------------------------------------------------------------------------------------------------------


class Pages:
    def __init__(self, ehr: Ehr, cases: dict[str, Case], cds_url: str) -> None:
        self._ehr = ehr
        self._cases = cases
        self._cds_url = cds_url
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        loader = FileSystemLoader(ROOM / "templates")
        self._jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)

    async def home(self, _: Request) -> Response:
        return self._page(next(iter(self._cases.values())))

    async def case(self, request: Request) -> Response:
        return self._page(self._case(request))

    async def fire(self, request: Request) -> Response:
        case, hook = self._case(request), request.path_params["hook"]
        if hook not in case.requests:
            raise NotFound("there is no fixture for this hook")
        _same_site(request)
        visit = Visit(uuid.uuid4().hex, case, hook, [])
        try:
            visit.called = await self._ehr.fire(case, hook)
            for called in visit.called:
                items = called.answer.get("extension", {}).get(INFERENCES, {}).get("items", [])
                await self._look_up(visit, [int(item["seq"]) for item in items])
        except PeerFailed as error:
            visit.problem = str(error)
        self._visits[visit.id] = visit
        while len(self._visits) > MAX_VISITS:
            self._visits.popitem(last=False)
        return RedirectResponse(f"/visits/{visit.id}", 303)

    async def visit(self, request: Request) -> Response:
        visit = self._visit(request)
        return self._page(visit.case, visit)

    async def feedback(self, request: Request) -> Response:
        visit = self._visit(request)
        _same_site(request)
        form = await _form(request)
        called = next((each for each in visit.called for card in each.cards if card.uuid == form.get("card")), None)
        if called is None:
            raise NotFound("this card was not shown here")
        item, told = _feedback(form, called)
        try:
            numbers = await self._ehr.feedback(called.service, item)
            visit.done[form["card"]] = told
            visit.problem = ""
            await self._look_up(visit, numbers)
        except PeerFailed as error:
            visit.problem = str(error)
        return RedirectResponse(f"/visits/{visit.id}", 303)

    async def _look_up(self, visit: Visit, numbers: list[int]) -> None:
        known = {entry.seq for entry in visit.entries}
        found = [await self._ehr.entry(seq) for seq in numbers if seq not in known]
        visit.entries += [entry for entry in found if entry is not None]

    def _case(self, request: Request) -> Case:
        case = self._cases.get(request.path_params["case"])
        if case is None:
            raise NotFound("there is no such fixture patient")
        return case

    def _visit(self, request: Request) -> Visit:
        visit = self._visits.get(request.path_params["visit"])
        if visit is None:
            raise NotFound("this visit is over; open the chart again")
        return visit

    def _page(self, shown: Case, visit: Visit | None = None, problem: str = "", status: int = 200) -> Response:
        today = datetime.now(UTC).date()
        hook = visit.hook if visit else next(iter(shown.requests))
        page = self._jinja.get_template("page.html").render(
            cases=[(case, _chart(case, next(iter(case.requests)), today)) for case in self._cases.values()],
            case=shown,
            chart=_chart(shown, "order-sign" if "order-sign" in shown.requests else hook, today),
            titles=TITLES,
            visit=visit,
            reasons=[reason.plain() for reason in CLINICAL],
            cds_url=self._cds_url,
            problem=problem or (visit.problem if visit else ""),
            pretty=render.pretty,
        )
        return HTMLResponse(page, status, headers=_HEADERS)

    async def refused(self, _: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, CdsError) else 500
        return self._page(next(iter(self._cases.values())), None, str(error), status)


def _chart(case: Case, hook: str, today: date) -> render.Chart:
    return render.chart(redated(case.requests[hook], datetime.now(UTC)), today)


def _feedback(form: Mapping[str, str], called: Called) -> tuple[JSON, str]:
    """A feedback item as CDS Hooks 2.0.1 has it, and the same in words for the page."""
    card = next(each for each in called.cards if each.uuid == form["card"])
    item: dict[str, Any] = {"card": card.uuid, "outcomeTimestamp": instant(datetime.now(UTC))}
    if form.get("do") != "override":
        chosen = [each for each in card.suggestions if each.get("uuid") == form.get("suggestion")]
        item |= {"outcome": "accepted", "acceptedSuggestions": [{"id": each["uuid"]} for each in chosen]}
        return item, "Accepted" + (f": {chosen[0].get('label', '')}" if chosen else "")
    offered = card.reasons or tuple(reason.plain() for reason in CLINICAL)
    reason = next((each for each in offered if each["code"] == form.get("reason")), None)
    comment = form.get("comment", "").strip()
    item["outcome"] = "overridden"
    given: dict[str, Any] = {}
    if reason is not None:
        given["reason"] = {"code": reason["code"], "system": reason["system"]}
    if comment:
        given["userComment"] = comment
    if given:
        item["overrideReason"] = given
    words = "; ".join(part for part in (reason["display"] if reason else "", comment) if part)
    return item, "Overridden" + (f": {words}" if words else "")


async def _form(request: Request) -> dict[str, str]:
    raw = await wire.read_body(request, MAX_FORM, "application/x-www-form-urlencoded")
    return {name: values[0] for name, values in parse_qs(raw.decode("utf-8", "replace")).items()}


def _same_site(request: Request) -> None:
    """No other page in this browser may act here."""
    origin = request.headers.get("origin")
    own = f"{request.url.scheme}://{request.headers.get('host', '')}"
    if origin not in (None, own) or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise NotAllowed("only the sandbox's own page may do this")


def create_app(cds_url: str, fixtures: Path, client: Client | None = None) -> Starlette:
    """The sandbox over a CDS server at `cds_url`, with the hook requests in `fixtures/hooks`.

    `client` is an asynchronous HTTP client (ours by default); it is closed when the application stops. Errors:
    Misconfigured.
    """
    caller: Client = client or http.client()
    pages = Pages(Ehr(cds_url, caller), load_cases(fixtures), cds_url)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await caller.aclose()

    app = Starlette(
        routes=[
            Route("/", pages.home),
            Route("/cases/{case}", pages.case),
            Route("/cases/{case}/{hook}", pages.fire, methods=["POST"]),
            Route("/visits/{visit}", pages.visit),
            Route("/visits/{visit}/feedback", pages.feedback, methods=["POST"]),
            Mount("/static", StaticFiles(directory=ROOM / "static")),
        ],
        lifespan=lifespan,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)],
    )
    wire.install(app)
    app.add_exception_handler(CdsError, pages.refused)
    return app
