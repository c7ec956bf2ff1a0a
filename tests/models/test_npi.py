"""The Nottingham index is read by the clinical modality: its rules for one tumour, without PREDICT's for ER and age."""

from __future__ import annotations

import pytest

from models.codes import LOINC
from models.nouns import Snapshot
from models.scoring import Scorer
from tests.models.bedside import scorer
from tests.models.records import condition, demographics, fact, jenny


@pytest.fixture(scope="module")
def npi() -> Scorer:
    return scorer("npi")


def test_the_persona_has_3_5(npi: Scorer) -> None:
    score = npi.score(jenny())
    assert score.outputs == {"items": [0.5, 1.0, 2.0], "points": [3.5]}  # 2.5 cm, pN0, grade 2
    assert score.probability is None


def test_it_needs_neither_er_nor_an_age_within_predict_s(npi: Scorer) -> None:
    born, _ = demographics(born="1920-01-01")
    assert npi.score(jenny(without="er")).outputs["points"] == [3.5]
    assert npi.score(jenny(born=born)).outputs["points"] == [3.5]


@pytest.mark.parametrize(
    ("snapshot", "why"),
    [
        (jenny(without="grade"), "required and not usable: histologic grade"),
        (jenny(without="size nodes pn"), "required and not usable: number of positive nodes, tumour size"),
        (jenny(grade=fact(LOINC, "44648-4", number="7")), "required and not usable: histologic grade"),
        (jenny(size=fact(LOINC, "33728-7", number="-25", unit="mm")), "required and not usable: tumour size"),
        (jenny(without="tumour"), "no invasive breast cancer is recorded"),
        (jenny(also=[condition(resource="Condition/second", laterality="right")]), "two tumours, none chosen"),
    ],
)
def test_it_abstains_by_the_rules_of_the_clinical_modality(npi: Scorer, snapshot: Snapshot, why: str) -> None:
    assert npi.score(snapshot).abstained == why
