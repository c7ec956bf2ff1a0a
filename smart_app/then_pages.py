"""`GET /app/{launch_id}/then?at=`: what would have been said at a time, and why it is something else now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.nouns import instant
from smart_app import rendering
from smart_app.case_door import language, proved
from smart_app.desk import Case
from smart_app.sessions import Sessions
from smart_app.texts import t
from smart_app.then import ThenDesk


class ThenPages:
    def __init__(self, sessions: Sessions, desk: ThenDesk) -> None:
        self._sessions = sessions
        self._desk = desk

    def routes(self) -> list[Route]:
        return [Route("/app/{launch_id}/then", proved(self._sessions, self.then))]

    async def then(self, request: Request, case: Case) -> Response:
        asked, wrong = moment(parse_qs(request.url.query, max_num_fields=10, errors="replace").get("at", [""])[-1])
        view = await self._desk.then(case, asked)
        return rendering.page(
            "then.html",
            title=t("then.title"),
            case=case,
            banner=view.banner,
            places=rendering.case_places(case, "then"),
            language=language(request),
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
