"""How the shipped artifacts were made can be repeated, and they belong to the code beside them."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import models.modalities
from models.nouns import ModelVersion
from models.plugins import discover
from models.shelf import SHIPPED, Shelf
from models.training import predict_breast, release_predict_breast, sources
from models.training.__main__ import RELEASES


@pytest.mark.parametrize("made_by", RELEASES, ids=lambda made_by: made_by.__name__.rpartition("release_")[2])
def test_every_shipped_byte_comes_out_again(tmp_path: Path, made_by: ModuleType) -> None:
    made = made_by.write(tmp_path)
    shipped = SHIPPED / made.relative_to(tmp_path)
    assert {path.name for path in made.iterdir()} == {path.name for path in shipped.iterdir()}
    for path in made.iterdir():
        assert path.read_bytes() == (shipped / path.name).read_bytes(), f"{path.name}: run `python -m models.training`"


def test_every_shipped_version_has_its_release() -> None:
    shipped = {path.parent.parent.name for path in SHIPPED.glob("*/*/manifest.json")}
    assert len(RELEASES) == len(shipped)


def test_every_encoder_is_the_one_of_today() -> None:
    known = discover(models.modalities, "NAME")
    for model in Shelf().all():
        for part in model.manifest["modalities"]:
            assert part["encoder"] == known[part.get("encoded_by", part["name"])].ENCODER, model.id


def test_sources_are_what_a_release_reaches() -> None:
    found = sources.sources(release_predict_breast.__name__, data=release_predict_breast.READ)
    assert {"predict_breast.py", "graph.py", "head.py", "release.py", "data/LICENSE-predict-v30-r.md"} <= set(found)
    assert not {"metabric.py", "statistics.py", "points.py"} & set(found)  # others' training leaves it alone


def test_coefficients_are_those_of_the_official_program(peer_data: Path) -> None:
    official = peer_data / "models" / "predict"
    assert predict_breast.COEFFICIENTS.read_bytes() == (official / "coefficients_v3.csv").read_bytes()
    assert "University of Cambridge" in (predict_breast.DATA / "LICENSE-predict-v30-r.md").read_text()


def test_baseline_hazards_grow_with_time_and_are_those_of_binary64_arithmetic() -> None:
    k = predict_breast.coefficients()
    hazards = predict_breast.baselines(k)
    s = np.arange(1, 16) / 10
    for name, values in (
        ("er1", np.exp(k["h1_br_i"] + k["h1_br_t1"] * s**-0.5 + k["h1_br_t2"] * s**-0.5 * np.log(s))),
        ("er0", np.exp(k["h0_br_i"] + k["h0_br_t1"] / s + k["h0_br_t2"] * np.log(s) / s)),
        ("other", np.exp(k["h_ot_i"] + k["h_ot_t1"] * np.log(s) + k["h_ot_t2"] * s)),
    ):
        assert hazards[name] == pytest.approx(values.tolist(), rel=1e-14)
        assert (np.diff(hazards[name]) > 0).all()


def test_card_says_for_whom_from_where_and_what_it_cannot(predict_breast: ModelVersion) -> None:
    card = (SHIPPED / "predict-breast" / "3.2.0" / "MODEL_CARD.md").read_text()
    for text in (predict_breast.manifest["population"]["text"], "University of Cambridge", "not a medical device"):
        assert text in card
    assert all(limit in card for limit in predict_breast.manifest["limits"])


def test_reference_table_has_the_columns_of_the_model(peer_data: Path, predict_breast: ModelVersion) -> None:
    with (peer_data / "models" / "predict" / "predict_v32_R_grid.csv").open(newline="") as table:
        header = next(csv.reader(table))
    assert header == [
        *predict_breast_columns(predict_breast),
        *(name for name, *_ in predict_breast.manifest["table"]["outputs"]),
    ]


def predict_breast_columns(model: ModelVersion) -> list[str]:
    return [name for name in model.manifest["modalities"][0]["columns"] if name != "year"]
