"""Appointment of SCH, with the services, people and places of the AI segments."""

from __future__ import annotations

from datetime import datetime, timedelta

from adapters.hl7v2.local_ids import local_id
from adapters.hl7v2.mapped import apply
from adapters.hl7v2.message import Segment
from adapters.hl7v2.people import Section
from adapters.hl7v2.reading import Reading, Resource, named_id
from adapters.hl7v2.results import notes_of

_PARTS = frozenset({"AIS", "AIG", "AIL", "AIP"})
_ENDED = frozenset({"cancelled", "noshow"})


def read_appointments(sections: list[Section], reading: Reading) -> None:
    """One Appointment a message, of all its patients. Id: SCH-1, else SCH-2; own rule without them: the first patient
    and when it begins."""
    sch = reading.message.find("SCH")
    if sch is None:
        return
    appointment: Resource = {"resourceType": "Appointment", "id": "", "participant": []}
    for section in sections:
        if section.subject is not None:
            appointment["participant"].append({"actor": section.subject, "status": "accepted"})
    apply("SCH[Appointment]", sch, appointment, reading)
    notes: list[Segment] = []
    for segment in reading.message:
        if segment.name == "TQ1":
            apply("TQ1[Appointment]", segment, appointment, reading)
        elif segment.name in _PARTS:
            apply(f"{segment.name}[Appointment]", segment, appointment, reading)
        elif segment.name == "NTE":
            notes.append(segment)
    status = reading.event.status or appointment.get("status") or reading.event.otherwise
    appointment["status"] = status or "proposed"
    if appointment["status"] not in _ENDED:
        appointment.pop("cancelationReason", None)
    _bounds(appointment)
    if words := "\n".join(note["text"] for note in notes_of(notes)):
        appointment["comment"] = words
    if not appointment["participant"]:
        appointment["participant"].append({"type": [{"text": "not stated"}], "status": "needs-action"})
    begins = appointment.get("start") or sch.text(11, 4)
    appointment["id"] = named_id(sch, 1) or named_id(sch, 2) or local_id("sch", sections[0].patient, begins)
    reading.state(appointment, sch.pointer)


def _after(start: str, minutes: int) -> str | None:
    """None where the sum is no time: a leap second, the end of the calendar."""
    try:
        return (datetime.fromisoformat(start) + timedelta(minutes=minutes)).isoformat()
    except (ValueError, OverflowError):
        return None


def _bounds(appointment: Resource) -> None:
    """R4 app-2: a start and an end, or neither. The end follows from a stated duration (own rule)."""
    start, minutes = appointment.get("start"), appointment.get("minutesDuration")
    if start and minutes and "end" not in appointment:
        ends = _after(start, minutes)
        if ends:
            appointment["end"] = ends
    if ("start" in appointment) != ("end" in appointment):
        lost = "end" if "start" in appointment else "start"
        unknown = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}
        appointment[f"_{lost}"] = {"extension": [unknown]}
