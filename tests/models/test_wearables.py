"""Glucose sensors: metrics of the consensus by hand-worked sequences, and silence below 70 % of fourteen days."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.codes import ICD10CM, LOINC
from models.nouns import Fact, Score, Snapshot
from models.scoring import Scorer
from models.shelf import Shelf
from tests.models.records import NOW, demographics, fact

END = datetime(2018, 6, 1, 12, tzinfo=UTC)
SLOTS = 14 * 24 * 4
"""Of a sensor that reads every 15 minutes."""


@pytest.fixture(scope="module")
def cgm() -> Scorer:
    model = Shelf().get("cgm-summary")
    return Scorer(model, Shelf().path(model))


def sensed(values: Sequence[float], *, unit: str = "mg/dL", minutes: int = 15, **members: Any) -> list[Fact]:
    code = "99504-3" if unit == "mg/dL" else "105272-9"
    return [
        fact(
            LOINC,
            code,
            number=str(value),
            unit=unit,
            effective=(END - timedelta(minutes=minutes * back)).isoformat().replace("+00:00", "Z"),
            **members,
        )
        for back, value in enumerate(values)
    ]


def asked(facts: Sequence[Fact], *, born: str = "1965-01-01") -> Snapshot:
    every = Snapshot.ordered([*demographics(born=born), *facts])
    return Snapshot("person-1", ("record-1",), NOW, NOW, "cgm-summary@1.0.0", every, {})


def values(cgm: Scorer, facts: Sequence[Fact]) -> dict[str, float]:
    return {feature.name: feature.value for feature in cgm.judge(asked(facts)).vector("wearables").features}


FIVE = [53.0, 54.0, 70.0, 180.0, 181.0, 250.0, 251.0, 120.0]
"""One of each: very low, low, three in range with both ends, two high, one very high."""


def test_ranges_hold_their_ends_as_the_consensus_has_them(cgm: Scorer) -> None:
    found = values(cgm, sensed(FIVE * (SLOTS // 8)))
    assert found["active"] == 100.0
    shares = {name: found[name] for name in ("below_54", "below_70", "in_range", "above_180", "above_250")}
    assert shares == {"below_54": 12.5, "below_70": 25.0, "in_range": 37.5, "above_180": 37.5, "above_250": 12.5}
    assert found["mean"] == pytest.approx(sum(FIVE) / 8)
    assert found["sd"] == pytest.approx(statistics.stdev(FIVE * (SLOTS // 8)))


def test_ends_in_mmol_are_those_of_the_consensus(cgm: Scorer) -> None:
    found = values(cgm, sensed([2.9, 3.0, 3.9, 10.0, 10.1, 13.9, 14.0, 6.0] * (SLOTS // 8), unit="mmol/L"))
    shares = {name: found[name] for name in ("below_54", "below_70", "in_range", "above_180", "above_250")}
    assert shares == {"below_54": 12.5, "below_70": 25.0, "in_range": 37.5, "above_180": 37.5, "above_250": 12.5}
    assert found["mean"] == pytest.approx(63.8 / 8 * 18.0182)


def score(cgm: Scorer, facts: Sequence[Fact], **person: str) -> Score:
    return cgm.score(asked(facts, **person))


def test_indicator_and_targets_without_a_probability(cgm: Scorer) -> None:
    told = score(cgm, sensed([100.0, 150.0, 200.0, 150.0] * (SLOTS // 4)))
    assert told.probability is None
    assert told.abstained is None
    assert told.outputs["summary"][0] == pytest.approx(3.31 + 0.02392 * 150)  # Bergenstal 2018: 150 mg/dL is 6.9 %
    assert told.outputs["summary"][1] == pytest.approx(100 * statistics.stdev([100, 150, 200, 150] * 336) / 150)
    assert told.outputs["targets"] == [1.0, 1.0, 1.0, 0.0, 1.0, 1.0]  # a quarter of the time above 180: not below 25 %


@pytest.mark.parametrize(("share", "speaks"), [(0.71, True), (0.69, False)])
def test_seventy_per_cent_of_fourteen_days(cgm: Scorer, share: float, speaks: bool) -> None:
    told = score(cgm, sensed([120.0, 130.0] * int(SLOTS * share / 2)))
    assert (told.abstained is None) == speaks
    assert speaks or told.abstained == "the sensor was active 69 % of 14 days; below 70 % nothing is concluded"


def test_a_sensor_of_five_minutes_needs_three_times_the_readings(cgm: Scorer) -> None:
    assert score(cgm, sensed([120.0, 130.0] * (SLOTS // 2), minutes=5)).abstained is not None
    assert score(cgm, sensed([120.0, 130.0] * (SLOTS * 3 // 2), minutes=5)).abstained is None


def test_what_cannot_be_used_is_told_and_not_counted(cgm: Scorer) -> None:
    facts = sensed([120.0, 130.0] * (SLOTS // 2 - 4))
    bad = [
        *sensed([5.0, 700.0], minutes=15 * (SLOTS - 2)),
        *sensed([121.0], status="preliminary"),
        *sensed([999.0], comparator=">"),
    ]
    judgement = cgm.judge(asked([*facts, *bad]))
    vector = judgement.vector("wearables")
    assert any("could not be used" in caution for caution in vector.cautions)
    assert len(vector.features[0].facts) == len(facts)
    twice = cgm.judge(asked([*facts, *sensed([300.0])])).vector("wearables")
    assert twice.cautions == ("at 1 moments two readings disagree; neither is used",)
    assert len(twice.features[0].facts) == len(facts) - 1
    again = cgm.judge(asked([*facts, *sensed([120.0])])).vector("wearables")
    assert (again.cautions, len(again.features[0].facts)) == ((), len(facts))


def test_silence_says_why(cgm: Scorer) -> None:
    facts = sensed([120.0, 130.0] * (SLOTS // 2))
    pregnant = fact(ICD10CM, "Z34.90", kind="condition", status="confirmed/active", effective="2018-03-01")
    assert score(cgm, []).abstained == "no glucose readings of a sensor within 14 days"
    assert score(cgm, facts, born="2010-01-01").abstained == "the targets are for persons of 18 to 120 years"
    assert score(cgm, [*facts, pregnant]).abstained == "pregnancy is recorded; the consensus has other ranges for it"
    old = [f for f in facts if f.effective and f.effective < "2018-05-20"]
    assert "nothing is concluded" in str(score(cgm, old).abstained)
