"""What a Consent denies: the rule, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from cds_server.access.consents import EVERYTHING, denied, denies

NOW = "2026-11-21T12:00:00.000000Z"
ALL = {EVERYTHING}


def coded(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/x", "code": code}]}


def purposes(*codes: str) -> list[dict[str, str]]:
    return [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": code} for code in codes]


DENY = {"type": "deny"}
CASES: tuple[tuple[dict[str, Any], set[str]], ...] = (
    ({"provision": DENY}, ALL),
    ({"provision": {"type": "permit"}}, set()),
    ({"provision": DENY, "status": "inactive"}, set()),
    ({"provision": DENY, "status": "draft"}, set()),
    ({"provision": DENY, "scope": coded("adr")}, set()),
    ({"provision": DENY, "scope": coded("treatment")}, set()),
    ({"provision": DENY, "scope": coded("research")}, {"HRESCH"}),
    ({"provision": DENY, "scope": {}}, ALL),
    ({"provision": {**DENY, "purpose": purposes("HRESCH", "HMARKT")}}, {"HRESCH", "HMARKT"}),
    ({"provision": {**DENY, "purpose": [{}]}}, ALL),
    ({"provision": {**DENY, "actor": [{"role": {}}], "class": [{"code": "x"}]}}, ALL),
    ({"provision": {**DENY, "provision": [{"type": "permit"}]}}, ALL),
    ({"provision": {"type": "permit", "provision": [{"type": "permit"}, DENY]}}, ALL),
    ({"provision": {"provision": [{"provision": [{**DENY, "purpose": purposes("TREAT")}]}]}}, {"TREAT"}),
    ({"provision": {**DENY, "period": {"start": "2026-11-21"}}}, ALL),
    ({"provision": {**DENY, "period": {"start": "2026-11-22"}}}, set()),
    ({"provision": {**DENY, "period": {"end": "2026-11-21"}}}, ALL),
    ({"provision": {**DENY, "period": {"end": "2026-11-20T23:59:59Z"}}}, set()),
    ({"provision": {**DENY, "period": {"start": "2020", "end": "2026"}}}, ALL),
    ({"provision": {"type": "permit", "period": {"end": "2020"}, "provision": [DENY]}}, set()),
    ({"policyRule": coded("OPTOUT")}, ALL),
    ({"policyRule": coded("OPTOUT"), "scope": coded("research")}, {"HRESCH"}),
    ({"policyRule": coded("OPTIN")}, set()),
    ({}, set()),
    ({"provision": "deny"}, ALL),
    ({"provision": {"type": "permit", "provision": "?"}}, set()),
)


@pytest.mark.parametrize(("said", "expected"), CASES)
def test_what_is_denied(said: dict[str, Any], expected: set[str]) -> None:
    consent = {"resourceType": "Consent", "status": "active", "scope": coded("patient-privacy"), **said}
    assert denied(consent, NOW) == expected


@pytest.mark.parametrize(
    ("purpose", "of", "expected"),
    [
        ("TREAT", {EVERYTHING}, True),
        ("ETREAT", {"TREAT"}, True),
        ("TREAT", {"HRESCH"}, False),
        ("HRESCH", {"HRESCH"}, True),
        ("HOPERAT", {"TREAT"}, False),
        ("TREAT", set(), False),
    ],
)
def test_whether_a_purpose_is_among_what_is_denied(purpose: str, of: set[str], expected: bool) -> None:
    assert denies(frozenset(of), purpose) is expected
