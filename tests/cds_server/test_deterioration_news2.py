"""The NEWS2 card: from vital signs of the last hours, critical where the RCP asks for an emergency response."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cds_server.commands.inference import said
from cds_server.services.deterioration_news2 import SERVICES
from tests.cds_server.played import cards, judged, request, service

VIEW, START = (spec.id for spec in SERVICES)
GOLDEN = Path(__file__).parent / "news2_card.md"
HEALTHY = {"respiration": 16, "spo2": 97, "oxygen-flow": 0, "pulse": 72, "temperature": 98.6}


def nils(systolic: int = 120, **changes: float) -> dict[str, Any]:
    """The fixture patient, healthy but for what is changed."""
    body = request("nils-d.patient-view")
    for each in body["prefetch"]["observations"]["entry"]:
        slug = each["resource"]["id"].removeprefix("nils-d-")
        if slug == "pressure":
            each["resource"]["component"][0]["valueQuantity"]["value"] = systolic
        wanted = {**HEALTHY, **{name.replace("_", "-"): value for name, value in changes.items()}}
        if slug in wanted:
            each["resource"]["valueQuantity"]["value"] = wanted[slug]
    return body


def test_the_card_of_a_full_record() -> None:
    (card,) = cards(service(START), request("nils-d.encounter-start"))
    assert card.summary == "NEWS2 is 14: high risk; the threshold of an emergency response is reached"
    assert card.indicator == "critical"
    assert f"# {card.summary}\n\n{card.detail}\n" == GOLDEN.read_text()


def test_both_hooks_are_served_under_the_ids_of_the_contract() -> None:
    assert [(spec.id, spec.hook) for spec in SERVICES] == [
        ("deterioration-news2", "patient-view"),
        ("deterioration-news2-encounter-start", "encounter-start"),
    ]


@pytest.mark.parametrize(
    ("body", "indicator", "begins"),
    [
        (nils(), "info", "NEWS2 is 0: low risk"),
        (nils(pulse=95, respiration=22), "info", "NEWS2 is 3: low risk"),
        (nils(pulse=135), "warning", "NEWS2 is 3: 3 in a single parameter"),
        (nils(pulse=115, respiration=22), "info", "NEWS2 is 4: low risk"),
        (nils(pulse=115, respiration=22, temperature=101.2), "warning", "NEWS2 is 5: medium risk"),
        (nils(pulse=115, respiration=22, oxygen_flow=2), "warning", "NEWS2 is 6: medium risk"),
        (nils(pulse=115, respiration=22, oxygen_flow=2, temperature=101.2), "critical", "NEWS2 is 7: high risk"),
        (nils(85, pulse=115, respiration=22), "critical", "NEWS2 is 7: high risk"),
    ],
)
def test_the_thresholds_of_the_royal_college(body: dict[str, Any], indicator: str, begins: str) -> None:
    (card,) = cards(service(VIEW), body)
    assert (card.indicator, card.summary[: len(begins)]) == (indicator, begins)


def test_what_was_not_observed_is_named_and_no_number_given() -> None:
    (card,) = cards(service(START), request("ruth-k.encounter-start"))
    assert card.summary == "No NEWS2: required and not usable: consciousness, temperature"
    detail = card.detail or ""
    assert "Temperature (the last one, of 2026-11-19 13:30, is older than 12 hours)" in detail
    assert "Consciousness" in detail
    assert "| together |" not in detail
    assert "scale 2" in detail  # hypercapnia is on record


def test_a_chart_without_recent_vital_signs_is_left_in_peace() -> None:
    later = "2026-11-21T22:00:00.000000Z"
    assert cards(service(VIEW), request("nils-d.patient-view"), at=later) == ()
    body = request("nils-d.patient-view")
    body["prefetch"]["observations"] = {"resourceType": "Bundle", "type": "searchset", "total": 0}
    assert cards(service(VIEW), body) == ()


def test_the_card_of_another_time_of_day_tells_hours() -> None:
    (card,) = cards(service(VIEW), request("nils-d.patient-view"), at="2026-11-20T20:00:00.000000Z")
    assert "10 hours ago, 2026-11-20 09:10 UTC" in (card.detail or "")


def test_the_royal_college_is_named() -> None:
    (card,) = cards(service(VIEW), nils())
    assert "Royal College of Physicians 2017" in (card.detail or "")
    assert card.source.label == "NEWS2, Royal College of Physicians 2017"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (request("nils-d.patient-view"), "points 14, highest 3"),
        (request("ruth-k.encounter-start"), "required and not usable: consciousness, temperature"),
    ],
)
def test_the_command_line_tells_points_where_there_is_no_probability(body: dict[str, Any], told: str) -> None:
    assert said(judged(service(VIEW if body["hook"] == "patient-view" else START), body).score.plain()) == told
