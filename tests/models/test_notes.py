"""Statements from notes: with their characters, and never used before a person confirmed them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from models.codes import LOINC
from models.modalities import notes
from models.nouns import Fact, FeatureVector, Provenance
from models.training.graph import Graph
from tests.models import third_party
from tests.models.records import NEGATIVE, POSITIVE, condition, fact, jenny, snapshot
from tests.models.test_enrolment import enrolled

COLUMNS = ["er", "pr", "size"]


def stated(code: str, span: str, *, status: str = "preliminary", **members: Any) -> Fact:
    one = fact(LOINC, code, status=status, resource="DocumentReference/letter", **members)
    return one.but(source=Provenance("landing", 0, f"/content/0/attachment{span}", one.source.resource, "notes@1"))


def letter(status: str) -> list[Fact]:
    return [
        stated("85337-4", "#char=120,131", status=status, answer=POSITIVE),
        stated("85339-0", "#char=133,144", status=status, answer=NEGATIVE),
        stated("21889-1", "#char=90,95", status=status, number="25", unit="mm"),
    ]


def encoded(*facts: Fact) -> FeatureVector:
    return notes.encode(snapshot([condition(), *facts]), {"columns": COLUMNS, "parameters": {}, "rules": []})


def test_confirmed_statements_are_values_with_their_characters() -> None:
    vector = encoded(*letter("final"))
    assert vector.absent is None
    assert [feature.value for feature in vector.features] == [1.0, 0.0, 25.0]
    assert vector.feature("er").note == "characters 120 to 131 of DocumentReference/letter"
    assert all(len(feature.facts) == 1 for feature in vector.features)


def test_nothing_enters_that_no_person_confirmed() -> None:
    vector = encoded(*letter("preliminary"))
    assert vector.absent == "3 statements were taken from notes, and no person confirmed one"
    assert vector.features == ()
    told = "Oestrogen receptor: stated in characters 120 to 131 of DocumentReference/letter, not confirmed by a person"
    assert any(caution.startswith(told) for caution in vector.cautions)


def test_a_confirmed_one_beside_others_says_what_is_left_out() -> None:
    er, pr, size = letter("final")
    vector = encoded(er, size, pr.but(status="preliminary"))
    assert vector.absent is None
    assert vector.feature("pr").missing
    assert [caution for caution in vector.cautions if caution.startswith("Progesterone receptor")]


@pytest.mark.parametrize("span", ["", "#char=5,5", "#char=9,4", "#line=1,2", "#char=-1,4", "#char=1"])
def test_a_fact_without_a_span_is_not_a_notes(span: str) -> None:
    assert encoded(stated("85337-4", span, status="final", answer=POSITIVE)).absent == (
        "no statement from a note is recorded"
    )


def test_two_letters_that_disagree_say_nothing() -> None:
    er, pr, size = letter("final")
    other = stated("85337-4", "#char=7,18", status="final", answer=NEGATIVE)
    assert str(encoded(er, pr, size, other).absent).startswith("required and not usable: oestrogen receptor")


def test_structured_results_are_other_modalities_business() -> None:
    assert notes.encode(jenny(), {"columns": COLUMNS, "parameters": {}, "rules": []}).absent == (
        "no statement from a note is recorded"
    )


def test_a_site_enrols_a_model_of_its_own_over_notes(tmp_path: Path) -> None:
    graph = Graph("site")
    graph("MatMul", "x", graph.constant([[-1.0], [-0.5], [0.02]]), out="z")
    body = graph.model({"x": ("N", 3)}, {"z": ("N", 1)}, "a site's graph")
    stated_: dict[str, Any] = third_party.manifest()
    stated_["modalities"] = [
        {
            "name": "notes",
            "file": "model.onnx",
            "columns": COLUMNS,
            "inputs": {"x": ["N", 3]},
            "outputs": {"z": ["N", 1]},
            "features": [each.plain() for each in notes.DEFINITIONS if each.name in COLUMNS],
        }
    ]
    stated_["rules"] = [{"name": name, "range": [0, 250]} for name in COLUMNS]
    stated_["files"] = {
        "model.onnx": hashlib.sha256(body).hexdigest(),
        "MODEL_CARD.md": hashlib.sha256(b"# A vendor's model\n").hexdigest(),
    }
    scorer = enrolled(tmp_path / "shelf", third_party.put(tmp_path / "vendor", stated_, model_onnx=body))
    assert scorer.score(snapshot([condition(), *letter("final")])).logit == pytest.approx(-0.5)
    assert scorer.score(snapshot([condition(), *letter("preliminary")])).probability is None
