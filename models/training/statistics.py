"""The figures of the validation report: discrimination, Brier score, decision curves, coverage, patient bootstrap.

`outcome` and `weights` are those of `models.calibration.ipc_weights`. A bootstrap resample is a row of counts, how
often each patient was drawn, so that a statistic over all resamples is a few matrix products: `counts` [B, n] below.
A count weighs like a copy of the patient; the weights of censoring are not estimated again in a resample.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.calibration import (
    Array,
    Calibration,
    Curve,
    Flags,
    Interval,
    Line,
    NoFit,
    calibration,
    fit_line,
    followed,
    ipc_weights,
    kaplan_meier,
    logit_of,
    sigmoid,
)

__all__ = [
    "Array", "Calibration", "Curve", "Flags", "Interval", "Line", "NoFit", "auroc", "auroc_resampled", "brier",
    "brier_resampled", "calibration", "coverage", "fit_line", "followed", "half_width", "harrell", "harrell_resampled",
    "interval", "ipc_weights", "kaplan_meier", "logit_of", "net_benefit", "ratio_resampled", "resamples", "risk_groups",
    "sigmoid", "slope_resampled", "treat_all",
]  # fmt: skip


def resamples(n: int, times: int, seed: int) -> Array:
    """`times` bootstrap resamples of n patients as counts [times, n]."""
    draws = np.random.Generator(np.random.PCG64(seed)).integers(n, size=(times, n))
    return np.stack([np.bincount(row, minlength=n) for row in draws]).astype(np.float64)


def interval(values: Array, level: float = 0.95) -> Interval:
    """The percentile interval of a bootstrap."""
    low, high = np.quantile(values, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


# ---- discrimination --------------------------------------------------------------------------------------------------


def auroc(score: Array, outcome: Flags, weights: Array) -> float:
    """Weighted area under the ROC curve: P(score of a case > score of a control), ties count one half."""
    return float(auroc_resampled(score, outcome, weights, np.ones((1, len(score))))[0])


def auroc_resampled(score: Array, outcome: Flags, weights: Array, counts: Array) -> Array:
    """The same for each resample [B]."""
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] > ranked[:-1]]))
    weighted = counts[:, order] * weights[order]
    cases = np.add.reduceat(weighted * outcome[order], starts, axis=1)
    controls = np.add.reduceat(weighted * ~outcome[order], starts, axis=1)
    below = np.cumsum(controls, axis=1) - 0.5 * controls
    return np.asarray((cases * below).sum(axis=1) / (cases.sum(axis=1) * controls.sum(axis=1)))


def harrell(score: Array, time: Array, event: Flags) -> float:
    """Harrell's C over all follow-up (Harrell 1996, Stat Med 15:361); ties in the score count one half.

    Two patients can be compared where the one with the shorter time had the event; at equal times, where only one had.
    """
    return float(harrell_resampled(score, time, event, np.ones((1, len(score))))[0])


def harrell_resampled(score: Array, time: Array, event: Flags, counts: Array) -> Array:
    """The same for each resample [B]: counts' K counts, where K [n, n] marks the pairs. All sums are exact."""
    comparable = np.zeros(len(counts))
    concordant = np.zeros(len(counts))
    for first in range(0, len(score), 512):  # a slab of rows at a time: 1,966 patients would take 31 MB a matrix
        rows = slice(first, first + 512)
        shorter = time[rows, None] < time[None, :]
        tied = (time[rows, None] == time[None, :]) & ~event[None, :]
        pairs = event[rows, None] & (shorter | tied)
        higher = (score[rows, None] > score[None, :]) + 0.5 * (score[rows, None] == score[None, :])
        comparable += ((counts @ pairs.T.astype(np.float64)) * counts[:, rows]).sum(axis=1)
        concordant += ((counts @ (pairs * higher).T) * counts[:, rows]).sum(axis=1)
    return concordant / comparable


# ---- calibration -----------------------------------------------------------------------------------------------------


def brier(p: Array, outcome: Flags, weights: Array) -> float:
    """Weighted mean squared error of the risk at the horizon (Graf 1999)."""
    return float(brier_resampled(p, outcome, weights, np.ones((1, len(p))))[0])


def brier_resampled(p: Array, outcome: Flags, weights: Array, counts: Array) -> Array:
    return np.asarray(counts @ (weights * (outcome - p) ** 2) / (counts @ weights))


def ratio_resampled(p: Array, outcome: Flags, weights: Array, counts: Array) -> Array:
    """Observed (weighted share) over expected (mean risk of all) for each resample [B]."""
    observed = counts @ (weights * outcome) / (counts @ weights)
    return np.asarray(observed / (counts @ p / counts.sum(axis=1)))


def slope_resampled(logit: Array, outcome: Flags, weights: Array, counts: Array) -> Array:
    """Calibration slope for each resample [B]; NaN where a resample cannot say."""
    return np.array([_slope(logit, outcome, weights * row) for row in counts])


def _slope(logit: Array, outcome: Flags, weights: Array) -> float:
    try:
        return fit_line(logit, outcome, weights, slope=True).slope
    except NoFit:
        return math.nan


def risk_groups(
    p: Array, time: Array, event: Flags, horizon: float, groups: int = 10
) -> list[tuple[int, float, float, Interval]]:
    """For a calibration plot: n, mean stated risk, observed risk (1 - Kaplan-Meier) with 95 % interval, by quantile.

    The interval is that of log(-log S) by Greenwood's variance; a group without events, or where all had one, has the
    interval of its own point.
    """
    edges = np.quantile(p, np.linspace(0.0, 1.0, groups + 1)[1:-1])
    group = np.searchsorted(edges, p, side="right")
    found = []
    for number in range(groups):
        members = group == number
        if members.any():
            curve = kaplan_meier(time[members], event[members])
            alive = float(curve.at(horizon))
            found.append((int(members.sum()), float(p[members].mean()), 1.0 - alive, _log_log(curve, horizon, alive)))
    return found


def _log_log(curve: Curve, horizon: float, alive: float) -> Interval:
    if not 0.0 < alive < 1.0:
        return 1.0 - alive, 1.0 - alive
    error = 1.959963984540054 * math.sqrt(curve.log_variance(horizon)) / abs(math.log(alive))
    return 1.0 - alive ** math.exp(-error), 1.0 - alive ** math.exp(error)


# ---- use -------------------------------------------------------------------------------------------------------------


def net_benefit(p: Array, outcome: Flags, weights: Array, thresholds: npt.ArrayLike) -> Array:
    """Net benefit at each threshold: true positives less false positives at the odds of the threshold, per patient.

    Vickers and Elkin 2006, Med Decis Making 26:565; a patient is treated where p >= threshold.
    """
    odds = _odds(thresholds)
    treated = p[None, :] >= np.asarray(thresholds, dtype=np.float64)[:, None]
    total = weights.sum()
    hits = treated @ (weights * outcome) / total
    misses = treated @ (weights * ~outcome) / total
    return np.asarray(hits - misses * odds)


def treat_all(outcome: Flags, weights: Array, thresholds: npt.ArrayLike) -> Array:
    """Net benefit of treating everybody."""
    share = float((weights * outcome).sum() / weights.sum())
    return np.asarray(share - (1.0 - share) * _odds(thresholds))


def _odds(thresholds: npt.ArrayLike) -> Array:
    at = np.asarray(thresholds, dtype=np.float64)
    return at / (1.0 - at)


# ---- how far an answer may still move --------------------------------------------------------------------------------


def half_width(moves: Array, level: float = 0.9) -> float:
    """Conformal half width: the ceil((n + 1) level)-th smallest |move| (Vovk 2005; Lei 2018, JASA 113:1094).

    Raises: ValueError where there are too few moves for the level.
    """
    rank = math.ceil((len(moves) + 1) * level)
    if not 0 < rank <= len(moves):
        raise ValueError("too few moves for this level")
    return float(np.sort(np.abs(moves))[rank - 1])


def coverage(moves: Array, half: float) -> float:
    """Share of moves that stay within the half width."""
    return float((np.abs(moves) <= half).mean())
