"""Reports, segmentations, structure sets and documents as statements; images state nothing by themselves."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from adapters.dicom.archive import Archive
from adapters.dicom.reports import MAX_OBSERVATIONS
from adapters.readers.dicom import read
from adapters.readers.facts import project
from adapters.readers.subjects import subject_of
from adapters.readers.validation import validate
from models.errors import BadInput, Malformed, TooLarge, Unreadable
from models.nouns import Fact, Part, Provenance, Statement, Subject, Verb
from tests.adapters.dicom_reports import (
    DIAMETER,
    FINDING,
    IMAGE,
    MASS,
    MM,
    coded,
    document,
    evidence,
    group,
    item,
    number,
    objects,
    rejection,
    report,
    said,
    segmentation,
    structure_set,
)
from tests.adapters.dicom_samples import file, package_files

NOW = "2026-03-02T12:00:00.000000Z"
PACS = Archive("pacs", zone="Europe/Berlin")


def statements(raw: bytes, archive: Archive = PACS) -> list[Statement]:
    found = read(Part("0" * 32, 0, "pacs", "application/dicom", NOW, raw), archive)
    for one in found:
        if one.body is not None:
            assert validate(one.body) == [], one.resource_type
            assert one.body["id"] == one.local_id
            assert subject_of(one.body) == Subject(local_id=found[0].local_id)
    return found


def bodies(raw: bytes, resource_type: str = "Observation") -> list[Any]:
    return [one.body for one in statements(raw) if one.resource_type == resource_type and one.verb is Verb.ASSERT]


def facts(found: Sequence[Any]) -> list[Fact]:
    source = Provenance("0" * 32, 0, "", "Observation/x", "dicom@1")
    return [one for body in found for one in project(body, record="r", source=source, known_from=NOW)]


def test_images_and_what_points_at_them_state_nothing() -> None:
    assert statements(file()) == []
    assert statements(rejection("1.2.3.1")) == []
    assert statements(file(PatientID="")) == []


def test_a_measurement_is_of_its_finding_at_its_site_by_its_algorithm() -> None:
    diameter, margin, whole = bodies(report(group()))
    assert diameter["code"]["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "103339001",
        "display": "Long Axis",
    }
    quantity = diameter["valueQuantity"]
    assert quantity["value"] == Decimal("21.50")
    assert (quantity["system"], quantity["code"]) == ("http://unitsofmeasure.org", "mm")
    assert str(quantity["value"]) == "21.50"
    assert diameter["status"] == "final"
    assert diameter["effectiveDateTime"] == "2026-03-01T09:15:00+01:00"
    assert diameter["issued"] == "2026-03-02T10:15:00+01:00"
    assert diameter["device"] == {"display": "Ruler 2.0"}
    assert diameter["performer"] == [{"type": "Practitioner", "display": "Roe Ann"}]
    assert diameter["focus"] == [{"reference": f"Observation/{whole['id']}"}] == margin["focus"]
    assert diameter["basedOn"][0]["identifier"]["value"] == "A1"
    assert [row["value"] for row in diameter["identifier"]] == ["urn:oid:1.2.77.1", "Lesion 1"]
    derived = diameter["derivedFrom"][0]
    assert derived["reference"] == f"ImagingStudy/{IMAGE[0]}"
    assert [each["valueUri"] for each in derived["extension"]] == [f"urn:oid:{uid}" for uid in IMAGE[1:]]
    assert margin["valueCodeableConcept"]["coding"][0]["code"] == "129736006"
    assert whole["valueCodeableConcept"]["coding"][0]["code"] == MASS[0]
    assert [row["reference"] for row in whole["hasMember"]] == [
        f"Observation/{row['id']}" for row in (diameter, margin)
    ]


def test_facts_keep_unit_site_side_method_and_focus() -> None:
    diameter, margin, whole = facts(bodies(report(group())))
    assert (diameter.code.token, diameter.number, diameter.unit) == ("http://snomed.info/sct|103339001", "21.5", "mm")
    assert diameter.original == "21.50 millimeter"
    assert [site.code for site in diameter.body_site] == ["76752008"]
    assert diameter.laterality == "left"
    assert [method.code for method in diameter.method] == ["56851009"]
    assert diameter.focus == margin.focus
    assert diameter.focus[0].startswith("Observation/")
    assert diameter.status == "final"
    assert [coding.code for coding in margin.coded] == ["129736006"]
    assert [coding.code for coding in whole.coded] == [MASS[0]]


@pytest.mark.parametrize(
    ("elements", "of_values", "of_report"),
    [
        ({}, "final", "final"),
        ({"VerificationFlag": "UNVERIFIED"}, "preliminary", "preliminary"),
        ({"VerificationFlag": None}, "preliminary", "preliminary"),
        ({"CompletionFlag": "PARTIAL"}, "preliminary", "partial"),
        ({"PreliminaryFlag": "PRELIMINARY"}, "preliminary", "preliminary"),
    ],
)
def test_what_nobody_verified_is_preliminary(elements: Any, of_values: str, of_report: str) -> None:
    raw = report(group(), **elements)
    assert {body["status"] for body in bodies(raw)} == {of_values}
    assert bodies(raw, "DiagnosticReport")[0]["status"] == of_report


@pytest.mark.parametrize("where", ["root", "group"])
def test_what_is_about_a_fetus_or_specimen_is_no_observation_of_the_patient(where: str) -> None:
    subject = coded(("121024", "DCM", "Subject Class"), ("121026", "DCM", "Fetus"), "HAS OBS CONTEXT")
    raw = report(group(), root=(subject,)) if where == "root" else report(group(subject))
    assert bodies(raw) == []
    text = base64.b64decode(bodies(raw, "DiagnosticReport")[0]["presentedForm"][0]["data"]).decode()
    assert "Long Axis: 21.50 mm" in text
    assert "Subject Class: Fetus" in text


def test_numbers_of_other_templates_stay_in_the_text() -> None:
    raw = report(group(), ConceptNameCodeSequence=_title("18748-4", "LN", "Diagnostic imaging report"))
    assert bodies(raw) == []
    (made,) = bodies(raw, "DiagnosticReport")
    assert made["code"]["coding"][0]["system"] == "http://loinc.org"
    assert "Long Axis: 21.50 mm" in base64.b64decode(made["presentedForm"][0]["data"]).decode()


def _title(*of: str) -> list[Dataset]:
    return [coded((of[0], of[1], of[2]), MASS).ConceptNameCodeSequence[0]]


def test_conclusions_are_the_conclusion() -> None:
    conclusions = item(
        "CONTAINER", ("121076", "DCM", "Conclusions"), "CONTAINS", said(("121077", "DCM", "Conclusion"), "BI-RADS 4")
    )
    (made,) = bodies(report(group(), root=(conclusions,)), "DiagnosticReport")
    assert made["conclusion"] == "BI-RADS 4"
    assert len(made["result"]) == 3


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        (("114000", "DCM", "Not a number"), "not-a-number"),
        (("114007", "DCM", "Measurement not attempted"), "not-performed"),
        (("114006", "DCM", "Measurement failure"), "error"),
        (None, "unknown"),
    ],
)
def test_a_measurement_without_a_number_says_why(why: Any, reason: str) -> None:
    found = [body for body in bodies(report(group(number(DIAMETER, None, MM, why=why)))) if "dataAbsentReason" in body]
    assert [body["dataAbsentReason"]["coding"][0]["code"] for body in found] == [reason]
    assert facts(found)[0].absent_reason == reason


def test_several_sites_are_words_for_their_codes_are_no_synonyms() -> None:
    second = coded(("363698007", "SCT", "Finding Site"), ("91470000", "SCT", "Axilla"), "HAS CONCEPT MOD")
    diameter = bodies(report(group(second)))[0]
    assert diameter["bodySite"] == {"text": "Breast; Axilla"}


def test_old_snomed_codes_are_the_same_concepts() -> None:
    old = item(
        "CONTAINER",
        ("125007", "DCM", "Measurement Group"),
        "CONTAINS",
        coded(("G-C0E3", "SRT", "Finding Site"), ("T-04000", "SRT", "Breast"), "HAS CONCEPT MOD"),
        number(("G-A185", "SRT", "Long Axis"), "5", MM),
    )
    diameter = bodies(report(old))[0]
    assert diameter["code"]["coding"][0]["code"] == "103339001"
    assert diameter["bodySite"]["coding"][0]["code"] == "76752008"


def test_a_later_version_in_the_same_study_takes_the_earlier_one_back() -> None:
    first = statements(report(group()))
    later = report(
        group(), SOPInstanceUID="1.2.3.89", PredecessorDocumentsSequence=[evidence("1.2.3", "1.2.3.0", "1.2.3.88")]
    )
    voided = {(one.resource_type, one.local_id) for one in statements(later) if one.verb is Verb.VOID}
    assert {(one.resource_type, one.local_id) for one in first if one.resource_type != "Patient"} <= voided
    prior = report(
        group(), SOPInstanceUID="1.2.3.89", PredecessorDocumentsSequence=[evidence("1.1", "1.1.0", "1.2.3.88")]
    )
    assert all(one.verb is Verb.ASSERT for one in statements(prior))


def test_more_observations_than_a_report_has_are_refused() -> None:
    many = [number(DIAMETER, "1", MM)] * MAX_OBSERVATIONS
    with pytest.raises(TooLarge, match=str(MAX_OBSERVATIONS)):
        statements(report(group(*many)))


def test_reports_of_others(peer_data: Path) -> None:
    found = statements((peer_data / "dicom" / "highdicom" / "sr_document_with_multiple_groups.dcm").read_bytes())
    assert [one.resource_type for one in found].count("Observation") == 10
    values = {
        fact.code.display: fact for fact in facts([one.body for one in found if one.resource_type == "Observation"])
    }
    mean = values["Intensity Histogram Mean"].code
    assert (mean.system, mean.code) == ("urn:cds-server:ibsi", "X6K6")
    assert values["Volume"].unit == "mm3"
    assert [site.display for site in values["Volume"].body_site] == ["Vertebra"]


def test_a_segment_is_what_it_shows_where_and_by_whom() -> None:
    (segment,) = bodies(segmentation())
    assert segment["valueCodeableConcept"]["coding"][0]["system"] == "http://snomed.info/sct"
    assert segment["valueCodeableConcept"]["text"] == "Neoplasm, Primary, tumour"
    assert segment["bodySite"]["coding"][0]["code"] == "76752008"
    assert segment["device"] == {"display": "Brush 1.1"}
    assert (segment["method"], segment["status"]) == ({"text": "semiautomatic"}, "final")
    assert segment["extension"][0]["valueInteger"] == 1
    assert segment["derivedFrom"][0]["reference"] == "ImagingStudy/1.2.3"
    assert facts([segment])[0].coded[0].display == "Neoplasm, Primary"


def test_a_region_of_a_structure_set() -> None:
    (region,) = bodies(structure_set())
    assert region["valueCodeableConcept"] == {"text": "GTV"}
    assert region["component"][0]["valueCodeableConcept"]["text"] == "GTV"
    assert region["derivedFrom"][0]["reference"] == f"ImagingStudy/{IMAGE[0]}"
    assert region["status"] == "final"
    assert bodies(structure_set(ApprovalStatus="UNAPPROVED"))[0]["status"] == "preliminary"
    assert bodies(structure_set(ApprovalStatus="REJECTED"))[0]["status"] == "cancelled"


def test_a_document_stands_in_its_document_reference_without_the_padding() -> None:
    (made,) = bodies(document(b"%PDF-1.7 odd"), "DocumentReference")
    attachment = made["content"][0]["attachment"]
    assert base64.b64decode(attachment["data"]) == b"%PDF-1.7 odd"
    assert (attachment["contentType"], attachment["size"], attachment["title"]) == (
        "application/pdf",
        12,
        "Mammography report",
    )
    assert (made["docStatus"], made["date"]) == ("final", "2026-03-02T10:15:00+01:00")
    assert made["context"]["related"][0]["reference"] == "ImagingStudy/1.2.3"
    odd = bodies(document(b"%PDF-1.7 odd!", EncapsulatedDocumentLength=None), "DocumentReference")[0]
    assert base64.b64decode(odd["content"][0]["attachment"]["data"]) == b"%PDF-1.7 odd!"
    strange = document(MIMETypeOfEncapsulatedDocument="text/html; <script>")
    assert (
        bodies(strange, "DocumentReference")[0]["content"][0]["attachment"]["contentType"] == "application/octet-stream"
    )


def test_an_object_of_no_patient_is_unreadable() -> None:
    for raw in (report(group(), PatientID=""), segmentation(PatientID=""), document(PatientID="")):
        with pytest.raises(Unreadable, match=r"\(0010,0020\)"):
            statements(raw)


def test_what_is_no_object_is_malformed() -> None:
    with pytest.raises(Malformed):
        statements(b"%PDF-1.7")


def test_reading_is_repeatable() -> None:
    for raw in objects():
        assert statements(raw) == statements(raw)


def test_everything_of_the_packages_is_read_or_refused() -> None:
    kinds: set[str] = set()
    for path in package_files():
        try:
            kinds |= {one.resource_type for one in statements(path.read_bytes())}
        except BadInput:
            continue
    assert kinds == {"Patient", "Observation"}  # the packages' reports have no patient's number


def test_the_finding_may_be_words() -> None:
    words = item("CONTAINER", ("125007", "DCM", "Measurement Group"), "CONTAINS", said(FINDING, "a shadow"))
    assert bodies(report(words))[0]["valueString"] == "a shadow"
