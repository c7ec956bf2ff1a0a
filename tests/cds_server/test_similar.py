"""Similar patients: the nearest are the nearest, nobody is shown alone, and who may not be counted is not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from cds_server.erasure import erase
from cds_server.settings import Settings
from cds_server.similar.groups import STAGE, SUBTYPE, groups_of
from cds_server.similar.pool import Member, Near, Pool
from models.nouns import Feature, FeatureVector
from smart_app.desk import Role
from smart_app.similar import Asked, Share, wilson
from tests.cds_server.case_app import NAMESPACE, PROGNOSIS
from tests.cds_server.similar_house import House, deceased, hook, made

MODALITIES = {"clinical": 6, "genomic": 4}


def vector(modality: str, values: Sequence[float], *, encoder: str = "e" * 64, absent: str | None = None) -> Any:
    features = tuple(Feature(f"f{n}", float(v), math.isnan(v)) for n, v in enumerate(values))
    return FeatureVector(modality, encoder, features, absent)


def members(count: int, seed: int = 1) -> list[Member]:
    rng = np.random.default_rng(seed)
    found = []
    for n in range(count):
        vectors = []
        for modality, width in MODALITIES.items():
            values = rng.normal(10, 3, width).round(1)
            values[rng.random(width) < 0.25] = math.nan
            values[-1] = 7.0  # a governed parameter: the same for everybody
            if rng.random() < 0.8:
                vectors.append(vector(modality, values.tolist()))
            else:
                vectors.append(vector(modality, [], absent="not there"))
        found.append(Member(n + 1, n + 1, tuple(vectors), 0.1, {"stage": ("I", "II")[n % 2]} if n % 3 else {}))
    return found


def plainly(pool: Sequence[Member], one: Member) -> list[tuple[float, int]]:
    """The stated rule, feature by feature."""
    columns: dict[tuple[str, str], list[float]] = {}
    for member in pool:
        for each in member.vectors:
            for feature in () if each.absent else each.features:
                if not feature.missing:
                    columns.setdefault((each.modality, feature.name), []).append(feature.value)
    scale = {
        key: (float(np.mean(values)), float(np.std(values))) for key, values in columns.items() if np.std(values) > 1e-9
    }

    def standard(member: Member) -> dict[str, dict[str, float]]:
        return {
            each.modality: {
                feature.name: (feature.value - scale[each.modality, feature.name][0])
                / scale[each.modality, feature.name][1]
                for feature in each.features
                if not feature.missing and (each.modality, feature.name) in scale
            }
            for each in member.vectors
            if each.absent is None
        }

    own, found = standard(one), []
    needed = sum(map(len, own.values()))
    for member in pool:
        other = standard(member)
        apart = [
            [(own[m][name] - other[m][name]) ** 2 for name in own[m].keys() & other[m].keys()]
            for m in own.keys() & other.keys()
        ]
        if 2 * sum(map(len, apart)) >= needed and any(apart):
            found.append((math.sqrt(np.mean([np.mean(each) for each in apart if each])), member.record))
    return sorted(found)


# ---- the pool --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_nearest_are_those_of_the_stated_rule(seed: int) -> None:
    everybody = members(700, seed)
    pool = Pool()
    pool.put(everybody[:400])
    pool.put(everybody[400:])
    for one in everybody[:: 700 // 9]:
        if all(each.absent for each in one.vectors):
            assert pool.nearest(one.vectors, 20, {}) == ([], 0)
            continue
        near, compared = pool.nearest(one.vectors, 20, {})
        expected = plainly(everybody, one)
        assert compared == len(expected)
        assert [each.distance for each in near] == pytest.approx([each for each, _ in expected[:20]], abs=1e-6)
        assert one.record in {each.record for each in near if each.distance == 0}


def test_filters_and_refusals_go_on_to_the_next_nearest() -> None:
    everybody = members(300)
    pool = Pool()
    pool.put(everybody)
    one = next(
        each for each in everybody if each.groups.get("stage") == "I" and not any(v.absent for v in each.vectors)
    )
    stage = {each.record for each in everybody if each.groups.get("stage") == "I"}
    expected = [record for _, record in plainly(everybody, one) if record in stage and record % 5]
    near, compared = pool.nearest(one.vectors, 40, {"stage": "I"}, lambda each: each.record % 5 != 0)
    assert [each.record for each in near] == expected[:40]
    assert compared == len([1 for _, record in plainly(everybody, one) if record in stage])
    assert pool.nearest(one.vectors, 5, {"stage": "IV"}) == ([], 0)
    assert pool.groups("stage") == {"II": 100, "I": 100}
    asked: list[Near] = []

    def takes(each: Near) -> bool:
        asked.append(each)
        return True

    pool.nearest(one.vectors, 3, {}, takes)
    assert len(asked) == 3, "nobody is looked at who is not needed"


def test_a_newer_inference_takes_the_place_of_its_records_older_one_and_other_encoders_are_not_compared() -> None:
    pool = Pool()
    pool.put([Member(n, n, (vector("clinical", [n, 2 * n]),)) for n in range(1, 31)])
    pool.put([Member(100, 7, (vector("clinical", [1000, 1000]),)), Member(3, 7, (vector("clinical", [7, 14]),))])
    assert len(pool) == 30
    assert pool.newest(7) == 100
    near, _ = pool.nearest((vector("clinical", [7, 14]),), 2, {})
    assert {each.record for each in near} == {6, 8}
    assert pool.nearest((vector("clinical", [7, 14], encoder="f" * 64),), 2, {}) == ([], 0)
    pool.put([Member(200, 6, (vector("clinical", [], absent="gone"),))])
    near, compared = pool.nearest((vector("clinical", [6, 12]),), 1, {})
    assert (near[0].record, compared) == (5, 29)


def test_subtype_and_stage_come_of_the_numbers_that_the_model_read() -> None:
    def told(**values: float) -> Any:
        return groups_of(
            [FeatureVector("clinical", "e", tuple(Feature(name, value, False) for name, value in values.items()))]
        )

    assert told(er=1, her2=0, size=20, nodes=0) == {SUBTYPE: "er", STAGE: "I"}
    assert told(er=0, her2=0, size=21, nodes=0) == {SUBTYPE: "neither", STAGE: "II"}
    assert told(er=0, her2=1, size=50, nodes=3) == {SUBTYPE: "her2", STAGE: "II"}
    assert told(her2=0, size=51, nodes=1) == {STAGE: "III"}
    assert told(er=1, size=51, nodes=0) == {STAGE: "II"}
    assert told(size=5, nodes=10) == {STAGE: "III"}
    assert told(size=5) == {}
    assert told(er=1, her2=9) == {}


# ---- what is told ----------------------------------------------------------------------------------------------------


def test_the_interval_is_wilsons() -> None:
    """Newcombe, Stat Med 1998; 17: 857, table I, method 3: 81/263, 15/148, 0/20, 1/29."""
    for count, of, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(count, of) == pytest.approx((low, high), abs=5e-5)


def test_no_small_count_is_told_nor_one_that_is_left_by_taking_away() -> None:
    assert Share.counted("x", 20, 40).count == 20
    assert Share.counted("x", 0, 40).count == 0
    assert Share.counted("x", 40, 40).count == 40
    assert Share.counted("x", 10, 40).count is None
    assert Share.counted("x", 30, 40).count is None
    assert Share.counted("x", 0, 10).count is None
    assert Share.counted("x", 3, 10).of == 0


def test_a_form_says_what_it_can_say() -> None:
    assert Asked.of({"many": ["100"], "stage": ["1"]}) == Asked(100, subtype=False, stage=True)
    assert Asked.of({"many": ["1"], "subtype": ["x"], "other": ["1"]}) == Asked()


# ---- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    found = made(tmp_path_factory.mktemp("similar"))
    yield found
    found.close()


def test_the_page_counts_the_nearest_and_names_nobody(house: House) -> None:
    answer = house.page()
    assert answer.status_code == 200, answer.text
    text = answer.text
    assert "The nearest 14 of 14" in text
    assert "No outcome has landed for any of these patients." in text
    assert "ER positive, HER2 negative" in text
    assert "Maria" in text
    assert "Your session" not in text
    assert not any(f"pat-{number}" in text for number in range(2, 16))
    assert "MRN3-" not in text
    rows = house.parts.store.reads.query("SELECT act, outcome FROM access ORDER BY id")
    assert tuple(rows[-1]) == ("similar", "seen")
    assert answer.headers["cache-control"] == "no-store"


def test_who_has_no_role_or_no_inference_sees_no_count(house: House) -> None:
    assert house.page(roles=frozenset()).status_code == 403
    assert house.page(roles=frozenset({Role.DATA_SCIENTIST})).status_code == 403
    assert tuple(house.parts.store.reads.query("SELECT act, outcome FROM access ORDER BY id")[-1]) == (
        "similar",
        "refused",
    )
    house.land({"resourceType": "Patient", "id": "nobody-yet", "gender": "female"})
    assert "Nothing was estimated for this patient so far" in house.page("nobody-yet").text


def test_filters_that_leave_few_tell_nothing(house: House) -> None:
    text = house.page("pat-14", "?stage=1&many=25").text
    assert "Fewer than 11 patients can be compared with this one under these filters" in text
    assert "What became of them" not in text
    assert "The nearest 14 of 14" in house.page(query="?subtype=1").text
    assert "The nearest 11 of 11" in house.page(query="?stage=1").text


def test_outcomes_are_counted_of_those_for_whom_they_are_on_record(house: House) -> None:
    house.land(*(deceased(number, dead=False) for number in range(2, 15)))
    text = house.page().text
    assert "Died" in text
    assert "0 of 13" in text
    low, high = wilson(0, 13)
    assert f"{100 * low:.0f}–{100 * high:.0f} %" in text
    house.land(*({**deceased(number, dead=True)} for number in range(2, 6)))
    text = house.page().text
    assert "fewer than 11, or all but fewer than 11: not shown" in text
    assert "4 of 13" not in text


def test_who_opted_out_is_withheld_or_erased_is_not_counted(house: House) -> None:
    consent = {
        "resourceType": "Consent",
        "id": "no-15",
        "status": "active",
        "scope": {"coding": [{"code": "patient-privacy"}]},
        "category": [{"coding": [{"code": "INFA"}]}],
        "patient": {"reference": "Patient/pat-15"},
        "policyRule": {"coding": [{"code": "OPTOUT"}]},
    }
    house.land(consent)
    assert "The nearest 13 of 14" in house.page().text
    restricted = {
        **hook(14)["prefetch"]["patient"],
        "meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]},
    }
    house.land(restricted)
    assert "The nearest 12 of 14" in house.page().text
    record = house.parts.store.reads.record(NAMESPACE, "pat-13")
    assert record is not None
    erase(house.parts.store, record, "asked for it in writing", "user:test")
    assert "The nearest 11 of 14" in house.page().text


def test_what_was_not_read_yet_is_said(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    gathering = house.patients.desk.gathering
    monkeypatch.setattr(type(gathering), "catch_up", lambda *_: False)
    monkeypatch.setattr(type(gathering), "begin", lambda _: None)
    assert house.server.post(PROGNOSIS, json=hook(20)).status_code == 200
    assert "have not been read yet" in house.page().text
    monkeypatch.undo()
    gathering._all()
    assert gathering.left() == 0
    assert asyncio.run(house.patients.desk.similar(house.sessions.open(house.parts, "pat-1"), Asked())).left == 0


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_the_same_over_postgresql(settings: Settings) -> None:
    house = House(settings)
    try:
        house.land(*(deceased(number, dead=False) for number in range(2, 15)))
        text = house.page(query="?subtype=1").text
        assert "The nearest 14 of 14" in text
        assert "0 of 13" in text
    finally:
        house.close()
