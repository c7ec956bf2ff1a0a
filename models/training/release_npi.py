"""The Nottingham Prognostic Index as an exact graph: Galea 1992, Breast Cancer Res Treat 22:207-19.

Read by the clinical modality, with its rules for one tumour; this release only names other columns. METABRIC's own
column of this name is not this index: nine rows of ten hold 0.02 x size in cm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models import features
from models.modalities import clinical
from models.training import points, release
from models.training.graph import Graph
from models.training.points import bands, part, rule

COLUMNS = ("size", "nodes", "grade")
GROUPS = ((3.4, "good"), (5.4, "moderate")), "poor"
"""Up to; Galea 1992."""


def build() -> bytes:
    """Input `x` [N, 3] (size in mm); outputs `items` [N, 1, 3], `points` [N, 1, 1]: 0.2 x cm + node stage + grade."""
    g = Graph("npi")
    x = g.columns("x", COLUMNS)
    items = (
        g("Mul", g("Div", x["size"], 10.0), 0.2),
        bands(g, x["nodes"], ((0, 1), (3, 2)), 3),
        g("Identity", x["grade"]),
    )
    points.publish(g, "items", *items)
    points.publish(g, "points", g.total(*items))
    return points.finish(
        g, len(COLUMNS), {"items": 3, "points": 1}, z=False, about="Nottingham Prognostic Index, Galea 1992"
    )


def manifest() -> dict[str, Any]:
    """Everything but the digests of the files."""
    read = (features.SIZE, features.NODES, features.SENTINEL_NODES, features.GRADE)
    (cuts, poor) = GROUPS
    groups = ", ".join([f"up to {upper:g} {name}" for upper, name in cuts])
    required = {"size": "tumour size", "nodes": "number of positive nodes", "grade": "histologic grade"}
    return {
        "name": "npi",
        "version": "1992.1",
        "title": "Nottingham Prognostic Index",
        "intended_use": "Shows the index beside PREDICT. Research prototype, not a medical device.",
        "endpoint": f"0.2 x size in cm + node stage (1 to 3) + grade (1 to 3): {groups}, above {poor}.",
        "population": {
            "text": (
                "Women with a first, invasive, non-metastatic breast cancer, treated by surgery first. Others are "
                "refused with the reason."
            )
        },
        "modalities": [
            part(
                clinical, COLUMNS, {"items": COLUMNS, "points": ("index",)}, definitions=read,
                required=required, file="npi.onnx",
            )
        ],
        "head": {},
        "rules": [rule(features.SIZE), rule(features.NODES), {"name": "grade", "allowed": [1.0, 2.0, 3.0]}],
        "parameters": {},
        "other_inputs": {},
        "table": points.table(
            clinical, {"points": ("index",), "items": [f"index_{name}" for name in COLUMNS]}
        ),
        "evidence": ["Random tumours with every boundary against clincalc (a test of every build): within 1e-12."],
        "limits": [
            "Grade is required: the index has no value for an unknown one.",
            "Survival by group is historical (Nottingham, 1973 to 1989) and is not shown.",
        ],
        "source": {
            "text": (
                "Galea MH, Blamey RW, Elston CE, Ellis IO. The Nottingham Prognostic Index in primary breast cancer. "
                "Breast Cancer Res Treat 1992;22:207-19."
            )
        },
        "licence": "A published equation; no licence is asked for.",
        "card": {**points.CARD, "keywords": "breast cancer, prognosis"},
        "training": release.training(__name__),
    }  # fmt: skip


def write(root: Path) -> Path:
    """Write `npi/1992.1` under `root`."""
    return points.write(root, manifest(), build())
