"""Encounter, and what is stated of a patient with it: Condition, Procedure, AllergyIntolerance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adapters.hl7v2.local_ids import local_id
from adapters.hl7v2.mapped import Cells, apply
from adapters.hl7v2.message import NULL, Segment
from adapters.hl7v2.parties import place_of
from adapters.hl7v2.people import Section, cx_id, prior_id
from adapters.hl7v2.reading import CLAIM, SUBSETTED, Reading, Resource, named_id
from adapters.hl7v2.vocabulary import TABLES
from models.nouns import Verb

UNKNOWN_CLASS = {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "UNK"}
_CLINICAL = ("DG1", "PR1", "AL1", "IAM")


@dataclass(slots=True)
class Visit:
    """A PV1 with the segments that follow it, until the next one. Without a PV1: what stands before the first."""

    pv1: Segment | None
    segments: list[Segment] = field(default_factory=list)
    encounter: str = ""
    """Local id of the Encounter; empty where none is known."""
    mrgs: list[Segment] = field(default_factory=list)
    """The MRG before the PV1 (A45 repeats the pair); else, for the only visit of a patient, the ones behind it."""

    @property
    def reference(self) -> Resource | None:
        return {"reference": f"Encounter/{self.encounter}"} if self.encounter else None


def visits_of(section: Section, reading: Reading) -> list[Visit]:
    """The visits of a section. Allergies and diagnoses may stand before the first PV1: they are the patient's."""
    found = [Visit(None)]
    waiting: list[Segment] = []
    for segment in section.segments:
        if segment.name == "PV1":
            visit = Visit(segment, mrgs=waiting)
            visit.encounter = encounter_id(section, segment, reading) or ""
            found.append(visit)
            waiting = []
        else:
            found[-1].segments.append(segment)
            if segment.name == "MRG":
                waiting.append(segment)
    if len(found) == 2 and not found[1].mrgs:
        found[1].mrgs = waiting
    return found


def encounter_id(section: Section, pv1: Segment, reading: Reading) -> str | None:
    """Local id of a visit. PV1-19, else PV1-50, by assigner. Own rules, where a sender has neither: the account of
    PID-18, else the patient with the time of admission, else, for the events of ADT, the patient's visit as such."""
    for number in (19, 50):
        first = pv1.first(number)
        if first.text(1).strip():
            return cx_id(first)
    if section.pid is not None and (account := section.pid.first(18)).text(1).strip():
        return local_id("account", cx_id(account), "")
    if admitted := pv1.text(44).strip():
        return local_id("visit", section.patient, admitted)
    return local_id("visit", section.patient, "") if reading.event.whole else None


def read_visit(section: Section, visit: Visit, reading: Reading) -> None:
    """Assert the Encounter of a PV1, with its diagnoses; for a changed number also the one of the old number."""
    pv1, subject = visit.pv1, section.subject
    if pv1 is None or not visit.encounter or subject is None:
        return
    encounter: Resource = {"resourceType": "Encounter", "id": visit.encounter, "subject": subject}
    if section.pid is not None:
        apply("PID[Encounter]", section.pid, encounter, reading)
    apply("PV1[Encounter]", pv1, encounter, reading)
    for segment in visit.segments:
        if segment.name == "PV2":
            apply("PV2[Encounter]", segment, encounter, reading)
    encounter.setdefault("class", UNKNOWN_CLASS)
    encounter.setdefault("status", "unknown")
    _by_event(encounter, pv1, reading)
    if diagnoses := _diagnoses(section, visit, reading):
        encounter["diagnosis"] = diagnoses
    priors = _prior_visits(section, visit, reading)
    encounter.setdefault("identifier", []).extend({**number, "use": "old"} for _, _, _, number in priors)
    if not encounter["identifier"]:
        del encounter["identifier"]
    reading.state(encounter, pv1.pointer, tags=() if reading.event.whole else (SUBSETTED,))
    for mrg, prior, whose, number in priors:
        old = {
            "resourceType": "Encounter",
            "id": prior,
            "status": "entered-in-error",
            "class": UNKNOWN_CLASS,
            "subject": {"reference": f"Patient/{whose}"},
            "identifier": [number],
        }
        reading.state(old, mrg.pointer)


def _by_event(encounter: Resource, pv1: Segment, reading: Reading) -> None:
    """What the event says against PV1: own rules of events.toml."""
    event = reading.event
    if event.status:
        encounter["status"] = event.status
    if event.status == "finished" and "end" not in encounter.get("period", {}):
        evn = reading.message.find("EVN")
        at = next((evn.text(number) for number in (6, 2) if evn.text(number)), "") if evn else ""
        if at and (ended := reading.date_time_or_none(at, "EVN-6")):
            encounter.setdefault("period", {})["end"] = ended
    if not event.end and "period" in encounter:
        encounter["period"].pop("end", None)
        if not encounter["period"]:
            del encounter["period"]
    if event.place == "prior" and (restored := place_of(Cells(pv1.first(6)), reading)):
        encounter["location"] = [{"status": "active", "location": restored}]


def _prior_visits(section: Section, visit: Visit, reading: Reading) -> list[tuple[Segment, str, str, Resource]]:
    """(MRG, prior local id, prior patient, prior number) of the visits that this one continues under a new number."""
    if reading.event.links != "visit":
        return []
    found = []
    for mrg in visit.mrgs:
        number = mrg.first(5)
        if not number.text(1).strip() or (prior := cx_id(number)) == visit.encounter:
            continue
        whose = prior_id(mrg, reading) or section.patient
        value = {"value": number.text(1).strip()}
        name, oid = number.text(4, 1).strip(), number.text(4, 2).strip()
        value["system"] = reading.feed.authority(name or ("" if oid else "PV1-19"), oid, number.text(4, 3))
        found.append((mrg, prior, whose, value))
    return found


# ---- with a visit, or without one ------------------------------------------------------------------------------------


def _diagnoses(section: Section, visit: Visit, reading: Reading) -> list[Resource]:
    rows: list[Resource] = []
    if not reading.event.reads & {"clinical", "claims"}:
        return rows
    for dg1 in visit.segments:
        if dg1.name == "DG1" and dg1.text(21) != "D" and (made := condition_id(section, visit, dg1)):
            row: Resource = {"condition": {"reference": f"Condition/{made}"}}
            rows.append(apply("DG1[Encounter]", dg1, row, reading))
    return rows


def condition_id(section: Section, visit: Visit, dg1: Segment) -> str | None:
    """DG1-20; own rule without it: patient, visit and code. A working diagnosis that becomes final stays the same."""
    if (named := named_id(dg1, 20, within=section.patient)) is not None:
        return named
    key = dg1.text(3).strip() or dg1.text(3, 2).strip() or dg1.text(4).strip()
    return local_id("dg1", section.patient, visit.encounter, key) if key else None


def read_clinical(section: Section, visit: Visit, reading: Reading) -> None:
    """Condition of DG1, Procedure of PR1, AllergyIntolerance of AL1 and IAM, in their order."""
    if section.subject is None:
        return
    tags = (CLAIM,) if reading.event.claims else ()
    groups = _groups(section, visit, reading)
    for segment in visit.segments:
        if segment.name not in _CLINICAL:
            continue
        made = _READ[segment.name](section, visit, segment, reading)
        if made is not None:
            reading.state(made, segment.pointer, tags=tags, group=groups.get(segment.name))
    for name, group in groups.items():
        first = next(segment for segment in visit.segments if segment.name == name)
        reading.say(Verb.REPLACE, _MAKES[name], group, first.pointer)


_MAKES = {"AL1": "AllergyIntolerance", "DG1": "Condition", "PR1": "Procedure"}
_ACTION = {"DG1": 21, "PR1": 20}
"""Where a segment of a group says what shall be done with it (table 0206)."""


def _groups(section: Section, visit: Visit, reading: Reading) -> Mapping[str, str]:
    """Segments -> their group, where a message states it whole (chapter 2, 2.10.4.1, snapshot mode): AL1 of a patient,
    DG1 and PR1 of a visit, in the messages of ADT. Not where a segment has an action code, or a number of its own: that
    is the other mode (2.10.4.2), in which what is not named stays. Not where a segment cannot be told from others, but
    for one that is all nulls: it deletes the group."""
    if not (reading.event.whole and reading.feed.groups == "snapshot"):
        return {}
    found = {}
    for name, kind in _MAKES.items():
        segments = [segment for segment in visit.segments if segment.name == name]
        if not segments or any(segment.text(_ACTION[name]) for segment in segments if name in _ACTION):
            continue
        if all(_nothing_but_nulls(each) or _READ[name](section, visit, each, reading) for each in segments):
            of_visit = (visit.encounter,) if name != "AL1" else ()
            found[name] = local_id("group", kind, section.patient, *of_visit)
    return found


def _nothing_but_nulls(segment: Segment) -> bool:
    """`AL1|1|""|""`: after its number, what it says is to be deleted."""
    said = [each for each in segment.fields[2:] if each.strip()]
    return bool(said) and all(each == NULL for each in said)


def _condition(section: Section, visit: Visit, dg1: Segment, reading: Reading) -> Resource | None:
    made = condition_id(section, visit, dg1)
    if made is None:
        return None
    condition: Resource = {"resourceType": "Condition", "id": made, "subject": section.subject}
    if visit.reference:
        condition["encounter"] = visit.reference
    return apply("DG1[Condition]", dg1, condition, reading)


def _procedure(section: Section, visit: Visit, pr1: Segment, reading: Reading) -> Resource | None:
    """PR1-19; own rule without it: patient, visit, code and time."""
    key = pr1.text(3).strip() or pr1.text(3, 2).strip() or pr1.text(4).strip()
    made = named_id(pr1, 19, within=section.patient) or (
        local_id("pr1", section.patient, visit.encounter, key, pr1.text(5)) if key else None
    )
    if made is None:
        return None
    procedure: Resource = {"resourceType": "Procedure", "id": made, "subject": section.subject}
    if visit.reference:
        procedure["encounter"] = visit.reference
    apply("PR1[Procedure]", pr1, procedure, reading)
    procedure["performer"] = [one for one in procedure.get("performer", ()) if one.get("actor")]
    if not procedure["performer"]:
        del procedure["performer"]
    return procedure


def _allergy(section: Section, visit: Visit, segment: Segment, reading: Reading) -> Resource | None:
    """IAM-7; own rule without it: patient and substance."""
    key = segment.text(3).strip() or segment.text(3, 2).strip()
    named = named_id(segment, 7, within=section.patient) if segment.name == "IAM" else None
    made = named or (local_id("allergy", section.patient, key) if key else None)
    if made is None:
        return None
    allergy: Resource = {"resourceType": "AllergyIntolerance", "id": made, "patient": section.subject}
    apply(f"{segment.name}[AllergyIntolerance]", segment, allergy, reading)
    severity = TABLES["AllergySeverity[reaction]"].codes.get(segment.text(4).strip())
    for reaction in allergy.get("reaction", ()):
        if severity:
            reaction["severity"] = severity
    return allergy


_READ = {"DG1": _condition, "PR1": _procedure, "AL1": _allergy, "IAM": _allergy}
