"""What we send, held against hl7apy's tables and read back by our own reader."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.composed import (
    Assigner,
    Code,
    Envelope,
    Identifier,
    Result,
    Status,
    Value,
    Whom,
    compose,
    number,
)
from adapters.hl7v2.feed import Feed
from adapters.hl7v2.message import parse
from adapters.hl7v2.structure import conformance
from adapters.readers import hl7v2
from models.nouns import Part

AT = datetime(2026, 11, 20, 10, 0, 5, tzinfo=UTC)
ENVELOPE = Envelope(("CDS", "H"), ("HIS", "H"))
WHOM = Whom((Identifier("77", Assigner("H"), "MR"),), "WARD", ("WILLA", "B"), "1950-03-01", "F")
POINTS = Value(Code("news2.points", "points"), number=16.0, unit="{score}")


def result(*values: Value, status: Status = Status.FINAL, sentence: str = "NEWS2 is 16") -> Result:
    return Result(
        "5a0c0de0-0000-4000-8000-000000000001",
        Code("deterioration-news2", "Acute deterioration (NEWS2)"),
        Code("news2@2017.1", "NEWS2"),
        AT,
        AT,
        values or (POINTS,),
        (sentence,),
        status,
    )


def composed(made: Result | None = None, whom: Whom = WHOM) -> bytes:
    return compose(ENVELOPE, "0123456789ABCDEF0123", AT, whom, made or result())


VALUES = (
    POINTS,
    Value(Code("khorana.probability", "Probability"), number=0.066, unit="1"),
    Value(Code("x.interval", "Interval"), between=(0.1, 0.25), unit="1"),
    Value(Code("predict-breast.survival_s", "survival s"), number=97.25, unit="%", sub="5"),
    Value(Code("x.abstained", "Why there is no score"), text="systolic pressure is missing"),
)


@pytest.mark.parametrize("status", list(Status))
def test_it_keeps_to_its_version(status: Status) -> None:
    assert conformance(composed(result(*VALUES, status=status))) == ()


def test_a_patient_of_whom_only_a_number_is_known() -> None:
    raw = composed(whom=Whom((Identifier("9", Assigner("", "1.2.3", "ISO")), Identifier("8", Assigner("H"), "PI"))))
    assert conformance(raw) == ()
    pid = parse(raw)["PID"]
    assert (pid.raw(3), pid.raw(5), pid.raw(7)) == ("9^^^&1.2.3&ISO~8^^^H^PI", "^^^^^^U", "")


def test_our_own_reader_reads_what_was_meant() -> None:
    part = Part("0" * 32, 0, "his", hl7v2.MESSAGE, "2026-11-20T10:00:05.000000Z", composed(result(*VALUES)))
    stated = [(each.resource_type, each.body) for each in hl7v2.read(part, Feed("his")) if each.body is not None]
    (patient,) = (body for kind, body in stated if kind == "Patient")
    assert (patient["birthDate"], patient["gender"]) == ("1950-03-01", "female")
    assert patient["identifier"][0]["value"] == "77"
    observed = {body["code"]["coding"][0]["code"]: body for kind, body in stated if kind == "Observation"}
    points = observed["news2.points"]
    assert (points["valueQuantity"]["value"], points["valueQuantity"]["code"]) == (16, "{score}")
    assert (points["status"], points["effectiveDateTime"]) == ("final", "2026-11-20T10:00:05+00:00")
    assert points["method"]["coding"][0]["code"] == "news2@2017.1"
    assert float(observed["x.interval"]["valueRange"]["high"]["value"]) == 0.25
    assert observed["x.abstained"]["valueString"] == "systolic pressure is missing"
    assert observed["predict-breast.survival_s"]["valueQuantity"]["unit"] == "%"


def test_a_correction_replaces_what_our_reader_read_before() -> None:
    def ids(status: Status) -> dict[str, str]:
        raw = composed(result(status=status))
        part = Part("0" * 32, 0, "his", hl7v2.MESSAGE, "2026-11-20T10:00:05.000000Z", raw)
        found = [each for each in hl7v2.read(part, Feed("his")) if each.resource_type == "Observation"]
        return {each.local_id: str((each.body or {}).get("status")) for each in found}

    final, corrected, withdrawn = map(ids, (Status.FINAL, Status.CORRECTED, Status.WITHDRAWN))
    assert list(final) == list(corrected) == list(withdrawn)
    assert (*final.values(), *corrected.values(), *withdrawn.values()) == ("final", "corrected", "entered-in-error")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        *((16.0, "16"), (0.0, "0"), (-3.5, "-3.5"), (0.1, "0.1"), (1 / 3, "0.333333333")),
        *((1e-7, "0.0000001"), (1e6, "1000000"), (97.25, "97.25"), (100.0, "100")),
    ],
)
def test_numbers_have_no_exponent(value: float, written: str) -> None:
    assert number(value) == written


ANYTHING = st.text(st.characters(codec=None), max_size=40)


@given(ANYTHING, ANYTHING, ANYTHING)
def test_whatever_a_name_or_a_sentence_holds_the_message_keeps_its_form(name: str, value: str, sentence: str) -> None:
    """Delimiters, control bytes, line ends, halves of characters: nothing gets out of its field."""
    whom = Whom((Identifier(value or "1", Assigner("H"), "MR"),), name)
    raw = composed(result(Value(Code("x"), text=value), sentence=sentence), whom)
    assert not any(byte in raw for byte in b"\x0b\x1c\n\x00")
    message = parse(raw)
    assert [segment.name for segment in message] == ["MSH", "PID", "OBR", "NTE", "OBX"]
    assert len(message["PID"]) <= 8
    kept = "".join(character for character in name if (character >= " " and character != "\x7f") or character == "\n")
    expected = kept.encode("utf-8", "replace").decode()
    if expected != '""':
        assert message["PID"].text(5) == expected
    assert message.get("OBX-11") == "F"


def test_two_quotation_marks_are_no_order_to_delete() -> None:
    assert parse(composed(whom=Whom(WHOM.identifiers, '""', ("W",))))["PID"].raw(5) == "^W"


def test_what_is_a_fault_of_ours_is_none_of_the_receivers() -> None:
    for number_of, whom, made in (
        ("", WHOM, result()),
        ("A" * 21, WHOM, result()),
        ("A|B", WHOM, result()),
        ("A", Whom(()), result()),
    ):
        with pytest.raises(ValueError, match=r"control id|somebody"):
            compose(ENVELOPE, number_of, AT, whom, made)
