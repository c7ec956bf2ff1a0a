"""The sandbox over HTTP: a chart, a card, an override, the ledger's entry; without script, and nothing that could run.

The CDS server behind it is the real doors (`hooks.routes`) and the real model over a desk that keeps its record in a
list; the whole server stands behind it in the story of the flow.
"""

from __future__ import annotations

import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import KeySet
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from cds_server import http, wire
from cds_server.deadline import Clock
from cds_server.hooks.cards import render
from cds_server.hooks.context import HookRequest
from cds_server.hooks.prefetch import complete
from cds_server.hooks.routes import Answer, Caller, router
from cds_server.hooks.service import CardGuide, ServiceSpec
from cds_server.sandbox.app import create_app
from cds_server.services import all_services
from models.nouns import ClinicianAction
from models.scoring import Scorer
from models.shelf import Shelf
from tests.cds_server.wire_checks import check_response
from tests.models.records import jenny

FIXTURES = Path(__file__).parents[2] / "fixtures"


class ListDesk:
    """The doors' desk with a list for a ledger: judges the persona, whoever is asked about."""

    def __init__(self) -> None:
        shelf = Shelf()
        version = shelf.get("predict-breast")
        self.scorer = Scorer(version, shelf.path(version))
        self.ledger: list[dict[str, Any]] = []
        self.requests: list[HookRequest] = []
        self.actions: list[ClinicianAction] = []
        self.without = ""
        self.signed: list[tuple[str, str]] = []
        """URL and token of each request."""
        self.app_url = ""
        """Public URL of the server whose app the cards lead to; empty: they lead to none."""

    def services(self) -> Sequence[ServiceSpec]:
        return [spec for spec in all_services() if spec.model == "predict-breast"]

    async def admit(self, request: Request) -> Caller:
        if token := request.headers.get("authorization", ""):
            self.signed.append((str(request.url), token.removeprefix("Bearer ")))
        return Caller("demo")

    def arrived(self) -> Clock:
        return Clock.start(30)

    async def call(self, spec: ServiceSpec, request: HookRequest, caller: Caller, clock: Clock) -> Answer:
        if short := (await complete(spec.prefetch, request)).need(spec.required):
            raise short
        self.requests.append(request)
        judgement = self.scorer.judge(jenny(without=self.without))
        guide = CardGuide(
            "inf-1",
            judgement.snapshot.as_of,
            self.app_url or "http://127.0.0.1",
            lambda: str(uuid.uuid4()),
            smart_app=bool(self.app_url),
        )
        seq = self._write("infer", spec.id)
        item = {"service": spec.id, "id": "inf-1", "seq": seq, "leaf": self.ledger[-1]["leaf"]}
        return Answer([render(card) for card in spec.cards(judgement, guide)], [item])

    async def refused(self, service: str, request: HookRequest | None, caller: Caller, error: Exception) -> None:
        self._write("refuse", service)

    async def feedback(self, service: str, actions: Sequence[ClinicianAction], caller: Caller) -> Sequence[int]:
        self.actions += actions
        return [self._write("act", action.outcome.value) for action in actions]

    def _write(self, act: str, what: str) -> int:
        self.ledger.append({"seq": len(self.ledger), "leaf": uuid.uuid4().hex * 2, "entry": {"act": act, "what": what}})
        return len(self.ledger) - 1

    async def proof(self, request: Request) -> Response:
        return wire.json_response({**self.ledger[request.path_params["seq"]], "chain": "0" * 64})


def a_server(desk: ListDesk) -> Starlette:
    app = Starlette()
    app.routes.extend(router(desk).routes)
    app.add_route("/ledger/proof/{seq:int}", desk.proof)
    wire.install(app)
    return app


@pytest.fixture
def desk() -> ListDesk:
    return ListDesk()


@pytest.fixture
def sandbox(desk: ListDesk) -> Iterator[TestClient]:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(a_server(desk)))
    with TestClient(create_app("http://cds.test", FIXTURES, client), base_url="http://127.0.0.1") as browser:
        yield browser


def field(page: str, name: str) -> str:
    return re.findall(rf'name="{name}" value="([^"]+)"', page)[0]


def fired(sandbox: TestClient, path: str = "/cases/jenny-m/patient-view") -> tuple[str, str]:
    """The visit's path and its page."""
    answer = sandbox.post(path, follow_redirects=False)
    assert answer.status_code == 303
    return answer.headers["location"], sandbox.get(answer.headers["location"]).text


def test_every_fixture_patient_is_listed(sandbox: TestClient) -> None:
    page = sandbox.get("/")
    assert page.status_code == 200
    for path in (FIXTURES / "hooks").glob("*.patient-view.json"):
        assert f"/cases/{path.name.partition('.')[0]}" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "style=" not in page.text


def test_a_card_is_shown_and_accepted(sandbox: TestClient, desk: ListDesk) -> None:
    visit, page = fired(sandbox)
    assert "Estimated 10-year survival: 87 %" in page
    assert "<td>Tumour size</td>" in page
    assert "<strong>#0</strong> infer" in page
    suggestion = field(page, "suggestion")
    sandbox.post(f"{visit}/feedback", data={"card": field(page, "card"), "suggestion": suggestion})
    assert "Accepted: Take this estimate into account" in sandbox.get(visit).text
    (action,) = desk.actions
    assert (action.outcome, action.suggestions) == ("accepted", (suggestion,))


def test_an_override_goes_to_the_ledger_and_shows(sandbox: TestClient, desk: ListDesk) -> None:
    visit, page = fired(sandbox)
    form = {"card": field(page, "card"), "do": "override", "reason": "model-looks-wrong", "comment": "<b>too</b> high"}
    sandbox.post(f"{visit}/feedback", data=form)
    page = sandbox.get(visit).text
    assert "Overridden: The estimate looks wrong; &lt;b&gt;too&lt;/b&gt; high" in page
    assert "<strong>#1</strong> act" in page
    (action,) = desk.actions
    assert action.reason is not None
    assert (action.outcome, action.reason.code, action.comment) == (
        "overridden",
        "model-looks-wrong",
        "<b>too</b> high",
    )


def test_signing_orders_asks_the_order_service(sandbox: TestClient, desk: ListDesk) -> None:
    _, page = fired(sandbox, "/cases/jenny-m/order-sign")
    assert "breast-cancer-prognosis-order-sign, 200" in page
    assert desk.requests[-1].hook == "order-sign"


def test_each_firing_is_another_instance_with_what_was_asked_for_only(sandbox: TestClient, desk: ListDesk) -> None:
    fired(sandbox)
    fired(sandbox)
    first, second = desk.requests
    assert first.hook_instance != second.hook_instance
    assert set(first.prefetch or {}) <= {"patient", "conditions", "observations"}


def test_a_hook_brings_a_token_for_this_patient_that_the_page_does_not_show(
    sandbox: TestClient, desk: ListDesk
) -> None:
    _, page = fired(sandbox)
    (request,) = desk.requests
    assert request.fhir_server == "http://127.0.0.1:8001/fhir"
    sent = request.fhir_authorization
    assert sent is not None
    token = {"authorization": f"Bearer {sent.access_token}"}
    assert sandbox.get("/fhir/Patient/jenny-m", headers=token).status_code == 200
    assert sandbox.get("/fhir/Patient/aisha-t", headers=token).status_code == 404
    assert sent.access_token not in page


def test_each_call_is_signed_for_its_own_door(sandbox: TestClient, desk: ListDesk) -> None:
    fired(sandbox)
    keys = KeySet.import_key_set(sandbox.get("/auth/jwks").json())
    claims = [(url, jwt.decode(token, keys, algorithms=["ES384"]).claims) for url, token in desk.signed]
    assert len(claims) >= 2
    assert all(each["aud"] == url and each["exp"] - each["iat"] == 300 for url, each in claims)
    assert len({each["jti"] for _, each in claims}) == len(claims)
    assert {each["iss"] for _, each in claims} == {"http://127.0.0.1:8001/auth"}


def test_any_drug_is_drafted_and_signed_for_any_patient(sandbox: TestClient, desk: ListDesk) -> None:
    sandbox.cookies.set("sandbox-user", "mary")
    drafted = sandbox.post("/cases/aisha-t/order", data={"drug": "docetaxel"}, follow_redirects=False)
    page = sandbox.get(drafted.headers["location"]).text
    assert "Sign this order" in page
    signed = sandbox.post(f"{drafted.headers['location']}/sign", follow_redirects=False)
    assert signed.status_code == 303
    request = desk.requests[-1]
    assert request.hook == "order-sign"
    assert request.user_id == "Practitioner/us-core-practitioner-mary-obgyn"
    (entry,) = request.context["draftOrders"]["entry"]
    assert entry["resource"]["subject"] == {"reference": "Patient/aisha-t"}
    assert entry["resource"]["reasonReference"] == [{"reference": "Condition/aisha-t-cancer"}]
    assert request.prefetch is not None
    assert request.prefetch["patient"]["id"] == "aisha-t"
    assert request.prefetch["conditions"]["total"] == 1
    assert "docetaxel" in sandbox.get(signed.headers["location"]).text
    assert sandbox.post("/cases/aisha-t/order", data={"drug": "gold"}).status_code == 404


@pytest.mark.parametrize("here", ["https://evil.example/", "//evil.example", "/\\evil.example", "cases/aisha-t"])
def test_another_person_sits_down_and_the_page_stays(sandbox: TestClient, here: str) -> None:
    answer = sandbox.post("/user", data={"user": "peter", "here": "/cases/aisha-t"}, follow_redirects=False)
    assert (answer.headers["location"], answer.cookies["sandbox-user"]) == ("/cases/aisha-t", "peter")
    assert 'value="peter" selected' in sandbox.get("/cases/aisha-t").text
    answer = sandbox.post("/user", data={"user": "nobody", "here": here}, follow_redirects=False)
    assert (answer.headers["location"], answer.cookies["sandbox-user"]) == ("/", "owen")


def test_a_card_leads_to_the_app_in_a_frame_and_in_a_window(sandbox: TestClient, desk: ListDesk) -> None:
    desk.app_url = "http://cds.test"
    _, page = fired(sandbox, "/cases/carla-r/order-sign")
    (at,) = re.findall(r'href="(/visits/[^"]+/app)"', page)
    framed = sandbox.get(at)
    (src,) = re.findall(r'<iframe[^>]+src="([^"]+)"', framed.text)
    assert "frame-src 'self' http://cds.test" in framed.headers["content-security-policy"]
    assert f'href="{src}" target="_blank"' in framed.text
    first, second = (sandbox.get(src, follow_redirects=False).headers["location"] for _ in range(2))
    assert first.startswith("http://cds.test/app/launch?iss=http%3A%2F%2F127.0.0.1%3A8001%2Ffhir&launch=")
    assert first != second
    assert sandbox.get(src.replace("/0/", "/9/")).status_code == 404


def test_an_app_that_is_not_registered_is_not_launched(sandbox: TestClient, desk: ListDesk) -> None:
    desk.app_url = "http://elsewhere.test"
    visit, page = fired(sandbox)
    assert "/app" not in re.findall(r'href="([^"]+)"', page.partition("Decision support")[2])
    card = field(page, "card")
    assert sandbox.get(f"{visit}/cards/{card}/0/launch", follow_redirects=False).status_code == 403


def test_developers_find_the_addresses(sandbox: TestClient) -> None:
    page = sandbox.get("/developers").text
    assert "http://127.0.0.1:8001/fhir/.well-known/smart-configuration" in page
    assert "cds-server-public" in page


def test_an_abstention_is_shown_as_one(sandbox: TestClient, desk: ListDesk) -> None:
    desk.without = "er"
    _, page = fired(sandbox)
    assert "No survival estimate: required and not usable: ER status" in page
    assert ">Noted<" in page


def test_a_server_that_is_away_is_said() -> None:
    with TestClient(create_app("http://127.0.0.1:9", FIXTURES, http.client()), base_url="http://127.0.0.1") as sandbox:
        _, page = fired(sandbox)
    assert "the CDS server does not answer (ConnectError)" in page


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/cases/jenny-m/patient-view", {"origin": "https://evil.example"}, 403),
        ("/cases/jenny-m/patient-view", {"sec-fetch-site": "cross-site"}, 403),
        ("/cases/jenny-m/patient-view", {"host": "evil.example"}, 400),
        ("/cases/jenny-m/no-such-hook", {}, 404),
        ("/cases/nobody/patient-view", {}, 404),
        ("/visits/none/feedback", {}, 404),
    ],
)
def test_other_pages_may_not_act_here(sandbox: TestClient, path: str, headers: dict[str, str], status: int) -> None:
    assert sandbox.post(path, headers=headers, follow_redirects=False).status_code == status


# ---- the doors behind it ---------------------------------------------------------------------------------------------


@pytest.fixture
def doors(desk: ListDesk) -> Iterator[TestClient]:
    with TestClient(a_server(desk)) as client:
        yield client


CALL = (FIXTURES / "hooks" / "jenny-m.patient-view.json").read_bytes()
JSON = {"content-type": "application/json"}


def an_item(**changes: Any) -> dict[str, Any]:
    item = {
        "card": "4e0a3a1e-3ebf-4575-ab82-028d55fe2d9e",
        "outcome": "accepted",
        "acceptedSuggestions": [{"id": "s-1"}],
        "outcomeTimestamp": "2026-11-21T10:00:00Z",
        **changes,
    }
    return {name: member for name, member in item.items() if member is not ...}


def test_discovery_and_call_keep_the_contract(doors: TestClient) -> None:
    listed = doors.get("/cds-services").json()["services"]
    assert {(each["id"], each["hook"]) for each in listed} >= {("breast-cancer-prognosis", "patient-view")}
    answer = doors.post("/cds-services/breast-cancer-prognosis", content=CALL, headers=JSON)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert check_response(answer.json()) == []
    (item,) = answer.json()["extension"]["org.cds-server.inferences"]["items"]
    assert set(item) == {"service", "id", "seq", "leaf"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/cds-services/no-such-service", 404),
        ("POST", "/cds-services/no-such-service/feedback", 404),
        ("POST", "/cds-services/breast-cancer-prognosis-order-sign", 400),
        ("POST", "/cds-services/breast-cancer-prognosis/", 404),
        ("GET", "/cds-services/breast-cancer-prognosis", 405),
    ],
)
def test_wrong_doors(doors: TestClient, method: str, path: str, status: int) -> None:
    answer = doors.request(method, path, content=CALL, headers=JSON, follow_redirects=False)
    assert answer.status_code == status
    assert answer.json()["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize("content", [b"{", b"{}", CALL.replace(b"patient-view", b"order-sign")])
def test_what_is_refused_is_on_record(doors: TestClient, desk: ListDesk, content: bytes) -> None:
    answer = doors.post("/cds-services/breast-cancer-prognosis", content=content, headers=JSON)
    assert answer.status_code == 400
    assert [entry["entry"]["act"] for entry in desk.ledger] == ["refuse"]


def test_feedback_is_taken_as_a_batch(doors: TestClient, desk: ListDesk) -> None:
    unknown_code = {"reason": {"code": "their-own", "system": "https://ehr.example/reasons"}, "userComment": "no"}
    items = [
        an_item(),
        an_item(acceptedSuggestions=[]),
        an_item(outcome="overridden", acceptedSuggestions=..., overrideReason=unknown_code),
        an_item(outcome="overridden", acceptedSuggestions=..., outcomeTimestamp="2026-11-21T12:00:00.5+02:00"),
    ]
    answer = doors.post("/cds-services/breast-cancer-prognosis/feedback", json={"feedback": items})
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["cds-ledger-seq"] == "0, 1, 2, 3"
    assert [action.outcome for action in desk.actions] == ["accepted", "accepted", "overridden", "overridden"]
    assert desk.actions[2].reason is not None
    assert desk.actions[2].reason.code == "their-own"
    assert desk.actions[3].at == "2026-11-21T10:00:00.500000Z"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"card": ...}, "card"),
        ({"card": 7}, "card"),
        ({"outcome": "maybe"}, "outcome"),
        ({"acceptedSuggestions": ...}, "acceptedSuggestions"),
        ({"acceptedSuggestions": ["s-1"]}, "acceptedSuggestions[0]"),
        ({"outcomeTimestamp": ...}, "outcomeTimestamp"),
        ({"outcomeTimestamp": "2026-11-21T10:00:00"}, "outcomeTimestamp"),
        ({"outcomeTimestamp": "2026-13-21T10:00:00Z"}, "outcomeTimestamp"),
        ({"outcome": "overridden", "overrideReason": {}}, "overrideReason"),
        ({"outcome": "overridden", "overrideReason": {"reason": {"code": "x"}}}, "overrideReason.reason.system"),
        ({"outcome": "overridden", "overrideReason": {"userComment": "x" * 5000}}, "overrideReason.userComment"),
    ],
)
def test_one_bad_item_refuses_the_batch(doors: TestClient, desk: ListDesk, changes: dict[str, Any], where: str) -> None:
    body = {"feedback": [an_item(), an_item(**changes)]}
    answer = doors.post("/cds-services/breast-cancer-prognosis/feedback", json=body)
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["diagnostics"].endswith(f"(at feedback[1].{where})")
    assert desk.actions == []


@pytest.mark.parametrize("body", [{}, [], {"feedback": []}, {"feedback": {}}, {"feedback": [1]}])
def test_feedback_is_a_list(doors: TestClient, body: Any) -> None:
    assert doors.post("/cds-services/breast-cancer-prognosis/feedback", json=body).status_code == 400


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def serve() -> Iterator[Any]:
    """Serves an application on a free loopback port and gives its URL."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: Any) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = uvicorn.Server(
            uvicorn.Config(app, port=port, log_config=None, loop="asyncio", timeout_graceful_shutdown=2)
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        running.append((server, thread))
        return f"http://127.0.0.1:{port}"

    yield start
    for server, thread in reversed(running):
        server.should_exit = True
        thread.join()


def test_a_person_overrides_a_card(page: Page, serve: Any, desk: ListDesk) -> None:
    page.goto(serve(create_app(serve(a_server(desk)), FIXTURES, http.client())))
    page.get_by_role("button", name="Open the chart").click()
    card = page.locator("article.card")
    assert card.locator("h3").inner_text().startswith("Estimated 10-year survival")
    card.get_by_text("Override…").click()
    card.get_by_label("Override, because").select_option("need-more-info")
    card.get_by_label("In your own words").fill("Ki-67 is on its way")
    card.get_by_role("button", name="Override").click()
    assert page.get_by_role("status").inner_text().endswith("More information is needed first; Ki-67 is on its way")
    assert page.locator(".record li").count() == 2
    assert [action.comment for action in desk.actions] == ["Ki-67 is on its way"]
