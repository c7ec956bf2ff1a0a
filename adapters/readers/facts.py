"""Resource -> Facts: the one projection. Pure; the same resource from the same place gives the same facts.

One file because what a fact means must not depend on where its resource came from. `project` is on the path of every
hook call: a plain Observation takes some three microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.readers.elements import (
    NOTHING,
    Value,
    age,
    all_codings,
    codings,
    codings_of,
    member,
    members,
    period,
    quantity,
    reference,
    references,
    text,
    times,
    value,
)
from adapters.readers.subjects import UNMARKED, marks_of
from adapters.terminology.codings import side
from models.errors import Unreadable
from models.nouns import Coding, Fact, Marks, Provenance

VERSION = "2"
"""2: facts carry what their Observation was derived from (an earlier reading of the same bytes did not)."""
PATIENT = "http://hl7.org/fhir/Patient"
"""Code system of the demographic facts: birthDate, gender, deceased. Never a name, an address or an identifier."""
BIRTH_DATE, GENDER, DECEASED = (Coding(PATIENT, name) for name in ("birthDate", "gender", "deceased"))
STAGE = Coding("http://hl7.org/fhir/Condition", "stage")
_LATERALITY = "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-laterality-qualifier"
_HISTOLOGY = "http://hl7.org/fhir/us/mcode/StructureDefinition/mcode-histology-morphology-behavior"

Resource = Mapping[str, Any]


def project(resource: Resource, *, record: str, source: Provenance, known_from: str) -> tuple[Fact, ...]:
    """The facts of one resource; none for a type that says nothing coded about a patient.

    `record` is the patient record's random reference, `source` where the resource stands, `known_from` an instant.
    Fact ids are `landing/part/pointer#n`; in an Observation 0 is the observation itself and n its n-th component,
    counted from 1. A concept with words only is indexed under the null flavor UNC (un-encoded).

    Raises: Unreadable, with the JSON pointer inside the part, where an element that is needed has the wrong type, or a
    modifier extension changes what the resource means.
    """
    if resource.get("modifierExtension"):
        raise _modified(source.pointer)
    marks = marks_of(resource) if "meta" in resource else UNMARKED
    resource_type = resource.get("resourceType")
    place = _Place(record, source, known_from, marks)
    if resource_type == "Observation":
        return _observation(resource, place)
    own = _PROJECTIONS.get(str(resource_type))
    if own is not None:
        return tuple(own(resource, place))
    shape = _SHAPES.get(str(resource_type))
    return tuple(_coded(resource, place, shape)) if shape is not None else ()


def _modified(at: str) -> Unreadable:
    """R4 extensibility.html, 2.4.0.2: what one does not understand and may change the meaning must not be processed."""
    return Unreadable(
        "a modifier extension changes the meaning in a way not known here", where=f"{at}/modifierExtension"
    )


class _Place:
    """What all facts of one resource share: where it stands, and what its projection has read about them all.

    What it has not read stands in the class: most resources have little of it.
    """

    status: str | None = None
    effective: str | None = None
    effective_end: str | None = None
    focus: tuple[str, ...] = ()
    body_site: tuple[Coding, ...] = ()
    laterality: str | None = None
    method: tuple[Coding, ...] = ()
    specimen: str | None = None
    derived_from: tuple[str, ...] = ()

    def __init__(self, record: str, source: Provenance, known_from: str, marks: Marks) -> None:
        self.record = record
        self.source = source
        self.known_from = known_from
        self.marks = marks

    def fact(self, n: int, kind: str, code: tuple[Coding, ...], found: Value = NOTHING, below: str = "") -> Fact:
        """Fact `n` of the resource, about the element `below` it. By position: naming 25 fields costs a third more."""
        source, marks = self.source, self.marks
        return Fact(
            f"{source.landing}/{source.part}/{source.pointer}#{n}",
            self.record,
            kind,
            code,
            source if not below else source.below(below),
            self.known_from,
            found.number,
            found.unit,
            found.comparator,
            found.coded,
            found.text,
            found.original,
            found.problem,
            self.status,
            found.absent,
            self.effective,
            self.effective_end,
            self.focus,
            self.body_site,
            self.laterality,
            self.method,
            self.specimen,
            marks.labels,
            marks.test,
            self.derived_from,
        )


# ---- the hot path ----------------------------------------------------------------------------------------------------


def _observation(observation: Resource, place: _Place) -> tuple[Fact, ...]:
    """The observation, also without a value (mCODE: sentinel nodes), then each component as a fact of its own."""
    at = place.source.pointer
    code = codings_of(observation, "code", at)
    place.effective, place.effective_end = times(observation, "effective", at)
    # of these most observations have one or none: to ask is cheaper than to look
    if "bodySite" in observation:
        place.body_site, place.laterality = _site(observation, at)
    place.status = text(observation, "status", at)
    if "focus" in observation:
        place.focus = references(observation, "focus", at)
    if "method" in observation:
        place.method = codings_of(observation, "method", at)
    if "specimen" in observation:
        place.specimen = reference(observation, "specimen", at)
    if "derivedFrom" in observation:
        place.derived_from = references(observation, "derivedFrom", at)
    own = (place.fact(0, "observation", code, value(observation, code[0], at)),) if code else ()
    return own if "component" not in observation else (*own, *_components(observation, place))


def _components(observation: Resource, place: _Place) -> Iterator[Fact]:
    for index, component in enumerate(members(observation, "component", place.source.pointer)):
        below = f"/component/{index}"
        at = place.source.pointer + below
        if component.get("modifierExtension"):
            raise _modified(at)
        code = codings_of(component, "code", at)
        if code:
            yield place.fact(index + 1, "observation", code, value(component, code[0], at), below)


def _site(resource: Resource, at: str, code: tuple[Coding, ...] = ()) -> tuple[tuple[Coding, ...], str | None]:
    """Body sites (one concept or a list), and the side that they, mCODE's qualifier and `code` agree on."""
    found = resource.get("bodySite")
    if found is None:
        return (), side(code) if code else None
    concepts = members(resource, "bodySite", at) if isinstance(found, list) else [_object(resource, "bodySite", at)]
    sites: list[Coding] = []
    qualifiers: list[Coding] = []
    for index, concept in enumerate(concepts):
        here = f"{at}/bodySite/{index}" if isinstance(found, list) else f"{at}/bodySite"
        sites += codings(concept, here)
        qualifiers += _extension(concept, _LATERALITY, here)
    return tuple(dict.fromkeys(sites)), side((*sites, *qualifiers, *code))


def _object(parent: Resource, name: str, at: str) -> Resource:
    return member(parent, name, at) or {}


def _extension(parent: Resource, url: str, at: str) -> tuple[Coding, ...]:
    if "extension" not in parent:
        return ()
    for index, extension in enumerate(members(parent, "extension", at)):
        if extension.get("url") == url:
            here = f"{at}/extension/{index}"
            return codings_of(extension, "valueCodeableConcept", here)
    return ()


# ---- resources with a meaning of their own ---------------------------------------------------------------------------


def _patient(patient: Resource, place: _Place) -> Iterator[Fact]:
    at = place.source.pointer
    if birth := text(patient, "birthDate", at):
        yield place.fact(0, "demographic", (BIRTH_DATE,), Value(text=birth, original=birth))
    if gender := text(patient, "gender", at):
        coded = Coding("http://hl7.org/fhir/administrative-gender", gender)
        yield place.fact(1, "demographic", (GENDER,), Value(coded=(coded,), original=gender))
    deceased, when = patient.get("deceasedBoolean"), text(patient, "deceasedDateTime", at)
    if deceased is not None and type(deceased) is not bool:
        raise Unreadable("true or false is expected", where=f"{at}/deceasedBoolean")
    if deceased is not None or when:
        words = "true" if deceased or when else "false"
        place.effective = when
        yield place.fact(2, "demographic", (DECEASED,), Value(text=words, original=when or words))


def _condition(condition: Resource, place: _Place) -> Iterator[Fact]:
    """The diagnosis, with mCODE's histology as its coded value, then each stage that it states itself."""
    at = place.source.pointer
    code = codings_of(condition, "code", at)
    if not code:
        return
    start, _ = times(condition, "onset", at)
    place.effective_end, _ = times(condition, "abatement", at)
    place.body_site, place.laterality = _site(condition, at, code)
    place.status = _two_statuses(condition, at)
    place.effective = start or text(condition, "recordedDate", at)
    onset = age(member(condition, "onsetAge", at), f"{at}/onsetAge") if "onsetAge" in condition else None
    found = Value(coded=_extension(condition, _HISTOLOGY, at), original=f"onset {onset}" if onset else None)
    yield place.fact(0, "condition", code, found)
    if "stage" not in condition:
        return
    place.effective_end, place.focus = None, (place.source.resource,)
    for index, stage in enumerate(members(condition, "stage", at)):
        below = f"/stage/{index}"
        summary = codings_of(stage, "summary", at + below)
        if summary:
            place.method = codings_of(stage, "type", at + below)
            found = Value(coded=summary, original=summary[0].display)
            yield place.fact(index + 1, "condition-stage", (STAGE,), found, below)


def _allergy(allergy: Resource, place: _Place) -> Iterator[Fact]:
    at = place.source.pointer
    code = codings_of(allergy, "code", at)
    if not code:
        return
    reactions: list[Coding] = []
    for index, reaction in enumerate(members(allergy, "reaction", at)):
        reactions += all_codings(reaction, "manifestation", f"{at}/reaction/{index}")
    start, place.effective_end = times(allergy, "onset", at)
    place.effective = start or text(allergy, "recordedDate", at)
    place.status = _two_statuses(allergy, at)
    yield place.fact(0, "allergy", code, Value(coded=tuple(dict.fromkeys(reactions))))


def _two_statuses(resource: Resource, at: str) -> str:
    """`confirmed/active`: verification, then clinical status; empty where not given."""
    verification, clinical = codings_of(resource, "verificationStatus", at), codings_of(resource, "clinicalStatus", at)
    return f"{verification[0].code if verification else ''}/{clinical[0].code if clinical else ''}"


def _family_history(history: Resource, place: _Place) -> Iterator[Fact]:
    """One fact per condition of a relative; the relationship is its coded value, the age at onset its original text."""
    at = place.source.pointer
    relative = codings_of(history, "relationship", at)
    place.status, place.effective = text(history, "status", at), text(history, "date", at)
    for index, condition in enumerate(members(history, "condition", at)):
        below = f"/condition/{index}"
        code = codings_of(condition, "code", at + below)
        if code:
            onset = age(member(condition, "onsetAge", at + below), f"{at}{below}/onsetAge")
            found = Value(coded=relative, original=f"onset {onset}" if onset else None)
            yield place.fact(index, "family-history", code, found, below)


# ---- resources that are a code, a time and a status ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shape:
    kind: str
    code: str = "code"
    """A CodeableConcept, or a list of them; for medication[x] the element without its suffix."""
    time: str = "effective"
    """Prefix of a choice of times (`performed`), or the element itself (`authoredOn`, `period`)."""
    status: str = "status"
    coded: str = ""
    """A list of CodeableConcepts that is the fact's value: why it was done, what it concluded."""
    focus: str = ""
    dose: tuple[str, ...] = ()


_SHAPES: dict[str, _Shape] = {
    "Procedure": _Shape("procedure", time="performed", coded="reasonCode", focus="reasonReference"),
    "MedicationRequest": _Shape(
        "medication", code="medication", time="authoredOn", coded="reasonCode", focus="reasonReference"
    ),
    "MedicationStatement": _Shape("medication", code="medication", coded="reasonCode", focus="reasonReference"),
    "MedicationAdministration": _Shape(
        "medication",
        code="medication",
        coded="reasonCode",
        focus="reasonReference",
        dose=("dosage", "dose"),
    ),
    "MedicationDispense": _Shape("medication", code="medication", time="whenHandedOver"),
    "DiagnosticReport": _Shape("report", coded="conclusionCode"),
    "Immunization": _Shape("immunization", code="vaccineCode", time="occurrence", coded="reasonCode"),
    "ServiceRequest": _Shape("service-request", time="authoredOn", coded="reasonCode", focus="reasonReference"),
    "Encounter": _Shape("encounter", code="type", time="period", coded="reasonCode"),
    "CarePlan": _Shape("care-plan", code="category", time="period", focus="addresses"),
    "Goal": _Shape("goal", code="description", time="startDate", status="lifecycleStatus", focus="addresses"),
    "Specimen": _Shape("specimen", code="type", time="receivedTime"),
    "ImagingStudy": _Shape("imaging-study", code="procedureCode", time="started", coded="reasonCode"),
    "RiskAssessment": _Shape("risk-assessment", time="occurrence", coded="reasonCode", focus="reasonReference"),
    "BodyStructure": _Shape("body-structure", code="location", time="", status=""),
    "DocumentReference": _Shape("document", code="type", time="date"),
}


def _coded(resource: Resource, place: _Place, shape: _Shape) -> Iterator[Fact]:
    at = place.source.pointer
    code = _code(resource, shape.code, at)
    if not code:
        return
    place.effective, place.effective_end = _when(resource, shape.time, at)
    place.body_site, place.laterality = _site(resource, at, code)
    found = Value(coded=all_codings(resource, shape.coded, at) if shape.coded else ())
    if shape.dose:
        found = _with_dose(resource, shape.dose, found, code[0], at)
    place.status = _status(resource, shape.status, at)
    place.focus = references(resource, shape.focus, at) if shape.focus else ()
    yield place.fact(0, shape.kind, code, found)


def _status(resource: Resource, name: str, at: str) -> str | None:
    """The status; `do-not-perform` for an order not to do it, which is no order at all."""
    if resource.get("doNotPerform", False) is not False:
        return "do-not-perform"
    return text(resource, name, at) if name else None


def _code(resource: Resource, name: str, at: str) -> tuple[Coding, ...]:
    if name == "medication":
        name = "medicationCodeableConcept"
        if name not in resource and (target := reference(resource, "medicationReference", at)):
            return _contained(resource, target, at)
    if isinstance(resource.get(name), list):
        return all_codings(resource, name, at)
    return codings_of(resource, name, at)


def _contained(resource: Resource, target: str, at: str) -> tuple[Coding, ...]:
    """The code of a contained Medication; one elsewhere is another resource, and gives no fact here."""
    for index, inner in enumerate(members(resource, "contained", at)):
        if target == f"#{inner.get('id')}":
            return codings_of(inner, "code", f"{at}/contained/{index}")
    return ()


def _when(resource: Resource, name: str, at: str) -> tuple[str | None, str | None]:
    if not name:
        return None, None
    if name not in resource:
        return times(resource, name, at)
    return period(resource, name, at) if name == "period" else (text(resource, name, at), None)


def _with_dose(resource: Resource, path: tuple[str, ...], found: Value, what: Coding, at: str) -> Value:
    """The dose that was given, in the text of the fact; the reasons stay its value."""
    dosage = member(resource, path[0], at)
    dose = member(dosage, path[1], f"{at}/{path[0]}") if dosage else None
    if dose is None:
        return found
    return found.but(original=quantity(dose, what, f"{at}/{'/'.join(path)}").original)


_PROJECTIONS: dict[str, Callable[[Resource, _Place], Iterator[Fact]]] = {
    "Patient": _patient,
    "Condition": _condition,
    "AllergyIntolerance": _allergy,
    "FamilyMemberHistory": _family_history,
}
