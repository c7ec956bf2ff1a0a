"""ORU: values by type, statuses, ids that corrections share, and facts that can be used."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from adapters.hl7v2.feed import Feed
from adapters.hl7v2.reading import WRONG_PATIENT
from adapters.readers import facts
from adapters.readers.subjects import marks_of
from adapters.readers.validation import validate
from models.nouns import Coding, Provenance
from tests.adapters.hl7v2_samples import of_type, read

PID = "PID|1||4711^^^HOSP^MR||DOE^JANE||19700203|F"
ORC = "ORC|RE|P1^EHR|F1^LAB"
OBR = "OBR|1|P1^EHR|F1^LAB|24317-0^CBC^LN|||20260301080000+0100|||||||||||||||20260301085900+0100||LAB|F"
UCUM = "http://unitsofmeasure.org"


def observe(obx: str, *more: str, feed: Feed | None = None) -> dict[str, Any]:
    [observation] = of_type(read("ORU^R01", PID, ORC, OBR, obx, *more, feed=feed or Feed()), "Observation")
    assert validate(observation) == []
    return observation


def value_of(observation: dict[str, Any]) -> tuple[str, Any]:
    [name] = [name for name in observation if name.startswith("value")]
    return name, observation[name]


QUANTITY = {"unit": "g/dL", "system": UCUM, "code": "g/dL"}


@pytest.mark.parametrize(
    ("kind", "sent", "name", "value"),
    [
        ("NM", "13.20", "valueQuantity", {"value": Decimal("13.20"), **QUANTITY}),
        ("NM", "-5", "valueQuantity", {"value": Decimal("-5"), **QUANTITY}),
        ("NM", "<5", "valueString", "<5 g/dL"),
        ("NM", "1,2", "valueString", "1,2 g/dL"),
        ("NM", "5%", "valueString", "5% g/dL"),
        ("NM", "hemolyzed", "valueString", "hemolyzed g/dL"),
        ("NM", "1e9", "valueString", "1e9 g/dL"),
        ("NM", "60~120", "valueString", "60\n120 g/dL"),
        ("NM", "1^2", "valueString", "1^2 g/dL"),
        ("SN", "<^5", "valueQuantity", {"value": Decimal("5"), "comparator": "<", **QUANTITY}),
        ("SN", "^5", "valueQuantity", {"value": Decimal("5"), **QUANTITY}),
        ("SN", "=^5", "valueQuantity", {"value": Decimal("5"), **QUANTITY}),
        (
            "SN",
            "^1^:^128",
            "valueRatio",
            {"numerator": {"value": Decimal("1")}, "denominator": {"value": Decimal("128")}},
        ),
        (
            "SN",
            "^10^-^20",
            "valueRange",
            {"low": {"value": Decimal("10"), **QUANTITY}, "high": {"value": Decimal("20"), **QUANTITY}},
        ),
        ("SN", "^2^+", "valueString", "^2^+ g/dL"),
        ("SN", "<>^5", "valueString", "<>^5 g/dL"),
        (
            "NR",
            "10^20",
            "valueRange",
            {"low": {"value": Decimal("10"), **QUANTITY}, "high": {"value": Decimal("20"), **QUANTITY}},
        ),
        ("ST", "positive ^ faint", "valueString", "positive ^ faint"),
        ("TX", "one~two", "valueString", "one\ntwo"),
        ("FT", "line 1\\.br\\line 2 \\T\\ more", "valueString", "line 1\nline 2 & more"),
        ("VR", "1^5", "valueString", "1^5 g/dL"),
        ("DT", "20260301", "valueDateTime", "2026-03-01"),
        ("TS", "202603010800+0100", "valueDateTime", "2026-03-01T08:00:00+01:00"),
        ("DTM", "2026", "valueDateTime", "2026"),
        ("DT", "soon", "valueString", "soon g/dL"),
        ("TM", "0815", "valueTime", "08:15:00"),
        ("TM", "0815+0100", "valueString", "0815+0100 g/dL"),
        ("DR", "20260301^20260302", "valuePeriod", {"start": "2026-03-01", "end": "2026-03-02"}),
        ("DR", "20260301^never", "valueString", "20260301^never g/dL"),
        ("XX", "what^ever", "valueString", "what^ever g/dL"),
        (
            "CE",
            "260385009^Negative^SCT^N^neg^L",
            "valueCodeableConcept",
            {
                "coding": [
                    {"system": "http://snomed.info/sct", "code": "260385009", "display": "Negative"},
                    {"system": "urn:id:hl7v2:L", "code": "N", "display": "neg"},
                ],
                "text": "Negative",
            },
        ),
        ("CWE", "^^^^^^^^a word", "valueCodeableConcept", {"text": "a word"}),
        ("IS", "Y", "valueCodeableConcept", {"coding": [{"code": "Y"}]}),
        ("CQ", "3^mL", "valueQuantity", {"value": Decimal("3"), "unit": "mL"}),
    ],
)
def test_a_value_by_its_type(kind: str, sent: str, name: str, value: Any) -> None:
    """Nothing is dropped, nothing guessed: what is not of its type is text, as it was sent, with its unit."""
    assert value_of(observe(f"OBX|1|{kind}|718-7^Hb^LN||{sent}|g/dL|||||F")) == (name, value)


def test_a_row_of_numbers_is_sampled_data_of_an_unknown_interval() -> None:
    name, value = value_of(observe("OBX|1|NA|X^wave^L||1^2^-3|mV|||||F"))
    assert (name, value["data"], value["dimensions"]) == ("valueSampledData", "1 2 -3", 1)
    assert "period" not in value


@pytest.mark.parametrize(
    ("kind", "sent", "attachment"),
    [
        ("ED", "^AP^PDF^Base64^SGVsbG8=", {"contentType": "application/pdf", "data": "SGVsbG8="}),
        ("ED", "^TEXT^PLAIN^A^Hello", {"contentType": "text/plain", "data": "SGVsbG8="}),
        ("ED", "^Image^JPEG^Hex^48656c6c6f", {"contentType": "image/jpeg", "data": "SGVsbG8="}),
        ("RP", "https://pacs.example/1^^image^PNG", {"contentType": "image/png", "url": "https://pacs.example/1"}),
    ],
)
def test_attachments(kind: str, sent: str, attachment: dict[str, str]) -> None:
    observation = observe(f"OBX|1|{kind}|X^doc^L||{sent}||||||F")
    assert observation["extension"][0]["valueAttachment"] == attachment
    assert "dataAbsentReason" not in observation


def test_an_attachment_that_is_no_base64_is_kept_as_it_came() -> None:
    assert value_of(observe("OBX|1|ED|X^doc^L||^AP^PDF^Base64^%%%||||||F")) == ("valueString", "^AP^PDF^Base64^%%%")


@pytest.mark.parametrize(
    ("sent", "status", "absent"),
    [
        ("F", "final", "unknown"),
        ("P", "preliminary", "unknown"),
        ("C", "corrected", "unknown"),
        ("A", "amended", "unknown"),
        ("D", "entered-in-error", "unknown"),
        ("W", "entered-in-error", "unknown"),
        ("X", "cancelled", "not-performed"),
        ("N", "registered", "not-asked"),
        ("I", "registered", "temp-unknown"),
        ("R", "preliminary", "unknown"),
        ("S", "preliminary", "unknown"),
        ("U", "final", "unknown"),
        ("", "unknown", "unknown"),
        ("?", "unknown", "unknown"),
    ],
)
def test_the_status_of_a_result(sent: str, status: str, absent: str) -> None:
    observation = observe(f"OBX|1|NM|718-7^Hb^LN||||||||{sent}")
    assert observation["status"] == status
    assert observation["dataAbsentReason"]["coding"][0]["code"] == absent
    assert (WRONG_PATIENT in observation["meta"]["tag"] if "tag" in observation["meta"] else False) == (sent == "W")


def test_what_describes_an_order_is_no_result() -> None:
    assert of_type(read("ORU^R01", PID, ORC, OBR, "OBX|1|ST|X^detail^L||x||||||O"), "Observation") == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [("F", "final"), ("P", "preliminary"), ("A", "partial"), ("X", "cancelled"), ("N", "registered"), ("", "unknown")],
)
def test_the_status_of_a_report(sent: str, status: str) -> None:
    [report] = of_type(read("ORU^R01", PID, ORC, OBR.removesuffix("F") + sent), "DiagnosticReport")
    assert report["status"] == status


def test_a_correction_has_the_id_of_what_it_corrects() -> None:
    """Also without its ORC, and beside other results: the key is what the laboratory named it by."""
    first = observe("OBX|1|NM|718-7^Hb^LN|1|13.2|g/dL|||||P")
    corrected = read(
        "ORU^R01", PID, OBR, "OBX|1|NM|789-8^RBC^LN|1|4.1|||||||F", "OBX|2|NM|718-7^Hb^LN|1|12.3|g/dL|||||C"
    )
    ids = {each["id"]: each["status"] for each in of_type(corrected, "Observation")}
    assert ids[first["id"]] == "corrected"
    assert observe("OBX|1|NM|718-7^Hb^LN|2|13.2|g/dL|||||P")["id"] != first["id"]
    assert observe("OBX|1|NM|718-7^Hb^LN|1|13.2|g/dL|||||P||||||||||I7^LAB")["id"] != first["id"]


def test_the_same_key_again_in_one_message_covers_up_nothing() -> None:
    pulse = "OBX|1|NM|8867-4^HR^LN||{}|/min|||||F"
    observations = of_type(read("ORU^R01", PID, ORC, OBR, pulse.format(60), pulse.format(61)), "Observation")
    assert len({each["id"] for each in observations}) == 2


def test_text_that_goes_on_in_the_next_segment_is_one_result() -> None:
    lines = [f"OBX|{at}|TX|X^report^L||line {at}||||||F" for at in (1, 2, 3)]
    assert value_of(observe(*lines)) == ("valueString", "line 1\nline 2\nline 3")


def test_times_ranges_flags_notes_and_sub_ids() -> None:
    observation = observe(
        "OBX|1|NM|718-7^Hb^LN|1.2|13.2|g/dL|12.0-16.0|L~A|||F|||20260301073000+0100||9^Lab^Ann",
        "NTE|1||repeated~and checked",
    )
    assert observation["effectiveDateTime"] == "2026-03-01T07:30:00+01:00"
    assert observation["issued"] == "2026-03-01T08:59:00+01:00"
    [reference] = observation["referenceRange"]
    assert (reference["text"], reference["low"]["value"], reference["high"]["value"]) == (
        "12.0-16.0",
        Decimal("12.0"),
        Decimal("16.0"),
    )
    flags = [each["coding"][0] for each in observation["interpretation"]]
    assert flags[0] == {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "L"}
    assert observation["note"] == [{"text": "repeated\nand checked"}]
    assert observation["extension"][0]["extension"][0]["valueString"] == "1.2"
    assert observation["performer"][0]["display"] == "Ann Lab"
    assert observation["basedOn"] == [{"reference": "ServiceRequest/EHR-P1"}]


@pytest.mark.parametrize(("sent", "side"), [("<5", "high"), (">=5.5", "low"), ("negative", None), ("9-1", None)])
def test_a_range_is_kept_as_text_whatever_it_is(sent: str, side: str | None) -> None:
    [reference] = observe(f"OBX|1|NM|718-7^Hb^LN||3|g/dL|{sent}||||F")["referenceRange"]
    assert reference["text"] == sent
    assert {name for name in reference if name in ("low", "high")} == ({side} if side else set())


def test_the_time_of_a_result_without_one_is_the_orders_or_the_specimens() -> None:
    assert observe("OBX|1|NM|718-7^Hb^LN||1|g/dL|||||F")["effectiveDateTime"] == "2026-03-01T08:00:00+01:00"
    bare = OBR.replace("20260301080000+0100", "", 1)
    spm = "SPM|1|^S1&LAB||BLD|||||||||||||20260301070000+0100"
    [observation] = of_type(read("ORU^R01", PID, ORC, bare, "OBX|1|NM|718-7^Hb^LN||1|g/dL|||||F", spm), "Observation")
    assert observation["effectiveDateTime"] == "2026-03-01T07:00:00+01:00"
    assert observation["specimen"] == {"reference": "Specimen/LAB-S1"}


def test_a_report_names_its_results_and_a_result_creates_its_order() -> None:
    statements = read(
        "ORU^R01", PID, ORC, OBR, "OBX|1|NM|718-7^Hb^LN||1|g/dL|||||F", "ORC|RE||F2^LAB", OBR.replace("1^", "2^")
    )
    first, second = of_type(statements, "DiagnosticReport")
    [observation] = of_type(statements, "Observation")
    assert first["result"] == [{"reference": f"Observation/{observation['id']}"}]
    assert "result" not in second
    order = of_type(statements, "ServiceRequest")[0]
    assert (order["id"], order["status"], order["intent"]) == ("EHR-P1", "completed", "order")
    assert "SUBSETTED" in [each["code"] for each in order["meta"]["tag"]]


class Local:
    """One local code of one laboratory."""

    def codings(self, system: str, code: str) -> list[Coding]:
        known = (system, code) == ("urn:id:lab:L", "HGB")
        return [Coding("http://loinc.org", "718-7", "Hemoglobin")] if known else []


def test_results_become_facts_by_the_feeds_code_maps_and_units() -> None:
    feed = Feed(namespace="lab", maps=Local())
    observation = observe("OBX|1|NM|HGB^Haemoglobin^L||132|g/L|||||F", feed=feed)
    assert [each["code"] for each in observation["code"]["coding"]] == ["718-7", "HGB"]
    source = Provenance("0" * 32, 0, "/OBX/0", f"Observation/{observation['id']}", "hl7v2@1")
    [fact] = facts.project(observation, record="r", source=source, known_from="2026-03-01T08:00:00.000000Z")
    assert fact.code == Coding("http://loinc.org", "718-7", "Hemoglobin")
    assert (fact.number is not None, fact.problem, fact.status, fact.original) == (True, None, "final", "132 g/L")


def test_a_unit_of_an_unnamed_system_is_the_feeds() -> None:
    assert "system" not in value_of(observe("OBX|1|NM|1^x^L||1|g/dL|||||F", feed=Feed(unit_system="")))[1]
    named = value_of(observe("OBX|1|NM|1^x^L||1|GDL^grams^L|||||F"))[1]
    assert (named["unit"], named["code"], named["system"]) == ("grams", "GDL", "urn:id:hl7v2:L")


def test_results_are_as_confidential_as_their_order() -> None:
    orc = "ORC|RE|P1^EHR|F1^LAB" + "|" * 25 + "R~PSY"
    statements = read("ORU^R01", PID, orc, OBR, "OBX|1|NM|718-7^Hb^LN||1|g/dL|||||F")
    for kind in ("ServiceRequest", "Observation", "DiagnosticReport"):
        [body] = of_type(statements, kind)
        assert marks_of(body).labels == ("R", "http://terminology.hl7.org/CodeSystem/v2-0177|PSY")
    assert marks_of(of_type(statements, "Patient")[0]).labels == ()
