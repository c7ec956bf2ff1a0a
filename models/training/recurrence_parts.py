"""What the manifests of the two recurrence models share: modalities, limits, evidence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.modalities import expression, mutation
from models.training import head
from models.training.fitted import Coefficients, Heads
from models.training.metabric import ATTRIBUTION
from models.training.recurrence import MIN_EVENTS
from models.training.regression import rounded

HOUSE = Path(__file__).resolve().parents[2]
VALIDATION = HOUSE / "docs" / "models" / "validation.json"
FEWEST_STUDIED = 0.8
"""Share of the mutation model's weight that must have been studied; TP53 alone carries 0.68: germline panels stay out.

Measured at 0.82 (TP53, GATA3, MAP3K1 alone): nine of ten logits lie within 0.20 of the one with every gene studied.
"""
LICENCE = (
    "Coefficients: same licence as this program. They were fitted on METABRIC, a database under the Open Database "
    "License 1.0, which is not contained here; whether fitted coefficients are a produced work under it was not "
    "settled by a lawyer, so it is attributed either way."
)
POPULATION = (
    "Women with a first, invasive, non-metastatic breast cancer, treated by surgery first. Fitted on women diagnosed "
    "in the United Kingdom and Canada from 1977 to 2005, mostly of European ancestry. Others are refused with the "
    "reason."
)
ENDPOINT = (
    "Recurrence of breast cancer (any relapse, local or distant) within five years of diagnosis, as METABRIC "
    "recorded it; death without recurrence is censoring. Not survival: PREDICT's survival is another model with its "
    "own name."
)
LIMITS = [
    "What genomics adds is small: in the cohort it was fitted on, and not shown anywhere else.",
    "Women of METABRIC were treated as from 1977 to 2005, each by her risk: the number is a risk under that "
    "treatment, and too high for today's. Recalibrate to local outcomes before use.",
    "Patterns were made by hiding results in patients who have them; really missing results may be missing for a "
    "reason.",
    "The band is the uncertainty of the head's own parameters (bootstrap); that of the modalities' coefficients and "
    "of the world is not in it.",
    "The subtype's coding is a list of our own (no public example carries one): a site maps its laboratory's codes "
    "to it.",
    "A germline panel can't be told from a tumour panel by mCODE's region studied.",
    "A gene that was not studied counts as often as it is mutated in the cohort. With just over 80 % of the weight "
    "studied, nine of ten logits of the mutation modality lie within 0.20 of the one with every gene.",
]


def expression_part(c: Coefficients) -> dict[str, Any]:
    return {
        "name": expression.NAME,
        "encoder": expression.ENCODER,
        "file": "expression.onnx",
        "columns": list(c.expression.weights),
        "inputs": {"x": ["N", len(c.expression.weights)]},
        "outputs": {"z": ["N", 1]},
        "curves": {},
        "z": "logit of recurrence within five years by subtype alone (L2 logistic regression)",
        "features": expression.DEFINITIONS,
        "coefficients": _stated(c.expression.intercept, c.expression.weights),
        "parameters": {},
        "rules": [_flag(name) for name in c.expression.weights],
        "explain": {
            "kind": "additive",
            "reference": dict.fromkeys(c.expression.weights, 0.0),
            "text": "no subtype named: the model's intercept",
        },
    }


def mutation_part(c: Coefficients) -> dict[str, Any]:
    shares = c.shares
    return {
        "name": mutation.NAME,
        "encoder": mutation.ENCODER,
        "file": "mutation.onnx",
        "columns": list(c.mutation.weights),
        "inputs": {"x": ["N", len(c.mutation.weights)]},
        "outputs": {"z": ["N", 1]},
        "curves": {},
        "z": "logit of recurrence within five years by mutated genes alone (L2 logistic regression, strong penalty)",
        "features": [],
        "coefficients": _stated(c.mutation.intercept, c.mutation.weights),
        "codes": [asked.plain() for asked in mutation.ASKED],
        "genes": [
            {"name": gene, "hgnc": mutation.GENES[gene], "prevalence": share, "share": shares[gene]}
            for gene, share in c.prevalence.items()
        ],
        "fewest_studied": FEWEST_STUDIED,
        "parameters": {},
        "rules": [
            *({"name": gene, "range": [0.0, 1.0], "whole": False} for gene in c.prevalence),
            {"name": mutation.BURDEN, "range": [0.0, 6.0], "whole": False},
        ],
        "explain": {
            "kind": "additive",
            "reference": {**c.prevalence, mutation.BURDEN: rounded(math.log1p(sum(c.prevalence.values())))},
            "text": "each gene as often mutated as in the cohort: what a gene that was not studied counts as",
        },
    }


def other_inputs(c: Coefficients) -> dict[str, list[str]]:
    """Rows of the card for columns that no single definition reads."""
    rows = {
        name: [
            f"Subtype {expression.TITLES[name]}",
            "the intrinsic subtype by gene expression",
            "no subtype: modality off",
        ]
        for name in c.expression.weights
    }
    for gene, share in c.prevalence.items():
        what = f"Coding mutation of {gene} in the tumour"
        rows[gene] = [what, f"variants and regions studied of `{mutation.GENES[gene]}`", f"not studied: {share:.3g}"]
    rows[mutation.BURDEN] = ["ln(1 + number of these genes mutated)", "the flags above", "from the flags"]
    return rows


def head_member(c: Coefficients, modalities: tuple[str, ...], heads: Heads) -> dict[str, Any]:
    return {
        "file": "head.onnx",
        **head.stated(modalities, heads, MIN_EVENTS),
        "centres": {name: c.centres[name] for name in modalities},
        "rows": [
            {
                "there": [name for name in modalities if name in pattern],
                "base": row.base,
                "weights": dict(row.weights),
                "half_width": None if math.isnan(row.half_width) else row.half_width,
            }
            for pattern, row in heads.items()
        ],
        "text": (
            "logit p = base + sum of weight x (z - centre) for the pattern of available modalities, weights not "
            "negative (pattern submodels, Fletcher Mercaldo and Blume 2018). Range: nine of ten moves if missing "
            "results arrive. Band: 95 %, bootstrap of the head."
        ),
    }


def head_graph(c: Coefficients, modalities: tuple[str, ...], heads: Heads) -> bytes:
    return head.build(modalities, [c.centres[name] for name in modalities], heads)


def table(c: Coefficients, modalities: tuple[str, ...], defaults: Mapping[str, float]) -> dict[str, Any]:
    """Columns of all modalities; a modality whose own columns the file does not have, or leaves empty, is missing."""
    return {
        "fused": list(modalities),
        "defaults": dict(defaults),
        "derived": {mutation.BURDEN: list(c.prevalence)},
        "one_of": [list(c.expression.weights)],
    }


def metrics(letters: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the validation report for patterns, as it names them (C clinical, E expression, M mutation)."""
    report = validation()
    rows = {row["available"]: row for row in report["patterns"]}
    return [
        {
            "what": f"{what}, {_words(pattern)}",
            "value": rows[pattern][key]["value"],
            "interval": [rows[pattern][key]["low"], rows[pattern][key]["high"]],
            "n": rows[pattern]["n"],
            "events": rows[pattern]["events"],
            "data": "METABRIC",
            "design": f"{report['method']['repeats']} x {report['method']['folds']}-fold nested cross-validation",
        }
        for pattern in letters
        for key, what in (
            ("auroc", "AUROC at five years"),
            ("slope", "calibration slope"),
            ("ratio", "observed/expected"),
        )
    ]


def gain(better: str, worse: str) -> str:
    """A sentence about a paired difference of the validation report."""
    row = next(row for row in validation()["gains"] if (row["better"], row["worse"]) == (better, worse))
    auroc = row["auroc"]
    return (
        f"METABRIC, nested cross-validation, {row['n']:,} women: AUROC of {_words(better)} less that of "
        f"{_words(worse)} {auroc['value']:+.3f} ({auroc['low']:+.3f} to {auroc['high']:+.3f})."
    )


def elsewhere() -> list[str]:
    """What the validation report says of other places: sites that were left out, and another cohort."""
    report = validation()
    ratios = [site["fused"]["ratio"]["value"] for site in report["sites"]]
    slopes = [site["fused"]["slope"]["value"] for site in report["sites"]]
    return [
        f"Leave one site of METABRIC out: observed/expected {min(ratios):.2f} to {max(ratios):.2f}, calibration "
        f"slope {min(slopes):.2f} to {max(slopes):.2f} over {len(ratios)} sites. It does not hold elsewhere as it "
        "stands.",
        *(
            f"TCGA-BRCA, a reduced form, {row['endpoint']}: C {row['fused']['c']['value']:.3f} with "
            f"{len(report['external']['genes'])} genes, {row['clinical']['c']['value']:.3f} without."
            for row in report["external"]["endpoints"]
        ),
    ]


def validation() -> dict[str, Any]:
    """The committed report (`make models-report`)."""
    report: dict[str, Any] = json.loads(VALIDATION.read_bytes())
    return report


def validated_by() -> dict[str, str]:
    """The report by name only: it measures these very graphs, so neither can carry the other's digest."""
    return {"file": VALIDATION.relative_to(HOUSE).as_posix(), "command": "make models-report"}


def _words(pattern: str) -> str:
    words = {"C": "clinical", "E": "expression", "M": "mutation"}
    return " + ".join(words[letter] for letter in pattern.split("+"))


def attributions() -> list[str]:
    return [ATTRIBUTION]


def _stated(intercept: float, weights: Mapping[str, float]) -> dict[str, Any]:
    return {"intercept": rounded(intercept), "weights": dict(weights)}


def _flag(name: str) -> dict[str, Any]:
    return {"name": name, "allowed": [0.0, 1.0]}
