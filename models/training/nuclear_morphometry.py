"""Recurrence within two years from thirty nuclear features: the Wisconsin prognostic set, which a package ships.

198 women, 47 recurrences; two years as in the authors' own work (Street, Mangasarian and Wolberg 1995), 29 recurrences,
39 lost before. Inverse-probability weights, a strong ridge on standardised features (C 0.01: the thirty are ten
measured three times), and a line fitted on its out-of-fold logits, because a ridge that strong is too timid.

`python -m models.training.nuclear_morphometry` fits again and writes the coefficients that the release reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold  # type: ignore[import-untyped]

from models.calibration import Array, Flags, ipc_weights
from models.modalities.imaging import NUCLEAR
from models.training import packaged, statistics
from models.training.regression import newton, ridge, rounded, sigmoid

HORIZON, STRENGTH, FOLDS, REPEATS, SEED, RESAMPLES = 24.0, 0.01, 5, 10, 20261121, 250
COHORT = "wpbc"
COEFFICIENTS = Path(__file__).with_suffix(".json")
COLUMNS = tuple(
    f"num_{statistic}_{measure}"
    for statistic in ("mean", "SE", "worst")
    for measure in (
        "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concavepoints", "symmetry",
        "fractaldim",
    )
)  # fmt: skip
"""The package's names, in the order of `NUCLEAR`."""


@dataclass(frozen=True, slots=True)
class Cohort:
    x: Array
    """[198, 30]."""
    months: Array
    recurred: Flags

    def known(self, rows: Any) -> tuple[Any, Array, Array]:
        """Of these rows those whose outcome at two years is known, the outcome, and the weights."""
        y, weight = ipc_weights(self.months[rows], self.recurred[rows], HORIZON)
        kept = weight > 0
        return rows[kept], y[kept].astype(np.float64), weight[kept]


@dataclass(frozen=True, slots=True)
class Linear:
    """logit = intercept + sum of weight x (value - centre)."""

    intercept: float
    weights: Array
    centres: Array

    def __call__(self, x: Array) -> Array:
        return np.asarray(self.intercept + (x - self.centres) @ self.weights)

    def rounded(self) -> Linear:
        weights, centres = (np.array([rounded(v) for v in each.tolist()]) for each in (self.weights, self.centres))
        return Linear(rounded(self.intercept), weights, centres)


def load() -> Cohort:
    """The cohort as the package ships it. Raises: BadInput where the file or its columns are others."""
    found = packaged.table(COHORT, ("time", "event", *COLUMNS))
    x = np.column_stack([found[column] for column in COLUMNS]).astype(np.float64)
    return Cohort(x, found["time"].astype(np.float64), found["event"] == 1)


def fit(cohort: Cohort, rows: Any, *, seed: int = SEED) -> Linear:
    """Ridge on all of `rows`, then the line of its out-of-fold logits; nothing but those rows is looked at."""
    known, y, weight = cohort.known(rows)
    out = np.zeros(len(known))
    for inner, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(known, y):
        out[held] = _ridge(cohort.x[known[inner]], y[inner], weight[inner])(cohort.x[known[held]])
    constant, slope = newton(np.column_stack([np.ones(len(out)), out]), y, weight).tolist()
    timid = _ridge(cohort.x[known], y, weight)
    return Linear(constant + slope * timid.intercept, slope * timid.weights, timid.centres)


def _ridge(x: Array, y: Array, weight: Array) -> Linear:
    centres, spread = x.mean(axis=0), x.std(axis=0)
    intercept, weights = ridge((x - centres) / spread, y, weight, STRENGTH)
    return Linear(intercept, weights / spread, centres)


def validated(cohort: Cohort) -> list[dict[str, Any]]:
    """Ten times five-fold: AUROC, C, slope and observed/expected of the held-out logits, with bootstrap intervals."""
    everybody = np.arange(len(cohort.months))
    y, weight = ipc_weights(cohort.months, cohort.recurred, HORIZON)
    logits = np.zeros(len(everybody))
    strata = np.where(weight > 0, y, 2)
    for repeat in range(REPEATS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED + repeat)
        for train, held in folds.split(everybody, strata):
            logits[held] += fit(cohort, train, seed=SEED + repeat)(cohort.x[held]) / REPEATS
    counts = statistics.resamples(len(everybody), RESAMPLES, SEED)
    p = np.asarray(sigmoid(logits))
    found = {
        "AUROC of recurrence within two years": statistics.auroc_resampled(logits, y, weight, counts),
        "Harrell's C": statistics.harrell_resampled(logits, cohort.months, cohort.recurred, counts),
        "calibration slope": statistics.slope_resampled(logits, y, weight, counts),
        "observed/expected": statistics.ratio_resampled(p, y, weight, counts),
    }
    once = np.ones((1, len(everybody)))
    values = (
        statistics.auroc(logits, y, weight),
        statistics.harrell(logits, cohort.months, cohort.recurred),
        float(statistics.slope_resampled(logits, y, weight, once)[0]),
        float(statistics.ratio_resampled(p, y, weight, once)[0]),
    )
    return [
        {
            "what": what,
            "value": rounded(value),
            "interval": [rounded(end) for end in statistics.interval(resampled)],
            "n": len(everybody),
            "events": int(np.sum(y[weight > 0])),
            "data": "Wisconsin prognostic set (SurvSet wpbc)",
            "design": f"{REPEATS} x {FOLDS}-fold cross-validation, {RESAMPLES} patient bootstraps",
        }
        for (what, resampled), value in zip(found.items(), values, strict=True)
    ]


def coefficients() -> dict[str, Any]:
    """What is committed: the model, the ranges it was fitted in, and how it did on held-out patients."""
    cohort = load()
    model = fit(cohort, np.arange(len(cohort.months))).rounded()
    _, y, _ = cohort.known(np.arange(len(cohort.months)))
    return {
        "data": {packaged.file_of(COHORT): packaged.DIGESTS[COHORT]},
        "horizon_months": HORIZON,
        "n": len(cohort.months),
        "events": int(y.sum()),
        "seed": SEED,
        "intercept": model.intercept,
        "features": {
            definition.name: {"weight": weight, "centre": centre, "range": [rounded(low), rounded(high)]}
            for definition, weight, centre, low, high in zip(
                NUCLEAR,
                model.weights.tolist(),
                model.centres.tolist(),
                cohort.x.min(axis=0).tolist(),
                cohort.x.max(axis=0).tolist(),
                strict=True,
            )
        },
        "metrics": validated(cohort),
    }


def main() -> None:
    COEFFICIENTS.write_text(json.dumps(coefficients(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
