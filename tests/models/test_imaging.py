"""Nuclear morphometry: thirty features of one aspirate, in range, of somebody with breast cancer; else silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.explain import Explainer
from models.modalities import imaging
from models.nouns import Fact, Snapshot
from models.scoring import Scorer
from models.shelf import Shelf
from models.training import nuclear_morphometry as training
from models.training import release_nuclear_morphometry as release
from tests.models.records import NOW, condition, demographics, fact


@pytest.fixture(scope="module")
def nuclei() -> Scorer:
    model = Shelf().get("nuclear-morphometry")
    return Scorer(model, Shelf().path(model))


@pytest.fixture(scope="module")
def cohort() -> training.Cohort:
    return training.load()


def measured(values: list[float], *, effective: str = "2018-04-01", **instead: Any) -> list[Fact]:
    return [
        fact(
            imaging.SYSTEM,
            definition.name.replace("_", "-"),
            number=repr(value),
            **{"effective": effective, **instead.get(definition.name, {})},
        )
        for definition, value in zip(imaging.NUCLEAR, values, strict=True)
        if instead.get(definition.name, {}) is not None
    ]


def asked(*facts: Fact) -> Snapshot:
    every = Snapshot.ordered([*demographics(), *facts])
    return Snapshot("person-1", ("record-1",), NOW, NOW, "nuclear-morphometry@1.0.0", every, {})


def test_shipped_coefficients_are_fitted_again_from_the_package(cohort: training.Cohort) -> None:
    fitted, stated = training.fit(cohort, np.arange(len(cohort.months))), release.stated()
    names = [definition.name for definition in imaging.NUCLEAR]
    assert stated["intercept"] == pytest.approx(fitted.intercept, rel=1e-7)
    assert [stated["features"][name]["weight"] for name in names] == pytest.approx(fitted.weights.tolist(), rel=1e-6)
    assert [stated["features"][name]["centre"] for name in names] == pytest.approx(fitted.centres.tolist(), rel=1e-7)
    assert (stated["n"], stated["events"]) == (198, 29)


def test_graph_gives_the_logits_of_the_training_library(nuclei: Scorer, cohort: training.Cohort) -> None:
    fitted = training.fit(cohort, np.arange(len(cohort.months)))
    for row in cohort.x[:40]:
        score = nuclei.score(asked(condition(), *measured(row.tolist())))
        assert score.logit == pytest.approx(float(fitted(row)), abs=1e-6)
        assert not score.validated


def test_its_contributions_add_up_to_its_logit(nuclei: Scorer, cohort: training.Cohort) -> None:
    judgement = nuclei.judge(asked(condition(), *measured(cohort.x[0].tolist())))
    (explanation,) = Explainer(nuclei.model, Shelf().path(nuclei.model)).explain(judgement)
    weights = release.stated()["features"]
    assert explanation.base is not None
    assert explanation.base + sum(part.amount for part in explanation.parts) == pytest.approx(explanation.z, abs=1e-11)
    for part in explanation.parts:
        value = judgement.vector("imaging").feature(part.feature).value
        w = weights[part.feature]
        assert part.amount == pytest.approx(w["weight"] * (value - w["centre"]), abs=1e-11)
        assert len(part.sources) == 1


def test_silence_says_why(nuclei: Scorer, cohort: training.Cohort) -> None:
    values = cohort.x[0].tolist()
    reason = {
        "no breast cancer": asked(*measured(values)),
        "metastasis": asked(condition(), condition(code="94381002", resource="Condition/m"), *measured(values)),
        "one missing": asked(condition(), *measured(values, worst_area=None)),
        "two measurements": asked(condition(), *measured(values, mean_area={"effective": "2018-03-01"})),
        "old": asked(condition(), *measured(values, effective="2016-01-01")),
        "nothing": asked(),
    }
    told = {name: nuclei.score(snapshot).abstained for name, snapshot in reason.items()}
    assert told == {
        "no breast cancer": "no invasive breast cancer is recorded",
        "metastasis": "distant metastasis is recorded; the model was fitted on disease without it",
        "one missing": "required and not usable: nuclear area, worst",
        "two measurements": "the features are of several measurements",
        "old": told["old"],
        "nothing": "no invasive breast cancer is recorded",
    }
    assert str(told["old"]).startswith("required and not usable: nuclear radius, mean")


@pytest.mark.parametrize("number", ["-1", "NaN", "Infinity", "1e9"])
def test_what_is_no_measurement_is_not_taken(nuclei: Scorer, cohort: training.Cohort, number: str) -> None:
    facts = measured(cohort.x[0].tolist(), mean_area=None)
    score = nuclei.score(asked(condition(), *facts, fact(imaging.SYSTEM, "mean-area", number=number)))
    assert score.abstained == "required and not usable: nuclear area, mean"


def test_another_magnification_turns_it_off(nuclei: Scorer, cohort: training.Cohort) -> None:
    score = nuclei.score(asked(condition(), *measured((cohort.x[0] * 3).tolist())))
    assert score.probability is None
    assert "where the model was fitted: modality imaging is off" in str(score.abstained)


def test_dicom_features_have_names_codes_and_ranges_of_their_own() -> None:
    names = [definition.name for definition in (*imaging.NUCLEAR, *imaging.DICOM)]
    assert len(set(names)) == len(names) == 41
    assert all(definition.plausible and definition.codes.source for definition in imaging.DICOM)
