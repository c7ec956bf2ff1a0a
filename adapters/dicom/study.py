"""The instances that are held of one study -> ImagingStudy (R4), with the Patient and the Endpoint that it names.

Pure: the same set of headers gives the same bytes in any order. Numbers are those of what is held, never what a header
or an archive claims there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.dicom.archive import DEFAULT, Archive
from adapters.dicom.headers import Code, Header, PatientOf
from adapters.dicom.people import TEST, Resource, is_test, patient_id, patient_of
from adapters.dicom.times import date_time
from adapters.dicom.vocabulary import RFC_3986, body_site, concept, laterality, modality, uid_identifier
from adapters.hl7v2.local_ids import local_id
from models.canonical import spell
from models.errors import Unreadable, WrongPatient

MAX_TITLE = 200
_ACCESSION = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}
_WADO = {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "dicom-wado-rs"}


def study_id(uid: str) -> str:
    """Local id of the ImagingStudy of a Study Instance UID: the UID. What derives from images refers to it by this."""
    return local_id("", uid)


def endpoint_id(base: str) -> str:
    return local_id("wado-rs", base, "")


def accession_of(header: Header, archive: Archive) -> Resource | None:
    """The accession number as an identifier, its system by its issuer (0008,0051); None where there is none."""
    study = header.study
    if not study.accession:
        return None
    issuer = study.accession_issuer or archive.accession_issuer
    system = archive.authority(issuer) if issuer else archive.local("AccessionNumber")
    return {"type": _ACCESSION, "system": system, "value": study.accession}


@dataclass(slots=True)
class _Assembly:
    """The headers of one study in their order, and what is odd about them."""

    headers: Sequence[Header]
    archive: Archive
    notes: list[str] = field(default_factory=list)

    def agreed(self, of: Iterable[Header], value: Callable[[Header], Any], where: str, what: str) -> Any:
        """What most instances say (of as many, the smallest); a contradiction is noted, never its values."""
        said = Counter(found for header in of if (found := value(header)) not in (None, "", ()))
        if len(said) > 1:
            self.note(f"{what} differs between instances {where}")
        return min(said, key=lambda found: (-said[found], str(found)), default=None)

    def note(self, words: str) -> None:
        if words not in self.notes:
            self.notes.append(words)

    def started(self, of: Sequence[Header], value: Callable[[Header], tuple[str, str]]) -> str:
        """The earliest that is stated."""
        times = {date_time(*value(header), header.offset, self.archive.zone) for header in of if value(header)[0]}
        times.discard("")
        return min(times, key=lambda text: (text[:10], "T" not in text, text)) if times else ""


def imaging_study(headers: Iterable[Header], archive: Archive = DEFAULT) -> list[Resource]:
    """Patient, Endpoint (where the archive has a URL) and ImagingStudy over all instances that are held of one study.

    An instance that is given twice counts once. Instances that a Key Object Selection of the study takes back (IHE
    IOCM: quality, patient safety, wrong worklist entry) are left out, with it, and a note says how many. What
    instances say differently is noted by its tag. A study of a phantom or of synthetic images is marked HTEST.

    Raises: WrongPatient (instances of more than one patient: nothing is made), Unreadable (no header, more than one
    study, no patient's number, nothing left).
    """
    given = sorted({spell(header.plain()): header for header in headers}.items())
    ordered = [header for _, header in given]
    if not ordered:
        raise Unreadable("a study without instances")
    if len({header.study_uid for header in ordered}) > 1:
        raise Unreadable("headers of more than one study", where="(0020,000D)")
    _one_patient(ordered, archive)
    made = _Assembly(ordered, archive)
    held = _held(made)
    who = _person(made)
    test = any(header.patient.quality_control for header in ordered) or all(map(is_test, held))
    resources = [patient_of(who, archive, test=test)]
    if archive.wado_base:
        resources.append(_endpoint(archive))
    study = _study(made, held)
    study["subject"] = {"reference": f"Patient/{resources[0]['id']}"}
    if test:
        study["meta"] = {"tag": [TEST]}
    if made.notes:
        study["note"] = [{"text": words} for words in made.notes]
    return [*resources, study]


def bundle_of(resources: Iterable[Resource]) -> Resource:
    """The resources as a collection, for a landing of their own."""
    entries = [
        {"fullUrl": f"urn:cds-server:{each['resourceType']}:{each['id']}", "resource": each} for each in resources
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def _one_patient(headers: Sequence[Header], archive: Archive) -> None:
    """A study is of one patient (PS3.3 A.1.2). One of two is an accident with somebody's images: no record is made."""
    if len({patient_id(header.patient, archive) for header in headers}) > 1:
        raise WrongPatient("the instances of one study name more than one patient", where="(0010,0020)")


def _person(made: _Assembly) -> PatientOf:
    """Names may be spelled in several ways; a second birth date or sex may be a second person, and is noted."""
    of, agreed = made.headers, made.agreed
    if any(header.patient.identity_removed for header in of):
        made.note("the patient's identity was removed (0012,0062)")
    return PatientOf(
        id=min(
            (header.patient.id for header in of if header.patient.id is not None), key=lambda one: spell(one.plain())
        ),
        others=tuple(
            sorted({each for header in of for each in header.patient.others}, key=lambda one: spell(one.plain()))
        ),
        name=agreed(of, lambda header: header.patient.name, "(0010,0010)", "the name") or "",
        birth_date=agreed(of, lambda header: header.patient.birth_date, "(0010,0030)", "the birth date") or "",
        sex=agreed(of, lambda header: header.patient.sex, "(0010,0040)", "the sex") or "",
    )


def _held(made: _Assembly) -> list[Header]:
    """One header an instance, without those that were taken back."""
    taken_back = {
        uid for header in made.headers if header.rejects for row in header.references for uid in row.instances
    }
    held: dict[str, Header] = {}
    gone = set()
    for header in made.headers:
        if header.rejects or header.sop_uid in taken_back:
            gone.add(header.sop_uid)
            continue
        first = held.setdefault(header.sop_uid, header)
        if first is not header:
            made.note("an instance is held with different headers (0008,0018)")
    if gone:
        made.note(f"{len(gone)} instances were taken back by a rejection note, itself among them")
    if not held:
        raise Unreadable("all instances of the study were taken back", where="(0040,A043)")
    return list(held.values())


def _endpoint(archive: Archive) -> Resource:
    return {
        "resourceType": "Endpoint",
        "id": endpoint_id(archive.wado_base),
        "status": "active",
        "connectionType": _WADO,
        "payloadType": [{"text": "DICOM WADO-RS"}],
        "payloadMimeType": ["application/dicom"],
        "address": archive.wado_base,
    }


def _study(made: _Assembly, held: Sequence[Header]) -> Resource:
    archive, first = made.archive, held[0]
    study: Resource = {
        "resourceType": "ImagingStudy",
        "id": study_id(first.study_uid),
        "identifier": [uid_identifier(first.study_uid)],
        "status": "available",
    }
    accessions = _distinct([accession_of(header, archive) for header in held])
    if len(accessions) > 1:
        made.note("the accession number differs between instances (0008,0050)")
    if accessions:
        study["identifier"] += accessions
        study["basedOn"] = [{"type": "ServiceRequest", "identifier": each} for each in accessions]
    if codes := sorted({header.series.modality for header in held if header.series.modality}):
        study["modality"] = [modality(code) for code in codes]
    if started := made.started(held, lambda header: (header.study.date, header.study.time)):
        study["started"] = started
    made.agreed(held, lambda header: header.study.date, "(0008,0020)", "the study date")
    if referrer := made.agreed(held, lambda header: header.study.referrer, "(0008,0090)", "the referring physician"):
        study["referrer"] = {"type": "Practitioner", "display": _readable(referrer)}
    if archive.wado_base:
        study["endpoint"] = [{"reference": f"Endpoint/{endpoint_id(archive.wado_base)}"}]
    if procedures := _codes((code for header in held for code in header.study.procedures), archive):
        study["procedureCode"] = procedures
    if reasons := _codes((code for header in held for code in header.study.reasons), archive):
        study["reasonCode"] = reasons
    elif reason := made.agreed(held, lambda header: header.study.reason, "(0040,1002)", "the reason"):
        study["reasonCode"] = [{"text": reason}]
    if words := made.agreed(held, lambda header: header.study.description, "(0008,1030)", "the description"):
        study["description"] = words
    by_series: dict[str, list[Header]] = {}
    for header in held:
        by_series.setdefault(header.series_uid, []).append(header)
    rows = sorted(by_series.values(), key=lambda row: (_last(row[0].series.number), row[0].series_uid))
    study["numberOfSeries"], study["numberOfInstances"] = len(rows), len(held)
    study["series"] = [_series(made, row) for row in rows]
    return study


def _series(made: _Assembly, held: Sequence[Header]) -> Resource:
    archive, first = made.archive, held[0]

    def agreed(value: Callable[[Header], Any], where: str, what: str) -> Any:
        return made.agreed(held, value, where, what)

    series: Resource = {"uid": first.series_uid}
    if (
        number := agreed(lambda one: one.series.number, "(0020,0011)", "the series number")
    ) is not None and number >= 0:
        series["number"] = number
    series["modality"] = modality(agreed(lambda one: one.series.modality, "(0008,0060)", "the modality") or "OT")
    if words := agreed(lambda one: one.series.description, "(0008,103E)", "the series description"):
        series["description"] = words
    elif protocol := agreed(lambda one: one.series.protocol, "(0018,1030)", "the protocol"):
        series["description"] = protocol
    series["numberOfInstances"] = len(held)
    if archive.wado_base:
        series["endpoint"] = [{"reference": f"Endpoint/{endpoint_id(archive.wado_base)}"}]
    region = agreed(lambda one: one.series.region, "(0008,2218)", "the anatomic region")
    part = agreed(lambda one: one.series.body_part, "(0018,0015)", "the body part")
    if region:
        series["bodySite"] = concept(region[0], archive)["coding"][0]
    elif part:
        series["bodySite"] = body_site(part) or {"display": part}
    if side := laterality(agreed(lambda one: one.series.laterality, "(0020,0060)", "the side") or ""):
        series["laterality"] = side
    if started := made.started(held, lambda one: (one.series.date, one.series.time)):
        series["started"] = started
    if performers := sorted({name for one in held for name in one.series.performers if name}):
        series["performer"] = [{"actor": {"type": "Practitioner", "display": _readable(name)}} for name in performers]
    rows = sorted(held, key=lambda one: (_last(one.number), one.sop_uid))
    series["instance"] = [_instance(one) for one in rows]
    return series


def _instance(header: Header) -> Resource:
    made: Resource = {
        "uid": header.sop_uid,
        "sopClass": {"system": RFC_3986, "code": f"urn:oid:{header.sop_class}"},
    }
    if header.number is not None and header.number >= 0:
        made["number"] = header.number
    title = header.label or (header.title.meaning if header.title else "") or "\\".join(header.image_type)
    if title:
        made["title"] = title[:MAX_TITLE]
    return made


def _last(number: int | None) -> tuple[bool, int]:
    """Numbered ones first."""
    return (number is None, number or 0)


def _readable(name: str) -> str:
    """A person's name as people write it: given names, then the family's."""
    family, *rest = [part.strip() for part in name.split("=")[0].split("^")[:5]]
    given, middle, prefix, suffix = (*rest, *[""] * 4)[:4]
    return " ".join(part for part in (prefix, given, middle, family, suffix) if part) or name


def _codes(codes: Iterable[Code], archive: Archive) -> list[Resource]:
    return _distinct(concept(code, archive) for code in sorted(set(codes), key=lambda one: (one.scheme, one.value)))


def _distinct(rows: Iterable[Resource | None]) -> list[Resource]:
    """Each once, in the order of their spelling."""
    return [row for _, row in sorted({spell(row): row for row in rows if row is not None}.items())]
