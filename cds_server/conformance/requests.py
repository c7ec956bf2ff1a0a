"""What the black-box check sends: a body for each published hook, about nobody, or the tester's own bodies.

Prefetch is answered as a client would: the patient, the user and the encounter by a resource each, a search by a Bundle
that found nothing. No FHIR server is named unless the tester's own bodies name one.
"""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cds_server.conformance.answers import Breaches
from cds_server.hooks.context import parse
from cds_server.hooks.published import HOOKS, LOCAL
from models.errors import BadInput, Malformed, Misconfigured
from models.nouns import JSON
from models.strict import loads

PATIENT_ID, USER, ENCOUNTER_ID = "conformance-patient", "Practitioner/conformance-user", "conformance-encounter"
_SUBJECT = {"reference": f"Patient/{PATIENT_ID}"}
_PATIENT = {
    "resourceType": "Patient",
    "id": PATIENT_ID,
    "gender": "female",
    "birthDate": "1970-01-01",
    "name": [{"family": "Conformance", "given": ["Check"]}],
}
_USER = {"resourceType": "Practitioner", "id": "conformance-user", "name": [{"family": "Conformance"}]}
_ENCOUNTER = {
    "resourceType": "Encounter",
    "id": ENCOUNTER_ID,
    "status": "in-progress",
    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
    "subject": _SUBJECT,
}
_NOTHING = {"resourceType": "Bundle", "type": "searchset", "total": 0}


def _bundle(*resources: JSON) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": each} for each in resources]}


def _medication(status: str) -> dict[str, Any]:
    return {
        "resourceType": "MedicationRequest",
        "id": "conformance-medication",
        "status": status,
        "intent": "order",
        "medicationCodeableConcept": {
            "coding": [
                {"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "617993", "display": "Amoxicillin"}
            ]
        },
        "subject": _SUBJECT,
    }


_SERVICE_REQUEST = {
    "resourceType": "ServiceRequest",
    "id": "conformance-order",
    "status": "draft",
    "intent": "order",
    "code": {"text": "Conformance check"},
    "subject": _SUBJECT,
}
_DRAFTS = _bundle(_medication("draft"), _SERVICE_REQUEST)
_APPOINTMENT = {
    "resourceType": "Appointment",
    "id": "conformance-appointment",
    "status": "proposed",
    "participant": [{"actor": _SUBJECT, "status": "tentative"}],
}
_CONDITION = {
    "resourceType": "Condition",
    "id": "conformance-condition",
    "category": [
        {
            "coding": [
                {"system": "http://terminology.hl7.org/CodeSystem/condition-category", "code": "problem-list-item"}
            ]
        }
    ],
    "code": {"text": "Conformance check"},
    "subject": _SUBJECT,
}
_ALLERGY = {
    "resourceType": "AllergyIntolerance",
    "id": "conformance-allergy",
    "code": {"text": "Conformance check"},
    "patient": _SUBJECT,
}

_WHO = {"userId": USER, "patientId": PATIENT_ID}
CONTEXTS: Mapping[str, dict[str, Any]] = {
    "patient-view": _WHO,
    "order-select": {**_WHO, "selections": ["MedicationRequest/conformance-medication"], "draftOrders": _DRAFTS},
    "order-sign": {**_WHO, "draftOrders": _DRAFTS},
    "order-dispatch": {
        "patientId": PATIENT_ID,
        "dispatchedOrders": ["ServiceRequest/conformance-order"],
        "performer": "Organization/conformance-performer",
    },
    "appointment-book": {**_WHO, "appointments": _bundle(_APPOINTMENT)},
    "encounter-start": {**_WHO, "encounterId": ENCOUNTER_ID},
    "encounter-discharge": {**_WHO, "encounterId": ENCOUNTER_ID},
    "problem-list-item-create": {**_WHO, "conditions": _bundle(_CONDITION)},
    "allergyintolerance-create": {**_WHO, "allergyIntolerance": _ALLERGY},
    "medication-refill": {**_WHO, "medications": _bundle(_medication("draft"))},
    "medication-verify": {**_WHO, "medication": _medication("active")},
}


class Bodies:
    """The request body of each hook: the tester's where there is one, else ours."""

    def __init__(self, folder: Path | None = None, *, prefetch: bool = False) -> None:
        """`folder`: JSON files, each a whole request, sent as they are; `prefetch`: with the service's prefetch
        answered, where they hold none. Errors: Misconfigured, naming the file."""
        self._own = dict(map(_read, sorted(folder.glob("*.json")))) if folder else {}
        self._own.pop("", None)
        if folder and not self._own:
            raise Misconfigured("no file of this folder is a CDS Hooks request", where="--requests")
        self._prefetch = prefetch

    def of(self, service: JSON) -> dict[str, Any]:
        """A fresh call of a service, with its prefetch templates answered."""
        hook = service["hook"]
        own = self._own.get(hook)
        body = copy.deepcopy(own) if own else {"hook": hook, "context": dict(CONTEXTS.get(hook, _WHO))}
        body["hookInstance"] = str(uuid.uuid4())
        if "prefetch" not in body and (self._prefetch or own is None):
            held = _prefetch(service.get("prefetch"), body.get("context"))
            body |= {"prefetch": held} if held else {}
        return body


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        body = json.loads(path.read_bytes())
    except ValueError:
        raise Misconfigured(f"{path.name} is not JSON", where="--requests") from None
    hook = body.get("hook") if isinstance(body, dict) else None
    return (hook, body) if isinstance(hook, str) else ("", {})


def _prefetch(templates: Any, context: Any) -> dict[str, Any]:
    """As a client answers that knows the patient, the user and the encounter, and nothing else of them."""
    named = context if isinstance(context, dict) else {}
    about = {
        "Patient": {**_PATIENT, "id": named.get("patientId", PATIENT_ID)},
        "Practitioner": {**_USER, "id": str(named.get("userId", USER)).rpartition("/")[2]},
        "Encounter": {**_ENCOUNTER, "id": named.get("encounterId", ENCOUNTER_ID)},
    }
    about["Encounter"]["subject"] = {"reference": f"Patient/{about['Patient']['id']}"}
    held: dict[str, Any] = {}
    for key, template in templates.items() if isinstance(templates, dict) else ():
        kind, search = re.match(r"[A-Za-z]*", str(template)), "?" in str(template)
        known = _NOTHING if search else about.get(kind.group() if kind else "")
        if known is not None:  # a key that is not satisfied is not sent
            held[key] = known
    return held


# ---- whether it is a request (.02 to .04) ----------------------------------------------------------------------------


def check_required(hook: str, body: JSON) -> Breaches:
    """.02: hook, hookInstance, context, and fhirServer where fhirAuthorization is."""
    wrong = [] if body.get("hook") == hook else ["/hook: not that of the service"]
    try:
        uuid.UUID(str(body.get("hookInstance")))
    except ValueError:
        wrong.append("/hookInstance: not a UUID")
    if not isinstance(body.get("context"), dict):
        wrong.append("/context: missing")
    if "fhirAuthorization" in body and "fhirServer" not in body:
        wrong.append("/fhirServer: required by fhirAuthorization")
    return wrong


def check_context(body: JSON) -> Breaches:
    """.03: what the hook's own page lists; which orders are selected must be drafted."""
    contexts = {**HOOKS, str(body.get("hook")): HOOKS.get(str(body.get("hook")), LOCAL)}
    only = {"hook": body["hook"], "hookInstance": body["hookInstance"], "context": body.get("context")}
    try:
        parse(b"", loads(json.dumps(only).encode()), contexts)
    except (BadInput, Malformed) as error:
        return [str(error)]
    context = body["context"]
    drafted = drafts(body)
    chosen = context.get("selections", []) if "draftOrders" in context else []
    return [f"/context/selections/{n}: not drafted" for n, each in enumerate(chosen) if each not in drafted]


def check_optional(body: JSON) -> Breaches:
    """.04: fhirAuthorization is complete, and nothing is there but blank."""
    wrong = []
    if "fhirAuthorization" in body:
        granted = body["fhirAuthorization"]
        for name in ("access_token", "token_type", "expires_in", "scope", "subject"):
            if not isinstance(granted, dict) or not granted.get(name):
                wrong.append(f"/fhirAuthorization/{name}: missing")
        if isinstance(granted, dict) and granted.get("token_type") != "Bearer":
            wrong.append("/fhirAuthorization/token_type: not Bearer")
    wrong += [f"/{name}: blank" for name in ("fhirServer", "prefetch") if name in body and not body[name]]
    return wrong


def drafts(body: JSON) -> frozenset[str]:
    """`Type/id` of the draft orders."""
    bundle = body["context"].get("draftOrders", {})
    entries = bundle.get("entry", []) if isinstance(bundle, dict) else []
    held = [entry.get("resource", {}) for entry in entries if isinstance(entry, dict)]
    return frozenset(f"{each.get('resourceType')}/{each.get('id')}" for each in held if isinstance(each, dict))
