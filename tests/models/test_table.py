"""`cds models run` without a patient: the official program's 200 patients, and rows that must be refused."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from models.errors import BadInput
from models.nouns import ModelVersion
from models.shelf import Shelf
from models.table import run_table

ROW = {
    "age": "53", "screen": "0", "size": "25", "grade": "2", "nodes": "0", "er": "1", "her2": "0", "ki67": "9",
    "pr": "0", "gen": "3", "horm": "1", "traz": "0", "bis": "0", "radio": "1", "heart": "0", "smoker": "1",
}  # fmt: skip


def run(model: ModelVersion, *rows: dict[str, str]) -> list[dict[str, str]]:
    return list(run_table(model, Shelf().path(model), rows))


def test_all_outputs_of_the_official_program_within_1e_9_points(
    peer_data: Path, predict_breast: ModelVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    with (peer_data / "models" / "predict" / "predict_v32_R_grid.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    results = run(predict_breast, *rows)
    assert len(results) == len(rows) == 200
    assert all(len(result) == 24 for result in results)
    worst = max(
        abs(float(value) - float(row[name]))
        for row, result in zip(rows, results, strict=True)
        for name, value in result.items()
    )
    with capsys.disabled():
        sys.stdout.write(f"\npredict-breast and benefits32(), 200 x 24: largest difference {worst:.1e} points\n")
    assert worst < 1e-9


def test_year_is_a_column_that_may_be_given(predict_breast: ModelVersion) -> None:
    without, official, earlier = run(predict_breast, ROW, {**ROW, "year": "2017"}, {**ROW, "year": "2000"})
    assert without == official
    assert float(earlier["brmort_s_10"]) > 2 * float(official["brmort_s_10"])


def test_surplus_columns_are_passed_over(predict_breast: ModelVersion) -> None:
    assert run(predict_breast, {**ROW, "study_id": "a-17"}) == run(predict_breast, ROW)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("grade", "7"), ("size", "-3"), ("size", "0"), ("size", "nan"), ("size", "1e999"),
        ("age", "24"), ("age", "inf"), ("age", "\u0665\u0663"), ("nodes", "1.5"), ("nodes", "-1"), ("nodes", "1_0"),
        ("er", "9"), ("er", ""), ("gen", "1"), ("her2", "yes"), ("year", "1890"), ("heart", "-1"),
    ],
)  # fmt: skip
def test_bad_value_is_named_by_row_and_column_and_not_quoted(
    predict_breast: ModelVersion, column: str, value: str
) -> None:
    rows = run_table(predict_breast, Shelf().path(predict_breast), [ROW, {**ROW, column: value}])
    next(rows)
    with pytest.raises(BadInput, match=rf"\b{column}\b.*row 2") as caught:
        next(rows)
    assert not value or f" {value} " not in f" {caught.value} ".replace("row 2", "")


def test_missing_column_is_named(predict_breast: ModelVersion) -> None:
    with pytest.raises(BadInput, match=r"column smoker is missing.*row 1"):
        run(predict_breast, {name: value for name, value in ROW.items() if name != "smoker"})
