"""A vendor's folder: a small logistic model of haemoglobin, platelets and age, as a site would get it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from models.codes import LOINC
from models.training.graph import Graph

COLUMNS = ("age", "haemoglobin", "platelets")
WEIGHTS = (0.02, -0.3, 0.001)
INTERCEPT = 1.5


def linear(*, output: str = "z", columns: int = len(COLUMNS), intercept: float = INTERCEPT) -> bytes:
    g = Graph("vendor")
    terms = g("MatMul", "x", g.constant([[weight] for weight in WEIGHTS[:columns]]))
    g("Add", terms, intercept, out=output)
    return g.model({"x": ("N", columns)}, {output: ("N", 1)}, "a vendor's graph")


def feature(name: str, code: str, unit: str, plausible: list[float], **more: Any) -> dict[str, Any]:
    asked = {"codes": [f"{LOINC}|{code}"], "scope": "venous blood", "source": "the vendor"}
    stated = {"name": name, "title": name.title(), "codes": asked, "units": [unit], "plausible": plausible}
    return {**stated, "max_age_hours": 24 * 90, **more}


def manifest() -> dict[str, Any]:
    return {
        "name": "acme-anaemia",
        "version": "1.0.0",
        "title": "A vendor's model",
        "endpoint": "Probability of something that the vendor defines.",
        "population": {"text": "Women of 18 to 90 years.", "age": [18, 90], "sex": "female"},
        "modalities": [
            {
                "name": "declared",
                "file": "model.onnx",
                "columns": list(COLUMNS),
                "inputs": {"x": ["N", 3]},
                "outputs": {"z": ["N", 1]},
                "features": [
                    feature("haemoglobin", "718-7", "g/dL", [3, 25]),
                    feature("platelets", "777-3", "10*3/uL", [1, 3000], unknown=250, unknown_note="the mean is taken"),
                ],
            }
        ],
        "head": {},
        "rules": [
            {"name": "age", "range": [18, 90]},
            {"name": "haemoglobin", "range": [3, 25]},
            {"name": "platelets", "range": [1, 3000]},
        ],
        "parameters": {},
        "limits": ["The vendor states none."],
        "licence": "proprietary",
    }


def put(folder: Path, stated: dict[str, Any] | None = None, **files: bytes) -> Path:
    """Write the folder; `files` by name with `_` for `.` (`model_onnx`) replace what would stand there."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = {"model.onnx": linear(), "MODEL_CARD.md": b"# A vendor's model\n"}
    bodies |= {name.replace("_", "."): body for name, body in files.items()}
    for name, body in bodies.items():
        (folder / name).write_bytes(body)
    stated = dict(stated or manifest())
    stated.setdefault("files", {name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()})
    (folder / "manifest.json").write_text(json.dumps(stated))
    return folder
