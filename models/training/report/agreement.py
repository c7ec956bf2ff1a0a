"""The ONNX graphs, made from the committed coefficients, against the training program on every patient and pattern.

One row at a time, as at serving. What is missing arrives as NaN in its slot, as it does there.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from models.fusion import head_shapes
from models.runtime import Session
from models.training import fitted, head, recurrence, recurrence_graphs
from models.training.metabric import SUBTYPES, Cohort, Floats
from models.training.recurrence import CLINICAL, EXPRESSION, MODALITIES, MUTATION, PATTERNS
from models.training.statistics import sigmoid

UNKNOWN, NOT_SCREENED = 9.0, 2.0


def measured(cohort: Cohort) -> dict[str, Any]:
    """Largest difference in probability between graphs and program."""
    rows = np.arange(len(cohort))
    trained = recurrence.fit(cohort, rows)
    expected_z = trained.z(cohort, rows)
    with tempfile.TemporaryDirectory() as folder:
        z, fuse = _graphs(cohort, Path(folder))
        worst, compared = 0.0, 0
        for pattern in PATTERNS:
            expected = sigmoid(trained.logit(expected_z, pattern))
            avail = np.array([[float(name in pattern) for name in MODALITIES]])
            for row in np.flatnonzero(np.isfinite(expected)):
                slots = [z[name][row] if name in pattern else np.nan for name in MODALITIES]
                p = fuse.run({"z": np.array([slots]), "avail": avail})[0].item()
                worst, compared = max(worst, abs(p - float(expected[row]))), compared + 1
    return {"compared": compared, "largest_difference": float(f"{worst:.0e}")}


def _graphs(cohort: Cohort, folder: Path) -> tuple[dict[str, Floats], Session]:
    """Each modality's logits by its graph (NaN where it is silent), and the head."""
    made = fitted.read()
    one = ["N", 1]
    z = {}
    for name, body, x in (
        (CLINICAL, recurrence_graphs.clinical(made.clinical), _clinical(cohort)),
        (EXPRESSION, recurrence_graphs.linear(EXPRESSION, made.expression, ""), _expression(cohort)),
        (MUTATION, recurrence_graphs.linear(MUTATION, made.mutation, ""), _mutation(cohort, tuple(made.prevalence))),
    ):
        session = _session(folder / f"{name}.onnx", body, ({"x": ["N", x.shape[1]]}, {"z": one}))
        spoken = np.isfinite(x).all(axis=1)
        z[name] = np.full(len(cohort), np.nan)
        z[name][spoken] = [session.run({"x": values[None]})[0].item() for values in x[spoken]]
    centres = [made.centres[name] for name in MODALITIES]
    shapes = head_shapes(len(MODALITIES), band=True)
    return z, _session(folder / "head.onnx", head.build(MODALITIES, centres, made.heads), shapes)


def _session(path: Path, body: bytes, shapes: tuple[Any, Any]) -> Session:
    path.write_bytes(body)
    return Session(path, hashlib.sha256(body).hexdigest(), inputs=shapes[0], outputs=shapes[1])


def _clinical(c: Cohort) -> Floats:
    columns = {
        "age": np.floor(c.age), "screen": np.full(len(c), NOT_SCREENED), "size": c.size, "grade": _or_unknown(c.grade),
        "nodes": c.nodes, "er": c.er, "her2": _or_unknown(c.her2), "ki67": np.full(len(c), UNKNOWN),
        "pr": _or_unknown(c.pr), "smoker": np.full(len(c), UNKNOWN), "year": np.full(len(c), recurrence.YEAR),
    }  # fmt: skip
    x = np.column_stack([columns[name] for name in recurrence_graphs.CLINICAL_COLUMNS])
    x[(columns["age"] < 25) | (columns["age"] > 85)] = np.nan
    return x


def _or_unknown(values: Floats) -> Floats:
    return np.where(np.isnan(values), UNKNOWN, values)


def _expression(c: Cohort) -> Floats:
    known = np.array([[1.0 if subtype else np.nan] for subtype in c.subtype])
    return np.asarray(known * np.array([[float(subtype == name) for name in SUBTYPES] for subtype in c.subtype]))


def _mutation(c: Cohort, genes: tuple[str, ...]) -> Floats:
    flags = c.mutated[:, [c.genes.index(gene) for gene in genes]]
    return np.column_stack([flags, np.log1p(flags.sum(axis=1))])
