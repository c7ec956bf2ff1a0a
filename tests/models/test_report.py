"""The validation report: the page says what the tables say, and the tables are those of the cohorts."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from models.errors import BadInput, DigestMismatch
from models.training import metabric, recurrence
from models.training.report import agreement, charts, external, heads, page, performance, sites
from models.training.report.__main__ import DATA, FOLDER, PAGE, spelled
from tests.peers import require


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return json.loads((FOLDER / DATA).read_text())


@pytest.fixture(scope="module")
def cohort() -> metabric.Cohort:
    require("data")
    return metabric.load()


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_is_made_from_the_tables_and_nothing_else(report: dict[str, Any]) -> None:
    text = (FOLDER / PAGE).read_text()
    assert page.page(report) == text
    assert (FOLDER / DATA).read_text() == spelled(report)
    assert len(text.encode()) < 500_000
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=", text)


def test_every_figure_is_a_drawing_with_a_name(report: dict[str, Any]) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page.page(report), re.DOTALL)
    assert len(drawings) == 9
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)  # noqa: S314  our own
        assert root[0].tag.endswith("title")
        assert root[0].text


def test_what_the_page_says_in_words_holds_in_the_tables(report: dict[str, Any]) -> None:
    gains = {(row["better"], row["worse"]): row["auroc"] for row in report["gains"]}
    assert gains["C+E+M", "C+E"]["low"] < 0 < gains["C+E+M", "C+E"]["high"]  # mutations add nothing certain
    assert gains["C+E", "C"]["value"] > 0.8 * gains["C+E+M", "C"]["value"]  # nearly all of it is the subtype's
    assert gains["E+M", "E"]["low"] > 0  # worth having without the clinical modality
    assert gains["C+E+M, late", "C+E+M, early"]["low"] > 0
    by_head = {row["head"]: row for row in report["heads"] if row["available"] == "C+E+M"}
    assert by_head["early fusion"]["slope"]["high"] < 1
    assert any(not site["fused"]["ratio"]["low"] <= 1 <= site["fused"]["ratio"]["high"] for site in report["sites"])
    genes = report["external"]["endpoints"][0]["gain"]["c"]
    assert genes["low"] < 0 < genes["high"]
    decision = report["decision"]
    assert max(abs(a - b) for a, b in zip(decision["C+E+M"], decision["C"], strict=True)) < 0.02


def test_the_goals_are_judged_as_the_tables_say(report: dict[str, Any]) -> None:
    fused = next(row for row in report["patterns"] if row["available"] == "C+E+M")
    goals = {goal["goal"]: goal for goal in report["goals"]}
    assert goals["fused AUROC at 5 years at least 0.705"]["reached"] == (fused["auroc"]["value"] >= 0.705)
    slope = goals["calibration slope near 1 with C+E+M"]
    assert slope["reached"] == (fused["slope"]["low"] <= 1.05 and fused["slope"]["high"] >= 0.95)
    assert len(goals) == 2 + 4 + 6 + 1


def test_a_calibration_point_stands_where_its_figures_say() -> None:
    point = {"n": 10, "stated": 0.3, "observed": 0.2, "low": 0.1, "high": 0.4}
    drawing = charts.calibration("test", [point])
    frame = charts.Frame((0.0, 0.6), (0.0, 0.6))
    x, y = frame.at(0.3, 0.2)
    assert (x, y) == (46 + 150, 26 + 160)
    assert f'<circle cx="{x}" cy="{y}"' in drawing


# ---- the tables ------------------------------------------------------------------------------------------------------


def test_the_sites_are_those_of_the_cohort(report: dict[str, Any], cohort: metabric.Cohort) -> None:
    alike(sites.leave_one_out(cohort), report["sites"])


def test_the_other_cohort_is_judged_as_reported(report: dict[str, Any], cohort: metabric.Cohort) -> None:
    alike(external.transported(cohort, external.load()), report["external"])


def alike(found: Any, reported: Any) -> None:
    """The same tables; another processor may round a last digit otherwise."""
    if isinstance(reported, dict):
        assert found.keys() == reported.keys()
        for name, member in reported.items():
            alike(found[name], member)
    elif isinstance(reported, list):
        for one, other in zip(found, reported, strict=True):
            alike(one, other)
    else:
        assert found == (pytest.approx(reported, abs=2e-4) if isinstance(reported, float) else reported)


def test_recalibration_mends_every_left_out_site(report: dict[str, Any]) -> None:
    for site in report["sites"]:
        ratio = site["recalibrated"]["after"]["ratio"]
        assert ratio["low"] < 1 < ratio["high"]
        assert abs(ratio["value"] - 1) < abs(site["fused"]["ratio"]["value"] - 1)
        assert (site["recalibrated"]["fitted"] == "intercept") == (site["fused"]["events"] < 100)


def test_the_graphs_agree_with_the_program(report: dict[str, Any], cohort: metabric.Cohort) -> None:
    found = agreement.measured(cohort)
    assert found["largest_difference"] <= 1e-6
    assert found["compared"] == report["agreement"]["compared"]


def test_the_heads_compared_read_the_same_logits(cohort: metabric.Cohort) -> None:
    rows = np.arange(0, len(cohort), 3)
    fitted = recurrence.fit(cohort, rows)
    z = fitted.z(cohort, rows)
    mean = heads.COMPARED["plain mean"].fit(cohort, rows, fitted)(cohort, rows, z)
    both = frozenset({"clinical", "mutation"})
    np.testing.assert_allclose(mean[both], (z["clinical"] + z["mutation"]) / 2)
    shared = heads.COMPARED["shared weights"].fit(cohort, rows, fitted)(cohort, rows, z)
    full, alone = shared[recurrence.FULL], shared[frozenset({"expression"})]
    part = shared[both] + alone - full  # additive: what the two have in common is the base
    known = np.isfinite(part)
    assert np.ptp(part[known]) < 1e-9


def test_a_perfect_score_is_called_perfect() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    time = rng.uniform(1, 120, 200)
    among = performance.sample(time, time < 60, 60.0, times=20)
    found = performance.performance(np.where(time < 60, 2.0, -2.0) + rng.normal(0, 0.1, 200), among)
    assert found["auroc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["slope"] is None  # all are told apart: no line fits
    assert found["events"] == int((time < 60).sum())
    assert performance.difference(time, time, among)["c"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_another_external_table_is_refused(tmp_path) -> None:
    (tmp_path / external.TABLE).write_text("age,gender\n1,FEMALE\n")
    with pytest.raises(DigestMismatch, match="is not the one that this report was made with"):
        external.load(tmp_path)
    with pytest.raises(BadInput, match=r"not a number \(at t line 3 column age\)"):
        external._number("old", "t line 3 column age")
