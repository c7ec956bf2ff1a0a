"""The fitted coefficients, as they are committed: artifacts are made from these, with or without the cohort at hand.

`python -m models.training.fitted` fits again and writes them; it needs the cohort (see `models.training.metabric`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.training import metabric, recurrence
from models.training.head import Row
from models.training.recurrence import EXPRESSION, MODALITIES, MUTATION, Linear
from models.training.regression import rounded

FILE = Path(__file__).parent / "data" / "recurrence.json"
DRAWS, BAND_SEED = 200, 20261122
GENOMIC = (EXPRESSION, MUTATION)

Heads = Mapping[frozenset[str], Row]


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Everything that the two recurrence models are made of."""

    clinical: Linear
    expression: Linear
    mutation: Linear
    prevalence: Mapping[str, float]
    centres: Mapping[str, float]
    heads: Heads
    """Of the fused model: seven patterns."""
    genomic_heads: Heads
    """Of the genomic model: three patterns; its widths are measured against its own two modalities."""
    ranges: Mapping[str, tuple[float, float]]
    """Lowest and highest value of the clinical inputs that were fitted on."""
    data: Mapping[str, str]
    """Table -> SHA-256."""

    @property
    def shares(self) -> dict[str, float]:
        """Gene -> its share of the variance that the gene flags give the logit: w^2 p (1 - p), adding up to 1."""
        own = {gene: self.mutation.weights[gene] ** 2 * share * (1 - share) for gene, share in self.prevalence.items()}
        total = sum(own.values())
        return {gene: rounded(value / total) for gene, value in own.items()}


def fit() -> dict[str, Any]:
    """Fit on the whole cohort; the plain form that is committed."""
    cohort = metabric.load()
    rows = np.arange(len(cohort))
    whole = recurrence.with_covariance(recurrence.fit(cohort, rows), cohort, rows, DRAWS, BAND_SEED)
    y, weight = recurrence.outcome(cohort, rows)
    genomic = recurrence.fit_heads(whole.out_of_fold, y, weight, whole.centres, GENOMIC)
    base = whole.base
    return {
        "data": dict(metabric.DIGESTS),
        "patients": len(cohort),
        "events": int(np.nansum(y)),
        "clinical": _linear(base.clinical),
        "expression": _linear(base.expression),
        "mutation": _linear(base.mutation),
        "prevalence": {gene: rounded(share) for gene, share in base.prevalence.items()},
        "centres": {name: rounded(centre) for name, centre in whole.centres.items()},
        "heads": [_row(pattern, row, row) for pattern, row in whole.heads.items()],
        "genomic_heads": [_row(pattern, row, whole.heads[pattern]) for pattern, row in genomic.items()],
        "ranges": _ranges(cohort),
    }


def _ranges(cohort: metabric.Cohort) -> dict[str, list[float]]:
    usable = ~np.isnan(recurrence.predict_inputs(cohort)[:, 0])
    return {
        name: [float(np.min(values[usable])), float(np.max(values[usable]))]
        for name, values in (("age", np.floor(cohort.age)), ("size", cohort.size), ("nodes", cohort.nodes))
    }


def _linear(model: Linear) -> dict[str, Any]:
    return {
        "intercept": rounded(model.intercept),
        "weights": {name: rounded(weight) for name, weight in model.weights.items()},
    }


def _row(pattern: frozenset[str], row: Row, spread: Row) -> dict[str, Any]:
    return {
        "there": [name for name in MODALITIES if name in pattern],
        "base": rounded(row.base),
        "weights": {name: rounded(weight) for name, weight in row.weights.items()},
        "half_width": None if math.isnan(row.half_width) else rounded(row.half_width),
        "moves": {name: rounded(width) for name, width in row.moves.items()},
        "covariance": [[rounded(value) for value in line] for line in spread.covariance],
        "events": row.events,
    }


def read() -> Coefficients:
    """The committed coefficients."""
    stated = json.loads(FILE.read_bytes())
    clinical, expression, mutation = (Linear(stated[name]["intercept"], stated[name]["weights"]) for name in MODALITIES)
    return Coefficients(
        clinical=clinical,
        expression=expression,
        mutation=mutation,
        prevalence=stated["prevalence"],
        centres=stated["centres"],
        heads=dict(map(_read_row, stated["heads"])),
        genomic_heads=dict(map(_read_row, stated["genomic_heads"])),
        ranges={name: (low, high) for name, (low, high) in stated["ranges"].items()},
        data=stated["data"],
    )


def _read_row(row: Mapping[str, Any]) -> tuple[frozenset[str], Row]:
    half = math.nan if row["half_width"] is None else row["half_width"]
    covariance = tuple(tuple(line) for line in row["covariance"])
    return frozenset(row["there"]), Row(row["base"], row["weights"], half, row["events"], row["moves"], covariance)


def main() -> None:
    FILE.write_text(json.dumps(fit(), indent=1, allow_nan=False) + "\n")
    print(FILE.name)


if __name__ == "__main__":
    main()
