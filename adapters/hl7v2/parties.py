"""Converters for identifiers, and for people, places and applications that are named and not kept as records.

A practitioner, an organization or a place is a logical reference (R4 references.html, 2.3.0.2): its identifier and its
name. The v2-to-FHIR guide makes a resource of each; nothing here is judged by one (own rule). Each takes the cells, its
row, and the reading, and gives None for nothing.
"""

from __future__ import annotations

import re

from adapters.hl7v2.mapped import Cells, Rule, converter, datatype
from adapters.hl7v2.reading import Reading
from adapters.hl7v2.values import Concept
from adapters.hl7v2.vocabulary import code_system, table

_UID = re.compile(r"[0-9.]{1,64}")


@converter("authority")
def authority(cells: Cells, rule: Rule, reading: Reading) -> str | None:
    """HD[uri] of CX.4. Without one it is the source's own, by the field it stands in."""
    name, oid, kind = cells.text(1), cells.text(2), cells.text(3)
    if name or oid:
        return reading.feed.authority(name, oid, kind)
    return reading.feed.authority(f"{cells.repetition.segment.name}-{cells.repetition.field}")


@converter("authorityOfEI")
def authority_of_ei(cells: Cells, rule: Rule, reading: Reading) -> str | None:
    """EI.2 to EI.4 are an HD without being one component. Without one the system is the source's own, by the field."""
    name, oid, kind = cells.text(2), cells.text(3), cells.text(4)
    if name or oid:
        return reading.feed.authority(name, oid, kind)
    return (
        reading.feed.authority(f"{cells.repetition.segment.name}-{cells.repetition.field}") if cells.text(1) else None
    )


@converter("CX")
def cx(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """CX[Identifier]; without a value it is none."""
    return datatype("CX", cells, reading) if cells.text(1) else None


@converter("EI")
def ei(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    return datatype("EI", cells, reading) if cells.text(1) else None


@converter("XCN")
def practitioner(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """XCN[Practitioner], as a logical reference: who acted is named, no record of them is made."""
    name = " ".join(
        part for part in (cells.text(6), cells.text(3), cells.text(4), cells.text(2), cells.text(5)) if part
    )
    return _logical("Practitioner", cells.text(1), cells.below(9), name, reading)


@converter("NDL")
def interpreter(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """NDL[PractitionerRole]: its first component is a CNN, spelled in sub-components."""
    inner = cells.below(1)
    name = " ".join(
        part for part in (inner.text(6), inner.text(3), inner.text(4), inner.text(2), inner.text(5)) if part
    )
    return _logical("Practitioner", inner.text(1), None, name, reading)


@converter("XON")
def organization(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """XON[Organization]: XON.10 (2.5 and later), else XON.3, is its number."""
    return _logical("Organization", cells.text(10) or cells.text(3), cells.below(6), cells.text(1), reading)


@converter("CXReference")
def organization_by_number(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    return _logical("Organization", cells.text(1), cells.below(4), "", reading)


@converter("CWEReference")
def organization_by_code(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """CWE[Organization]."""
    return _logical("", cells.text(1), None, cells.text(2), reading, cells.text(3))


@converter("EIReference")
def device(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    made = datatype("EI", cells, reading) if cells.text(1) else None
    return {"type": "Device", "identifier": made} if made else None


@converter("HDReference")
def facility(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    name, oid = cells.text(1), cells.text(2)
    if not (name or oid):
        return None
    made: Concept = {"type": "Organization", "display": name or oid}
    if oid:
        made["identifier"] = {"system": reading.feed.authority("", oid, cells.text(3)), "value": name or oid}
    return made


def _logical(kind: str, value: str, by: Cells | None, name: str, reading: Reading, system: str = "") -> Concept | None:
    """A reference by identifier and name (R4 references.html, 2.3.0.2)."""
    made: Concept = {}
    if kind:
        made["type"] = kind
    if value:
        made["identifier"] = {"value": value}
        if by is not None and (by.text(1) or by.text(2)):
            made["identifier"]["system"] = reading.feed.authority(by.text(1), by.text(2), by.text(3))
        elif system:
            made["identifier"]["system"] = code_system(reading.feed, system)
    if name:
        made["display"] = name
    return made if value or name else None


@converter("PL")
def location(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    return place_of(cells, reading)


def place_of(cells: Cells, reading: Reading) -> Concept | None:
    """PL[Location], as a logical reference: point of care, room, bed, facility, building, floor."""
    names = [cells.text(at) for at in (1, 2, 3)]
    if not any((*names, cells.text(4), cells.text(7), cells.text(8), cells.text(9))):
        return None
    words = ", ".join(part for part in (*names, cells.text(8), cells.text(7), cells.text(4), cells.text(9)) if part)
    made: Concept = {"type": "Location", "display": words}
    if any(names):
        facility_name = cells.text(4) or "PL"
        made["identifier"] = {"system": reading.feed.local(facility_name), "value": "/".join(names).rstrip("/")}
    return made


@converter("DLD")
def discharge_location(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    name = cells.text(2) or cells.text(1)
    return {"type": "Location", "display": name} if name else None


@converter("CWEIdentifier")
def plan_identifier(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """CWE[Identifier]."""
    value = cells.text(1)
    if not value:
        return None
    name = cells.text(3)
    system = code_system(reading.feed, name) if name else reading.feed.local("IN1-2")
    return {"value": value, "system": system}


@converter("studyUid")
def study_uid(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """A Study Instance UID as FHIR writes it in identifiers (R4 imagingstudy.html, urn:dicom:uid)."""
    value = cells.text(1)
    return {"system": "urn:dicom:uid", "value": f"urn:oid:{value}"} if _UID.fullmatch(value) else None


@converter("fileName")
def file_name(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """ST[Identifier]."""
    return {"system": reading.feed.local("TXA-16"), "value": cells.text()} if cells.text() else None


@converter("XTN")
def telecom(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    """XTN[ContactPoint]: XTN.4 for mail, XTN.12, XTN.1, or the number's parts; the use as stated, else by the row."""
    kind = table("TelecomEquipment").codes.get(cells.text(3), "")
    number = "".join(f"+{cells.text(5)} " if cells.text(5) else "") + " ".join(
        part for part in (f"({cells.text(6)})" if cells.text(6) else "", cells.text(7)) if part
    )
    if kind == "email" or (not kind and "@" in cells.text(4)):
        value, kind = cells.text(4) or cells.text(1), "email"
    else:
        value = cells.text(12) or cells.text(1) or (number if cells.text(7) else "") or cells.text(4)
        if cells.text(8) and value == number:
            value += f" x{cells.text(8)}"
    if not value:
        return None
    made: Concept = {"system": kind or "phone", "value": value}
    use = table("TelecomUse").codes.get(cells.text(2)) or rule.get("use")
    if cells.text(3) == "CP":
        use = "mobile"
    if use:
        made["use"] = use
    return made


@converter("HDName")
def application_name(cells: Cells, rule: Rule, reading: Reading) -> str | None:
    return cells.text(1) or cells.text(2) or None


@converter("HDUrl")
def application_url(cells: Cells, rule: Rule, reading: Reading) -> str | None:
    """HD[url]."""
    name, oid = cells.text(1), cells.text(2)
    return reading.feed.authority(name, oid, cells.text(3)) if name or oid else None


@converter("HDDestination")
def destination(cells: Cells, rule: Rule, reading: Reading) -> Concept | None:
    url = application_url(cells, rule, reading)
    return {"name": cells.text(1) or cells.text(2), "endpoint": url} if url else None
