"""The three doors of CDS Hooks: discovery, call, feedback.

The call is on the path that is measured, so its route is a plain Starlette one: no dependency injection, no validation
by a second library. What happens behind the doors is the desk's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cds_server import wire
from cds_server.hooks.context import HookRequest, broken, parse
from cds_server.hooks.service import ServiceSpec
from models.errors import CdsError, NotFound
from models.nouns import JSON, ClinicianAction, Coding, Outcome, instant

DOOR = "cds-hooks"
INFERENCES = "org.cds-server.inferences"
LEDGER_HEADER = "CDS-Ledger-Seq"
"""Answer to feedback: sequence numbers of the ledger entries, one an item, in the order of the items."""

MAX_BODY = 16 * 2**20
MAX_FEEDBACK = 2**20
MAX_COMMENT = 4000
MAX_TEXT = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as far as trust could tell."""

    namespace: str
    """Of the EHR's local ids."""
    ehr: str | None = None
    """Name of the configured EHR; None where anybody may call (CDS_TRUST=open)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call is answered with, after the record of it is durable."""

    cards: Sequence[JSON]
    """As `hooks.cards.render` makes them."""
    inferences: Sequence[JSON] = ()
    """`{service, id, seq, leaf}` each: what the cards rest on."""


class HookDesk(Protocol):
    """All that the doors ask of the server."""

    def services(self) -> Sequence[ServiceSpec]:
        """Every service, in the order of discovery. Asked once, when the routes are built."""

    async def admit(self, request: Request) -> Caller:
        """Who calls. Errors: NotAllowed. Never reads the body."""

    async def call(self, spec: ServiceSpec, request: HookRequest, caller: Caller) -> Answer:
        """Land, judge, record, answer.

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
    listed = wire.encode({"services": [spec.discovery() for spec in specs]})

    async def discovery(request: Request) -> Response:
        await desk.admit(request)
        return Response(listed, media_type=wire.JSON_TYPE)

    async def call(request: Request) -> Response:
        hooks = _known(by_id, request)
        caller = await desk.admit(request)
        try:
            asked = parse(*await wire.read_json(request, max_body))
            spec = hooks.get(asked.hook)
            if spec is None:
                raise broken("hook", "is not the one that this service answers")
        except CdsError as error:
            await desk.refused(request.path_params["service"], None, caller, error)
            raise
        return _response(await desk.call(spec, asked, caller))

    async def feedback(request: Request) -> Response:
        _known(by_id, request)
        caller = await desk.admit(request)
        _, body = await wire.read_json(request, MAX_FEEDBACK)
        numbers = await desk.feedback(request.path_params["service"], actions(body), caller)
        return Response(status_code=200, headers={LEDGER_HEADER: ", ".join(map(str, numbers))})

    api = APIRouter(redirect_slashes=False)
    api.add_route("/cds-services", discovery, methods=["GET"])
    api.add_route("/cds-services/{service}", call, methods=["POST"])
    api.add_route("/cds-services/{service}/feedback", feedback, methods=["POST"])
    return api


def _known(by_id: Mapping[str, dict[str, ServiceSpec]], request: Request) -> dict[str, ServiceSpec]:
    hooks = by_id.get(request.path_params["service"])
    if hooks is None:
        raise NotFound("there is no such CDS service")
    return hooks


def _response(answer: Answer) -> Response:
    body: dict[str, Any] = {"cards": answer.cards}
    if answer.inferences:
        body["extension"] = {INFERENCES: {"items": answer.inferences}}
    return wire.json_response(body)


# ---- feedback --------------------------------------------------------------------------------------------------------

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")


def actions(body: Any) -> tuple[ClinicianAction, ...]:
    """The items of a feedback body, all or none (CDS Hooks 2.0.1, Feedback).

    Codes of reasons that we do not know are taken: a client may add its own. Errors: ContractBroken, naming item and
    member.
    """
    items = body.get("feedback") if isinstance(body, dict) else None
    if not isinstance(items, list) or not items:
        raise broken("feedback", "is required, and is a list with items")
    return tuple(_action(item, f"feedback[{ordinal}]") for ordinal, item in enumerate(items))


def _action(item: Any, where: str) -> ClinicianAction:
    if not isinstance(item, dict):
        raise broken(where, "must be a JSON object")
    outcome = item.get("outcome")
    if outcome not in ("accepted", "overridden"):
        raise broken(f"{where}.outcome", "is required, and is accepted or overridden")
    accepted = outcome == "accepted"
    reason, comment = _override(item, where)
    return ClinicianAction(
        card=_text(item, "card", where),
        outcome=Outcome(outcome),
        at=_moment(item.get("outcomeTimestamp"), f"{where}.outcomeTimestamp"),
        door=DOOR,
        suggestions=_accepted(item, where) if accepted else (),
        reason=None if accepted else reason,
        comment=None if accepted else comment,
    )


def _text(members: JSON, name: str, where: str, limit: int = MAX_TEXT) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        raise broken(f"{where}.{name}", f"is required, and is a text of at most {limit} characters")
    return value


def _accepted(item: JSON, where: str) -> tuple[str, ...]:
    """REQUIRED when accepted. Empty is taken: a card without suggestions can only be accepted like this."""
    where = f"{where}.acceptedSuggestions"
    chosen = item.get("acceptedSuggestions")
    if not isinstance(chosen, list):
        raise broken(where, "is required when the outcome is accepted, and is a list")
    for ordinal, suggestion in enumerate(chosen):
        if not isinstance(suggestion, dict):
            raise broken(f"{where}[{ordinal}]", "must be a JSON object")
    return tuple(_text(suggestion, "id", f"{where}[{ordinal}]") for ordinal, suggestion in enumerate(chosen))


def _override(item: JSON, where: str) -> tuple[Coding | None, str | None]:
    """Reason and comment. 3.0 invariant cds-fb-3: an overrideReason has at least one of the two."""
    given = item.get("overrideReason")
    if "overrideReason" not in item:
        return None, None
    where = f"{where}.overrideReason"
    if not isinstance(given, dict) or not ("reason" in given or "userComment" in given):
        raise broken(where, "must be an object with reason or userComment")
    comment = _text(given, "userComment", where, MAX_COMMENT) if "userComment" in given else None
    if "reason" not in given:
        return None, comment
    reason = given["reason"]
    if not isinstance(reason, dict):
        raise broken(f"{where}.reason", "must be a Coding")
    display = _text(reason, "display", f"{where}.reason") if "display" in reason else None
    code, system = (_text(reason, name, f"{where}.reason") for name in ("code", "system"))
    return Coding(system=system, code=code, display=display), comment


def _moment(value: Any, where: str) -> str:
    """RFC 3339 with a zone (UTC is asked for; another zone says the same instant)."""
    if isinstance(value, str) and _TIMESTAMP.fullmatch(value):
        try:
            return instant(datetime.fromisoformat(value.upper()))
        except (ValueError, OverflowError):
            pass
    raise broken(where, "is required, and is an instant with its zone (RFC 3339)")
