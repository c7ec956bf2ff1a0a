"""`cds models run` for the fused models: a row says what is there, and gives what serving gives."""

from __future__ import annotations

import pytest

from models.errors import BadInput
from models.modalities import mutation
from models.nouns import ModelVersion
from models.scoring import Scorer
from models.shelf import Shelf
from models.table import run_table
from tests.models.genomics import TP53, read, region, subtype, variant
from tests.models.records import jenny

CLINICAL = {
    "age": "53", "screen": "2", "size": "25", "grade": "2", "nodes": "0", "er": "1", "her2": "0", "ki67": "9",
    "pr": "0", "smoker": "1",
}  # fmt: skip
FLAGS = {name: str(int(name == "LumB")) for name in ("LumA", "LumB", "Her2", "Basal", "Normal", "claudin-low")}


@pytest.fixture(scope="module")
def model() -> ModelVersion:
    return Shelf().get("breast-cancer-recurrence")


@pytest.fixture(scope="module")
def genes(model: ModelVersion) -> dict[str, str]:
    return {gene["name"]: str(int(gene["name"] == "TP53")) for gene in model.manifest["modalities"][2]["genes"]}


def run(model: ModelVersion, *rows: dict[str, str]) -> list[dict[str, str]]:
    return list(run_table(model, Shelf().path(model), rows))


def test_row_gives_the_bits_that_serving_gives(model: ModelVersion, genes: dict[str, str]) -> None:
    panel = [mutation.GENES[name] for name in genes]
    score = Scorer(model, Shelf().path(model)).score(jenny(also=read(subtype("LumB"), region(panel), variant(TP53))))
    (row,) = run(model, {**CLINICAL, **FLAGS, **genes})
    assert (row["p"], row["logit"]) == (repr(score.probability), repr(score.logit))
    assert [row[f"adds_{part.modality}"] for part in score.contributions] == [
        repr(p.amount) for p in score.contributions
    ]
    assert row["abstained"] == row["range_low"] == ""


def test_modality_without_columns_is_missing(model: ModelVersion, genes: dict[str, str]) -> None:
    empty = dict.fromkeys(FLAGS, "")
    alone, also = run(model, CLINICAL, {**CLINICAL, **empty, **genes})
    assert (alone["z_expression"], alone["z_mutation"], alone["adds_mutation"]) == ("", "", "0.0")
    assert also["z_expression"] == ""
    assert also["z_mutation"] != ""
    assert float(alone["range_low"]) < float(alone["p"]) < float(alone["range_high"])


def test_row_with_nothing_abstains_and_has_no_number(model: ModelVersion) -> None:
    (row,) = run(model, {"ki67": "9", "note": "nothing"})
    assert row["abstained"].startswith("no columns of modality clinical")
    assert row["p"] == row["logit"] == row["z_clinical"] == ""


def test_value_outside_what_was_fitted_turns_the_modality_off(model: ModelVersion) -> None:
    outside, still = run(model, {**CLINICAL, "size": "183"}, {**CLINICAL, "size": "182"})
    assert outside["abstained"].startswith("size is outside the range that modality clinical was fitted on")
    assert still["abstained"] == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grade": "7"}, "grade is not one of"),
        ({"size": "-3"}, "size is not between"),
        ({"size": "nan"}, "size is not a number"),
        ({"age": "inf"}, "age is not a number"),
        ({"nodes": ""}, "column nodes is missing or empty"),
        ({"LumA": "1"}, "of the columns LumA to claudin-low one is 1"),
        ({"LumB": "0"}, "of the columns LumA to claudin-low one is 1"),
        ({"LumB": "2"}, "LumB is not one of"),
        ({"TP53": "yes"}, "TP53 is not a number"),
        ({"TP53": ""}, "column TP53 is missing or empty"),
    ],
)
def test_bad_cells_are_refused_by_row_and_column(
    model: ModelVersion, genes: dict[str, str], changes: dict[str, str], message: str
) -> None:
    good = {**CLINICAL, **FLAGS, **genes}
    with pytest.raises(BadInput, match=rf"{message}.* row 2"):
        run(model, good, {**good, **changes})
