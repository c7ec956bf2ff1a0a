"""What each input did: amounts that add up where the equation is additive, single questions where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.canonical import canonical
from models.errors import ContractMismatch, ModelFault
from models.explain import Explainer, Explanation, why_no_band
from models.modalities import mutation
from models.nouns import ModelVersion
from models.scoring import Scorer
from models.shelf import Shelf
from tests.models import third_party
from tests.models.genomics import TP53, read, region, subtype, variant
from tests.models.records import jenny
from tests.models.test_enrolment import asked, blood, enrolled


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    model = Shelf().get("predict-breast", "3.2.0")
    return Explainer(model, Shelf().path(model))


def predict(explainer: Explainer, scorer: Scorer, **context: Any) -> Explanation:
    (explanation,) = explainer.explain(scorer.judge(jenny(context=context)))
    return explanation


def test_predict_answers_single_questions(explainer: Explainer, scorer: Scorer) -> None:
    explanation = predict(explainer, scorer)
    amounts = {part.feature: part.amount for part in explanation.parts}
    assert set(amounts) == {"size", "nodes", "grade", "her2", "ki67", "pr"}
    assert explanation.kind == "what-if"
    assert explanation.base is None
    assert amounts["nodes"] == amounts["ki67"] == 0.0  # she has no positive node, and Ki-67 is unknown
    assert amounts["size"] > 0 > amounts["her2"]
    assert amounts["pr"] > 0 > amounts["grade"]
    assert [abs(part.amount) for part in explanation.parts] == sorted(map(abs, amounts.values()), reverse=True)


@pytest.mark.parametrize(("column", "reference"), [("size", 20), ("grade", 9), ("her2", 9), ("pr", 9)])
def test_an_amount_is_what_a_what_if_score_says(
    explainer: Explainer, scorer: Scorer, column: str, reference: float
) -> None:
    explanation = predict(explainer, scorer)
    part = next(part for part in explanation.parts if part.feature == column)
    changed = scorer.score(jenny(context={"what_if": {column: reference}}))
    told = scorer.score(jenny())
    assert told.logit is not None
    assert changed.logit is not None
    assert part.amount == told.logit - changed.logit
    assert told.probability is not None
    assert changed.probability is not None
    assert explanation.points(part) == pytest.approx(100 * (told.probability - changed.probability), abs=1e-9)


def test_every_amount_leads_to_its_facts_and_landings(explainer: Explainer, scorer: Scorer) -> None:
    judgement = scorer.judge(jenny())
    (explanation,) = explainer.explain(judgement)
    facts = {fact.id: fact for fact in judgement.snapshot.facts}
    for part in explanation.parts:
        assert tuple(facts[one].source for one in part.facts) == part.sources
        assert bool(part.facts) == (not part.missing)
    size = next(part for part in explanation.parts if part.feature == "size")
    assert size.sources[0].landing == "landing"
    assert size.label == "25 mm"
    assert canonical(explanation.plain())


def test_predict_has_no_band_and_says_why(explainer: Explainer) -> None:
    assert why_no_band(explainer.model) == "PREDICT publishes no band of uncertainty, so none is drawn"


def test_nothing_is_explained_where_nothing_was_said(explainer: Explainer, scorer: Scorer) -> None:
    assert explainer.explain(scorer.judge(jenny(without="tumour"))) == ()


# ---- additive --------------------------------------------------------------------------------------------------------

REFERENCE = {"age": 50, "haemoglobin": 13, "platelets": 250}


def vendor(tmp_path: Path, **explain: Any) -> tuple[Scorer, Explainer]:
    stated = third_party.manifest()
    stated["modalities"][0]["explain"] = {"kind": "additive", "reference": REFERENCE, "text": "means", **explain}
    scorer = enrolled(tmp_path / "shelf", third_party.put(tmp_path / "vendor", stated))
    return scorer, Explainer(scorer.model, tmp_path / "shelf" / "acme-anaemia" / "1.0.0")


def test_amounts_of_an_additive_model_add_up_to_its_logit(tmp_path: Path) -> None:
    scorer, explainer = vendor(tmp_path)
    judgement = scorer.judge(asked(blood()))
    (explanation,) = explainer.explain(judgement)
    amounts = {part.feature: part.amount for part in explanation.parts}
    for name, weight, value in zip(third_party.COLUMNS, third_party.WEIGHTS, (53, 9.5, 250), strict=True):
        assert amounts[name] == pytest.approx(weight * (value - REFERENCE[name]), abs=1e-12)
    assert explanation.base is not None
    assert explanation.base + sum(amounts.values()) == pytest.approx(explanation.z, abs=1e-12)
    assert explanation.z == judgement.score.logit


def test_who_calls_itself_additive_and_is_not_is_found_out(scorer: Scorer, predict_breast: ModelVersion) -> None:
    part = predict_breast.manifest["modalities"][0]
    stated = {**part, "explain": {**part["explain"], "kind": "additive"}}
    model = ModelVersion(
        predict_breast.name,
        predict_breast.version,
        {**predict_breast.manifest, "modalities": [stated]},
        predict_breast.manifest_digest,
        predict_breast.files,
    )
    with pytest.raises(ModelFault, match="calls itself additive"):
        Explainer(model, Shelf().path(predict_breast)).explain(scorer.judge(jenny()))


@pytest.mark.parametrize(
    ("explain", "why"),
    [
        ({"kind": "magic"}, "neither additive nor what-if"),
        ({"reference": {"colour": 1}}, "a column that the graph does not have"),
        ({"reference": {"haemoglobin": 99}}, "haemoglobin is not between 3 and 25"),
    ],
)
def test_wrong_references_are_refused(tmp_path: Path, explain: dict[str, Any], why: str) -> None:
    with pytest.raises(ContractMismatch, match=why):
        vendor(tmp_path, **explain)


# ---- the fused model -------------------------------------------------------------------------------------------------


def test_each_modality_of_the_fused_model_is_taken_apart() -> None:
    model = Shelf().get("breast-cancer-recurrence")
    fused, explainer = Scorer(model, Shelf().path(model)), Explainer(model, Shelf().path(model))
    genes = {gene["name"]: gene["prevalence"] for gene in model.manifest["modalities"][2]["genes"]}
    panel = read(region([mutation.GENES[name] for name in genes]), variant(TP53))
    judgement = fused.judge(jenny(also=[*read(subtype("LumB")), *panel]))
    told = {explanation.modality: explanation for explanation in explainer.explain(judgement)}
    assert [told[name].kind for name in ("clinical", "expression", "mutation")] == ["what-if", "additive", "additive"]
    z = {part.modality: part.z for part in judgement.score.contributions}
    for name in ("expression", "mutation"):
        weights = next(p for p in model.manifest["modalities"] if p["name"] == name)["coefficients"]["weights"]
        explanation = told[name]
        assert explanation.z == z[name]
        assert explanation.base is not None
        total = explanation.base + sum(part.amount for part in explanation.parts)
        assert total == pytest.approx(explanation.z, abs=1e-12)
        for part in explanation.parts:
            value = judgement.vector(name).feature(part.feature).value
            assert part.amount == pytest.approx(weights[part.feature] * (value - part.reference), abs=1e-12)
    first = told["mutation"].parts[0]
    assert (first.feature, len(first.sources)) == ("TP53", len(first.facts))
    assert first.facts
    assert [part.feature for part in told["expression"].parts if part.amount] == ["LumB"]
    assert why_no_band(model) is None
