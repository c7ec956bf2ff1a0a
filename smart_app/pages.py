"""The pages of a case: `/app/{launch_id}/...`.

    GET  /                        the case page; `?inference=` another inference of this patient
    GET  /timeline                facts in time, filtered
    GET  /model/{inference}       the model card of the version that it used
    GET  /proof                   `?inference=`: its proof, to keep
    GET  /pictures/{media}        a key slice, PNG
    GET  /done                    `?card=`: what was done with a card (a piece of the page)
    GET  /style.css               the EHR's own colours, as far as they can be read
    POST /act                     agree, override, defer
    POST /what-if                 ask what the model would say had an input been another
    POST /break-glass             look although it is protected, with a reason

Each proves its session first, then asks the desk, which puts the look on record. Everything works without a script.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from models.errors import BadInput
from models.nouns import Outcome
from smart_app import charts, rendering, style
from smart_app.case_door import glass, language, proved
from smart_app.cases import CaseDesk, CaseView, Finding
from smart_app.desk import Case
from smart_app.formats import Formats
from smart_app.markdown import markdown
from smart_app.overrides import Reason, given
from smart_app.sessions import Sessions, posted
from smart_app.texts import t
from smart_app.timeline import GROUPS, PAGE, Wanted

POLLS, POLL_SECONDS = 15, 20
"""How often an open page asks what others did: five minutes in all, for each look keeps its session alive."""
_REF = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_SEQ = re.compile(r"\d{1,18}", re.ASCII)
_MEDIA = re.compile(r"[A-Za-z0-9.-]{1,128}", re.ASCII)


class CasePages:
    """`reasons`: the choices of an override. `ancestors`: who may frame an error page, when it has no case."""

    def __init__(self, sessions: Sessions, desk: CaseDesk, reasons: Sequence[Reason]) -> None:
        self._sessions = sessions
        self._desk = desk
        self._reasons = tuple(reasons)

    def routes(self) -> list[Route]:
        root = "/app/{launch_id}"
        return [
            Route(root, self._slash),
            Route(f"{root}/", proved(self._sessions, self.case)),
            Route(f"{root}/timeline", proved(self._sessions, self.timeline)),
            Route(f"{root}/model/{{inference}}", proved(self._sessions, self.model)),
            Route(f"{root}/proof", proved(self._sessions, self.proof)),
            Route(f"{root}/pictures/{{media}}", proved(self._sessions, self.picture)),
            Route(f"{root}/done", proved(self._sessions, self.done)),
            Route(f"{root}/style.css", proved(self._sessions, self.style)),
            Route(f"{root}/act", proved(self._sessions, self.act), methods=["POST"]),
            Route(f"{root}/what-if", proved(self._sessions, self.what_if), methods=["POST"]),
            Route(f"{root}/break-glass", proved(self._sessions, self.break_glass), methods=["POST"]),
        ]

    # -- pages ---------------------------------------------------------------------------------------------------------

    async def case(self, request: Request, case: Case) -> Response:
        return await self._case(request, case)

    async def _case(
        self, request: Request, case: Case, problem: str = "", filled: Mapping[str, str] | None = None
    ) -> Response:
        view = await self._desk.view(case, _ref(request.query_params.get("inference")))
        answer = view.answer
        f = Formats.of(language(request))
        return rendering.page(
            "case.html",
            title=t("case.title", service=answer.title) if answer else t("case.title_bare"),
            status=400 if problem else 200,
            case=case,
            banner=view.banner,
            places=rendering.case_places(case),
            language=language(request),
            view=view,
            curves={each.inference: charts.survival(each.curves, f) for each in _findings(view) if each.curves},
            bars={each.inference: charts.amounts(each.modalities, f) for each in _findings(view)},
            risks={
                each.inference: charts.risk(each, f)
                for each in _findings(view)
                if each.probability is not None and not each.curves
            },
            reasons=self._reasons,
            outcomes=list(Outcome),
            form=secrets.token_hex(16),
            problem=problem,
            filled=filled or {},
            told=_told(request, view),
            shown_refs={each.inference for each in _findings(view)},
            polls=0,
            most_polls=POLLS,
            seconds=POLL_SECONDS,
        )

    async def timeline(self, request: Request, case: Case) -> Response:
        query = parse_qs(request.url.query, max_num_fields=40, errors="replace")
        wanted = Wanted.of(query)
        banner, found = await self._desk.timeline(case, wanted)
        return rendering.page(
            "timeline.html",
            title=t("timeline.title"),
            case=case,
            banner=banner,
            places=rendering.case_places(case, "timeline"),
            language=language(request),
            wanted=wanted,
            found=found,
            groups=GROUPS,
            newer=_at(query, max(0, wanted.skip - PAGE)) if wanted.skip else None,
            older=_at(query, wanted.skip + PAGE) if wanted.skip + PAGE < found.found else None,
        )

    async def model(self, request: Request, case: Case) -> Response:
        banner, model, card = await self._desk.model_card(case, _needed(request.path_params["inference"]))
        return rendering.page(
            "model.html",
            title=t("model.title", name=model.name, version=model.version),
            case=case,
            banner=banner,
            places=rendering.case_places(case, ""),
            language=language(request),
            model=model,
            card=markdown(_without_title(card), below=0),
        )

    async def proof(self, request: Request, case: Case) -> Response:
        inference = _needed(request.query_params.get("inference") or case.inference or "")
        found = await self._desk.proof(case, inference)
        return _file(found, "text/plain; charset=utf-8", f"{inference}.tlog-proof")

    async def picture(self, request: Request, case: Case) -> Response:
        media = request.path_params["media"]
        if not _MEDIA.fullmatch(media):
            raise BadInput("this is no name of a picture", where="path")
        return _file(await self._desk.picture(case, media), "image/png")

    async def done(self, request: Request, case: Case) -> Response:
        card, polls = _needed(request.query_params.get("card", "")), request.query_params.get("n", "0")
        return rendering.fragment(
            "done.html",
            language=language(request),
            case=case,
            card=card,
            done=await self._desk.done(case, card),
            polls=int(polls) + 1 if _SEQ.fullmatch(polls) else POLLS,
            most_polls=POLLS,
            seconds=POLL_SECONDS,
        )

    async def style(self, request: Request, case: Case) -> Response:
        return _file(style.sheet(case.style).encode(), "text/css; charset=utf-8")

    # -- forms ---------------------------------------------------------------------------------------------------------

    async def act(self, request: Request, case: Case) -> Response:
        form = await posted(request, case)
        try:
            filled = given(form, self._reasons)
        except BadInput as error:
            return await self._case(request, case, t("act.wrong", what=error.what), form)
        acted = await self._desk.act(case, filled)
        told = f"?done={acted.seq}" if acted.fresh else f"?again={acted.seq}"
        told += f"&others={acted.meanwhile}" if acted.meanwhile else ""
        shown = _ref(form.get("inference"))
        return _see(f"/app/{case.id}/{told}{f'&inference={shown}' if shown else ''}#decide")

    async def what_if(self, request: Request, case: Case) -> Response:
        form = await posted(request, case)
        inference = _needed(form.get("inference", ""))
        inputs = {name.removeprefix("set."): value for name, value in form.items() if name.startswith("set.")}
        try:
            await self._desk.what_if(case, inference, inputs)
        except BadInput as error:
            return await self._case(request, case, t("act.wrong", what=error.what), form)
        return _see(f"/app/{case.id}/?inference={inference}#what-if")

    async def break_glass(self, request: Request, case: Case) -> Response:
        form = await posted(request, case)
        try:
            await self._desk.break_glass(case, form.get("reason", ""))
        except BadInput as error:
            return glass(request, case, error)
        return _see(f"/app/{case.id}/")

    async def _slash(self, request: Request) -> Response:
        return _see(f"/app/{quote(request.path_params['launch_id'], safe='')}/")


def _findings(view: CaseView) -> Sequence[Finding]:
    return view.answer.findings if view.answer is not None else ()


def _told(request: Request, view: CaseView) -> Sequence[tuple[str, str]]:
    """(kind, sentence) of what a form led to: only of an action that stands in the list."""
    query, done = request.query_params, view.answer.done if view.answer is not None else ()
    told: list[tuple[str, str]] = []
    for name in ("done", "again"):
        seq = query.get(name, "")
        own = next((each for each in done if str(each.seq) == seq), None)
        if own is not None:
            told.append(("good", t(f"act.{name}", what=t(f"act.did_{own.outcome}"), seq=own.seq)))
            if query.get("others"):
                told.append(("warn", t("act.meanwhile")))
    return told


def _without_title(card: str) -> str:
    """The page has its own first heading."""
    first, _, rest = card.partition("\n")
    return rest if first.startswith("# ") else card


def _ref(text: str | None) -> str | None:
    return text if text and _REF.fullmatch(text) else None


def _needed(text: str) -> str:
    if _ref(text) is None:
        raise BadInput("this is no id of an inference or a card")
    return text


def _at(query: Mapping[str, list[str]], skip: int) -> str:
    """The same filter, further on."""
    fields = [(name, value) for name in ("group", "text", "from", "to") for value in query.get(name, ())]
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in (*fields, ("skip", str(skip))))


def _see(to: str) -> Response:
    return RedirectResponse(to, 303, headers=rendering.headers())


def _file(body: bytes, media_type: str, name: str = "") -> Response:
    kept = {"Content-Disposition": f'attachment; filename="{name}"'} if name else {}
    return Response(body, media_type=media_type, headers={**rendering.headers(), **kept})
