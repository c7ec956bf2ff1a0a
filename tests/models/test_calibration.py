"""Kaplan-Meier, weights and calibration: vectors worked by hand, and scikit-learn where it has the same."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models import calibration as cal

TIME = np.array([1.0, 2.0, 2.0, 3.0, 4.0, 5.0])
EVENT = np.array([True, True, False, False, True, False])


def test_the_survival_curve_is_the_one_worked_by_hand() -> None:
    curve = cal.kaplan_meier(TIME, EVENT)
    # at risk 6, 5, 2: 5/6, 5/6 x 4/5, ... x 1/2; the censored of time 2 is still at risk at time 2
    assert curve.times.tolist() == [1.0, 2.0, 4.0]
    assert curve.values == pytest.approx([5 / 6, 4 / 6, 2 / 6])
    assert curve.at([0.5, 1.0, 3.9, 4.0, 9.0]) == pytest.approx([1, 5 / 6, 4 / 6, 2 / 6, 2 / 6])
    assert curve.before([1.0, 2.0, 4.0]) == pytest.approx([1, 5 / 6, 4 / 6])
    assert curve.log_variance(4.0) == pytest.approx(1 / (6 * 5) + 1 / (5 * 4) + 1 / (2 * 1))


def test_who_had_the_event_is_not_at_risk_of_being_lost_at_that_time() -> None:
    curve = cal.followed(TIME, EVENT)
    # lost at 2 (of 6 - 1 - 1 = 4 at risk), at 3 (of 3), at 5 (of 1)
    assert curve.times.tolist() == [2.0, 3.0, 5.0]
    assert curve.values == pytest.approx([3 / 4, 3 / 4 * 2 / 3, 0.0])


def test_weights_are_those_worked_by_hand_and_sum_to_the_patients() -> None:
    outcome, weights = cal.ipc_weights(TIME, EVENT, 4.0)
    assert outcome.tolist() == [True, True, False, False, True, False]
    # an event counts by G just before it, a survivor by G just before the horizon, the two lost before it not at all
    assert weights == pytest.approx([1, 1, 0, 0, 2, 2])
    assert weights.sum() == pytest.approx(6)
    assert (weights * outcome).sum() / 6 == pytest.approx(1 - cal.kaplan_meier(TIME, EVENT).at(4.0))


def test_a_patient_followed_exactly_to_the_horizon_is_known_to_be_free() -> None:
    outcome, weights = cal.ipc_weights(np.array([1.0, 5.0, 5.0]), np.array([True, False, True]), 5.0)
    assert outcome.tolist() == [True, False, True]
    assert weights.tolist() == [1.0, 1.0, 1.0]


def test_the_weighted_share_of_events_is_that_of_kaplan_and_meier(followed_patients) -> None:
    time, event, _ = followed_patients
    outcome, weights = cal.ipc_weights(time, event, 60.0)
    assert weights.sum() == pytest.approx(len(time))
    assert (weights * outcome).sum() / len(time) == pytest.approx(1 - float(cal.kaplan_meier(time, event).at(60.0)))


def test_the_line_is_the_one_that_scikit_learn_fits(followed_patients) -> None:
    time, event, logit = followed_patients
    outcome, weights = cal.ipc_weights(time, event, 60.0)
    line = cal.fit_line(logit, outcome, weights, slope=True)
    peer = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(logit[:, None], outcome, weights)
    assert line.intercept == pytest.approx(peer.intercept_[0], abs=1e-6)
    assert line.slope == pytest.approx(peer.coef_[0, 0], abs=1e-6)


def test_an_intercept_alone_makes_expected_meet_observed(followed_patients) -> None:
    time, event, logit = followed_patients
    outcome, weights = cal.ipc_weights(time, event, 60.0)
    line = cal.fit_line(logit, outcome, weights, slope=False)
    assert line.slope == 1.0
    assert line.slope_error == 0.0
    assert (weights * cal.sigmoid(logit + line.intercept)).sum() == pytest.approx((weights * outcome).sum())


def test_the_robust_error_without_weights_is_that_of_a_proportion() -> None:
    outcome = np.array([True] * 30 + [False] * 70)
    line = cal.fit_line(np.zeros(100), outcome, np.ones(100), slope=False)
    assert line.intercept == pytest.approx(np.log(0.3 / 0.7))
    assert line.intercept_error == pytest.approx((100 * 0.3 * 0.7) ** -0.5)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """200 cohorts drawn from their own logits with censoring: the truth is intercept 0, slope 1, O/E 1."""
    rng = np.random.Generator(np.random.PCG64(7))
    held = np.zeros(3)
    for _ in range(200):
        found = cal.calibration(*_draw(rng, 600), 60.0)
        for place, (truth, inside) in enumerate(
            [(0.0, found.intercept_interval), (1.0, found.slope_interval), (1.0, found.ratio_interval)]
        ):
            held[place] += inside[0] <= truth <= inside[1]
    assert np.all(held / 200 > 0.90)
    assert np.all(held / 200 < 0.99)


@pytest.mark.parametrize(
    ("logit", "outcome", "why"),
    [
        ([0.0, 1.0, 2.0], [True, True, True], "all outcomes are the same"),
        ([1.0, 1.0, 1.0], [True, False, True], "all logits are the same"),
        ([0.0, 1.0, 2.0, 3.0], [False, False, True, True], "separates"),
    ],
)
def test_data_that_cannot_say_is_refused(logit: list[float], outcome: list[bool], why: str) -> None:
    with pytest.raises(cal.NoFit, match=why):
        cal.fit_line(np.array(logit), np.array(outcome), np.ones(len(logit)), slope=True)


def test_no_events_leave_ratio_and_line_open() -> None:
    found = cal.calibration(np.zeros(5), np.full(5, 70.0), np.zeros(5, dtype=bool), 60.0)
    assert (found.observed, found.ratio, found.events) == (0.0, 0.0, 0)
    assert found.ratio_interval is found.intercept is found.slope is found.slope_interval is None


def _draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logit = rng.normal(-1.0, 1.0, n)
    rate = -np.log1p(-cal.sigmoid(logit)) / 60.0
    happens, lost = rng.exponential(1.0 / rate), rng.exponential(150.0, n)
    return logit, np.minimum(happens, lost), happens <= lost


@pytest.fixture
def followed_patients() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logit, time, event = _draw(np.random.Generator(np.random.PCG64(3)), 500)
    return np.ceil(time), event, 0.7 * logit + 0.4  # whole months: many ties
