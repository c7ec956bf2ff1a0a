"""A version that may be recalibrated, and a site that has patients for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.calibration import sigmoid
from models.shelf import MANIFEST, SHIPPED, Shelf

ID = "some-model@1.0.0"


def put_some_model(root: Path) -> Path:
    """PREDICT's graphs under another name, without its curves, with a horizon of 60 months."""
    source = Shelf().get("predict-breast")
    manifest = {**source.manifest, "name": "some-model", "version": "1.0.0", "horizon_months": 60}
    part = manifest["modalities"][0]
    manifest["modalities"] = [{**part, "curves": {name: [None] * 12 for name in part["curves"]}}]
    directory = root / "some-model" / "1.0.0"
    directory.mkdir(parents=True)
    for name in source.files:
        (directory / name).write_bytes((SHIPPED / "predict-breast" / source.version / name).read_bytes())
    (directory / MANIFEST).write_text(json.dumps(manifest, sort_keys=True))
    return directory


def outcomes(n: int, *, intercept: float = 0.0, slope: float = 1.0, seed: int = 1) -> bytes:
    """Patients whose true logit is intercept + slope x the stated one, lost at random, followed for eight years."""
    rng = np.random.Generator(np.random.PCG64(seed))
    stated = rng.normal(-1.2, 0.9, n)
    rate = -np.log1p(-sigmoid(intercept + slope * stated)) / 60.0
    happens, lost = rng.exponential(1.0 / rate), np.minimum(rng.exponential(200.0, n), 96.0)
    lines = [
        f"{number},{logit:.6f},{max(min(at, to), 0.001):.4f},{int(at <= to)}"
        for number, (logit, at, to) in enumerate(zip(stated, happens, lost, strict=True))
    ]
    return "\n".join(["id,logit,time,event", *lines]).encode()
