"""How staff come in: sessions, and the one way to begin them that the configuration leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cds_server.access.log import Access
from cds_server.sandbox_staff import SandboxStaff
from cds_server.settings import Settings
from cds_server.staff import CALLBACK, Staff
from cds_server.staff_sessions import StaffSessions
from cds_server.store.store import Store
from models.errors import CdsError, Unauthenticated
from smart_app.rendering import refused
from smart_app.staffed import to_sign_in


class StaffDoors:
    """`sessions` is None where no staff can sign in: no identity provider, and not everything is open."""

    def __init__(self, settings: Settings, store: Store, access: Access) -> None:
        sandbox = settings.staff is None and settings.trust == "open"
        self.sessions = StaffSessions(store, settings, access) if sandbox or settings.staff else None
        self._provider = Staff(settings, store, self.sessions) if settings.staff and self.sessions else None
        self._sandbox = SandboxStaff(settings, self.sessions) if sandbox and self.sessions else None

    def routes(self) -> Sequence[BaseRoute]:
        if self.sessions is None:
            return ()
        shared = [
            Route("/staff", _paged(self.sessions.who), methods=["GET"]),
            Route("/staff/sign-out", _paged(self.sessions.sign_out), methods=["POST"]),
        ]
        if self._sandbox is not None:
            return [
                *shared,
                Route("/staff/sign-in", _paged(self._sandbox.sign_in), methods=["GET"]),
                Route("/staff/sign-in", _paged(self._sandbox.signed_in), methods=["POST"]),
            ]
        if self._provider is None:
            return shared
        return [
            *shared,
            Route("/staff/sign-in", _paged(self._provider.sign_in), methods=["GET"]),
            Route(CALLBACK, _paged(self._provider.callback), methods=["GET"]),
        ]

    async def aclose(self) -> None:
        if self._provider is not None:
            await self._provider.aclose()


def _paged(door: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Whoever asks for pages gets errors as pages, and is led to where they can sign in; programs get what they always
    get (`wire`)."""

    async def answer(request: Request) -> Response:
        try:
            return await door(request)
        except CdsError as error:
            if "text/html" not in request.headers.get("accept", ""):
                raise
            if isinstance(error, Unauthenticated) and request.url.path == "/staff":
                return to_sign_in(request)
            return refused(error, language=request.headers.get("accept-language"))

    return answer
