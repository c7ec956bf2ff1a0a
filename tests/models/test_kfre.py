"""The kidney failure risk equation from a record."""

from __future__ import annotations

import pytest

from models.errors import BadInput
from models.nouns import Fact
from models.scoring import Scorer
from tests.models.bedside import illness, lab, person, scorer


@pytest.fixture(scope="module")
def kfre() -> Scorer:
    return scorer("kfre")


EGFR = "mL/min/{1.73_m2}"


def kidneys(egfr: float = 45, acr: float = 120, *, effective: str = "2026-10-01") -> list[Fact]:
    return [lab("98979-8", egfr, EGFR, effective=effective), lab("9318-7", acr, "mg/g", effective=effective)]


def test_the_risk_of_two_and_five_years(kfre: Scorer) -> None:
    judged = kfre.judge(person(kidneys(), illness("N18.32"), born="1971-05-01", sex="male"))
    two, five = judged.score.outputs["risk"]
    assert 0 < two < five < 1
    assert judged.score.probability == pytest.approx(five, abs=1e-15)
    assert judged.vectors[0].cautions == ()
    assert judged.vectors[0].feature("north_america").label == "calibration for outside North America"


def test_the_calibration_is_the_release_s_not_the_request_s(kfre: Scorer) -> None:
    with pytest.raises(BadInput, match="what-if"):
        kfre.score(person(kidneys(), what_if={"north_america": 1}))


@pytest.mark.parametrize(
    ("facts", "born", "why"),
    [
        (kidneys(60), "1960-05-01", "the equation holds for stages G3 to G5: an eGFR below 60 mL/min/1.73 m²"),
        ([*kidneys(), illness("N18.6")], "1960-05-01",
         "dialysis, a transplant or end-stage kidney disease is recorded: the equation holds before it"),
        ([*kidneys(), illness("Z94.0")], "1960-05-01",
         "dialysis, a transplant or end-stage kidney disease is recorded: the equation holds before it"),
        (kidneys(), "2012-01-01", "the equation holds for an age of 18 to 110 years"),
        (kidneys()[:1], "1960-05-01", "required and not usable: urine albumin-to-creatinine ratio"),
        (kidneys()[1:], "1960-05-01", "required and not usable: eGFR"),
        (kidneys(effective="2026-05-01"), "1960-05-01", "required and not usable: eGFR"),
        (kidneys(effective="2025-05-01"), "1960-05-01",
         "required and not usable: eGFR, urine albumin-to-creatinine ratio"),
        (kidneys(acr=0), "1960-05-01", "required and not usable: urine albumin-to-creatinine ratio"),
    ],
)  # fmt: skip
def test_outside_its_population_or_without_an_input_it_abstains(
    kfre: Scorer, facts: list[Fact], born: str, why: str
) -> None:
    assert kfre.score(person(facts, born=born)).abstained == why


def test_one_low_value_is_not_a_chronic_disease(kfre: Scorer) -> None:
    judged = kfre.judge(person(kidneys()))
    assert judged.score.abstained is None
    assert judged.vectors[0].cautions == (
        "chronic kidney disease is not on record: one low eGFR does not make it chronic",
    )


def test_the_worst_inputs_still_give_a_finite_logit(kfre: Scorer) -> None:
    score = kfre.score(person(kidneys(1, 25000), born="2008-01-01", sex="male"))
    assert score.logit is not None
    assert score.logit > 100
    assert score.probability == 1.0
