"""The port of pages that stand on no case: who of the staff looks. A session of staff never holds a patient.

`cds_server.staff_sessions` implements it over the store, for all workers.
"""

from __future__ import annotations

import hmac
from typing import Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from models.errors import NotAllowed
from smart_app.desk import Viewer
from smart_app.rendering import headers
from smart_app.sessions import CSRF, posted_fields

SIGN_IN = "/staff/sign-in"


class Staffed(Protocol):
    """Proves sessions of staff."""

    async def viewer(self, request: Request) -> Viewer:
        """Who is signed in with this request's cookie, with the roles that they have now. It moves the idle time on.

        Errors: Unauthenticated (nobody, or the session lay unused for too long).
        """

    def csrf(self, request: Request) -> str:
        """What each POST of this session's pages must carry, as the field `csrf`."""


async def posted(request: Request, staffed: Staffed) -> dict[str, str]:
    """The fields of a form of this session, its token checked. Errors: as `sessions.posted_fields`, NotAllowed."""
    form = dict(await posted_fields(request))
    if not hmac.compare_digest(form.get(CSRF, "").encode(), staffed.csrf(request).encode()):
        raise NotAllowed("this form is not of this session: load the page anew and send it again")
    return form


def to_sign_in(request: Request) -> Response:
    """Nobody is signed in: there, and back to this page (whose address names no patient)."""
    return RedirectResponse(f"{SIGN_IN}?next={quote(request.url.path)}", 303, headers=headers())
