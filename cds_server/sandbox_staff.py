"""Who signs in where `trust` is open and no identity provider is configured: one of three made-up people, by a click.

For `make demo`, so that the board and the work queue can be tried out. The settings refuse `trust = "open"` anywhere
but on loopback; this door looks again at each request, and does not exist where `[staff]` is configured.

    GET  /staff/sign-in     the three, loudly marked
    POST /staff/sign-in     one of them, on record like anybody
"""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import Response

from cds_server.operators import from_here
from cds_server.settings import Settings
from cds_server.staff_sessions import Person, StaffSessions, lead
from models.errors import NotAllowed, NotFound
from smart_app import rendering
from smart_app.desk import Role
from smart_app.sessions import CSRF, posted_fields
from smart_app.texts import t

PEOPLE = {
    "clinician": Person("sandbox:clinician", "Dr Amara Osei (made up)", roles=(Role.CLINICIAN,)),
    "chair": Person("sandbox:chair", "Prof. Helen Brandt (made up)", roles=(Role.BOARD_CHAIR,)),
    "compliance": Person("sandbox:compliance", "Jonas Weber (made up)", roles=(Role.COMPLIANCE,)),
}
_COOKIE, _PURPOSE = "cds-sandbox-sign-in", "sandbox-sign-in"


class SandboxStaff:
    def __init__(self, settings: Settings, sessions: StaffSessions) -> None:
        if settings.trust != "open" or settings.staff is not None:
            raise ValueError("made-up people sign in where everything is open, and nowhere else")
        self._sessions = sessions

    async def sign_in(self, request: Request) -> Response:
        self._check(request)
        cookie = request.cookies.get(_COOKIE) or secrets.token_urlsafe(24)
        response = rendering.page(
            "staff/sandbox.html",
            title=t("staff.sandbox_title"),
            language=request.headers.get("accept-language"),
            people=[(key, person.name, [t(f"role.{role}") for role in person.roles]) for key, person in PEOPLE.items()],
            to=lead(request.query_params.get("next", "/staff")),
            csrf=self._sessions.token(_PURPOSE, cookie),
        )
        self._sessions.set(response, _COOKIE, cookie, 3600, path="/staff")
        return response

    async def signed_in(self, request: Request) -> Response:
        self._check(request)
        form = dict(await posted_fields(request))
        if not self._sessions.holds(_PURPOSE, request.cookies.get(_COOKIE, ""), form.get(CSRF, "")):
            raise NotAllowed("this form is not of this page: load it anew")
        person = PEOPLE.get(form.get("person", ""))
        if person is None:
            raise NotFound("there is no such person")
        return await self._sessions.begin(person, lead(form.get("next", "")))

    def _check(self, request: Request) -> None:
        if not from_here(request):
            raise NotAllowed("made-up people sign in on this machine only")
