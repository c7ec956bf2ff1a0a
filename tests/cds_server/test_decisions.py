"""What a hook call knows: what it brought itself, over what was known before, and nothing that it replaced."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.backlog import digest_backlog
from cds_server.decisions import now
from cds_server.reproduce import all_refs, load
from cds_server.settings import Settings
from tests.cds_server.stores import learn
from tests.peers import ROOT

SERVICE = "/cds-services/breast-cancer-prognosis"
SIZE = "33728-7"


def hook(size_cm: float) -> dict[str, Any]:
    call: dict[str, Any] = json.loads((ROOT / "fixtures/hooks/jenny-m.patient-view.json").read_bytes())
    for component in _components(call):
        component["valueQuantity"]["value"] = size_cm
    return call


def _components(call: dict[str, Any]) -> list[dict[str, Any]]:
    entries = call["prefetch"]["observations"]["entry"]
    members = [part for entry in entries for part in (entry["resource"], *entry["resource"].get("component", []))]
    return [part for part in members if part["code"]["coding"][0]["code"] == SIZE and "valueQuantity" in part]


def own_refs(parts: Parts) -> list[str]:
    """The inferences of the service's own model, in order."""
    return [ref for ref in all_refs(parts.store.reads) if load(parts.store, ref).model.startswith("predict-breast@")]


def sizes(parts: Parts, ref: str) -> list[str]:
    facts = load(parts.store, ref).snapshot.facts
    return [f"{fact.number} {fact.unit}" for fact in facts if fact.code.code == SIZE]


def test_a_call_sees_its_own_values_and_not_those_it_replaced(settings: Settings) -> None:
    """Another size, the same again, and a size that landed in between by file: the newest arrival counts, once."""
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        for size in (2.5, 3.5, 3.5):
            assert client.post(SERVICE, json=hook(size)).status_code == 200
        entries = hook(4.5)["prefetch"]["observations"]["entry"]
        landed = [entry["resource"] for entry in entries if entry["resource"]["id"].startswith("tumor-size")]
        learn(parts.store, *landed, namespace="sandbox")
        bare = copy.deepcopy(hook(4.5))
        bare["prefetch"]["observations"]["entry"] = []
        assert client.post(SERVICE, json=bare).status_code == 200
        assert client.post(SERVICE, json=hook(2.5)).status_code == 200
        refs = own_refs(parts)
        assert [sizes(parts, ref) for ref in refs] == [["25 mm"], ["35 mm"], ["35 mm"], ["45 mm"], ["25 mm"]]
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def test_what_a_hook_knew_is_what_the_store_says_was_known(settings: Settings) -> None:
    """What a call brings is digested later; asked afterwards, as of then, the facts are the same."""
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        for size in (2.5, 3.5):
            assert client.post(SERVICE, json=hook(size)).status_code == 200
        digest_backlog(parts.store, frozenset(), "system")
        scorer = parts.registry.scorer("breast-cancer-prognosis")
        record = parts.store.reads.record("sandbox", "jenny-m")
        assert record is not None
        for ref in own_refs(parts):
            snapshot = load(parts.store, ref).snapshot
            assert snapshot.facts
            assert parts.decisions.known(scorer.facts_wanted(), record, snapshot.as_of).facts == snapshot.facts
        assert parts.decisions.known(scorer.facts_wanted(), record, now()).facts == snapshot.facts


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_call_of_a_stranger_to_the_store_leaves_one_record(settings: Settings) -> None:
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        for _ in range(3):
            assert client.post(SERVICE, json=hook(2.5)).status_code == 200
        assert parts.store.reads.query("SELECT COUNT(*) FROM patient_record")[0][0] == 1
        assert len(own_refs(parts)) == 3
        closed = parts.store.reads.query("SELECT COUNT(*) FROM resource_closing")[0][0]
        assert closed == 0  # the same bytes again are the same version


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_what_could_not_be_read_is_told_on_the_card(settings: Settings) -> None:
    """An odd observation that has nothing to do with the estimate costs no card, and is not passed over in silence."""
    parts = build(settings)
    call = hook(2.5)
    odd = {"resourceType": "Observation", "id": "odd", "status": "final", "subject": {"reference": "Patient/jenny-m"}}
    call["prefetch"]["observations"]["entry"].append({"resource": {**odd, "code": "a text where a concept belongs"}})
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        (card,) = client.post(SERVICE, json=call).json()["cards"]
        assert card["summary"].startswith("Estimated 10-year survival: 87 %")
        assert "One resource of this request could not be read and had no part in this" in card["detail"]
        assert "a text where" not in card["detail"]
        digest_backlog(parts.store, frozenset(), "system")
        assert parts.store.reads.open_flags() == {"quarantine": 1}
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_absolute_references_below_the_callers_own_server_are_local(settings: Settings) -> None:
    """A client that writes `https://ehr.example.org/fhir/Patient/x` means its own patient x."""
    parts = build(settings)
    call, base = hook(2.5), "https://ehr.example.org/fhir"
    for entry in call["prefetch"]["observations"]["entry"]:
        entry["resource"]["subject"]["reference"] = f"{base}/Patient/jenny-m"
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        answer = client.post(SERVICE, json={**call, "fhirServer": base}).json()
        assert answer["cards"][0]["summary"].startswith("Estimated 10-year survival: 87 %")
        assert parts.store.reads.open_flags() == {}
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_crash_of_our_own_is_on_record(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a silent failure: an answer of 500 without any text of the error, and a Call that says so."""
    from models.scoring import Scorer

    def crash(*_: object) -> None:
        raise RuntimeError("Jenny")

    parts = build(settings)
    monkeypatch.setattr(Scorer, "judge", crash)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000), raise_server_exceptions=False) as client:
        answer = client.post(SERVICE, json=hook(2.5))
        assert answer.status_code == 500
        assert "Jenny" not in answer.text
        (call,) = parts.store.reads.query("SELECT outcome, status, reason FROM call")
        assert tuple(call) == ("failed", 500, "the server failed on this request")
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()
