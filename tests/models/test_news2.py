"""NEWS2 from a record: seven parameters of the last twelve hours, or none of it."""

from __future__ import annotations

from typing import Any

import pytest

from models.codes import LOINC, SCT
from models.errors import BadInput
from models.nouns import Fact
from models.scoring import Scorer
from tests.models.bedside import TODAY, illness, lab, person, scorer, value
from tests.models.records import fact

ALERT, CONFUSED = (SCT, "248234008"), (LOINC, "LA6560-2")


@pytest.fixture(scope="module")
def news2() -> Scorer:
    return scorer("news2")


def vitals() -> dict[str, Fact]:
    return {
        "respiration": lab("9279-1", 18, "/min"),
        "spo2": lab("59408-5", 97, "%"),
        "oxygen": fact(SCT, "722742002", effective=TODAY),
        "systolic": lab("8480-6", 120, "mm[Hg]"),
        "pulse": lab("8867-4", 70, "/min"),
        "consciousness": fact(LOINC, "67775-7", answer=ALERT, effective=TODAY),
        "temperature": lab("8310-5", 37, "Cel"),
    }


def but(**instead: Fact | None) -> list[Fact]:
    return [each for each in {**vitals(), **instead}.values() if each is not None]


def test_a_healthy_person_has_no_points(news2: Scorer) -> None:
    score = news2.score(person(but()))
    assert (score.abstained, score.probability) == (None, None)
    assert (score.outputs["points"], score.outputs["highest"]) == ([0], [0])
    assert score.outputs["items"] == [0] * 7


def test_each_parameter_is_read(news2: Scorer) -> None:
    ill = but(
        respiration=lab("9279-1", 26, "/min"),
        spo2=lab("2708-6", 91, "%"),
        oxygen=lab("3151-8", 4, "L/min"),
        systolic=lab("8480-6", 98, "mm[Hg]"),
        pulse=lab("8867-4", 118, "/min"),
        consciousness=fact(LOINC, "67775-7", answer=CONFUSED, effective=TODAY),
        temperature=lab("8310-5", 39.2, "Cel"),
    )
    assert news2.score(person(ill)).outputs == {"items": [3, 3, 2, 2, 2, 3, 2], "points": [17], "highest": [3]}


@pytest.mark.parametrize("name", ["respiration", "spo2", "oxygen", "systolic", "pulse", "consciousness", "temperature"])
def test_what_was_not_observed_is_never_normal(news2: Scorer, name: str) -> None:
    missing = news2.judge(person(but(**{name: None})))
    assert missing.score.abstained is not None
    assert "required and not usable" in missing.score.abstained
    assert not missing.score.outputs
    stale = news2.judge(person(but(**{name: vitals()[name].__class__.from_plain(
        {**vitals()[name].plain(), "effective": "2026-11-19T09:00:00Z"})})))  # fmt: skip
    assert stale.score.abstained == missing.score.abstained


@pytest.mark.parametrize(
    ("facts", "oxygen"),
    [
        ([fact(SCT, "371825009", answer=(SCT, "373066001"), effective=TODAY)], 1),
        ([fact(SCT, "371825009", answer=(SCT, "373067005"), effective=TODAY)], 0),
        ([fact(SCT, "371825009", effective=TODAY)], 1),
        ([fact(SCT, "722742002", effective=TODAY)], 0),
        ([fact(SCT, "722742002", effective=TODAY, status="entered-in-error")], None),
        ([fact(SCT, "722742002", effective=TODAY, absent_reason="not-performed")], None),
        ([fact(SCT, "722742002", effective="2026-11-19T09:00:00Z")], None),
        ([fact(SCT, "722742002", effective="2026-11-20T10:00:01Z")], None),
        ([lab("3151-8", 0, "L/min")], 0),
        ([lab("3151-8", 0.5, "L/min")], 1),
        ([lab("3150-6", 21, "%")], 0),
        ([lab("3150-6", 28, "%")], 1),
        ([lab("3150-6", 0.28, "%")], None),  # a fraction is not a percentage
        ([lab("3151-8", 2, "L/min"), fact(SCT, "722742002", effective=TODAY)], None),  # of one moment: which?
        ([lab("3151-8", 2, "L/min", effective="2026-11-20T08:00:00Z"), fact(SCT, "722742002", effective=TODAY)], 0),
    ],
)
def test_air_or_oxygen_is_what_was_said_last(news2: Scorer, facts: list[Fact], oxygen: float | None) -> None:
    assert value(news2.judge(person(but(oxygen=None), facts)), "oxygen") == oxygen


def test_scale_2_is_chosen_by_the_request_only(news2: Scorer) -> None:
    failing = [*but(spo2=lab("59408-5", 90, "%")), illness("J96.12")]
    on_scale_1 = news2.judge(person(failing))
    assert on_scale_1.score.outputs["points"] == [3]
    assert "scale 2" in on_scale_1.vectors[0].cautions[0]
    assert news2.score(person(failing, what_if={"scale2": 1})).outputs["points"] == [0]
    with pytest.raises(BadInput, match="scale2 is not one of 0, 1"):
        news2.score(person(failing, what_if={"scale2": 2}))
    with pytest.raises(BadInput, match="input that this model does not have"):
        news2.score(person(failing, what_if={"colour": 2}))


@pytest.mark.parametrize(
    ("facts", "born", "why"),
    [
        ([], "2015-01-01", "NEWS2 is for persons of 16 years or more"),
        ([], "2010-11-21", "NEWS2 is for persons of 16 years or more"),
        (
            [illness("O09.90", effective="2026-08-01")],
            "1995-01-01",
            "pregnancy is recorded; NEWS2 is not for pregnancy",
        ),
        ([illness("Z33.1", effective=None)], "1995-01-01", "pregnancy is recorded; NEWS2 is not for pregnancy"),
    ],
)
def test_out_of_population_is_refused(news2: Scorer, facts: list[Fact], born: str, why: str) -> None:
    assert news2.score(person(but(), facts, born=born)).abstained == why


@pytest.mark.parametrize(
    "facts",
    [
        [illness("O09.90", effective="2024-01-01")],
        [illness("O09.90", effective="2026-08-01", status="refuted/")],
        [illness("O09.90", effective="2026-08-01", status="entered-in-error/")],
    ],
)
def test_an_old_or_refuted_pregnancy_is_none(news2: Scorer, facts: list[Fact]) -> None:
    assert news2.score(person(but(), facts, born="1995-01-01")).abstained is None


def test_birthday_16_counts(news2: Scorer) -> None:
    assert news2.score(person(but(), born="2010-11-20")).abstained is None


def cautions(news2: Scorer, **instead: Any) -> tuple[str, ...]:
    return news2.judge(person(but(**instead))).vectors[0].cautions


def test_observations_far_apart_are_said(news2: Scorer) -> None:
    assert cautions(news2) == ()
    (told,) = cautions(news2, pulse=lab("8867-4", 70, "/min", effective="2026-11-20T03:00:00Z"))
    assert "not observed together" in told


def test_the_same_snapshot_gives_the_same_bits(news2: Scorer) -> None:
    asked = person(but())
    assert news2.score(asked).plain() == scorer("news2").score(asked).plain()
