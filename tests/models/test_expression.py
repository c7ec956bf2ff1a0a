"""The expression subtype: one coded result; what is not on the list is no answer."""

from __future__ import annotations

from typing import Any

import pytest

from models.modalities import expression
from models.nouns import FeatureVector
from models.shelf import Shelf
from tests.models.genomics import concept, read, subtype
from tests.models.records import jenny

PART: dict[str, Any] = next(
    part for part in Shelf().get("metabric-genomic").manifest["modalities"] if part["name"] == "expression"
)


def encode(*resources: dict[str, Any]) -> FeatureVector:
    return expression.encode(jenny(also=read(*resources)), PART)


@pytest.mark.parametrize("name", expression.SUBTYPES)
def test_each_subtype_raises_its_own_flag(name: str) -> None:
    vector = encode(subtype(name))
    assert [feature.name for feature in vector.features if feature.value == 1.0] == [name]
    assert sum(feature.value for feature in vector.features) == 1.0
    assert vector.feature(name).label == expression.TITLES[name]
    assert vector.feature(name).facts == ("genomics/0/#0",)


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (subtype("LumC"), "answer not recognised"),
        (subtype("NC"), "an equivocal or unknown answer says nothing"),
        (subtype("LumA", status="preliminary"), "not final"),
        (subtype("LumA", effectiveDateTime="2030-01-01"), "future"),
        (subtype("LumA", effectiveDateTime="2014-01-01"), "long before the diagnosis"),
        (subtype("LumA", valueCodeableConcept=concept("urn:somebody:else", "LumA")), "answer not recognised"),
        (subtype("LumA", valueCodeableConcept={"text": "luminal A"}), "free text"),
    ],
    ids=["another code", "not classified", "preliminary", "future", "old", "another system", "words"],
)
def test_what_is_no_answer_is_said_so(result: dict[str, Any], why: str) -> None:
    vector = encode(result)
    assert not vector.features
    assert vector.absent is not None
    assert vector.absent.startswith("no expression subtype is known; ")
    assert why in vector.absent


def test_results_of_one_day_that_disagree_are_no_answer() -> None:
    vector = encode(subtype("LumA", id="a"), subtype("Basal", id="b"))
    assert vector.absent == "no expression subtype is known; results of the same day disagree"


def test_result_of_another_tumour_is_not_read() -> None:
    assert encode(subtype("LumA", focus=[{"reference": "Condition/other"}])).absent == "no expression subtype is known"


def test_value_set_states_its_scope() -> None:
    stated = PART["features"][0]["codes"]
    assert "No public FHIR example" in stated["scope"]
    assert set(PART["columns"]) == set(expression.SUBTYPES)
