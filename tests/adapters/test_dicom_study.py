"""ImagingStudy out of headers: counts, times, identity, contradictions; the same bytes in any order; valid R4."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from adapters.dicom.archive import Archive
from adapters.dicom.headers import Header, header_of
from adapters.dicom.study import bundle_of, imaging_study, study_id
from adapters.hl7v2.feed import Feed
from adapters.readers import hl7v2
from adapters.readers.fhir import read_any
from adapters.readers.subjects import identifiers_of, marks_of, subject_of
from adapters.readers.validation import validate
from models.canonical import spell
from models.errors import BadInput, Unreadable, WrongPatient
from models.nouns import Part
from tests.adapters.dicom_reports import rejection, segmentation
from tests.adapters.dicom_samples import code, file, package_files

PACS = Archive("pacs", zone="Europe/Berlin", wado_base="https://pacs.example/dicom-web")


def instance(number: int, series: int = 0, **elements: Any) -> Header:
    base = {
        "SOPInstanceUID": f"1.2.3.{series}.{number}",
        "SeriesInstanceUID": f"1.2.3.{series}",
        "SeriesNumber": series,
        "InstanceNumber": number,
        "BodyPartExamined": "BREAST",
        "ImageLaterality": "L",
    }
    return header_of(file(**{**base, **elements}))


def study(*headers: Header, archive: Archive = PACS) -> dict[str, Any]:
    return imaging_study(headers, archive)[-1]


def notes(made: dict[str, Any]) -> list[str]:
    return [each["text"] for each in made.get("note", [])]


def test_a_study_counts_what_is_held() -> None:
    headers = [instance(number, series) for series in (2, 1) for number in (3, 1, 2)]
    made = study(*headers, instance(1, 1))
    assert (made["numberOfSeries"], made["numberOfInstances"]) == (2, 6)
    assert [series["number"] for series in made["series"]] == [1, 2]
    assert [each["number"] for each in made["series"][0]["instance"]] == [1, 2, 3]
    assert made["id"] == study_id("1.2.3") == "1.2.3"
    assert made["identifier"] == [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}]
    assert made["modality"] == [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}]
    series = made["series"][0]
    assert series["bodySite"]["code"] == "76752008"
    assert series["laterality"]["code"] == "7771000"
    assert series["instance"][0]["sopClass"]["code"] == "urn:oid:1.2.840.10008.5.1.4.1.1.2"
    assert notes(made) == []


def test_the_same_set_gives_the_same_bytes_in_any_order() -> None:
    headers = [instance(number, series, PatientName=name) for number, series, name in _mixed()]
    expected = spell(imaging_study(headers, PACS))
    for seed in range(20):
        random.Random(seed).shuffle(headers)
        assert spell(imaging_study(headers, PACS)) == expected


def _mixed() -> list[tuple[int, int, str]]:
    return [(n, s, name) for (n, s), name in zip(itertools.product(range(4), range(2)), "ABABABAB", strict=True)]


@pytest.mark.parametrize(
    ("elements", "zone", "started"),
    [
        ({"TimezoneOffsetFromUTC": "-0500"}, "Europe/Berlin", "2026-03-01T09:15:00-05:00"),
        ({}, "Europe/Berlin", "2026-03-01T09:15:00+01:00"),
        ({}, None, "2026-03-01"),
        ({"StudyTime": None}, "Europe/Berlin", "2026-03-01"),
        ({"StudyTime": "0915"}, "Europe/Berlin", "2026-03-01T09:15:00+01:00"),
        ({"StudyDate": "20260329", "StudyTime": "023000"}, "Europe/Berlin", "2026-03-29"),
        ({"StudyDate": None}, "Europe/Berlin", None),
    ],
)
def test_started_has_a_time_only_where_a_zone_is_known(elements: Any, zone: str | None, started: str | None) -> None:
    assert study(instance(1, **elements), archive=Archive("pacs", zone=zone)).get("started") == started


def test_instances_of_two_patients_are_refused_without_naming_them() -> None:
    with pytest.raises(WrongPatient, match=r"more than one patient.*\(0010,0020\)") as refused:
        imaging_study([instance(1), instance(2, PatientID="4712")], PACS)
    assert "471" not in str(refused.value)
    with pytest.raises(WrongPatient):
        imaging_study([instance(1), instance(2, IssuerOfPatientID="OTHER")], PACS)


def test_other_refusals() -> None:
    with pytest.raises(Unreadable, match="without instances"):
        imaging_study([], PACS)
    with pytest.raises(Unreadable, match="more than one study"):
        imaging_study([instance(1), instance(2, StudyInstanceUID="1.2.4")], PACS)
    with pytest.raises(Unreadable, match=r"\(0010,0020\)"):
        imaging_study([instance(1, PatientID="")], PACS)


def test_contradictions_are_noted_and_the_majority_is_told() -> None:
    headers = [instance(1, StudyDescription="A"), instance(2, StudyDescription="B"), instance(3, StudyDescription="B")]
    made = study(*headers, instance(4, PatientBirthDate="19700101"), instance(5, PatientBirthDate="19700201"))
    assert made["description"] == "B"
    assert notes(made) == [
        "the birth date differs between instances (0010,0030)",
        "the description differs between instances (0008,1030)",
    ]


def test_an_instance_with_two_headers_counts_once_and_is_noted() -> None:
    made = study(instance(1), instance(1, StudyDescription="B"))
    assert made["numberOfInstances"] == 1
    assert "an instance is held with different headers (0008,0018)" in notes(made)


def test_what_a_rejection_note_takes_back_is_left_out() -> None:
    headers = [instance(number) for number in (1, 2, 3)]
    made = study(*headers, header_of(rejection("1.2.3.0.2")))
    assert made["numberOfInstances"] == 2
    assert [each["uid"] for each in made["series"][0]["instance"]] == ["1.2.3.0.1", "1.2.3.0.3"]
    assert notes(made) == ["2 instances were taken back by a rejection note, itself among them"]
    with pytest.raises(Unreadable, match="taken back"):
        study(headers[0], header_of(rejection("1.2.3.0.1")))
    picked = study(*headers, header_of(rejection("1.2.3.0.2", reason=("113000", "DCM", "Of Interest"))))
    assert picked["numberOfInstances"] == 4


def test_phantoms_and_synthetic_studies_are_marked_as_test() -> None:
    for resource in imaging_study([instance(1, QualityControlSubject="YES"), instance(2)], PACS):
        assert marks_of(resource).test or resource["resourceType"] == "Endpoint"
    assert marks_of(study(instance(1, SyntheticData="YES"))).test
    assert not marks_of(study(instance(1, SyntheticData="YES"), instance(2))).test
    assert not marks_of(study(instance(1))).test


def test_the_accession_number_names_the_order() -> None:
    made = study(instance(1, AccessionNumber="A1"), archive=Archive("pacs", accession_issuer="RIS"))
    accession = made["basedOn"][0]["identifier"]
    assert (accession["system"], accession["value"]) == ("urn:id:pacs:RIS", "A1")
    assert accession in made["identifier"]
    assert notes(study(instance(1, AccessionNumber="A1"), instance(2, AccessionNumber="A2"))) == [
        "the accession number differs between instances (0008,0050)"
    ]


@pytest.mark.parametrize(
    ("pid", "elements", "issuer"),
    [
        ("4711^^^HOSP^MR", {"IssuerOfPatientID": "HOSP"}, ""),
        ("4711^^^HOSP^MR", {}, "HOSP"),
        ("4711-B^^^HOSP^MR", {"PatientID": "4711-B", "IssuerOfPatientID": "HOSP"}, ""),
    ],
)
def test_an_assigners_patient_is_the_same_record_in_hl7_and_dicom(pid: str, elements: Any, issuer: str) -> None:
    """One local id and one identifier system, so that they join by the identity rules, never by name."""
    systems = {"HOSP": "https://hospital.example/mrn"}
    message = f"MSH|^~\\&|A|B|C|D|20260301||ADT^A08|1|P|2.5\rPID|1||{pid}||Doe^Jane\r"
    part = Part("0" * 32, 0, "pacs", hl7v2.MESSAGE, "2026-03-01T00:00:00.000000Z", message.encode())
    by_hl7 = next(s.body for s in hl7v2.read(part, Feed("pacs", systems=systems)) if s.resource_type == "Patient")
    patient = imaging_study([instance(1, **elements)], Archive("pacs", systems=systems, issuer=issuer))[0]
    assert by_hl7 is not None
    assert patient["id"] == by_hl7["id"]
    assert {row[:2] for row in identifiers_of(patient)} == {row[:2] for row in identifiers_of(by_hl7)}


def test_a_patient_is_named_as_the_archive_names_it() -> None:
    patient = imaging_study(
        [instance(1, PatientName="Yamada^Tarou=山田^太郎", SpecificCharacterSet="ISO_IR 192", PatientSex="M")], PACS
    )[0]
    assert patient["name"][0] == {"family": "Yamada", "given": ["Tarou"]}
    assert patient["name"][1]["family"] == "山田"
    assert patient["gender"] == "male"
    assert subject_of(study(instance(1))) == subject_of(patient)


def test_procedure_and_reason_are_coded_where_the_header_codes_them() -> None:
    made = study(
        instance(
            1,
            ProcedureCodeSequence=[code("24604-1", "LN", "MG Breast Diagnostic")],
            ReasonForTheRequestedProcedure="lump",
        )
    )
    assert made["procedureCode"][0]["coding"][0]["system"] == "http://loinc.org"
    assert made["reasonCode"] == [{"text": "lump"}]


def test_a_study_of_every_file_of_the_packages_is_valid() -> None:
    studies: dict[str, list[Header]] = {}
    for path in package_files():
        try:
            header = header_of(path.read_bytes())
        except BadInput:
            continue
        studies.setdefault(header.study_uid, []).append(header)
    made = 0
    for headers in studies.values():
        try:
            resources = imaging_study([*headers, *headers[:1]], PACS)
        except Unreadable:
            assert all(header.patient.id is None for header in headers)
            continue
        made += 1
        for resource in resources:
            assert validate(resource) == []
    assert made > 35


def test_the_bundle_is_read_by_the_reader_of_bundles() -> None:
    headers = [instance(1), header_of(segmentation(SeriesInstanceUID="1.2.3.66.0"))]
    bundle = bundle_of(imaging_study(headers, PACS))
    assert validate(bundle) == []
    found = read_any(bundle, "")
    assert [(one.resource_type, one.local_id) for one in found[::2]] == [("Patient", "4711"), ("ImagingStudy", "1.2.3")]
