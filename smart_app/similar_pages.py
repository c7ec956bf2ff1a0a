"""`GET /app/{launch_id}/similar`: whose inputs were like this patient's, and what became of them, counted.

`?many=` how many of the nearest; `?subtype=1`, `?stage=1`: only those of the same.
"""

from __future__ import annotations

import logging
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.errors import CdsError, NotAllowed
from smart_app import rendering
from smart_app.desk import Case
from smart_app.sessions import Sessions
from smart_app.similar import CHOICES, FEWEST, Asked, SimilarDesk
from smart_app.texts import t

_log = logging.getLogger(__name__)


class SimilarPages:
    def __init__(self, sessions: Sessions, desk: SimilarDesk) -> None:
        self._sessions = sessions
        self._desk = desk

    def routes(self) -> list[Route]:
        return [Route("/app/{launch_id}/similar", self.similar)]

    async def similar(self, request: Request) -> Response:
        """Proves the session; every error is a page that says nothing of a patient."""
        case: Case | None = None
        try:
            case = await self._sessions.case(request)
            return await self._page(request, case)
        except NotAllowed as error:
            if error.glass and case is not None:
                return rendering.page(
                    "glass.html",
                    title=t("glass.title"),
                    status=error.status,
                    ancestors=case.ancestors,
                    language=_language(request),
                    action=f"/app/{case.id}/break-glass",
                    csrf=case.csrf,
                    why=error.what,
                )
            return _refused(request, case, error)
        except CdsError as error:
            return _refused(request, case, error)
        except Exception as error:  # noqa: BLE001 - a fault of ours is a page too, without its text
            _log.error("unhandled %s on the page of similar patients", type(error).__name__)
            return _refused(request, case, CdsError("the server failed on this request"))

    async def _page(self, request: Request, case: Case) -> Response:
        asked = Asked.of(parse_qs(request.url.query, max_num_fields=10, errors="replace"))
        view = await self._desk.similar(case, asked)
        return rendering.page(
            "similar.html",
            title=t("similar.title"),
            case=case,
            banner=view.banner,
            places=rendering.case_places(case, "similar"),
            language=_language(request),
            view=view,
            asked=asked,
            choices=CHOICES,
            fewest=FEWEST,
        )


def _refused(request: Request, case: Case | None, error: CdsError) -> Response:
    back, ancestors = (f"/app/{case.id}/", case.ancestors) if case is not None else ("", ())
    return rendering.refused(error, language=_language(request), ancestors=ancestors, back=back)


def _language(request: Request) -> str | None:
    return request.headers.get("accept-language")
