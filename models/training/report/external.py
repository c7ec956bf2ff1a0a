"""METABRIC to TCGA-BRCA: another country, another decade, another endpoint, and fewer columns.

TCGA has neither size nor nodes nor grade as numbers here, so the comparison needs a model of its own: clinical = age
and its square, AJCC anatomic stage, lobular histology; genomic = the mutation flags that both cohorts have. In METABRIC
the stage group is derived from size and nodes (AJCC 7th edition, anatomic groups); in TCGA it is the one stated.
Treatment, endpoint and length of follow-up all differ: this is the harder question, and is answered as it comes out.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold  # type: ignore[import-untyped]

from models.errors import BadInput, DataUnavailable, DigestMismatch
from models.training import metabric, recurrence
from models.training.metabric import HORIZON, Cohort, Floats
from models.training.regression import nonnegative, ridge
from models.training.report.performance import difference, discrimination, performance, sample
from models.training.statistics import Flags

TABLE = "tcga_brca_clinical_mutations.csv"
DIGEST = "a2fdf61fa2c4dac74e37ca4bc1c0b3c08ce42daa812bd967f7e94772b24059ef"
ENDPOINTS = ("PFI", "OS", "DSS")
DAYS_A_MONTH = 365.25 / 12.0
CLINICAL_C, GENOMIC_C = 1.0, 0.02
_STAGES = {
    **dict.fromkeys(("Stage I", "Stage IA", "Stage IB"), 1),
    **dict.fromkeys(("Stage II", "Stage IIA", "Stage IIB"), 2),
    **dict.fromkeys(("Stage III", "Stage IIIA", "Stage IIIB", "Stage IIIC"), 3),
}


@dataclass(frozen=True, slots=True)
class Tcga:
    """Women with a stated stage of I to III."""

    clinical: Floats
    """age / 10 and its square (centred at 60), stage II, stage III, lobular"""
    flags: Floats
    genes: tuple[str, ...]
    months: dict[str, Floats]
    event: dict[str, Flags]


def load(where: Path | None = None, digest: str = DIGEST) -> Tcga:
    """Raises: DataUnavailable, DigestMismatch, BadInput (line and column, never the value)."""
    path = (where or metabric.folder().parent / "tcga_brca") / TABLE
    try:
        body = path.read_bytes()
    except OSError as error:
        raise DataUnavailable(f"cohort table {TABLE} cannot be read ({type(error).__name__})") from None
    if hashlib.sha256(body).hexdigest() != digest:
        raise DigestMismatch(f"cohort table {TABLE} is not the one that this report was made with")
    reader = csv.DictReader(body.decode().splitlines())
    genes = tuple(name.removesuffix("_mut") for name in reader.fieldnames or [] if name.endswith("_mut"))
    numbers = ("age", *(f"{gene}_mut" for gene in genes), *ENDPOINTS, *(f"{name}.time" for name in ENDPOINTS))
    rows = []
    for line, row in enumerate(reader, start=2):
        stage = _STAGES.get(row["ajcc_pathologic_tumor_stage"])
        if row["gender"] == "FEMALE" and stage is not None:
            values = {name: _number(row[name], f"{TABLE} line {line} column {name}") for name in numbers}
            if values["PFI.time"] > 0:
                lobular = float(row["oncotree_code"] == "ILC")
                age = values["age"] / 10
                rows.append((values, [age, (age - 6) ** 2, float(stage == 2), float(stage == 3), lobular]))
    return Tcga(
        clinical=np.array([clinical for _, clinical in rows]),
        flags=np.array([[values[f"{gene}_mut"] for gene in genes] for values, _ in rows]),
        genes=genes,
        months={name: np.array([values[f"{name}.time"] for values, _ in rows]) / DAYS_A_MONTH for name in ENDPOINTS},
        event={name: np.array([values[name] == 1.0 for values, _ in rows]) for name in ENDPOINTS},
    )


def _number(text: str, where: str) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:
        raise BadInput("this is not a number", where=where) from None


def transported(cohort: Cohort, tcga: Tcga) -> dict[str, Any]:
    """Fitted on all of METABRIC, judged on TCGA."""
    shared = tuple(gene for gene in tcga.genes if gene in cohort.genes)
    x = {"clinical": _clinical(cohort), "genomic": _with_burden(cohort.mutated, cohort.genes, shared)}
    other = {"clinical": tcga.clinical, "genomic": _with_burden(tcga.flags, tcga.genes, shared)}
    y, weight = recurrence.outcome(cohort, np.arange(len(cohort)))
    known = np.isfinite(y) & np.isfinite(x["clinical"]).all(axis=1)
    x, y, weight = {name: columns[known] for name, columns in x.items()}, y[known], weight[known]
    logits = _fuse(x, other, y, weight)
    endpoints = []
    for name in ENDPOINTS:
        usable = np.isfinite(tcga.months[name]) & (tcga.months[name] > 0)
        among = sample(tcga.months[name][usable], tcga.event[name][usable], HORIZON)
        row: dict[str, Any] = {"endpoint": name}
        for part in ("clinical", "genomic"):
            row[part] = discrimination(logits[part][usable], among)
        row["fused"] = performance(logits["fused"][usable], among)
        row["gain"] = difference(logits["fused"][usable], logits["clinical"][usable], among)
        endpoints.append(row)
    free = ~tcga.event["PFI"]
    return {
        "trained_on": len(y),
        "genes": list(shared),
        "median_follow_up_months": round(float(np.median(tcga.months["PFI"][free])), 1),
        "endpoints": endpoints,
    }


def _fuse(x: dict[str, Floats], other: dict[str, Floats], y: Floats, weight: Floats) -> dict[str, Floats]:
    """Two base models and a non-negative head on their out-of-fold logits, applied to the other cohort."""
    strength = {"clinical": CLINICAL_C, "genomic": GENOMIC_C}
    out = {name: np.empty(len(y)) for name in x}
    folds = StratifiedKFold(recurrence.FOLDS, shuffle=True, random_state=recurrence.SEED)
    for inner, held in folds.split(y, y):
        for name, columns in x.items():
            base, weights = ridge(columns[inner], y[inner], weight[inner], strength[name])
            out[name][held] = base + columns[held] @ weights
    head = nonnegative(np.column_stack([np.ones(len(y)), out["clinical"], out["genomic"]]), y, weight)
    logits = {}
    for name, columns in x.items():
        base, weights = ridge(columns, y, weight, strength[name])
        logits[name] = base + other[name] @ weights
    return {**logits, "fused": head[0] + head[1] * logits["clinical"] + head[2] * logits["genomic"]}


def _clinical(c: Cohort) -> Floats:
    """The same five columns; stage group from size and nodes: T1 to 20 mm, T2 to 50; N1 1-3, N2 4-9, N3 10 and more."""
    one = (c.size <= 20) & (c.nodes == 0)
    three = (c.nodes >= 4) | ((c.size > 50) & (c.nodes >= 1))
    stage = np.where(np.isnan(c.size + c.nodes), np.nan, np.where(three, 3.0, np.where(one, 1.0, 2.0)))
    known, age = np.where(np.isnan(stage), np.nan, 1.0), c.age / 10
    return np.column_stack([age, (age - 6) ** 2, (stage == 2) * known, (stage == 3) * known, c.lobular])


def _with_burden(flags: Floats, genes: tuple[str, ...], shared: tuple[str, ...]) -> Floats:
    chosen = flags[:, [genes.index(gene) for gene in shared]]
    return np.column_stack([chosen, np.log1p(chosen.sum(axis=1))])
