"""Whose a resource claims to be, by what names a patient goes, and which labels it carries. Claims, not yet beliefs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from models.errors import Unreadable
from models.nouns import Marks, Subject, instant

_SUBJECT = """
    AdverseEvent CarePlan CareTeam ChargeItem ClinicalImpression Communication CommunicationRequest
    Composition Condition DeviceRequest DeviceUseStatement DiagnosticReport DocumentReference Encounter Flag
    Goal ImagingStudy Media MedicationAdministration MedicationDispense MedicationRequest MedicationStatement
    Observation Procedure QuestionnaireResponse RiskAssessment ServiceRequest Specimen
"""
_PATIENT = """
    AllergyIntolerance BodyStructure Claim ClaimResponse Consent CoverageEligibilityRequest
    CoverageEligibilityResponse EpisodeOfCare ExplanationOfBenefit FamilyMemberHistory Immunization
    ImmunizationEvaluation ImmunizationRecommendation MolecularSequence NutritionOrder RelatedPerson
    VisionPrescription
"""
ELEMENT: dict[str, str] = {
    **dict.fromkeys(_SUBJECT.split(), "subject"),
    **dict.fromkeys(_PATIENT.split(), "patient"),
    "Coverage": "beneficiary",
    "EnrollmentRequest": "candidate",
    "ResearchSubject": "individual",
    "Task": "for",
}
"""The element that names the patient (R4 compartment definition, CompartmentDefinition/patient)."""

OPTIONAL: dict[str, str] = {
    **dict.fromkeys(
        ["Basic", "DocumentManifest", "GuidanceResponse", "Invoice", "List", "MeasureReport", "RequestGroup"], "subject"
    ),
    **dict.fromkeys(["Device", "DetectedIssue", "SupplyDelivery"], "patient"),
}
"""Types that need not be about anybody: without the element they are nobody's, not a problem."""

_LOCAL = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,255})(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_PATIENT_ID = re.compile(r"Patient/([A-Za-z0-9\-.]{1,255})")
_UUID = re.compile(r"urn:uuid:([A-Za-z0-9\-.]{1,255})")
_V3 = "http://terminology.hl7.org/CodeSystem/v3-"


def subject_of(
    resource: Mapping[str, Any], *, base: str | None = None, known: dict[str, Subject] | None = None
) -> Subject | None:
    """The patient that a resource claims; None for a type that is about no patient (Organization, Medication, ...).

    `Patient/x`, with or without a version, is x in the sender's namespace. `urn:uuid:x` is x too: the entry that it
    refers to is known by that UUID (see `fhir.read_entry`). An absolute URL counts only if it starts with `base`, the
    sender's own FHIR base URL; another server's `Patient/1` is another person. A reference with only an identifier is a
    logical one. Everything else is a problem, and never a guess.

    `known`: of the references below one `base` that were read before, the patients that they name; added to here. The
    resources of one call say one and the same.
    """
    resource_type = resource.get("resourceType")
    if resource_type == "Patient":
        return _self(resource)
    named = resource_type if isinstance(resource_type, str) else ""
    element = ELEMENT.get(named)
    if element is None:
        element = OPTIONAL.get(named)
        if element is None or element not in resource:
            return None
    reference = resource.get(element)
    if reference is None:
        return Subject(problem=f"{element} is missing")
    if not isinstance(reference, dict):
        return Subject(problem=f"{element} is not a reference")
    literal = reference.get("reference")
    if literal is None:
        return _logical(reference.get("identifier"), element)
    if known is None or type(literal) is not str:
        return _literal(literal, element, base)
    found = known.get(literal)
    if found is None:
        found = _literal(literal, element, base)
        if found.local_id is not None:
            known[literal] = found
    return found


def _self(patient: Mapping[str, Any]) -> Subject:
    local_id = patient.get("id")
    return Subject(local_id=local_id) if isinstance(local_id, str) and local_id else Subject(problem="id is missing")


def _literal(literal: Any, element: str, base: str | None) -> Subject:
    if not isinstance(literal, str) or not literal:
        return Subject(problem=f"{element}.reference is not text")
    if plain := _PATIENT_ID.fullmatch(literal):
        return Subject(plain[1])
    if literal.startswith("#"):
        return Subject(problem=f"{element} is contained in the resource, not a patient of the record")
    if by_uuid := _UUID.fullmatch(literal):
        return Subject(local_id=by_uuid[1])
    if base and literal.startswith(base.rstrip("/") + "/"):
        literal = literal[len(base.rstrip("/")) + 1 :]
    if "://" in literal or literal.startswith("urn:"):
        return Subject(problem=f"{element} refers to another server")
    match = _LOCAL.fullmatch(literal)
    if match is None:
        return Subject(problem=f"{element} is not a reference to a resource")
    if match[1] != "Patient":
        what = "a group" if match[1] == "Group" else "something else than a patient"
        return Subject(problem=f"{element} refers to {what}")
    return Subject(local_id=match[2])


def _logical(identifier: Any, element: str) -> Subject:
    if isinstance(identifier, dict):
        system, value = identifier.get("system"), identifier.get("value")
        if isinstance(system, str) and isinstance(value, str) and system and value:
            return Subject(system=system, value=value)
    return Subject(problem=f"{element} has neither a reference nor an identifier with system and value")


def identifiers_of(patient: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(system, value, use) of each identifier that has system and value; `use` is empty where none is given.

    Old ones (`use` = old) are listed too: whether they may join is the identity rules' decision.
    """
    found = []
    for index, identifier in enumerate(_members(patient, "identifier")):
        if not isinstance(identifier, dict):
            raise Unreadable("an identifier is not an object", where=f"/identifier/{index}")
        system, value, use = identifier.get("system"), identifier.get("value"), identifier.get("use")
        if isinstance(system, str) and isinstance(value, str) and system and value:
            found.append((system, value, use if isinstance(use, str) else ""))
    return found


def marks_of(resource: Mapping[str, Any]) -> Marks:
    """Test data (HTEST in meta.tag or meta.security) and security labels (meta.security), sorted."""
    meta = resource.get("meta")
    if meta is None:
        return UNMARKED
    if not isinstance(meta, dict):
        raise Unreadable("meta is not an object", where="/meta")
    if "tag" not in meta and "security" not in meta:
        return UNMARKED
    test, labels = False, set()
    for name in ("tag", "security"):
        for index, coding in enumerate(_members(meta, name)):
            if not isinstance(coding, dict):
                raise Unreadable(f"meta.{name} is not a list of codings", where=f"/meta/{name}/{index}")
            system, code = coding.get("system"), coding.get("code")
            if not isinstance(code, str):
                continue
            test = test or code == "HTEST"
            if name == "security":
                v3 = isinstance(system, str) and system.startswith(_V3)
                labels.add(code if v3 else f"{system if isinstance(system, str) else ''}|{code}")
    return Marks(test, tuple(sorted(labels))) if test or labels else UNMARKED


UNMARKED = Marks()
_SUBSETTED = "SUBSETTED"
"""v3-ObservationValue, as a server tags what it returned without all elements (R4 search.html, elements)."""


def stamp_of(resource: Mapping[str, Any]) -> tuple[str | None, bool]:
    """When the sender last changed this version (meta.lastUpdated, as an instant in UTC; None where it does not say, or
    not readably), and whether it left elements out (tag SUBSETTED)."""
    meta = resource.get("meta")
    if not isinstance(meta, dict):
        return None, False
    tags = meta.get("tag")
    subsetted = isinstance(tags, list) and any(isinstance(tag, dict) and tag.get("code") == _SUBSETTED for tag in tags)
    stated = meta.get("lastUpdated")
    return _updated(stated) if isinstance(stated, str) else None, subsetted


@lru_cache(maxsize=1024)
def _updated(stated: str) -> str | None:
    try:
        moment = datetime.fromisoformat(stated)
    except ValueError:
        return None
    return instant(moment) if moment.tzinfo else None


def _members(parent: Mapping[str, Any], name: str) -> list[Any]:
    members = parent.get(name, [])
    if not isinstance(members, list):
        raise Unreadable(f"{name} is not a list", where=f"/{name}")
    return members
