"""Orders and results: which segments belong together, and ServiceRequest, Specimen, Observation, DiagnosticReport."""

from __future__ import annotations

from dataclasses import dataclass, field

from adapters.hl7v2.local_ids import local_id
from adapters.hl7v2.mapped import apply
from adapters.hl7v2.message import Segment
from adapters.hl7v2.observed import reference_range, value_of
from adapters.hl7v2.people import Section
from adapters.hl7v2.reading import SUBSETTED, WRONG_PATIENT, Reading, Resource, named_id
from adapters.hl7v2.visits import Visit

_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_SUB_ID = "http://hl7.org/fhir/StructureDefinition/observation-v2-subid"
_WHY_ABSENT = {"X": "not-performed", "N": "not-asked", "I": "temp-unknown"}
"""OBX-11 -> why there is no value (own rule: the guide gives N only)."""
_DETAIL = "O"
"""OBX-11 O: it describes the order, and is no result (own rule: the guide gives it no target)."""
_OTHER_ORDERS = frozenset({"RXO", "RXE", "RXA", "RXD", "ODS", "ODT", "RQD", "RQ1"})
_NOT_MINE = frozenset({"TXA", "SCH", "RGS", "FT1", "RXA"})
"""What follows these belongs to them: documents, appointments, charges, vaccinations."""


@dataclass(slots=True)
class Result:
    """An OBX with its notes, and the lines of text that continue it."""

    obx: Segment
    notes: list[Segment] = field(default_factory=list)
    more: list[Segment] = field(default_factory=list)
    specimen: str = ""


@dataclass(slots=True)
class Order:
    """ORC, OBR and what follows them. Both are None for results that stand before any order."""

    visit: Visit
    orc: Segment | None = None
    obr: Segment | None = None
    timings: list[Segment] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)
    specimens: list[Segment] = field(default_factory=list)
    imaging: list[Segment] = field(default_factory=list)
    """IPC and ZDS: accession number and Study Instance UID."""
    results: list[Result] = field(default_factory=list)
    other: bool = False
    """An order of medicines, diets or supplies: none that is mapped."""
    request: str = ""
    """Local id of the ServiceRequest."""

    def number(self, component_of_orc: int) -> tuple[str, str] | None:
        """(authority, value) of ORC-2 or ORC-3, else of OBR-2 or OBR-3: the ORC's win."""
        for segment in (self.orc, self.obr):
            if segment is not None and (value := segment.text(component_of_orc).strip()):
                first = segment.first(component_of_orc)
                return first.text(2).strip() or first.text(3).strip(), value
        return None


def orders_of(visits: list[Visit]) -> list[Order]:
    """The orders of a patient, in order. An ORC opens one; an OBR belongs to the ORC before it, if that has none yet.

    SPM and its OBX belong to the order before them; a second PV1 (the prior results of OML and OMG) starts anew.
    """
    found: list[Order] = []
    for visit in visits:
        order = Order(visit)
        found.append(order)
        specimen, mine, last = "", True, None
        for segment in visit.segments:
            name = segment.name
            if name in _NOT_MINE:
                mine = False
            if name in ("ORC", "OBR"):
                mine, last, specimen = True, None, ""
                if name == "ORC" or order.obr is not None or (order.orc is None):
                    order = Order(visit)
                    found.append(order)
                if name == "ORC":
                    order.orc = segment
                else:
                    order.obr = segment
            elif name in _OTHER_ORDERS:
                order.other = True
            elif not mine:
                continue
            elif name in ("IPC", "ZDS"):
                order.imaging.append(segment)
            elif name == "TQ1":
                order.timings.append(segment)
            elif name == "SPM":
                order.specimens.append(segment)
                specimen, last = str(len(order.specimens)), None
            elif name == "NTE":
                (last.notes if last else order.notes).append(segment)
            elif name == "OBX":
                if last is not None and _continues(last, segment):
                    last.more.append(segment)
                else:
                    last = Result(segment, specimen=specimen)
                    order.results.append(last)
    return [order for order in found if order.orc or order.obr or order.results]


def _continues(last: Result, obx: Segment) -> bool:
    """Text that goes on in the next OBX, as senders did before FT and repetitions (own rule): the same code, sub-id and
    status, TX or FT, one after the other."""
    before = last.obx
    return (
        obx.text(2) in ("TX", "FT")
        and all(before.raw(at) == obx.raw(at) for at in (2, 3, 4, 11))
        and bool(obx.raw(3))
        and not last.notes
    )


# ---- requests --------------------------------------------------------------------------------------------------------


def read_request(section: Section, order: Order, reading: Reading) -> None:
    """The ServiceRequest of an order: its whole word in an order message, what a result says of it in a result.

    Id: the placer's number, else the filler's, else (own rules) the accession of IPC-1, SPM-30 or OBR-18, else the
    placer's group number ORC-4 with the service. A number that names several services in one message names each with
    its code.
    """
    if order.other or section.subject is None or not (order.orc or order.obr):
        return
    number = order.number(2) or order.number(3) or _accession(order) or _of_group(order)
    if number is None:
        return
    made = local_id(*number)
    if ("ServiceRequest", made) in reading.seen and order.obr is not None:
        made = local_id("several", *number, order.obr.text(4).strip() or order.obr.text(4, 2).strip())
    order.request = made
    whole = "orders" in reading.event.reads and "reports" not in reading.event.reads
    request: Resource = {"resourceType": "ServiceRequest", "id": made, "subject": section.subject}
    if order.visit.reference:
        request["encounter"] = order.visit.reference
    if order.orc is not None:
        apply("ORC[ServiceRequest]", order.orc, request, reading)
        apply("ORC[meta]", order.orc, request, reading)
    if order.obr is not None:
        apply("OBR[ServiceRequest]", order.obr, request, reading)
    for segment in order.imaging:
        apply(f"{segment.name}[ServiceRequest]", segment, request, reading)
    for timing in order.timings[:1]:
        request.pop("occurrenceDateTime", None)
        apply("TQ1[ServiceRequest]", timing, request, reading)
    if "reports" in reading.event.reads and not (order.orc and order.orc.text(5).strip()):
        request["status"] = _status_by_result(order)
    request.setdefault("status", _status_by_result(order))
    if notes := notes_of(order.notes):
        request["note"] = notes
    at = order.orc or order.obr
    reading.state(request, at.pointer if at else "", tags=() if whole else (SUBSETTED,))


def _accession(order: Order) -> tuple[str, str] | None:
    for ipc in order.imaging:
        if ipc.name == "IPC" and (value := ipc.text(1).strip()):
            return ipc.text(1, 2).strip() or "accession", value
    for spm in order.specimens:
        if value := spm.text(30).strip():
            return spm.text(30, 4).strip() or "accession", value
    if order.obr is not None and (value := order.obr.text(18).strip()):
        return "accession", value
    return None


def _of_group(order: Order) -> tuple[str, ...] | None:
    if order.orc is None or not (value := order.orc.text(4).strip()):
        return None
    first = order.orc.first(4)
    service = (order.obr.text(4).strip() or order.obr.text(4, 2).strip()) if order.obr else ""
    return "group", first.text(2).strip() or first.text(3).strip(), value, service


def _status_by_result(order: Order) -> str:
    """Own rule, where the order's own status is not said: a final result completes it. ORC-1 of a result (RE) says no
    more than that there is one."""
    sent = order.obr.text(25).strip() if order.obr else ""
    return {"F": "completed", "C": "completed", "X": "revoked"}.get(sent, "active" if sent else "unknown")


def read_specimens(section: Section, order: Order, reading: Reading) -> list[Resource]:
    """Specimens of an order, in order; their references. Id: SPM-2 (the filler's, else the placer's number)."""
    found: list[Resource] = []
    if section.subject is None or order.other:
        return found
    subject = section.patient
    requested = {"request": [{"reference": f"ServiceRequest/{order.request}"}]} if order.request else {}
    for spm in order.specimens:
        numbered = named_id(spm, 2, 2, within=subject) or named_id(spm, 2, 1, within=subject)
        made = numbered or local_id("spm", *_key(section, order), spm.text(1).strip())
        specimen: Resource = {"resourceType": "Specimen", "id": made, "subject": section.subject, **requested}
        found.append(reading.state(apply("SPM[Specimen]", spm, specimen, reading), spm.pointer))
    if not order.specimens and order.obr is not None and order.obr.text(15).strip():
        made = local_id("obr-15", *_key(section, order))
        specimen = {"resourceType": "Specimen", "id": made, "subject": section.subject, **requested}
        found.append(reading.state(apply("OBR[Specimen]", order.obr, specimen, reading), order.obr.pointer))
    return found


# ---- results ---------------------------------------------------------------------------------------------------------


def _key(section: Section, order: Order) -> tuple[str, ...]:
    """What names an order's results: the filler's number, else the placer's. Own rule, where there is neither: the
    patient, the service and its time; without an OBR the patient and the visit."""
    if number := order.number(3) or order.number(2):
        return number
    if order.obr is not None:
        return section.patient, order.obr.text(4).strip() or order.obr.text(4, 2).strip(), order.obr.text(7).strip()
    return section.patient, order.visit.encounter


def read_results(section: Section, order: Order, specimens: list[Resource], reading: Reading) -> list[Resource]:
    """Observation of each OBX; their references.

    Id: the order's number with OBX-3 and OBX-4, and OBX-21 where it is given, so that a correction replaces what it
    corrects. The same key again in one message is counted.
    """
    found: list[Resource] = []
    if section.subject is None or order.other:
        return found
    of_order = _key(section, order)
    issued = _issued(order.obr, reading) if order.obr is not None else None
    for result in order.results:
        obx = result.obx
        code = obx.text(3).strip() or next((text for at in (2, 4, 9) if (text := obx.text(3, at).strip())), "")
        standing = obx.text(11).strip()
        if not code or standing == _DETAIL:
            continue
        when = () if order.obr or order.orc else (obx.text(14).strip(),)
        instance = (named,) if (named := obx.text(21).strip()) else ()
        sub = obx.first(4).whole.strip() if obx.raw(4) else ""
        observation: Resource = {
            "resourceType": "Observation",
            "id": reading.key("obx", *of_order, code, sub, *when, *instance),
            "subject": section.subject,
        }
        _fill(observation, result, order, specimens, reading)
        if issued:
            observation["issued"] = issued
        tags = (WRONG_PATIENT,) if standing == "W" else ()
        found.append(reading.state(observation, obx.pointer, tags=tags))
    return found


def _fill(observation: Resource, result: Result, order: Order, specimens: list[Resource], reading: Reading) -> None:
    obx = result.obx
    if order.visit.reference:
        observation["encounter"] = order.visit.reference
    if order.request:
        observation["basedOn"] = [{"reference": f"ServiceRequest/{order.request}"}]
    apply("OBX[Observation]", obx, observation, reading)
    if order.orc is not None:
        apply("ORC[meta]", order.orc, observation, reading)
    observation.setdefault("status", "unknown")
    if "code" not in observation:
        observation["code"] = {"text": obx.first(3).whole.strip()}
    if "effectiveDateTime" not in observation and "_effectiveDateTime" not in observation:
        observation.update(_effective(order, reading))
    if obx.raw(4) and (sub := obx.first(4).whole.strip()):
        inner = {"url": "original-sub-identifier", "valueString": sub}
        observation.setdefault("extension", []).append({"url": _SUB_ID, "extension": [inner]})
    if specimens:
        at = int(result.specimen) - 1 if result.specimen else 0
        if at < len(specimens) and (result.specimen or len(specimens) == 1):
            observation["specimen"] = specimens[at]
    if found := reference_range(obx, reading):
        observation["referenceRange"] = [found]
    if notes := notes_of(result.notes):
        observation["note"] = notes
    value = value_of(obx, reading)
    if result.more:
        lines = [value.get("valueString", "")]
        lines += [value_of(line, reading).get("valueString", "") for line in result.more]
        value = {"valueString": "\n".join(lines).strip("\n")} if any(lines) else {}
    extensions = value.pop("extension", None)
    if extensions:
        observation.setdefault("extension", []).extend(extensions)
    observation.update(value)
    if value or extensions:
        observation.pop("dataAbsentReason", None)
    else:
        why = _WHY_ABSENT.get(obx.text(11).strip(), "unknown")
        observation["dataAbsentReason"] = {"coding": [{"system": _ABSENT, "code": why}]}


def _effective(order: Order, reading: Reading) -> Resource:
    """OBR-7 and OBR-8, else when the specimen was taken (own rule)."""
    if (obr := order.obr) is not None:
        start = reading.date_time_or_none(obr.text(7), "OBR-7")
        end = reading.date_time_or_none(obr.text(8), "OBR-8")
        if start and end and start != end:
            return {"effectivePeriod": {"start": start, "end": end}}
        if start:
            return {"effectiveDateTime": start}
    for spm in order.specimens[:1]:
        if start := reading.date_time_or_none(spm.text(17), "SPM-17"):
            return {"effectiveDateTime": start}
    return {}


def _issued(obr: Segment, reading: Reading) -> str | None:
    found = reading.date_time_or_none(obr.text(22), "OBR-22")
    return found if found and "T" in found else None


def read_report(
    section: Section, order: Order, specimens: list[Resource], results: list[Resource], reading: Reading
) -> None:
    """DiagnosticReport of an OBR. Id: the order's number with OBR-4."""
    obr = order.obr
    if obr is None or section.subject is None or order.other:
        return
    code = obr.text(4).strip() or obr.text(4, 2).strip()
    report: Resource = {"resourceType": "DiagnosticReport", "id": reading.key("report", *_key(section, order), code)}
    report["subject"] = section.subject
    if order.visit.reference:
        report["encounter"] = order.visit.reference
    if order.request:
        report["basedOn"] = [{"reference": f"ServiceRequest/{order.request}"}]
    if order.orc is not None:
        apply("ORC[DiagnosticReport]", order.orc, report, reading)
        apply("ORC[meta]", order.orc, report, reading)
    apply("OBR[DiagnosticReport]", obr, report, reading)
    report.setdefault("status", "unknown")
    report.setdefault("code", {"text": "not stated"})
    if specimens:
        report["specimen"] = specimens
    if results:
        report["result"] = results
    reading.state(report, obr.pointer)


def notes_of(segments: list[Segment]) -> list[Resource]:
    """NTE[Observation], by position: one Annotation each, its repetitions on lines of their own."""
    rows = []
    for nte in segments:
        lines = [repetition.whole.strip() for repetition in nte.field(3) if repetition]
        if words := "\n".join(line for line in lines if line):
            rows.append({"text": words})
    return rows
