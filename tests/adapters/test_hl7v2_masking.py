"""Patient data is masked unless somebody asks for it: nothing that names a person comes through by accident."""

from __future__ import annotations

import re
from pathlib import Path

import hl7apy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.masking import DATE, MASK, NAME, NUMBER, TEXT, UNKNOWN, WHOLE, hidden, masked
from adapters.hl7v2.message import HEADERS, VERSIONS, parse
from adapters.hl7v2.structure import fields
from models.errors import BadInput
from tests.adapters.hl7v2_samples import message, samples


def shown(segment: str, field: int, component: int = 1, sub: int = 1, *, version: str = "2.5.1") -> str:
    """What is shown of one place in a message that has this one segment behind its header."""
    found = parse(message("ORU^R01", segment)).segments[1].first(field)
    return masked(found, component, sub, version)


@pytest.mark.parametrize(
    ("segment", "field", "component", "expected"),
    [
        ("PID|1||4711^^^HOSP^MR", 3, 1, MASK),
        ("PID|1||4711^^^HOSP^MR", 3, 4, "HOSP"),
        ("PID|1||4711^^^HOSP^MR", 3, 5, "MR"),
        ("PID|1||||DOE^JANE^^^^^L", 5, 2, MASK),
        ("PID|1||||DOE^JANE^^^^^L", 5, 7, "L"),
        ("PID|||||||19700203", 7, 1, MASK),
        ("PID||||||||F", 8, 1, "F"),
        ('PID|||||||""', 7, 1, '""'),
        ("PID||||||||||2106-3^White^HL70005", 10, 2, MASK),
        ("PV1|1|I|MED^204^2^HOSP", 3, 1, "MED"),
        ("PV1|1|I|MED^204^2^HOSP", 3, 2, MASK),
        ("PV1|1||||||77^WEBER^ANNA^^^^^^HOSP", 7, 2, MASK),
        ("PV1|1||||||77^WEBER^ANNA^^^^^^HOSP", 7, 9, "HOSP"),
        ("PV1" + "|" * 44 + "20260301", 44, 1, f"2026{MASK}"),
        ("OBR|1|P7^WARD|F7^LAB", 3, 1, MASK),
        ("OBR|1|P7^WARD|F7^LAB", 3, 2, "LAB"),
        ("OBX|1|NM|8867-4^Heart rate^LN||96", 3, 2, "Heart rate"),
        ("OBX|1|NM|8867-4^Heart rate^LN||96", 5, 1, "96"),
        ("OBX|1|NM|8867-4^Heart rate^LN||see Dr. Weber", 5, 1, MASK),
        ("OBX|1|SN|8867-4||>^200", 5, 1, ">"),
        ("OBX|1|TX|8251-1||Mrs. Doe says", 5, 1, MASK),
        ("OBX|1|ST|8251-1||Mrs. Doe says", 5, 1, MASK),
        ("OBX|1||8251-1||Mrs. Doe says", 5, 1, MASK),
        ("OBX|1|QQ|8251-1||Mrs. Doe says", 5, 1, MASK),
        ("OBX|1|CWE|8251-1||A^Alert^LN^^^^^^said Mrs. Doe", 5, 2, "Alert"),
        ("OBX|1|CWE|8251-1||A^Alert^LN^^^^^^said Mrs. Doe", 5, 9, MASK),
        ("OBX|1|CWE|8251-1||^Mrs. Doe", 5, 2, MASK),
        ("OBX|1|CE|8251-1||Mrs. Doe", 5, 1, MASK),
        ("OBX|1|XPN|8251-1||DOE^JANE", 5, 2, MASK),
        ("OBX|1|ED|8251-1||^AP^PDF^Base64^JVBERi0", 5, 3, "PDF"),
        ("OBX|1|ED|8251-1||^AP^PDF^Base64^JVBERi0", 5, 5, MASK),
        ("NTE|1|L|call 030 5550109", 3, 1, MASK),
        ("NK1|1|DOE^JOHN|SPO^Spouse", 2, 1, MASK),
        ("NK1|1|DOE^JOHN|SPO^Spouse", 3, 1, "SPO"),
        ("ZPI|1|4711", 2, 1, MASK),
        ("OBX" + "|" * 60 + "x", 60, 1, MASK),
    ],
)
def test_what_is_shown(segment: str, field: int, component: int, expected: str) -> None:
    assert shown(segment, field, component) == expected


def test_the_header_is_shown_but_for_its_password() -> None:
    head = parse(b"MSH|^~\\&|LAB|HOSP|CDS|X|20260301||ADT^A01|M1|P|2.5.1\r").segments[0]
    assert [masked(head.first(number)) for number in (1, 2, 3, 7, 10, 12)] == [
        *("|", "^~\\&", "LAB", "20260301", "M1", "2.5.1")
    ]
    secret = parse(b"MSH|^~\\&|LAB|HOSP|CDS|X|20260301|hunter2|ADT^A01|M1|P|2.5.1\r").segments[0]
    assert masked(secret.first(8)) == MASK


@pytest.mark.parametrize(
    ("segment", "field", "reason"),
    [
        ("PID|1||4711", 3, WHOLE),
        ("PV1" + "|" * 19 + "V1", 19, NUMBER),
        ("PV1|1||||||77^WEBER", 7, NAME),
        ("OBR|1||||||20260301", 7, DATE),
        ("NTE|1||x", 3, TEXT),
        ("ZPI|x", 1, UNKNOWN),
    ],
)
def test_a_mask_has_its_reason(segment: str, field: int, reason: str) -> None:
    assert hidden(parse(message("ORU^R01", segment)).segments[1].first(field)) == reason


def test_names_and_free_text_are_masked_in_every_version() -> None:
    """A field of text, of a person, of an address or a number to reach somebody: each of them, in each version."""
    risky = {"ST", "TX", "FT", "XPN", "PN", "XCN", "CN", "XAD", "AD", "XTN", "TN", "CX", "CK", "FN", "CNN"}
    harmless = {  # in the header and its like, where machines speak of themselves, and a result's sub-id and range
        *("MSH", "FHS", "BHS", "BTS", "FTS", "MSA", "SFT", "OBX"),
    }
    for version in VERSIONS:
        for name in hl7apy.load_library(version).SEGMENTS:
            if name in harmless or not re.fullmatch("[A-Z][A-Z0-9]{2}", name):
                continue
            for number, element in enumerate(fields(name, version), 1):
                if element.datatype in risky:
                    line = name + "|" * number + "SECRET"
                    segment = parse(message("ORU^R01", line)).segments[1]
                    assert masked(segment.first(number), version=version) == MASK, (version, name, number)


NAMING = {
    "PID": (2, 3, 4, 5, 6, 7, 9, 11, 13, 14, 18, 19, 20),
    "NK1": (2, 4, 5),
    "GT1": (2, 3, 5, 6),
    "MRG": (1, 2, 3, 4, 7),
}


def test_of_other_peoples_messages_no_person_comes_through(peer_data: Path) -> None:
    """Names, addresses, birth dates and numbers of people, in every sample that can be split."""
    checked = 0
    for name, body in samples(peer_data):
        try:
            found = parse(body)
        except BadInput:
            continue
        assert not any(masked(each.first(1)) == MASK for each in found if each.name in HEADERS)
        for segment in found:
            for number in NAMING.get(segment.name, ()):
                for each in segment.field(number):
                    if each.text():
                        checked += 1
                        assert masked(each, version=found.version) == MASK, (name, str(each.place()))
    assert checked > 400


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n|"), min_size=1, max_size=40), st.integers(1, 40))
def test_whatever_stands_in_a_number_of_a_patient_is_masked(value: str, number: int) -> None:
    """Whatever delimiters, escapes or odd characters it has."""
    if number in (1, 8, 30, 31, 32, 33, 34):
        return
    found = parse(message("ORU^R01", "PID" + "|" * number + value)).segments[1]
    for each in found.field(number):
        assert masked(each) in ("", MASK, '""')
