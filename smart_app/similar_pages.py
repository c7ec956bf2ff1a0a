"""`GET /app/{launch_id}/similar`: whose inputs were like this patient's, and what became of them, counted.

`?many=` how many of the nearest; `?subtype=1`, `?stage=1`: only those of the same.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smart_app import rendering
from smart_app.case_door import language, proved
from smart_app.desk import Case
from smart_app.sessions import Sessions
from smart_app.similar import CHOICES, FEWEST, Asked, SimilarDesk
from smart_app.texts import t


class SimilarPages:
    def __init__(self, sessions: Sessions, desk: SimilarDesk) -> None:
        self._sessions = sessions
        self._desk = desk

    def routes(self) -> list[Route]:
        return [Route("/app/{launch_id}/similar", proved(self._sessions, self.similar))]

    async def similar(self, request: Request, case: Case) -> Response:
        asked = Asked.of(parse_qs(request.url.query, max_num_fields=10, errors="replace"))
        view = await self._desk.similar(case, asked)
        return rendering.page(
            "similar.html",
            title=t("similar.title"),
            case=case,
            banner=view.banner,
            places=rendering.case_places(case, "similar"),
            language=language(request),
            view=view,
            asked=asked,
            choices=CHOICES,
            fewest=FEWEST,
        )
