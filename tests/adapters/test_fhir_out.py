"""What was concluded, as FHIR R4: a risk, points, an abstention; each valid, each with its Provenance."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from adapters.fhir_out.assessment import Assessed, Proof, resources
from adapters.readers.validation import validate

RISK = Assessed(
    inference="8b206f71-cd79-4af9-bf4d-dfa75f96249e",
    seq=17,
    at="2026-11-21T23:14:37.075518Z",
    service_url="https://cds.example.org/cds-services/a",
    patient={"reference": "https://ehr.example.org/fhir/Patient/p"},
    condition={"type": "Condition", "reference": "https://ehr.example.org/fhir/Condition/c"},
    basis=[{"type": "Observation", "reference": "Observation/o"}, {"type": "Condition", "reference": "Condition/c"}],
    landings=["0" * 32],
    snapshot="ab" * 32,
    facts=3,
    model="some@1.0.0",
    manifest_digest="c" * 64,
    manifest={"title": "Some model", "endpoint": "Recurrence within five years.", "horizon_months": 60.0},
    score={"probability": 0.123456789, "logit": -1.96, "interval": [0.1, 0.2], "band": [0.11, 0.14]},
    cards=["Estimated risk: 12 %"],
    server="https://cds.example.org",
    proof=Proof("cds.example.org/cds/1", "2026-11-21T23:14:38.000000Z", b"c2sp.org/tlog-proof@v1\n"),
)


def made(of: Assessed) -> dict[str, dict[str, Any]]:
    found = resources(of)
    for each in found:
        assert validate(each) == [], each["resourceType"]
    return {each["resourceType"]: each for each in found}


def test_a_risk_is_a_percentage_of_a_named_outcome_by_a_named_model() -> None:
    found = made(RISK)
    assert list(found) == ["RiskAssessment", "Observation", "Provenance"]
    risk = found["RiskAssessment"]
    (prediction,) = risk["prediction"]
    assert prediction["probabilityDecimal"] == 12.345679
    assert prediction["outcome"]["text"] == "Recurrence within five years."
    assert prediction["whenRange"]["high"]["value"] == 60.0
    assert "10 to 20 % if missing results arrive" in prediction["rationale"]
    assert risk["performer"]["identifier"]["value"] == f"some@1.0.0#{'c' * 64}"
    assert risk["condition"] == RISK.condition
    assert len(risk["basis"]) == 2


def test_in_oncology_an_observation_stands_in_the_shape_of_mcode() -> None:
    """CancerRiskAssessment of STU 4: a coded value, a cancer as focus, factors as members, a method and no device."""
    seen = made(RISK)["Observation"]
    assert seen["valueCodeableConcept"] == {"text": "12.3457 %"}
    assert seen["focus"] == [RISK.condition]
    assert seen["hasMember"] == [{"type": "Observation", "reference": "Observation/o"}]
    assert seen["method"]["text"] == "Some model"
    assert "device" not in seen
    assert "referenceRange" not in seen
    assert "Observation" not in made(replace(RISK, condition=None))


def test_the_provenance_carries_the_proof_of_the_entry() -> None:
    found = made(RISK)["Provenance"]
    assert [each["reference"].partition("/")[0] for each in found["target"]] == ["RiskAssessment", "Observation"]
    (signature,) = found["signature"]
    assert base64.b64decode(signature["data"]) == b"c2sp.org/tlog-proof@v1\n"
    named = {each["what"]["identifier"]["system"]: each["what"]["identifier"]["value"] for each in found["entity"]}
    assert named["urn:cds-server:snapshot-commitment"] == "ab" * 32
    assert named["urn:cds-server:ledger-entry"] == "17"
    assert "signature" not in made(replace(RISK, proof=None))["Provenance"]


@pytest.mark.parametrize(
    ("score", "status"),
    [
        ({"abstained": "no invasive breast cancer is recorded"}, "data-required"),
        ({"outputs": {"points": [5], "items": [1, 4]}}, "success"),
    ],
)
def test_points_and_abstentions_are_guidance_and_no_risk(score: dict[str, Any], status: str) -> None:
    found = made(replace(RISK, score=score, manifest={}))
    assert list(found) == ["GuidanceResponse", "Provenance"]
    guidance = found["GuidanceResponse"]
    assert guidance["status"] == status
    if status == "success":
        (outputs,) = guidance["contained"]
        assert outputs["parameter"] == [{"name": "points", "valueDecimal": 5}]
    else:
        assert guidance["note"][0]["text"] == "no invasive breast cancer is recorded"
