"""Immunization of RXA, with its ORC before and its RXR and OBX behind."""

from __future__ import annotations

from adapters.hl7v2.local_ids import local_id
from adapters.hl7v2.mapped import apply
from adapters.hl7v2.message import Segment
from adapters.hl7v2.people import Section
from adapters.hl7v2.reading import Reading, Resource
from adapters.hl7v2.results import Order, Result, read_results
from adapters.hl7v2.visits import Visit

NONE_GIVEN = "998"
"""CVX: no vaccine administered; the segment only carries the OBX behind it (CDC guide 2.5.1, RXA-5)."""


def read_vaccines(section: Section, visit: Visit, reading: Reading) -> None:
    """Immunization of each RXA, and its OBX as Observations.

    Id: the filler's number ORC-3, else the placer's, with RXA-5 (one order may carry several vaccines); own rule, where
    there is none: the patient, the code and RXA-3.
    """
    if section.subject is None:
        return
    orc: Segment | None = None
    order: Order | None = None
    vaccine: Resource | None = None
    at = ""
    found: list[tuple[Resource, str]] = []
    orders: list[Order] = []
    for segment in visit.segments:
        if segment.name == "ORC":
            orc, order, vaccine = segment, None, None
        elif segment.name == "RXA":
            order = Order(visit, orc=orc)
            orders.append(order)
            vaccine, at = _vaccine(section, visit, order, segment, reading), segment.pointer
            if vaccine is not None:
                found.append((vaccine, at))
        elif segment.name == "RXR" and vaccine is not None:
            apply("RXR[Immunization]", segment, vaccine, reading)
        elif segment.name == "OBX" and order is not None:
            order.results.append(Result(segment))
        elif segment.name == "NTE" and order is not None and order.results:
            order.results[-1].notes.append(segment)
    for made, pointer in found:
        reading.state(made, pointer)
    for one in orders:
        read_results(section, one, [], reading)


def _vaccine(section: Section, visit: Visit, order: Order, rxa: Segment, reading: Reading) -> Resource | None:
    code = rxa.text(5).strip() or rxa.text(5, 2).strip()
    if not code or code == NONE_GIVEN:
        return None
    number = order.number(3) or order.number(2)
    if number and number[1] != "9999":  # CDC guide 2.5.1, ORC-3: 9999 stands for an order that nobody numbered
        made = local_id("rxa", *number, code)
    else:
        order.orc = None
        made = local_id("rxa", section.patient, code, rxa.text(3).strip())
    vaccine: Resource = {"resourceType": "Immunization", "id": made, "patient": section.subject}
    if visit.reference:
        vaccine["encounter"] = visit.reference
    if order.orc is not None:
        apply("ORC[Immunization]", order.orc, vaccine, reading)
    apply("RXA[Immunization]", rxa, vaccine, reading)
    if "occurrenceDateTime" not in vaccine:
        vaccine.pop("_occurrenceDateTime", None)
        vaccine["occurrenceString"] = rxa.text(3).strip() or "not stated"
    vaccine.setdefault("status", "completed")
    return vaccine
