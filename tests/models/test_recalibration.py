"""Local recalibration: what a site's outcomes bear, what is fitted, and the version that it gives."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from models import recalibration, shelving
from models.calibration import sigmoid
from models.errors import BadInput, Conflict, ContractMismatch, DigestMismatch, Refused
from models.fusion import Head
from models.outcomes import Outcomes, read
from models.score import Contribution, Move, Score
from models.scoring import Scorer
from models.shelf import Shelf
from models.site_line import SiteLine, line_of
from tests.models.some_model import ID, outcomes, put_some_model


def site(n: int, *, intercept: float = 0.0, slope: float = 1.0, seed: int = 1) -> Outcomes:
    return read(outcomes(n, intercept=intercept, slope=slope, seed=seed), ID)


def test_a_large_site_gets_the_line_that_its_patients_follow() -> None:
    fitted = recalibration.recalibrate(site(6000, intercept=0.6, slope=0.7), 60.0)
    assert fitted.fitted == "intercept and slope"
    assert fitted.intercept == pytest.approx(0.6, abs=0.1)
    assert fitted.slope == pytest.approx(0.7, abs=0.08)
    before, after = fitted.before, fitted.after
    assert before.ratio_interval[0] > 1.2
    assert before.slope_interval[1] < 0.9
    assert after.ratio_interval[0] < 1.0 < after.ratio_interval[1]
    assert after.slope_interval[0] < 1.0 < after.slope_interval[1]


def test_a_middling_site_gets_an_intercept_alone() -> None:
    fitted = recalibration.recalibrate(site(220, intercept=0.8), 60.0)
    assert recalibration.FEWEST <= fitted.before.events < recalibration.FEWEST_FOR_SLOPE
    assert (fitted.fitted, fitted.slope) == ("intercept", 1.0)
    assert fitted.before.ratio > 1.2
    assert fitted.after.ratio == pytest.approx(1.0, abs=0.1)
    assert fitted.after.slope == pytest.approx(fitted.before.slope, abs=0.1)  # an intercept does not mend a slope


def test_a_small_site_gets_nothing_and_hears_how_it_stands() -> None:
    with pytest.raises(recalibration.CannotSay, match=r"^\d+ events: below 20 nothing is fitted$") as caught:
        recalibration.recalibrate(site(40), 60.0)
    assert 0 < caught.value.before.events < 20


def test_patients_of_whom_none_was_followed_to_the_horizon_bear_nothing() -> None:
    rows = "".join(f"{number},0.{number % 9},{number % 30 + 1},{number % 2}\n" for number in range(200))
    with pytest.raises(recalibration.CannotSay, match=r"^0 patients known to be free of the event at the horizon"):
        recalibration.recalibrate(read(f"id,logit,time,event\n{rows}".encode(), ID), 60.0)


def test_a_falling_line_is_refused() -> None:
    with pytest.raises(recalibration.CannotSay, match="which no recalibration mends"):
        recalibration.recalibrate(site(3000, slope=-0.8), 60.0)


def test_the_same_patients_give_the_same_line_in_any_order() -> None:
    whole = site(400)
    assert recalibration.recalibrate(whole, 60.0) == recalibration.recalibrate(site(400), 60.0)


# ---- the line at work ------------------------------------------------------------------------------------------------

PARTS = (
    Contribution("clinical", -0.8, -0.31),
    Contribution("expression", None, 0.0),
    Contribution("mutation", 0.2, 0.1),
)
SCORE = Score(
    ID, None, logit=-1.1 + -0.31 + 0.0 + 0.1, probability=float(sigmoid(np.array(-1.1 + -0.31 + 0.0 + 0.1))), base=-1.1,
    contributions=PARTS, interval=(0.15, 0.31), interval_kind="range if missing results arrive", band=(0.18, 0.25),
    moves=(Move("expression", 0.3),),
)  # fmt: skip


def test_the_line_moves_everything_and_still_adds_up() -> None:
    moved = SiteLine(0.4, 0.7).applied(SCORE)
    assert moved.logit == pytest.approx(0.4 + 0.7 * SCORE.logit, abs=1e-15)
    total = moved.base
    for part in moved.contributions:
        total += part.amount
    assert total == moved.logit
    assert moved.probability == pytest.approx(1 / (1 + math.exp(-moved.logit)))
    assert [part.z for part in moved.contributions] == [-0.8, None, 0.2]
    assert moved.contributions[1].amount == 0.0
    for ends, were in ((moved.interval, SCORE.interval), (moved.band, SCORE.band)):
        for end, was in zip(ends, were, strict=True):
            assert math.log(end / (1 - end)) == pytest.approx(0.4 + 0.7 * math.log(was / (1 - was)))
    assert moved.moves == (Move("expression", 0.7 * 0.3),)


def test_an_abstention_stays_one() -> None:
    silent = Score(ID, "no stage")
    assert SiteLine(0.4, 0.7).applied(silent) is silent


@pytest.mark.parametrize(
    "stated", [{}, {"intercept": 0.1}, {"intercept": 0.1, "slope": 0.0}, {"intercept": math.nan, "slope": 1.0}, 3]
)
def test_a_manifest_with_a_broken_line_is_refused(stated: object) -> None:
    with pytest.raises(ContractMismatch, match="recalibration of the head"):
        line_of({"recalibration": stated})


# ---- the version -----------------------------------------------------------------------------------------------------


def test_a_model_whose_curves_bypass_the_head_is_refused() -> None:
    with pytest.raises(Refused, match="predict-breast shows numbers"):
        recalibration.check_may(Shelf().get("predict-breast"))


def test_the_horizon_is_the_manifests(model) -> None:
    assert recalibration.horizon_of(model, None) == 60.0
    with pytest.raises(BadInput, match="60 months"):
        recalibration.horizon_of(model, 120.0)
    with pytest.raises(BadInput, match="states no horizon_months"):
        recalibration.horizon_of(Shelf().get("predict-breast"), None)


def test_a_new_version_is_whole_and_its_parent_untouched(model, parents: Shelf, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in parents.path(model).iterdir()}
    fitted = recalibration.recalibrate(site(2000, intercept=0.5), 60.0)
    put(model, parents, tmp_path, fitted)
    both = Shelf((parents.path(model).parents[1], tmp_path))
    new = both.get(model.name, "1.0.0-site.1")
    assert both.verify()[new.id] == []
    assert new.manifest["head"]["recalibration"] == {"intercept": fitted.intercept, "slope": fitted.slope}
    assert new.manifest["recalibration"]["of_manifest"] == model.manifest_digest
    assert {name: digest for name, digest in new.files.items() if name.endswith(".onnx")} == {
        name: digest for name, digest in model.files.items() if name.endswith(".onnx")
    }
    card = (both.path(new) / "MODEL_CARD.md").read_text()
    assert card.startswith((both.path(model) / "MODEL_CARD.md").read_text().rstrip())
    assert "| observed/expected |" in card
    assert {path.name: path.read_bytes() for path in both.path(model).iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == [model.name]
    with pytest.raises(Conflict, match="never changed"):
        put(model, parents, tmp_path, fitted)


def test_a_sites_version_is_only_used_by_name(model, parents: Shelf, tmp_path: Path) -> None:
    put(model, parents, tmp_path, recalibration.recalibrate(site(2000, intercept=0.5), 60.0))
    both = Shelf((parents.path(model).parents[1], tmp_path))
    assert both.get(model.name).version == "1.0.0"
    assert both.get(model.name, "1.0.0-site.1").version == "1.0.0-site.1"


def test_the_fused_risk_follows_the_line_in_every_pattern(tmp_path: Path) -> None:
    shelves = Shelf()
    model = shelves.get("breast-cancer-recurrence")
    recalibration.check_may(model)
    fitted = recalibration.recalibrate(site(2000, intercept=0.5, slope=0.8), recalibration.horizon_of(model, None))
    put(model, shelves, tmp_path, fitted)
    new = Shelf((tmp_path,)).get(model.name, "1.0.0-site.1")
    Scorer(new, tmp_path / new.name / new.version)
    before = Head(model.manifest["head"], model.files, shelves.path(model))
    after = Head(new.manifest["head"], new.files, tmp_path / new.name / new.version)
    for pattern in before.patterns:
        z = {name: 0.3 * place - 1.1 if name in pattern else None for place, name in enumerate(before.modalities)}
        was, now = before.fuse(model.id, z, {}, {}), after.fuse(new.id, z, {}, {})
        assert now.logit == pytest.approx(fitted.intercept + fitted.slope * was.logit, abs=1e-12)
        assert now.band[0] < now.probability < now.band[1]
        assert [part.z for part in now.contributions] == [part.z for part in was.contributions]
        assert now.validated == was.validated


def test_a_line_over_a_line_is_one_line(model, parents: Shelf, tmp_path: Path) -> None:
    put(model, parents, tmp_path, recalibration.recalibrate(site(2000, intercept=0.5), 60.0))
    first = Shelf((tmp_path,)).get(model.name, "1.0.0-site.1")
    assert recalibration.next_version(first, frozenset({"1.0.0", "1.0.0-site.1"})) == "1.0.0-site.2"
    again = recalibration.recalibrate(site(2000, intercept=-0.2, slope=1.2, seed=4), 60.0)
    line = recalibration.derive(first, "1.0.0-site.2", again)["head"]["recalibration"]
    old = first.manifest["head"]["recalibration"]
    assert line["slope"] == pytest.approx(again.slope * old["slope"])
    assert line["intercept"] == pytest.approx(again.intercept + again.slope * old["intercept"])


def test_a_parent_with_another_file_gives_nothing(model, parents: Shelf, tmp_path: Path) -> None:
    (parents.path(model) / "head.onnx").write_bytes(b"another")
    with pytest.raises(DigestMismatch, match=r"head\.onnx"):
        recalibration.files(model, parents.path(model), "")


def put(model, parents: Shelf, root: Path, fitted: recalibration.Recalibration) -> None:
    manifest = recalibration.derive(model, "1.0.0-site.1", fitted)
    card = recalibration.card_section(model, fitted)
    staged = shelving.stage(root, manifest, recalibration.files(model, parents.path(model), card))
    assert not Shelf((root,)).verify() or (root / model.name).exists()  # what is staged is not on the shelf
    try:
        staged.place()
    finally:
        staged.drop()


@pytest.fixture
def parents(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    root = tmp_path_factory.mktemp("parents")
    put_some_model(root)
    return Shelf((root,))


@pytest.fixture
def model(parents: Shelf):
    return parents.get("some-model")
