"""Logistic regressions with weights, solved to the last digits, so that eight of them are the same on any machine.

The two base models are scikit-learn's (L2, Newton with an exact Hessian). The head's has bounds and no penalty: with at
most a handful of modalities every set of weights that may stand at zero is tried, which finds the one minimum of a
convex problem (the Kuhn-Tucker point) without a tolerance.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

from models.errors import BadInput

Floats = npt.NDArray[np.float64]
DIGITS = 8


def rounded(value: float) -> float:
    """Eight significant digits: what is shipped."""
    return float(f"{value:.{DIGITS}g}")


def sigmoid(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def logit(p: Floats) -> Floats:
    return np.asarray(np.log(p / (1.0 - p)))


def ridge(x: Floats, y: Floats, weight: Floats, strength: float) -> tuple[float, Floats]:
    """Intercept and coefficients of an L2 logistic regression; `strength` is scikit-learn's C."""
    model = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10, max_iter=500)
    model.fit(x, y, sample_weight=weight)
    return float(model.intercept_[0]), np.asarray(model.coef_[0], dtype=np.float64)


def newton(x: Floats, y: Floats, weight: Floats) -> Floats:
    """Coefficients (the first column of `x` is the constant) of the plain weighted logistic regression.

    Raises: BadInput where there is none (too few patients, or they are separated).
    """
    beta = np.zeros(x.shape[1])
    for _ in range(100):
        p = sigmoid(x @ beta)
        gradient = x.T @ (weight * (y - p))
        hessian = (x * (weight * p * (1.0 - p))[:, None]).T @ x
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            break
        size = float(np.max(np.abs(step)))
        beta = beta + step * min(1.0, 4.0 / size if size > 0 else 1.0)
        if size < 1e-12:
            return np.asarray(beta)
    raise BadInput("the regression has no solution: too few patients, or they are separated")


def nonnegative(x: Floats, y: Floats, weight: Floats) -> Floats:
    """As `newton`, with every coefficient but the constant at least zero."""
    names = range(1, x.shape[1])
    whole = _with(x, y, weight, tuple(names))
    if whole is not None:
        return whole[1]
    fewer = [kept for size in range(len(names)) for kept in itertools.combinations(names, size)]
    found = [fitted for kept in fewer if (fitted := _with(x, y, weight, kept)) is not None]  # the constant alone fits
    return min(found, key=lambda fitted: fitted[0])[1]


def _with(x: Floats, y: Floats, weight: Floats, kept: Sequence[int]) -> tuple[float, Floats] | None:
    columns = [0, *kept]
    part = newton(x[:, columns], y, weight)
    if (part[1:] < 0).any():
        return None
    beta = np.zeros(x.shape[1])
    beta[columns] = part
    return loss(x @ beta, y, weight), beta


def loss(logits: Floats, y: Floats, weight: Floats) -> float:
    """Weighted negative log likelihood."""
    return float(np.sum(weight * (np.logaddexp(0.0, logits) - y * logits)))
