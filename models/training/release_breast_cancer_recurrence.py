"""The release of `breast-cancer-recurrence@1.0.0`: clinical, expression and mutation, fused by pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.modalities import clinical
from models.training import fitted, metabric, predict_breast, recurrence, recurrence_graphs, release
from models.training import recurrence_parts as parts
from models.training import release_predict_breast as predict
from models.training.fitted import Coefficients
from models.training.recurrence import MODALITIES
from models.training.release_metabric_genomic import LIBRARIES, SEEDS

NAME, VERSION = "breast-cancer-recurrence", "1.0.0"
YEAR = (
    recurrence.YEAR,
    "calendar year 2000, the one that the recalibration was fitted with: another year would carry a trend of mortality "
    "over to recurrence, which nobody validated",
)
TITLES = {"age": "age at diagnosis", "size": "tumour size (mm)", "nodes": "number of positive nodes"}
READ = (fitted.FILE, predict_breast.COEFFICIENTS, predict_breast.DATA / predict.LICENCE)


def manifest() -> dict[str, Any]:
    """Everything but the digests of the files."""
    c = fitted.read()
    return {
        "name": NAME,
        "version": VERSION,
        "title": "Five-year breast cancer recurrence, clinical and genomic",
        "intended_use": (
            "Research prototype for tumour boards, not a medical device. A second, named endpoint beside PREDICT's "
            "survival, which stays the headline."
        ),
        "endpoint": parts.ENDPOINT,
        "horizon_months": metabric.HORIZON,
        "population": {"text": parts.POPULATION},
        "modalities": [_clinical_part(c), parts.expression_part(c), parts.mutation_part(c)],
        "head": parts.head_member(c, MODALITIES, c.heads),
        "rules": [],
        "parameters": {"year": list(YEAR)},
        "other_inputs": {
            **{name: list(value) for name, value in predict.OTHER_INPUTS.items()},
            **parts.other_inputs(c),
        },
        "table": parts.table(c, MODALITIES, {"year": YEAR[0], "screen": 2.0, "smoker": 9.0, "ki67": 9.0}),
        "metrics": parts.metrics(["C", "C+E", "C+M", "C+E+M", "E+M"]),
        "validation": parts.validated_by(),
        "evidence": [
            parts.gain("C+E+M", "C"),
            *parts.elsewhere(),
            "The graphs give the probabilities of the training library within 1e-6 over every pattern (a test of every "
            "build).",
        ],
        "limits": [
            *parts.LIMITS,
            "The clinical modality is PREDICT Breast v3.2 after surgery alone, five-year breast-cancer death, "
            "recalibrated "
            "linearly to recurrence (slope 0.567: treatment given by risk flattens it).",
        ],
        "source": {
            "text": f"{predict.manifest()['source']['text']} METABRIC: Curtis 2012, Nature 486:346-352; "
            "Pereira 2016, Nat "
            "Commun 7:11479.",
        },
        "licence": "Equation and coefficients of PREDICT: MIT, Copyright (c) 2022 University of Cambridge. "
        "{parts.LICENCE}",
        "attributions": parts.attributions(),
        "card": {
            "criteria": (
                "Sequenced women without stage IV and with a known time to recurrence: 1,966, 484 recurrences; the "
                "clinical modality speaks for those of 25 to 85 years with size, nodes and ER."
            ),
            "model_type": "a published equation and two L2 logistic regressions, pooled on the logit scale by pattern",
        },
        "training": release.training(__name__, seeds=SEEDS, data=metabric.DIGESTS, read=READ, libraries=LIBRARIES),
    }


def _clinical_part(c: Coefficients) -> dict[str, Any]:
    columns = list(recurrence_graphs.CLINICAL_COLUMNS)
    return {
        "name": clinical.NAME,
        "encoder": clinical.ENCODER,
        "file": "clinical.onnx",
        "columns": columns,
        "inputs": {"x": ["N", len(columns)]},
        "outputs": {"z": ["N", 1]},
        "curves": {},
        "z": "logit of recurrence within five years: PREDICT's five-year mortality after surgery alone, recalibrated",
        "features": [definition for definition in clinical.DEFINITIONS if definition["name"] in columns],
        "coefficients": {"intercept": c.clinical.intercept, "weights": dict(c.clinical.weights)},
        "population": predict.manifest()["population"],
        "parameters": {"year": list(YEAR)},
        "rules": [rule for rule in predict.RULES if rule["name"] in columns],
        "explain": {**predict.EXPLAIN, "text": predict.EXPLAIN["text"].replace("10-year risk", "risk of recurrence")},
        "guard": [{"name": name, "range": list(c.ranges[name]), "title": title} for name, title in TITLES.items()],
    }


def write(root: Path) -> Path:
    """Write `breast-cancer-recurrence/1.0.0` under `root`."""
    c = fitted.read()
    files = {
        "clinical.onnx": recurrence_graphs.clinical(c.clinical),
        "expression.onnx": recurrence_graphs.linear("expression", c.expression, "subtype, five-year recurrence"),
        "mutation.onnx": recurrence_graphs.linear("mutation", c.mutation, "mutated genes, five-year recurrence"),
        "head.onnx": parts.head_graph(c, MODALITIES, c.heads),
        predict.LICENCE: (predict_breast.DATA / predict.LICENCE).read_bytes(),
    }
    return release.write(root, manifest(), files)
