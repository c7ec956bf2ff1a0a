"""Who: Patient, RelatedPerson, Coverage; and two records that are one (merge, rename, link, unlink)."""

from __future__ import annotations

from dataclasses import dataclass, field

from adapters.hl7v2.local_ids import local_id
from adapters.hl7v2.mapped import apply
from adapters.hl7v2.message import Message, Repetition, Segment
from adapters.hl7v2.reading import SUBSETTED, Reading, Resource
from adapters.hl7v2.silent import elements, says_nothing, silent
from models.errors import Unreadable
from models.nouns import Verb


@dataclass(slots=True)
class Section:
    """The segments about one patient, in order: from one PID to the next."""

    pid: Segment | None
    segments: list[Segment] = field(default_factory=list)
    patient: str = ""
    """Local id of the Patient; empty where the message has none."""

    def all(self, name: str) -> list[Segment]:
        return [segment for segment in self.segments if segment.name == name]

    def first(self, name: str) -> Segment | None:
        return next((segment for segment in self.segments if segment.name == name), None)

    @property
    def subject(self) -> Resource | None:
        return {"reference": f"Patient/{self.patient}"} if self.patient else None


def sections_of(message: Message) -> list[Section]:
    """The patients of a message. What stands before the first PID belongs to it."""
    found: list[Section] = []
    before: list[Segment] = []
    for segment in message:
        if segment.name == "PID":
            found.append(Section(segment, before))
            before = []
        elif found:
            found[-1].segments.append(segment)
        else:
            before.append(segment)
    return found or [Section(None, before)]


def record_id(segment: Segment, fields: tuple[int, ...], types: tuple[str, ...]) -> str | None:
    """Local id of the record that the identifiers (CX) of these fields name: the first of a wanted type in the first
    field, else the first of all. `authority-value`, the authority by its namespace id, else by its universal id."""
    for number in fields:
        valued = [repetition for repetition in segment.field(number) if repetition.text(1).strip()]
        if valued:
            wanted = (one for kind in types for one in valued if one.text(5).strip() == kind)
            return cx_id(next(wanted, valued[0]))
    return None


def cx_id(repetition: Repetition) -> str:
    authority = repetition.text(4, 1).strip() or repetition.text(4, 2).strip()
    return local_id(authority, repetition.text(1).strip())


def patient_id(pid: Segment, reading: Reading) -> str:
    """The record that a PID names: PID-3, else PID-2, else PID-4. Raises: Unreadable."""
    found = record_id(pid, (3, 2, 4), reading.feed.patient_types)
    if found is None:
        raise Unreadable("a patient without an identifier", where=str(pid.place(3)))
    return found


def prior_id(mrg: Segment, reading: Reading) -> str | None:
    """The record that an MRG names: MRG-1, else MRG-4 (the patient id of the versions before 2.3)."""
    return record_id(mrg, (1, 4), reading.feed.patient_types)


def read_patient(section: Section, reading: Reading) -> None:
    """Assert the Patient of a section, with its links, and the records that it replaces."""
    pid = section.pid
    if pid is None:
        return
    section.patient = patient_id(pid, reading)
    if reading.event.void:
        reading.say(Verb.VOID, "Patient", section.patient, pid.pointer)
        return
    patient: Resource = {"resourceType": "Patient", "id": section.patient}
    apply("PID[Patient]", pid, patient, reading)
    if extra := section.first("PD1"):
        apply("PD1[Patient]", extra, patient, reading)
    links = [
        (mrg, prior)
        for mrg in section.all("MRG")
        if reading.event.links in ("merge", "rename", "adopt") and (prior := _prior(mrg, reading)) != section.patient
    ]
    kind = "seealso" if reading.event.links == "adopt" else "replaces"
    if links:
        patient["link"] = [{"other": {"reference": f"Patient/{prior}"}, "type": kind} for _, prior in links]
    tags = () if reading.event.whole else (SUBSETTED,)
    reading.state(patient, pid.pointer, tags=tags, keeps=_unsaid(pid, extra, reading))
    for mrg, prior in links:
        reading.say(Verb.LINK, "Patient", section.patient, mrg.pointer, prior)  # while both say who they were
        if reading.event.links != "adopt":
            _state_prior(mrg, prior, section.patient, reading)


_NUMBERS = (2, 4, 19, 20)
"""Fields of PID that hold a number of the patient besides PID-3."""


def _unsaid(pid: Segment, pd1: Segment | None, reading: Reading) -> tuple[str, ...]:
    """The elements that neither PID nor PD1 speaks of. A list that is stated is stated whole, so PID-3 replaces what an
    earlier PID-3 said; a number of another field stands until that field says otherwise. Own rule: it is known by the
    system that the field has where it names no authority."""
    found = silent((("PID[Patient]", pid), ("PD1[Patient]", pd1)))
    numbers = (number for number in _NUMBERS if says_nothing(pid, number))
    return (*found, *(f"identifier|{reading.feed.authority(f'PID-{number}')}" for number in numbers))


def _prior(mrg: Segment, reading: Reading) -> str:
    found = prior_id(mrg, reading)
    if found is None:
        raise Unreadable("a merge that does not name the prior record", where=str(mrg.place(1)))
    return found


def _state_prior(mrg: Segment, prior: str, survivor: str, reading: Reading) -> None:
    """The record that is no longer in use. What was known of the person by it stays: MRG has no word on that."""
    patient: Resource = {"resourceType": "Patient", "id": prior}
    apply("MRG[Patient]", mrg, patient, reading)
    patient["link"] = [{"other": {"reference": f"Patient/{survivor}"}, "type": "replaced-by"}]
    stated = () if says_nothing(mrg, 7) else ("name",)
    keeps = tuple(element for element in elements("PID[Patient]") if element not in stated)
    reading.state(patient, mrg.pointer, keeps=keeps)


def read_pair(sections: list[Section], reading: Reading) -> None:
    """A24 and A37: the PIDs of one message are, or are not, one person. Raises: Unreadable, for a single one."""
    verb = {"link": Verb.LINK, "unlink": Verb.UNLINK}.get(reading.event.links)
    if verb is None:
        return
    if len(sections) < 2:
        raise Unreadable("two records are linked, and only one is named", where="PID[2]")
    first = sections[0]
    for other in sections[1:]:
        if other.patient != first.patient and other.pid is not None:
            reading.say(verb, "Patient", first.patient, other.pid.pointer, other.patient)


def read_people(section: Section, reading: Reading) -> None:
    """RelatedPerson of each NK1. Own rule for the id: NK1-33, else the patient with name and relationship: the set id
    counts anew in every message."""
    if section.subject is None:
        return
    for nk1 in section.all("NK1"):
        one = nk1.first(33)
        key = [nk1.text(*at).strip() for at in ((2, 1), (2, 2), (3, 1), (13, 1))]
        if one.text(1).strip():
            made = local_id("nk1", section.patient, cx_id(one))
        elif any(key):
            made = local_id("nk1", section.patient, *key)
        else:
            continue
        person: Resource = {"resourceType": "RelatedPerson", "id": made, "patient": section.subject}
        reading.state(apply("NK1[RelatedPerson]", nk1, person, reading), nk1.pointer)


def read_coverage(section: Section, reading: Reading) -> None:
    """Coverage of each IN1. Own rule for the id: the patient with plan, company and policy number."""
    if section.subject is None:
        return
    for in1 in section.all("IN1"):
        key = [in1.text(at).strip() for at in (2, 3, 36, 49)]
        if not any(key):
            continue
        coverage: Resource = {
            "resourceType": "Coverage",
            "id": local_id("in1", section.patient, *key),
            "beneficiary": section.subject,
        }
        apply("IN1[Coverage]", in1, coverage, reading)
        coverage.setdefault("payor", [{"display": "not stated"}])
        reading.state(coverage, in1.pointer)
