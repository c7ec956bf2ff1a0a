"""The Khorana score from a record: which cancer, counts of the last two weeks, weight and height for a BMI."""

from __future__ import annotations

from typing import Any

import pytest

from models.codes import ICD10, SCT
from models.modalities import khorana as modality
from models.nouns import Fact
from models.scoring import Scorer
from tests.models.bedside import illness, lab, person, scorer, value
from tests.models.records import fact

RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"


@pytest.fixture(scope="module")
def khorana() -> Scorer:
    return scorer("khorana")


def outpatient() -> dict[str, Fact]:
    return {
        "cancer": illness("C34.11"),
        "platelets": lab("777-3", 412, "10*3/uL"),
        "haemoglobin": lab("718-7", 9.6, "g/dL"),
        "leukocytes": lab("6690-2", 12.4, "10*3/uL"),
        "bmi": lab("39156-5", 36.1, "kg/m2"),
    }


def but(**instead: Fact | None) -> list[Fact]:
    return [each for each in {**outpatient(), **instead}.values() if each is not None]


def test_five_points_and_the_rate_of_their_band(khorana: Scorer) -> None:
    score = khorana.score(person(but()))
    assert score.outputs["points"] == [5]
    assert score.outputs["items"] == [1, 1, 1, 1, 1]
    assert score.outputs["risk"] == [0.110]
    assert score.probability == pytest.approx(0.110, abs=1e-15)
    assert sum(each.amount for each in score.contributions) + score.base == score.logit


@pytest.mark.parametrize(
    ("cancer", "site"),
    [
        (illness("C16.0"), 2), (illness("C25.9", system=ICD10), 2), (illness("363418001", system=SCT), 2),
        (illness("C34.90"), 1), (illness("C56.1"), 1), (illness("C83.30"), 1), (illness("C81.9", system=ICD10), 1),
        (illness("C62.90"), 1), (illness("C67.9"), 1), (illness("118600007", system=SCT), 1),
        (illness("C50.912"), 0), (illness("C18.9"), 0), (illness("C71.9"), 0), (illness("C64.1"), 0),
        (illness("254837009", system=SCT, status="confirmed/remission"), 0),
    ],
)  # fmt: skip
def test_points_of_the_site(khorana: Scorer, cancer: Fact, site: float) -> None:
    assert value(khorana.judge(person(but(cancer=cancer))), "site") == site


@pytest.mark.parametrize(
    ("cancers", "why"),
    [
        ([], "no cancer of a known primary site is recorded"),
        ([illness("C79.51")], "no cancer of a known primary site is recorded"),
        ([illness("C80.1")], "no cancer of a known primary site is recorded"),
        ([illness("C34.11", status="refuted/")], "no cancer of a known primary site is recorded"),
        ([illness("C34.11", status="provisional/active")], "no cancer of a known primary site is recorded"),
        ([illness("C34.11", status="confirmed/resolved")], "no cancer of a known primary site is recorded"),
        ([illness("C34.11", effective="2027-01-01")], "no cancer of a known primary site is recorded"),
        ([illness("C90.00")], "the score holds for solid tumours and lymphoma, not for leukaemia or myeloma"),
        (
            [illness("C34.11"), illness("C50.912")],
            "two cancers are recorded whose sites count differently, none chosen",
        ),
    ],
)
def test_an_unclear_site_is_never_another_site(khorana: Scorer, cancers: list[Fact], why: str) -> None:
    assert khorana.score(person(but(cancer=None), cancers)).abstained == why


def test_the_order_s_reason_chooses_between_two_cancers(khorana: Scorer) -> None:
    both = but(cancer=illness("C34.11"), second=illness("C50.912"))
    assert value(khorana.judge(person(both, focus="Condition/C34.11")), "site") == 1
    assert value(khorana.judge(person(both, focus="Condition/C50.912")), "site") == 0
    assert khorana.score(person(both, focus="Condition/elsewhere")).abstained is not None


@pytest.mark.parametrize("name", ["platelets", "haemoglobin", "leukocytes", "bmi"])
def test_a_missing_count_is_never_a_normal_one(khorana: Scorer, name: str) -> None:
    missing = khorana.score(person(but(**{name: None})))
    assert missing.abstained is not None
    assert missing.abstained.startswith("required and not usable: ")
    stated = {**outpatient()[name].plain(), "effective": "2026-08-01T09:00:00Z"}
    assert khorana.score(person(but(**{name: Fact.from_plain(stated)}))).abstained == missing.abstained


def test_a_body_mass_index_is_computed_where_none_is_recorded(khorana: Scorer) -> None:
    measured = {"weight": lab("29463-7", 102, "kg"), "height": lab("8302-2", 168, "cm", effective="2024-05-06")}
    judged = khorana.judge(person(but(bmi=None, **measured)))
    assert value(judged, "bmi") == pytest.approx(102 / 1.68**2)
    found = judged.vectors[0].feature("bmi")
    assert set(found.facts) == {each.id for each in measured.values()}
    assert found.note == "computed from weight and height"
    assert value(khorana.judge(person(but(**measured))), "bmi") == 36.1  # what is recorded comes first


@pytest.mark.parametrize(
    ("given", "esa"),
    [
        ({}, None),
        ({"status": "stopped"}, None),
        ({"status": "do-not-perform"}, None),
        ({"status": "active"}, 1),
        ({"status": "completed", "effective": "2026-10-01"}, 1),
        ({"status": "completed", "effective": "2026-01-01"}, None),
    ],
)
def test_growth_factors_count_while_they_act(khorana: Scorer, given: dict[str, Any], esa: float | None) -> None:
    facts = [fact(RXNORM, "105694", kind="medication", **{"effective": "2026-11-10", **given})] if given else []
    judged = khorana.judge(person(but(haemoglobin=lab("718-7", 13, "g/dL")), facts))
    assert value(judged, "esa") == esa
    assert judged.score.outputs["items"][2] == (esa or 0)


def test_growth_factors_among_the_draft_orders_count(khorana: Scorer) -> None:
    order = {"type": "MedicationRequest", "codings": [{"system": RXNORM, "code": "283838"}]}
    judged = khorana.judge(person(but(haemoglobin=lab("718-7", 13, "g/dL")), draft_orders=[order]))
    assert value(judged, "esa") == 1


def test_a_child_is_refused(khorana: Scorer) -> None:
    assert khorana.score(person(but(), born="2015-01-01")).abstained == "the score holds for adults (18 years or more)"


def test_code_sets_say_where_they_end_and_do_not_overlap() -> None:
    sets = modality._SETS
    for one in sets.values():
        assert one.scope.endswith(".")
        assert one.source
        assert all(one is other or not one.codes & other.codes for other in sets.values())
