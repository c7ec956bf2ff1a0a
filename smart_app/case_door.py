"""Around each page of a case: its session is proved first, and an error is a page that says nothing of the patient."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from models.errors import CdsError, NotAllowed
from smart_app import rendering
from smart_app.desk import Case
from smart_app.sessions import Sessions
from smart_app.texts import t

_log = logging.getLogger(__name__)

Page = Callable[[Request, Case], Awaitable[Response]]


def proved(sessions: Sessions, page: Page) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a page that needs a case."""

    async def answered(request: Request) -> Response:
        case: Case | None = None
        try:
            case = await sessions.case(request)
            return await page(request, case)
        except NotAllowed as error:
            if error.glass and case is not None:
                return glass(request, case, error)
            return refused(request, case, error)
        except CdsError as error:
            return refused(request, case, error)
        except Exception as error:  # noqa: BLE001 - a fault of ours is a page too, without its text
            _log.error("unhandled %s at %s, on a page of a case", type(error).__name__, _place(error))
            return refused(request, case, CdsError("the server failed on this request"))

    return answered


def refused(request: Request, case: Case | None, error: CdsError) -> Response:
    back = f"/app/{case.id}/" if case is not None and request.url.path != f"/app/{case.id}/" else ""
    ancestors = case.ancestors if case is not None else ()
    return rendering.refused(error, language=language(request), ancestors=ancestors, back=back)


def glass(request: Request, case: Case, error: CdsError) -> Response:
    """The form by which somebody looks although it is protected."""
    return rendering.page(
        "glass.html",
        title=t("glass.title"),
        status=error.status,
        ancestors=case.ancestors,
        language=language(request),
        action=f"/app/{case.id}/break-glass",
        csrf=case.csrf,
        why=error.what,
    )


def language(request: Request) -> str | None:
    return request.headers.get("accept-language")


def _place(error: BaseException) -> str:
    """File and line of the innermost frame; never the text, in which a value of a patient may stand."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else "nowhere"
