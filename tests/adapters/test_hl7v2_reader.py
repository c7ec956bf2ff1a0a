"""Messages -> statements: whom, where, in which order, and with which marks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from adapters.hl7v2.feed import Feed
from adapters.readers import hl7v2
from adapters.readers.subjects import marks_of, stamp_of, subject_of
from adapters.readers.validation import validate
from models.errors import BadInput, Malformed, Unreadable
from models.nouns import Verb
from tests.adapters.hl7v2_samples import HEADER, of_type, part, read, samples

FEED = Feed(namespace="hosp", zone="Europe/Berlin", accept_claims=True)
PID = "PID|1||4711^^^HOSP^MR||DOE^JANE^Q||19700203|F"
PV1 = "PV1|1|I|W1^R2^B3|||W0^R1^B1|||||||||||||V9^^^HOSP"
ORDER = [
    *("Patient", "Encounter", "RelatedPerson", "Coverage", "Condition", "ServiceRequest", "Specimen"),
    *("Observation", "DiagnosticReport", "MessageHeader", "Provenance"),
]


def test_every_sample_is_read_to_valid_resources_or_refused_with_a_place(peer_data: Path) -> None:
    read_ones, refused = 0, {}
    for name, body in samples(peer_data):
        try:
            statements = hl7v2.read(part(body), FEED)
        except BadInput as error:
            refused[name] = error
            continue
        read_ones += 1
        assert statements, name
        for each in statements:
            assert each.verb is not Verb.ASSERT or (each.body is not None and validate(each.body) == []), name
    assert read_ones == 122
    assert {(error.what, error.where) for error in refused.values()} == {
        ("an event that is not mapped", "MSH-9"),
        ("encoding characters that cannot be told apart", "MSH-2"),
    }


def test_reading_again_says_the_same(peer_data: Path) -> None:
    for name, body in samples(peer_data):
        try:
            once = hl7v2.read(part(body), FEED)
        except BadInput:
            continue
        assert once == hl7v2.read(part(body), FEED), name


def test_spoilt_samples_are_read_to_valid_resources_or_refused(peer_data: Path) -> None:
    """Fields replaced, segments shuffled: nothing but BadInput comes out, and nothing invalid."""
    chance = random.Random(4)
    odd = [
        "",
        '""',
        "^",
        "~",
        "&",
        "\\",
        " a  b ",
        "20261340",
        "\\X00\\",
        "\\.br\\",
        "é",
        "<5",
        "1,2",
        "9" * 60,
        "D",
        "a^b&c",
    ]
    bodies = [body for _, body in samples(peer_data)]
    for _ in range(60):
        body = chance.choice(bodies).decode("utf-8-sig").replace("\r\n", "\r").replace("\n", "\r")
        rows = [row.split("|") for row in body.split("\r") if row]
        for _ in range(chance.randrange(1, 12)):
            row = chance.choice(rows[1:])
            at = chance.randrange(1, len(row) + 3)
            row += [""] * (at + 1 - len(row))
            row[at] = chance.choice(odd)
        rest = rows[1:]
        if chance.random() < 0.3:
            chance.shuffle(rest)
        spoilt = "\r".join("|".join(row) for row in [rows[0], *rest]).encode()
        try:
            statements = hl7v2.read(part(spoilt), FEED)
        except BadInput:
            continue
        assert all(validate(each.body) == [] for each in statements if each.body is not None)


def test_the_patient_comes_first_and_the_envelope_last() -> None:
    statements = read(
        "ORU^R01^ORU_R01",
        PID,
        "NK1|1|DOE^JOHN|SPO",
        PV1,
        "ORC|RE|P1|F1",
        "OBR|1|P1|F1|24317-0^CBC^LN|||20260301080000|||||||||||||||||||F",
        "OBX|1|NM|718-7^Hb^LN||13.2|g/dL|||||F",
        "SPM|1|^S1&LAB||BLD",
    )
    kinds = [each.resource_type for each in statements]
    assert kinds == sorted(kinds, key=ORDER.index)
    assert [each.pointer for each in statements if each.resource_type == "Observation"] == ["/OBX/0"]
    focus = of_type(statements, "MessageHeader")[0]["focus"]
    assert [each["reference"].split("/")[0] for each in focus] == kinds[:-2]


def test_a_patient_by_the_rows_of_pid() -> None:
    pid = "|".join(
        (
            "PID|1|OLD1|123^^^CARD^PI~4711^^^HOSP&1.2.3&ISO^MR|",
            'DOE&VAN^JANE^Q^JR^DR^PHD^L~ROE^^^^^^M|SMITH|197002030415+0100|F|""|',
            "1 Main St^Apt 2^Ann Arbor^MI^48103^USA^H||^PRN^PH^^1^734^5550100||en|M||ACC9|||||",
            "Y|2||||202601010000+0100|Y",
        )
    )
    [patient] = of_type(read("ADT^A08", pid, PV1, feed=FEED), "Patient")
    assert patient["id"] == "HOSP-4711"
    systems = {each["value"]: each["system"] for each in patient["identifier"]}
    assert systems == {"123": "urn:id:hosp:CARD", "4711": "urn:oid:1.2.3", "OLD1": "urn:id:hosp:PID-2"}
    assert patient["name"][0]["family"] == "DOE"
    assert patient["name"][0]["use"] == "official"
    assert patient["name"][1] == {"family": "ROE", "use": "maiden"}
    assert patient["birthDate"] == "1970-02-03"
    assert patient["_birthDate"]["extension"][0]["valueDateTime"] == "1970-02-03T04:15:00+01:00"
    assert patient["gender"] == "female"
    assert patient["address"][0]["line"] == ["1 Main St", "Apt 2"]
    assert patient["telecom"][0] == {"system": "phone", "value": "+1 (734) 5550100", "use": "home"}
    assert patient["multipleBirthInteger"] == 2
    assert "multipleBirthBoolean" not in patient
    assert patient["deceasedDateTime"] == "2026-01-01T00:00:00+01:00"
    assert "deceasedBoolean" not in patient


def test_a_null_deletes_and_nothing_of_it_is_taken_for_a_value() -> None:
    [patient] = of_type(read("ADT^A08", 'PID|1||4711^^^HOSP^MR||DOE^""||""|""', PV1), "Patient")
    assert "birthDate" not in patient
    assert "gender" not in patient
    assert patient["name"] == [{"family": "DOE"}]


def test_a_date_that_is_none_is_said_to_be_an_error() -> None:
    [patient] = of_type(read("ADT^A08", "PID|1||4711^^^HOSP^MR||DOE||19701340|F", PV1), "Patient")
    assert "birthDate" not in patient
    assert patient["_birthDate"]["extension"][0]["valueCode"] == "error"
    assert validate(patient) == []


ADMIT = "PV1|1|I|W1^R2^B3|||W0^R1^B1|||||||||||||V9^^^HOSP|||||||||||||||||||||||||20260201080000+0100"


@pytest.mark.parametrize(
    ("event", "pv1", "status"),
    [
        ("A01", ADMIT, "in-progress"),
        ("A02", ADMIT, "in-progress"),
        ("A05", ADMIT, "planned"),
        ("A08", ADMIT + "|20260210120000+0100", "finished"),
        ("A11", ADMIT, "cancelled"),
        ("A21", ADMIT, "onleave"),
        ("A23", ADMIT, "entered-in-error"),
        ("A38", ADMIT, "cancelled"),
        ("A14", ADMIT, "planned"),
        ("A04", ADMIT.replace("|I|", "|N|"), "unknown"),
    ],
)
def test_the_status_of_a_visit(event: str, pv1: str, status: str) -> None:
    """A cancel of a visit that nobody announced states it, cancelled: it is remembered."""
    [encounter] = of_type(read(f"ADT^{event}", "EVN||20260201080100+0100", PID, pv1), "Encounter")
    assert (encounter["id"], encounter["status"]) == ("HOSP-V9", status)
    assert encounter["period"]["start"] == "2026-02-01T08:00:00+01:00"


def test_a_discharge_ends_the_visit_and_its_cancel_opens_it_again() -> None:
    evn = "EVN||20260210120000+0100"
    [discharged] = of_type(read("ADT^A03", evn, PID, ADMIT), "Encounter")
    assert discharged["status"] == "finished"
    assert discharged["period"]["end"] == "2026-02-10T12:00:00+01:00"
    [again] = of_type(read("ADT^A13", evn, PID, ADMIT + "|20260210120000+0100"), "Encounter")
    assert again["status"] == "in-progress"
    assert "end" not in again["period"]
    assert again["id"] == discharged["id"]


def test_a_cancelled_transfer_restores_the_place_before() -> None:
    [moved] = of_type(read("ADT^A02", PID, ADMIT), "Encounter")
    assert [(each["status"], each["location"]["display"]) for each in moved["location"]] == [
        ("active", "W1, R2, B3"),
        ("completed", "W0, R1, B1"),
    ]
    [back] = of_type(read("ADT^A12", PID, ADMIT), "Encounter")
    assert [each["location"]["display"] for each in back["location"]] == ["W0, R1, B1"]


def test_a_visit_without_a_number_is_known_by_account_or_admission() -> None:
    bare = "PV1|1|I|W1"
    by_account = of_type(read("ADT^A01", PID + "||||||||||ACC9^^^HOSP", bare), "Encounter")
    by_admission = [
        of_type(read(f"ADT^{event}", PID, bare + "|" * 41 + "20260201"), "Encounter") for event in ("A01", "A03")
    ]
    assert by_account[0]["id"] != by_admission[0][0]["id"]
    assert by_admission[0][0]["id"] == by_admission[1][0]["id"]
    assert of_type(read("ORU^R01", PID, bare), "Encounter") == []


def test_whole_words_and_mentions_are_told_apart() -> None:
    """A result's PID must not take away what ADT said of the person (subjects.stamp_of, the reducer's ranks)."""
    adt = of_type(read("ADT^A08", PID, PV1), "Patient")[0]
    oru = of_type(read("ORU^R01", PID, PV1), "Patient")[0]
    assert stamp_of(adt) == ("2026-03-01T08:00:00.000000Z", False)
    assert stamp_of(oru) == ("2026-03-01T08:00:00.000000Z", True)


@pytest.mark.parametrize(("processing", "test"), [("P", False), ("T", True), ("D", True), ("", False)])
def test_training_and_debug_messages_are_marked_in_every_resource(processing: str, test: bool) -> None:
    header = HEADER.replace("|P|", f"|{processing}|")
    bodies = [each.body for each in read("ADT^A01", PID, PV1, header=header) if each.body is not None]
    assert {marks_of(body).test for body in bodies} == {test}


def test_times_without_a_zone_take_the_feeds_or_are_dates() -> None:
    header = HEADER.replace("+0100", "")
    pv1 = ADMIT.replace("+0100", "")
    starts = [
        of_type(read("ADT^A01", PID, pv1, header=header, feed=feed), "Encounter")[0]["period"]["start"]
        for feed in (Feed(), Feed(zone="America/New_York"))
    ]
    assert starts == ["2026-02-01", "2026-02-01T08:00:00-05:00"]


def test_every_resource_is_about_the_patient_of_its_own_section() -> None:
    second = PID.replace("4711", "4712")
    statements = read(
        "ORU^R01", PID, "OBX|1|NM|8867-4^HR^LN||60|/min|||||F", second, "OBX|1|NM|8867-4^HR^LN||61|/min|||||F"
    )
    subjects = [subject_of(body) for body in of_type(statements, "Observation")]
    assert [each.local_id for each in subjects if each] == ["HOSP-4711", "HOSP-4712"]


def test_allergies_diagnoses_and_procedures() -> None:
    statements = read(
        "ADT^A01",
        PID,
        PV1,
        "AL1|1|DA|7980^Penicillin^RXNORM|SV|Hives~Wheeze|20200101",
        "DG1|1|I10|C50.9^Breast cancer^I10|Breast cancer, left|20260101|F||||||||||||||D7^HOSP",
        "DG1|2||E11.9^Diabetes^I10|||A||||||||||||||D8^HOSP|D",
        "PR1|1||392021009^Lumpectomy^SCT||20260115090000+0100",
    )
    [allergy] = of_type(statements, "AllergyIntolerance")
    assert (allergy["category"], allergy["criticality"]) == (["medication"], "high")
    assert [each["severity"] for each in allergy["reaction"]] == ["severe", "severe"]
    cancer, mistaken = of_type(statements, "Condition")
    assert cancer["id"] == "HOSP-D7"
    assert cancer["code"]["coding"][0]["system"] == "http://hl7.org/fhir/sid/icd-10"
    assert cancer["code"]["coding"][0]["code"] == "C50.9"
    assert cancer["code"]["text"] == "Breast cancer, left"
    assert mistaken["verificationStatus"]["coding"][0]["code"] == "entered-in-error"
    [encounter] = of_type(statements, "Encounter")
    assert [each["condition"]["reference"] for each in encounter["diagnosis"]] == ["Condition/HOSP-D7"]
    assert encounter["diagnosis"][0]["use"]["coding"][0]["code"] == "DD"
    [procedure] = of_type(statements, "Procedure")
    assert (procedure["status"], procedure["performedDateTime"]) == ("completed", "2026-01-15T09:00:00+01:00")


def test_numbers_without_an_assigner_are_the_patients_own() -> None:
    """`1` of one patient's diagnosis is not `1` of another's."""
    dg1 = "DG1|1||E11.9^Diabetes^I10|||A||||||||||||||1"
    one, other = (of_type(read("ADT^A01", pid, PV1, dg1), "Condition")[0] for pid in (PID, PID.replace("4711", "4712")))
    assert one["id"] != other["id"]


def test_claims_say_nothing_unless_the_feed_accepts_them() -> None:
    segments = (PID, PV1, "FT1|1|||20260101|20260101|CG|1", "DG1|1||C50.9^Breast cancer^I10|||F")
    assert read("DFT^P03", *segments) == []
    [condition] = of_type(read("DFT^P03", *segments, feed=FEED), "Condition")
    assert "HPAYMT" in [each["code"] for each in condition["meta"]["tag"]]


@pytest.mark.parametrize(
    ("segments", "where"),
    [(("PV1|1|I",), "PID"), (("PID|1||||DOE",), "PID-3"), ((PID, "DSC|1"), "DSC")],
)
def test_what_cannot_be_read_says_where(segments: tuple[str, ...], where: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read("ADT^A01", *segments)
    assert caught.value.where == where
    assert "DOE" not in str(caught.value)


def test_no_message_is_malformed() -> None:
    with pytest.raises(Malformed):
        hl7v2.read(part(b"not a message"))
