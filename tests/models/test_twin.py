"""The whole path with what a package ships: fit, graphs, head, scorer, score, and two cohorts abroad."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from models.errors import BadInput
from models.nouns import Fact, ModelVersion, Snapshot
from models.scoring import Scorer
from models.shelf import Shelf, problems
from models.training import packaged, statistics, twin
from models.training.twin import CLINICAL, MODALITIES, SIGNATURE
from tests.models.records import NOW, demographics, fact

PATTERNS = [frozenset(kept) for size in (1, 2) for kept in itertools.combinations(MODALITIES, size)]


@pytest.fixture(scope="module")
def genes() -> tuple[str, ...]:
    return twin.shared("gse1992")


@pytest.fixture(scope="module")
def cohort(genes: tuple[str, ...]) -> twin.Cohort:
    return twin.nki70(genes)


@pytest.fixture(scope="module")
def fitted(cohort: twin.Cohort, genes: tuple[str, ...]) -> twin.Fitted:
    return twin.fit(cohort, genes)


@pytest.fixture(scope="module")
def made(fitted: twin.Fitted, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scorer]:
    root = tmp_path_factory.mktemp("shelf")
    twin.write(root, fitted)
    model = Shelf([root]).get(twin.NAME)
    return root, Scorer(model, Shelf([root]).path(model))


def person(cohort: twin.Cohort, row: int, columns: dict[str, list[str]], pattern: frozenset[str]) -> Snapshot:
    facts: list[Fact] = demographics()
    for name in pattern:
        for column, value in zip(columns[name], cohort.x[name][row].tolist(), strict=True):
            facts.append(fact(twin.SYSTEM, column, number=repr(value)))
    return Snapshot("person-1", ("record-1",), NOW, NOW, "nki70-twin@0.1.0", Snapshot.ordered(facts), {})


def columns_of(model: ModelVersion) -> dict[str, list[str]]:
    return {part["name"]: part["columns"] for part in model.manifest["modalities"]}


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: " and ".join(sorted(pattern)))
def test_scores_are_those_of_the_training_library(
    made: tuple[Path, Scorer], cohort: twin.Cohort, fitted: twin.Fitted, pattern: frozenset[str]
) -> None:
    _, scorer = made
    expected = fitted.logit(fitted.z(cohort), pattern)
    for row in range(0, len(cohort.months), 12):
        score = scorer.score(person(cohort, row, columns_of(scorer.model), pattern))
        assert score.logit == pytest.approx(float(expected[row]), abs=1e-9)
        assert not score.validated  # 34 events
        assert [part.z is not None for part in score.contributions] == [name in pattern for name in MODALITIES]
        assert (score.interval is None) == (pattern == frozenset(MODALITIES))


def test_nobody_there_is_an_abstention(made: tuple[Path, Scorer], cohort: twin.Cohort) -> None:
    _, scorer = made
    score = scorer.score(person(cohort, 0, columns_of(scorer.model), frozenset()))
    assert score.probability is None
    assert str(score.abstained).startswith("required and not usable")


def test_same_data_give_the_same_bytes(made: tuple[Path, Scorer], genes: tuple[str, ...], tmp_path: Path) -> None:
    root, _ = made
    again = twin.write(tmp_path, twin.fit(twin.nki70(genes), genes))
    for path in again.iterdir():
        assert path.read_bytes() == (root / path.relative_to(tmp_path)).read_bytes(), path.name
    assert problems(again) == []


def harrell(fitted: twin.Fitted, cohort: twin.Cohort) -> dict[frozenset[str], float]:
    z = fitted.z(cohort)
    return {p: statistics.harrell(fitted.logit(z, p), cohort.months, cohort.event) for p in PATTERNS}


def test_it_holds_in_north_carolina(fitted: twin.Fitted, genes: tuple[str, ...]) -> None:
    there = twin.abroad("gse1992", genes)
    assert (len(genes), len(there.months)) == (52, 119)
    c = harrell(fitted, there)
    assert c[frozenset({CLINICAL})] == pytest.approx(0.674, abs=0.02)
    assert c[frozenset({SIGNATURE})] == pytest.approx(0.654, abs=0.02)
    assert c[frozenset(MODALITIES)] == pytest.approx(0.704, abs=0.02)


def test_it_fails_in_norway(genes: tuple[str, ...]) -> None:
    """Locally advanced disease: out of population. What it says there is little better than chance."""
    known = twin.shared("gse4335")
    there = twin.abroad("gse4335", known)
    c = harrell(twin.fit(twin.nki70(known), known), there)
    assert (len(known), len(there.months)) == (47, 98)
    assert max(c.values()) < 0.65
    counts = statistics.resamples(len(there.months), 250, twin.SEED)
    z = twin.fit(twin.nki70(known), known).z(there)
    low, _ = statistics.interval(statistics.harrell_resampled(z[SIGNATURE], there.months, there.event, counts))
    assert low < 0.5


def test_the_clinical_pair_loses_a_little_abroad() -> None:
    rotterdam, german = twin.rott2_to_gbsg2()
    model = twin.clinical_alone(rotterdam)
    c = [statistics.harrell(model(each.x[CLINICAL]), each.months, each.event) for each in (rotterdam, german)]
    assert [len(each.months) for each in (rotterdam, german)] == [2982, 686]
    assert c == [pytest.approx(0.70, abs=0.02), pytest.approx(0.67, abs=0.02)]


def test_another_file_or_a_missing_column_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="columns are missing: colour"):
        packaged.table("nki70", ["time", "colour"])
    monkeypatch.setattr(packaged, "DIGESTS", {"nki70": "0" * 64})
    with pytest.raises(BadInput, match=r"not the one that this was written for \(at SurvSet"):
        packaged.table("nki70")


def test_standard_columns_have_mean_zero_within_the_cohort(cohort: twin.Cohort) -> None:
    assert np.allclose(cohort.x[SIGNATURE].mean(axis=0), 0.0)
    assert np.allclose(cohort.x[SIGNATURE].std(axis=0), 1.0)
