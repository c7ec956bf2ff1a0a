"""The release of `nuclear-morphometry@1.0.0`: recurrence within two years from thirty nuclear features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.modalities import imaging
from models.training import points, release
from models.training.graph import Graph

NAME, VERSION = "nuclear-morphometry", "1.0.0"
FITTED_BY = "models.training.nuclear_morphometry"
COEFFICIENTS = Path(__file__).with_name("nuclear_morphometry.json")
COLUMNS = tuple(definition.name for definition in imaging.NUCLEAR)
FEWEST_EVENTS = 50


def stated() -> dict[str, Any]:
    """The committed coefficients."""
    found: dict[str, Any] = json.loads(COEFFICIENTS.read_text())
    return found


def build(fitted: dict[str, Any]) -> bytes:
    """Input `x` [N, 30]; output `z` [N, 1] = intercept + sum of weight x (value - centre)."""
    g = Graph("nuclear_morphometry")
    features = [fitted["features"][column] for column in COLUMNS]
    away = g("Sub", "x", g.constant([[feature["centre"] for feature in features]]))
    product = g("MatMul", away, g.constant([[feature["weight"]] for feature in features]))
    g("Add", product, fitted["intercept"], out="z")
    return g.model({"x": ("N", len(COLUMNS))}, {"z": ("N", 1)}, "nuclear morphometry, Wisconsin prognostic set")


def manifest() -> dict[str, Any]:
    """Everything but the digests of the files."""
    fitted = stated()
    head, _ = points.identity_head(imaging)
    titles = {definition.name: definition.title for definition in imaging.NUCLEAR}
    ranges = {column: fitted["features"][column]["range"] for column in COLUMNS}
    return {
        "name": NAME,
        "version": VERSION,
        "title": "Nuclear morphometry of a breast aspirate (Wisconsin prognostic set)",
        "intended_use": (
            "Shows what cell nuclei alone say of recurrence, beside the fused risk, never in it. Not fused into the "
            "validated risk. Research prototype, not a medical device."
        ),
        "endpoint": "Probability of recurrence within two years of surgery.",
        "horizon_months": fitted["horizon_months"],
        "population": {
            "text": (
                "Women with invasive breast cancer without distant metastasis, whose aspirate was measured by the "
                "authors' program at the authors' magnification."
            )
        },
        "modalities": [
            {
                **points.part(
                    imaging, COLUMNS, {}, definitions=imaging.NUCLEAR, z="logit of recurrence within two years"
                ),
                "guard": [{"name": c, "range": ranges[c], "title": titles[c]} for c in COLUMNS],
                "explain": {
                    "kind": "additive",
                    "reference": {column: fitted["features"][column]["centre"] for column in COLUMNS},
                    "text": "the mean of the 198 women that the model was fitted on",
                },
            }
        ],
        "head": {
            **head,
            "events": [fitted["events"]],
            "fewest_events": FEWEST_EVENTS,
            "not_validated": [[imaging.NAME]],
        },
        "rules": [{"name": column, "range": ranges[column], "whole": False} for column in COLUMNS],
        "parameters": {},
        "other_inputs": {},
        "table": {"modality": imaging.NAME, "defaults": {}, "outputs": [["logit", "z"]]},
        "label": "not fused into the validated risk",
        "evidence": [
            "Held-out figures are below; 29 recurrences stand behind them: fewer than 50, so the score is marked not "
            "validated.",
            "No other cohort has these features: there is no external validation.",
        ],
        "metrics": fitted["metrics"],
        "limits": [
            "Not fused into the validated risk: no cohort joins these features to the other modalities and an outcome.",
            "29 events: the intervals are wide, and the AUROC's lower end is near chance.",
            "Lengths are pixels of one microscope; another magnification is refused by the range of each feature only.",
            "Women of one centre, operated on about 1984 to 1995; treatment is not known.",
            "Reads images by their measured features: device territory in the United States (FDA, 6 January 2026).",
        ],
        "source": {
            "text": (
                "Wisconsin prognostic breast cancer data: Wolberg, Street and Mangasarian, University of Wisconsin, "
                "1995 (UCI Machine Learning Repository), as the package SurvSet ships it. Coefficients: fitted here."
            )
        },
        "licence": "Coefficients and graph: Apache-2.0.",
        "attributions": [
            "Data: Breast Cancer Wisconsin (Prognostic), UCI Machine Learning Repository, CC BY 4.0 (from memory); "
            "package SurvSet, GPL-3.0 (not shipped)."
        ],
        "card": {
            "model_type": "ridge logistic regression with inverse-probability weights",
            "keywords": "breast cancer, cytology, nuclear morphometry, recurrence",
            "variables": "none of them is an input",
            "criteria": "198 consecutive women with invasive disease, no distant metastasis, one surgeon's patients",
            "representativeness": "unknown: the data have no demographic variables, not even age",
            "relevance": "one centre, about 1984 to 1995: of limited relevance to today's women",
            "bias_management": "none: without demographic variables nothing could be examined",
            "validity_internal": "see Measured",
            "fairness_internal": "could not be examined: the data have no demographic variables",
            "publications": "Street, Mangasarian and Wolberg 1995, International Conference on Machine Learning",
        },
        "training": release.training(
            __name__, seeds={"folds": fitted["seed"]}, data=fitted["data"], read=[COEFFICIENTS], fitted_by=[FITTED_BY]
        ),
    }


def write(root: Path) -> Path:
    """Write `nuclear-morphometry/1.0.0` under `root`."""
    _, head = points.identity_head(imaging)
    return points.write(root, manifest(), build(stated()), {"head.onnx": head})
