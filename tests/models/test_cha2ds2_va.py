"""CHA2DS2-VA from a record: what is on record counts, what is not makes the score a lower bound."""

from __future__ import annotations

import pytest

from models.codes import ICD10, SCT
from models.nouns import Fact
from models.scoring import Scorer
from tests.models.bedside import illness, person, scorer, value

AF = illness("I48.91")


@pytest.fixture(scope="module")
def va() -> Scorer:
    return scorer("cha2ds2-va")


def test_everything_on_record(va: Scorer) -> None:
    every = [illness(code) for code in ("I50.9", "I10", "E11.9", "Z86.73", "I25.10")]
    judged = va.judge(person(AF, every, born="1945-01-01"))
    assert judged.score.outputs == {"items": [2, 1, 1, 1, 2, 1], "points": [8]}
    assert judged.vectors[0].cautions == ()


def test_what_is_not_on_record_makes_it_a_lower_bound_and_says_so(va: Scorer) -> None:
    judged = va.judge(person(AF, illness("I10"), born="1958-01-01"))
    assert judged.score.outputs["points"] == [2]
    (told,) = judged.vectors[0].cautions
    assert told.endswith("The score is a lower bound")
    assert value(judged, "stroke") is None


@pytest.mark.parametrize(
    ("diagnosis", "item", "counts"),
    [
        (illness("I63.9"), "stroke", True), (illness("G45.9"), "stroke", True), (illness("I74.3"), "stroke", True),
        (illness("G45.4"), "stroke", False), (illness("I61.9"), "stroke", False), (illness("I26.99"), "stroke", False),
        (illness("I63.9", status="confirmed/resolved"), "stroke", True),
        (illness("I10", status="confirmed/resolved"), "hypertension", False),
        (illness("E11.9", status="refuted/"), "diabetes", False), (illness("O24.410"), "diabetes", False),
        (illness("R73.03"), "diabetes", False), (illness("44054006", system=SCT), "diabetes", True),
        (illness("I11.0"), "heart_failure", True), (illness("I42.0"), "heart_failure", False),
        (illness("I70.213"), "vascular", True), (illness("I71.4"), "vascular", False),
        (illness("I21.9", system=ICD10), "vascular", True),
        (illness("I50.9", effective="2027-01-01"), "heart_failure", False),
    ],
)  # fmt: skip
def test_which_diagnosis_counts(va: Scorer, diagnosis: Fact, item: str, counts: bool) -> None:
    assert (value(va.judge(person(AF, diagnosis)), item) == 1.0) is counts


@pytest.mark.parametrize(
    ("born", "points"), [("1961-11-21", 0), ("1961-11-20", 1), ("1951-11-21", 1), ("1951-11-20", 2)]
)
def test_birthdays_65_and_75(va: Scorer, born: str, points: float) -> None:
    assert va.score(person(AF, born=born)).outputs["items"][0] == points


@pytest.mark.parametrize(
    ("facts", "born", "why"),
    [
        ([], "1950-01-01", "no atrial fibrillation is recorded"),
        ([AF], "2015-01-01", "the score holds for adults (18 years or more)"),
        ([AF], "not a date", "required and not usable: age"),
    ],
)
def test_it_abstains(va: Scorer, facts: list[Fact], born: str, why: str) -> None:
    assert va.score(person(facts, born=born)).abstained == why
