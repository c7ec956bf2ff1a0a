"""A result as a structured report: what it says, under which UIDs, and what our own reader makes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from highdicom.sr import srread
from pydicom import dcmread

from adapters.dicom.headers import Header, header_of
from adapters.dicom.library import LISTED, listed_of
from adapters.dicom.report import KEY_OBJECTS, SR, Region, Report, Software, compose, uid_from
from adapters.hl7v2.composed import Code, Result, Status, Value
from adapters.readers.dicom import read
from models.errors import NotAllowed
from models.nouns import JSON, Part
from tests.dicom_made import ct_series, part10

NOW = datetime(2026, 11, 21, 10, 0, 0, 123456, UTC)
NUMBER = "11111111-2222-3333-4444-555555555555"
RESULT = Result(
    NUMBER,
    Code("breast-cancer-prognosis", "Prognosis after surgery"),
    Code("breast-cancer-recurrence@1.0.0", "Recurrence of breast cancer"),
    NOW,
    NOW,
    (
        Value(Code("breast-cancer-recurrence.probability", "Probability"), number=0.123456789012345, unit="1"),
        Value(Code("breast-cancer-recurrence.interval", "Range"), between=(0.1, 0.2), unit="1"),
        Value(Code("x.survival", "Survival"), number=81.5, unit="%", sub="2"),
        Value(Code("x.abstained", "Why there is no score"), text="no tumour size"),
        Value(Code("x.undefined", "Undefined"), number=float("nan")),
    ),
    ("Risk of recurrence is 12 %.",),
)


def uid_of(*words: str) -> str:
    return uid_from(sha256("|".join(words).encode()).digest())


def headers(**made: object) -> tuple[Header, ...]:
    return tuple(header_of(part10(each)) for each in ct_series(**{"slices": 3, "size": 16, **made}))  # type: ignore[arg-type]


SOURCES = headers()
REPORT = Report(
    RESULT,
    SOURCES,
    Software("cds-server", "0.1.0", "cds-server"),
    uid_of,
    contributions=(Value(Code("m.contribution.imaging", "Contribution of imaging (logit)"), number=-0.25, unit="1"),),
    parameters=("inference 1", "model digest 2"),
)


def again(report: Report, *earlier: bytes, **changes: object) -> bytes:
    return compose(
        replace(
            report,
            result=replace(report.result, **changes),  # type: ignore[arg-type]
            earlier=tuple(header_of(each) for each in earlier),
        )
    )


def bodies(file: bytes, kind: str) -> list[JSON]:
    part = Part("0" * 32, 0, "archive", "application/dicom", "2026-11-21T10:00:00.000000Z", file)
    return [each.body for each in read(part) if each.resource_type == kind and each.body is not None]


def test_it_is_a_new_object_of_the_study_and_of_its_patient() -> None:
    made = dcmread(BytesIO(compose(REPORT)))
    source = SOURCES[0]
    assert (made.SOPClassUID, made.Modality, made.file_meta.TransferSyntaxUID) == (SR, "SR", "1.2.840.10008.1.2.1")
    assert made.StudyInstanceUID == source.study_uid
    assert made.SeriesInstanceUID not in {each.series_uid for each in SOURCES}
    assert (made.PatientID, made.IssuerOfPatientID, str(made.PatientName)) == ("made-1", "MADE", "Made^Person")
    assert (made.PatientBirthDate, made.PatientSex) == ("19600102", "F")
    assert (made.AccessionNumber, made.StudyDate, made.StudyID) == ("A-1", "20260102", source.study.id)
    assert (made.VerificationFlag, made.CompletionFlag, made.PreliminaryFlag) == (
        *("UNVERIFIED", "COMPLETE", "PRELIMINARY"),
    )
    assert made.SeriesDescription == "CDS research: breast-cancer-prognosis"
    assert (made.ManufacturerModelName, made.SoftwareVersions) == ("cds-server", "0.1.0")
    named = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert {each.ReferencedSOPInstanceUID for each in named} == {each.sop_uid for each in SOURCES}
    assert "PixelData" not in made


def test_the_same_result_is_the_same_bytes_at_any_time() -> None:
    assert compose(REPORT) == compose(replace(REPORT, sources=headers()))


def test_its_times_are_in_the_zone_of_the_study_where_that_is_known() -> None:
    made = dcmread(BytesIO(compose(REPORT)))
    assert (made.ContentDate, str(made.ContentTime)) == ("20261121", "100000.123456")
    assert made.ObservationDateTime == "20261121100000+0000"
    assert "TimezoneOffsetFromUTC" not in made
    made = dcmread(BytesIO(compose(replace(REPORT, sources=tuple(each.but(offset="-0530") for each in SOURCES)))))
    assert (made.TimezoneOffsetFromUTC, made.ObservationDateTime) == ("-0530", "20261121043000-0530")
    assert made.ContentTime == "043000.123456"


def test_other_content_has_another_uid_in_the_same_series() -> None:
    first = compose(REPORT)
    second = again(REPORT, values=RESULT.values[:1])
    a, b = header_of(first), header_of(second)
    assert a.sop_uid != b.sop_uid
    assert (a.study_uid, a.series_uid) == (b.study_uid, b.series_uid)
    assert header_of(again(REPORT, number="another")).series_uid != a.series_uid


def test_a_correction_names_what_it_replaces_and_our_reader_takes_that_back() -> None:
    first = compose(REPORT)
    second = again(REPORT, first, values=RESULT.values[:1], status=Status.CORRECTED)
    (row,) = dcmread(BytesIO(second)).PredecessorDocumentsSequence
    assert row.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == header_of(first).sop_uid
    assert header_of(second).series_uid == header_of(first).series_uid
    part = Part("0" * 32, 0, "archive", "application/dicom", "2026-11-21T10:00:00.000000Z", second)
    (document,) = bodies(first, "DiagnosticReport")
    assert (document["id"], "void") in {(each.local_id, each.verb) for each in read(part)}


def test_a_withdrawal_is_a_key_object_selection_that_rejects_all_that_was_said() -> None:
    first = compose(REPORT)
    second = again(REPORT, first, status=Status.CORRECTED)
    last = header_of(again(REPORT, first, second, status=Status.WITHDRAWN))
    assert (last.sop_class, last.rejects) == (KEY_OBJECTS, True)
    assert {uid for each in last.references for uid in each.instances} == {
        header_of(first).sop_uid,
        header_of(second).sop_uid,
    }
    with pytest.raises(NotAllowed, match="nothing that could be withdrawn"):
        again(REPORT, status=Status.WITHDRAWN)


def test_the_library_that_writes_them_reads_the_measurements() -> None:
    content: Any = srread(BytesIO(compose(REPORT))).content
    result, contributions = content.get_image_measurement_groups()
    measured = {each.name.value: (each.value, each.unit.value) for each in result.get_measurements()}
    assert measured["breast-cancer-recurrence.probability"] == (0.123456789012345, "1")
    assert measured["breast-cancer-recurrence.interval.lower"][0] == 0.1
    assert measured["breast-cancer-recurrence.interval.upper"][0] == 0.2
    assert measured["x.survival.2"] == (81.5, "%")
    assert "x.undefined" not in measured
    assert result.tracking_identifier == "breast-cancer-prognosis result"
    assert result.tracking_uid == uid_of("tracking", NUMBER, "result")
    assert [each.value for each in contributions.get_measurements()] == [-0.25]


def test_our_own_reader_takes_the_numbers_with_their_units_and_the_algorithm() -> None:
    found = {each["code"]["coding"][0]["code"]: each for each in bodies(compose(REPORT), "Observation")}
    probability = found["breast-cancer-recurrence.probability"]
    assert probability["valueQuantity"]["code"] == "1"
    assert float(probability["valueQuantity"]["value"]) == pytest.approx(0.123456789012345, abs=1e-13)
    assert probability["device"]["display"] == "Recurrence of breast cancer 1.0.0"
    assert probability["status"] == "preliminary"
    assert found["x.survival.2"]["valueQuantity"]["code"] == "%"
    assert found["x.abstained"]["valueString"] == "no tumour size"
    assert found["x.undefined"]["valueString"] == "not a number"
    assert found["121106"]["valueString"] == "Risk of recurrence is 12 %."


def test_a_segment_is_what_was_measured_where_there_is_one(peer_data: Path) -> None:
    file = (peer_data / "dicom" / "highdicom" / "seg_image_ct_binary.dcm").read_bytes()
    segmentation = header_of(file)
    image = header_of((peer_data / "dicom" / "highdicom" / "ct_image.dcm").read_bytes())
    image = image.but(patient=segmentation.patient, study_uid=segmentation.study_uid)
    made = compose(replace(REPORT, sources=(image, segmentation), region=Region(segmentation, 1)))
    content: Any = srread(BytesIO(made)).content
    (group,) = content.get_volumetric_roi_measurement_groups()
    assert group.reference_type.value == "121191"
    (observation, *_) = [each for each in bodies(made, "Observation") if "valueQuantity" in each]
    assert [each["valueInteger"] for each in observation["extension"]] == [1]


def test_sources_of_two_patients_are_refused() -> None:
    with pytest.raises(NotAllowed, match="do not name one patient"):
        compose(replace(REPORT, sources=(*SOURCES, *headers(patient_id="made-2"))))
    with pytest.raises(NotAllowed, match="do not name one patient"):
        compose(replace(REPORT, sources=(*SOURCES, *headers(issuer="OTHER"))))
    with pytest.raises(NotAllowed, match="no source"):
        compose(replace(REPORT, sources=()))


def test_what_an_archive_holds_against_the_rules_comes_back_as_it_is() -> None:
    source = SOURCES[0]
    odd = source.but(
        sop_uid="1a2b3c.not.a.uid",
        patient=source.patient.but(name="Wächter^Ada=山田^花子", birth_date="1960.01.02", sex="X"),
        study=source.study.but(date="yesterday", time="late", accession="A" * 40),
    )
    made = dcmread(BytesIO(compose(replace(REPORT, sources=(odd,)))))
    assert str(made.PatientName) == "Wächter^Ada=山田^花子"
    assert (made.PatientBirthDate, made.StudyDate, made.PatientSex) == ("", "", "")
    assert made.SpecificCharacterSet == "ISO_IR 192"


def test_of_a_large_study_some_images_of_each_series_are_listed() -> None:
    many = [
        SOURCES[0].but(sop_uid=f"1.2.{series}.{number}", series_uid=f"1.2.{series}", number=number)
        for series in (1, 2)
        for number in range(1000)
    ]
    listed = listed_of(many)
    assert len(listed) == LISTED
    for series in ("1.2.1", "1.2.2"):
        numbers = [each.number for each in listed if each.series_uid == series]
        assert (numbers[0], numbers[-1], len(numbers)) == (0, 999, LISTED // 2)


def test_a_uid_is_a_valid_one_below_2_25() -> None:
    for number in range(50):
        made = uid_from(sha256(bytes([number])).digest())
        assert made.startswith("2.25.")
        assert made[5:].isdecimal()
        assert len(made) <= 44
