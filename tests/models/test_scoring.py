"""From a snapshot to a score: the persona's published numbers, abstention, and the same bits again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.canonical import canonical
from models.errors import BadInput, ContractMismatch
from models.nouns import ModelVersion, Snapshot
from models.scoring import Scorer
from models.shelf import Shelf
from tests.models.records import condition, jenny, snapshot

OFFICIAL: dict[str, Any] = {"what_if": {"screen": 0, "heart": 0, "bis": 0, "traz": 0}}
"""What the persona's published vector takes beside her record: found by symptoms, no dose at the heart."""


def test_persona_gets_the_numbers_of_the_official_program(scorer: Scorer) -> None:
    score = scorer.score(jenny(context=OFFICIAL))
    year_10 = {name: round(curve[9], 2) for name, curve in score.outputs.items()}
    assert year_10["survival_s"] == 86.67
    assert year_10["survival_rhc"] == 92.69
    assert year_10["breast_mortality_s"] == 10.50
    assert score.probability == pytest.approx(score.outputs["breast_mortality_s"][9] / 100, abs=1e-15)


def test_unstated_screening_is_unknown_and_moves_the_result(scorer: Scorer) -> None:
    unstated, symptoms, screening = (
        scorer.score(jenny(context=context)).outputs["survival_s"][9]
        for context in ({}, {"what_if": {"screen": 0}}, {"what_if": {"screen": 1}})
    )
    assert symptoms < unstated < screening


def test_unknown_smoking_lies_between_smoker_and_non_smoker(scorer: Scorer) -> None:
    smoker, unknown, never = (
        scorer.score(jenny(without=left_out, context=context)).outputs["survival_s"][9]
        for left_out, context in (("", {}), ("smoking", {}), ("", {"what_if": {"smoker": 0}}))
    )
    assert smoker < unknown < never


def test_abstention_says_why_and_has_no_number(scorer: Scorer) -> None:
    score = scorer.score(snapshot([]))
    assert score.abstained == "no invasive breast cancer is recorded"
    assert score.probability is None
    assert not score.outputs


def test_judgement_holds_everything_and_is_plain_json(scorer: Scorer) -> None:
    judgement = scorer.judge(jenny())
    assert judgement.vector("clinical").feature("size").value == 25.0
    assert json.loads(canonical(judgement.score.plain()))["model"] == "predict-breast@3.2.0"
    assert all(type(number) is float for curve in judgement.score.outputs.values() for number in curve)


def test_same_snapshot_gives_the_same_bits_after_a_round_trip(scorer: Scorer, predict_breast: ModelVersion) -> None:
    first = jenny(context=OFFICIAL)
    again = Snapshot.from_plain(json.loads(first.bytes))
    other = Scorer(predict_breast, Shelf().path(predict_breast))
    assert canonical(other.judge(again).score.plain()) == canonical(scorer.judge(first).score.plain())
    assert [v.plain() for v in other.judge(again).vectors] == [v.plain() for v in scorer.judge(first).vectors]


def test_facts_wanted_are_code_tokens(scorer: Scorer) -> None:
    wanted = scorer.facts_wanted()
    assert {"http://loinc.org|21889-1", "http://loinc.org|33728-7", "http://hl7.org/fhir/Patient|birthDate"} <= wanted
    assert all(fact.code.token in wanted for fact in jenny().facts)


@pytest.mark.parametrize("what_if", [{"grade": 7}, {"size": "900"}, {"nodes": True}, {"colour": 1}, {"year": 2030}])
def test_wrong_what_if_is_refused(scorer: Scorer, what_if: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="what-if"):
        scorer.score(jenny(context={"what_if": what_if}))


def test_model_made_with_another_encoder_is_refused(predict_breast: ModelVersion) -> None:
    part = {**predict_breast.manifest["modalities"][0], "encoder": "0" * 64}
    manifest = {**predict_breast.manifest, "modalities": [part]}
    other = ModelVersion("predict-breast", "3.2.0", manifest, "0" * 64, predict_breast.files)
    with pytest.raises(ContractMismatch, match="encoder of modality clinical"):
        Scorer(other, Shelf().path(predict_breast))


def test_model_with_an_unknown_modality_is_refused(predict_breast: ModelVersion, tmp_path: Path) -> None:
    part = {**predict_breast.manifest["modalities"][0], "name": "astrology"}
    other = ModelVersion("x", "1", {**predict_breast.manifest, "modalities": [part]}, "0" * 64, predict_breast.files)
    with pytest.raises(ContractMismatch, match="modality that this program does not have"):
        Scorer(other, tmp_path)


def test_two_tumours_abstain_and_the_choice_resolves_it(scorer: Scorer) -> None:
    right = condition(code="353511000119101", laterality="right", resource="Condition/other")
    assert scorer.score(jenny(also=[right])).abstained == "two tumours, none chosen"
