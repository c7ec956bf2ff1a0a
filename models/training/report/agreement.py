"""The shipped ONNX graphs against the training program, on every patient and pattern.

One row at a time, as at serving. What is missing arrives as NaN in its slot, as it does there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.fusion import head_shapes
from models.nouns import JSON, ModelVersion
from models.runtime import Session
from models.shelf import Shelf
from models.training import recurrence, recurrence_graphs
from models.training.metabric import Cohort, Floats
from models.training.recurrence import CLINICAL, EXPRESSION, MODALITIES, MUTATION, PATTERNS
from models.training.statistics import sigmoid

MODEL = "breast-cancer-recurrence"
UNKNOWN, NOT_SCREENED = 9.0, 2.0


def measured(cohort: Cohort) -> dict[str, Any]:
    """Largest difference in probability between the graphs and a fit on the whole cohort, made now."""
    rows = np.arange(len(cohort))
    trained = recurrence.fit(cohort, rows)
    expected_z = trained.z(cohort, rows)
    model = Shelf().get(MODEL)
    z, fuse = _spoken(cohort, model), _head(model)
    worst, compared = 0.0, 0
    for pattern in PATTERNS:
        expected = sigmoid(trained.logit(expected_z, pattern))
        avail = np.array([[float(name in pattern) for name in MODALITIES]])
        for row in np.flatnonzero(np.isfinite(expected)):
            slots = [z[name][row] if name in pattern else np.nan for name in MODALITIES]
            p = fuse.run({"z": np.array([slots]), "avail": avail})[0].item()
            worst, compared = max(worst, abs(p - float(expected[row]))), compared + 1
    return {"model": model.id, "compared": compared, "largest_difference": float(f"{worst:.0e}")}


def _spoken(cohort: Cohort, model: ModelVersion) -> dict[str, Floats]:
    """Each modality's logits by its graph, NaN where it is silent."""
    columns = {CLINICAL: _clinical, EXPRESSION: _expression, MUTATION: _mutation}
    z = {}
    for part in model.manifest["modalities"]:
        x = columns[part["name"]](cohort, part)
        session = _session(model, part["file"], part["inputs"], part["outputs"])
        there = np.isfinite(x).all(axis=1)
        z[part["name"]] = np.full(len(cohort), np.nan)
        z[part["name"]][there] = [session.run({"x": values[None]})[0].item() for values in x[there]]
    return z


def _head(model: ModelVersion) -> Session:
    inputs, outputs = head_shapes(len(MODALITIES), band=True)
    return _session(model, model.manifest["head"]["file"], inputs, outputs)


def _session(model: ModelVersion, file: str, inputs: Any, outputs: Any) -> Session:
    return Session(Shelf().path(model) / file, model.files[file], inputs=inputs, outputs=outputs)


def _clinical(c: Cohort, part: JSON) -> Floats:
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


def _expression(c: Cohort, part: JSON) -> Floats:
    known = np.array([[1.0 if subtype else np.nan] for subtype in c.subtype])
    return np.asarray(known * np.array([[float(subtype == name) for name in part["columns"]] for subtype in c.subtype]))


def _mutation(c: Cohort, part: JSON) -> Floats:
    *genes, _ = part["columns"]
    flags = c.mutated[:, [c.genes.index(gene) for gene in genes]]
    return np.column_stack([flags, np.log1p(flags.sum(axis=1))])
