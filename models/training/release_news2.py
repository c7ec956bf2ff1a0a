"""NEWS2 as an exact graph: Royal College of Physicians 2017, chart 1 (the scoring system). Reproduced unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.modalities import news2
from models.training import points, release
from models.training.graph import Graph
from models.training.points import bands, choice, flag, part, rule

ITEMS = ("respiration", "spo2", "oxygen", "systolic", "pulse", "consciousness", "temperature")
COLUMNS = (*ITEMS, "scale2")

RESPIRATION = ((8, 3), (11, 1), (20, 0), (24, 2)), 3
SPO2_SCALE_1 = ((91, 3), (93, 2), (95, 1)), 0
SPO2_SCALE_2 = ((83, 3), (85, 2), (87, 1)), 0
SPO2_SCALE_2_ON_OXYGEN = ((83, 3), (85, 2), (87, 1), (92, 0), (94, 1), (96, 2)), 3
SYSTOLIC = ((90, 3), (100, 2), (110, 1), (219, 0)), 3
PULSE = ((40, 3), (50, 1), (90, 0), (110, 1), (130, 2)), 3
TENTHS = ((350, 3), (360, 1), (380, 0), (390, 1)), 2
"""Temperature in tenths of a degree."""


def build() -> bytes:
    """Input `x` [N, 8]; outputs `items` [N, 1, 7], `points` and `highest` [N, 1, 1].

    The chart has whole numbers, and temperatures with one decimal: values are rounded to that first.
    """
    g = Graph("news2")
    x = g.columns("x", COLUMNS)
    on_oxygen, scale2 = g("Greater", x["oxygen"], 0.5), g("Greater", x["scale2"], 0.5)
    spo2 = g("Round", x["spo2"])
    on_scale_2 = g("Where", on_oxygen, bands(g, spo2, *SPO2_SCALE_2_ON_OXYGEN), bands(g, spo2, *SPO2_SCALE_2))
    items = (
        bands(g, g("Round", x["respiration"]), *RESPIRATION),
        g("Where", scale2, on_scale_2, bands(g, spo2, *SPO2_SCALE_1)),
        flag(g, on_oxygen, 2.0),
        bands(g, g("Round", x["systolic"]), *SYSTOLIC),
        bands(g, g("Round", x["pulse"]), *PULSE),
        flag(g, g("Greater", x["consciousness"], 0.5), 3.0),
        bands(g, g("Round", g("Mul", x["temperature"], 10.0)), *TENTHS),
    )
    points.publish(g, "items", *items)
    points.publish(g, "points", g.total(*items))
    points.publish(g, "highest", g("Max", *items))
    return points.finish(g, len(COLUMNS), {"items": 7, "points": 1, "highest": 1}, z=False, about="NEWS2, RCP 2017")


def manifest() -> dict[str, Any]:
    """Everything but the digests of the files."""
    return {
        "name": "news2",
        "version": "2017.1",
        "title": "National Early Warning Score 2 (NEWS2)",
        "intended_use": "Shows the score and what it rests on to ward staff. Research prototype, not a medical device.",
        "endpoint": (
            "Points from 0 to 20 over seven physiological parameters. Response thresholds of the RCP: 0 to 4 low, 3 in "
            "one parameter low to medium, 5 or 6 medium (urgent response), 7 or more high (emergency response). No "
            "probability is published with the score, and none is shown."
        ),
        "population": {
            "age": [16.0, 120.0],
            "text": "Persons of 16 years or more who are acutely ill; not in pregnancy (RCP 2017).",
        },
        "modalities": [
            part(
                news2,
                COLUMNS,
                {"items": ITEMS, "points": ("points",), "highest": ("highest single parameter",)},
                definitions=news2.DEFINITIONS,
            )
        ],
        "head": {},
        "rules": [
            *(rule(each) for each in (news2.RESPIRATION, news2.SPO2, news2.OXYGEN, news2.SYSTOLIC, news2.PULSE)),
            rule(news2.CONSCIOUSNESS),
            rule(news2.TEMPERATURE),
            choice("scale2", SCALES),
        ],
        "parameters": {"scale2": [0.0, SCALES[0.0]]},
        "other_inputs": {},
        "table": points.table(
            news2,
            {"points": ("points",), "highest": ("highest",), "items": [f"points_{name}" for name in ITEMS]},
            scale2=0.0,
        ),
        "evidence": [
            "Every row of the RCP's chart at its boundaries, and thousands of random observations against clincalc "
            "(a test of every build): no difference.",
        ],
        "operating_points": [
            "7 or more: emergency response (card: critical).",
            "5 or 6, or 3 in one parameter: urgent response (card: warning).",
        ],
        "limits": [
            "A parameter not observed within twelve hours makes the score abstain, however ill the others look.",
            "Scale 2 of oxygen saturation is used only where the request says so, never because of a diagnosis.",
            "The Glasgow Coma Scale is not read as consciousness; new confusion must be coded as such.",
            "Numbers between two rows of the chart are rounded to the chart's precision first (half to even).",
        ],
        "source": {
            "text": (
                "Royal College of Physicians. National Early Warning Score (NEWS) 2: Standardising the assessment of "
                "acute-illness severity in the NHS. Updated report of a working party. London: RCP, 2017."
            )
        },
        "licence": "NEWS2: (c) Royal College of Physicians 2017, reproduced unchanged with attribution.",
        "card": {**points.CARD, "keywords": "deterioration, early warning, vital signs"},
        "training": release.training(__name__),
    }


SCALES = {0.0: "oxygen saturation read on scale 1", 1.0: "oxygen saturation read on scale 2 (target 88 to 92 %)"}


def write(root: Path) -> Path:
    """Write `news2/2017.1` under `root`."""
    return points.write(root, manifest(), build())
