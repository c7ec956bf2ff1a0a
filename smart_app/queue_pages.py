"""The pages of the work queue, for staff who are signed in. No patient in an address, a form or a text.

GET  /work                      what waits, with counts and filters
GET  /work/{flag}               one thing, with its history
POST /work/{flag}/{verb}        claim, release, give, again, resolve
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from models.errors import CdsError, NotFound, Unauthenticated
from smart_app.desk import Viewer
from smart_app.queue import AGES, KINDS, MINE, NOBODY, RESOLUTION, Asked, Queue
from smart_app.rendering import Place, headers, page, refused
from smart_app.staffed import Staffed, posted, to_sign_in
from smart_app.texts import t

ROOT = "/work"
_MOST_ID = 1 << 63


class QueuePages:
    def __init__(self, staffed: Staffed, queue: Queue, board: Callable[[Viewer], bool]) -> None:
        self._staffed = staffed
        self._queue = queue
        self._board = board

    def routes(self) -> list[Route]:
        return [
            Route(ROOT, self._proved(self._list), methods=["GET"]),
            Route(f"{ROOT}/{{flag:int}}", self._proved(self._one), methods=["GET"]),
            Route(f"{ROOT}/{{flag:int}}/{{verb}}", self._proved(self._act), methods=["POST"]),
        ]

    def _proved(
        self, shown: Callable[[Request, Viewer], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """For whoever is signed in; others are led to where they can sign in, and errors are pages."""

        async def answer(request: Request) -> Response:
            try:
                viewer = await self._staffed.viewer(request)
            except Unauthenticated as error:
                if request.method == "GET":
                    return to_sign_in(request)
                return refused(error, language=request.headers.get("accept-language"))
            try:
                return await shown(request, viewer)
            except CdsError as error:
                return refused(error, language=request.headers.get("accept-language"))

        return answer

    async def _list(self, request: Request, viewer: Viewer) -> Response:
        asked = asked_of(request)
        found = await self._queue.waiting(viewer, asked)
        return page(
            "queue/list.html",
            title=t("queue.title"),
            language=request.headers.get("accept-language"),
            places=self._places(viewer),
            viewer=viewer,
            found=found,
            asked=asked,
            kinds=KINDS,
            ages=AGES,
            ago=ago,
            narrowed=asked != Asked(),
            more=f"{ROOT}?{urlencode(_query(asked) | {'after': found.next})}" if found.next else "",
            csrf=self._staffed.csrf(request),
        )

    async def _one(self, request: Request, viewer: Viewer) -> Response:
        detail = await self._queue.one(viewer, _flag(request))
        return page(
            "queue/one.html",
            title=t("queue.one", kind=t(f"queue.kind.{detail.item.kind}"), reason=detail.item.reason),
            language=request.headers.get("accept-language"),
            places=self._places(viewer),
            viewer=viewer,
            detail=detail,
            item=detail.item,
            ago=ago,
            limits=RESOLUTION,
            csrf=self._staffed.csrf(request),
        )

    async def _act(self, request: Request, viewer: Viewer) -> Response:
        form, flag, verb = await posted(request, self._staffed), _flag(request), request.path_params["verb"]
        claim, to = form.get("claim", ""), f"{ROOT}/{flag}"
        if verb == "claim":
            await self._queue.claim(viewer, flag, claim)
        elif verb == "release":
            await self._queue.release(viewer, flag, claim)
        elif verb == "give":
            await self._queue.give(viewer, flag, claim, form.get("to", ""))
        elif verb == "again":
            await self._queue.again(viewer, flag)
        elif verb == "resolve":
            await self._queue.resolve(viewer, flag, form.get("words", ""))
            to = ROOT
        else:
            raise NotFound("there is no such page")
        return RedirectResponse(to, 303, headers=headers())

    def _places(self, viewer: Viewer) -> tuple[Place, ...]:
        board = (Place(t("frame.board"), "/board"),) if self._board(viewer) else ()
        return (Place(t("frame.work"), ROOT, current=True), *board, Place(t("staff.title"), "/staff"))


def asked_of(request: Request) -> Asked:
    """The filters of an address; what is none of ours is left out."""
    said = request.query_params
    kind, handled, after = said.get("kind", ""), said.get("handled", ""), said.get("after", "0")
    return Asked(
        kind=kind if kind in KINDS else "",
        reason=said.get("reason", "")[:64],
        handled=handled if handled in (NOBODY, MINE) else "",
        days=AGES.get(said.get("days", ""), 0),
        after=int(after) if after.isascii() and after.isdecimal() and len(after) < 20 and int(after) < _MOST_ID else 0,
    )


def _query(asked: Asked) -> dict[str, str | int]:
    said = {"kind": asked.kind, "reason": asked.reason, "handled": asked.handled, "days": asked.days or ""}
    return {name: value for name, value in said.items() if value}


def _flag(request: Request) -> int:
    flag: int = request.path_params["flag"]
    if flag >= _MOST_ID:
        raise NotFound("there is no such flag")
    return flag


def ago(seconds: int) -> str:
    """How long something waits: `12 min`, `5 h`, `3 d`."""
    if seconds < 7200:
        return t("queue.minutes", n=max(0, seconds) // 60)
    return t("queue.hours", n=seconds // 3600) if seconds < 172_800 else t("queue.span_days", n=seconds // 86_400)
