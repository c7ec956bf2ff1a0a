"""The port that every page of a case stands on: who looks, and at whose case, proved anew for each request.

The path names the launch, a cookie of that launch proves it: several launches side by side in one browser never meet,
because no page has a "current" patient. `cds_server.smart` implements it over the store, for all workers.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import parse_qsl

from starlette.requests import Request

from models.errors import Malformed, NotAllowed, TooLarge, TooSlow, WrongMediaType
from smart_app.desk import Case

CSRF = "csrf"
"""Name of the field that each POST carries: `<input type="hidden" name="csrf" value="{{ case.csrf }}">`."""
FORM = "application/x-www-form-urlencoded"
FORM_LIMIT = 64 * 1024
FORM_SECONDS = 10
_FIELDS = 400


class Sessions(Protocol):
    """Proves launches."""

    async def case(self, request: Request) -> Case:
        """The case of a request to `/app/{launch_id}/...`.

        1. `request.path_params["launch_id"]` names a session that was opened by a callback and is not ended.
        2. The cookie of that very launch came with the request, and is the session's own.
        3. Neither the idle time nor the longest time is over; a look moves the idle time on.
        4. The session's patient is still the one of its record, and of the card that led here.

        Safe to call again and again. It writes no access entry: that is the page's part (`cds_server.access`).

        Errors: Unauthenticated (no such session, no cookie of it, its time is over: alike for whoever asks), NotAllowed
        (the patients do not agree: the session is ended, and that is on record).
        """


def csrf(case: Case, form: Mapping[str, str]) -> None:
    """Hold a form against its case. Errors: NotAllowed, and nothing was done."""
    if not hmac.compare_digest(form.get(CSRF, "").encode(), case.csrf.encode()):
        raise NotAllowed("this form is not of this page: go back, load the page anew and send it again")


async def posted(request: Request, case: Case, *, limit: int = FORM_LIMIT) -> dict[str, str]:
    """The fields of a form of a case's page, its token checked; a field that stands twice keeps its last value.

    `limit` in bytes. Errors: WrongMediaType, TooLarge, TooSlow, Malformed (not UTF-8, too many fields), NotAllowed.
    """
    form = dict(await posted_fields(request, limit=limit))
    csrf(case, form)
    return form


async def posted_fields(request: Request, *, limit: int = FORM_LIMIT) -> list[tuple[str, str]]:
    """Names and values of an HTML form, in its order, no token checked (HTML, URL-encoded form data)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise WrongMediaType(f"a form is sent as {FORM}", where="Content-Type")
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise TooLarge(f"the form is over {limit} bytes")
    except TimeoutError:
        raise TooSlow(f"the form did not come within {FORM_SECONDS} seconds") from None
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
    except ValueError:
        raise Malformed("the form is not URL-encoded UTF-8, or has too many fields") from None
