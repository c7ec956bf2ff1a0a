"""Feature rows in, outputs out, no patient involved: `cds models run`.

Columns are those of the manifest's `table` member. For `predict-breast` they are the ones of the official program's
reference table, so that a validator can compare the two line by line. An output is named with its scenario and year, or
alone where it is one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from models.errors import BadInput, ContractMismatch
from models.fused_table import run_fused
from models.inputs import checked
from models.nouns import JSON, ModelVersion
from models.runtime import Session


def run_table(model: ModelVersion, directory: Path, rows: Iterable[Mapping[str, str]]) -> Iterator[dict[str, str]]:
    """One row of outputs per row of inputs, as they come; one row at a time, as at serving, so with the same bits.

    A column that the file does not have takes the manifest's default, where it names one (`year`); other columns are
    passed over. Numbers are written with the 17 digits that give the same binary64 back.

    Raises: BadInput, naming row (the first after the header is 1) and column; ModelFault where the model is broken.
    """
    table = model.manifest.get("table")
    if not isinstance(table, dict):
        raise ContractMismatch("this model has no table form", where=model.id)
    if "fused" in table:
        yield from run_fused(model, directory, rows)
        return
    part = next(part for part in model.manifest["modalities"] if part["name"] == table["modality"])
    session = Session(
        directory / part["file"], model.files[part["file"]], inputs=part["inputs"], outputs=part["outputs"]
    )
    rules = {rule["name"]: rule for rule in model.manifest["rules"]}
    positions = list(part["outputs"])
    cells = [
        (name, positions.index(output), (0, part["scenarios"].index(where[0]), where[1] - 1) if where else (0, 0))
        for name, output, *where in table["outputs"]
    ]
    for number, row in enumerate(rows, start=1):
        values = [_cell(rules[column], row, table["defaults"], number) for column in part["columns"]]
        results = session.run({"x": np.array([values])})
        yield {name: repr(results[at][cell].item()) for name, at, cell in cells}


def _cell(rule: JSON, row: Mapping[str, str], defaults: JSON, number: int) -> float:
    name, where = rule["name"], f"row {number}"
    value = row.get(name)
    if value is None or not value.strip():
        if name in defaults and value is None:
            return float(defaults[name])
        raise BadInput(f"column {name} is missing or empty", where=where)
    return checked(rule, value.strip(), where=where)
