"""How a case is sorted onto one screen: stated rules, and nothing concluded."""

from __future__ import annotations

import math
from typing import Any

import pytest

from models.nouns import Coding, Fact, Provenance
from smart_app.board_sorting import MOST_LINES, sorted_facts
from smart_app.board_summary import APART, Section, Voice, disagreements, open_questions
from tests.smart_app.board_case import score

LOINC, SCT = "http://loinc.org", "http://snomed.info/sct"
LEFT, RIGHT = "Condition/left", "Condition/right"


def fact(code: str, *, resource: str = "Observation/1", n: int = 0, system: str = LOINC, **more: Any) -> Fact:
    values = {"kind": "observation", "status": "final", "effective": "2026-03-15", **more}
    display = values.pop("display", None)
    return Fact(
        id=f"l/{resource}#{n}",
        record="r",
        codings=(Coding(system, code, display),),
        source=Provenance("l", 0, "", resource, "fhir@1"),
        known_from="2026-03-16T00:00:00.000000Z",
        **values,
    )


def coded(display: str) -> dict[str, Any]:
    return {"coded": (Coding(LOINC, "LA1", display),)}


def tumour(resource: str = LEFT, side: str | None = "left") -> Fact:
    return fact(
        "254837009", system=SCT, resource=resource, kind="condition", laterality=side, display="Cancer (disorder)"
    )


def told(sections: Any, key: str) -> list[tuple[str, str]]:
    return [(line.label, line.value) for line in sections[key].lines]


@pytest.mark.parametrize(
    ("z", "apart"),
    [
        ((0.0, APART), [("b", "a")]),
        ((APART - 1e-9, 0.0), []),
        ((0.0, None), []),
        ((0.0, -2.0, 2.0), [("c", "b"), ("a", "b"), ("c", "a")]),
    ],
)
def test_modalities_disagree_at_twice_the_odds(z: tuple[float | None, ...], apart: list[tuple[str, str]]) -> None:
    found = disagreements([Voice(name, each, 0.0) for name, each in zip("abc", z, strict=False)])
    assert [(each.higher, each.lower) for each in found] == apart
    assert all(each.times >= 2.0 or math.isclose(each.times, 2.0) for each in found)


def test_each_answer_stands_in_its_section_with_its_newest_value() -> None:
    sections, sides = sorted_facts(
        [
            tumour(),
            fact("85337-4", **coded("Positive")),
            fact("85337-4", resource="Observation/0", effective="2025-01-01", **coded("Negative")),
            fact("33728-7", number="25", unit="mm"),
            fact("21893-3", number="0"),
            fact("384625004", system=SCT, **coded("American Joint Committee on Cancer pT2 (qualifier value)")),
            fact("85330-9", number="20", unit="%", comparator=">"),
            fact("48676-1", problem="a unit that does not convert", original="3 x"),
            fact("85339-0", status="entered-in-error", **coded("Positive")),
            fact("29463-7", number="70", unit="kg"),
        ]
    )
    assert sides == ("left",)
    assert told(sections, "diagnosis") == [("Diagnosis", "Cancer")]
    assert told(sections, "stage") == [("pT", "pT2"), ("Size", "25 mm"), ("Positive nodes", "0")]
    assert told(sections, "receptors") == [
        ("ER", "Positive"),
        ("HER2", "3 x (a unit that does not convert)"),
        ("Ki-67", ">20 %"),
    ]
    assert sections["receptors"].lines[0].earlier == 1
    assert sections["stage"].day == "2026-03-15"


def test_two_results_of_one_day_that_differ_are_both_shown() -> None:
    facts = [fact("85337-4", n=n, **coded(value)) for n, value in enumerate(("Positive", "Negative"))]
    sections, _ = sorted_facts([tumour(), *facts, fact("85339-0", status="preliminary", **coded("Positive"))])
    assert {line.value for line in sections["receptors"].lines if line.differs} == {"Positive", "Negative"}
    assert [(each.key, dict(each.values)) for each in open_questions(sections, [])] == [
        ("board.open.differs", {"label": "ER"}),
        ("board.open.unsure", {"label": "PR"}),
        ("board.open.no_score", {}),
    ]


def test_tumours_on_both_sides_are_never_mixed() -> None:
    sections, sides = sorted_facts(
        [
            tumour(),
            tumour(RIGHT, "right"),
            fact("33728-7", number="14", unit="mm", focus=(LEFT,)),
            fact("33728-7", resource="Observation/2", number="31", unit="mm", focus=(RIGHT,)),
            fact("85337-4", laterality="right", **coded("Negative")),
        ]
    )
    assert sides == ("left", "right")
    assert [(line.side, line.value) for line in sections["stage"].lines] == [("left", "14 mm"), ("right", "31 mm")]
    ((label, cells),) = sections["receptors"].by_side(sides)
    assert (label, [[line.value for line in cell] for cell in cells]) == ("ER", [[], ["Negative"], []])


def test_a_condition_is_a_tumour_by_code_by_histology_or_because_a_marker_is_about_it() -> None:
    sections, _ = sorted_facts(
        [
            fact("C25.0", system="http://hl7.org/fhir/sid/icd-10", resource="Condition/1", kind="condition"),
            fact("I10", system="http://hl7.org/fhir/sid/icd-10", resource="Condition/2", kind="condition"),
            fact("1", system=SCT, resource="Condition/3", kind="condition", **coded("Carcinoma")),
            fact("2", system=SCT, resource="Condition/4", kind="condition", display="Unlisted"),
            fact("85337-4", focus=("Condition/4",), **coded("Positive")),
            fact("3", system=SCT, resource="Condition/5", kind="condition", status="refuted/", **coded("Carcinoma")),
        ]
    )
    assert sorted(value for _, value in told(sections, "diagnosis")) == ["Unlisted", "code 1; Carcinoma", "code C25.0"]
    assert told(sections, "fitness") == [("Other conditions", "code I10")]


def test_variants_regions_pictures_and_drugs() -> None:
    variant, region = "Observation/v", "Observation/r"
    sections, _ = sorted_facts(
        [
            fact("69548-6", resource=variant, **coded("Present")),
            fact("48018-6", resource=variant, n=1, **coded("PALB2")),
            fact("81252-9", resource=variant, n=2, **coded("NM_024675.3(PALB2):c.3549C>A (p.Tyr1183Ter)")),
            fact("48002-0", resource=variant, n=3, **coded("Somatic")),
            fact("53041-0", resource=region),
            fact("48018-6", resource=region, n=1, coded=(Coding(LOINC, "1", "BRCA1"), Coding(LOINC, "2", "TP53"))),
            fact("1", system=SCT, kind="procedure", display="Mammography (procedure)", resource="Procedure/1"),
            fact("2", system=SCT, kind="procedure", display="Biopsy guided by ultrasonography", resource="Procedure/2"),
            *(fact(f"d{n}", kind="medication", display=f"drug {n}", resource=f"M/{n}") for n in range(MOST_LINES)),
        ]
    )
    assert told(sections, "genomics") == [
        ("PALB2", "c.3549C>A (p.Tyr1183Ter), somatic"),
        ("Genes studied", "BRCA1, TP53"),
    ]
    assert told(sections, "imaging") == [("Study", "Mammography")]
    assert told(sections, "treatment")[0][0] in ("Drug", "Procedure")
    assert (len(sections["treatment"].lines), sections["treatment"].more) == (MOST_LINES, 1)


def test_a_drug_is_told_by_its_last_mention() -> None:
    def drug(resource: str, day: str, **more: Any) -> Fact:
        return fact("1", kind="medication", resource=resource, effective=day, display="letrozole", **more)

    def last(*facts: Fact) -> list[str]:
        return [value for _, value in told(sorted_facts(facts)[0], "treatment")]

    ordered = drug("MedicationRequest/1", "2026-01-01", status="active")
    assert last(ordered) == ["letrozole, ordered"]
    assert last(ordered, drug("MedicationAdministration/1", "2026-01-02")) == ["letrozole, given"]
    assert last(drug("MedicationRequest/1", "2026-01-01", status="stopped")) == ["letrozole, ordered, stopped"]
    assert last(drug("MedicationRequest/1", "2026-01-01", status="draft")) == []


def test_what_is_open_is_said_of_scores() -> None:
    sections = {"diagnosis": Section("diagnosis", sorted_facts([tumour()])[0]["diagnosis"].lines)}
    speaks = score(
        voices=(Voice("clinical", 1.0, 0.5), Voice("expression", -1.0, -0.2), Voice("mutation", None, 0.0, "no panel")),
        missing=("Ki-67",),
        cautions=("size and pT differ",),
        since=2,
        validated=False,
    )
    silent = score(model="other@1", abstained="two tumours", voices=(Voice("clinical", None, 0.0, "two tumours"),))
    keys = [each.key.removeprefix("board.open.") for each in open_questions(sections, [speaks, silent], withheld=3)]
    assert keys == ["modality", "apart", "caution", "since", "validated", "abstained", "inputs", "withheld"]
