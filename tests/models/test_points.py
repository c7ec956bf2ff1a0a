"""The point scores against independent programs, at every boundary and on thousands of random inputs.

clincalc and kfre are oracles of the tests only: their licences and code stay out of wheel and image.
"""

from __future__ import annotations

import csv
import itertools
import math
import random
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import clincalc
import kfre as kfre_package
import pytest

from cds_server.__main__ import main
from models.errors import BadInput
from models.shelf import Shelf
from models.table import run_table

Row = dict[str, float]
N = 4000


def run(name: str, rows: Iterable[Row]) -> list[Row]:
    shelf = Shelf()
    model = shelf.get(name)
    typed = [{column: repr(value) for column, value in row.items()} for row in rows]
    return [
        {column: float(value) for column, value in result.items()}
        for result in run_table(model, shelf.path(model), typed)
    ]


def oracle(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = clincalc.calculate(name, inputs)
    return answer


def near(random_: random.Random, cuts: Iterable[float], low: float, high: float, step: float) -> float:
    """A value on the grid of `step`: half the time within one step of a cut, else anywhere in the range."""
    if random_.random() < 0.5:
        value = random_.choice(list(cuts)) + random_.choice((-step, 0.0, step))
    else:
        value = random_.uniform(low, high)
    return min(max(round(round(value / step) * step, 6), low), high)


# ---- NEWS2 -----------------------------------------------------------------------------------------------------------

NEWS2_CHART: dict[str, list[tuple[float, float]]] = {
    "respiration": [(8, 3), (9, 1), (11, 1), (12, 0), (20, 0), (21, 2), (24, 2), (25, 3)],
    "spo2": [(91, 3), (92, 2), (93, 2), (94, 1), (95, 1), (96, 0)],
    "systolic": [(90, 3), (91, 2), (100, 2), (101, 1), (110, 1), (111, 0), (219, 0), (220, 3)],
    "pulse": [(40, 3), (41, 1), (50, 1), (51, 0), (90, 0), (91, 1), (110, 1), (111, 2), (130, 2), (131, 3)],
    "temperature": [(35.0, 3), (35.1, 1), (36.0, 1), (36.1, 0), (38.0, 0), (38.1, 1), (39.0, 1), (39.1, 2)],
}
"""Royal College of Physicians 2017, chart 1, scale 1: the value at each edge of each band, and its points."""
HEALTHY: Row = {
    "respiration": 16, "spo2": 97, "oxygen": 0, "systolic": 120, "pulse": 70, "consciousness": 0, "temperature": 37.0,
}  # fmt: skip


@pytest.mark.parametrize("parameter", NEWS2_CHART)
def test_news2_gives_the_points_of_the_chart_at_every_edge(parameter: str) -> None:
    edges = NEWS2_CHART[parameter]
    results = run("news2", [{**HEALTHY, parameter: value} for value, _ in edges])
    assert [result[f"points_{parameter}"] for result in results] == [points for _, points in edges]
    assert [result["points"] for result in results] == [points for _, points in edges]


def test_news2_scale_2_depends_on_oxygen_above_92() -> None:
    edges = [(83, 3, 3), (84, 2, 2), (85, 2, 2), (86, 1, 1), (87, 1, 1), (88, 0, 0), (92, 0, 0), (93, 0, 1), (94, 0, 1),
             (95, 0, 2), (96, 0, 2), (97, 0, 3), (100, 0, 3)]  # fmt: skip
    for oxygen in (0, 1):
        results = run("news2", [{**HEALTHY, "scale2": 1, "oxygen": oxygen, "spo2": edge[0]} for edge in edges])
        assert [result["points_spo2"] for result in results] == [edge[1 + oxygen] for edge in edges]


def test_news2_is_clincalc_s_on_thousands_of_observations() -> None:
    at_random = random.Random(2017)
    cuts = {name: [value for value, _ in edges] for name, edges in NEWS2_CHART.items()}
    cuts["spo2"] += [83, 85, 87, 92, 96]
    rows = [
        {
            "respiration": near(at_random, cuts["respiration"], 1, 80, 1),
            "spo2": near(at_random, cuts["spo2"], 50, 100, 1),
            "oxygen": at_random.randint(0, 1),
            "systolic": near(at_random, cuts["systolic"], 20, 300, 1),
            "pulse": near(at_random, cuts["pulse"], 10, 300, 1),
            "consciousness": at_random.randint(0, 1),
            "temperature": near(at_random, cuts["temperature"], 25, 45, 0.1),
            "scale2": at_random.randint(0, 1),
        }
        for _ in range(N)
    ]
    for row, result in zip(rows, run("news2", rows), strict=True):
        told = oracle(
            "news2",
            {
                "respiratory_rate": int(row["respiration"]),
                "spo2": int(row["spo2"]),
                "spo2_scale": "2" if row["scale2"] else "1",
                "on_oxygen": bool(row["oxygen"]),
                "systolic_bp": int(row["systolic"]),
                "pulse": int(row["pulse"]),
                "consciousness": "confusion-or-vpu" if row["consciousness"] else "alert",
                "temperature": row["temperature"],
            },
        )
        items = [value for name, value in result.items() if name.startswith("points_")]
        assert result["points"] == told["result"] == sum(items)
        assert result["highest"] == max(items)


def test_news2_rounds_to_the_precision_of_the_chart() -> None:
    """102.3 degrees Fahrenheit are 39.0555... Celsius; a thermometer that shows tenths says 39.1."""
    hot, half = run("news2", [{**HEALTHY, "temperature": 39.0555555555556}, {**HEALTHY, "spo2": 95.6}])
    assert hot["points_temperature"] == 2
    assert half["points_spo2"] == 0


# ---- Khorana ---------------------------------------------------------------------------------------------------------

SITES = {
    2.0: ["stomach", "pancreas"],
    1.0: ["lung", "lymphoma", "gynaecological", "bladder", "testicular"],
    0.0: ["other"],
}
RISK = {0: 0.050, 1: 0.066, 2: 0.066, 3: 0.110, 4: 0.110, 5: 0.110, 6: 0.110}
"""Within six months, by points: Mulder 2019, Haematologica 104:1277."""


def test_khorana_is_clincalc_s_on_thousands_of_patients() -> None:
    at_random = random.Random(2008)
    rows = [
        {
            "site": at_random.choice((0.0, 1.0, 2.0)),
            "platelets": near(at_random, [350], 1, 3000 if at_random.random() < 0.1 else 600, 0.5),
            "haemoglobin": near(at_random, [10], 2, 25, 0.01),
            "esa": at_random.choice((0.0, 0.0, 1.0)),
            "leukocytes": near(at_random, [11], 0.1, 40, 0.01),
            "bmi": near(at_random, [35], 10, 60, 0.01),
        }
        for _ in range(N)
    ]
    for row, result in zip(rows, run("khorana", rows), strict=True):
        told = oracle(
            "khorana",
            {
                "assessment_context": "adult_ambulatory_before_new_chemotherapy_regimen",
                "cancer_site": at_random.choice(SITES[row["site"]]),
                "platelet_count_10_9_l": row["platelets"],
                "haemoglobin_g_dl": row["haemoglobin"],
                "uses_erythropoiesis_stimulating_agent": bool(row["esa"]),
                "leukocyte_count_10_9_l": row["leukocytes"],
                "bmi_kg_m2": row["bmi"],
            },
        )
        assert result["points"] == told["result"]
        assert result["risk_6m"] == RISK[int(result["points"])]


@pytest.mark.parametrize(
    ("column", "without", "with_"),
    [("platelets", 349.9, 350.0), ("haemoglobin", 10.0, 9.9), ("leukocytes", 11.0, 11.1), ("bmi", 34.9, 35.0)],
)
def test_khorana_counts_from_the_published_cut_on(column: str, without: float, with_: float) -> None:
    plain = {"site": 0.0, "platelets": 200.0, "haemoglobin": 13.0, "esa": 0.0, "leukocytes": 6.0, "bmi": 24.0}
    below, above = run("khorana", [{**plain, column: without}, {**plain, column: with_}])
    assert (below["points"], above["points"]) == (0, 1)


# ---- KFRE ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "column", "risk"),
    [
        ({"age": 55, "male": 1, "egfr": 45, "acr": 120, "north_america": 1}, "risk_2y", 0.012471),
        ({"age": 72, "male": 0, "egfr": 28, "acr": 800, "north_america": 1}, "risk_5y", 0.280261),
    ],
)
def test_kfre_gives_the_known_vectors(row: Row, column: str, risk: float) -> None:
    (result,) = run("kfre", [row])
    assert result[column] == pytest.approx(risk, abs=5e-7)


def test_kfre_is_the_package_s_within_1e_12() -> None:
    at_random = random.Random(2016)
    rows = [
        {
            "age": float(at_random.randint(18, 100)),
            "male": float(at_random.randint(0, 1)),
            "egfr": near(at_random, [15, 30, 45], 5, 59.9, 0.1),
            "acr": round(math.exp(at_random.uniform(math.log(0.5), math.log(20000))), 2),
            "north_america": float(at_random.randint(0, 1)),
        }
        for _ in range(N)
    ]
    worst = 0.0
    for row, result in zip(rows, run("kfre", rows), strict=True):
        for years in (2, 5):
            worst = max(worst, abs(result[f"risk_{years}y"] - theirs(row, years)))
    assert worst < 1e-12


def theirs(row: Row, years: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of values that are rare
        inputs = (row["age"], row["male"], row["egfr"], row["acr"], bool(row["north_america"]))
        return float(kfre_package.risk_pred(*inputs, years=years, num_vars=4))


# ---- MELD 3.0 --------------------------------------------------------------------------------------------------------


def test_meld_3_gives_the_known_vector() -> None:
    row = {"bilirubin": 2.0, "creatinine": 1.5, "inr": 1.5, "sodium": 130, "albumin": 3.0, "female": 1, "dialysis": 0}
    (result,) = run("meld3", [row])
    assert result["raw"] == pytest.approx(23.8228, abs=5e-5)
    assert result["points"] == 24


def test_meld_3_is_clincalc_s_at_every_bound() -> None:
    at_random = random.Random(2021)
    rows = [
        {
            "bilirubin": near(at_random, [1.0], 0.1, 60, 0.1),
            "creatinine": near(at_random, [1.0, 3.0], 0.1, 12, 0.1),
            "inr": near(at_random, [1.0], 0.5, 10, 0.1),
            "sodium": near(at_random, [125, 137], 100, 170, 1),
            "albumin": near(at_random, [1.5, 3.5], 0.5, 6, 0.1),
            "female": float(at_random.randint(0, 1)),
            "dialysis": float(at_random.random() < 0.2),
        }
        for _ in range(N)
    ]
    for row, result in zip(rows, run("meld3", rows), strict=True):
        told = oracle(
            "meld_3",
            {
                "bilirubin": row["bilirubin"], "bilirubin_unit": "mg/dL",
                "creatinine": row["creatinine"], "creatinine_unit": "mg/dL",
                "albumin": row["albumin"], "albumin_unit": "g/dL",
                "inr": row["inr"], "sodium_mmol_l": row["sodium"],
                "female_for_adult_meld": bool(row["female"]),
                "qualifying_dialysis_in_prior_7_days": bool(row["dialysis"]),
                "registration_age_years": 50,
            },
        )  # fmt: skip
        assert result["points"] == told["result"]
        assert result["raw"] == pytest.approx(told["working"]["raw_policy_score"], abs=1e-9)


# ---- CHA2DS2-VA and the Nottingham index -----------------------------------------------------------------------------


def test_cha2ds2_va_is_clincalc_s_everywhere() -> None:
    names = ("heart_failure", "hypertension", "diabetes", "stroke", "vascular")
    theirs = ("congestive_heart_failure", "hypertension", "diabetes", "stroke_tia_thromboembolism", "vascular_disease")
    rows: list[Row] = [
        {"age": float(age), **dict(zip(names, map(float, flags), strict=True))}
        for age in range(18, 121)
        for flags in itertools.product((0, 1), repeat=5)
    ]
    for row, result in zip(rows, run("cha2ds2-va", rows), strict=True):
        flags = {their: bool(row[ours]) for ours, their in zip(names, theirs, strict=True)}
        assert result["points"] == oracle("cha2ds2_va", {"age": int(row["age"]), **flags})["result"]


def test_nottingham_index_is_clincalc_s_and_not_that_of_metabric() -> None:
    at_random = random.Random(1992)
    rows = [
        {
            "size": near(at_random, [20, 50], 0.1, 250, 0.1),
            "nodes": at_random.choice((0, 1, 3, 4, 7, 30)),
            "grade": grade,
        }
        for _ in range(N // 3)
        for grade in (1, 2, 3)
    ]
    for row, result in zip(rows, run("npi", rows), strict=True):
        stage = 1 if row["nodes"] == 0 else 2 if row["nodes"] <= 3 else 3
        inputs = {"tumour_size_cm": row["size"] / 10, "node_stage": stage, "grade": row["grade"]}
        assert result["index"] == pytest.approx(oracle("npi", inputs)["result"], abs=0.005 + 1e-9)  # two decimals there
        assert result["index"] == pytest.approx(0.2 * row["size"] / 10 + stage + row["grade"], abs=1e-12)
    (published,) = run("npi", [{"size": 25, "nodes": 0, "grade": 2}])
    assert published["index"] == 3.5  # METABRIC's column would say 3.05


# ---- what is refused, and what the release holds ---------------------------------------------------------------------

SOUND: dict[str, Row] = {
    "news2": HEALTHY,
    "khorana": {"site": 1, "platelets": 300, "haemoglobin": 12, "esa": 0, "leukocytes": 7, "bmi": 25},
    "kfre": {"age": 60, "male": 1, "egfr": 40, "acr": 50},
    "meld3": {"bilirubin": 1, "creatinine": 1, "inr": 1, "sodium": 137, "albumin": 3.5, "female": 0, "dialysis": 0},
    "cha2ds2-va": {"age": 70, "heart_failure": 0, "hypertension": 1, "diabetes": 0, "stroke": 0, "vascular": 0},
    "npi": {"size": 20, "nodes": 1, "grade": 2},
}


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        *((name, column, "nan") for name, row in SOUND.items() for column in row),
        *((name, column, "") for name, row in SOUND.items() for column in row),
        ("npi", "grade", "7"), ("npi", "grade", "9"), ("npi", "size", "-3"), ("npi", "nodes", "1.5"),
        ("kfre", "egfr", "60"), ("kfre", "egfr", "0"), ("kfre", "acr", "0"), ("kfre", "acr", "-1"),
        ("kfre", "age", "17"), ("kfre", "male", "2"), ("news2", "spo2", "101"), ("news2", "pulse", "-5"),
        ("news2", "consciousness", "3"), ("news2", "temperature", "98.6"), ("meld3", "inr", "inf"),
        ("meld3", "sodium", "0"), ("khorana", "site", "3"), ("khorana", "platelets", "350000"),
        ("cha2ds2-va", "age", "-1"), ("cha2ds2-va", "stroke", "2"), ("cha2ds2-va", "age", "64.5"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_row_and_column_without_its_value(name: str, column: str, value: str) -> None:
    model = Shelf().get(name)
    row = {**{key: repr(number) for key, number in SOUND[name].items()}, column: value}
    with pytest.raises(BadInput, match=f"{column} .*row 1") as refused:
        list(run_table(model, Shelf().path(model), [row]))
    assert len(value) < 4 or value not in str(refused.value)


@pytest.mark.parametrize("name", SOUND)
def test_models_run_takes_a_file(name: str, tmp_path: Path) -> None:
    features, out = tmp_path / "in.csv", tmp_path / "out.csv"
    with features.open("w", newline="") as table:
        writer = csv.DictWriter(table, [*SOUND[name]])
        writer.writeheader()
        writer.writerow(SOUND[name])
    assert main(["models", "run", name, "--features", str(features), "--out", str(out)]) == 0
    with out.open(newline="") as table:
        (row,) = csv.DictReader(table)
    assert all(math.isfinite(float(value)) for value in row.values())
    features.write_text("colour\nred\n")
    assert main(["models", "run", name, "--features", str(features)]) == 1


@pytest.mark.parametrize("name", SOUND)
def test_a_manifest_names_source_population_limits_and_what_its_outputs_are(name: str) -> None:
    manifest = Shelf().get(name).manifest
    (part,) = manifest["modalities"]
    assert manifest["source"]["text"]
    assert manifest["limits"]
    assert manifest["population"]["text"]
    assert {rule["name"] for rule in manifest["rules"]} == set(part["columns"])
    assert {output: len(words) for output, words in part["meaning"].items()} == {
        output: shape[-1] for output, shape in part["outputs"].items() if output != "z"
    }
    assert bool(manifest["head"]) == ("z" in part["outputs"])
