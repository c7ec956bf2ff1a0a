"""Local codes in the terms of everybody: what is said to be the same, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.terminology.concept_maps import ConceptMaps
from models.errors import Misconfigured
from models.nouns import Coding

LOINC = "http://loinc.org"
CSV = b"""source_system,source_code,target_system,target_code,target_display,equivalence
urn:id:lab:L,HB,http://loinc.org,718-7,Hemoglobin,equivalent
urn:id:lab:L,HB,http://snomed.info/sct,104142005,,equal
urn:id:lab:L,WBC,http://loinc.org,6690-2,,wider
"""


def concept_map(equivalence: str = "equivalent") -> bytes:
    target = {"code": "718-7", "display": "Hb", "equivalence": equivalence}
    group = {"source": "urn:id:lab:L", "target": LOINC, "element": [{"code": "HB", "target": [target]}]}
    return json.dumps({"resourceType": "ConceptMap", "status": "active", "group": [group]}).encode()


def test_a_table_gives_what_is_the_same_in_its_order() -> None:
    maps = ConceptMaps([("lab.csv", CSV)])
    assert maps.codings("urn:id:lab:L", "HB") == [
        Coding(LOINC, "718-7", "Hemoglobin"),
        Coding("http://snomed.info/sct", "104142005"),
    ]


def test_a_wider_code_is_not_taken_and_is_counted() -> None:
    maps = ConceptMaps([("lab.csv", CSV)])
    assert maps.codings("urn:id:lab:L", "WBC") == ()
    assert maps.skipped == {"lab.csv": 1}


def test_a_code_of_another_system_is_another_code() -> None:
    assert ConceptMaps([("lab.csv", CSV)]).codings("urn:id:other:L", "HB") == ()


def test_a_fhir_concept_map_says_the_same() -> None:
    assert ConceptMaps([("lab.json", concept_map())]).codings("urn:id:lab:L", "HB") == [Coding(LOINC, "718-7", "Hb")]
    assert ConceptMaps([("lab.json", concept_map("narrower"))]).codings("urn:id:lab:L", "HB") == ()


def test_the_file_that_is_named_first_is_believed() -> None:
    first = b"source_system,source_code,target_system,target_code\nurn:id:lab:L,HB,http://loinc.org,30350-3\n"
    maps = ConceptMaps([("own.csv", first), ("lab.csv", CSV)])
    assert [coding.code for coding in maps.codings("urn:id:lab:L", "HB")] == ["30350-3"]


def test_another_file_is_another_digest(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    assert ConceptMaps.read([tmp_path / "a.csv"]).digest == ConceptMaps([("a.csv", CSV)]).digest
    assert ConceptMaps([("a.csv", CSV + b"x,y,z,w\n")]).digest != ConceptMaps([("a.csv", CSV)]).digest


@pytest.mark.parametrize(
    ("name", "body", "complaint"),
    [
        ("a.txt", CSV, "neither .csv nor .json"),
        ("a.csv", b"\xff\xfe", "no CSV in UTF-8"),
        ("a.csv", b"source_system,source_code,target_system\n", "no column target_code"),
        ("a.csv", b"source_system,source_code,target_system,target_code\n,,x,y\n", "row 2 .* lacks a code"),
        ("a.csv", CSV.replace(b"wider", b"similar"), "row 4 .* an equivalence that R4 does not have"),
        ("a.json", b"{", "no JSON"),
        ("a.json", b'{"resourceType": "ValueSet"}', "no ConceptMap"),
        ("a.json", concept_map("same"), "an equivalence that R4 does not have"),
    ],
)
def test_a_file_that_is_wrong_names_itself_and_the_row(name: str, body: bytes, complaint: str) -> None:
    with pytest.raises(Misconfigured, match=complaint):
        ConceptMaps([(name, body)])


def test_a_file_that_is_not_there_names_itself(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"gone\.csv cannot be read"):
        ConceptMaps.read([tmp_path / "gone.csv"])
