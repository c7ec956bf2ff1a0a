"""One inference as FHIR R4: a RiskAssessment or a GuidanceResponse, in oncology an Observation too, and a Provenance.

    a probability              RiskAssessment; a decimal probability is a percentage, at most 100 (R4, ras-2)
    points or descriptions     GuidanceResponse, status success, the numbers as contained Parameters
    an abstention              GuidanceResponse, status data-required, why in its note
    a model of cancer          also an Observation in the shape of mCODE's CancerRiskAssessment (STU 4): method, a coded
                               value, the primary cancer condition as focus, prognostic factors as members, no device.
                               That profile is abstract, so `meta.profile` does not claim it
    always                     Provenance: model and server as agents, snapshot and landings as entities, and the
                               proof of the ledger entry as its signature

Ids are made from the inference's: the same inference gives the same resources.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.nouns import JSON

Resource = dict[str, Any]

INFERENCE, LEDGER_ENTRY = "urn:cds-server:inference", "urn:cds-server:ledger-entry"
MODEL, SNAPSHOT, LANDING = "urn:cds-server:model", "urn:cds-server:snapshot-commitment", "urn:cds-server:landing"
_AGENTS = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_OPERATION = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
_SIGNATURES = "urn:iso-astm:E1762-95:2013"
_UCUM = "http://unitsofmeasure.org"


@dataclass(frozen=True, slots=True)
class Proof:
    """The entry of an inference, provable by whoever has the log's key."""

    origin: str
    """Name of the signing key."""
    signed_at: str
    text: bytes
    """`.tlog-proof` (c2sp.org/tlog-proof), with the entry."""


@dataclass(frozen=True, slots=True)
class Assessed:
    """An inference with all that its resources name."""

    inference: str
    seq: int
    at: str
    service_url: str
    patient: JSON
    """A Reference."""
    condition: JSON | None
    """A Reference to the cancer that it is about; None: another field, or not known."""
    basis: Sequence[JSON]
    """References to what the features were taken from."""
    landings: Sequence[str]
    snapshot: str
    """Commitment to the snapshot, hex: it stands in the ledger entry."""
    facts: int
    model: str
    """`name@version`."""
    manifest_digest: str
    manifest: JSON
    """Of the model; empty where it is gone."""
    score: JSON
    cards: Sequence[str]
    """Summaries."""
    server: str
    """Our own base URL."""
    proof: Proof | None
    named: str | None = None
    """Id of the resources, where it is not the inference's own: a correction keeps that of the first result."""
    status: str | None = None
    """`corrected` or `entered-in-error`, where it is not what the score says."""


def resources(of: Assessed) -> list[Resource]:
    """The resources, the Provenance last."""
    found = [_risk(of) if "probability" in of.score else _guidance(of)]
    if of.condition is not None and "probability" in of.score:
        found.append(_cancer_risk(of))
    return [*found, _provenance(of, found)]


def _shared(of: Assessed) -> Resource:
    return {
        "id": of.named or of.inference,
        "identifier": [{"system": INFERENCE, "value": of.inference}],
        "subject": dict(of.patient),
        "occurrenceDateTime": of.at,
    }


def _risk(of: Assessed) -> Resource:
    prediction: Resource = {
        "outcome": {"text": _endpoint(of)},
        "probabilityDecimal": _percent(of.score["probability"]),
        "rationale": _rationale(of),
    }
    months = of.manifest.get("horizon_months")
    if months:
        prediction["whenRange"] = {"high": {"value": months, "unit": "months", "system": _UCUM, "code": "mo"}}
    found: Resource = {
        "resourceType": "RiskAssessment",
        **_shared(of),
        "status": of.status or "final",
        "method": _method(of),
        "performer": _model(of),
        "prediction": [prediction],
    }
    if of.condition is not None:
        found["condition"] = dict(of.condition)
    if of.basis:
        found["basis"] = [dict(each) for each in of.basis]
    return _noted(found, of.cards)


def _guidance(of: Assessed) -> Resource:
    abstained = of.score.get("abstained")
    says = "success" if abstained is None else "data-required"
    found: Resource = {
        "resourceType": "GuidanceResponse",
        **_shared(of),
        "moduleUri": of.service_url,
        "status": of.status if of.status == "entered-in-error" else says,
        "performer": _model(of),
    }
    outputs = _single(of.score.get("outputs", {}))
    if outputs:
        found["contained"] = [{"resourceType": "Parameters", "id": "outputs", "parameter": outputs}]
        found["outputParameters"] = {"reference": "#outputs"}
    return _noted(found, [*([abstained] if abstained is not None else ()), *of.cards])


def _cancer_risk(of: Assessed) -> Resource:
    factors = [dict(each) for each in of.basis if str(each.get("type", "Observation")) == "Observation"]
    found: Resource = {
        "resourceType": "Observation",
        "id": f"{of.named or of.inference}-mcode",
        "identifier": [{"system": INFERENCE, "value": of.inference}],
        "status": of.status or "final",
        "code": {"text": _endpoint(of)},
        "subject": dict(of.patient),
        "focus": [dict(of.condition or {})],
        "effectiveDateTime": of.at,
        "method": _method(of),
        "valueCodeableConcept": {"text": f"{_percent(of.score['probability']):g} %"},
    }
    if factors:
        found["hasMember"] = factors
    return _noted(found, of.cards)


def _provenance(of: Assessed, targets: Sequence[Resource]) -> Resource:
    entities = [_entity(SNAPSHOT, of.snapshot, f"snapshot of {of.facts} facts, by its commitment in the ledger")]
    entities += [_entity(LANDING, each, "delivery that facts were read from") for each in of.landings]
    found: Resource = {
        "resourceType": "Provenance",
        "id": f"{of.inference}-{'provenance' if of.status != 'entered-in-error' else 'withdrawn'}",
        "target": [{"reference": f"{each['resourceType']}/{each['id']}"} for each in targets],
        "occurredDateTime": of.at,
        "recorded": of.at,
        "activity": {"coding": [{"system": _OPERATION, "code": "CREATE", "display": "create"}]},
        "agent": [
            {"type": _agent("assembler"), "who": _model(of)},
            {"type": _agent("custodian"), "who": {"display": of.server or "clinical decision-support server"}},
        ],
        "entity": [*entities, _entity(LEDGER_ENTRY, str(of.seq), "entry of the ledger")],
    }
    if of.proof is not None:
        found["signature"] = [
            {
                "type": [
                    {
                        "system": _SIGNATURES,
                        "code": "1.2.840.10065.1.12.1.5",
                        "display": "Verification Signature",
                    }
                ],
                "when": of.proof.signed_at,
                "who": {"identifier": {"value": of.proof.origin}},
                "sigFormat": "text/plain",
                "data": base64.b64encode(of.proof.text).decode(),
            }
        ]
    return found


def _entity(system: str, value: str, display: str) -> Resource:
    return {"role": "source", "what": {"identifier": {"system": system, "value": value}, "display": display}}


def _agent(code: str) -> Resource:
    return {"coding": [{"system": _AGENTS, "code": code}]}


def _model(of: Assessed) -> Resource:
    """The model version as a Device, by identifier: its manifest's digest tells it from any other of the name."""
    identifier = {"system": MODEL, "value": f"{of.model}#{of.manifest_digest}"}
    return {"type": "Device", "identifier": identifier, "display": str(of.manifest.get("title", of.model))}


def _method(of: Assessed) -> Resource:
    return {"coding": [{"system": MODEL, "code": of.model}], "text": str(of.manifest.get("title", of.model))}


def _endpoint(of: Assessed) -> str:
    return str(of.manifest.get("endpoint", f"as {of.model} defines it"))


def _rationale(of: Assessed) -> str:
    """The range that the model publishes, if it does, and that a machine said so."""
    told = []
    if "interval" in of.score:
        low, high = (_percent(each) for each in of.score["interval"])
        told.append(f"{low:g} to {high:g} % if missing results arrive")
    if "band" in of.score:
        low, high = (_percent(each) for each in of.score["band"])
        told.append(f"{low:g} to {high:g} % by uncertainty of the model's parameters")
    if not of.score.get("validated", True):
        told.append("too few events stand behind this pattern of inputs")
    return "; ".join([*told, "computed by a model, to inform a clinician, who decides"])


def _single(outputs: Mapping[str, Any]) -> list[Resource]:
    return [
        {"name": name, "valueDecimal": values[0]}
        for name, values in sorted(outputs.items())
        if isinstance(values, list) and len(values) == 1
    ]


def _noted(found: Resource, texts: Sequence[str]) -> Resource:
    return {**found, "note": [{"text": text} for text in texts]} if texts else found


def _percent(probability: float) -> float:
    """To six digits behind the point: the bits stand in the record."""
    return round(100 * probability, 6)
