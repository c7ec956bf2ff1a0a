"""The release of `cgm-summary@1.0.0`: what the consensus on time in range computes from a sensor's readings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.modalities import wearables
from models.training import points, release
from models.training.graph import Graph

NAME, VERSION = "cgm-summary", "1.0.0"
SUMMARY = ("gmi", "cv")
TARGETS = ("in_range", "below_70", "below_54", "above_180", "above_250", "cv")
"""Battelino 2019, most adults with type 1 or type 2 diabetes: > 70, < 4, < 1, < 25, < 5 %, CV <= 36 %."""


def build() -> bytes:
    """Input `x` [N, 8]; outputs `summary` [N, 1, 2] (GMI and coefficient of variation, per cent) and `targets`
    [N, 1, 6] (1 where the target is met).
    """
    g = Graph("cgm_summary")
    x = g.columns("x", wearables.COLUMNS)
    gmi = g("Add", g("Mul", x["mean"], 0.02392), 3.31)
    cv = g("Mul", g("Div", x["sd"], x["mean"]), 100.0)
    met = (
        g("Greater", x["in_range"], 70.0),
        g("Less", x["below_70"], 4.0),
        g("Less", x["below_54"], 1.0),
        g("Less", x["above_180"], 25.0),
        g("Less", x["above_250"], 5.0),
        g("LessOrEqual", cv, 36.0),
    )
    points.publish(g, "summary", gmi, cv)
    points.publish(g, "targets", *(g("Cast", each, to=11) for each in met))
    return points.finish(
        g, len(wearables.COLUMNS), {"summary": 2, "targets": 6}, z=False, about="CGM summary, Battelino 2019"
    )


def manifest() -> dict[str, Any]:
    """Everything but the digests of the files."""
    per_cent = [
        {"name": name, "range": [0.0, 100.0], "whole": False}
        for name in wearables.COLUMNS
        if name not in ("mean", "sd")
    ]
    return {
        "name": NAME,
        "version": VERSION,
        "title": "Continuous glucose monitoring, fourteen-day summary",
        "intended_use": (
            "Describes the glucose readings of a sensor to people. Not fused into the validated risk. Research "
            "prototype, not a medical device."
        ),
        "endpoint": (
            "Glucose management indicator and coefficient of variation in per cent, and which targets of the consensus "
            "on time in range are met. It describes: there is no outcome behind it, and no probability."
        ),
        "population": {
            "age": [18.0, 120.0],
            "text": "Adults with diabetes and a glucose sensor; not in pregnancy.",
        },
        "modalities": [
            points.part(
                wearables,
                wearables.COLUMNS,
                {"summary": SUMMARY, "targets": TARGETS},
                definitions=(wearables.MASS, wearables.MOLES),
            )
        ],
        "head": {},
        "rules": [
            {"name": "mean", "range": [20.0, 600.0], "whole": False},
            {"name": "sd", "range": [0.0, 300.0], "whole": False},
            *per_cent,
        ],
        "parameters": {},
        "other_inputs": {
            name: [title, "readings `99504-3` (mg/dL), `105272-9` (mmol/L) of 14 days", "required"]
            for name, title in {
                "mean": "Mean glucose, mg/dL",
                "sd": "Standard deviation, mg/dL",
                "in_range": "Time in 70 to 180 mg/dL, %",
                "below_54": "Time below 54 mg/dL, %",
                "below_70": "Time below 70 mg/dL, %",
                "above_180": "Time above 180 mg/dL, %",
                "above_250": "Time above 250 mg/dL, %",
                "active": "Sensor active, %",
            }.items()
        },
        "table": points.table(wearables, {"summary": SUMMARY, "targets": [f"target_{name}" for name in TARGETS]}),
        "label": "not fused into the validated risk",
        "evidence": [
            "Each metric is held against its definition on sequences of readings that were worked by hand (a test of "
            "every build); no real sensor's data was at hand."
        ],
        "limits": [
            "Describes, predicts nothing; not fused into the validated risk.",
            "Below 70 % of the readings of 14 days nothing is said.",
            "Targets are those for most adults; older and high-risk persons have others, which are not shown.",
            "The sensor's interval is taken as the commonest gap between readings.",
            "Pregnancy is recognised by the codes of one short list.",
            "The type of diabetes is not asked.",
        ],
        "source": {
            "text": (
                "Battelino 2019, Diabetes Care 42:1593 (ranges, targets, 14 days, 70 %); Bergenstal 2018, Diabetes "
                "Care 41:2275 (GMI)."
            )
        },
        "licence": "Published definitions; graph and integration: Apache-2.0.",
        "card": {
            **points.CARD,
            "output_type": "analysis",
            "model_type": "published descriptive formulas",
            "keywords": "diabetes, continuous glucose monitoring, time in range",
            "clinical_risk": "patterns of glucose readings are named as device territory (FDA, 6 January 2026)",
        },
        "training": release.training(__name__),
    }


def write(root: Path) -> Path:
    """Write `cgm-summary/1.0.0` under `root`."""
    return points.write(root, manifest(), build())
