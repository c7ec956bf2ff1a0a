"""The recurrence models: fitted again they are the committed ones; the graphs say what the training library says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models.errors import BadInput
from models.fusion import Head, head_shapes
from models.nouns import ModelVersion
from models.runtime import Session
from models.shelf import SHIPPED, Shelf
from models.training import (
    fitted,
    head,
    metabric,
    recurrence,
    regression,
    release_breast_cancer_recurrence,
    release_metabric_genomic,
)
from models.training.metabric import Cohort
from models.training.recurrence import FULL, MODALITIES, PATTERNS, Fitted
from models.training.recurrence_graphs import CLINICAL_COLUMNS

EVERYBODY = np.arange(1966)


@pytest.fixture(scope="module")
def cohort(peer_data: Path) -> Cohort:
    return metabric.load(peer_data / "models" / "metabric")


@pytest.fixture(scope="module")
def whole(cohort: Cohort) -> Fitted:
    return recurrence.fit(cohort, EVERYBODY)


@pytest.fixture(scope="module")
def model() -> ModelVersion:
    return Shelf().get("breast-cancer-recurrence", "1.0.0")


def sessions(model: ModelVersion) -> dict[str, Session]:
    folder = Shelf().path(model)
    return {
        part["name"]: Session(
            folder / part["file"], model.files[part["file"]], inputs=part["inputs"], outputs=part["outputs"]
        )
        for part in model.manifest["modalities"]
    }


def inputs(cohort: Cohort, part: dict[str, Any]) -> np.ndarray:
    """The cohort as the modality's encoder would write it; NaN where it would be silent."""
    if part["name"] == "clinical":
        n = len(cohort)
        columns = {
            "age": np.floor(cohort.age), "screen": np.full(n, 2.0), "size": cohort.size, "nodes": cohort.nodes,
            "grade": np.nan_to_num(cohort.grade, nan=9.0), "er": cohort.er, "her2": np.nan_to_num(cohort.her2, nan=9.0),
            "ki67": np.full(n, 9.0), "pr": np.nan_to_num(cohort.pr, nan=9.0), "smoker": np.full(n, 9.0),
            "year": np.full(n, recurrence.YEAR),
        }  # fmt: skip
        return np.column_stack([columns[name] for name in CLINICAL_COLUMNS])
    if part["name"] == "expression":
        flags = [[float(own == name) for name in part["columns"]] for own in cohort.subtype]
        return np.where(np.array([[bool(own)] for own in cohort.subtype]), np.array(flags), np.nan)
    genes = [name for name in part["columns"] if name != "burden"]
    own = cohort.mutated[:, [cohort.genes.index(gene) for gene in genes]]
    return np.column_stack([own, np.log1p(own.sum(axis=1))])


def test_fitting_again_gives_the_committed_coefficients(peer_data: Path) -> None:
    committed, again = json.loads(fitted.FILE.read_text()), fitted.fit()
    assert list(committed) == list(again)
    close(committed, again)


def close(committed: Any, again: Any) -> None:
    """Eight digits are committed; another processor may move the last one."""
    if isinstance(committed, dict):
        assert committed.keys() == again.keys()
        for name in committed:
            close(committed[name], again[name])
    elif isinstance(committed, list):
        for one, other in zip(committed, again, strict=True):
            close(one, other)
    elif isinstance(committed, float):
        assert again == pytest.approx(committed, rel=1e-6, abs=1e-9)
    else:
        assert committed == again


@pytest.mark.parametrize("release", [release_metabric_genomic, release_breast_cancer_recurrence])
def test_every_shipped_byte_comes_out_again_without_the_cohort(
    release: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDS_PEER_DATA", str(tmp_path / "nowhere"))
    made = release.write(tmp_path)
    shipped = SHIPPED / made.relative_to(tmp_path)
    assert {path.name for path in made.iterdir()} == {path.name for path in shipped.iterdir()}
    for path in made.iterdir():
        assert path.read_bytes() == (shipped / path.name).read_bytes(), f"{path.name}: run `python -m models.training`"


def test_graphs_give_the_probabilities_of_the_training_library_over_every_pattern(
    cohort: Cohort, whole: Fitted, model: ModelVersion
) -> None:
    """scikit-learn's own decision function for the base models, all women, seven patterns: 1e-6 in probability."""
    expected = trained(cohort, whole)
    graphs, parts = sessions(model), model.manifest["modalities"]
    z = {part["name"]: graphs[part["name"]].run({"x": inputs(cohort, part)})[0][:, 0] for part in parts}
    silent = {name: np.isnan(values) for name, values in expected.items()}
    fuse = head_session(model)
    for pattern in PATTERNS:
        there = ~np.any([silent[name] for name in pattern], axis=0)
        stacked = np.column_stack([z[name] if name in pattern else np.full(len(cohort), np.inf) for name in MODALITIES])
        avail = np.array([[float(name in pattern) for name in MODALITIES]]).repeat(int(there.sum()), axis=0)
        p = fuse.run({"z": stacked[there], "avail": avail})[0][:, 0]
        theirs = 1 / (1 + np.exp(-whole.logit(expected, pattern)[there]))
        assert there.sum() >= 1700
        assert np.abs(p - theirs).max() < 1e-6


def trained(cohort: Cohort, whole: Fitted) -> dict[str, np.ndarray]:
    """The modalities' logits by scikit-learn itself, fitted here; the clinical one by the numpy equation."""
    y, weight = recurrence.outcome(cohort, EVERYBODY)
    z = {"clinical": whole.z(cohort, EVERYBODY)["clinical"]}
    for name, x, strength in (
        ("expression", recurrence.subtype_flags(cohort), recurrence.EXPRESSION_C),
        ("mutation", recurrence.gene_flags(cohort, whole.base.genes), recurrence.MUTATION_C),
    ):
        known = ~np.isnan(y) & ~np.isnan(x[:, 0])
        own = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10, max_iter=500)
        own.fit(x[known], y[known], sample_weight=weight[known])
        readable = ~np.isnan(x[:, 0])
        z[name] = np.full(len(cohort), np.nan)
        z[name][readable] = own.decision_function(x[readable])
    return z


def head_session(model: ModelVersion) -> Session:
    stated = model.manifest["head"]
    shapes = head_shapes(3, band=True)
    return Session(
        Shelf().path(model) / stated["file"], model.files[stated["file"]], inputs=shapes[0], outputs=shapes[1]
    )


def test_weights_are_one_over_the_share_that_is_still_followed(cohort: Cohort) -> None:
    """Worked by hand over the first two censorings: (1 - 1/n) for each, and nothing for who was lost before."""
    y, weight = recurrence.outcome(cohort, EVERYBODY)
    first, second = np.sort(cohort.months[~cohort.recurred])[:2]
    at = np.flatnonzero(cohort.recurred & (cohort.months <= first))
    assert weight[at] == pytest.approx(np.ones(len(at)))
    between = np.flatnonzero(cohort.recurred & (cohort.months > first) & (cohort.months <= second))
    still = 1 - np.sum(~cohort.recurred & (cohort.months == first)) / np.sum(cohort.months >= first)
    assert len(between) > 0
    assert weight[between] == pytest.approx(np.full(len(between), 1 / still))
    assert (weight[np.isnan(y)] == 0).all()
    assert np.sum(weight) == pytest.approx(len(cohort), rel=0.01)


def test_weights_are_not_negative_and_clinical_leads(whole: Fitted) -> None:
    assert all(weight >= 0 for row in whole.heads.values() for weight in row.weights.values())
    full = whole.heads[FULL].weights
    assert full["clinical"] > full["expression"] > 0


def test_each_move_is_named_for_what_is_missing_and_the_clinical_one_is_largest(whole: Fitted) -> None:
    for pattern, row in whole.heads.items():
        assert set(row.moves) == FULL - pattern
        assert np.isnan(row.half_width) == (pattern == FULL)
    genomic = whole.heads[frozenset({"expression", "mutation"})]
    alone = whole.heads[frozenset({"clinical"})]
    assert genomic.half_width > 2 * alone.half_width
    assert alone.moves["expression"] > alone.moves["mutation"]


def test_half_widths_cover_nine_of_ten_moves_of_patients_who_were_held_out(cohort: Cohort) -> None:
    held = EVERYBODY[::4]
    fit = recurrence.fit(cohort, np.setdiff1d(EVERYBODY, held))
    z = fit.z(cohort, held)
    full = fit.logit(z, FULL)
    for pattern in PATTERNS[:-1]:
        moves = np.abs(full - fit.logit(z, pattern))
        assert 0.82 < np.mean(moves[~np.isnan(moves)] <= fit.heads[pattern].half_width) < 0.97


def test_few_events_behind_a_pattern_mark_it_as_not_validated(cohort: Cohort) -> None:
    few = recurrence.fit(cohort, EVERYBODY[:170])
    stated: dict[str, Any] = head.stated(MODALITIES, few.heads, recurrence.MIN_EVENTS)
    assert min(stated["events"]) < recurrence.MIN_EVENTS
    assert len(stated["not_validated"]) == sum(events < recurrence.MIN_EVENTS for events in stated["events"])


def test_bounded_regression_is_the_plain_one_where_nothing_is_bounded(cohort: Cohort) -> None:
    generator = np.random.default_rng(3)
    x = np.column_stack([np.ones(400), generator.normal(size=(400, 2))])
    y = (generator.random(400) < regression.sigmoid(x @ np.array([-0.5, 1.0, 0.4]))).astype(float)
    weight = generator.random(400)
    plain = regression.newton(x, y, weight)
    assert regression.nonnegative(x, y, weight) == pytest.approx(plain, abs=1e-12)
    against = np.column_stack([x[:, 0], -x[:, 1], x[:, 2]])
    bounded = regression.nonnegative(against, y, weight)
    assert bounded[1] == 0.0
    assert bounded[2] > 0.0


def test_regression_without_a_solution_is_an_error() -> None:
    x = np.column_stack([np.ones(6), np.arange(6.0)])
    with pytest.raises(BadInput, match="too few patients, or they are separated"):
        regression.newton(x, (np.arange(6) > 2).astype(float), np.ones(6))


def test_manifest_names_the_data_the_seeds_and_their_licence(model: ModelVersion) -> None:
    training = model.manifest["training"]
    assert training["data"] == dict(metabric.DIGESTS)
    assert training["seeds"]["inner folds"] == recurrence.SEED
    card = (Shelf().path(model) / "MODEL_CARD.md").read_text()
    for text in ("Open Database License", "not a medical device", "Not survival", "calendar year 2000"):
        assert text in card


def test_every_pattern_of_the_shipped_heads_has_its_own_row(model: ModelVersion) -> None:
    for version in (model, Shelf().get("metabric-genomic", "1.0.0")):
        shipped = Head(version.manifest["head"], version.files, Shelf().path(version))
        names = shipped.modalities
        every = {frozenset(kept) for n in range(1, len(names) + 1) for kept in itertools.combinations(names, n)}
        assert shipped.patterns == every
        assert not version.manifest["head"]["not_validated"]
