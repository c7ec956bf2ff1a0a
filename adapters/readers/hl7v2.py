"""HL7 v2 (ER7): one message -> statements of FHIR R4 resources, by the mapping in `adapters/hl7v2/mapping`."""

from __future__ import annotations

from functools import lru_cache

from adapters.hl7v2 import parties, values
from adapters.hl7v2.documents import read_documents
from adapters.hl7v2.envelope import read_envelope
from adapters.hl7v2.events import event_of
from adapters.hl7v2.feed import DEFAULT, Feed
from adapters.hl7v2.message import parse
from adapters.hl7v2.people import (
    Section,
    read_coverage,
    read_pair,
    read_patient,
    read_people,
    sections_of,
)
from adapters.hl7v2.reading import TEST, Reading
from adapters.hl7v2.results import Order, orders_of, read_report, read_request, read_results, read_specimens
from adapters.hl7v2.scheduling import read_appointments
from adapters.hl7v2.times import zone, zones_of
from adapters.hl7v2.vaccines import read_vaccines
from adapters.hl7v2.visits import Visit, read_clinical, read_visit, visits_of
from models.errors import Unreadable
from models.nouns import Part, Statement

NAME = "hl7v2"
VERSION = "1"
MESSAGE = "x-application/hl7-v2+er7"
MEDIA_TYPES = (MESSAGE,)
RULES = Feed
"""What a source's configuration says of how its parts are read."""

CONVERTERS = (values, parties)
"""Loaded for what they are: the mapping finds its converters there."""
_NOT_PRODUCTION = frozenset({"T", "D"})
_zone = lru_cache(maxsize=64)(zone)


def read(part: Part, feed: Feed = DEFAULT) -> list[Statement]:
    """What one message states: the patient first, then visits, orders, specimens, results, reports and the rest, last
    MessageHeader and Provenance. Pure; `pointer` is `/OBX/3` for the fourth OBX.

    Every id follows from what the message names a thing by, so that a correction replaces what it corrects. Bodies
    carry in `meta` when the message was sent (MSH-7), HTEST where MSH-11 is T or D, SUBSETTED where PID or PV1 only say
    whom the message is about, and `v2-0085|W` on a result that was posted to the wrong patient. An event of claims
    states nothing unless the feed accepts claims.

    Raises: Malformed (no message), Unreadable (an event that is not mapped, no patient, a fragment), with the place.
    """
    message = parse(part.body, feed.charset)
    event = event_of(*(each.strip() for each in message.trigger))
    if (fragment := message.fragment) is not None:
        raise Unreadable("a part of a message that is sent in several", where=fragment)
    if event.claims and not feed.accept_claims:
        return []
    zones = zones_of(message, _zone(feed.zone) if feed.zone else None)
    reading = Reading(message, feed, event, zones, [], None)
    reading.sent = _sent(reading)
    if message["MSH"].text(11).strip() in _NOT_PRODUCTION:
        reading.tags.append(TEST)
    sections = sections_of(message)
    if sections[0].pid is None and "appointments" not in event.reads:
        raise Unreadable("a message without a patient", where="PID")
    for section in sections:
        read_patient(section, reading)
    read_pair(sections, reading)
    for section in sections:
        _read_section(section, reading)
    if "appointments" in event.reads:
        read_appointments(sections, reading)
    read_envelope(reading, part.body)
    return reading.statements


def _sent(reading: Reading) -> str | None:
    try:
        return reading.instant(reading.message.get("MSH-7"), "MSH-7")
    except Unreadable:
        return None


def _read_section(section: Section, reading: Reading) -> None:
    """Everything about one patient, in the order in which later resources refer to earlier ones."""
    reads = reading.event.reads
    visits = visits_of(section, reading)
    if "visit" in reads:
        for visit in visits:
            read_visit(section, visit, reading)
    else:
        for visit in visits:
            visit.encounter = ""
    if "people" in reads:
        read_people(section, reading)
    if "coverage" in reads:
        read_coverage(section, reading)
    if reads & {"clinical", "claims"}:
        for visit in visits:
            read_clinical(section, visit, reading)
    if reads & {"orders", "reports", "results"}:
        _read_orders(section, visits, reading)
    if "vaccines" in reads:
        for visit in visits:
            read_vaccines(section, visit, reading)


def _read_orders(section: Section, visits: list[Visit], reading: Reading) -> None:
    reads = reading.event.reads
    orders = orders_of(visits)
    if reads & {"orders", "reports"}:
        for order in orders:
            read_request(section, order, reading)
    for order in orders:
        if not reads & {"orders", "reports"} and (order.orc or order.obr):
            continue  # results that belong to no order are all that such an event says
        specimens = read_specimens(section, order, reading)
        results = read_results(section, order, specimens, reading) if "results" in reads else []
        if "reports" in reads:
            read_report(section, order, specimens, results, reading)
    if "documents" in reads:
        of_visit: dict[int, list[Order]] = {}
        for order in orders:
            of_visit.setdefault(id(order.visit), []).append(order)
        for visit in visits:
            read_documents(section, visit, of_visit.get(id(visit), []), reading)
