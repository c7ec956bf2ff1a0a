"""The Khorana score as an exact graph: Khorana 2008, Blood 111:4902-7, Table 3."""

from __future__ import annotations

from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

from models.modalities import khorana
from models.training import points, release
from models.training.graph import Graph
from models.training.points import bands, choice, flag, part, rule

COLUMNS = ("site", "platelets", "haemoglobin", "esa", "leukocytes", "bmi")
ITEMS = ("site", "platelets", "haemoglobin or growth factors", "leukocytes", "bmi")
RISKS = ((0, "0.050"), (2, "0.066")), "0.110"
"""Venous thrombo-embolism within six months, by points (up to): Mulder 2019, Haematologica 104:1277-87."""


def build() -> bytes:
    """Input `x` [N, 6]; outputs `items` [N, 1, 5], `points` and `risk` [N, 1, 1], `z` [N, 1] (its logit)."""
    g = Graph("khorana")
    x = g.columns("x", COLUMNS)
    items = (
        g("Identity", x["site"]),
        flag(g, g("GreaterOrEqual", x["platelets"], 350.0), 1.0),
        flag(g, g("Or", g("Less", x["haemoglobin"], 10.0), g("Greater", x["esa"], 0.5)), 1.0),
        flag(g, g("Greater", x["leukocytes"], 11.0), 1.0),
        flag(g, g("GreaterOrEqual", x["bmi"], 35.0), 1.0),
    )
    total = g.total(*items)
    cuts, above = RISKS
    g("Identity", bands(g, total, [(upper, _logit(risk)) for upper, risk in cuts], _logit(above)), out="z")
    points.publish(g, "items", *items)
    points.publish(g, "points", total)
    points.publish(g, "risk", bands(g, total, [(upper, float(risk)) for upper, risk in cuts], float(above)))
    return points.finish(
        g, len(COLUMNS), {"items": 5, "points": 1, "risk": 1}, z=True, about="Khorana score, Blood 2008;111:4902"
    )


def _logit(risk: str) -> float:
    """Correctly rounded."""
    with localcontext() as context:
        context.prec = 40
        return float((Decimal(risk) / (1 - Decimal(risk))).ln())


def manifest() -> dict[str, Any]:
    """Everything but the digests of the files, and the bytes of the head beside it."""
    outputs = {"items": ITEMS, "points": ("points",), "risk": ("venous thrombo-embolism within 6 months",)}
    member, _ = points.identity_head(khorana)
    return {
        "name": "khorana",
        "version": "2008.1",
        "title": "Khorana score for venous thrombo-embolism under chemotherapy",
        "intended_use": "Shows the score when chemotherapy is drafted. Research prototype, not a medical device.",
        "endpoint": (
            "Points from 0 to 6. Bands: 0 low, 1 and 2 intermediate, 3 or more high. The probability is the observed "
            "rate of venous thrombo-embolism within six months in the band: 5.0 %, 6.6 %, 11.0 % (Mulder 2019, 34,555 "
            "outpatients): of the band, not of the person."
        ),
        "population": {
            "age": [18.0, 120.0],
            "text": (
                "Adults with a solid tumour or lymphoma of known primary site, outpatients, before a new systemic "
                "anticancer therapy. Leukaemia and myeloma are refused."
            ),
        },
        "modalities": [
            part(
                khorana,
                COLUMNS,
                outputs,
                definitions=khorana.DEFINITIONS,
                z="logit of the six-month rate of venous thrombo-embolism in the band",
            )
        ],
        "head": member,
        "rules": [
            choice("site", {0.0: "another site", 1.0: "high-risk site", 2.0: "very high-risk site"}),
            rule(khorana.PLATELETS),
            rule(khorana.HAEMOGLOBIN),
            choice("esa", {0.0: "not given", 1.0: "given"}),
            rule(khorana.LEUKOCYTES),
            rule(khorana.BMI),
        ],
        "parameters": {},
        "other_inputs": {
            "site": [
                "Site of the cancer",
                "diagnoses, by the code sets in `models/modalities/khorana.json`",
                "required",
            ],
            "esa": [
                "Red cell growth factors",
                "medications and draft orders, same file",
                "counts as not given, said so",
            ],
        },
        "table": points.table(
            khorana, {"points": ("points",), "risk": ("risk_6m",), "items": [f"points_{w.split()[0]}" for w in ITEMS]}
        ),
        "evidence": [
            "Random patients with every boundary against clincalc (a test of every build): no difference.",
            "The rates are Mulder 2019's; they were not checked on patients here.",
        ],
        "operating_points": [
            "2 or more: thromboprophylaxis is to be considered (ASCO 2019, ITAC 2022; card: warning)."
        ],
        "limits": [
            "Sites are those of 2008: brain and kidney count 0 here; modified versions that add them are other scores, "
            "and are not shipped because their lists could not be verified.",
            "Whether the therapy is a new one cannot be told from the record: the score is meant for before it.",
            "Blood counts older than 14 days and a BMI older than 90 are missing: the score abstains (our decision).",
            "Growth factors that nobody recorded, or whose code is not in the short list, count as not given.",
            "Inpatients are not told from outpatients.",
        ],
        "source": {
            "text": (
                "Khorana AA, Kuderer NM, Culakova E, Lyman GH, Francis CW. Development and validation of a predictive "
                "model for chemotherapy-associated thrombosis. Blood 2008;111:4902-7. Rates: Mulder FI et al. The "
                "Khorana score for prediction of venous thromboembolism in cancer patients. Haematologica "
                "2019;104:1277."
            )
        },
        "licence": "A published equation; no licence is asked for.",
        "card": {**points.CARD, "keywords": "venous thrombo-embolism, chemotherapy, thromboprophylaxis"},
        "training": release.training(__name__),
    }


def write(root: Path) -> Path:
    """Write `khorana/2008.1` under `root`."""
    _, body = points.identity_head(khorana)
    return points.write(root, manifest(), build(), {"head.onnx": body})
