"""DocumentReference of TXA, with the content of the OBX that follow it."""

from __future__ import annotations

import base64

from adapters.hl7v2.local_ids import local_id
from adapters.hl7v2.mapped import apply
from adapters.hl7v2.message import Segment
from adapters.hl7v2.observed import TEXTUAL, attachment
from adapters.hl7v2.people import Section
from adapters.hl7v2.reading import Reading, Resource, named_id
from adapters.hl7v2.results import Order
from adapters.hl7v2.visits import Visit
from adapters.hl7v2.vocabulary import table_system

_NO_CONTENT = {
    "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]
}
"""R4 asks for an attachment; a notification (T01, T05, T09, ...) has none."""


def read_documents(section: Section, visit: Visit, orders: list[Order], reading: Reading) -> None:
    """One DocumentReference a TXA. Id: TXA-12 with its assigner; own rule without it: patient, type and TXA-6."""
    if section.subject is None:
        return
    for txa, content in _documents(visit):
        made = named_id(txa, 12) or local_id("txa", section.patient, txa.text(2).strip(), txa.text(6).strip())
        document: Resource = {"resourceType": "DocumentReference", "id": made, "subject": section.subject}
        apply("TXA[DocumentReference]", txa, document, reading)
        if reading.event.status:
            document["status"] = reading.event.status
        if reading.event.relates and (parent := named_id(txa, 13)):
            target = {"reference": f"DocumentReference/{parent}"}
            document["relatesTo"] = [{"code": reading.event.relates, "target": target}]
        context: Resource = {}
        if visit.reference:
            context["encounter"] = [visit.reference]
        if related := [{"reference": f"ServiceRequest/{order.request}"} for order in orders if order.request]:
            context["related"] = related
        if context:
            document["context"] = context
        document["content"] = _content(txa, content)
        reading.state(document, txa.pointer)


def _documents(visit: Visit) -> list[tuple[Segment, list[Segment]]]:
    """Each TXA with the OBX behind it; a new order ends it."""
    found: list[tuple[Segment, list[Segment]]] = []
    inside = False
    for segment in visit.segments:
        if segment.name == "TXA":
            found.append((segment, []))
            inside = True
        elif segment.name in ("ORC", "OBR"):
            inside = False
        elif segment.name == "OBX" and inside:
            found[-1][1].append(segment)
    return found


def _content(txa: Segment, segments: list[Segment]) -> list[Resource]:
    """The OBX of text as one attachment, their lines joined; each ED or RP as one of its own."""
    lines: list[str] = []
    made: list[Resource] = []
    for obx in segments:
        for repetition in obx.field(5):
            if not repetition:
                continue
            found = attachment(repetition) if obx.text(2) in ("ED", "RP") else None
            if found is not None:
                made.append({"attachment": found})
            else:
                lines.append(repetition.whole if obx.text(2) in TEXTUAL else repetition.whole.strip())
    if any(lines):
        text = base64.b64encode("\n".join(lines).encode()).decode()
        made.insert(0, {"attachment": {"contentType": "text/plain; charset=utf-8", "data": text}})
    if not made:
        made.append({"attachment": dict(_NO_CONTENT)})
    if (shown := txa.text(3).strip()) and not any(character.isspace() for character in shown):
        for one in made:
            one["format"] = {"system": table_system("0191"), "code": shown}
    return made
