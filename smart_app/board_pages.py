"""The pages of the tumor board. Everything works by links and forms; a script adds keys to the projector's page.

    GET  /board                              meetings; POST: plan one
    GET  /board/meeting/{meeting}            its worklist
    POST /board/meeting/{meeting}/find, add, open, glass, order, withdraw, state
    GET  /board/meeting/{meeting}/minutes.pdf
    GET  /board/case/{case_id}/              one case: summary, recommendation, signatures, minutes
    GET  /board/case/{case_id}/present       the same for a projector
    GET  /board/case/{case_id}/next          opens the next case, /previous the one before
    POST /board/case/{case_id}/recommendation, sign, minutes
    GET  /board/case/{case_id}/minutes.pdf, minutes.json, picture/{number}

No address names a patient: a meeting has a random reference, an open case an id that is worth nothing without the
sign-in that opened it.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from models.errors import BadInput, CdsError, Conflict, NotAllowed, NotFound, Refused, Unauthenticated
from smart_app import rendering
from smart_app.boards import Boards, Draft, Meeting, OpenCase, Participant, Seat, Unfit
from smart_app.sessions import CSRF, posted, posted_fields
from smart_app.staffed import SIGN_IN
from smart_app.texts import english, t

ROOT = "/board"
Handler = Callable[[Any, Request], Awaitable[Response]]


def _page(handler: Handler) -> Handler:
    """An error leaves as a page; whoever is not signed in is led there, and back to the board."""

    @wraps(handler)
    async def guarded(pages: Any, request: Request) -> Response:
        try:
            return await handler(pages, request)
        except Unauthenticated as error:
            if request.method == "GET":
                return RedirectResponse(f"{SIGN_IN}?next={ROOT}", 303, headers=rendering.headers())
            return _refused(error, request)  # a form may lead nowhere else (`form-action`)
        except CdsError as error:
            return _refused(error, request)

    return guarded


def _refused(error: CdsError, request: Request) -> Response:
    """What kind of error it is, and, of a rule of ours, which: our own words, never anything that was asked."""
    key = f"error.{error.status}"
    return rendering.page(
        "board/refused.html",
        title=t("error.title"),
        status=error.status,
        language=_language(request),
        told=t(key if key in english() else "error.500" if error.status >= 500 else "error.400"),
        why=error.what if isinstance(error, Refused | NotFound | BadInput) else "",
    )


class BoardPages:
    """`boards` does and knows everything; here is what it looks like."""

    def __init__(self, boards: Boards) -> None:
        self._boards = boards

    def routes(self) -> Sequence[BaseRoute]:
        meeting, case = f"{ROOT}/meeting/{{meeting}}", f"{ROOT}/case/{{case_id}}"
        gets = {
            ROOT: self.meetings,
            meeting: self.meeting,
            f"{meeting}/minutes.pdf": self.meeting_minutes,
            f"{case}/": self.case,
            f"{case}/present": self.present,
            f"{case}/next": self.next,
            f"{case}/previous": self.previous,
            f"{case}/minutes.pdf": self.minutes,
            f"{case}/minutes.json": self.fhir,
            f"{case}/picture/{{number:int}}": self.picture,
        }
        posts = {
            ROOT: self.call,
            f"{meeting}/state": self.state,
            f"{meeting}/find": self.find,
            f"{meeting}/add": self.add,
            f"{meeting}/open": self.open,
            f"{meeting}/glass": self.glass,
            f"{meeting}/order": self.order,
            f"{meeting}/withdraw": self.withdraw,
            f"{case}/recommendation": self.recommend,
            f"{case}/sign": self.sign,
            f"{case}/minutes": self.give_out,
        }
        return [
            *(Route(path, handler, methods=["GET"]) for path, handler in gets.items()),
            *(Route(path, handler, methods=["POST"]) for path, handler in posts.items()),
        ]

    # -- meetings ------------------------------------------------------------------------------------------------------

    @_page
    async def meetings(self, request: Request) -> Response:
        return await self._meetings(request, await self._boards.seat(request))

    async def _meetings(self, request: Request, seat: Seat, wrong: str = "", status: int = 200) -> Response:
        return self._shown(
            request,
            "board/meetings.html",
            seat,
            t("board.title"),
            status=status,
            meetings=await self._boards.meetings(seat),
            wrong=wrong,
        )

    @_page
    async def call(self, request: Request) -> Response:
        seat, form = await self._form(request)
        try:
            ref = await self._boards.call(seat, form.get("title", ""), form.get("held_on", ""), form.get("place", ""))
        except Unfit as error:
            return await self._meetings(request, seat, error.key, 400)
        return _to(f"{ROOT}/meeting/{ref}")

    @_page
    async def meeting(self, request: Request) -> Response:
        return await self._worklist(request, await self._boards.seat(request))

    async def _worklist(self, request: Request, seat: Seat, wrong: str = "", status: int = 200) -> Response:
        found = await self._boards.meeting(seat, _meeting(request))
        return self._shown(
            request,
            "board/meeting.html",
            seat,
            found.line.title,
            status=status,
            meeting=found.line,
            listed=found.listed,
            first=_first(found),
            wrong=wrong,
        )

    @_page
    async def state(self, request: Request) -> Response:
        seat, form = await self._form(request)
        await self._boards.close(seat, _meeting(request), closed=form.get("state") == "closed")
        return self._back(request)

    @_page
    async def meeting_minutes(self, request: Request) -> Response:
        seat = await self._boards.seat(request)
        return _file(await self._boards.meeting_minutes(seat, _meeting(request)), "application/pdf", "minutes.pdf")

    # -- the worklist --------------------------------------------------------------------------------------------------

    @_page
    async def find(self, request: Request) -> Response:
        seat, form = await self._form(request)
        try:
            found = await self._boards.find(seat, _meeting(request), form.get("identifier", ""))
        except NotFound:
            return await self._worklist(request, seat, "board.add.nobody", 404)
        return self._shown(
            request,
            "board/found.html",
            seat,
            t("board.add.is_it"),
            found=found,
            back=f"{ROOT}/meeting/{_meeting(request)}",
        )

    @_page
    async def add(self, request: Request) -> Response:
        seat, form = await self._form(request)
        try:
            await self._boards.add(seat.viewer, _meeting(request), form.get("record", ""), form.get("question", ""))
        except Unfit as error:
            return await self._worklist(request, seat, error.key, 400)
        return self._back(request)

    @_page
    async def open(self, request: Request) -> Response:
        seat, form = await self._form(request)
        ref = form.get("case", "")
        try:
            name = await self._boards.open(seat, ref)
        except NotAllowed as error:
            return self._shown(
                request,
                "board/withheld.html",
                seat,
                t("board.withheld_short"),
                status=403,
                why=error.what,
                glass=error.glass,
                ref=ref,
                back=f"{ROOT}/meeting/{_meeting(request)}",
            )
        return _to(f"{ROOT}/case/{name}/{'present' if form.get('present') else ''}")

    @_page
    async def glass(self, request: Request) -> Response:
        seat, form = await self._form(request)
        ref = form.get("case", "")
        await self._boards.break_glass(seat, ref, form.get("reason", ""))
        return _to(f"{ROOT}/case/{await self._boards.open(seat, ref)}/")

    @_page
    async def order(self, request: Request) -> Response:
        seat, form = await self._form(request)
        by = {"up": -1, "down": 1}.get(form.get("move", ""), 0)
        await self._boards.reorder(seat, _meeting(request), form.get("case", ""), by)
        return self._back(request)

    @_page
    async def withdraw(self, request: Request) -> Response:
        seat, form = await self._form(request)
        await self._boards.withdraw(seat, _meeting(request), form.get("case", ""))
        return self._back(request)

    # -- one case ------------------------------------------------------------------------------------------------------

    @_page
    async def case(self, request: Request) -> Response:
        return await self._case(request, await self._boards.opened(request))

    @_page
    async def present(self, request: Request) -> Response:
        return await self._case(request, await self._boards.opened(request), present=True)

    async def _case(
        self,
        request: Request,
        opened: OpenCase,
        *,
        present: bool = False,
        wrong: str = "",
        status: int = 200,
        typed: Mapping[str, str] | None = None,
    ) -> Response:
        root = f"{ROOT}/case/{opened.case.id}/"
        meeting = f"{ROOT}/meeting/{opened.meeting.ref}"
        summary = await self._boards.summary(opened)
        return rendering.page(
            "board/case.html",
            title=t("board.case_of", number=opened.number, of=opened.of),
            status=status,
            case=opened.case,
            banner=opened.banner,
            language=_language(request),
            opened=opened,
            summary=summary,
            present=present,
            root=root,
            meeting=meeting,
            wrong=wrong,
            typed=typed or _typed(opened),
            given_out=await self._boards.given_out(opened),
            role=_role(opened),
        )

    @_page
    async def next(self, request: Request) -> Response:
        return await self._step(request, forward=True)

    @_page
    async def previous(self, request: Request) -> Response:
        return await self._step(request, forward=False)

    async def _step(self, request: Request, *, forward: bool) -> Response:
        """Open the neighbour of an open case. The address holds the id of an open case: nobody else can make a link."""
        opened = await self._boards.opened(request)
        ref = opened.next if forward else opened.previous
        if ref is None:
            return _to(f"{ROOT}/meeting/{opened.meeting.ref}")
        name = await self._boards.open(await self._boards.seat(request), ref)
        return _to(f"{ROOT}/case/{name}/{'present' if 'present' in request.query_params else ''}")

    @_page
    async def picture(self, request: Request) -> Response:
        opened = await self._boards.opened(request)
        body = await self._boards.picture(opened, int(request.path_params["number"]))
        return Response(body, media_type="image/png", headers=rendering.headers())

    # -- what the board says -------------------------------------------------------------------------------------------

    @_page
    async def recommend(self, request: Request) -> Response:
        opened = await self._boards.opened(request)
        form = await posted(request, opened.case)
        try:
            await self._boards.recommend(opened, _draft(form), _whole(form.get("after", "")))
        except (Unfit, Conflict) as error:
            key = error.key if isinstance(error, Unfit) else "board.conflict"
            again = await self._boards.opened(request)
            return await self._case(request, again, wrong=key, status=error.status, typed=form)
        return _to(f"{ROOT}/case/{opened.case.id}/#recommendation")

    @_page
    async def sign(self, request: Request) -> Response:
        opened = await self._boards.opened(request)
        form = await posted(request, opened.case)
        try:
            await self._boards.sign(opened, _whole(form.get("version", "")), form.get("note", ""))
        except (Unfit, Conflict) as error:
            key = error.key if isinstance(error, Unfit) else "board.conflict"
            return await self._case(
                request, await self._boards.opened(request), wrong=key, status=error.status, typed=form
            )
        return _to(f"{ROOT}/case/{opened.case.id}/#recommendation")

    @_page
    async def give_out(self, request: Request) -> Response:
        opened = await self._boards.opened(request)
        await posted(request, opened.case)
        await self._boards.give_out(opened)
        return _to(f"{ROOT}/case/{opened.case.id}/#recommendation")

    @_page
    async def minutes(self, request: Request) -> Response:
        opened = await self._boards.opened(request)
        return _file(await self._boards.minutes(opened), "application/pdf", "minutes.pdf")

    @_page
    async def fhir(self, request: Request) -> Response:
        opened = await self._boards.opened(request)
        return _file(await self._boards.fhir(opened), "application/fhir+json", "minutes.json")

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _form(self, request: Request) -> tuple[Seat, dict[str, str]]:
        """Who posts, and what; the session's token is checked. Errors: Unauthenticated, NotAllowed, Malformed."""
        seat = await self._boards.seat(request)
        form = dict(await posted_fields(request))
        if not hmac.compare_digest(form.get(CSRF, "").encode(), seat.csrf.encode()):
            raise NotAllowed("this form is not of this session: load the page anew and send it again")
        return seat, form

    def _shown(
        self, request: Request, template: str, seat: Seat, title: str, status: int = 200, **values: Any
    ) -> Response:
        return rendering.page(
            template, title=title, status=status, language=_language(request), seat=seat, csrf=seat.csrf, **values
        )

    def _back(self, request: Request) -> Response:
        return _to(f"{ROOT}/meeting/{_meeting(request)}")


def _to(path: str) -> Response:
    return RedirectResponse(path, 303, headers=rendering.headers())


def _file(body: bytes, media_type: str, name: str) -> Response:
    told = {**rendering.headers(), "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(body, media_type=media_type, headers=told)


def _language(request: Request) -> str | None:
    return request.headers.get("accept-language")


def _meeting(request: Request) -> str:
    return str(request.path_params["meeting"])


def _first(meeting: Meeting) -> str:
    """The case that a presentation begins with: the first that this viewer may see."""
    return next((each.ref for each in meeting.listed if each.banner is not None), "")


def _whole(told: str) -> int:
    return int(told) if told.isascii() and told.isdecimal() and len(told) < 9 else -1


def _lines(told: str) -> tuple[str, ...]:
    return tuple(line for each in told.splitlines() if (line := " ".join(each.split())))


def _draft(form: Mapping[str, str]) -> Draft:
    """Participants as `name, role`, one a line."""
    people = (line.partition(",") for line in _lines(form.get("participants", "")))
    return Draft(
        form.get("recommendation", ""),
        form.get("rationale", ""),
        form.get("dissent", ""),
        _lines(form.get("follow_up", "")),
        tuple(Participant(name.strip(), role.strip()) for name, _, role in people if name.strip()),
    )


def _typed(opened: OpenCase) -> Mapping[str, str]:
    """What stands in the form: the newest version, to be changed; before the first, nobody but the writer took part."""
    newest = opened.newest
    if newest is None:
        return {"participants": opened.case.viewer.name}
    draft = newest.draft
    return {
        "recommendation": draft.recommendation,
        "rationale": draft.rationale,
        "dissent": draft.dissent,
        "follow_up": "\n".join(draft.follow_up),
        "participants": "\n".join(", ".join(filter(None, (each.name, each.role))) for each in draft.participants),
    }


def _role(opened: OpenCase) -> str:
    return "board-chair" if opened.chair else "clinician"
