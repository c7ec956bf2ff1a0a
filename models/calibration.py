"""Does a risk hold: observed against expected, calibration intercept and slope, with censored follow-up.

Censoring is handled by inverse-probability weights (Graf 1999, Stat Med 18:2529): a patient whose state at the horizon
is known counts for those like him who were lost before. Ties: an event comes before a censoring at the same time. The
weights come from the Kaplan-Meier curve of being followed, so the weighted share of events is that of Kaplan and Meier.
Intercept and slope are those of a logistic regression of the outcome on the stated logit (Cox 1958; Van Calster 2016,
J Clin Epidemiol 74:167); their standard errors are robust ones that take the weights as known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.signedinteger[Any]]

Z95 = 1.959963984540054
"""Half width of a 95 % interval, in standard errors."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A Kaplan-Meier curve: at each of `times` (rising) it falls to `values`; before the first it is 1."""

    times: Array
    values: Array
    greenwood: Array
    """Running sum d / (n (n - d)) of Greenwood's formula: variance of log S."""

    def at(self, moments: npt.ArrayLike) -> Array:
        """S(t)."""
        return self._read(self.values, moments, "right", 1.0)

    def before(self, moments: npt.ArrayLike) -> Array:
        """S(t-): just before t."""
        return self._read(self.values, moments, "left", 1.0)

    def log_variance(self, moment: float) -> float:
        """Greenwood's variance of log S(t)."""
        return float(self._read(self.greenwood, moment, "right", 0.0))

    def _read(self, values: Array, moments: npt.ArrayLike, side: Literal["left", "right"], first: float) -> Array:
        return np.concatenate([[first], values])[np.searchsorted(self.times, moments, side=side)]


def kaplan_meier(time: Array, event: Flags) -> Curve:
    """The curve of staying free of the event. `time` [n] >= 0 in any unit, `event` [n] (False: censored then)."""
    times, at = np.unique(time, return_inverse=True)
    events = np.bincount(at[event], minlength=len(times))
    leaving = np.bincount(at, minlength=len(times))
    risk = leaving[::-1].cumsum()[::-1]
    return _product_limit(times, events, risk)


def followed(time: Array, event: Flags) -> Curve:
    """The curve of being followed (censoring as the event); who has an event at t is no longer at risk of it at t."""
    times, at = np.unique(time, return_inverse=True)
    lost = np.bincount(at[~event], minlength=len(times))
    leaving = np.bincount(at, minlength=len(times))
    risk = leaving[::-1].cumsum()[::-1] - (leaving - lost)
    return _product_limit(times, lost, risk)


def _product_limit(times: Array, events: Counts, risk: Counts) -> Curve:
    some = events > 0
    d, n = events[some].astype(np.float64), risk[some].astype(np.float64)
    with np.errstate(divide="ignore"):
        greenwood = np.asarray(np.cumsum(d / (n * (n - d))), dtype=np.float64)
    alive = np.asarray(np.cumprod(1.0 - d / n), dtype=np.float64)
    return Curve(times[some], alive, greenwood)


def ipc_weights(time: Array, event: Flags, horizon: float, curve: Curve | None = None) -> tuple[Flags, Array]:
    """Outcome at the horizon [n] and weight [n]; weight 0 where it is not known.

    `curve` is the curve of being followed (of the training part, in validation); None: that of these patients.
    The weights sum to n where the curve is that of these patients.
    """
    curve = followed(time, event) if curve is None else curve
    happened = event & (time <= horizon)
    known = happened | (time >= horizon)
    weights = np.zeros(len(time))
    weights[known] = 1.0 / curve.before(np.minimum(time[known], horizon))
    return happened, weights


# ---- a line through outcome and logit --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """logit p = intercept + slope * stated logit, with robust standard errors."""

    intercept: float
    slope: float
    intercept_error: float
    slope_error: float
    """0 where the slope was held at 1."""


class NoFit(ValueError):
    """The data cannot say: one outcome only, one logit only, or outcomes that the logit separates completely."""


def fit_line(logit: Array, outcome: Flags, weights: Array, *, slope: bool) -> Line:
    """Weighted maximum likelihood by Newton's method; without `slope` it is held at 1. Raises: NoFit."""
    used = weights > 0
    x, y, w = logit[used], outcome[used].astype(np.float64), weights[used]
    if not 0 < y.sum() < len(y):
        raise NoFit("all outcomes are the same")
    if slope and np.ptp(x) < 1e-9:
        raise NoFit("all logits are the same")
    design = np.column_stack([np.ones(len(x)), x]) if slope else np.ones((len(x), 1))
    offset = np.zeros(len(x)) if slope else x
    beta = np.array([0.0, 1.0]) if slope else np.zeros(1)
    for _ in range(100):
        p = sigmoid(offset + design @ beta)
        information = design.T @ (design * (w * p * (1.0 - p))[:, None])
        step = _solve(information, design.T @ (w * (y - p)))
        beta = beta + np.clip(step, -2.0, 2.0)
        if not np.all(np.abs(beta) < 50.0):
            break
        if np.max(np.abs(step)) < 1e-11:
            errors = _robust(design, sigmoid(offset + design @ beta), y, w)
            if slope:
                return Line(float(beta[0]), float(beta[1]), float(errors[0]), float(errors[1]))
            return Line(float(beta[0]), 1.0, float(errors[0]), 0.0)
    raise NoFit("the fit does not settle: the logit separates the outcomes completely, or nearly so")


def _solve(matrix: Array, vector: Array) -> Array:
    try:
        return np.asarray(np.linalg.solve(matrix, vector), dtype=np.float64)
    except np.linalg.LinAlgError:
        raise NoFit("the fit does not settle: the logit separates the outcomes completely, or nearly so") from None


def _robust(design: Array, p: Array, y: Array, w: Array) -> Array:
    """Standard errors by the sandwich."""
    bread = np.linalg.inv(design.T @ (design * (w * p * (1.0 - p))[:, None]))
    scores = design * (w * (y - p))[:, None]
    covariance: Array = bread @ (scores.T @ scores) @ bread
    return np.sqrt(np.diag(covariance))


def sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def logit_of(p: Array) -> Array:
    return np.log(p) - np.log1p(-p)


# ---- the whole picture -----------------------------------------------------------------------------------------------

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Observed against expected at the horizon, and the line; `None` where the data cannot say."""

    n: int
    events: int
    """Seen by the horizon."""
    censored: int
    """Lost before the horizon."""
    observed: float
    """1 - Kaplan-Meier at the horizon."""
    expected: float
    """Mean stated risk."""
    ratio: float
    ratio_interval: Interval | None
    """95 %, by Greenwood's variance on the log scale; the stated risks are taken as they are."""
    intercept: float | None
    """Calibration in the large: with the slope held at 1; 0 is right."""
    intercept_interval: Interval | None
    slope: float | None
    slope_interval: Interval | None


def calibration(logit: Array, time: Array, event: Flags, horizon: float) -> Calibration:
    """`logit` [n] as stated, `time` [n] and `horizon` in the same unit, `event` [n]."""
    outcome, weights = ipc_weights(time, event, horizon)
    curve = kaplan_meier(time, event)
    observed = 1.0 - float(curve.at(horizon))
    expected = float(sigmoid(logit).mean())
    ratio = observed / expected
    spread = None
    if 0.0 < observed < 1.0:
        error = (1.0 - observed) * math.sqrt(curve.log_variance(horizon)) / observed
        spread = (ratio * math.exp(-Z95 * error), ratio * math.exp(Z95 * error))
    large = _line(logit, outcome, weights, slope=False)
    line = _line(logit, outcome, weights, slope=True)
    return Calibration(
        n=len(time),
        events=int(outcome.sum()),
        censored=int((weights == 0).sum()),
        observed=observed,
        expected=expected,
        ratio=ratio,
        ratio_interval=spread,
        intercept=None if large is None else large.intercept,
        intercept_interval=None if large is None else _around(large.intercept, large.intercept_error),
        slope=None if line is None else line.slope,
        slope_interval=None if line is None else _around(line.slope, line.slope_error),
    )


def _line(logit: Array, outcome: Flags, weights: Array, *, slope: bool) -> Line | None:
    try:
        return fit_line(logit, outcome, weights, slope=slope)
    except NoFit:
        return None


def _around(value: float, error: float) -> Interval:
    return value - Z95 * error, value + Z95 * error
