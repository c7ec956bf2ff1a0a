"""The release of `predict-breast@3.2.0`: its two graphs, and everything that its manifest states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.fusion import head_shapes
from models.modalities import clinical
from models.training import head, predict_breast, release

NAME, VERSION = "predict-breast", "3.2.0"
YEAR = 2017.0
LICENCE = "LICENSE-predict-v30-r.md"
READ = (predict_breast.COEFFICIENTS, predict_breast.DATA / LICENCE)
KEPT = ("s", "r", "rh", "rhc", "rhct", "rhctb", "rh10ctb")
"""Scenarios whose curves go into every Score; the graph has more."""
TABLE_YEARS = (5, 10, 15)
TABLE_SCENARIOS = ("s", "r", "rhctb", "rh10ctb")

FLAG = [0.0, 1.0]
ANSWER = [0.0, 1.0, 9.0]
PRESENCE = {"0": "negative", "1": "positive", "9": "unknown"}
GIVEN = {"0": "not given", "1": "given"}
RULES: list[dict[str, Any]] = [
    {"name": "age", "range": [25.0, 85.0], "whole": False},
    {
        "name": "screen",
        "allowed": [0.0, 1.0, 2.0],
        "words": {"0": "found by symptoms", "1": "found by screening", "2": "unknown"},
    },
    {"name": "size", "range": [0.1, 500.0], "whole": False},
    {"name": "grade", "allowed": [1.0, 2.0, 3.0, 9.0]},
    {"name": "nodes", "range": [0.0, 100.0], "whole": True},
    {"name": "er", "allowed": FLAG, "words": PRESENCE},
    {"name": "her2", "allowed": ANSWER, "words": PRESENCE},
    {"name": "ki67", "allowed": ANSWER, "words": {"0": "10 % or less", "1": "above 10 %", "9": "unknown"}},
    {"name": "pr", "allowed": ANSWER, "words": PRESENCE},
    {
        "name": "gen",
        "allowed": [0.0, 2.0, 3.0],
        "words": {"0": "none", "2": "second generation", "3": "third generation"},
    },
    {"name": "horm", "allowed": FLAG, "words": GIVEN},
    {"name": "traz", "allowed": FLAG, "words": GIVEN},
    {"name": "bis", "allowed": FLAG, "words": GIVEN},
    {"name": "radio", "allowed": FLAG, "words": GIVEN},
    {"name": "heart", "range": [0.0, 50.0], "whole": False},
    {
        "name": "smoker",
        "allowed": ANSWER,
        "words": {"0": "never or former smoker", "1": "current smoker", "9": "unknown"},
    },
    {"name": "year", "range": [2000.0, 2030.0], "whole": True},
]
PARAMETERS: dict[str, tuple[float, str]] = {
    "gen": (3.0, "benefit shown for third-generation chemotherapy"),
    "horm": (1.0, "benefit shown for hormone therapy (acts on ER-positive disease only)"),
    "traz": (1.0, "benefit shown for trastuzumab (acts on HER2-positive disease only)"),
    "bis": (0.0, "no benefit shown for bisphosphonates (they hold after menopause only, which is not read)"),
    "radio": (1.0, "benefit shown for radiotherapy"),
    "heart": (0.0, "0 Gy at the heart; a planned dose can be given as a what-if input"),
    "year": (YEAR, "calendar year 2017, fixed as in the official program"),
}
OTHER_INPUTS = {
    "age": ("Age at diagnosis, completed years", "`birthDate` and the onset of the chosen tumour", "required"),
    "screen": ("Detected by screening", "what-if input only: no mCODE element states it", "the equation takes 0.204"),
}

EXPLAIN: dict[str, Any] = {
    "kind": "what-if",
    "reference": {"size": 20.0, "nodes": 0.0, "grade": 9.0, "her2": 9.0, "ki67": 9.0, "pr": 9.0},
    "text": (
        "What the 10-year risk would be with a tumour of 20 mm (the border of T1 and T2), with no positive node, or "
        "with this grade or marker unknown to the equation: one at a time, not to be added up."
    ),
}
CARD = {
    "developer": "Equation: the PREDICT team, University of Cambridge. Graph and integration: the cds-server project",
    "users": "members of a tumour board",
    "cautioned": (
        "Men, carcinoma in situ, recurrent or metastatic disease, neoadjuvant treatment, several tumours of which none "
        "is chosen: the model abstains and says why."
    ),
    "variables": (
        "Date of birth (as age at diagnosis) is an input; sex decides whether the model speaks. Race, ethnicity, "
        "language, sexual orientation, gender identity, social determinants and health status assessments are not used."
    ),
    "model_type": "published parametric survival equation, evaluated exactly",
    "keywords": "breast cancer, prognosis, survival, adjuvant treatment",
    "validity_internal": "not measured here; see the publications of PREDICT",
    "validity_external": (
        "METABRIC, n 1,875: AUROC of 10-year breast-cancer death 0.717 (0.688 to 0.747); observed/expected 1.48 with "
        "the fixed year 2017, 0.86 with the year 2000."
    ),
    "external_source": "METABRIC (United Kingdom and Canada, diagnosed 1977 to 2005), retrospective cohort",
    "external_party": "the cds-server project",
    "external_process": "the official equation on each patient, treatments as given, outcome from the follow-up",
    "publications": "Candido dos Reis 2017, Breast Cancer Research 19:58 (PREDICT v2); v3.2: the official program",
}
"""Answers to the questions of HTI-1 and CHAI that the manifest does not imply."""


def manifest() -> dict[str, Any]:
    """Everything but the digests of the files."""
    scenarios = list(predict_breast.SCENARIOS)
    curve: list[int | str] = ["N", len(scenarios), predict_breast.YEARS]
    inputs, outputs = head_shapes(1)
    return {
        "name": NAME,
        "version": VERSION,
        "title": "PREDICT Breast v3.2 equation",
        "intended_use": "Research prototype for tumour boards, not a medical device.",
        "endpoint": (
            "Survival and death of breast cancer in percent, 1 to 15 years after surgery, for surgery alone and with "
            "treatments added one after another. The probability is that of dying of breast cancer within 10 years "
            "after surgery alone, other causes of death competing."
        ),
        "population": {
            "age": [25.0, 85.0],
            "text": (
                "Women of 25 to 85 years with a first, invasive, non-metastatic breast cancer of known ER status, "
                "treated by surgery first (no neoadjuvant treatment). Others are refused with the reason."
            ),
        },
        "modalities": [
            {
                "name": clinical.NAME,
                "encoder": clinical.ENCODER,
                "file": "clinical.onnx",
                "columns": list(predict_breast.COLUMNS),
                "inputs": {"x": ["N", len(predict_breast.COLUMNS)]},
                "outputs": {"survival": curve, "breast_mortality": curve, "z": ["N", 1]},
                "scenarios": scenarios,
                "years": list(range(1, predict_breast.YEARS + 1)),
                "curves": {
                    output: [f"{output}_{scenario}" if scenario in KEPT else None for scenario in scenarios]
                    for output in ("survival", "breast_mortality")
                },
                "z": "logit of the 10-year risk of dying of breast cancer after surgery alone",
                "explain": EXPLAIN,
                "features": clinical.DEFINITIONS,
            }
        ],
        "head": {
            "file": "head.onnx",
            "modalities": [clinical.NAME],
            "patterns": [[clinical.NAME]],
            "inputs": inputs,
            "outputs": outputs,
            "text": "Identity: one modality, weight 1, no interval.",
            "no_band": "PREDICT publishes no band of uncertainty, so none is drawn",
        },
        "rules": RULES,
        "parameters": {name: list(value) for name, value in PARAMETERS.items()},
        "other_inputs": {name: list(value) for name, value in OTHER_INPUTS.items()},
        "table": {
            "modality": clinical.NAME,
            "defaults": {"year": YEAR},
            "outputs": [
                [f"{short}_{scenario}_{year}", output, scenario, year]
                for year in TABLE_YEARS
                for scenario in TABLE_SCENARIOS
                for short, output in (("surv", "survival"), ("brmort", "breast_mortality"))
            ],
        },
        "evidence": [
            "200 patients x 24 outputs of the official R program: largest difference below 1e-9 percentage points "
            "(a test of every build).",
            "METABRIC, 1,875 women, official equation, year 2000: AUROC of 10-year breast-cancer death 0.717 (0.688 to "
            "0.747), observed/expected 0.86; with the fixed year 2017: observed/expected 1.48. Recalibrate locally.",
        ],
        "limits": [
            "The year term alone moves observed/expected by a factor of 1.7: it is a parameter of this release.",
            "Screen detection is unknown unless the request states it.",
            "Neoadjuvant treatment is recognised by ypN categories only.",
            "Results from more than a year before or after the diagnosis are not taken for those of the tumour.",
            "Unknown smoking status is an extension of ours: other mortality is then that of the whole population.",
            "Multifocal disease recorded as several conditions makes the model abstain until one is chosen.",
            "The treatments shown are those that could be given, not those that were.",
        ],
        "source": {
            "text": 'WintonCentre/predict-v30-r, commit 42223bc1, `benefits32()`. "Predict" is its owners\' name.',
            "repository": "WintonCentre/predict-v30-r",
            "commit": "42223bc1",
            "licence_file": LICENCE,
        },
        "licence": "Equation and coefficients: MIT, Copyright (c) 2022 University of Cambridge.",
        "card": CARD,
        "training": release.training(__name__, read=READ),
    }


def write(root: Path) -> Path:
    """Write `predict-breast/3.2.0` under `root`."""
    identity = head.Row(0.0, {clinical.NAME: 1.0})
    files = {
        "clinical.onnx": predict_breast.build(),
        "head.onnx": head.build([clinical.NAME], [0.0], {frozenset({clinical.NAME}): identity}),
        LICENCE: (predict_breast.DATA / LICENCE).read_bytes(),
    }
    return release.write(root, manifest(), files)
