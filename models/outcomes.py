"""Reads what became of a site's patients: one row each, with the risk as it was stated and the follow-up since then.

| column | what |
| --- | --- |
| `id` | any name that stands once in the file; it is not kept |
| `logit` or `p` | the model's fused answer for this patient, on either scale |
| `time` | months from the moment that the risk counts from to the event, or to the last contact without one |
| `event` | 1 the event was seen at `time`, 0 it was not |
| `model` | optional: `NAME@VERSION` that gave the answer; must be the version that is recalibrated |

Other columns are passed over. Raises BadInput, naming line and column; a value is never quoted.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.calibration import Array, Flags
from models.errors import BadInput, TooLarge
from models.inputs import checked

MOST_BYTES = 100_000_000
_LOGIT = {"name": "logit", "range": [-30.0, 30.0]}
_TIME = {"name": "time", "range": [0.0, 1200.0]}
_EVENT = {"name": "event", "allowed": [0.0, 1.0]}
_P = {"name": "p", "range": [0.0, 1.0]}


@dataclass(frozen=True, slots=True)
class Outcomes:
    """n patients, in the order of the digests of their ids: the order of the file does not matter."""

    logit: Array
    time: Array
    """Months."""
    event: Flags
    fold: Array
    """A number in [0, 1) for each patient, drawn from the id."""
    digest: str
    """SHA-256 of the file."""

    def __len__(self) -> int:
        return len(self.logit)


def read(body: bytes, model: str) -> Outcomes:
    """The patients of an outcomes file for the version `model` (`NAME@VERSION`)."""
    if len(body) > MOST_BYTES:
        raise TooLarge(f"the outcomes file is larger than {MOST_BYTES:,} bytes")
    try:
        reader = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        scale = _scale(list(reader.fieldnames or []))
        patients: dict[bytes, tuple[float, float, float]] = {}
        for row in reader:
            where = f"line {reader.line_num}"
            key, patient = _patient(row, scale, model, where)
            if key in patients:
                raise BadInput("this id stood on an earlier line already", where=where)
            patients[key] = patient
    except UnicodeDecodeError:
        raise BadInput("the outcomes file is not UTF-8 text") from None
    except csv.Error:
        raise BadInput("the outcomes file is not CSV") from None
    if not patients:
        raise BadInput("the outcomes file has no patients")
    order = sorted(patients)
    logit, time, event = (np.array(column) for column in zip(*(patients[key] for key in order), strict=True))
    fold = np.array([int.from_bytes(key[:6], "big") / 2**48 for key in order])
    return Outcomes(logit, time, event == 1.0, fold, hashlib.sha256(body).hexdigest())


def _scale(header: list[str]) -> str:
    where = "the header"
    for name in ("id", "time", "event"):
        if name not in header:
            raise BadInput(f"column {name} is missing", where=where)
    for name in ("id", "time", "event", "logit", "p", "model"):
        if header.count(name) > 1:
            raise BadInput(f"column {name} stands twice", where=where)
    scales = [name for name in ("logit", "p") if name in header]
    if len(scales) != 1:
        raise BadInput("one of the columns logit and p is needed, not both", where=where)
    return scales[0]


def _patient(
    row: Mapping[str | None, str | None], scale: str, model: str, where: str
) -> tuple[bytes, tuple[float, float, float]]:
    if None in row or None in row.values():
        raise BadInput("the row does not have as many cells as the header", where=where)
    cells = {name: (value or "").strip() for name, value in row.items()}
    if not cells["id"]:
        raise BadInput("id is empty", where=where)
    if "model" in cells and cells["model"] != model:
        raise BadInput("this answer was not given by the version that is recalibrated", where=where)
    if scale == "p":
        p = checked(_P, cells["p"], where=where)
        if not 0.0 < p < 1.0:
            raise BadInput("p is 0 or 1, which is no risk", where=where)
        logit = math.log(p) - math.log1p(-p)
    else:
        logit = checked(_LOGIT, cells["logit"], where=where)
    time = checked(_TIME, cells["time"], where=where)
    if time == 0.0:
        raise BadInput("time is 0: there is no follow-up", where=where)
    return hashlib.sha256(cells["id"].encode()).digest(), (logit, time, checked(_EVENT, cells["event"], where=where))
