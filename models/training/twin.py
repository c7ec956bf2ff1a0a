"""The registry-only twin: the whole path with data that a package ships, in seconds, for whoever has no other data.

nki70 (144 node-positive women of the Netherlands Cancer Institute, 70 genes; van de Vijver 2002): clinical and
signature, each a ridge with its own logit, and a head for each pattern of what is there, as for METABRIC
(`models.training.recurrence.fit_heads`). Tested on two other cohorts: gse1992 (North Carolina), and gse4335 (Norway,
locally advanced), where it fails. The 70 genes were chosen in this very cohort (van 't Veer 2002): what
cross-validation in it says of the signature is too good, and only the other cohorts count. Genes are standardised
within each cohort: other platforms. rott2 -> GBSG2 is the clinical pair.

This is not for patients. `write` makes a version to try the program on; it is never shipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold  # type: ignore[import-untyped]

from models.calibration import Array, Flags, ipc_weights
from models.modalities import declared
from models.training import head, packaged, recurrence_graphs, release
from models.training.head import Row
from models.training.recurrence import Linear, fit_heads
from models.training.regression import ridge, rounded

CLINICAL, SIGNATURE = MODALITIES = ("clinical-twin", "signature-twin")
HORIZON, FOLDS, SEED = 60.0, 5, 20261121
STRENGTH = {CLINICAL: 1.0, SIGNATURE: 0.01}
"""scikit-learn's C: 70 genes, 48 metastases."""
COLUMNS = ("age", "large", "positive", "grade")
"""Age in decades, size above 2 cm, oestrogen receptor, grade 1 to 3: what the three cohorts share."""
SYSTEM = "urn:cds-server:twin"
NAME, VERSION = "nki70-twin", "0.1.0"


@dataclass(frozen=True, slots=True)
class Cohort:
    name: str
    x: Mapping[str, Array]
    """Modality -> [n, F]; NaN rows where it is not known."""
    months: Array
    event: Flags

    def outcome(self, rows: Any) -> tuple[Array, Array]:
        """At five years, NaN where it is not known, and the weight of what is."""
        y, weight = ipc_weights(self.months[rows], self.event[rows], HORIZON)
        return np.where(weight > 0, y, np.nan), weight


@dataclass(frozen=True, slots=True)
class Fitted:
    genes: tuple[str, ...]
    base: Mapping[str, Linear]
    centres: Mapping[str, float]
    heads: Mapping[frozenset[str], Row]

    def z(self, cohort: Cohort) -> dict[str, Array]:
        return {name: model(cohort.x[name]) for name, model in self.base.items()}

    def logit(self, z: Mapping[str, Array], pattern: frozenset[str]) -> Array:
        row = self.heads[pattern]
        terms = [row.weights[name] * (z[name] - self.centres[name]) for name in MODALITIES if name in pattern]
        return np.asarray(row.base + np.sum(terms, axis=0))


def shared(*others: str) -> tuple[str, ...]:
    """The genes of nki70 that each of the other cohorts has, too, by symbol."""
    ours = [name.removeprefix("num_") for name in packaged.table("nki70") if name.startswith("num_")]
    there = [set(packaged.table(other)) for other in others]
    return tuple(gene for gene in ours if gene != "Age" and all(f"num_HS_{gene}" in columns for columns in there))


def nki70(genes: Sequence[str]) -> Cohort:
    t = packaged.table("nki70")
    grades = {"Well diff": 1.0, "Intermediate": 2.0, "Poorly diff": 3.0}
    clinical = np.column_stack(
        [
            t["num_Age"].astype(np.float64) / 10.0,
            (t["fac_Diam"] == ">2cm").astype(np.float64),
            (t["fac_ER"] == "Positive").astype(np.float64),
            np.array([grades[str(grade)] for grade in t["fac_Grade"]]),
        ]
    )
    x = {CLINICAL: clinical, SIGNATURE: _standard(t, [f"num_{gene}" for gene in genes])}
    return Cohort("nki70", x, t["time"].astype(np.float64) * 12.0, t["event"] == 1)


def abroad(name: str, genes: Sequence[str]) -> Cohort:
    """gse1992 or gse4335; stage IV, carcinoma in situ and who lacks an answer are left out."""
    t = packaged.table(name)
    er = t["fac_er_positive" if name == "gse1992" else "fac_er_status"]
    size = t["fac_size" if name == "gse1992" else "fac_tumor_size"]
    clinical = np.column_stack(
        [
            _numbers(t["num_age"]) / 10.0,
            np.where(np.isnan(_numbers(size)), np.nan, _numbers(size) > 1),
            _numbers(er),
            _numbers(t["fac_grade"]),
        ]
    )
    kept = ~np.isnan(clinical).any(axis=1)
    if name == "gse4335":
        kept &= (_numbers(t["fac_metastasis"]) != 1) & (t["fac_histology"] != "DCIS")
    genomic = _standard({k: v[kept] for k, v in t.items()}, [f"num_HS_{gene}" for gene in genes])
    x = {CLINICAL: clinical[kept], SIGNATURE: genomic}
    return Cohort(name, x, t["time"].astype(np.float64)[kept], (t["event"] == 1)[kept])


def rott2_to_gbsg2() -> tuple[Cohort, Cohort]:
    """Age, menopause, size class, grade 3, nodes, receptors and hormone therapy, as both cohorts have them."""
    r, g = packaged.table("rott2"), packaged.table("GBSG2")
    size = _numbers(g["num_tsize"])
    rott2 = _clinical(
        r["num_age"], r["fac_meno"] == "post", r["fac_tsize"] != "<=20mm", r["fac_tsize"] == ">50mm",
        _numbers(r["fac_grade"]) == 3, r["num_nodes"], r["num_progesterone"], r["num_estrogen"],
    )  # fmt: skip
    gbsg2 = _clinical(
        g["num_age"], g["fac_menostat"] == "Post", size > 20, size > 50,
        g["fac_tgrade"] == "III", g["num_pnodes"], g["num_progrec"], g["num_estrec"],
    )  # fmt: skip
    return (
        Cohort("rott2", {CLINICAL: rott2}, _numbers(r["time"]), r["event"] == 1),
        Cohort("GBSG2", {CLINICAL: gbsg2}, _numbers(g["time"]) / 30.4375, g["event"] == 1),
    )


def fit(cohort: Cohort, genes: Sequence[str], *, seed: int = SEED) -> Fitted:
    """Base models on everybody, heads on out-of-fold logits; eight digits are kept."""
    rows = np.arange(len(cohort.months))
    y, weight = cohort.outcome(rows)
    out = {name: np.full(len(rows), np.nan) for name in MODALITIES}
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for inner, held in folds.split(rows, np.where(np.isnan(y), 2.0, y)):
        for name in MODALITIES:
            out[name][held] = _ridge(cohort, name, inner)(cohort.x[name][held])
    centres = {name: rounded(float(np.nanmean(values))) for name, values in out.items()}
    heads = {
        pattern: Row(
            rounded(row.base),
            {name: rounded(w) for name, w in row.weights.items()},
            rounded(row.half_width),
            events=row.events,
        )
        for pattern, row in fit_heads(out, y, weight, centres, MODALITIES).items()
    }
    return Fitted(tuple(genes), {name: _ridge(cohort, name, rows) for name in MODALITIES}, centres, heads)


def clinical_alone(cohort: Cohort) -> Linear:
    return _ridge(cohort, CLINICAL, np.arange(len(cohort.months)))


def write(root: Path, fitted: Fitted) -> Path:
    """`nki70-twin/0.1.0` under `root`: two declared modalities and their head, to try the program on."""
    graphs = {f"{name}.onnx": recurrence_graphs.linear(name, fitted.base[name], "twin") for name in MODALITIES}
    return release.write(
        root, manifest(fitted), {**graphs, "head.onnx": head.build(MODALITIES, _ordered(fitted.centres), fitted.heads)}
    )


def code(column: str) -> str:
    return f"{SYSTEM}|{column}"


def manifest(fitted: Fitted) -> dict[str, Any]:
    """Everything but the digests of the files."""
    names = {CLINICAL: COLUMNS, SIGNATURE: fitted.genes}
    ranges = {"age": [2.0, 10.0], "large": [0.0, 1.0], "positive": [0.0, 1.0], "grade": [1.0, 3.0]}
    columns = {name: [_column(name, each) for each in names[name]] for name in MODALITIES}
    believed = {_column(name, each): ranges.get(each, [-20.0, 20.0]) for name in MODALITIES for each in names[name]}
    return {
        "name": NAME,
        "version": VERSION,
        "title": "Twin of the recurrence model, trained on a cohort that a package ships",
        "intended_use": "To try the program without any other data. Not for patients.",
        "endpoint": "Probability of distant metastasis within five years.",
        "horizon_months": HORIZON,
        "population": {"text": "Women under 53 with one to many positive nodes, as in nki70."},
        "modalities": [
            {
                "name": name,
                "encoded_by": declared.NAME,
                "encoder": declared.ENCODER,
                "file": f"{name}.onnx",
                "columns": columns[name],
                "inputs": {"x": ["N", len(columns[name])]},
                "outputs": {"z": ["N", 1]},
                "curves": {},
                "own_systems": [SYSTEM],
                "features": [_feature(column, believed[column]) for column in columns[name]],
            }
            for name in MODALITIES
        ],
        "head": {"file": "head.onnx", **head.stated(MODALITIES, fitted.heads, 50)},
        "rules": [{"name": column, "range": span, "whole": False} for column, span in believed.items()],
        "parameters": {},
        "evidence": ["Held out on gse1992 and gse4335 by a test; it fails on the second."],
        "limits": ["Not for patients; never shipped."],
        "source": {"text": "nki70, as the package SurvSet ships it (van de Vijver 2002, NEJM 347:1999)."},
        "licence": "made where it is used; the data are GPL-3.0 by their package",
        "training": release.training(
            __name__, seeds={"folds": SEED}, data={packaged.file_of("nki70"): packaged.DIGESTS["nki70"]}
        ),
    }


def _column(modality: str, name: str) -> str:
    """`age` is a word of the declared modality: the twin's is in decades."""
    return "decades" if (modality, name) == (CLINICAL, "age") else name


def _feature(column: str, believed: Sequence[float]) -> dict[str, Any]:
    asked = {"name": column, "scope": "the twin's own", "source": "nki70", "codes": [code(column)]}
    stated = {"name": column, "title": column, "codes": asked, "units": ["", "1"], "plausible": list(believed)}
    return {**stated, "required": True, "unknown": None, "unknown_note": None}


def _ridge(cohort: Cohort, name: str, rows: Any) -> Linear:
    y, weight = cohort.outcome(rows)
    known = ~np.isnan(y)
    x = cohort.x[name][rows][known]
    spread = x.std(axis=0)
    intercept, weights = ridge((x - x.mean(axis=0)) / spread, y[known], weight[known], STRENGTH.get(name, 1.0))
    plain = weights / spread
    start = rounded(intercept - float(plain @ x.mean(axis=0)))
    return Linear(start, {str(at): rounded(value) for at, value in enumerate(plain.tolist())})


def _ordered(centres: Mapping[str, float]) -> list[float]:
    return [centres[name] for name in MODALITIES]


def _numbers(values: Any) -> Array:
    """Numbers; what is none of them (`na`, `missing`, `x`) is NaN."""

    def number(value: Any) -> float:
        try:
            return float(value)
        except ValueError:
            return float("nan")

    return np.array([number(value) for value in values])


def _standard(table: Mapping[str, Any], columns: Sequence[str]) -> Array:
    """Each column with mean 0 and spread 1 in this cohort; a spot without a value is at the mean."""
    x = np.column_stack([_numbers(table[column]) for column in columns])
    return np.asarray(np.nan_to_num((x - np.nanmean(x, axis=0)) / np.nanstd(x, axis=0)))


def _clinical(*columns: Any) -> Array:
    """Nodes and receptors by ln(1 + x), the others as they are."""
    *plain, nodes, progesterone, oestrogen = (np.asarray(column).astype(np.float64) for column in columns)
    return np.column_stack([*plain, np.log1p(nodes), np.log1p(progesterone), np.log1p(oestrogen)])
