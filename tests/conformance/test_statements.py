"""CDS Hooks 2.0 as a client sees it: discovery, calls and answers of the whole server, statement by statement."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from cds_server.app import build, create_app
from cds_server.audit import audit
from cds_server.conformance.answers import check_card, check_response
from cds_server.hooks.cards import Card, Indicator, Link, LinkType, SelectionBehavior, Source, Suggestion, render
from cds_server.hooks.evidence import links
from cds_server.hooks.service import CardGuide
from cds_server.services import all_services
from cds_server.settings import load
from models.nouns import Coding
from tests.peers import ROOT

HOOKS = sorted((ROOT / "fixtures" / "hooks").glob("*.json"))
TOPIC = Coding("https://example.org/topics", "check", "Check")
SUITE = ("appointment_book", "encounter_discharge", "fancy_structure", "order_dispatch")
"""Bodies of the conformance suite on hooks that no clinical service uses."""
LACKING = ("encounter_start", "order_select", "order_sign")
"""Those that bring no prefetch, and name a FHIR server that is not there."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The server of a sandbox."""
    data_dir = tmp_path_factory.mktemp("statements") / "var"
    settings = load({}, data_dir=data_dir, trust="open", deadline_ms=60_000)
    with TestClient(create_app(build(settings)), client=("127.0.0.1", 5000)) as client:
        yield client
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def services_of(client: TestClient, hook: str) -> list[dict[str, Any]]:
    listed = client.get("/cds-services").json()["services"]
    return [service for service in listed if service["hook"] == hook]


def fixture(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_bytes())
    return {**body, "hookInstance": str(uuid.uuid4())}


# ---- discovery -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("cds-hooks_2.0", "1", "3", "4", "5", "6", "13")
def test_discovery_is_a_json_object_with_a_list(client: TestClient) -> None:
    answer = client.get("/cds-services")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert list(answer.json()) == ["services"]
    assert len(answer.json()["services"]) >= 6
    empty: tuple[Any, ...] = (None, "", [], {})
    assert [each for each in answer.json()["services"] if any(value in empty for value in each.values())] == []


@pytest.mark.requirement("cds-hooks_2.0", "7", "8", "9", "10", "11", "12", "29", "36")
def test_each_service_is_described(client: TestClient) -> None:
    listed = client.get("/cds-services").json()["services"]
    for service in listed:
        assert all(isinstance(service[name], str) and service[name] for name in ("hook", "title", "description", "id"))
        assert all(isinstance(part, str) for pair in service["prefetch"].items() for part in pair)
    assert {service["id"] for service in listed if "usageRequirements" in service} == {"conformance"}


@pytest.mark.requirement("cds-hooks_2.0", "10", "16")
def test_the_url_of_a_service_is_made_of_its_id(client: TestClient) -> None:
    for service in client.get("/cds-services").json()["services"]:
        answer = client.post(f"/cds-services/{service['id']}", json={})
        assert answer.status_code == 400, "it is there, and refuses an empty body"
    assert client.post("/cds-services/no-such", json={}).status_code == 404


@pytest.mark.requirement("cds-hooks_2.0", "14", "76")
def test_errors_are_4xx_and_5xx(client: TestClient) -> None:
    assert client.delete("/cds-services").status_code == 405
    assert client.get("/cds-services/").status_code == 404
    assert client.post("/cds-services/conformance", content=b"{").status_code == 415


# ---- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("cds-hooks_2.0", "1", "3", "28", "74", "214", "215")
@pytest.mark.parametrize("path", HOOKS, ids=lambda path: path.stem)
def test_prefetched_data_are_answered_by_cards(client: TestClient, path: Path) -> None:
    """Each fixture, by every service of its hook: 200, a list of cards, nothing empty, extensions that are objects."""
    body = fixture(path)
    for service in services_of(client, body["hook"]):
        sent = {**body, "prefetch": {k: v for k, v in body["prefetch"].items() if k in service["prefetch"]}}
        answer = client.post(f"/cds-services/{service['id']}", json=sent)
        if answer.status_code == 412:  # a fixture brings what its own services ask for
            continue
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert isinstance(answer.json()["cards"], list)
        assert check_response(answer.json()) == []
        assert "org.cds-server.inferences" in answer.json()["extension"]


@pytest.mark.requirement("cds-hooks_2.0", "77")
def test_no_guidance_is_an_empty_list(client: TestClient) -> None:
    """An order that no service has something to say about."""
    body = fixture(ROOT / "fixtures" / "hooks" / "tomas-v.order-sign.json")
    body["context"]["draftOrders"] = {"resourceType": "Bundle", "type": "collection"}
    answer = client.post("/cds-services/vte-risk-chemotherapy-order-sign", json=body)
    assert (answer.status_code, answer.json()["cards"]) == (200, [])


@pytest.mark.parametrize("name", SUITE)
def test_bodies_of_the_suite_are_answered(client: TestClient, peer_data: Path, name: str) -> None:
    raw = (peer_data / "cds-hooks" / f"{name}_hook_request.json").read_bytes()
    answer = client.post("/cds-services/conformance", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert check_response(answer.json()) == []
    assert len(answer.json()["cards"]) == 3


@pytest.mark.requirement("cds-hooks_2.0", "54")
@pytest.mark.parametrize("name", LACKING)
def test_bodies_without_the_data_that_a_service_needs_are_412(client: TestClient, peer_data: Path, name: str) -> None:
    raw = (peer_data / "cds-hooks" / f"{name}_hook_request.json").read_bytes()
    services = services_of(client, json.loads(raw)["hook"])
    assert services
    for service in services:
        url = f"/cds-services/{service['id']}"
        answer = client.post(url, content=raw, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["resourceType"]) == (412, "OperationOutcome")
        assert "SAMPLE_TOKEN" not in answer.text


@pytest.mark.requirement("cds-hooks_2.0", "210", "211")
def test_one_id_is_routed_by_its_hook(client: TestClient, peer_data: Path) -> None:
    """Update stale guidance: the same service, on another hook, answers anew; a hook that it is not on is refused."""
    raw = json.loads((peer_data / "cds-hooks" / "encounter_discharge_hook_request.json").read_bytes())
    hooks = [each["hook"] for each in client.get("/cds-services").json()["services"] if each["id"] == "conformance"]
    assert len(hooks) == len(set(hooks)) > 5
    assert client.post("/cds-services/conformance", json=raw).status_code == 200
    refused = client.post("/cds-services/conformance", json={**raw, "hook": "encounter-start"})
    assert refused.status_code == 400


def test_ids_as_long_as_vendors_make_them_go_all_the_way(client: TestClient) -> None:
    """194 characters, in context, in prefetch and in references."""
    long = "eFnx9hyX.YTNJ407PR9g4zpiT8lXCElOXkldLgGDYrAU-fszvYmrUZlYzRfJl-qKj3" * 3
    text = (ROOT / "fixtures" / "hooks" / "jenny-m.patient-view.json").read_text()
    body = json.loads(text.replace(json.loads(text)["context"]["patientId"], long[:194]))
    assert body["context"]["patientId"] == body["prefetch"]["patient"]["id"] == long[:194]
    answer = client.post("/cds-services/breast-cancer-prognosis", json=body)
    assert answer.status_code == 200
    assert len(answer.json()["cards"]) == 1


# ---- cards -----------------------------------------------------------------------------------------------------------


def smallest(**changes: Any) -> dict[str, Any]:
    return render(
        Card(uuid="u1", summary="Sound", indicator=Indicator.INFO, source=Source("Somebody", TOPIC), **changes)
    )


@pytest.mark.requirement("cds-hooks_2.0", "81", "84", "94", "99", "104", "108", "113", "145")
def test_what_is_optional_of_a_card_is_left_out() -> None:
    assert set(smallest()) == {"uuid", "summary", "indicator", "source"}
    assert set(smallest()["source"]) == {"label", "topic"}
    (link,) = smallest(links=(Link("x", "https://example.org", LinkType.ABSOLUTE),))["links"]
    assert set(link) == {"label", "url", "type"}
    assert check_card(smallest()) == []


@pytest.mark.requirement("cds-hooks_2.0", "118", "120", "123")
def test_what_is_optional_of_a_suggestion_is_left_out() -> None:
    shown = smallest(suggestions=(Suggestion("x", "u2"),), selection_behavior=SelectionBehavior.ANY)
    assert shown["suggestions"] == [{"label": "x", "uuid": "u2"}]
    bare = {**shown, "suggestions": [{"label": "x"}]}
    assert check_card(bare) == check_card(shown) == []


@pytest.mark.requirement("cds-hooks_2.0", "116", "216", "217", "218", "220")
def test_a_coding_has_code_and_system_and_a_topic_need_not_be_shown() -> None:
    card = smallest()
    del card["source"]["topic"]["display"]
    assert check_card(card) == []
    for name in ("code", "system"):
        spoilt = {**card, "source": {"label": "x", "topic": {**card["source"]["topic"], name: 7}}}
        assert check_card(spoilt) == [f"/source/topic/{name}: not a text"]
        without = {key: value for key, value in card["source"]["topic"].items() if key != name}
        assert check_card({**card, "source": {"label": "x", "topic": without}}) == [f"/source/topic/{name}: required"]
    del card["source"]["topic"]
    assert check_card(card) == []


@pytest.mark.requirement("cds-hooks_2.0", "109", "110", "140")
def test_a_source_is_about_the_method_and_a_link_about_the_patient() -> None:
    """Sources are constants of a service file; the link to the full reasoning carries the inference."""
    guide = CardGuide("inference-1", "2026-01-01", "https://cds.example", lambda: "u", smart_app=True)
    source = Source("Somebody", TOPIC, url="https://example.org/method")
    (link,) = links(guide, source)
    assert (link.type, link.url) == (LinkType.SMART, "https://cds.example/app/launch")
    assert "inference-1" in str(link.app_context)
    assert "inference-1" not in str(render_source(source))


def render_source(source: Source) -> dict[str, Any]:
    shown: dict[str, Any] = render(Card(uuid="u", summary="x", indicator=Indicator.INFO, source=source))["source"]
    return shown


@pytest.mark.requirement("cds-hooks_2.0", "109")
def test_no_source_names_a_patient(client: TestClient) -> None:
    urls: dict[str, set[str]] = {}
    for path in HOOKS:
        body = fixture(path)
        for service in services_of(client, body["hook"]):
            answer = client.post(f"/cds-services/{service['id']}", json=body)
            for card in answer.json().get("cards", []):
                urls.setdefault(card["source"]["label"], set()).add(card["source"].get("url", ""))
    assert len(urls) >= 2
    assert [label for label, found in urls.items() if len(found) > 1] == []


# ---- when it is off --------------------------------------------------------------------------------------------------


def test_outside_a_sandbox_there_is_no_conformance_service(tmp_path: Path) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(
        '[[ehr]]\nnamespace = "a"\nissuer = "https://ehr.example"\njwks_url = "https://ehr.example/jwks"\n'
    )
    settings = load({"CDS_CONFIG": str(config)}, data_dir=tmp_path / "var")
    assert not settings.conformance
    assert "conformance" not in {spec.id for spec in all_services(conformance=settings.conformance)}
