"""The heads that pattern stacking is compared with, on the same base logits and the same folds.

- `shared weights`: one base and one weight per modality for all patterns, fitted with each modality hidden in turn
  (modality dropout over all patterns, exactly, instead of at random);
- `plain mean`: the mean of the logits that are there;
- `early fusion`: one L2 logistic regression on all columns together (PREDICT's logit, subtypes, gene flags), with all
  modalities there only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from models.training import predict_curve, recurrence
from models.training.metabric import SUBTYPES, Cohort, Floats, Rows
from models.training.recurrence import FULL, MODALITIES, PATTERNS, Fitted
from models.training.regression import logit, nonnegative, ridge

Pattern = frozenset[str]
Predict = Callable[[Cohort, Rows, Mapping[str, Floats]], dict[Pattern, Floats]]
EARLY_C = 1.0


@dataclass(frozen=True, slots=True)
class Compared:
    patterns: tuple[Pattern, ...]
    fit: Callable[[Cohort, Rows, Fitted], Predict]


def _plain_mean(cohort: Cohort, rows: Rows, fitted: Fitted) -> Predict:
    def predict(cohort: Cohort, rows: Rows, z: Mapping[str, Floats]) -> dict[Pattern, Floats]:
        return {pattern: np.mean([z[name] for name in _ordered(pattern)], axis=0) for pattern in PATTERNS}

    return predict


def _shared_weights(cohort: Cohort, rows: Rows, fitted: Fitted) -> Predict:
    y, weight = recurrence.outcome(cohort, rows)
    parts = []
    for pattern in PATTERNS:
        x = _masked(fitted.out_of_fold, fitted.centres, pattern)
        known = np.isfinite(y) & np.isfinite(x).all(axis=1)
        parts.append((x[known], y[known], weight[known]))
    x, outcome, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    beta = nonnegative(np.column_stack([np.ones(len(x)), x]), outcome, weights)

    def predict(cohort: Cohort, rows: Rows, z: Mapping[str, Floats]) -> dict[Pattern, Floats]:
        return {pattern: beta[0] + _masked(z, fitted.centres, pattern) @ beta[1:] for pattern in PATTERNS}

    return predict


def _early_fusion(cohort: Cohort, rows: Rows, fitted: Fitted) -> Predict:
    y, weight = recurrence.outcome(cohort, rows)
    x = _columns(cohort, rows, fitted.base.genes)
    known = np.isfinite(y) & np.isfinite(x).all(axis=1)
    base, weights = ridge(x[known], y[known], weight[known], EARLY_C)

    def predict(cohort: Cohort, rows: Rows, z: Mapping[str, Floats]) -> dict[Pattern, Floats]:
        return {FULL: base + _columns(cohort, rows, fitted.base.genes) @ weights}

    return predict


def _masked(z: Mapping[str, Floats], centres: Mapping[str, float], pattern: Pattern) -> Floats:
    """Centred logits [n, K], 0 for what is hidden."""
    first = next(iter(z.values()))
    return np.column_stack(
        [z[name] - centres[name] if name in pattern else np.zeros(len(first)) for name in MODALITIES]
    )


def _columns(cohort: Cohort, rows: Rows, genes: tuple[str, ...]) -> Floats:
    predict = logit(predict_curve.breast_mortality(cohort, recurrence.YEAR)[rows, 4:5])
    known = np.array([[1.0 if cohort.subtype[row] else np.nan] for row in rows])
    subtype = np.array([[float(cohort.subtype[row] == name) for name in SUBTYPES] for row in rows])
    flags = cohort.mutated[rows][:, [cohort.genes.index(gene) for gene in genes]]
    return np.column_stack([predict, known * subtype, flags, np.log1p(flags.sum(axis=1))])


def _ordered(pattern: Pattern) -> list[str]:
    return [name for name in MODALITIES if name in pattern]


COMPARED: Mapping[str, Compared] = {
    "shared weights": Compared(PATTERNS, _shared_weights),
    "plain mean": Compared(PATTERNS, _plain_mean),
    "early fusion": Compared((FULL,), _early_fusion),
}
