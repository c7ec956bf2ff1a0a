"""Five-year recurrence on METABRIC: three modalities, each with its own calibrated logit, and a head for each pattern.

    fitted = fit(cohort, rows)          nothing but those rows is looked at
    z = fitted.z(cohort, others)        {modality: logits}, NaN where the modality cannot speak
    fitted.logit(z, pattern)            the head of that pattern; NaN where one of its modalities is not there

Censoring is handled by inverse probability weights. The heads are fitted on out-of-fold logits (an inner loop of five
folds), so that a base model that fits its own training rows too well isn't believed for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold  # type: ignore[import-untyped]

from models.calibration import ipc_weights
from models.training import predict_curve
from models.training.head import Row
from models.training.metabric import HORIZON, SUBTYPES, Cohort, Floats, Rows
from models.training.regression import logit, newton, nonnegative, ridge

CLINICAL, EXPRESSION, MUTATION = MODALITIES = ("clinical", "expression", "mutation")
FULL = frozenset(MODALITIES)
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
    """One column: logit of PREDICT's five-year breast-cancer mortality after surgery alone.

    Chosen by log loss in 10 x 5-fold cross-validation: 0.5129; complementary log-log 0.5135; of ten years 0.5149 and
    0.5160.
    """
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
            CLINICAL: self.clinical(predict_inputs(cohort)[rows]),
            EXPRESSION: self.expression(subtype_flags(cohort)[rows]),
            MUTATION: self.mutation(gene_flags(cohort, self.genes)[rows]),
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


def patterns_of(modalities: Sequence[str]) -> tuple[frozenset[str], ...]:
    """Every pattern with something in it, the full one last. With nothing there is no score."""
    sizes = range(1, len(modalities) + 1)
    return tuple(frozenset(kept) for size in sizes for kept in itertools.combinations(modalities, size))


PATTERNS = patterns_of(MODALITIES)


def pooled(row: Row, z: Mapping[str, Floats], centres: Mapping[str, float]) -> Floats:
    """b + sum of w x (z - mu), in the order of the weights, which is that of the modalities."""
    total = np.full(len(next(iter(z.values()))), row.base)
    for name, weight in row.weights.items():
        total = total + weight * (z[name] - centres[name])
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
    _, weight = ipc_weights(cohort.months[rows], cohort.recurred[rows], HORIZON)
    return cohort.at_five_years()[rows], weight


def fit_base(cohort: Cohort, rows: Rows) -> Base:
    y, weight = outcome(cohort, rows)
    prevalence = dict(zip(cohort.genes, cohort.mutated[rows].mean(axis=0).tolist(), strict=True))
    prevalence = {gene: share for gene, share in prevalence.items() if share >= RARE}
    predict, subtype, flags = (
        x[rows] for x in (predict_inputs(cohort), subtype_flags(cohort), gene_flags(cohort, tuple(prevalence)))
    )

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
    out: Mapping[str, Floats],
    y: Floats,
    weight: Floats,
    centres: Mapping[str, float],
    modalities: Sequence[str] = MODALITIES,
) -> dict[frozenset[str], Row]:
    """One row for each pattern: weights on whoever has its modalities, widths on whoever has all of them."""
    patterns = patterns_of(modalities)
    rows = {pattern: Row(*_weights(out, y, weight, centres, _named(modalities, pattern))) for pattern in patterns}
    logits = {pattern: pooled(row, out, centres) for pattern, row in rows.items()}
    everything = ~np.isnan(logits[patterns[-1]])
    known = ~np.isnan(y)
    for pattern, row in rows.items():
        gaps = [name for name in modalities if name not in pattern]
        moves = {name: _width(logits[pattern | {name}] - logits[pattern], everything) for name in gaps}
        half = _width(logits[patterns[-1]] - logits[pattern], everything) if gaps else math.nan
        events = int(np.sum(y[known & ~np.isnan(logits[pattern])]))
        rows[pattern] = replace(row, half_width=half, moves=moves, events=events)
    return rows


def with_covariance(fitted: Fitted, cohort: Cohort, rows: Rows, draws: int, seed: int) -> Fitted:
    """The same with the covariance of each head over bootstrap draws of the patients, their logits held fast."""
    y, weight = outcome(cohort, rows)
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = [generator.integers(0, len(rows), len(rows)) for _ in range(draws)]
    heads = {}
    for pattern, row in fitted.heads.items():
        names = _named(MODALITIES, pattern)
        found = [
            _weights({name: fitted.out_of_fold[name][at] for name in names}, y[at], weight[at], fitted.centres, names)
            for at in drawn
        ]
        spread = np.atleast_2d(np.cov(np.array([[base, *weights.values()] for base, weights in found]).T))
        heads[pattern] = replace(row, covariance=tuple(tuple(line) for line in spread.tolist()))
    return replace(fitted, heads=heads)


def _named(modalities: Sequence[str], pattern: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in modalities if name in pattern)


def _weights(
    out: Mapping[str, Floats], y: Floats, weight: Floats, centres: Mapping[str, float], names: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Base and weights of one pattern, on whoever has its modalities and a known outcome."""
    x = np.column_stack([np.ones(len(y)), *(out[name] - centres[name] for name in names)])
    known = ~np.isnan(y) & ~np.isnan(x).any(axis=1)
    base, *weights = nonnegative(x[known], y[known], weight[known]).tolist()
    return base, dict(zip(names, weights, strict=True))


def _width(moves: Floats, there: npt.NDArray[np.bool_]) -> float:
    """The conformal quantile: the smallest width that covers nine of ten such moves of one patient more."""
    sizes = np.sort(np.abs(moves[there]))
    rank = int(np.ceil((len(sizes) + 1) * COVERAGE))
    return float(sizes[min(rank, len(sizes)) - 1])


def predict_inputs(cohort: Cohort) -> Floats:
    """[n, 1]: logit of five-year breast-cancer mortality by PREDICT, NaN where it does not hold."""
    return logit(predict_curve.breast_mortality(cohort, YEAR)[:, 4:5])


def subtype_flags(cohort: Cohort) -> Floats:
    """One column for each subtype; NaN where there is none."""
    known = np.array([[1.0 if subtype else np.nan] for subtype in cohort.subtype])
    return np.asarray(known * np.array([[float(subtype == name) for name in SUBTYPES] for subtype in cohort.subtype]))


def gene_flags(cohort: Cohort, genes: tuple[str, ...]) -> Floats:
    flags = cohort.mutated[:, [cohort.genes.index(gene) for gene in genes]]
    return np.column_stack([flags, np.log1p(flags.sum(axis=1))])
