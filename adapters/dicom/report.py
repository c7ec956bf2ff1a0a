"""Composes what we send to an archive: a result as Comprehensive SR by TID 1500 (PS3.16), or, where it is taken back, a
key object selection that rejects it (IHE IOCM). Pure.

    observation context   our software, as a device; a person has not looked at it (UNVERIFIED)
    procedure reported    that of the study
    image library         the images that the study had, series by series (TID 1600)
    measurement group     algorithm and version (TID 4019), each number with its unit, each sentence

It is a new object in a new series of the study; nothing that was acquired is altered. Its UIDs follow from the result
and from its content under the site's key: the same result is the same bytes, and other bytes never have its UID.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta, timezone
from hashlib import sha256
from typing import Any

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import config
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from adapters.dicom import part10, quiet
from adapters.dicom.headers import Header
from adapters.dicom.library import MEANING, coded, library, listed_of, referred
from adapters.hl7v2.composed import LOCAL, Result, Status, Value
from models.errors import NotAllowed

quiet.silence()
EXPLICIT = "1.2.840.10008.1.2.1"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
"""Comprehensive SR Storage: what archives know best of the classes that hold TID 1500 (PS3.3 A.35.3)."""
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
SERIES_NUMBER = 9900
_PROCEDURE = CodedConcept("363679005", "SCT", "Imaging procedure")
_REJECTED = CodedConcept("113001", "DCM", "Rejected for Quality Reasons")
_COMMENT = CodedConcept("121106", "DCM", "Comment")
_DEVICE = CodedConcept("121007", "DCM", "Device")
_NO_UNITS = CodedConcept("1", "UCUM", "no units")

_OFFSET = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")
_ENDS = ("lower", "upper")

UidOf = Callable[..., str]
"""Words -> a UID that follows from them under the site's key."""


@dataclass(frozen=True, slots=True)
class Software:
    """Who made it: a device in the words of the standard."""

    name: str
    version: str
    manufacturer: str


@dataclass(frozen=True, slots=True)
class Region:
    """What was measured: one segment of a segmentation."""

    of: Header
    number: int
    """(0062,0004)"""


@dataclass(frozen=True, slots=True)
class Report:
    result: Result
    sources: tuple[Header, ...]
    """What is held of the study, or studies, that the result rests on; it becomes part of the first one's."""
    software: Software
    uid_of: UidOf
    contributions: tuple[Value, ...] = ()
    """What each modality added."""
    parameters: tuple[str, ...] = ()
    """Of the algorithm: what it takes to find this very run again."""
    region: Region | None = None
    earlier: tuple[Header, ...] = ()
    """What was sent of this result before, oldest first: what this one replaces, or takes back."""
    conducted: str = "research"
    """`research`, or `test` for made patients: said in the series' description."""


def uid_from(digest: bytes) -> str:
    """A UID below 2.25 (PS3.5 B.2) of the first 16 bytes, as a UUID of version 8 (RFC 9562, 5.8)."""
    raw = bytearray(digest[:16])
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
    return f"2.25.{int.from_bytes(raw)}"


def compose(report: Report) -> bytes:
    """A Part 10 file, Explicit VR Little Endian. The same report gives the same bytes.

    Raises: NotAllowed (the sources are of several patients, or there is no source; a withdrawal without what it
    withdraws).
    """
    if not report.sources:
        raise NotAllowed("no source of the result is held")
    patients = {(each.patient.id.value, each.patient.id.issuer) for each in _all(report) if each.patient.id is not None}
    if len(patients) != 1 or any(each.patient.id is None for each in _all(report)):
        raise NotAllowed("the sources of the result do not name one patient", where="(0010,0020)")
    with _as_it_is():
        made = _withdrawal(report) if report.result.status is Status.WITHDRAWN else _document(report)
        _completed(made, report)
        made.SOPInstanceUID = report.uid_of("instance", sha256(_encoded(made)).hexdigest())
        body = _encoded(made)
    return part10.head(str(made.SOPClassUID).encode(), made.SOPInstanceUID.encode(), EXPLICIT.encode()) + body


@contextlib.contextmanager
def _as_it_is() -> Iterator[None]:
    """An archive's own UIDs and names go back to it as they are: pydicom neither refuses them nor prints them."""
    settings = config.settings
    before = settings.writing_validation_mode, settings.reading_validation_mode
    settings.writing_validation_mode = settings.reading_validation_mode = config.IGNORE
    try:
        yield
    finally:
        settings.writing_validation_mode, settings.reading_validation_mode = before


def _all(report: Report) -> Iterator[Header]:
    yield from report.sources
    yield from report.earlier
    if report.region is not None:
        yield report.region.of


def _encoded(made: Dataset) -> bytes:
    body = encode(made, is_implicit_vr=False, is_little_endian=True)
    if body is None:
        raise NotAllowed("the report cannot be written")
    return body


# ---- the documents ---------------------------------------------------------------------------------------------------


def _document(report: Report) -> Dataset:
    result = report.result
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(report)),
        procedure_reported=[coded(each.value, each.scheme, each.meaning) for each in _procedures(report)]
        or [_PROCEDURE],
        imaging_measurements=list(_groups(report)),
    )
    listed = listed_of(report.sources)
    content[0].ContentSequence.insert(len(content[0].ContentSequence) - 1, library(listed))
    evidence = [referred(each) for each in listed]
    if report.region is not None:
        evidence.append(referred(report.region.of))
    return ComprehensiveSR(
        evidence=evidence,
        content=content,
        sop_instance_uid="2.25.1",
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=[referred(each) for each in report.earlier] or None,
        performed_procedure_codes=None,
        **_shared(report, f"CDS {report.conducted}: {result.service.code}"),
    )


def _withdrawal(report: Report) -> Dataset:
    """Key Object Selection (TID 2010) of everything that was sent of the result."""
    if not report.earlier:
        raise NotAllowed("there is nothing that could be withdrawn")
    rejected = [referred(each) for each in report.earlier]
    content = KeyObjectSelection(
        document_title=_REJECTED,
        referenced_objects=rejected,
        observer_device_context=_observer(report),
        description="The result does not stand any more; nothing comes in its place.",
    )
    return KeyObjectSelectionDocument(
        evidence=rejected,
        content=content,
        sop_instance_uid="2.25.1",
        **_shared(report, f"CDS {report.conducted}: withdrawn {report.result.service.code}"),
    )


def _shared(report: Report, description: str) -> dict[str, Any]:
    issued = report.result.issued.astimezone(_zone(report))
    kind = "withdrawal" if report.result.status is Status.WITHDRAWN else "series"
    return {
        "series_instance_uid": report.uid_of(kind, report.result.number, report.sources[0].study_uid),
        "series_number": SERIES_NUMBER,
        "instance_number": len(report.earlier) + 1,
        "manufacturer": report.software.manufacturer[:MEANING],
        "manufacturer_model_name": report.software.name[:MEANING],
        "software_versions": report.software.version[:MEANING],
        "device_serial_number": report.uid_of("device")[:MEANING],
        "series_description": description[:MEANING],
        "content_date": issued.strftime("%Y%m%d"),
        "content_time": issued.strftime("%H%M%S.%f"),
        "specific_character_set": "ISO_IR 192",
        "coding_schemes": [CodingSchemeIdentificationItem(LOCAL, name="cds-server, names of models and outputs")],
    }


def _completed(made: Dataset, report: Report) -> None:
    """What is no business of the content: whose it is, and its times, which are the result's and not of its writing."""
    patient = report.sources[0].patient
    if patient.id is not None and patient.id.issuer:
        made.IssuerOfPatientID = patient.id.issuer
    zone = _zone(report)
    issued = report.result.issued.astimezone(zone)
    made.InstanceCreationDate, made.InstanceCreationTime = issued.strftime("%Y%m%d"), issued.strftime("%H%M%S")
    made.SeriesDate, made.SeriesTime = issued.strftime("%Y%m%d"), issued.strftime("%H%M%S")
    made.ObservationDateTime = issued.strftime("%Y%m%d%H%M%S%z")
    if zone is not UTC:
        made.TimezoneOffsetFromUTC = issued.strftime("%z")
    made.pop("ContributingEquipmentSequence", None)


def _zone(report: Report) -> timezone:
    """That of the study's own times (0008,0201), for it would hold for these, too. Where the study does not say, UTC;
    an instant is then (0040,A032) alone."""
    found = _OFFSET.fullmatch(report.sources[0].offset)
    if found is None:
        return UTC
    sign, hours, minutes = found.groups()
    return timezone((-1 if sign == "-" else 1) * timedelta(hours=int(hours), minutes=int(minutes)))


def _observer(report: Report) -> ObserverContext:
    software = report.software
    return ObserverContext(
        observer_type=_DEVICE,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=report.uid_of("device"),
            name=software.name,
            manufacturer_name=software.manufacturer,
            model_name=f"{software.name} {software.version}",
        ),
    )


def _procedures(report: Report) -> list[Any]:
    return [each for each in report.sources[0].study.procedures if each.value and each.scheme][:8]


# ---- measurements ----------------------------------------------------------------------------------------------------


def _groups(report: Report) -> Iterator[Any]:
    result = report.result
    name, _, version = result.method.code.partition("@")
    algorithm = AlgorithmIdentification(
        name=result.method.title or name,
        version=version or "unknown",
        parameters=[f"model {result.method.code}", *report.parameters],
        manufacturer=report.software.manufacturer,
    )
    yield _group(report, "result", result.values, result.sentences, algorithm)
    if report.contributions:
        yield _group(report, "contributions", report.contributions, (), algorithm)


def _group(
    report: Report, part: str, values: Sequence[Value], sentences: Sequence[str], algorithm: AlgorithmIdentification
) -> Any:
    number = report.result.number
    shared: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(
            uid=report.uid_of("tracking", number, part), identifier=f"{report.result.service.code} {part}"
        ),
        "algorithm_id": algorithm,
        "measurements": [each for value in values for each in _measured(value)] or None,
    }
    if report.region is not None and part == "result":
        segmentation = report.region.of
        images = [each for each in report.sources if each.image is not None and each.sop_class != SEGMENTATION]
        segment = ReferencedSegment(
            sop_class_uid=segmentation.sop_class,
            sop_instance_uid=segmentation.sop_uid,
            segment_number=report.region.number,
            source_series=SourceSeriesForSegmentation((images or [segmentation])[0].series_uid),
        )
        group: Any = VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=segment, finding_type=_finding(report), **shared
        )
    else:
        group = MeasurementsAndQualitativeEvaluations(finding_type=_finding(report), **shared)
    rows = group[0].ContentSequence
    for value in values:
        if (text := _said(value)) is not None:
            rows.append(_text(coded(value.of.code, LOCAL, value.of.title or value.of.code), text))
    for sentence in sentences:
        rows.append(_text(_COMMENT, sentence))
    return group


def _finding(report: Report) -> CodedConcept:
    service = report.result.service
    return coded(service.code, LOCAL, service.title or service.code)


def _measured(value: Value) -> Iterator[Measurement]:
    named = value.of.title or value.of.code
    member = f".{value.sub}" if value.sub else ""
    rows = [(value.of.code + member, named + (f" {value.sub}" if value.sub else ""), value.number)]
    if value.between is not None:
        rows = [(f"{value.of.code}.{end}", f"{named[:56]}, {end}", value.between[at]) for at, end in enumerate(_ENDS)]
    for code, meaning, number in rows:
        if number is not None and math.isfinite(number):
            yield Measurement(name=coded(code, LOCAL, meaning), value=float(number), unit=_unit(value.unit))


def _said(value: Value) -> str | None:
    if value.text is not None:
        return value.text
    numbers = (value.number, *(value.between or ()))
    return "not a number" if any(each is not None and not math.isfinite(each) for each in numbers) else None


def _unit(unit: str) -> CodedConcept:
    return CodedConcept(unit, "UCUM", unit) if unit not in ("", "1") else _NO_UNITS


def _text(name: CodedConcept, text: str) -> TextContentItem:
    return TextContentItem(name=name, value=text, relationship_type=RelationshipTypeValues.CONTAINS)
