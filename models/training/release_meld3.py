"""MELD 3.0 as an exact graph: Kim 2021, Gastroenterology 161:1887-95; bounds of OPTN policy 9."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.modalities import meld3
from models.training import points, release
from models.training.graph import Graph
from models.training.points import choice, part, rule

COLUMNS = ("bilirubin", "creatinine", "inr", "sodium", "albumin", "female", "dialysis")
ITEMS = (
    "female", "bilirubin", "sodium", "sodium and bilirubin", "inr", "creatinine", "albumin", "albumin and creatinine",
    "constant",
)  # fmt: skip
LOWEST, HIGHEST = 6.0, 40.0


def build() -> bytes:
    """Input `x` [N, 7]; outputs `items` [N, 1, 9], `raw` (their sum) and `points` [N, 1, 1] (whole, 6 to 40)."""
    g = Graph("meld3")
    x = g.columns("x", COLUMNS)
    creatinine = _between(g, g("Where", g("Greater", x["dialysis"], 0.5), 3.0, x["creatinine"]), 1.0, 3.0)
    bilirubin, inr = g("Log", g("Max", x["bilirubin"], 1.0)), g("Log", g("Max", x["inr"], 1.0))
    sodium = g("Sub", 137.0, _between(g, x["sodium"], 125.0, 137.0))
    albumin = g("Sub", 3.5, _between(g, x["albumin"], 1.5, 3.5))
    kidney = g("Log", creatinine)
    items = (
        g("Mul", x["female"], 1.33),
        g("Mul", bilirubin, 4.56),
        g("Mul", sodium, 0.82),
        g("Mul", g("Mul", sodium, bilirubin), -0.24),
        g("Mul", inr, 9.09),
        g("Mul", kidney, 11.14),
        g("Mul", albumin, 1.85),
        g("Mul", g("Mul", albumin, kidney), -1.83),
        g("Add", g("Mul", x["female"], 0.0), 6.0),
    )
    raw = g.total(*items)
    points.publish(g, "items", *items)
    points.publish(g, "raw", raw)
    points.publish(g, "points", _between(g, g("Floor", g("Add", raw, 0.5)), LOWEST, HIGHEST))
    return points.finish(
        g, len(COLUMNS), {"items": 9, "raw": 1, "points": 1}, z=False, about="MELD 3.0, Gastroenterology 2021;161:1887"
    )


def _between(g: Graph, value: str, low: float, high: float) -> str:
    return g("Min", g("Max", value, low), high)


def manifest() -> dict[str, Any]:
    """Everything but the digests of the files."""
    bounded = (meld3.BILIRUBIN, meld3.CREATININE, meld3.INR, meld3.SODIUM, meld3.ALBUMIN)
    return {
        "name": "meld3",
        "version": "3.0.1",
        "title": "MELD 3.0",
        "intended_use": "Shows the score. No allocation of organs. Research prototype, not a medical device.",
        "endpoint": (
            "Points from 6 to 40 (whole, half up), and the sum before rounding and bounds. It ranks 90-day mortality "
            "on the waiting list; no probability is shown."
        ),
        "population": {"age": [18.0, 120.0], "text": "Adults with liver disease. Other rules hold for 12 to 17 years."},
        "modalities": [
            part(
                meld3,
                COLUMNS,
                {"items": ITEMS, "raw": ("sum of the items",), "points": ("points",)},
                definitions=meld3.DEFINITIONS,
            )
        ],
        "head": {},
        "rules": [
            *map(rule, bounded),
            choice("female", {0.0: "male", 1.0: "female"}),
            choice("dialysis", {0.0: "fewer than two sessions in 7 days", 1.0: "two or more sessions in 7 days"}),
        ],
        "parameters": {},
        "other_inputs": {
            "female": ["Sex", "`gender`", "required: female or male"],
            "dialysis": [
                "Dialysis in the 7 days before the creatinine",
                "procedures, by the code set in `models/modalities/meld3.json`",
                "counts as none, said so",
            ],
        },
        "table": points.table(meld3, {"points": ("points",), "raw": ("raw",)}),
        "evidence": [
            "Random patients with every bound against clincalc (a test of every build): the same points, the sum "
            "within 1e-9.",
        ],
        "limits": [
            "All results of the last seven days, for every score (our decision; OPTN's intervals depend on the score).",
            "That the person has liver disease is not checked.",
            "Continuous dialysis of 24 hours counts only where it is recorded as two sessions.",
        ],
        "source": {
            "text": (
                "Kim WR, Mannalithara A, Heimbach JK, et al. MELD 3.0: The Model for End-Stage Liver Disease updated "
                "for the modern era. Gastroenterology 2021;161:1887-95. Bounds: OPTN policy 9."
            )
        },
        "licence": "A published equation; no licence is asked for.",
        "card": {**points.CARD, "keywords": "liver disease, transplantation"},
        "training": release.training(__name__),
    }


def write(root: Path) -> Path:
    """Write `meld3/3.0.1` under `root`."""
    return points.write(root, manifest(), build())
