"""From a case page to the board: put its patient on the worklist of a meeting.

GET  /app/{launch_id}/board      which meeting, and with which question
POST /app/{launch_id}/board      done, once
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from models.errors import CdsError, Conflict, NotFound
from smart_app import rendering
from smart_app.banners import Banners
from smart_app.boards import Boards, Unfit
from smart_app.rendering import case_places
from smart_app.sessions import Sessions, posted
from smart_app.texts import t


class BoardDoor:
    def __init__(self, sessions: Sessions, banners: Banners, boards: Boards) -> None:
        self._sessions = sessions
        self._banners = banners
        self._boards = boards

    def routes(self) -> Sequence[BaseRoute]:
        path = "/app/{launch_id}/board"
        return [Route(path, self.ask, methods=["GET"]), Route(path, self.bring, methods=["POST"])]

    async def ask(self, request: Request) -> Response:
        return await self._answer(request, post=False)

    async def bring(self, request: Request) -> Response:
        return await self._answer(request, post=True)

    async def _answer(self, request: Request, *, post: bool) -> Response:
        language = request.headers.get("accept-language")
        try:
            case = await self._sessions.case(request)
            done, wrong, status = False, "", 200
            if post:
                form = await posted(request, case)
                try:
                    await self._boards.add(case.viewer, form.get("meeting", ""), case.record, form.get("question", ""))
                    done = True
                except (Unfit, Conflict, NotFound) as error:
                    wrong = error.key if isinstance(error, Unfit) else "board.add.no_such_meeting"
                    status = error.status
            return rendering.page(
                "board/bring.html",
                title=t("board.add.from_case"),
                status=status,
                case=case,
                banner=await self._banners.banner(case),
                places=case_places(case),
                language=language,
                meetings=await self._boards.upcoming(case.viewer),
                done=done,
                wrong=wrong,
            )
        except CdsError as error:
            return rendering.refused(error, language=language)
