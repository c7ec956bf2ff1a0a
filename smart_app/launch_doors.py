"""The doors before a case: where an EHR sends a browser, where it comes back, where one begins without an EHR.

    GET  /app                       the EHRs to begin from (standalone launch)
    GET  /app/launch                `iss`, `launch`: to that EHR's authorization server; without `launch`, standalone
    GET  /app/launch/{ref}          the same from a frame, once it is known that a cookie survives there
    GET  /app/callback              code and state; a case is opened, and the browser is sent to its clean address
    POST /app/{launch_id}/sign-out  the session is gone, for all workers

The browser that comes back must be the one that was sent (a cookie of that launch), its state is good once, and nothing
that came with it is ever a place to go to. What fails is a page with a reason in our words.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from models.errors import CdsError, Malformed, NotAllowed, NotFound, Unauthenticated, WrongPatient
from smart_app import cookies, rendering
from smart_app.granted import granted
from smart_app.launch import Pending, authorization_url, begin, code_form, code_of, parameters
from smart_app.ports import Launches
from smart_app.registered import CALLBACK, LAUNCH, START, Registered, by_issuer
from smart_app.sessions import Sessions, posted
from smart_app.texts import t

LAUNCH_SECONDS = 600
_FRAMES = frozenset({"iframe", "frame", "embed", "object", "fencedframe"})
"""Values of Sec-Fetch-Dest (Fetch Metadata) of a page inside another."""
_MOST_COOKIES = 12
"""Sessions of one browser that are left alone; above them, cookies of sessions that are over are dropped."""

Endpoint = Callable[[Request], Awaitable[Response]]


class LaunchDoors:
    def __init__(self, launches: Launches, sessions: Sessions, public_url: str) -> None:
        self._launches = launches
        self._sessions = sessions
        self._public = public_url
        self._secure = public_url.startswith("https:")

    def routes(self) -> list[Route]:
        """In this order, before those of a case. HEAD is not taken: it would spend a state for whoever looks ahead."""
        doors = [
            Route(START, self._page(self.start), methods=["GET"]),
            Route(LAUNCH, self._page(self.launch), methods=["GET"]),
            Route(f"{LAUNCH}/{{ref}}", self._page(self.framed), methods=["GET"]),
            Route(CALLBACK, self._page(self.callback), methods=["GET"]),
            Route("/app/{launch_id}/sign-out", self._page(self.sign_out), methods=["POST"]),
        ]
        for door in doors:
            door.methods = (door.methods or set()) - {"HEAD"}
        return doors

    # -- to the EHR ----------------------------------------------------------------------------------------------------

    async def start(self, request: Request) -> Response:
        """The EHRs of the configuration, and no other: nobody types an address."""
        apps = sorted(self._launches.registered().values(), key=lambda app: app.title.casefold())
        ehrs = [{"title": app.title, "href": f"{LAUNCH}?{urlencode({'iss': app.base})}"} for app in apps]
        return rendering.page(
            "launch/start.html", title=t("launch.start"), language=_language(request), ancestors=(), ehrs=ehrs
        )

    async def launch(self, request: Request) -> Response:
        """`iss` is held against the registrations before anything is asked of anybody."""
        given = request.query_params
        if any(len(given.getlist(name)) > 1 for name in ("iss", "launch")):
            raise Malformed("the launch has a parameter twice")
        if "iss" not in given:
            raise Malformed("the launch does not say which EHR it comes from")
        app = by_issuer(given["iss"], self._launches.registered())
        if app is None:
            raise NotAllowed("the EHR of this launch is not registered here")
        pending = begin(app, await self._launches.endpoints(app), self._public, given.get("launch"))
        cookie = secrets.token_urlsafe(32)
        await self._launches.keep(pending, cookie)
        if request.headers.get("sec-fetch-dest") in _FRAMES:
            answer: Response = _to(f"{self._public}{LAUNCH}/{pending.ref}")
        else:
            answer = self._onward(app, pending, request)
        name = cookies.launch(pending.ref, secure=self._secure)
        cookies.put(answer, name, cookie, LAUNCH_SECONDS, secure=self._secure)
        return answer

    async def framed(self, request: Request) -> Response:
        """Whether the cookie that was set a moment ago came back: else the launch goes on in a window of its own, while
        what the EHR gave for it is unused."""
        ref = request.path_params["ref"]
        pending, mine = await self._launches.kept(ref, self._launch_cookie(request, ref))
        app = self._app(pending)
        return self._onward(app, pending, request) if mine else self._window(app, pending, request, 200)

    def _onward(self, app: Registered, pending: Pending, request: Request) -> Response:
        if not pending.form:
            return _to(authorization_url(app, pending), 302)
        parts = urlsplit(pending.authorization)
        return rendering.page(
            "launch/onward.html",
            title=t("launch.onward"),
            language=_language(request),
            ancestors=app.ancestors,
            posts_to=(f"{parts.scheme}://{parts.netloc}",),
            action=pending.authorization,
            fields=parameters(app, pending),
        )

    # -- and back ------------------------------------------------------------------------------------------------------

    async def callback(self, request: Request) -> Response:
        given = {name: request.query_params.getlist(name) for name in request.query_params}
        states = given.get("state", [])
        if len(states) != 1 or not 0 < len(states[0]) <= 512:
            raise Unauthenticated(cause="app: the callback has no state")
        try:
            ref = await self._launches.ref_of(states[0])
            pending, mine = await self._launches.take(states[0], self._launch_cookie(request, ref))
        except NotFound:
            raise Unauthenticated(cause="app: the callback's state is unknown, was used, or is too old") from None
        app = self._app(pending)
        try:
            answer = await self._opened(request, app, pending, given) if mine else None
        except CdsError as error:
            answer = self._failed(error, request)
        answer = answer or self._window(app, pending, request, 401)
        cookies.drop(answer, cookies.launch(pending.ref, secure=self._secure), secure=self._secure)
        return answer

    async def _opened(
        self, request: Request, app: Registered, pending: Pending, given: dict[str, list[str]]
    ) -> Response:
        """A code is exchanged once, and only by a callback that is wholly right."""
        code = code_of(given, pending)
        told = await self._launches.tokens_for(app, pending.token, code_form(pending, code), pending.algorithms)
        try:
            known = granted(told, pending.scopes)
        except WrongPatient:
            await self._launches.disagree(app.namespace, "of the context of a launch")
            raise
        opened = await self._launches.open(app, pending, known)
        answer = _to(f"{self._public}/app/{opened.id}/")
        name = cookies.session(opened.id, secure=self._secure)
        cookies.put(answer, name, opened.cookie, opened.seconds, secure=self._secure)
        await self._tidy(request, answer)
        return answer

    async def _tidy(self, request: Request, answer: Response) -> None:
        """Drop cookies of sessions that are over: a browser sends all of them with each request."""
        held = cookies.sessions_in(request.cookies, secure=self._secure)
        if len(held) > _MOST_COOKIES:
            living = await self._launches.living(held)
            for each in held:
                if each not in living:
                    cookies.drop(answer, cookies.session(each, secure=self._secure), secure=self._secure)

    # -- of an open case -----------------------------------------------------------------------------------------------

    async def sign_out(self, request: Request) -> Response:
        case = await self._sessions.case(request)
        await posted(request, case)
        await self._launches.signed_out(case)
        answer = rendering.page(
            "launch/over.html", title=t("launch.over"), language=_language(request), ancestors=case.ancestors
        )
        cookies.drop(answer, cookies.session(case.id, secure=self._secure), secure=self._secure)
        return answer

    # -- pages ---------------------------------------------------------------------------------------------------------

    def _page(self, door: Endpoint) -> Endpoint:
        """A door whose errors are pages."""

        @functools.wraps(door)
        async def guarded(request: Request) -> Response:
            try:
                return await door(request)
            except CdsError as error:
                return self._failed(error, request)

        return guarded

    def _failed(self, error: CdsError, request: Request) -> Response:
        """Why, in our words: what an error says was written here, and holds nothing that came from outside. Any EHR may
        frame it: it is about nobody."""
        self._launches.refused(error)
        if isinstance(error, Unauthenticated):
            told = error.what if error.what != Unauthenticated().what else t("launch.unproved")
        elif isinstance(error, WrongPatient):
            told = t("launch.wrong_lead")
        else:
            told = t("launch.said", what=error.what)
        return rendering.page(
            "launch/failed.html",
            title=t("launch.wrong") if isinstance(error, WrongPatient) else t("launch.failed"),
            status=error.status,
            language=_language(request),
            ancestors=[each for app in self._launches.registered().values() for each in app.ancestors],
            told=told,
            safety=isinstance(error, WrongPatient),
            start=START,
        )

    def _window(self, app: Registered, pending: Pending, request: Request, status: int) -> Response:
        """No cookie survives where this browser is: offer a window of its own, which begins the launch anew. What is
        in the URL alone never opens a case."""
        again = {"iss": app.base} if pending.launch is None else {"iss": app.base, "launch": pending.launch}
        return rendering.page(
            "launch/window.html",
            title=t("launch.window"),
            status=status,
            language=_language(request),
            ancestors=app.ancestors,
            href=f"{self._public}{LAUNCH}?{urlencode(again)}",
        )

    def _app(self, pending: Pending) -> Registered:
        app = self._launches.registered().get(pending.namespace)
        if app is None:
            raise NotAllowed("the EHR of this launch is not registered here")
        return app

    def _launch_cookie(self, request: Request, ref: str) -> str | None:
        return request.cookies.get(cookies.launch(ref, secure=self._secure))


def _to(url: str, status: int = 303) -> Response:
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(url, status, headers=headers)


def _language(request: Request) -> str | None:
    return request.headers.get("accept-language")
