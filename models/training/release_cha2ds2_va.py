"""CHA2DS2-VA as an exact graph: ESC 2024, Table 10."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.modalities import cha2ds2_va
from models.training import points, release
from models.training.graph import Graph
from models.training.points import bands, choice, part

COLUMNS = ("age", *cha2ds2_va.ITEMS)
WEIGHTS = {"heart_failure": 1.0, "hypertension": 1.0, "diabetes": 1.0, "stroke": 2.0, "vascular": 1.0}
AGE = ((64, 0), (74, 1)), 2
"""Completed years, up to."""


def build() -> bytes:
    """Input `x` [N, 6]; outputs `items` [N, 1, 6], `points` [N, 1, 1]."""
    g = Graph("cha2ds2_va")
    x = g.columns("x", COLUMNS)
    items = (
        bands(g, g("Floor", x["age"]), *AGE),
        *(g("Mul", x[name], WEIGHTS[name]) for name in cha2ds2_va.ITEMS),
    )
    points.publish(g, "items", *items)
    points.publish(g, "points", g.total(*items))
    return points.finish(g, len(COLUMNS), {"items": 6, "points": 1}, z=False, about="CHA2DS2-VA, ESC 2024")


def manifest() -> dict[str, Any]:
    """Everything but the digests of the files."""
    sets = {
        name: [f"{name.replace('_', ' ').capitalize()}", "diagnoses, by `models/modalities/cha2ds2_va.json`", "absent"]
        for name in cha2ds2_va.ITEMS
    }
    return {
        "name": "cha2ds2-va",
        "version": "2024.1",
        "title": "CHA2DS2-VA score",
        "intended_use": "Shows the score. Research prototype, not a medical device.",
        "endpoint": (
            "Points from 0 to 8 for the risk of stroke in atrial fibrillation. ESC 2024: 2 or more, anticoagulation is "
            "recommended; 1, it should be considered. No calibrated probability is published with it: none is shown."
        ),
        "population": {"age": [18.0, 120.0], "text": "Adults with atrial fibrillation or flutter on record."},
        "modalities": [
            part(cha2ds2_va, COLUMNS, {"items": COLUMNS, "points": ("points",)}, definitions=()),
        ],
        "head": {},
        "rules": [
            {"name": "age", "range": [18.0, 120.0], "whole": True},
            *(choice(name, {0.0: "absent", 1.0: "on record"}) for name in cha2ds2_va.ITEMS),
        ],
        "parameters": {},
        "other_inputs": {"age": ["Age, completed years", "`birthDate`", "required"], **sets},
        "table": points.table(cha2ds2_va, {"points": ("points",), "items": [f"points_{name}" for name in COLUMNS]}),
        "evidence": ["Every combination of diagnoses at every age from 18 to 120 against clincalc: no difference."],
        "limits": [
            "A diagnosis that is not on record counts as absent: the score is then a lower bound, and says so.",
            "Mechanical valves and mitral stenosis, for which the score is not meant, are not checked.",
            "Vascular disease is ESC 2024's (coronary disease included); CHA2DS2-VASc (Lip 2010) is not shipped.",
            "Readings (blood pressure, ejection fraction) are not read as diagnoses.",
        ],
        "source": {
            "text": (
                "Van Gelder IC et al. 2024 ESC Guidelines for the management of atrial fibrillation. Eur Heart J "
                "2024;45:3314-414. After Lip GYH et al., Chest 2010;137:263-72."
            )
        },
        "licence": "A published equation; no licence is asked for.",
        "card": {**points.CARD, "keywords": "atrial fibrillation, stroke"},
        "training": release.training(__name__),
    }


def write(root: Path) -> Path:
    """Write `cha2ds2-va/2024.1` under `root`."""
    return points.write(root, manifest(), build())
