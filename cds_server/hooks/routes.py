"""The three doors of CDS Hooks: discovery, call, feedback.

The call is on the path that is measured, so its route is a plain Starlette one: no dependency injection, no validation
by a second library. What happens behind the doors is the desk's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cds_server import wire
from cds_server.deadline import Clock
from cds_server.hooks import feedback as told
from cds_server.hooks.context import HookRequest, parse
from cds_server.hooks.published import broken
from cds_server.hooks.service import ServiceSpec
from cds_server.logs import log
from cds_server.trust.replay import TokenUse
from models.errors import CdsError, NotFound
from models.nouns import JSON, ClinicianAction

INFERENCES = "org.cds-server.inferences"
SUPPRESSED = "org.cds-server.suppressed"
"""Which rules of alert hygiene held cards back: an empty answer must not look like "nothing to say"."""
LEDGER_HEADER = "CDS-Ledger-Seq"
"""Answer to feedback: sequence numbers of the ledger entries, one an item, in the order of the items."""

HOOK_CALL = "hook-call"
"""Name of the route that is measured."""

MAX_BODY = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as far as trust could tell."""

    namespace: str
    """Of the EHR's local ids."""
    ehr: str | None = None
    """Name of the configured EHR; None where anybody may call (CDS_TRUST=open)."""
    token: TokenUse | None = field(default=None, compare=False)
    """What it signed in with: spent by the first act of its call."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call is answered with, after the record of it is durable."""

    cards: Sequence[JSON]
    """As `hooks.cards.render` makes them."""
    inferences: Sequence[JSON] = ()
    """`{service, id, seq, leaf}` each: what the cards rest on."""
    system_actions: Sequence[JSON] = ()
    """As `hooks.cards.render_action` makes them; of services that opted in."""
    suppressed: Sequence[str] = ()
    """The rule of alert hygiene that held a card back, for each such card."""
    degraded: bool = False
    """Some of what was asked for was not there or could not be read, and the cards say so."""


class HookDesk(Protocol):
    """All that the doors ask of the server."""

    def services(self) -> Sequence[ServiceSpec]:
        """Every service, in the order of discovery. Asked once, when the routes are built."""

    async def admit(self, request: Request) -> Caller:
        """Who calls. Errors: NotAllowed. Never reads the body."""

    def arrived(self) -> Clock:
        """The clock of a call that begins now, before anything of it is read. Errors: Overloaded."""

    async def call(self, spec: ServiceSpec, request: HookRequest, caller: Caller, clock: Clock) -> Answer:
        """Land, judge, record, answer, before the call's deadline.

        Returning means that the record is durable. Errors: any CdsError; then no card leaves. What is refused as the
        wrong patient is recorded as a safety event before it is raised.
        """

    async def refused(self, service: str, request: HookRequest | None, caller: Caller, error: CdsError) -> None:
        """Record that a call of a known caller was refused before it became a request. Never raises."""

    async def feedback(self, service: str, actions: Sequence[ClinicianAction], caller: Caller) -> Sequence[int]:
        """Record what clinicians did; the ledger's sequence number of each, in order.

        All of them or none. A card that nobody knows is recorded as unmatched, not refused. Saying the same thing twice
        gives the number of the first time.
        """


def router(desk: HookDesk, *, max_body: int = MAX_BODY) -> APIRouter:
    """Routes of CDS Hooks 2.0.1. Errors of the handlers become OperationOutcomes by `wire.install`."""
    specs = desk.services()
    by_id: dict[str, dict[str, ServiceSpec]] = {}
    for spec in specs:
        by_id.setdefault(spec.id, {})[spec.hook] = spec
    contexts = {spec.hook: spec.hook_context for spec in specs}
    listed = wire.encode({"services": [spec.discovery() for spec in specs]})

    async def discovery(request: Request) -> Response:
        await desk.admit(request)
        return Response(listed, media_type=wire.JSON_TYPE)

    async def call(request: Request) -> Response:
        clock = desk.arrived()
        caller = await desk.admit(request)
        hooks = _known(by_id, request)
        try:
            asked = parse(*await wire.read_json(request, max_body), contexts)
            spec = hooks.get(asked.hook)
            if spec is None:
                raise broken("hook", "is not the one that this service answers")
        except CdsError as error:
            await desk.refused(request.path_params["service"], None, caller, error)
            raise
        return _response(await desk.call(spec, asked, caller, clock))

    async def feedback(request: Request) -> Response:
        caller = await desk.admit(request)
        _known(by_id, request)
        service = request.path_params["service"]
        try:
            _, body = await wire.read_json(request, told.MAX_BODY)
            actions = told.actions(body)
        except CdsError as error:
            log().warning("feedback refused", service=service, status=error.status, what=error.what, where=error.where)
            raise
        numbers = await desk.feedback(service, actions, caller)
        return Response(status_code=200, headers={LEDGER_HEADER: ", ".join(map(str, numbers))})

    api = APIRouter(redirect_slashes=False)
    api.add_route("/cds-services", discovery, methods=["GET"])
    api.add_route("/cds-services/{service}", call, methods=["POST"], name=HOOK_CALL)
    api.add_route("/cds-services/{service}/feedback", feedback, methods=["POST"])
    return api


def _known(by_id: Mapping[str, dict[str, ServiceSpec]], request: Request) -> dict[str, ServiceSpec]:
    hooks = by_id.get(request.path_params["service"])
    if hooks is None:
        raise NotFound("there is no such CDS service")
    return hooks


def _response(answer: Answer) -> Response:
    body: dict[str, Any] = {"cards": answer.cards}
    if answer.system_actions:
        body["systemActions"] = answer.system_actions
    if answer.inferences:
        body["extension"] = {INFERENCES: {"items": answer.inferences}}
        if answer.suppressed:
            body["extension"][SUPPRESSED] = {"rules": answer.suppressed}
    return wire.json_response(body)
