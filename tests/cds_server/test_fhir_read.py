"""Reads on demand, against a FHIR server that means no good: whose token goes where, and what of the answers counts."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from adapters.fhir_read import MAX_PAGES, FhirServer, below, same
from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.backlog import digest_backlog
from cds_server.ehrs import Ehr
from cds_server.http import Outbound
from cds_server.reproduce import load
from cds_server.settings import Settings
from models.errors import NotAllowed, PeerFailed
from tests.cds_server.fhir_stub import Stub, after, drip, redirect, send, stub
from tests.cds_server.stores import flags
from tests.cds_server.test_decisions import SERVICE, hook, own_refs, sizes

TOKEN = "tok-5f3a9c77d1e2"  # noqa: S105 (good for nothing)


@pytest.fixture
def ehr() -> Iterator[Stub]:
    with stub() as made:
        yield made


@pytest.fixture
def url(data_dir: Any) -> str:
    return f"sqlite:///{data_dir / 'cds.db'}"


@pytest.fixture
def start(settings: Settings, ehr: Stub) -> Iterator[Callable[..., tuple[TestClient, Parts]]]:
    """A server whose one EHR has the stub for its FHIR server; ends with the audit of its ledger."""
    opened: list[TestClient] = []

    def start_(deadline_ms: int = 20_000, **members: Any) -> tuple[TestClient, Parts]:
        registered = Ehr(namespace="sandbox", fhir_base=ehr.base, **members)
        parts = build(replace(settings, ehrs=(registered,), deadline_ms=deadline_ms))
        parts.decisions.warm()
        client = TestClient(create_app(parts), client=("127.0.0.1", 5000))
        opened.append(client.__enter__())
        return client, parts

    yield start_
    for client in opened:
        client.__exit__(None, None, None)
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def lacking(ehr: Stub, *keys: str, **granted: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A call whose client sent all but these keys, and what these keys would have held."""
    call = hook(2.5)
    gone = {key: call["prefetch"].pop(key) for key in keys}
    authorization = {
        "access_token": TOKEN,
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": "patient/*.read",
        "subject": "cds",
        **granted,
    }
    return {**call, "fhirServer": ehr.base, "fhirAuthorization": authorization}, gone


def stored(parts: Parts) -> bytes:
    """Every byte that is kept, opened: all parts of all landings."""
    rows = parts.store.reads.query("SELECT id FROM landing")
    landings = [parts.store.reads.landing(row[0]) for row in rows]
    return b"\n".join(body for landing in landings if landing for _, body in parts.store.parts(landing))


# ---- what is read counts like what was sent --------------------------------------------------------------------------


@pytest.mark.requirement("cds-hooks_2.0", "34", "60", "61")
def test_what_lacks_is_read_and_landed_before_it_is_scored(start: Any, ehr: Stub) -> None:
    client, parts = start()
    call, gone = lacking(ehr, "patient", "observations")
    ehr.answers = {"Patient/jenny-m": gone["patient"], "Observation?": gone["observations"]}
    (card,) = client.post(SERVICE, json=call).json()["cards"]
    assert card["summary"].startswith("Estimated 10-year survival: 87 %")
    assert {shown for _, shown in ehr.asked} == {f"Bearer {TOKEN}"}
    assert "(read for this request)" in card["detail"].replace("&#40;", "(").replace("&#41;", ")")
    (ref,) = own_refs(parts)
    snapshot = load(parts.store, ref).snapshot
    (landing,) = (parts.store.reads.landing(row[0]) for row in parts.store.reads.query("SELECT id FROM landing"))
    assert landing is not None
    assert {(fact.source.landing, fact.source.part) for fact in snapshot.facts if fact.code.code == "33728-7"} == {
        (landing.ref, 1)
    }
    second = dict(parts.store.parts(landing))[1]
    assert json.dumps(gone["observations"]).encode() in second  # byte for byte as the server sent it
    assert TOKEN.encode() not in stored(parts)
    digest_backlog(parts.store, frozenset(), "system")
    record = parts.store.reads.record("sandbox", "jenny-m")
    assert record is not None
    wanted = parts.registry.scorer("breast-cancer-prognosis", "predict-breast").facts_wanted()
    assert parts.decisions.known(wanted, record, snapshot.as_of).facts == snapshot.facts
    assert parts.store.reads.open_flags() == {}


def test_a_later_call_digests_what_was_read_for_an_earlier_one(start: Any, ehr: Stub) -> None:
    client, parts = start()
    call, gone = lacking(ehr, "observations")
    ehr.answers = {"Observation?": gone["observations"]}
    assert client.post(SERVICE, json=call).status_code == 200
    ehr.answers = {"Observation?": {"resourceType": "Bundle", "type": "searchset"}}
    assert client.post(SERVICE, json=call).status_code == 200
    assert [sizes(parts, ref) for ref in own_refs(parts)] == [["25 mm"], ["25 mm"]]


def test_pages_are_followed_on_the_same_server_only(start: Any, ehr: Stub) -> None:
    """The second page holds the tumour's size; a third lies on another server, which hears nothing, least the token."""
    client, _ = start()
    call, gone = lacking(ehr, "observations")
    entries = gone["observations"]["entry"]
    pages = [{**gone["observations"], "entry": entries[:2]}, {**gone["observations"], "entry": entries[2:]}]
    with stub() as other:
        pages[0]["link"] = [{"relation": "next", "url": f"{ehr.base}?page=2"}]
        pages[1]["link"] = [{"relation": "next", "url": f"{other.base}?page=3"}]
        ehr.answers = {"Observation?": pages[0], "/r4?page=2": pages[1]}
        (card,) = client.post(SERVICE, json=call).json()["cards"]
        assert card["summary"].startswith("Estimated 10-year survival: 87 %")
        assert "its next page is on another server: not followed" in card["detail"].replace("&#58;", ":")
        assert other.asked == []


def test_a_search_by_a_code_with_its_system_is_no_absolute_url(ehr: Stub) -> None:
    ehr.answers = {"Observation?": {"resourceType": "Bundle"}}

    async def run() -> None:
        door = Outbound([ehr.base])
        server = FhirServer(door, ehr.base, TOKEN, 1000, lambda body, _: body)
        assert (await server.read("Observation?patient=p1&code=http://loinc.org|1-2")).whole
        with pytest.raises(PeerFailed):
            await server.read("https://elsewhere.example/Observation?patient=p1")
        await door.aclose()

    asyncio.run(run())
    ((asked, _),) = ehr.asked
    assert asked.startswith("Observation?patient=p1&code=http")


def test_pages_without_end_end(start: Any, ehr: Stub) -> None:
    client, _ = start()
    call, gone = lacking(ehr, "observations")

    def more(handler: Any) -> None:
        number = len(ehr.asked)
        link = [{"relation": "next", "url": f"{ehr.base}/Observation?page={number}"}]
        send(handler, json.dumps({**gone["observations"], "link": link}).encode())

    ehr.answers = {"Observation?": more}
    (card,) = client.post(SERVICE, json=call).json()["cards"]
    assert "it has more pages than are followed" in card["detail"]
    assert len(ehr.asked) == MAX_PAGES


# ---- where the token does not go -------------------------------------------------------------------------------------


def test_a_server_that_is_not_the_ehrs_own_is_never_asked(start: Any, ehr: Stub) -> None:
    client, _ = start()
    with stub() as other:
        call, _ = lacking(ehr, "observations")
        for server in (other.base, other.base.removesuffix("/r4"), ehr.base + "/../x", ehr.base + "x"):
            answer = client.post(SERVICE, json={**call, "fhirServer": server})
            assert answer.status_code in (403, 412)
        assert (other.asked, ehr.asked) == ([], [])


def test_a_redirect_is_not_followed(start: Any, ehr: Stub) -> None:
    client, _ = start()
    with stub() as other:
        call, _ = lacking(ehr, "observations")
        ehr.answers = {"Observation?": redirect(other.base + "/Observation?x=1")}
        answer = client.post(SERVICE, json=call)
        assert answer.status_code == 412
        assert "the FHIR server answered 302" in answer.text
        assert other.asked == []


def test_a_server_that_repeats_the_token_leaves_no_trace_of_it(start: Any, ehr: Stub, capsys: Any) -> None:
    client, parts = start()
    call, gone = lacking(ehr, "observations")
    spelled = "".join(f"\\u{ord(sign):04x}" for sign in TOKEN)
    for told in (TOKEN, spelled):
        note = (
            b'{"resourceType":"Bundle","id":"' + told.encode() + b'",' + json.dumps(gone["observations"]).encode()[1:]
        )
        ehr.answers = {"Observation?": note.replace(b'"resourceType": "Bundle",', b"", 1)}
        assert client.post(SERVICE, json=call).json()["cards"][0]["summary"].startswith("Estimated")
    kept = stored(parts)
    assert TOKEN.encode() not in kept
    assert spelled.encode() not in kept
    assert TOKEN not in "".join(capsys.readouterr())
    for table in ("call", "ledger_entry", "landing", "flag"):
        assert TOKEN not in repr(parts.store.reads.query(f"SELECT * FROM {table}"))


@pytest.mark.parametrize(
    "members",
    [{"expires_in": 0}, {"access_token": "tok-of-nobody-at-all"}],
)
def test_a_token_that_is_not_good_any_more(start: Any, ehr: Stub, members: dict[str, Any]) -> None:
    client, _ = start()
    ehr.answers = {"Observation?": 401}
    call, _ = lacking(ehr, "observations", **members)
    assert client.post(SERVICE, json=call).status_code == 412
    assert len(ehr.asked) == (0 if "expires_in" in members else 1)


def test_a_token_of_another_patient_is_a_safety_event(start: Any, ehr: Stub) -> None:
    client, parts = start()
    call, _ = lacking(ehr, "observations", patient="carla-r")
    answer = client.post(SERVICE, json=call)
    assert answer.status_code == 400
    assert ehr.asked == []
    assert flags(parts.store) == [("flag", "wrong-patient")]


# ---- what does not count ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("cds-hooks_2.0", "54")
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (500, "answered 500"),
        (404, "answered 404"),
        (b"<html>", "cannot be read"),
        (b'{"resourceType":"Bundle","a":1,"a":2}', "cannot be read"),
        (b'{"resourceType":"Bundle","total":NaN}', "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"\xff\xfe{}", "cannot be read"),
        (b" " * (5 << 20), "over the limit"),
        ({"resourceType": "OperationOutcome", "issue": []}, "answered with no resource"),
        ({"resourceType": "Patient", "id": "jenny-m"}, "another kind of resource"),
        ({"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Observation"}}]}, "cannot be read"),
        (lambda handler: send(handler, b"{}", Content_Type="text/html"), "another media type than JSON"),
        (lambda handler: send(handler, b"{}", Content_Encoding="gzip"), "a compressed body"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "no answer"),
    ],
)
def test_an_answer_that_is_none(start: Any, ehr: Stub, answer: Any, told: str) -> None:
    client, parts = start()
    ehr.answers = {"Observation?": answer}
    call, _ = lacking(ehr, "observations")
    refused = client.post(SERVICE, json=call)
    assert refused.status_code == 412
    assert told in refused.text
    assert "observations (" in refused.text
    ((outcome, status, landing),) = parts.store.reads.query("SELECT outcome, status, landing_id FROM call")
    assert (outcome, status) == ("refused", 412)
    assert landing is not None  # what the client sent is kept, though nothing was scored
    assert own_refs(parts) == []


def test_a_resource_of_another_patient_is_a_safety_event(start: Any, ehr: Stub) -> None:
    client, parts = start()
    call, gone = lacking(ehr, "observations")
    other = json.loads(json.dumps(gone["observations"]).replace("Patient/jenny-m", "Patient/carla-r"))
    ehr.answers = {"Observation?": other}
    answer = client.post(SERVICE, json=call)
    assert answer.status_code == 400
    assert "carla" not in answer.text
    assert flags(parts.store) == [("flag", "wrong-patient")]
    assert b"carla-r" in stored(parts)  # the evidence is kept, sealed
    assert own_refs(parts) == []
    assert parts.store.reads.query("SELECT outcome FROM call") == [("safety",)]


# ---- in time ---------------------------------------------------------------------------------------------------------


def test_what_is_not_there_in_time_is_told_on_the_card(start: Any, ehr: Stub) -> None:
    """The prognosis stands on the conditions of before; that those of now did not come is told."""
    client, parts = start(deadline_ms=3000)
    assert client.post(SERVICE, json=hook(2.5)).status_code == 200
    call, gone = lacking(ehr, "conditions", "observations")
    ehr.answers = {"Observation?": gone["observations"], "Condition?": after(30, gone["conditions"])}
    (card,) = client.post(SERVICE, json=call).json()["cards"]
    assert "Conditions did not come from the FHIR server in time; it had no part in this" in card["detail"]
    snapshot = load(parts.store, own_refs(parts)[-1]).snapshot
    assert snapshot.context["lacking"] == ["conditions did not come from the FHIR server in time"]


def test_nothing_to_say_without_the_data_is_not_an_empty_success(start: Any, ehr: Stub) -> None:
    """A chart without a breast cancer gets no card; one whose conditions could not be had is another thing."""
    client, parts = start()
    call, gone = lacking(ehr, "conditions")
    ehr.answers = {"Condition?": 500}
    answer = client.post(SERVICE, json=call)
    assert answer.status_code == 412
    assert "conditions did not come: the FHIR server answered 500" in answer.text
    assert own_refs(parts) == []
    ehr.answers = {"Condition?": {**gone["conditions"], "entry": []}}
    answer = client.post(SERVICE, json=call)
    assert (answer.status_code, answer.json()["cards"]) == (200, [])


@pytest.mark.parametrize("slow", [after(30, {}), drip])
def test_what_is_needed_and_not_there_in_time_is_412(start: Any, ehr: Stub, slow: Any) -> None:
    client, _ = start(deadline_ms=1500)
    ehr.answers = {"Observation?": slow}
    call, _ = lacking(ehr, "observations")
    answer = client.post(SERVICE, json=call)
    assert answer.status_code == 412
    assert "observations (did not come from the FHIR server in time)" in answer.text


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("withhold", "seen"), [(frozenset({"R", "V"}), []), (frozenset(), ["25 mm"])])
def test_restricted_data_of_before_are_withheld_by_policy(
    start: Any, ehr: Stub, withhold: frozenset[str], seen: list[str]
) -> None:
    """What the call itself brings it sees; what was stored with a label, only where the policy lets it."""
    client, parts = start(withhold=withhold)
    call = hook(2.5)
    for entry in call["prefetch"]["observations"]["entry"]:
        v3 = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
        entry["resource"]["meta"] = {"security": [v3]}
    assert client.post(SERVICE, json=call).status_code == 200
    call["prefetch"]["observations"]["entry"] = []
    assert client.post(SERVICE, json=call).status_code == 200
    assert [sizes(parts, ref) for ref in own_refs(parts)] == [["25 mm"], seen]


# ---- where a URL leads -----------------------------------------------------------------------------------------------

BASE = "https://ehr.example.org/fhir/r4"


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        (BASE, True),
        (BASE + "?_getpages=1", True),
        (BASE + "/Observation?patient=p1&code=a|b,c", True),
        ("https://EHR.example.org:443/fhir/r4/x", True),
        ("http://ehr.example.org/fhir/r4/x", False),
        ("https://ehr.example.org:8443/fhir/r4/x", False),
        ("https://ehr.example.org.evil.example/fhir/r4/x", False),
        ("https://ehr.example.org@evil.example/fhir/r4/x", False),
        ("https://evil.example/https://ehr.example.org/fhir/r4", False),
        (BASE + "x", False),
        (BASE + "/../admin", False),
        (BASE + "/%2e%2e/admin", False),
        (BASE + "/%252e%252e/admin", False),
        (BASE + "/..%2fadmin", False),
        (BASE + "\\..\\admin", False),
        (BASE + "//evil.example/x", False),
        ("//evil.example/x", False),
        ("ftp://ehr.example.org/fhir/r4", False),
        ("gopher://ehr.example.org/fhir/r4", False),
        ("https://ehr.example.org:99999/fhir/r4", False),
        ("https://[::1/fhir/r4", False),
        (BASE + "/x y", False),
        (BASE + "/x\r\nHost: evil", False),
        ("https://ehr\uff0eexample.org/fhir/r4", False),
    ],
)
def test_what_is_below_a_base(url: str, inside: bool) -> None:
    assert below(url, BASE) is inside


def test_one_base_written_in_two_ways() -> None:
    assert same("https://EHR.example.org:443/fhir/r4/", BASE)
    assert not same(BASE + "/x", BASE)


def test_the_door_itself_refuses(ehr: Stub) -> None:
    """Whatever the callers forget: nothing leaves for a URL that no configured one covers."""

    async def run() -> None:
        door = Outbound([BASE])
        with pytest.raises(NotAllowed):
            await door.get(ehr.base + "/Patient/1", {}, limit=1000)
        await door.aclose()

    asyncio.run(run())
    assert ehr.asked == []
    assert httpx.get(ehr.base + "/Patient/1", trust_env=False).status_code == 404  # it was there
