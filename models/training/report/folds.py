"""Nested cross-validation: nothing that scores a patient has seen that patient.

10 repeats of 5 outer folds. Inside each training part, `recurrence.fit` makes out-of-fold logits by five inner folds;
the heads (ours and the ones it is compared with) and the half widths are fitted on those. What comes back are logits of
patients who were held out, averaged over the repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold  # type: ignore[import-untyped]

from models.training import recurrence, statistics
from models.training.metabric import HORIZON, Cohort, Floats, Rows
from models.training.recurrence import FULL, MODALITIES, PATTERNS, SEED
from models.training.report import heads

REPEATS, FOLDS = 10, 5
Pattern = frozenset[str]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Logits [n] of held-out patients, NaN where a modality is not there; means over the repeats."""

    patterns: Mapping[Pattern, Floats]
    """Our head, by pattern."""
    others: Mapping[str, Mapping[Pattern, Floats]]
    """The heads that it is compared with, by name and pattern."""
    slopes: Mapping[Pattern, tuple[float, ...]]
    """Calibration slope of each repeat alone: averaging logits over repeats makes slopes look a little steeper."""
    covered: Mapping[Pattern, Floats]
    """Share of the repeats in which the full answer stayed within the half width; NaN where not all is there."""
    widths: Mapping[Pattern, float]
    """Mean half width, in logits."""


def held_out(cohort: Cohort) -> HeldOut:
    runs = [_repeat(cohort, SEED + number) for number in range(REPEATS)]
    outcome, weights = statistics.ipc_weights(cohort.months, cohort.recurred, HORIZON)

    def slope(logit: Floats) -> float:
        known = np.isfinite(logit)
        return statistics.fit_line(logit[known], outcome[known], weights[known], slope=True).slope

    thinner = [pattern for pattern in PATTERNS if pattern != FULL]
    return HeldOut(
        patterns={pattern: _mean([run.ours[pattern] for run in runs]) for pattern in PATTERNS},
        others={
            name: {pattern: _mean([run.others[name][pattern] for run in runs]) for pattern in runs[0].others[name]}
            for name in runs[0].others
        },
        slopes={pattern: tuple(slope(run.ours[pattern]) for run in runs) for pattern in PATTERNS},
        covered={pattern: _mean([run.covered[pattern] for run in runs]) for pattern in thinner},
        widths={pattern: float(np.mean([run.widths[pattern] for run in runs])) for pattern in thinner},
    )


@dataclass(frozen=True, slots=True)
class _Run:
    ours: dict[Pattern, Floats]
    others: dict[str, dict[Pattern, Floats]]
    covered: dict[Pattern, Floats]
    widths: dict[Pattern, float]


def _repeat(cohort: Cohort, seed: int) -> _Run:
    n = len(cohort)
    ours = {pattern: np.full(n, np.nan) for pattern in PATTERNS}
    others = {name: {pattern: np.full(n, np.nan) for pattern in head.patterns} for name, head in heads.COMPARED.items()}
    covered = {pattern: np.full(n, np.nan) for pattern in PATTERNS if pattern != FULL}
    widths: dict[Pattern, list[float]] = {pattern: [] for pattern in covered}
    for train, test in split(cohort, seed):
        fitted = recurrence.fit(cohort, train, seed=seed)
        z = fitted.z(cohort, test)
        for pattern in PATTERNS:
            ours[pattern][test] = fitted.logit(z, pattern)
        for name, head in heads.COMPARED.items():
            for pattern, logit in head.fit(cohort, train, fitted)(cohort, test, z).items():
                others[name][pattern][test] = logit
        for pattern in covered:
            half = fitted.heads[pattern].half_width
            moves = ours[FULL][test] - ours[pattern][test]
            covered[pattern][test] = np.where(np.isnan(moves), np.nan, np.abs(moves) <= half)
            widths[pattern].append(half)
    return _Run(ours, others, covered, {pattern: float(np.mean(found)) for pattern, found in widths.items()})


def split(cohort: Cohort, seed: int) -> list[tuple[Rows, Rows]]:
    """Outer folds, stratified by recurred, free, lost before five years."""
    y = cohort.at_five_years()
    strata = np.where(np.isnan(y), 2.0, y)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return list(folds.split(np.zeros(len(cohort)), strata))


def _mean(runs: list[Floats]) -> Floats:
    return np.asarray(np.mean(runs, axis=0), dtype=np.float64)


def name_of(pattern: Pattern) -> str:
    """`C+E`: the initials in the fixed order of the modalities."""
    return "+".join(modality[0].upper() for modality in MODALITIES if modality in pattern)
