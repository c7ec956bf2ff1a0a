"""Feature rows in, fused outputs out, for models whose manifest's `table` names the modalities to fuse.

A row holds the columns of every modality. A modality whose own columns are not in the file, or all empty, is missing in
that row, as it is at serving; one that is there in part is an error, but for columns with a stated default, and for
`burden`, which follows from the genes. The guard of a modality's range turns it off here as it does at serving.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import BadInput
from models.fusion import Head
from models.inputs import checked
from models.nouns import JSON, ModelVersion
from models.runtime import Session
from models.score import Score


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    columns: tuple[str, ...]
    rules: Mapping[str, JSON]
    guard: Mapping[str, tuple[float, float]]
    session: Session
    z: int


def run_fused(model: ModelVersion, directory: Path, rows: Iterable[Mapping[str, str]]) -> Iterator[dict[str, str]]:
    """One row of outputs per row of inputs: `p`, `logit`, both ranges, and per modality its logit and what it adds.

    An abstention has empty cells and a reason in `abstained`. Raises: BadInput, naming row and column; ModelFault where
    the model is broken.
    """
    table = model.manifest["table"]
    parts = [_part(part, model, directory) for part in model.manifest["modalities"] if part["name"] in table["fused"]]
    head = Head(model.manifest["head"], model.files, directory)
    for number, row in enumerate(rows, start=1):
        z: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for part in parts:
            values = _values(part, row, table, f"row {number}")
            outside = None if values is None else _outside(part, values)
            if values is None or outside is not None:
                z[part.name], reasons[part.name] = None, outside or f"no columns of modality {part.name}"
            else:
                z[part.name] = part.session.run({"x": np.array([values])})[part.z].item()
        yield _cells(head.fuse(model.id, z, reasons, {}), head.modalities)


def _part(part: JSON, model: ModelVersion, directory: Path) -> _Part:
    session = Session(
        directory / part["file"], model.files[part["file"]], inputs=part["inputs"], outputs=part["outputs"]
    )
    rules = {rule["name"]: rule for rule in part.get("rules", model.manifest["rules"])}
    guard = {rule["name"]: (rule["range"][0], rule["range"][1]) for rule in part.get("guard", ())}
    return _Part(part["name"], tuple(part["columns"]), rules, guard, session, list(part["outputs"]).index("z"))


def _values(part: _Part, row: Mapping[str, str], table: JSON, where: str) -> list[float] | None:
    """The modality's numbers in its graph's order; None where the row has nothing of it."""
    given = {name: text.strip() for name in part.columns if (text := row.get(name)) is not None and text.strip()}
    if not any(name not in table["defaults"] for name in given):
        return None
    values: dict[str, float] = {}
    for name in part.columns:
        if name in given:
            values[name] = checked(part.rules[name], given[name], where=where)
        elif name in table["defaults"]:
            values[name] = float(table["defaults"][name])
        elif name in table["derived"]:
            values[name] = math.log1p(sum(values[gene] for gene in table["derived"][name]))
        else:
            raise BadInput(f"column {name} is missing or empty", where=where)
    for one, *others in table["one_of"]:
        if one in values and values[one] + sum(values[name] for name in others) != 1.0:
            raise BadInput(f"of the columns {one} to {others[-1]} one is 1 and the others are 0", where=where)
    return list(values.values())


def _outside(part: _Part, values: list[float]) -> str | None:
    for name, value in zip(part.columns, values, strict=True):
        if name in part.guard and not part.guard[name][0] <= value <= part.guard[name][1]:
            return f"{name} is outside the range that modality {part.name} was fitted on"
    return None


def _cells(score: Score, modalities: tuple[str, ...]) -> dict[str, str]:
    cells: dict[str, float | None] = {"p": score.probability, "logit": score.logit}
    for name, ends in (("range", score.interval), ("band", score.band)):
        cells[f"{name}_low"], cells[f"{name}_high"] = ends or (None, None)
    own = {part.modality: part for part in score.contributions}
    for name in modalities:
        part = own.get(name)
        cells[f"z_{name}"] = part.z if part else None
        cells[f"adds_{name}"] = part.amount if part else None
    texts = {name: "" if value is None else repr(value) for name, value in cells.items()}
    return {**texts, "abstained": score.abstained or ""}
