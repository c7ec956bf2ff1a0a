"""What HL7 v2 says of fields, and where a message departs from it; hl7apy's own tables are the other opinion."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import hl7apy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.message import VERSIONS, parse
from adapters.hl7v2.structure import (
    GONE,
    Finding,
    components,
    conformance,
    field,
    field_title,
    fields,
    segment_title,
    structure_of,
)
from models.errors import BadInput, Malformed
from tests.adapters.hl7v2_samples import message, samples

FIXTURES = Path(__file__).parents[2] / "fixtures/hl7"
HEADER = "MSH|^~\\&|LAB|HOSP|CDS|X|20260301090000+0100||{}|M1|P|2.5.1"
PID = "PID|1||4711^^^HOSP^MR||DOE^JANE||19700203|F"
OBR = "OBR|1|1^P|2^F|24323-8^Panel^LN"
OBX = "OBX|{}|NM|2160-0^Creatinine^LN||1.1|mg/dL|||||F"


def rules(*segments: str, event: str = "ORU^R01^ORU_R01") -> list[tuple[str, str]]:
    return [tuple(each) for each in conformance(message(event, *segments))]


@pytest.mark.parametrize(
    ("segment", "number", "version", "title"),
    [
        ("PID", 3, "2.5.1", "Patient Identifier List"),
        ("PID", 1, "2.5.1", "Set ID - PID"),
        ("PID", 4, "2.5.1", "Alternate Patient ID - PID"),
        ("MSH", 7, "2.5.1", "Date/Time of Message"),
        ("IN1", 18, "2.5.1", "Insured's Date of Birth"),
        ("OBX", 5, "2.1", "Observation Results"),
        ("PID", 3, "2.9", "Patient Identifier List"),
        ("PID", 99, "2.5.1", ""),
        ("ZPI", 1, "2.5.1", ""),
    ],
)
def test_a_field_has_the_name_of_the_standard(segment: str, number: int, version: str, title: str) -> None:
    assert field_title(segment, number, version) == title


def test_withdrawn_fields_are_named_as_the_last_version_had_them() -> None:
    """hl7apy's 2.8 leaves PID-28 out and calls PID-4 by the name of PID-3."""
    for number, title in ((4, "Alternate Patient ID - PID"), (28, "Nationality"), (29, "Patient Death Date and Time")):
        for version in ("2.5.1", "2.7", "2.8", "2.8.2"):
            assert field_title("PID", number, version) == title
    withdrawn = field("PID", 4, "2.8")
    assert withdrawn is not None
    assert (withdrawn.withdrawn, withdrawn.required, withdrawn.datatype) == (True, False, "CX")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_stands_under_its_own_number(version: str) -> None:
    library = hl7apy.load_library(version)
    for name in library.SEGMENTS:
        of = fields(name, version)
        assert GONE not in of
        for number, each in enumerate(of, 1):
            own = library.FIELDS.get(f"{name}_{number}")
            assert own is None or each.withdrawn or each.datatype == (own[2] or ""), (name, number)
    assert [each.title for each in components("CX", "2.5.1")][3:5] == ["Assigning Authority", "Identifier Type Code"]
    assert components("ST", version) == ()


def test_segments_have_titles_that_the_tables_lack() -> None:
    titled = {name for name in hl7apy.load_library("2.5.1").SEGMENTS if segment_title(name)}
    assert {"MSH", "PID", "OBX", "SPM", "TQ1", "MRG", "NK1", "SCH", "RXA", "TXA"} <= titled
    assert segment_title("ZPI") == ""


def test_a_message_that_keeps_to_its_version_has_no_finding() -> None:
    assert rules(PID, OBR, OBX.format(1), OBX.format(2), "ZXX|anything|^^^") == []
    for path in FIXTURES.iterdir():
        assert conformance(path.read_bytes()) == (), path.name


@pytest.mark.parametrize(
    ("segments", "finding"),
    [
        ((PID.replace("4711^^^HOSP^MR", ""), OBR), ("PID-3", "required, and empty")),
        ((PID + "~M", OBR), ("PID-8", "does not repeat")),
        ((PID.replace("19700203", "03.02.1970"), OBR), ("PID-7.1", "not a date and time")),
        ((PID, OBR, OBX.format("one")), ("OBX-1", "not a sequence number")),
        ((PID, OBR, OBX.format(1).replace("1.1", "1,1")), ("OBX-5", "not a number")),
        ((PID, OBR, OBX.format(1)[:-1] + "?"), ("OBX-11", "not a code of table 0085")),
        ((PID, OBR + "^4^5^6^7", OBX.format(1)), ("OBR-4.7", "components after the last one of type CE")),
        ((PID, OBR, OBX.format(1) + "|" * 20 + "x"), ("OBX-26", "fields after the last one of version 2.5.1")),
        ((PID, OBR, "QQQ|1"), ("QQQ", "a segment that version 2.5.1 does not have")),
        ((PID, OBR, "SCH|1"), ("SCH", "a segment that ORU_R01 does not have")),
        ((OBR, PID, OBX.format(1)), ("OBX", "not at this place in ORU_R01")),
        ((PID, OBX.format(1)), ("OBR", "required in ORU_R01, and missing")),
    ],
)
def test_each_departure_is_told_with_its_place(segments: tuple[str, ...], finding: tuple[str, str]) -> None:
    assert finding in rules(*segments)


def test_a_null_is_no_value_to_check_and_user_tables_are_suggestions() -> None:
    assert rules(PID.replace("19700203|F", '""|X'), OBR, OBX.format(1)) == []


@pytest.mark.parametrize(
    ("event", "structure"),
    [
        ("ADT^A08^ADT_A01", "ADT_A01"),
        ("ADT^A08", "ADT_A01"),
        ("ADT^A40", "ADT_A39"),
        ("ADT^A47", "ADT_A30"),
        ("SIU^S15", "SIU_S12"),
        ("MDM^T04", "MDM_T02"),
        ("MDM^T03", "MDM_T01"),
        ("ORU^R01", "ORU_R01"),
        ("ZZZ^Z01", None),
    ],
)
def test_events_share_structures(event: str, structure: str | None) -> None:
    assert structure_of(parse(message(event))) == structure


def test_the_report_ends_when_its_time_is_over_or_it_is_long() -> None:
    ticks = count()
    many = message("ORU^R01", *[PID] * 400)
    late = conformance(many, 3.0, clock=lambda: next(ticks))
    assert late[-1] == Finding("the message", "not checked to the end: the time was over")
    assert len(late) < 10
    ticks = count()
    fine = conformance(message("ORU^R01^ORU_R01", PID, OBR, *[OBX.format(1)] * 400), 30.0, clock=lambda: next(ticks))
    assert fine[-1].rule == late[-1].rule, "nothing to find takes its time too"
    long = conformance(message("ORU^R01", PID, OBR, *[OBX.format("x")] * 300))
    assert len(long) == 201
    assert "more than 200 findings" in long[-1].rule


def test_samples_are_checked_whole_and_no_finding_holds_a_value(peer_data: Path) -> None:
    """Nothing but our words, places and names of the standard: digits and capitals of a message never come through."""
    known = {"required", "withdrawn", "not", "does", "more", "components", "fields", "a", "no"}
    checked = 0
    for name, body in samples(peer_data):
        try:
            found = conformance(body)
        except BadInput:
            continue
        checked += 1
        assert {each.rule.split(" ")[0].strip(",") for each in found} <= known, name
        assert len(found) <= 201
    assert checked > 135


def test_it_raises_as_the_parser_does() -> None:
    with pytest.raises(Malformed):
        conformance(b"PID|1")


@given(
    st.lists(st.sampled_from([PID, OBR, OBX.format(1), "NTE|1||x", "ORC|RE", "SPM|1", "ZZ1|a", "PV1|1|I"]), max_size=60)
)
def test_any_order_is_judged_and_judged_alike_twice(segments: list[str]) -> None:
    found = rules(*segments)
    assert found == rules(*segments)
    moved = [place for place, rule in found if "not at this place" in rule]
    assert len(moved) == len(set(moved))


@given(st.binary(max_size=400), st.integers(0, 2000), st.integers(0, 60))
def test_whatever_stands_in_a_message_there_is_a_report_or_a_reason(junk: bytes, at: int, cut: int) -> None:
    body = bytearray((FIXTURES / "nils-d.adt-a01.hl7").read_bytes())
    body[at : at + cut] = junk
    try:
        found = conformance(bytes(body))
    except BadInput:
        return
    assert all(each.place and each.rule for each in found)
