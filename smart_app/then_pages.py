"""`GET /app/{launch_id}/then?at=`: what would have been said at a time, and why it is something else now."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.errors import CdsError, NotAllowed
from models.nouns import instant
from smart_app import rendering
from smart_app.desk import Case
from smart_app.sessions import Sessions
from smart_app.texts import t
from smart_app.then import ThenDesk

_log = logging.getLogger(__name__)


class ThenPages:
    def __init__(self, sessions: Sessions, desk: ThenDesk) -> None:
        self._sessions = sessions
        self._desk = desk

    def routes(self) -> list[Route]:
        return [Route("/app/{launch_id}/then", self.then)]

    async def then(self, request: Request) -> Response:
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
            _log.error("unhandled %s on the page of what was known then", type(error).__name__)
            return _refused(request, case, CdsError("the server failed on this request"))

    async def _page(self, request: Request, case: Case) -> Response:
        asked, wrong = moment(parse_qs(request.url.query, max_num_fields=10, errors="replace").get("at", [""])[-1])
        view = await self._desk.then(case, asked)
        return rendering.page(
            "then.html",
            title=t("then.title"),
            case=case,
            banner=view.banner,
            places=rendering.case_places(case, "then"),
            language=_language(request),
            view=view,
            field=field_of(view.at),
            wrong=wrong,
        )


def moment(text: str) -> tuple[str | None, bool]:
    """(the instant that a form's field means, whether it meant none). A field without a zone is in UTC."""
    if not text.strip():
        return None, False
    try:
        found = datetime.fromisoformat(text.strip())
        return instant(found if found.tzinfo else found.replace(tzinfo=UTC)), False
    except (ValueError, OverflowError):
        return None, True


def field_of(at: str | None) -> str:
    """An instant as the form's field has it: whole seconds, not before it, so that the same is shown again."""
    if at is None:
        return ""
    found = datetime.fromisoformat(at)
    return (found + timedelta(seconds=bool(found.microsecond))).isoformat()[:19]


def _refused(request: Request, case: Case | None, error: CdsError) -> Response:
    back, ancestors = (f"/app/{case.id}/", case.ancestors) if case is not None else ("", ())
    return rendering.refused(error, language=_language(request), ancestors=ancestors, back=back)


def _language(request: Request) -> str | None:
    return request.headers.get("accept-language")
