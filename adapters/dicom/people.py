"""Whose an object is: the Patient as this archive knows it, keyed as HL7 v2 keys a PID. Never by name."""

from __future__ import annotations

from typing import Any

from adapters.dicom.archive import Archive
from adapters.dicom.headers import Header, PatientId, PatientOf
from adapters.dicom.times import date_of
from adapters.hl7v2.local_ids import local_id
from models.errors import Unreadable

Resource = dict[str, Any]
TEST = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
"""On a Patient out of an image: the registration's whole word on the person, where it is known, outranks it."""
_GENDER = {"M": "male", "F": "female", "O": "other"}
_TYPE = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]}


def patient_id(patient: PatientOf, archive: Archive) -> str:
    """Local id of the record: `issuer-value`, the issuer by its name (0010,0021), else by its universal id, else as the
    site says; the value alone, where nobody says. The same id as a PID-3 of that assigner gives in HL7 v2.

    Raises: Unreadable, without a Patient ID (0010,0020).
    """
    if patient.id is None:
        raise Unreadable("an object without a patient's number", where="(0010,0020)")
    return local_id(patient.id.issuer or patient.id.universal or archive.issuer, patient.id.value)


def identifier(found: PatientId, archive: Archive) -> Resource:
    """CX as FHIR: system by the issuer; without one, the archive's own for patient numbers."""
    name = found.issuer or ("" if found.universal else archive.issuer)
    known = bool(name or found.universal)
    kind = "" if found.universal_type == "ISO" else found.universal_type
    system = archive.authority(name, found.universal, kind) if known else archive.local("PatientID")
    return {"type": _TYPE, "system": system, "value": found.value}


def is_test(header: Header) -> bool:
    """Phantoms, synthetic data and quality control images are nobody's care (0010,0200; 0008,001C; 0028,0300)."""
    return header.patient.quality_control or header.synthetic


def patient_of(patient: PatientOf, archive: Archive, *, test: bool = False) -> Resource:
    """The Patient: identifiers, names, sex, birth date. Raises: Unreadable, without a Patient ID."""
    made: Resource = {
        "resourceType": "Patient",
        "id": patient_id(patient, archive),
        "meta": {"tag": [SUBSETTED, *([TEST] if test else [])]},
    }
    if patient.id is not None:
        rows = [identifier(each, archive) for each in (patient.id, *patient.others)]
        made["identifier"] = [row for at, row in enumerate(rows) if row not in rows[:at]]
    if names := _names(patient.name):
        made["name"] = names
    if patient.sex in _GENDER:
        made["gender"] = _GENDER[patient.sex]
    if len(born := date_of(patient.birth_date)) == 10:
        made["birthDate"] = born
    return made


def _names(written: str) -> list[Resource]:
    """PN (PS3.5 6.2.1): alphabetic, ideographic and phonetic groups; family, given, middle, prefix, suffix. The groups
    are marked as ISO 21090 does (iso21090-EN-representation)."""
    names = []
    for kind, group in zip(("ABC", "IDE", "SYL"), written.split("=")[:3], strict=False):
        family, given, middle, prefix, suffix = (*(part.strip() for part in group.split("^")[:5]), *[""] * 5)[:5]
        made: Resource = {}
        if family:
            made["family"] = family
        if row := [part for part in (given, middle) if part]:
            made["given"] = row
        if prefix:
            made["prefix"] = [prefix]
        if suffix:
            made["suffix"] = [suffix]
        if made:
            if kind != "ABC":
                url = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
                made = {"extension": [{"url": url, "valueCode": kind}], **made}
            names.append(made)
    return names
