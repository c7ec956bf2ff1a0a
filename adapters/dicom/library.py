"""The images that a report rests on: which of them it lists, and how (TID 1600, PS3.16)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
    UIDRefContentItem,
)
from pydicom.dataset import Dataset

from adapters.dicom import quiet
from adapters.dicom.headers import Header

quiet.silence()
LISTED = 256
"""Images that a library lists; of a larger study, some of each series, evenly: 20,000 items are no report."""
MEANING = 64
"""Characters of a code's meaning, and of LO."""
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_PIXELS = CodedConcept("{pixels}", "UCUM", "Pixels")


def coded(value: str, scheme: str, meaning: str) -> CodedConcept:
    """A private code may be longer than SH: it is then a Long Code Value (PS3.3 8.1)."""
    return CodedConcept(value, scheme[:16], (meaning or value)[:MEANING])


def listed_of(sources: Sequence[Header], most: int = LISTED) -> list[Header]:
    """The images of a study in order of series and number; of a large one some of each series, its ends among them."""
    series: dict[str, list[Header]] = {}
    for each in sources:
        if each.image is not None:
            series.setdefault(each.series_uid, []).append(each)
    if not series:
        return list(sources[:most])
    room = max(2, most // len(series))
    found: list[Header] = []
    for rows in list(series.values())[:most]:
        rows.sort(key=lambda each: (each.number if each.number is not None else 0, each.sop_uid))
        last = len(rows) - 1
        places = range(len(rows)) if len(rows) <= room else sorted({at * last // (room - 1) for at in range(room)})
        found += [rows[at] for at in places]
    first = sources[0].study_uid
    return sorted(found, key=lambda each: each.study_uid != first)


def library(listed: Sequence[Header]) -> ContainerContentItem:
    """TID 1600: a group a series, with what its images have in common (TID 1602)."""
    library = ContainerContentItem(
        name=CodedConcept("111028", "DCM", "Image Library"), relationship_type=RelationshipTypeValues.CONTAINS
    )
    library.ContentSequence = ContentSequence()
    series: dict[str, list[Header]] = {}
    for each in listed:
        series.setdefault(each.series_uid, []).append(each)
    for rows in series.values():
        group = ContainerContentItem(
            name=CodedConcept("126200", "DCM", "Image Library Group"), relationship_type=RelationshipTypeValues.CONTAINS
        )
        group.ContentSequence = ContentSequence([*_descriptors(rows[0]), *map(_entry, rows)])
        library.ContentSequence.append(group)
    return library


def _descriptors(first: Header) -> Iterator[Any]:
    context = RelationshipTypeValues.HAS_ACQ_CONTEXT
    if first.series.modality:
        modality = coded(first.series.modality, "DCM", first.series.modality)
        yield CodeContentItem(CodedConcept("121139", "DCM", "Modality"), modality, context)
    uid = CodedConcept("112227", "DCM", "Frame of Reference UID")
    if first.image is not None and first.image.frame_of_reference:
        yield UIDRefContentItem(uid, first.image.frame_of_reference, context)
    if first.image is not None:
        for code, meaning, number in (
            ("110910", "Pixel Data Rows", first.image.rows),
            ("110911", "Pixel Data Columns", first.image.columns),
        ):
            yield NumContentItem(CodedConcept(code, "DCM", meaning), number, _PIXELS, relationship_type=context)
    yield UIDRefContentItem(CodedConcept("112002", "DCM", "Series Instance UID"), first.series_uid, context)


def _entry(each: Header) -> ImageContentItem:
    return ImageContentItem(
        name=CodedConcept("260753009", "SCT", "Source"),
        referenced_sop_class_uid=each.sop_class,
        referenced_sop_instance_uid=each.sop_uid,
        relationship_type=RelationshipTypeValues.CONTAINS,
    )


def referred(each: Header) -> Dataset:
    """An object as the library of templates wants to see it: whose it is, and which one."""
    made = Dataset()
    patient, study = each.patient, each.study
    made.PatientID = patient.id.value if patient.id is not None else ""
    made.PatientName = patient.name
    made.PatientBirthDate = _date(patient.birth_date)
    made.PatientSex = patient.sex if patient.sex in ("M", "F", "O") else ""
    made.StudyInstanceUID, made.SeriesInstanceUID = each.study_uid, each.series_uid
    made.SOPInstanceUID, made.SOPClassUID = each.sop_uid, each.sop_class
    made.StudyID, made.AccessionNumber = study.id[:16], study.accession[:16]
    made.StudyDate = _date(study.date)
    made.StudyTime = study.time if _TIME.fullmatch(study.time) else ""
    made.StudyDescription = study.description[:MEANING]
    made.ReferringPhysicianName = study.referrer
    return made


def _date(text: str) -> str:
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return ""
    return text if len(text) == 8 and text.isascii() and text.isdigit() else ""
