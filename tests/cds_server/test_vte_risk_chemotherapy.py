"""The Khorana card: when anticancer therapy is drafted, and only then."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cds_server.services.vte_risk_chemotherapy import SERVICES, THERAPY, therapy
from tests.cds_server.played import cards, judged, request, service

SELECT, SIGN = (spec.id for spec in SERVICES)
GOLDEN = Path(__file__).parent / "vte_card.md"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"


def observations(body: dict[str, Any]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = body["prefetch"]["observations"]["entry"]
    return entries


def without(body: dict[str, Any], slug: str) -> dict[str, Any]:
    entries = observations(body)
    entries[:] = [each for each in entries if not each["resource"]["id"].endswith(slug)]
    return body


def test_the_card_of_a_full_record() -> None:
    (card,) = cards(service(SIGN), request("tomas-v.order-sign"))
    assert card.summary == "Khorana score 5 of 6: high risk of venous thrombo-embolism (11.0 % within 6 months)"
    assert card.indicator == "warning"
    assert f"# {card.summary}\n\n{card.detail}\n" == GOLDEN.read_text()


def test_both_hooks_are_served_under_the_ids_of_the_contract() -> None:
    assert [(spec.id, spec.hook) for spec in SERVICES] == [
        ("vte-risk-chemotherapy-order-select", "order-select"),
        ("vte-risk-chemotherapy-order-sign", "order-sign"),
    ]


def test_only_selected_orders_are_spoken_about() -> None:
    body = request("tomas-v.order-select")
    (card,) = cards(service(SELECT), body)
    assert "**Drafted:** cisplatin\n" in (card.detail or "")
    body["context"]["selections"] = ["MedicationRequest/draft-ondansetron"]
    assert cards(service(SELECT), body) == ()
    body["context"]["selections"] = []
    assert cards(service(SELECT), body) == ()


def test_other_orders_leave_it_silent_and_the_judgement_is_there_to_be_recorded() -> None:
    body = request("ruth-k.order-sign")
    assert cards(service(SIGN), body) == ()
    assert judged(service(SIGN), body).snapshot.context["draft_orders"][0]["codings"][0]["display"] == "amoxicillin"


@pytest.mark.parametrize("change", [{"doNotPerform": True}, {"subject": {"reference": "Patient/somebody-else"}}])
def test_an_order_not_to_give_it_or_of_somebody_else_is_no_order(change: dict[str, Any]) -> None:
    body = request("olga-p.order-sign")
    body["context"]["draftOrders"]["entry"][0]["resource"] |= change
    assert cards(service(SIGN), body) == ()


def test_a_count_that_is_too_old_gives_no_number_and_says_why() -> None:
    (card,) = cards(service(SIGN), request("olga-p.order-sign"))
    assert card.summary == "No Khorana score: required and not usable: platelets"
    assert card.indicator == "info"
    assert "Platelets (the last one, of 2026-10-06 09:00, is older than 14 days)" in (card.detail or "")
    assert "within 6 months" not in (card.detail or "")
    assert not re.search(r"\| together \|", card.detail or "")


def test_at_another_time_the_same_record_is_too_old() -> None:
    (card,) = cards(service(SIGN), request("tomas-v.order-sign"), at="2026-12-24T10:00:00.000000Z")
    assert card.summary == "No Khorana score: required and not usable: platelets, haemoglobin, leukocytes"


def test_low_risk_is_told_without_alarm() -> None:
    body = request("tomas-v.order-sign")
    changes = {"platelets": 210, "haemoglobin": 141, "leukocytes": 7.2, "weight": 68}
    for each in observations(body):
        for slug, value in changes.items():
            if each["resource"]["id"] == f"tomas-v-{slug}":
                each["resource"]["valueQuantity"]["value"] = value
    (card,) = cards(service(SIGN), body)
    assert card.summary == "Khorana score 1 of 6: intermediate risk of venous thrombo-embolism (6.6 % within 6 months)"
    assert card.indicator == "info"


def test_no_cancer_on_record_is_said() -> None:
    body = request("tomas-v.order-sign")
    body["prefetch"]["conditions"]["entry"] = body["prefetch"]["conditions"]["entry"][1:]
    (card,) = cards(service(SIGN), body)
    assert card.summary == "No Khorana score: no cancer of a known primary site is recorded"


def test_what_comes_from_outside_cannot_run() -> None:
    body = request("tomas-v.order-sign")
    coding = body["context"]["draftOrders"]["entry"][0]["resource"]["medicationCodeableConcept"]["coding"][0]
    coding |= {"system": "http://www.whocc.no/atc", "code": "L01XA01", "display": "<img src=x onerror=alert(1)>"}
    condition = body["prefetch"]["conditions"]["entry"][0]["resource"]
    condition["code"]["coding"][0]["display"] = "<script>alert(1)</script> | lung"
    (card,) = cards(service(SIGN), body)
    assert "<img" not in (card.detail or "")
    assert "<script" not in (card.detail or "")


@pytest.mark.parametrize(
    ("system", "code", "is_therapy"),
    [
        (RXNORM, "2555", True), (RXNORM, "26225", False), (RXNORM, "6851", False),
        ("http://www.whocc.no/atc", "L01BC05", True), ("http://www.whocc.no/atc", "L02BG03", False),
        ("http://www.whocc.no/atc", "A04AA01", False), ("http://elsewhere.example.org", "2555", False),
        ("http://elsewhere.example.org", "L01BC05", False),
    ],
)  # fmt: skip
def test_what_is_systemic_anticancer_therapy(system: str, code: str, is_therapy: bool) -> None:
    assert bool(therapy([{"codings": [{"system": system, "code": code}]}])) is is_therapy


def test_the_value_set_states_its_scope_and_source() -> None:
    assert THERAPY["scope"]
    assert "from memory" in THERAPY["source"]


def test_a_medication_beside_or_inside_the_order_is_read() -> None:
    body = request("olga-p.order-sign")
    order = body["context"]["draftOrders"]["entry"][0]["resource"]
    concept = order.pop("medicationCodeableConcept")
    order |= {
        "medicationReference": {"reference": "#drug"},
        "contained": [{"resourceType": "Medication", "id": "drug", "code": concept}],
    }
    assert len(cards(service(SIGN), body)) == 1
    order.pop("contained")
    assert cards(service(SIGN), body) == ()
    order["medicationReference"] = {"reference": "Medication/drug"}
    beside = {"resourceType": "Medication", "id": "drug", "code": concept}
    body["context"]["draftOrders"]["entry"].append({"resource": beside})
    assert len(cards(service(SIGN), body)) == 1
