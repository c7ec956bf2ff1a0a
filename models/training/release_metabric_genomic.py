"""The release of `metabric-genomic@1.0.0`: expression subtype and mutations, without anything clinical."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.training import fitted, metabric, recurrence, recurrence_graphs, release
from models.training import recurrence_parts as parts

NAME, VERSION = "metabric-genomic", "1.0.0"
SEEDS = {"inner folds": recurrence.SEED, "bootstrap of the head": fitted.BAND_SEED}
LIBRARIES = ("scikit-learn", "scipy", "numpy")


def manifest() -> dict[str, Any]:
    """Everything but the digests of the files."""
    c = fitted.read()
    modalities = fitted.GENOMIC
    return {
        "name": NAME,
        "version": VERSION,
        "title": "METABRIC genomic model, five-year recurrence",
        "intended_use": "Research prototype for tumour boards, not a medical device.",
        "endpoint": parts.ENDPOINT,
        "horizon_months": metabric.HORIZON,
        "population": {"text": parts.POPULATION},
        "modalities": [parts.expression_part(c), parts.mutation_part(c)],
        "head": parts.head_member(c, modalities, c.genomic_heads),
        "rules": [],
        "parameters": {},
        "other_inputs": parts.other_inputs(c),
        "table": parts.table(c, modalities, {}),
        "metrics": parts.metrics(["E", "M", "E+M"]),
        "validation": parts.validated_by(),
        "evidence": [
            "Genomics alone is a weak predictor: compare its AUROC with that of the clinical modality (0.70).",
            "The graph gives the probabilities of scikit-learn within 1e-6 over every pattern (a test of every build).",
        ],
        "limits": parts.LIMITS,
        "source": {"text": "METABRIC: Curtis 2012, Nature 486:346-352; Pereira 2016, Nat Commun 7:11479."},
        "licence": parts.LICENCE,
        "attributions": parts.attributions(),
        "card": {
            "criteria": "Sequenced women without stage IV and with a known time to recurrence: 1,966, 484 recurrences.",
            "model_type": "two L2 logistic regressions, pooled on the logit scale by pattern of what is available",
        },
        "training": release.training(
            __name__, seeds=SEEDS, data=metabric.DIGESTS, read=[fitted.FILE], libraries=LIBRARIES
        ),
    }


def write(root: Path) -> Path:
    """Write `metabric-genomic/1.0.0` under `root`."""
    c = fitted.read()
    files = {
        "expression.onnx": recurrence_graphs.linear("expression", c.expression, "subtype, five-year recurrence"),
        "mutation.onnx": recurrence_graphs.linear("mutation", c.mutation, "mutated genes, five-year recurrence"),
        "head.onnx": parts.head_graph(c, fitted.GENOMIC, c.genomic_heads),
    }
    return release.write(root, manifest(), files)
