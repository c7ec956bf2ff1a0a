"""Orders, documents, vaccinations and appointments."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from adapters.hl7v2.feed import Feed
from adapters.readers.validation import validate
from tests.adapters.hl7v2_samples import HEADER, of_type, read

PID = "PID|1||4711^^^HOSP^MR||DOE^JANE||19700203|F"
TXA = (
    "TXA|1|DS^Discharge summary|TX||20260301080000+0100|20260301080000+0100|||9^Writer^Wil|||D1^HOSP|D0^HOSP||||LA||AV"
)


def document(event: str, *segments: str) -> dict[str, Any]:
    [made] = of_type(read(f"MDM^{event}", PID, *segments), "DocumentReference")
    assert validate(made) == []
    return made


def test_the_text_of_a_document_is_joined_and_its_files_stand_beside_it() -> None:
    made = document(
        "T02",
        TXA,
        "OBX|1|TX|X^text^L||first~second||||||F",
        "OBX|2|TX|X^text^L||third||||||F",
        "OBX|3|ED|X^pdf^L||^AP^PDF^Base64^SGVsbG8=||||||F",
    )
    text, pdf = (each["attachment"] for each in made["content"])
    assert base64.b64decode(text["data"]).decode() == "first\nsecond\nthird"
    assert pdf == {"contentType": "application/pdf", "data": "SGVsbG8="}
    assert (made["id"], made["status"], made["docStatus"]) == ("HOSP-D1", "current", "final")
    assert made["date"] == "2026-03-01T08:00:00+01:00"
    assert made["masterIdentifier"]["value"] == "D1"


@pytest.mark.parametrize(
    ("event", "relation", "status"),
    [
        ("T01", None, "current"),
        ("T06", "appends", "current"),
        ("T08", None, "current"),
        ("T10", "replaces", "current"),
        ("T11", None, "entered-in-error"),
    ],
)
def test_what_an_event_does_to_a_document(event: str, relation: str | None, status: str) -> None:
    made = document(event, TXA)
    assert made["status"] == status
    expected = [{"code": relation, "target": {"reference": "DocumentReference/HOSP-D0"}}] if relation else None
    assert made.get("relatesTo") == expected
    assert made["id"] == "HOSP-D1"


@pytest.mark.parametrize(
    ("sent", "status"), [("AV", "current"), ("OB", "superseded"), ("CA", "entered-in-error"), ("", "current")]
)
def test_the_availability_of_a_document(sent: str, status: str) -> None:
    assert document("T02", TXA.removesuffix("AV") + sent)["status"] == status


# ---- orders ----------------------------------------------------------------------------------------------------------

OBR = "OBR|1|P1^EHR||24317-0^CBC^LN|S|||||||||||9^Orderer^Ona"


@pytest.mark.parametrize(
    ("orc", "status"),
    [
        ("ORC|NW|P1^EHR", "active"),
        ("ORC|CA|P1^EHR", "active"),
        ("ORC|DC|P1^EHR", "active"),
        ("ORC|RP|P1^EHR", "active"),
        ("ORC|UC|P1^EHR", "active"),
        ("ORC|CR|P1^EHR", "revoked"),
        ("ORC|RU|P1^EHR|||SC", "revoked"),
        ("ORC|OC|P1^EHR", "revoked"),
        ("ORC|HD|P1^EHR", "on-hold"),
        ("ORC|SC|P1^EHR|||CM", "completed"),
        ("ORC|SC|P1^EHR|||IP", "active"),
        ("ORC|CA|P1^EHR|||CA", "revoked"),
        ("ORC|OC|P1^EHR|||IP", "revoked"),
        ("ORC|ZZ|P1^EHR", "unknown"),
    ],
)
@pytest.mark.parametrize("event", ["ORM^O01", "OML^O21", "OMG^O19", "OMI^O23"])
def test_the_status_of_an_order(event: str, orc: str, status: str) -> None:
    """A request to cancel is none yet: the order stands until the filler says that it was done."""
    [order] = of_type(read(event, PID, orc, OBR), "ServiceRequest")
    assert (order["id"], order["status"]) == ("EHR-P1", status)
    assert validate(order) == []


def test_an_order_by_its_rows() -> None:
    [order] = of_type(
        read(
            "OML^O21",
            PID,
            "ORC|NW|P1^EHR|F1^LAB|G1^EHR|||||20260301080000+0100",
            OBR,
            "TQ1|1||||||20260302080000+0100|20260302090000+0100|A",
            "NTE|1||fasting",
        ),
        "ServiceRequest",
    )
    assert [each["type"]["coding"][0]["code"] for each in order["identifier"]] == ["PLAC", "FILL"]
    assert order["requisition"]["value"] == "G1"
    assert (order["priority"], order["authoredOn"]) == ("asap", "2026-03-01T08:00:00+01:00")
    assert order["occurrencePeriod"] == {"start": "2026-03-02T08:00:00+01:00", "end": "2026-03-02T09:00:00+01:00"}
    assert order["requester"]["display"] == "Ona Orderer"
    assert order["note"] == [{"text": "fasting"}]
    assert "tag" not in order["meta"]


def test_orders_of_medicines_and_diets_are_no_service_requests() -> None:
    assert of_type(read("ORM^O01", PID, "ORC|NW|P1", "RXO|1^drug", "ORC|NW|P2", "ODS|D"), "ServiceRequest") == []


def test_one_number_for_several_services_names_each() -> None:
    second = OBR.replace("24317-0^CBC", "2345-7^Glucose")
    orders = of_type(read("OML^O21", PID, "ORC|NW|P1^EHR", OBR, second), "ServiceRequest")
    assert len({each["id"] for each in orders}) == 2
    assert orders[0]["id"] == "EHR-P1"


def test_a_specimen_of_an_order() -> None:
    spm = "SPM|1|S1&EHR^S2&LAB||BLD^Blood^HL70487||||LA|||||||||20260301070000+0100|20260301073000+0100||Y"
    [specimen] = of_type(read("OML^O21", PID, "ORC|NW|P1^EHR", OBR, spm), "Specimen")
    assert specimen["id"] == "LAB-S2"
    assert [each["value"] for each in specimen["identifier"]] == ["S1", "S2"]
    assert specimen["collection"]["collectedDateTime"] == "2026-03-01T07:00:00+01:00"
    assert (specimen["receivedTime"], specimen["status"]) == ("2026-03-01T07:30:00+01:00", "available")
    assert specimen["request"] == [{"reference": "ServiceRequest/EHR-P1"}]
    assert validate(specimen) == []


@pytest.mark.parametrize(
    ("event", "segment", "values"),
    [
        ("OMI^O23", "IPC|ACC1^RIS|RP1|1.2.840.99.1|SPS1", ["P1", "ACC1", "urn:oid:1.2.840.99.1"]),
        ("ORM^O01", "ZDS|1.2.840.99.1^RIS^Application^DICOM", ["P1", "urn:oid:1.2.840.99.1"]),
        ("ORM^O01", "ZDS|../../etc^RIS", ["P1"]),
    ],
)
def test_an_imaging_order_names_the_study_that_will_come(event: str, segment: str, values: list[str]) -> None:
    [order] = of_type(read(event, PID, "ORC|NW|P1^EHR", OBR, segment), "ServiceRequest")
    assert [each["value"] for each in order["identifier"]] == values
    assert validate(order) == []


# ---- vaccinations ----------------------------------------------------------------------------------------------------

RXA = "RXA|0|1|20260301080000+0100||88^influenza^CVX|0.5|mL^^UCUM||||||||LOT7|20270101|MSD^Merck^MVX|||{}|{}"


@pytest.mark.parametrize(
    ("completion", "action", "status"),
    [
        ("CP", "A", "completed"),
        ("RE", "A", "not-done"),
        ("NA", "A", "not-done"),
        ("", "", "completed"),
        ("CP", "D", "entered-in-error"),
    ],
)
def test_a_vaccination(completion: str, action: str, status: str) -> None:
    statements = read(
        "VXU^V04", PID, "ORC|RE||I1^CLINIC", RXA.format(completion, action), "RXR|IM^im^HL70162|LA^left arm^HL70163"
    )
    [vaccine] = of_type(statements, "Immunization")
    assert vaccine["status"] == status
    assert vaccine["vaccineCode"]["coding"][0]["system"] == "http://hl7.org/fhir/sid/cvx"
    assert (vaccine["lotNumber"], vaccine["expirationDate"]) == ("LOT7", "2027-01-01")
    assert vaccine["route"]["coding"][0]["code"] == "IM"
    assert validate(vaccine) == []


def test_a_deleted_vaccination_has_the_id_of_the_one_that_was_given() -> None:
    given, deleted = (
        of_type(read("VXU^V04", PID, "ORC|RE||I1^CLINIC", RXA.format("CP", action)), "Immunization")[0]
        for action in ("A", "D")
    )
    assert given["id"] == deleted["id"]


def test_no_vaccine_administered_is_none() -> None:
    statements = read(
        "VXU^V04", PID, "ORC|RE||9999^X", "RXA|0|1|20260301||998^none^CVX|999", "OBX|1|CE|59784-9^x^LN||1^y^L||||||F"
    )
    assert of_type(statements, "Immunization") == []
    assert len(of_type(statements, "Observation")) == 1


# ---- appointments ----------------------------------------------------------------------------------------------------

SCH = "SCH|A1^EHR|A2^SCHED||||CHECKUP^x^L|ROUTINE||30|MIN|^^30^20260401080000+0100^20260401083000+0100"


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ("S12", "booked"),
        ("S13", "booked"),
        ("S14", "booked"),
        ("S15", "cancelled"),
        ("S16", "cancelled"),
        ("S17", "entered-in-error"),
        ("S26", "noshow"),
    ],
)
def test_the_status_of_an_appointment(event: str, status: str) -> None:
    [made] = of_type(read(f"SIU^{event}", SCH, PID, "AIS|1||XRAY^X-ray^L", "AIP|1||9^Doctor^Dee"), "Appointment")
    assert (made["id"], made["status"]) == ("EHR-A1", status)
    assert (made["start"], made["end"]) == ("2026-04-01T08:00:00+01:00", "2026-04-01T08:30:00+01:00")
    assert [each["actor"].get("reference", each["actor"].get("display")) for each in made["participant"]] == [
        "Patient/HOSP-4711",
        "Dee Doctor",
    ]
    assert ("cancelationReason" in made) == (status in ("cancelled", "noshow"))
    assert validate(made) == []


def test_an_appointment_ends_after_its_stated_duration() -> None:
    [made] = of_type(read("SIU^S12", SCH.replace("^20260401083000+0100", ""), PID), "Appointment")
    assert made["end"] == "2026-04-01T08:30:00+01:00"


def test_an_appointment_without_a_zone_has_no_instants() -> None:
    header = HEADER.replace("+0100", "")
    [made] = of_type(read("SIU^S12", SCH.replace("+0100", ""), PID, header=header, feed=Feed()), "Appointment")
    assert "start" not in made
    assert "end" not in made
    assert validate(made) == []
