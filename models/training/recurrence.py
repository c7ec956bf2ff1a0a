"""Five-year recurrence on METABRIC: three modalities, each with its own calibrated logit, and a head for each pattern.

    fitted = fit(cohort, rows)          nothing but those rows is looked at
    z = fitted.z(cohort, others)        {modality: logits}, NaN where the modality cannot speak
    fitted.logit(z, pattern)            the head of that pattern; NaN where one of its modalities is not there

Censoring is handled by inverse probability weights. The heads are fitted on out-of-fold logits (an inner loop of five
folds), so that a base model that fits its own training rows too well isn't believed for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold  # type: ignore[import-untyped]

from models.training import predict_curve
from models.training.head import Row
from models.training.metabric import HORIZON, SUBTYPES, Cohort, Floats, Rows
from models.training.regression import logit, newton, nonnegative, ridge

CLINICAL, EXPRESSION, MUTATION = MODALITIES = ("clinical", "expression", "mutation")
FULL = frozenset(MODALITIES)
PATTERNS: tuple[frozenset[str], ...] = tuple(
    frozenset(kept) for size in range(1, 4) for kept in itertools.combinations(MODALITIES, size)
)
"""The seven patterns with something in them. With nothing there is no score."""
YEAR = 2000.0
"""PREDICT's calendar year for the women of METABRIC (1977 to 2005); see specs: with 2017 it is off by 1.7."""
EXPRESSION_C, MUTATION_C = 1.0, 0.02
"""scikit-learn's C: the second is strong regularisation (116 flags, 484 events)."""
RARE = 0.01
"""Genes mutated in a smaller share of the rows that are fitted on are left out."""
FOLDS, SEED = 5, 20261121
COVERAGE = 0.9
MIN_EVENTS = 50


@dataclass(frozen=True, slots=True)
class Linear:
    """logit = intercept + sum of weight x column."""

    intercept: float
    weights: Mapping[str, float]

    def __call__(self, x: Floats) -> Floats:
        return np.asarray(self.intercept + x @ np.array(list(self.weights.values())))


@dataclass(frozen=True, slots=True)
class Base:
    """The three base models, fitted on the same rows."""

    clinical: Linear
    """One column: logit of PREDICT's five-year breast-cancer mortality after surgery alone."""
    expression: Linear
    mutation: Linear
    """Gene flags and `burden` = ln(1 + number of these genes mutated)."""
    prevalence: Mapping[str, float]
    """Share of the rows in which a gene is mutated: what an unstudied gene counts as."""

    @property
    def genes(self) -> tuple[str, ...]:
        return tuple(self.prevalence)

    def z(self, cohort: Cohort, rows: Rows) -> dict[str, Floats]:
        return {
            CLINICAL: self.clinical(_predict(cohort)[rows]),
            EXPRESSION: self.expression(_subtype(cohort)[rows]),
            MUTATION: self.mutation(_flags(cohort, self.genes)[rows]),
        }


@dataclass(frozen=True, slots=True)
class Fitted:
    base: Base
    centres: Mapping[str, float]
    heads: Mapping[frozenset[str], Row]
    out_of_fold: Mapping[str, Floats]
    """Logits of the rows that were fitted on, each by base models that did not see it: what other heads compare on."""

    def z(self, cohort: Cohort, rows: Rows) -> dict[str, Floats]:
        return self.base.z(cohort, rows)

    def logit(self, z: Mapping[str, Floats], pattern: frozenset[str]) -> Floats:
        return pooled(self.heads[pattern], z, self.centres)


def pooled(row: Row, z: Mapping[str, Floats], centres: Mapping[str, float]) -> Floats:
    """b + sum of w x (z - mu), in the fixed order of the modalities."""
    total = np.full(len(next(iter(z.values()))), row.base)
    for name in MODALITIES:
        if name in row.weights:
            total = total + row.weights[name] * (z[name] - centres[name])
    return total


def fit(cohort: Cohort, rows: Rows, *, seed: int = SEED) -> Fitted:
    """Base models on all `rows`, heads on their out-of-fold logits. `seed` draws the inner folds."""
    y, weight = outcome(cohort, rows)
    out = {name: np.full(len(rows), np.nan) for name in MODALITIES}
    strata = np.where(np.isnan(y), 2.0, y)
    for inner, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(rows, strata):
        for name, values in fit_base(cohort, rows[inner]).z(cohort, rows[held]).items():
            out[name][held] = values
    centres = {name: float(np.nanmean(values)) for name, values in out.items()}
    return Fitted(fit_base(cohort, rows), centres, fit_heads(out, y, weight, centres), out)


def outcome(cohort: Cohort, rows: Rows) -> tuple[Floats, Floats]:
    """Recurrence within five years (NaN: censored before) and its weight, 1 / P(not censored before it was known).

    The censoring distribution is the Kaplan-Meier estimate in these rows; a recurrence comes before a censoring of the
    same day.
    """
    y, months = cohort.at_five_years()[rows], cohort.months[rows]
    censored = ~cohort.recurred[rows]
    times = np.unique(months[censored])
    at_risk = np.array([np.sum(months >= time) for time in times])
    lost = np.array([np.sum(censored & (months == time)) for time in times])
    still = np.concatenate([[1.0], np.cumprod(1.0 - lost / at_risk)])
    before = still[np.searchsorted(times, np.minimum(months, HORIZON), side="left")]
    return y, np.where(np.isnan(y), 0.0, 1.0 / np.where(np.isnan(y), 1.0, before))


def fit_base(cohort: Cohort, rows: Rows) -> Base:
    y, weight = outcome(cohort, rows)
    prevalence = dict(zip(cohort.genes, cohort.mutated[rows].mean(axis=0).tolist(), strict=True))
    prevalence = {gene: share for gene, share in prevalence.items() if share >= RARE}
    predict, subtype, flags = (x[rows] for x in (_predict(cohort), _subtype(cohort), _flags(cohort, tuple(prevalence))))

    known = ~np.isnan(y) & ~np.isnan(predict[:, 0])
    constant, slope = newton(np.column_stack([np.ones(len(rows)), predict])[known], y[known], weight[known])
    known = ~np.isnan(y) & ~np.isnan(subtype[:, 0])
    of_subtype = ridge(subtype[known], y[known], weight[known], EXPRESSION_C)
    known = ~np.isnan(y)
    of_genes = ridge(flags[known], y[known], weight[known], MUTATION_C)
    return Base(
        Linear(float(constant), {"predict": float(slope)}),
        Linear(of_subtype[0], dict(zip(SUBTYPES, of_subtype[1].tolist(), strict=True))),
        Linear(of_genes[0], dict(zip((*prevalence, "burden"), of_genes[1].tolist(), strict=True))),
        prevalence,
    )


def fit_heads(
    out: Mapping[str, Floats], y: Floats, weight: Floats, centres: Mapping[str, float]
) -> dict[frozenset[str], Row]:
    """One row for each pattern: weights on whoever has its modalities, widths on whoever has all of them."""
    rows: dict[frozenset[str], Row] = {}
    for pattern in PATTERNS:
        names = [name for name in MODALITIES if name in pattern]
        known = ~np.isnan(y) & ~np.isnan(sum(out[name] for name in names))
        x = np.column_stack([np.ones(len(y)), *(out[name] - centres[name] for name in names)])[known]
        base, *weights = nonnegative(x, y[known], weight[known]).tolist()
        rows[pattern] = Row(base, dict(zip(names, weights, strict=True)), events=int(np.sum(y[known])))
    return rows


def _predict(cohort: Cohort) -> Floats:
    return logit(predict_curve.breast_mortality(cohort, YEAR)[:, 4:5])


def _subtype(cohort: Cohort) -> Floats:
    """One column for each subtype; NaN where there is none."""
    known = np.array([[1.0 if subtype else np.nan] for subtype in cohort.subtype])
    return np.asarray(known * np.array([[float(subtype == name) for name in SUBTYPES] for subtype in cohort.subtype]))


def _flags(cohort: Cohort, genes: tuple[str, ...]) -> Floats:
    flags = cohort.mutated[:, [cohort.genes.index(gene) for gene in genes]]
    return np.column_stack([flags, np.log1p(flags.sum(axis=1))])
