"""Questions over HTTP: for operators and for staff who check proofs; with values, for a role that opens inferences.

    GET /ledger/questions/card/{uuid}[?values=true]
    GET /ledger/questions/model/{name@version}[?from=T&to=T]
    GET /ledger/questions/fact/{landing}/{part}[?pointer=/a/b]
    GET /ledger/questions/corrected[?from=T&to=T]

The last three are paged: `limit`, and `after` with the `next` of the page before. With values, each is a look at a
patient's data: on record before it is answered, and without what a label withholds from this reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cds_server import wire
from cds_server.access.log import OPERATIONS, Access, Look
from cds_server.access.roles import Act, check_may
from cds_server.checkpoints import Checkpoints
from cds_server.operators import Operators
from cds_server.questions.card import card
from cds_server.questions.facts import corrected, fact
from cds_server.questions.made import FIRST, LAST, made
from cds_server.questions.proofs import page, proven
from cds_server.reproduce import load, ref_of
from cds_server.staff_sessions import StaffSessions
from cds_server.store.store import Store
from models.errors import BadInput, ContractBroken, Unauthenticated
from models.nouns import instant
from smart_app.desk import Viewer

PATH = "/ledger/questions"
_MOST_ID = 1 << 53
"""What JSON carries exactly (RFC 8259, 6); a row's id reaches it at eight billion entries."""


class QuestionDoors:
    def __init__(
        self,
        store: Store,
        checkpoints: Checkpoints,
        operators: Operators,
        access: Access,
        sessions: StaffSessions | None,
    ) -> None:
        self._store, self._checkpoints = store, checkpoints
        self._operators, self._access, self._sessions = operators, access, sessions

    def routes(self) -> list[Route]:
        return [
            Route(f"{PATH}/card/{{named}}", self._card, methods=["GET"]),
            Route(f"{PATH}/model/{{model}}", self._model, methods=["GET"]),
            Route(f"{PATH}/fact/{{landing}}/{{part:int}}", self._fact, methods=["GET"]),
            Route(f"{PATH}/corrected", self._corrected, methods=["GET"]),
        ]

    async def _card(self, request: Request) -> Response:
        named = request.path_params["named"]
        values = request.query_params.get("values", "false")
        if values not in ("true", "false"):
            raise ContractBroken("neither true nor false", where="values")
        if values == "false":
            await self._let_in(request)
            return await self._answer(lambda: card(self._store, named))
        withheld = await self._look(await self._viewer(request), named)
        return await self._answer(lambda: card(self._store, named, values=True, withheld=withheld))

    async def _model(self, request: Request) -> Response:
        await self._let_in(request)
        model, (since, until), (after, limit) = request.path_params["model"], _between(request), _page(request)
        return await self._answer(lambda: made(self._store, model, since, until, after=after, limit=limit))

    async def _fact(self, request: Request) -> Response:
        await self._let_in(request)
        landing, part = request.path_params["landing"], request.path_params["part"]
        named, (after, limit) = f"{landing}:{part}{request.query_params.get('pointer', '')}", _page(request)
        return await self._answer(lambda: fact(self._store, named, after=after, limit=limit))

    async def _corrected(self, request: Request) -> Response:
        await self._let_in(request)
        (since, until), (after, limit) = _between(request), _page(request)
        return await self._answer(lambda: corrected(self._store, since, until, after=after, limit=limit))

    # -- who asks ------------------------------------------------------------------------------------------------------

    async def _let_in(self, request: Request) -> None:
        """Errors: Unauthenticated, NotAllowed."""
        try:
            self._operators.check(request)
        except Unauthenticated:
            check_may(await self._viewer(request), Act.PROOF)

    async def _viewer(self, request: Request) -> Viewer:
        """Whoever of the staff is signed in. Errors: Unauthenticated."""
        if self._sessions is None:
            raise Unauthenticated(cause="values are for staff who signed in, and no provider is configured")
        return await self._sessions.viewer(request)

    async def _look(self, viewer: Viewer, named: str) -> frozenset[str]:
        """Put the look on record; gives the facts whose values are withheld. Errors: NotAllowed, NotFound."""
        ref = ref_of(self._store, named)
        row = self._store.reads.one(
            "SELECT p.ref FROM inference i JOIN patient_record p ON p.id = i.record_id WHERE i.ref = ?", (ref,)
        )
        await self._access.look(
            Look(viewer, Act.INFERENCE, row[0] if row else None, OPERATIONS, {"section": "question"})
        )
        facts = (await asyncio.to_thread(load, self._store, ref)).snapshot.facts
        visible, _ = self._access.sees(viewer, facts)
        return frozenset({each.id for each in facts} - {each.id for each in visible})

    async def _answer(self, ask: Callable[[], dict[str, Any]]) -> Response:
        """Opening what is sealed takes time: not on the loop that answers hook calls."""
        found = await asyncio.to_thread(lambda: proven(self._store, self._checkpoints, ask()))
        response = wire.json_response(found)
        response.headers["Cache-Control"] = "no-store"
        return response


def _between(request: Request) -> tuple[str, str]:
    return _instant(request, "from", FIRST), _instant(request, "to", LAST)


def _instant(request: Request, name: str, default: str) -> str:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        moment = datetime.fromisoformat(text)
        return instant(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ContractBroken("not an instant as RFC 3339 writes it", where=name) from None


def _page(request: Request) -> tuple[int, int]:
    """(after, limit)"""
    try:
        after = _number(request.query_params.get("after", "0"))
        return after, page(_number(limit) if (limit := request.query_params.get("limit")) is not None else None)
    except (ValueError, BadInput):
        raise ContractBroken("not a number that a page can have", where="after, limit") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _MOST_ID):
        raise ValueError("not a whole number")
    return int(text)
