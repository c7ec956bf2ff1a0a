"""A second endpoint beside the first: its own inference, its own entry, its own name on the card, never mixed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from cds_server.app import build, create_app
from cds_server.audit import audit
from cds_server.reproduce import all_refs, load, reproduce
from cds_server.settings import Settings
from models.errors import NotFound
from models.shelf import Shelf
from tests.cds_server.test_decisions import SERVICE, hook
from tests.peers import ROOT

NAME = "breast-cancer-prognosis"
SUBTYPE = {"system": "urn:cds-server:breast-expression-subtype"}


def with_subtype(code: str) -> dict[str, Any]:
    """Jenny's call, with the expression subtype of her tumour."""
    call = hook(2.5)
    entries = call["prefetch"]["observations"]["entry"]
    size = next(entry["resource"] for entry in entries if entry["resource"]["id"].startswith("tumor-size"))
    subtype = {
        **{
            name: size[name]
            for name in ("resourceType", "status", "subject", "focus", "effectiveDateTime")
            if name in size
        },
        "id": "expression-subtype",
        "code": {"coding": [{**SUBTYPE, "code": "pam50-claudin-low"}]},
        "valueCodeableConcept": {"coding": [{**SUBTYPE, "code": code}]},
    }
    entries.append({"resource": subtype})
    return call


def test_two_inferences_of_one_call_each_with_its_entry(settings: Settings) -> None:
    parts = build(settings)
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        answer = client.post(SERVICE, json=with_subtype("LumA")).json()
        items = answer["extension"]["org.cds-server.inferences"]["items"]
        assert [item["service"] for item in items] == [NAME, NAME]
        assert items[1]["seq"] == items[0]["seq"] + 1
        survival, recurrence = (load(parts.store, item["id"]) for item in items)
        assert (survival.model, recurrence.model) == ("predict-breast@3.2.0", "breast-cancer-recurrence@1.0.0")
        assert load(parts.store, answer["cards"][0]["uuid"]).ref == survival.ref
        for recorded in (survival, recurrence):
            assert reproduce(parts.registry, recorded).why == "equal, bit for bit"
        score = json.loads(recurrence.judged)["score"]
        detail = answer["cards"][0]["detail"]
        assert f"**{100 * score['probability']:.0f} %**" in detail
        assert "another endpoint, not survival" in detail
        assert "| Expression subtype | -" in detail  # luminal A lowers the risk
        assert "would move it most" in detail
        assert f"record {recurrence.ref}" in detail
        assert answer["cards"][0]["summary"].startswith("Estimated 10-year survival: 87 %")
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_without_a_genomic_result_there_is_one(settings: Settings) -> None:
    parts = build(settings)
    call = json.loads((ROOT / "fixtures/hooks/aisha-t.patient-view.json").read_bytes())
    with TestClient(create_app(parts), client=("127.0.0.1", 5000)) as client:
        answer = client.post(SERVICE, json=call).json()
        assert len(answer["extension"]["org.cds-server.inferences"]["items"]) == 1
        assert "Recurrence" not in answer["cards"][0]["detail"]
        assert len(all_refs(parts.store.reads)) == 1


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_each_model_of_a_service_is_pinned_by_itself(settings: Settings) -> None:
    parts = build(settings)
    shelf = Shelf()
    pins = parts.registry.pins()
    assert (pins[NAME, "predict-breast"], pins[NAME, "breast-cancer-recurrence"]) == ("3.2.0", "1.0.0")
    assert parts.registry.use(NAME, shelf.get("breast-cancer-recurrence"), "user:test") > 0
    assert parts.registry.scorer(NAME).model.name == "predict-breast"
    with pytest.raises(NotFound, match="predict-breast and breast-cancer-recurrence"):
        parts.registry.use(NAME, shelf.get("khorana"), "user:test")
    parts.close()
