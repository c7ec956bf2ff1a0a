"""The EHR's pages: pick a patient, fire a hook, answer its cards, order, open the app. No script, no inline style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from cds_server.hooks.reasons import CLINICAL
from cds_server.sandbox import orders, render
from cds_server.sandbox.clients import App
from cds_server.sandbox.clock import redated
from cds_server.sandbox.ehr import Case
from cds_server.sandbox.grants import Context, Grants
from cds_server.sandbox.records import Records
from cds_server.sandbox.rendering import Rendering, own_page_only, read_form
from cds_server.sandbox.users import USERS, User, user_of
from cds_server.sandbox.visits import Visit, Visits
from models.errors import CdsError, NotAllowed, NotFound
from models.nouns import JSON

TITLES = {
    "patient-view": "Open the chart",
    "encounter-start": "Start the encounter",
    "order-select": "Select an order",
    "order-sign": "Sign the draft orders",
}
INTENTS = {"": "no intent", "order-review": "order-review", "tumor-board": "tumor-board"}
MOST_CONTEXT = 2000
"""Characters of an `appContext` that a person types: to try what an app does with another patient's card."""
COOKIE = "sandbox-user"
"""Who sits here. It proves nothing, and needs not: this is a sandbox."""


class Pages:
    def __init__(
        self,
        own_url: str,
        cases: Mapping[str, Case],
        records: Records,
        visits: Visits,
        grants: Grants,
        apps: Sequence[App],
        rendering: Rendering,
    ) -> None:
        self._own = own_url
        self._cases = cases
        self._records = records
        self._visits = visits
        self._grants = grants
        self._apps = apps
        self._rendering = rendering
        self._catalogue = orders.catalogue(cases.values())
        self._frames = sorted({_origin(app.launch_url) for app in apps})

    def routes(self) -> list[Route]:
        return [
            Route("/", self.home),
            Route("/developers", self.developers),
            Route("/user", self.sit_down, methods=["POST"]),
            Route("/cases/{case}", self.case),
            Route("/cases/{case}/order", self.order, methods=["POST"]),
            Route("/cases/{case}/app", self.chart_app),
            Route("/cases/{case}/launch", self.launch_from_chart),
            Route("/cases/{case}/{hook}", self.fire, methods=["POST"]),
            Route("/visits/{visit}", self.visit),
            Route("/visits/{visit}/feedback", self.feedback, methods=["POST"]),
            Route("/visits/{visit}/sign", self.sign, methods=["POST"]),
            Route("/visits/{visit}/cards/{card}/{link:int}/app", self.card_app),
            Route("/visits/{visit}/cards/{card}/{link:int}/launch", self.launch_from_card),
        ]

    # ---- charts and hooks --------------------------------------------------------------------------------------------

    async def home(self, request: Request) -> Response:
        return self._page(request, next(iter(self._cases.values())))

    async def case(self, request: Request) -> Response:
        return self._page(request, self._case(request))

    async def developers(self, request: Request) -> Response:
        return self._rendering.page(
            "developers.html",
            title="For developers",
            user=_user(request),
            users=USERS,
            here="/developers",
            own=self._own,
            apps=self._apps,
        )

    async def sit_down(self, request: Request) -> Response:
        """Another person takes the seat."""
        own_page_only(request)
        form = await read_form(request)
        back = form.get("here", "/")
        answer = RedirectResponse(back if back.startswith("/") and "//" not in back and "\\" not in back else "/", 303)
        answer.set_cookie(COOKIE, user_of(form.get("user")).id, httponly=True, samesite="lax")
        return answer

    async def fire(self, request: Request) -> Response:
        own_page_only(request)
        case, hook = self._case(request), request.path_params["hook"]
        if hook not in case.requests:
            raise NotFound("there is no fixture for this hook")
        return await self._fired(case, _user(request), redated(case.requests[hook], datetime.now(UTC)))

    async def order(self, request: Request) -> Response:
        """Choose a drug: a draft is made, and `order-select` fires."""
        own_page_only(request)
        case, form, user = self._case(request), await read_form(request), _user(request)
        template = self._catalogue.get(form.get("drug", ""))
        if template is None:
            raise NotFound("this cannot be ordered here")
        draft = orders.drafted(template, case.id, user.resource, self._reason(case))
        asked = orders.request_of("order-select", self._context(case), [draft], f"{self._own}/fhir")
        return await self._fired(case, user, asked)

    async def sign(self, request: Request) -> Response:
        """Sign the drafts of a visit: `order-sign` fires with them."""
        own_page_only(request)
        visit = self._visits.get(request.path_params["visit"])
        drafts = orders.drafts_of(visit.request)
        if not drafts:
            raise NotFound("there are no draft orders to sign")
        asked = orders.request_of("order-sign", visit.request["context"], drafts, f"{self._own}/fhir")
        brought = {"prefetch": visit.request["prefetch"]} if "prefetch" in visit.request else {}
        return await self._fired(visit.case, _user(request), {**asked, **brought})

    async def visit(self, request: Request) -> Response:
        visit = self._visits.get(request.path_params["visit"])
        return self._page(request, visit.case, visit)

    async def feedback(self, request: Request) -> Response:
        own_page_only(request)
        visit = self._visits.get(request.path_params["visit"])
        await self._visits.answer(visit, await read_form(request))
        return RedirectResponse(f"/visits/{visit.id}", 303)

    async def _fired(self, case: Case, user: User, asked: JSON) -> Response:
        visit = await self._visits.fire(case, user, asked)
        return RedirectResponse(f"/visits/{visit.id}", 303)

    # ---- the app -----------------------------------------------------------------------------------------------------

    async def chart_app(self, request: Request) -> Response:
        case, chosen = self._case(request), _options(request)
        launch = f"/cases/{case.id}/launch?{urlencode(chosen)}".rstrip("?")
        return self._app_page(request, case, launch, f"/cases/{case.id}")

    async def launch_from_chart(self, request: Request) -> Response:
        case, chosen = self._case(request), _options(request)
        context = Context(
            _user(request),
            case.id,
            self._encounter(case, {}),
            app_context=chosen.get("appContext"),
            intent=chosen.get("intent"),
            banner="banner" not in chosen,
            style="style" not in chosen,
        )
        return self._launch(request, self._apps[0].launch_url, context)

    async def card_app(self, request: Request) -> Response:
        visit, _ = self._link(request)
        return self._app_page(request, visit.case, request.url.path.removesuffix("app") + "launch", visit_path(visit))

    async def launch_from_card(self, request: Request) -> Response:
        """Launch the app of a card's link, with the link's `appContext` (CDS Hooks 2.0.1, Link)."""
        visit, link = self._link(request)
        context = Context(
            visit.user,
            visit.case.id,
            self._encounter(visit.case, visit.request["context"]),
            app_context=link.get("appContext"),
            fhir_context=_focus(orders.drafts_of(visit.request)),
        )
        return self._launch(request, link["url"], context)

    def _launch(self, request: Request, url: str, context: Context) -> Response:
        """To the app's registered launch URL, and to no other (SMART App Launch 2.2, EHR launch)."""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise NotAllowed("only the sandbox's own page may launch")
        if all(url != app.launch_url for app in self._apps):
            raise NotAllowed("no app is registered with this launch URL")
        told = urlencode({"iss": f"{self._own}/fhir", "launch": self._grants.launches.put(context)})
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return RedirectResponse(f"{url}?{told}", 303, headers=headers)

    def _link(self, request: Request) -> tuple[Visit, JSON]:
        visit = self._visits.get(request.path_params["visit"])
        _, card = visit.card(request.path_params["card"])
        number = request.path_params["link"]
        if number >= len(card.links) or card.links[number].get("type") != "smart":
            raise NotFound("this card has no such link")
        return visit, card.links[number]

    def _app_page(self, request: Request, case: Case, launch: str, back: str) -> Response:
        return self._rendering.page(
            "app.html",
            leads_to=self._frames,
            title=f"{self._chart(case).name}, app",
            user=_user(request),
            users=USERS,
            here=back,
            case=case,
            chart=self._chart(case),
            launch=launch,
            back=back,
        )

    # ---- what a page needs -------------------------------------------------------------------------------------------

    def _case(self, request: Request) -> Case:
        case = self._cases.get(request.path_params["case"])
        if case is None:
            raise NotFound("there is no such fixture patient")
        return case

    def _chart(self, case: Case, drafts: Sequence[JSON] = ()) -> render.Chart:
        found = [each for kind in SHOWN for each in self._records.of_patient(kind, case.id)]
        return render.chart_of(found, drafts, datetime.now(UTC).date())

    def _context(self, case: Case) -> JSON:
        return next(iter(case.requests.values()))["context"]  # type: ignore[no-any-return]

    def _encounter(self, case: Case, context: JSON) -> str | None:
        return context.get("encounterId") or self._context(case).get("encounterId")

    def _reason(self, case: Case) -> str | None:
        """The one malignancy of the chart; where there are two, a person has to choose, so none."""
        conditions = list(self._records.of_patient("Condition", case.id))
        cancers = [each for each in conditions if render.is_cancer(each)]
        return f"Condition/{cancers[0]['id']}" if len(cancers) == 1 else None

    def _page(
        self, request: Request, shown: Case, visit: Visit | None = None, problem: str = "", status: int = 200
    ) -> Response:
        today = datetime.now(UTC).date()
        drafts = orders.drafts_of(visit.request if visit else {})
        if not drafts:
            drafts = orders.drafts_of(redated(shown.requests.get(orders.HOOK, {}), datetime.now(UTC)))
        patients = {each["id"]: each for each in self._records.all("Patient")}
        return self._rendering.page(
            "page.html",
            status=status,
            title=self._chart(shown).name,
            user=visit.user if visit else _user(request),
            users=USERS,
            here=visit_path(visit) if visit else f"/cases/{shown.id}",
            cases=[(case, render.chart_of([patients[case.id]], (), today)) for case in self._cases.values()],
            case=shown,
            chart=self._chart(shown, drafts),
            catalogue={key: render.ordered(order) for key, order in self._catalogue.items()},
            signable=bool(visit and visit.hook == "order-select" and orders.drafts_of(visit.request)),
            launch_urls={app.launch_url for app in self._apps},
            intents=INTENTS,
            titles=TITLES,
            visit=visit,
            reasons=[reason.plain() for reason in CLINICAL],
            problem=problem or (visit.problem if visit else ""),
            pretty=render.pretty,
        )

    async def refused(self, request: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, CdsError) else 500
        return self._rendering.page(
            "refused.html", status=status, title="Not done", user=_user(request), users=USERS, here="/", what=str(error)
        )


SHOWN = ("Patient", "Condition", "Observation", "Procedure", "MedicationRequest", "MedicationAdministration")
"""What a chart is made of."""


def visit_path(visit: Visit) -> str:
    return f"/visits/{visit.id}"


def _user(request: Request) -> User:
    return user_of(request.cookies.get(COOKIE))


def _options(request: Request) -> dict[str, str]:
    """What a person set for a launch from the chart; whatever else stands in the URL is left aside."""
    intent = request.query_params.get("intent", "")
    chosen = {"intent": intent} if intent in INTENTS and intent else {}
    if app_context := request.query_params.get("appContext", "").strip()[:MOST_CONTEXT]:
        chosen["appContext"] = app_context
    return chosen | {name: "no" for name in ("banner", "style") if request.query_params.get(name) == "no"}


def _focus(drafts: Sequence[JSON]) -> tuple[Mapping[str, str], ...]:
    """`fhirContext`: the conditions that the drafts are for (2.2, fhirContext)."""
    references = [each.get("reference") for draft in drafts for each in draft.get("reasonReference", ())]
    return tuple({"reference": reference} for reference in dict.fromkeys(references) if reference)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
