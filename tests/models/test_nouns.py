"""Nouns are checked at birth, and come back from their plain form as they were."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from models.canonical import canonical
from models.nouns import (
    Coding,
    Contribution,
    Fact,
    Feature,
    FeatureVector,
    Judgement,
    LandingMeta,
    ModelVersion,
    Score,
    Snapshot,
    instant,
)
from tests.models.records import NOW, fact, jenny, persona

ONE = (Coding("s", "one"),)


def test_instants_are_utc_text_that_sorts_as_time() -> None:
    moment = datetime(2026, 11, 21, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    assert instant(moment) == "2026-11-21T10:00:00.000000Z"
    assert instant(moment) < instant(moment.astimezone(UTC) + timedelta(microseconds=1))
    with pytest.raises(ValueError, match="without a zone"):
        instant(datetime(2026, 11, 21))  # noqa: DTZ001  the point


@pytest.mark.parametrize("name", sorted(persona()))
def test_fact_comes_back_from_its_canonical_bytes(name: str) -> None:
    known = persona()[name]
    assert Fact.from_plain(json.loads(canonical(known.plain()))) == known


def test_full_fact_comes_back() -> None:
    full = fact(
        "http://loinc.org", "85330-9", number="20", unit="%", comparator=">", original="> 20 %", problem="p",
        absent_reason="unknown", effective_end="2018-04-02", focus=("Condition/a", "Condition/b"),
        body_site=(Coding("s", "c", "Left breast"),), laterality="left", method=(Coding("s", "m"),),
        specimen="Specimen/1", labels=("R",), test=True,
    )  # fmt: skip
    assert Fact.from_plain(json.loads(canonical(full.plain()))) == full


def test_snapshot_comes_back_and_keeps_its_bytes() -> None:
    given = jenny(context={"focus": "Condition/primary", "what_if": {"screen": 0}})
    again = Snapshot.from_plain(json.loads(given.bytes))
    assert again == given
    assert again.bytes == given.bytes


def test_snapshot_out_of_order_is_refused() -> None:
    facts = tuple(reversed(jenny().facts))
    with pytest.raises(ValueError, match="ordered"):
        Snapshot("p", ("r",), NOW, NOW, "m@1", facts)


def test_fact_has_a_code_and_at_most_one_value() -> None:
    with pytest.raises(ValueError, match="has a code"):
        fact("s", "c", codings=())
    for two in ({"number": "1", "text": "one"}, {"number": "1", "coded": ONE}, {"coded": ONE, "text": "one"}):
        with pytest.raises(ValueError, match="one value"):
            fact("s", "c", **two)


@pytest.mark.parametrize("text", ["2026-11-21", "2026-11-21T10:00:00Z", "2026-11-21T10:00:00.000000+00:00", ""])
def test_landing_needs_an_instant(text: str) -> None:
    with pytest.raises(ValueError, match="received_at is not an instant"):
        LandingMeta("s", "n", "application/json", text)


def test_feature_without_a_number_is_marked_missing() -> None:
    with pytest.raises(ValueError, match="not marked missing"):
        Feature("size", math.nan, False)
    with pytest.raises(ValueError, match="infinite"):
        Feature("size", math.inf, False)
    assert Feature("size", math.nan, True).plain() == {"name": "size", "missing": True, "label": ""}


def test_score_adds_up_or_is_refused() -> None:
    parts = (Contribution("a", 1.0, 0.1), Contribution("b", 1.0, 0.2))
    assert Score("m@1", None, 0.1 + 0.2, 0.57, 0.0, parts).logit == 0.1 + 0.2
    with pytest.raises(ValueError, match="do not add up"):
        Score("m@1", None, 0.3, 0.57, 0.0, parts)
    with pytest.raises(ValueError, match="has no number"):
        Score("m@1", "no tumour", 0.3, 0.57)
    with pytest.raises(ValueError, match="has a logit"):
        Score("m@1", None)


NUMBERS = (0.0, -0.0, 53.0, 0.25, -1.0, -0.5, 1e-5, 3e-7, 1e15, 1e22, 2.0**53, 5e-324, np.float64(0.1), np.float64(2.0))


@given(st.lists(st.one_of(st.floats(allow_infinity=False), st.sampled_from(NUMBERS)), max_size=6))
@example(NUMBERS)
@pytest.mark.parametrize("name", ["survival", "\ue000", "\U0001f600"])
def test_what_an_inference_seals_is_canonical_whatever_its_numbers_are(name: str, numbers: Sequence[float]) -> None:
    features = tuple(
        Feature(f"n{place}", number, math.isnan(number), ("a/0/#0",) * (place % 2), f"{number:g}", note="\u00e9")
        for place, number in enumerate(numbers)
    )
    vectors = (FeatureVector("clinical", "e", features, cautions=("mind",)), FeatureVector("notes", "e", (), "none"))
    curves = {"all": [float(each) for each in numbers if math.isfinite(each)], name: [0.25, 1e-5], "none": []}
    score = Score("m@1", None, 1.0, 0.7, 0.5, (Contribution("clinical", 0.5, 0.5),), outputs=curves)
    judgement = Judgement(jenny(), vectors, ModelVersion("m", "1", {}, "", {}), score)
    assert judgement.bytes == rfc8785.dumps({"vectors": [v.plain() for v in vectors], "score": score.plain()})


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_an_output_that_is_no_number_is_never_sealed(number: float) -> None:
    score = Score("m@1", None, outputs={"curve": [0.5, number]})
    with pytest.raises(ValueError):
        _ = Judgement(jenny(), (), ModelVersion("m", "1", {}, "", {}), score).bytes
