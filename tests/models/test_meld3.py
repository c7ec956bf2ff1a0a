"""MELD 3.0 from a record: results of one week, dialysis before the creatinine."""

from __future__ import annotations

import pytest

from models.codes import SCT
from models.nouns import Fact
from models.scoring import Scorer
from tests.models.bedside import TODAY, lab, person, scorer, value
from tests.models.records import fact


@pytest.fixture(scope="module")
def meld3() -> Scorer:
    return scorer("meld3")


def liver() -> dict[str, Fact]:
    return {
        "bilirubin": lab("1975-2", 2.0, "mg/dL"),
        "creatinine": lab("2160-0", 1.5, "mg/dL"),
        "inr": lab("6301-6", 1.5, None),
        "sodium": lab("2951-2", 130, "mmol/L"),
        "albumin": lab("1751-7", 3.0, "g/dL"),
    }


def but(**instead: Fact | None) -> list[Fact]:
    return [each for each in {**liver(), **instead}.values() if each is not None]


def session(when: str, *, status: str = "completed") -> Fact:
    return fact(SCT, "302497006", kind="procedure", effective=when, status=status)


def test_the_known_vector_from_a_record(meld3: Scorer) -> None:
    score = meld3.score(person(but()))
    assert score.outputs["raw"][0] == pytest.approx(23.8228, abs=5e-5)
    assert score.outputs["points"] == [24]
    assert sum(score.outputs["items"]) == pytest.approx(score.outputs["raw"][0], abs=1e-12)
    male = meld3.score(person(but(), sex="male")).outputs["raw"][0]
    assert male == pytest.approx(score.outputs["raw"][0] - 1.33, abs=1e-12)


@pytest.mark.parametrize("name", ["bilirubin", "creatinine", "inr", "sodium", "albumin"])
def test_a_missing_or_old_result_makes_it_abstain(meld3: Scorer, name: str) -> None:
    missing = meld3.score(person(but(**{name: None}))).abstained
    assert missing is not None
    assert missing.startswith("required and not usable: ")
    stale = Fact.from_plain({**liver()[name].plain(), "effective": "2026-11-12T09:00:00Z"})
    assert meld3.score(person(but(**{name: stale}))).abstained == missing


def test_molar_results_are_converted_and_the_later_one_counts(meld3: Scorer) -> None:
    judged = meld3.judge(
        person(but(bilirubin=lab("14631-6", 34.2, "umol/L"), creatinine=lab("14682-9", 132.6, "umol/L")))
    )
    assert judged.score.outputs["points"] == [24]
    assert value(judged, "bilirubin") == pytest.approx(2.0)
    assert judged.vectors[0].feature("creatinine").note == "132.6 µmol/L"
    later = lab("14631-6", 171, "umol/L", effective="2026-11-20T09:30:00Z")
    assert value(meld3.judge(person(but(other=later))), "bilirubin") == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("sessions", "dialysis"),
    [
        ([], None),
        ([session("2026-11-18")], 0),
        ([session("2026-11-16"), session("2026-11-18")], 1),
        ([session("2026-11-10"), session("2026-11-18")], 0),  # one of them is more than seven days before
        ([session("2026-11-16"), session("2026-11-18", status="not-done")], 0),
        ([session("2026-11-16"), session("2026-11-20T09:30:00Z")], 0),  # after the creatinine
    ],
)
def test_two_sessions_in_the_week_before_count(meld3: Scorer, sessions: list[Fact], dialysis: float | None) -> None:
    judged = meld3.judge(person(but(), sessions))
    assert value(judged, "dialysis") == dialysis
    assert (judged.score.outputs["items"][5] > 10) == (dialysis == 1)  # 11.14 ln 3


@pytest.mark.parametrize("sex", ["unknown", "other"])
def test_sex_is_never_guessed(meld3: Scorer, sex: str) -> None:
    assert meld3.score(person(but(), sex=sex)).abstained == "required and not usable: sex"


def test_adolescents_have_other_rules(meld3: Scorer) -> None:
    assert meld3.score(person(but(), born="2010-01-01")).abstained == "this release holds for adults (18 years or more)"


def test_two_results_of_one_moment_must_agree(meld3: Scorer) -> None:
    judged = meld3.judge(person(but(other=lab("2951-2", 140, "mmol/L", effective=TODAY))))
    assert judged.score.abstained == "required and not usable: sodium"
    assert judged.vectors[0].feature("sodium").note == "results of the same time disagree"
