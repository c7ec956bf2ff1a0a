"""The three modalities of the recurrence models as graphs: input `x` [N, F], output `z` [N, 1]."""

from __future__ import annotations

from models.training.graph import Graph
from models.training.predict_breast import YEARS, baselines, breast_index, coefficients, deaths, increments, other_index
from models.training.recurrence import Linear

CLINICAL_COLUMNS = ("age", "screen", "size", "grade", "nodes", "er", "her2", "ki67", "pr", "smoker", "year")
"""The inputs of PREDICT Breast v3.2 that act after surgery alone."""
AT_YEAR = 5


def linear(name: str, model: Linear, documentation: str) -> bytes:
    """intercept + sum of weight x column, in the order of the weights."""
    g = Graph(name)
    products = g("MatMul", "x", g.constant([[weight] for weight in model.weights.values()]))
    g("Add", products, model.intercept, out="z")
    return g.model({"x": ("N", len(model.weights))}, {"z": ("N", 1)}, documentation)


def clinical(model: Linear) -> bytes:
    """PREDICT Breast v3.2 after surgery alone: logit of the five-year mortality, recalibrated linearly."""
    g = Graph("predict_breast_3_2_recurrence")
    k, hazards = coefficients(), baselines(coefficients())
    x = g.columns("x", CLINICAL_COLUMNS)
    er = g("Equal", x["er"], 1.0)
    breast, other = breast_index(g, k, x, er), other_index(g, k, x)
    base = g("Where", er, g.constant([increments(hazards["er1"])]), g.constant([increments(hazards["er0"])]))
    scenario, year = g.constant([1], index=True), g.constant(2, index=True)
    yearly = g("Unsqueeze", g("Mul", base, g("Exp", breast)), scenario)  # [N, 1, 15]
    alive_breast = g("Exp", g("Neg", g("CumSum", yearly, year)))
    risk_other = g("Unsqueeze", g("Exp", other), scenario)  # [N, 1, 1]
    alive_other = g("Exp", g("Mul", risk_other, g.constant([[[-hazard for hazard in hazards["other"]]]])))
    die_breast, die_other = deaths(g, alive_breast), deaths(g, alive_other)
    die = deaths(g, g("Mul", alive_breast, alive_other))
    cumulative = g("CumSum", g("Mul", die, g("Div", die_breast, g("Add", die_breast, die_other))), year)
    flat = g("Reshape", cumulative, g.constant([-1, YEARS], index=True))
    p = g("Gather", flat, g.constant([AT_YEAR - 1], index=True), axis=1)
    predict = g("Log", g("Div", p, g("Sub", 1.0, p)))
    (slope,) = model.weights.values()
    g("Add", g("Mul", predict, slope), model.intercept, out="z")
    return g.model(
        {"x": ("N", len(CLINICAL_COLUMNS))},
        {"z": ("N", 1)},
        "PREDICT Breast v3.2 equation (WintonCentre/predict-v30-r 42223bc1, MIT), recalibrated to recurrence",
    )
