"""The four-variable kidney failure risk equation as an exact graph: Tangri 2011; recalibrated, Tangri 2016."""

from __future__ import annotations

from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

from models.modalities import kfre
from models.training import points, release
from models.training.graph import Graph
from models.training.points import choice, part, rule

COLUMNS = ("age", "male", "egfr", "acr", "north_america")
YEARS = (2, 5)
SURVIVAL = {"north_america": ("0.9750", "0.9240"), "elsewhere": ("0.9832", "0.9365")}
"""Baseline survival free of kidney failure at 2 and 5 years (Tangri 2016, supplement)."""
REGIONS = {0.0: "calibration for outside North America", 1.0: "calibration for North America"}


def build() -> bytes:
    """Input `x` [N, 5]; outputs `terms` [N, 1, 4] (of the index), `risk` [N, 1, 2] (2 and 5 years), `z` [N, 1].

    `z` is the logit of the five-year risk 1 - exp(-H): ln(exp(H) - 1), which is H + ln(1 - exp(-H)).
    """
    g = Graph("kfre")
    x = g.columns("x", COLUMNS)
    terms = (
        g("Mul", g("Sub", g("Div", x["age"], 10.0), 7.036), -0.2201),
        g("Mul", g("Sub", x["male"], 0.5642), 0.2467),
        g("Mul", g("Sub", g("Div", x["egfr"], 5.0), 7.222), -0.5567),
        g("Mul", g("Sub", g("Log", x["acr"]), 5.137), 0.4510),
    )
    here = g("Greater", x["north_america"], 0.5)
    baseline = g("Where", here, *(g.constant([_hazards(region)]) for region in ("north_america", "elsewhere")))
    hazard = g("Mul", baseline, g("Exp", g.total(*terms)))  # [N, 2]
    kept = g("Exp", g("Neg", hazard))
    points.publish(g, "terms", *terms)
    points.publish(g, "risk", g("Sub", 1.0, kept))
    five = g.constant([1], index=True)
    alive = g("Gather", kept, five, axis=1)
    g("Add", g("Gather", hazard, five, axis=1), g("Log", g("Sub", 1.0, alive)), out="z")
    return points.finish(
        g, len(COLUMNS), {"terms": 4, "risk": 2}, z=True, about="KFRE, four variables, JAMA 2016;315:164"
    )


def _hazards(region: str) -> list[float]:
    """Cumulative baseline hazards at 2 and 5 years, correctly rounded."""
    with localcontext() as context:
        context.prec = 40
        return [float(-Decimal(alive).ln()) for alive in SURVIVAL[region]]


def manifest() -> dict[str, Any]:
    """Everything but the digests of the files."""
    member, _ = points.identity_head(kfre)
    return {
        "name": "kfre",
        "version": "2016.1",
        "title": "Kidney failure risk equation, four variables (KFRE)",
        "intended_use": "Shows the risk of kidney failure. Research prototype, not a medical device.",
        "endpoint": (
            "Probability of kidney failure treated by dialysis or transplantation within 2 and 5 years. The "
            "probability of the score is that of 5 years."
        ),
        "population": {
            "age": [18.0, 110.0],
            "text": "Adults with chronic kidney disease of stages G3 to G5 (eGFR below 60), before dialysis.",
        },
        "modalities": [
            part(
                kfre,
                COLUMNS,
                {"terms": ("age", "male", "egfr", "acr"), "risk": [f"{years} years" for years in YEARS]},
                definitions=kfre.DEFINITIONS,
                z="logit of the five-year risk of kidney failure",
            )
        ],
        "head": member,
        "rules": [
            {"name": "age", "range": [18.0, 110.0], "whole": False},
            choice("male", {0.0: "female", 1.0: "male"}),
            {**rule(kfre.EGFR), "range": [1.0, 59.999]},
            rule(kfre.ACR),
            choice("north_america", REGIONS, governed=True),
        ],
        "parameters": {"north_america": [0.0, REGIONS[0.0]]},
        "other_inputs": {
            "age": ["Age, completed years", "`birthDate`", "required"],
            "male": ["Sex", "`gender`", "required: female or male"],
        },
        "table": points.table(kfre, {"risk": [f"risk_{years}y" for years in YEARS]}, north_america=0.0),
        "evidence": [
            "Random patients, both calibrations, both horizons against the package kfre (a test of every build): "
            "within 1e-12.",
        ],
        "limits": [
            "The calibration is a parameter of the release: outside North America unless a site releases another.",
            "One low eGFR is not chronic kidney disease: a card without that diagnosis says so.",
            "Ratios in mg/mmol do not convert by UCUM and are refused.",
            "eGFR counts for 180 days, the ratio for 365 (our decision).",
        ],
        "source": {
            "text": (
                "Tangri N et al. A predictive model for progression of chronic kidney disease to kidney failure. JAMA "
                "2011;305:1553-9. Multinational assessment of accuracy of equations. JAMA 2016;315:164-74."
            )
        },
        "licence": "A published equation; no licence is asked for.",
        "card": {**points.CARD, "keywords": "chronic kidney disease, kidney failure"},
        "training": release.training(__name__),
    }


def write(root: Path) -> Path:
    """Write `kfre/2016.1` under `root`."""
    _, body = points.identity_head(kfre)
    return points.write(root, manifest(), build(), {"head.onnx": body})
