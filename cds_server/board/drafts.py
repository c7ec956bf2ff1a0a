"""What a board recommended, as FHIR R4: a collection Bundle of drafts for the EHR to take or leave.

    DocumentReference                    the minutes, with the PDF inside
    CarePlan, ServiceRequest             the recommendation and each follow-up: status draft, intent proposal
    RiskAssessment, GuidanceResponse     what each model had said, or why it gave no number (`cds_server.guidance`)
    Provenance                           who wrote and who signed, with their ledger entries

Pure. Ids are made from the references of our rows: the same version gives the same Bundle.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.fhir_out.assessment import LEDGER_ENTRY, Resource
from smart_app.boards import MeetingLine, Recommendation
from smart_app.texts import t

LOINC, NCIT = "http://loinc.org", "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl"
MINUTES = {
    "coding": [
        {"system": LOINC, "code": "11488-4", "display": "Consult note"},
        {"system": NCIT, "code": "C93304", "display": "Tumor Board Review"},
    ]
}
"""LOINC has no document type for a tumor board that we could verify; the NCI Thesaurus names the review itself."""
_AGENTS = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_SAID = ("RiskAssessment", "GuidanceResponse")


@dataclass(frozen=True, slots=True)
class Minuted:
    """A signed or unsigned version with all that its Bundle names."""

    meeting: MeetingLine
    recommendation: Recommendation
    patient: str
    """The patient's local id in its EHR."""
    assessed: Sequence[Resource]
    """What the models had said, as FHIR."""
    pdf: bytes
    given_out: bool


def bundle(of: Minuted) -> Resource:
    """Errors: none; what was not written down is left out."""
    models = [each for each in of.assessed if each["resourceType"] in _SAID]
    requests = [_request(of, number, line) for number, line in enumerate(of.recommendation.draft.follow_up, 1)]
    plan = _plan(of, requests, models)
    document = _document(of)
    provenance = _provenance(of, [document, plan, *requests], models)
    resources = [document, plan, *requests, *of.assessed, provenance]
    inside = {f"{each['resourceType']}/{each['id']}": _url(each) for each in resources}
    return {
        "resourceType": "Bundle",
        "id": _id(of, "bundle"),
        "type": "collection",
        "timestamp": of.recommendation.at,
        "entry": [{"fullUrl": _url(each), "resource": _pointing(each, inside)} for each in resources],
    }


def _document(of: Minuted) -> Resource:
    recommendation = of.recommendation
    title = f"{t('board.pdf.title')}, {of.meeting.held_on}"
    document: Resource = {
        "resourceType": "DocumentReference",
        "id": _id(of, "minutes"),
        "status": "current",
        "docStatus": "final" if of.given_out else "preliminary",
        "type": MINUTES,
        "subject": _patient(of),
        "date": recommendation.at,
        "author": [{"display": recommendation.written_by}],
        "description": title,
        "content": [
            {
                "attachment": {
                    "contentType": "application/pdf",
                    "language": "en",
                    "data": base64.b64encode(of.pdf).decode(),
                    "size": len(of.pdf),
                    "hash": base64.b64encode(hashlib.sha1(of.pdf, usedforsecurity=False).digest()).decode(),
                    "title": title,
                    "creation": recommendation.at,
                }
            }
        ],
    }
    if recommendation.signatures:
        document["authenticator"] = {"display": recommendation.signatures[-1].name}
    return document


def _plan(of: Minuted, requests: Sequence[Resource], models: Sequence[Resource]) -> Resource:
    draft, recommendation = of.recommendation.draft, of.recommendation
    notes = [("board.rationale", draft.rationale), ("board.dissent", draft.dissent)]
    plan: Resource = {
        "resourceType": "CarePlan",
        "id": _id(of, "plan"),
        "status": "draft",
        "intent": "proposal",
        "title": f"{t('board.recommendation')}, {of.meeting.held_on}",
        "description": draft.recommendation,
        "subject": _patient(of),
        "created": recommendation.at,
        "author": {"display": recommendation.written_by},
        "contributor": [{"display": ", ".join(filter(None, (each.name, each.role)))} for each in draft.participants],
        "supportingInfo": [_to(each) for each in models],
        "activity": [{"reference": _to(each)} for each in requests],
        "note": [{"text": f"{t(key)}: {told}"} for key, told in notes if told],
    }
    return _filled(plan)


def _request(of: Minuted, number: int, line: str) -> Resource:
    return {
        "resourceType": "ServiceRequest",
        "id": _id(of, f"follow-up/{number}"),
        "status": "draft",
        "intent": "proposal",
        "code": {"text": line},
        "subject": _patient(of),
        "authoredOn": of.recommendation.at,
        "requester": {"display": of.recommendation.written_by},
    }


def _provenance(of: Minuted, targets: Sequence[Resource], models: Sequence[Resource]) -> Resource:
    recommendation = of.recommendation
    agents = [_agent("author", recommendation.written_by)]
    agents += [
        {**_agent("verifier", each.name), "role": [{"text": t(f"board.role.{each.role}")}]}
        for each in recommendation.signatures
    ]
    agents.append(_agent("assembler", t("frame.product")))
    entries = [recommendation.seq, *(each.seq for each in recommendation.signatures)]
    return {
        "resourceType": "Provenance",
        "id": _id(of, "provenance"),
        "target": [_to(each) for each in targets],
        "occurredDateTime": recommendation.at,
        "recorded": max([recommendation.at, *(each.at for each in recommendation.signatures)]),
        "agent": agents,
        "entity": [
            *({"role": "source", "what": _to(each)} for each in models),
            *(
                {"role": "source", "what": {"identifier": {"system": LEDGER_ENTRY, "value": str(seq)}}}
                for seq in entries
            ),
        ],
    }


def _entry(seq: int) -> Resource:
    return {"system": LEDGER_ENTRY, "value": str(seq)}


def _agent(kind: str, name: str) -> Resource:
    return {"type": {"coding": [{"system": _AGENTS, "code": kind}]}, "who": {"display": name}}


def _patient(of: Minuted) -> Resource:
    return {"reference": f"Patient/{of.patient}", "type": "Patient"}


def _to(resource: Resource) -> Resource:
    return {"reference": _url(resource), "type": resource["resourceType"]}


def _url(resource: Resource) -> str:
    """Its place in the Bundle: its id where that is a UUID, else one made from it."""
    try:
        return uuid.UUID(resource["id"]).urn
    except ValueError:
        return uuid.uuid5(uuid.NAMESPACE_OID, resource["id"]).urn


def _id(of: Minuted, what: str) -> str:
    """A UUID of its own, made from the version's (RFC 9562, 5.5)."""
    return str(uuid.uuid5(uuid.UUID(hex=of.recommendation.ref), what))


def _pointing(value: Any, inside: Mapping[str, str]) -> Any:
    """The same with references inside the Bundle as its full URLs (R4, bundle.html, 2.36.4.1)."""
    if isinstance(value, Mapping):
        return {
            name: inside.get(each, each) if name == "reference" and isinstance(each, str) else _pointing(each, inside)
            for name, each in value.items()
        }
    return [_pointing(each, inside) for each in value] if isinstance(value, list) else value


def _filled(resource: Resource) -> Resource:
    """FHIR has no empty lists."""
    return {name: value for name, value in resource.items() if value not in ([], {}, "")}
