"""PREDICT Breast v3.2 as one exact double-precision graph.

The equations are those that `benefits32()` of the official program publishes (WintonCentre/predict-v30-r, commit
42223bc1, MIT, (c) 2022 University of Cambridge); its coefficients are shipped beside this file, licence included. The
graph is written from the equations and compared with 200 patients x 24 outputs of the official program.
"""

from __future__ import annotations

import csv
from decimal import Decimal, localcontext
from pathlib import Path

from models.training.graph import Graph

DATA = Path(__file__).parent / "data"
COEFFICIENTS = DATA / "predict_breast_v3_coefficients.csv"

COLUMNS = (
    "age", "screen", "size", "grade", "nodes", "er", "her2", "ki67", "pr",
    "gen", "horm", "traz", "bis", "radio", "heart", "smoker", "year",
)  # fmt: skip
"""Input columns; all but `year` are named as in the reference table of the official program."""

EFFECTS = ("r", "h", "c", "t", "b", "x")
"""Radiotherapy, hormone therapy, chemotherapy, trastuzumab, bisphosphonates, hormone therapy for 10 years (extra)."""

SCENARIOS = {
    "s": "",
    "r": "r",
    "h": "h",
    "c": "c",
    "t": "t",
    "b": "b",
    "rh": "rh",
    "rhc": "rhc",
    "rhct": "rhct",
    "rhctb": "rhctb",
    "h10": "hx",
    "rh10ctb": "rhctbx",
}
"""Surgery alone, each treatment alone, and the treatments one after another, in the official program's order."""

YEARS = 15

HER2_BY_YEAR = {
    (1, 1): (0.608, 0.532, 0.457, 0.382, 0.307, 0.231, 0.156, 0.081, 0.006, 0, 0, 0, 0, 0, 0),
    (1, 0): (-0.053, -0.046, -0.040, -0.033, -0.027, -0.020, -0.014, -0.007, 0, 0, 0, 0, 0, 0, 0),
    (0, 1): (0.2316,) * YEARS,
    (0, 0): (-0.08589,) * YEARS,
}
"""(ER, HER2) -> log hazard ratio per year."""
KI67 = {(1, 1): 0.14904, (1, 0): -0.11333}
PR = {(1, 1): -0.0619, (1, 0): 0.2624, (0, 1): -0.2231, (0, 0): 0.0296}
SCREEN_UNKNOWN = 0.204
GRADE_UNKNOWN = 2.13
OFFSET = {1: 0.7, 0: 0.55}
OFFSET_OTHER = -0.062
HORMONE, HORMONE_AFTER_10 = -0.3857, -0.301
CHEMO_2, CHEMO_3 = -0.248, -0.446
TRASTUZUMAB, BISPHOSPHONATE = -0.3567, -0.198


def _ln(above: str, below: str = "1") -> float:
    """ln(above / below), correctly rounded."""
    with localcontext() as context:
        context.prec = 40
        return float((Decimal(above) / Decimal(below)).ln())


def coefficients() -> dict[str, float]:
    """The 26 published coefficients, in full precision."""
    with COEFFICIENTS.open(newline="") as table:
        return {row["variable"]: float(row["beta"]) for row in csv.DictReader(table)}


def baselines(k: dict[str, float]) -> dict[str, list[float]]:
    """Cumulative baseline hazards at years 1 to 15, correctly rounded on any machine (40 digits, then binary64)."""
    hazards: dict[str, list[float]] = {"er1": [], "er0": [], "other": []}
    with localcontext() as context:
        context.prec = 40
        d = {name: Decimal(value) for name, value in k.items()}
        for year in range(1, YEARS + 1):
            s = Decimal(year) / 10
            ln = s.ln()
            root = 1 / s.sqrt()
            hazards["er1"].append(float((d["h1_br_i"] + d["h1_br_t1"] * root + d["h1_br_t2"] * root * ln).exp()))
            hazards["er0"].append(float((d["h0_br_i"] + d["h0_br_t1"] / s + d["h0_br_t2"] * ln / s).exp()))
            hazards["other"].append(float((d["h_ot_i"] + d["h_ot_t1"] * ln + d["h_ot_t2"] * s).exp()))
    return hazards


def increments(cumulative: list[float]) -> list[float]:
    return [after - before for before, after in zip([0.0, *cumulative], cumulative, strict=False)]


def _receptors() -> list[list[float]]:
    """Rows of 15 years for HER2, Ki67 and PR: row 6 * marker + 3 * ER + (0 negative, 1 positive, 2 unknown)."""
    rows: list[list[float]] = []
    for table in (HER2_BY_YEAR, {k: (v,) * YEARS for k, v in KI67.items()}, {k: (v,) * YEARS for k, v in PR.items()}):
        for er in (0, 1):
            rows += [[float(v) for v in table.get((er, answer), (0.0,) * YEARS)] for answer in (0, 1, 2)]
    return rows


def _design() -> list[list[list[float]]]:
    """[effect, scenario, year]: 1 where the effect acts."""
    return [
        [
            [float(effect in parts and (effect != "x" or year > 10)) for year in range(1, YEARS + 1)]
            for parts in SCENARIOS.values()
        ]
        for effect in EFFECTS
    ]


def build() -> bytes:
    """Input `x` [N, 17]; outputs `survival` and `breast_mortality` [N, 12, 15] in percent, `z` [N, 1].

    `z` is the logit of the 10-year risk of dying of breast cancer (with other causes competing) after surgery alone:
    what fusion reads. Surgery alone, because a tumour board asks before treatment is chosen, and a score that already
    held the treatment would count it twice when a head is fitted on treated patients.
    """
    g = Graph("predict_breast_3_2")
    k = coefficients()
    x = g.columns("x", COLUMNS)

    er = g("Equal", x["er"], 1.0)
    breast = breast_index(g, k, x, er)  # [N, 15]
    other = other_index(g, k, x)  # [N, 1]
    effects, other_effects = _treatments(g, x, er)  # [N, 6], [N, 2]

    n_scenarios = len(SCENARIOS)
    shape = g.constant([-1, n_scenarios, YEARS], index=True)
    design = [[cell for scenario in effect for cell in scenario] for effect in _design()]
    benefit = g("Reshape", g("MatMul", effects, g.constant(design)), shape)  # [N, S, 15]
    acts = [[float(effect in parts) for parts in SCENARIOS.values()] for effect in ("r", "c")]
    harm = g("MatMul", other_effects, g.constant(acts))  # [N, S]

    year_axis, scenario_axis = g.constant([2], index=True), g.constant([1], index=True)
    hazards = baselines(k)
    base = g("Where", er, g.constant([increments(hazards["er1"])]), g.constant([increments(hazards["er0"])]))
    yearly = g(
        "Mul",
        g("Unsqueeze", base, scenario_axis),
        g("Exp", g("Add", g("Unsqueeze", breast, scenario_axis), benefit)),
    )
    alive_breast = g("Exp", g("Neg", g("CumSum", yearly, g.constant(2, index=True))))
    risk_other = g("Exp", g("Add", other, harm))  # [N, S]
    alive_other = g(
        "Exp", g("Mul", g("Unsqueeze", risk_other, year_axis), g.constant([[[-h for h in hazards["other"]]]]))
    )
    alive = g("Mul", alive_breast, alive_other)

    die_breast, die_other, die = (deaths(g, curve) for curve in (alive_breast, alive_other, alive))
    of_breast = g("Mul", die, g("Div", die_breast, g("Add", die_breast, die_other)))
    cumulative = g("CumSum", of_breast, g.constant(2, index=True))
    g("Mul", alive, 100.0, out="survival")
    g("Mul", cumulative, 100.0, out="breast_mortality")

    after_surgery = g("Gather", cumulative, g.constant(0, index=True), axis=1)  # [N, 15]
    p = g("Gather", after_surgery, g.constant([9], index=True), axis=1)  # [N, 1]
    g("Log", g("Div", p, g("Sub", 1.0, p)), out="z")

    return g.model(
        {"x": ("N", len(COLUMNS))},
        {"survival": ("N", n_scenarios, YEARS), "breast_mortality": ("N", n_scenarios, YEARS), "z": ("N", 1)},
        "PREDICT Breast v3.2 equation, WintonCentre/predict-v30-r 42223bc1 (MIT, University of Cambridge)",
    )


def _linear(g: Graph, terms: list[str], weights: list[float]) -> str:
    axis = g.constant([1], index=True)
    return g("ReduceSum", g("Mul", g("Concat", *terms, axis=1), g.constant([weights])), axis, keepdims=1)


def breast_index(g: Graph, k: dict[str, float], x: dict[str, str], er: str) -> str:
    """Prognostic index of breast-cancer death, [N, 15] (the HER2 effect of ER-positive disease changes by year)."""
    a = g("Div", g("Sub", x["age"], 24.0), 100.0)
    nodes = g("Log", g("Add", x["nodes"], 1.0))
    grade = g("Where", g("Equal", x["grade"], 9.0), GRADE_UNKNOWN, x["grade"])
    screen = g("Where", g("Equal", x["screen"], 2.0), SCREEN_UNKNOWN, x["screen"])
    since = g("Sub", x["year"], 2000.0)
    shared = [nodes, grade, screen, since]
    shape = g("Sub", 1.0, g("Exp", g("Div", g("Neg", x["size"]), 20.0)))
    positive = _linear(
        g,
        [g("Pow", a, -0.5), g("Mul", a, a), shape, *shared],
        [k["ag1_er1"], k["ag2_er1"], k["sz1_er1"], k["nd1_er1"], k["gr1_er1"], k["sc1_er1"], k["yr1_er1"]],
    )
    negative = _linear(
        g,
        [a, g("Mul", a, g("Log", a)), g("Log", x["size"]), *shared],
        [k["ag1_er0"], k["ag2_er0"], k["sz1_er0"], k["nd1_er0"], k["gr1_er0"], k["sc1_er0"], k["yr1_er0"]],
    )
    index = g("Where", er, g("Add", positive, OFFSET[1]), g("Add", negative, OFFSET[0]))

    answers = g("Min", g("Concat", x["her2"], x["ki67"], x["pr"], axis=1), 2.0)
    rows = g.total(g("Add", answers, g("Mul", x["er"], 3.0)), g.constant([[0.0, 6.0, 12.0]]))
    markers = g("Gather", g.constant(_receptors()), g("Cast", rows, to=7), axis=0)  # [N, 3, 15]
    return g("Add", index, g("ReduceSum", markers, g.constant([1], index=True), keepdims=0))


def other_index(g: Graph, k: dict[str, float], x: dict[str, str]) -> str:
    """Index of death of other causes, [N, 1].

    Smoking: never or former ln(1 / 1.025), current ln(1.25 / 1.025), from 10 % smokers at 1.25 times the hazard; the
    mean of the population is 1, so unknown (9; an extension of ours, the official program has none) adds ln 1 = 0.
    """
    a = g("Div", g("Sub", x["age"], 24.0), 100.0)
    cubed = g("Pow", a, 3.0)
    index = _linear(
        g,
        [cubed, g("Mul", cubed, g("Log", a)), g("Sub", x["year"], 2000.0)],
        [k["ag_ot_ea.beta.1"], k["ag_ot_ea.beta.2"], k["yr_ot_ea.beta"]],
    )
    never = g("Where", g("Equal", x["smoker"], 0.0), _ln("1", "1.025"), _ln("1.25", "1.025"))
    smoking = g("Where", g("Equal", x["smoker"], 9.0), 0.0, never)
    return g.total(index, OFFSET_OTHER, smoking)


def _treatments(g: Graph, x: dict[str, str], er: str) -> tuple[str, str]:
    """Log hazard ratios on breast-cancer death [N, 6] and on other death [N, 2] (radiotherapy, chemotherapy).

    As in the official program: hormone therapy acts on ER-positive disease only, trastuzumab on HER2-positive only,
    and the dose at the heart counts in every scenario with radiotherapy, also where radiotherapy itself is off.
    """
    hormone = g("Where", er, x["horm"], 0.0)
    her2 = g("Where", g("Equal", x["her2"], 1.0), x["traz"], 0.0)
    none = g("Equal", x["gen"], 0.0)
    chemo = g("Where", none, 0.0, g("Where", g("Equal", x["gen"], 2.0), CHEMO_2, CHEMO_3))
    flags = g("Concat", x["radio"], hormone, chemo, her2, x["bis"], hormone, axis=1)
    weights = [[_ln("0.82"), HORMONE, 1.0, TRASTUZUMAB, BISPHOSPHONATE, HORMONE_AFTER_10]]
    heart = g("Mul", x["heart"], _ln("1.02"))
    return g("Mul", flags, g.constant(weights)), g("Concat", heart, g("Where", none, 0.0, _ln("1.2")), axis=1)


def deaths(g: Graph, alive: str) -> str:
    """Yearly deaths from a survival curve [N, S, 15]."""
    first, last, axis = (g.constant([value], index=True) for value in (0, YEARS - 1, 2))
    before = g("Slice", alive, first, last, axis)
    pads = g.constant([0, 0, 1, 0, 0, 0], index=True)
    return g("Sub", g("Pad", before, pads, 1.0), alive)
