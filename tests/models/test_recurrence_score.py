"""The fused model on a person: every pattern, what is missing and what it could move, and when a modality is off."""

from __future__ import annotations

import itertools
import json
import math

import pytest

from models.canonical import canonical
from models.codes import LOINC
from models.modalities import mutation
from models.nouns import Fact, ModelVersion, Snapshot
from models.scoring import Scorer
from models.shelf import Shelf
from tests.models.genomics import TP53, read, region, subtype, variant
from tests.models.records import demographics, fact, jenny, snapshot

NAMES = ("clinical", "expression", "mutation")
PATTERNS = [frozenset(kept) for n in (1, 2, 3) for kept in itertools.combinations(NAMES, n)]


@pytest.fixture(scope="module")
def model() -> ModelVersion:
    return Shelf().get("breast-cancer-recurrence")


@pytest.fixture(scope="module")
def fused(model: ModelVersion) -> Scorer:
    return Scorer(model, Shelf().path(model))


@pytest.fixture(scope="module")
def panel(model: ModelVersion) -> list[Fact]:
    genes = [gene["name"] for gene in model.manifest["modalities"][2]["genes"]]
    return read(region([mutation.GENES[name] for name in genes]), variant(TP53))


def person(pattern: frozenset[str], panel: list[Fact]) -> Snapshot:
    """The persona with what the pattern asks for: without a node count and category the clinical modality is silent."""
    also = [*(read(subtype("LumB")) if "expression" in pattern else []), *(panel if "mutation" in pattern else [])]
    return jenny(without="" if "clinical" in pattern else "nodes pn", also=also)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: "+".join(sorted(pattern)))
def test_every_pattern_scores_and_adds_up(fused: Scorer, panel: list[Fact], pattern: frozenset[str]) -> None:
    score = fused.score(person(pattern, panel))
    assert score.abstained is None
    assert {part.modality for part in score.contributions if part.z is not None} == pattern
    total = score.base
    for part in score.contributions:
        total += part.amount
    assert total == score.logit
    assert {move.modality for move in score.moves} == set(NAMES) - pattern
    assert [move.half_width for move in score.moves] == sorted((m.half_width for m in score.moves), reverse=True)
    assert (score.interval is None) == (len(pattern) == 3)
    assert score.band is not None
    assert score.band[0] < (score.probability or 0) < score.band[1]
    assert score.validated


def test_nothing_known_abstains_once_per_reason(fused: Scorer) -> None:
    score = fused.score(snapshot([]))
    assert score.abstained == "no invasive breast cancer is recorded"
    assert score.probability is None


def test_range_is_widest_without_the_clinical_modality(fused: Scorer, panel: list[Fact]) -> None:
    def width(*pattern: str) -> float:
        low, high = fused.score(person(frozenset(pattern), panel)).interval or (0.0, 0.0)
        return math.log(high / (1 - high)) - math.log(low / (1 - low))

    assert width("clinical", "expression") < width("clinical") < width("expression", "mutation") < width("mutation")


def test_the_missing_test_that_would_move_the_answer_most_comes_first(fused: Scorer, panel: list[Fact]) -> None:
    alone = fused.score(person(frozenset({"clinical"}), panel))
    assert [move.modality for move in alone.moves] == ["expression", "mutation"]
    low, high = alone.range_after(alone.moves[0])
    assert low < (alone.probability or 0) < high


def test_size_outside_what_was_fitted_turns_the_clinical_modality_off_visibly(fused: Scorer, panel: list[Fact]) -> None:
    large = fact(LOINC, "33728-7", number="200", unit="mm")
    judgement = fused.judge(jenny(size=large, also=[*read(subtype("LumB")), *panel]))
    vector = judgement.vector("clinical")
    assert vector.absent == (
        "tumour size (mm) is outside 1 to 182, where the model was fitted: modality clinical is off"
    )
    assert vector.feature("size").value == 200.0
    assert [part.modality for part in judgement.score.contributions if part.z is None] == ["clinical"]
    assert fused.score(jenny(size=large)).abstained is not None


@pytest.mark.parametrize("also", [False, True])
def test_a_man_is_refused_by_every_modality(fused: Scorer, panel: list[Fact], also: bool) -> None:
    born, man = demographics(sex="male")
    genomic = [*read(subtype("LumB")), *panel] if also else []
    assert fused.score(jenny(born=born, sex=man, also=genomic)).abstained == "the equation holds for women only"


def test_age_beyond_predict_leaves_genomics_to_speak(fused: Scorer, panel: list[Fact]) -> None:
    born, _ = demographics(born="1925-01-01")
    judgement = fused.judge(jenny(born=born, also=panel))
    assert judgement.vector("clinical").absent == "the equation holds for an age of 25 to 85 years at diagnosis"
    assert judgement.score.contributions[2].z is not None


def test_year_is_a_governed_parameter_that_no_request_changes(fused: Scorer) -> None:
    year = fused.judge(jenny()).vector("clinical").feature("year")
    assert (year.value, year.facts) == (2000.0, ())
    assert "recalibration was fitted with" in year.label


def test_same_snapshot_gives_the_same_bits_after_a_round_trip(model: ModelVersion, panel: list[Fact]) -> None:
    first = person(frozenset(NAMES), panel)
    again = Snapshot.from_plain(json.loads(first.bytes))
    one, other = (Scorer(model, Shelf().path(model)).judge(each) for each in (first, again))
    assert canonical(one.score.plain()) == canonical(other.score.plain())
    assert [vector.plain() for vector in one.vectors] == [vector.plain() for vector in other.vectors]


def test_genomic_model_stands_alone(panel: list[Fact]) -> None:
    version = Shelf().get("metabric-genomic")
    score = Scorer(version, Shelf().path(version)).score(jenny(without="nodes pn size grade er", also=panel))
    assert score.abstained is None
    assert [part.modality for part in score.contributions] == ["expression", "mutation"]
    assert [move.modality for move in score.moves] == ["expression"]
