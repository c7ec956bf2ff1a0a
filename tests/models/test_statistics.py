"""The report's statistics against vectors worked by hand, and against scikit-learn where it has the same."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from models.training import statistics as st

SCORE = np.array([0.1, 0.4, 0.4, 0.8])
OUTCOME = np.array([False, True, False, True])
ONES = np.ones(4)


def test_the_roc_area_counts_ties_one_half() -> None:
    # pairs (case, control): (.4, .1) 1, (.4, .4) 1/2, (.8, .1) 1, (.8, .4) 1
    assert st.auroc(SCORE, OUTCOME, ONES) == 3.5 / 4


def test_the_weighted_roc_area_is_that_of_scikit_learn() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    score, outcome, weights = rng.normal(size=400).round(1), rng.random(400) < 0.3, rng.random(400) * 3
    expected = roc_auc_score(outcome, score, sample_weight=weights)
    assert st.auroc(score, outcome, weights) == pytest.approx(expected, abs=1e-12)
    assert st.brier(st.sigmoid(score), outcome, weights) == pytest.approx(
        brier_score_loss(outcome, st.sigmoid(score), sample_weight=weights)
    )


def test_harrells_c_is_the_one_worked_by_hand() -> None:
    time = np.array([1.0, 2.0, 2.0, 3.0])
    event = np.array([True, True, False, True])
    score = np.array([0.9, 0.2, 0.2, 0.5])
    # pairs: 1-2, 1-3, 1-4 (all right), 2-3 (same time, one event; tie 1/2), 2-4 (wrong); 3 is lost, 4 has nobody after
    assert st.harrell(score, time, event) == 3.5 / 5


def test_a_count_weighs_like_a_copy_of_the_patient() -> None:
    rng = np.random.Generator(np.random.PCG64(2))
    n = 700  # more than one slab
    score, time, event = rng.normal(size=n).round(1), rng.integers(1, 90, n).astype(float), rng.random(n) < 0.4
    outcome, weights = st.ipc_weights(time, event, 60.0)
    counts = st.resamples(n, 3, seed=5)
    assert counts.sum(axis=1).tolist() == [n] * 3
    copies = np.repeat(np.arange(n), counts[1].astype(int))
    assert st.harrell_resampled(score, time, event, counts)[1] == st.harrell(score[copies], time[copies], event[copies])
    assert st.auroc_resampled(score, outcome, weights, counts)[1] == pytest.approx(
        st.auroc(score[copies], outcome[copies], weights[copies])
    )
    p = st.sigmoid(score)
    assert st.brier_resampled(p, outcome, weights, counts)[1] == pytest.approx(
        st.brier(p[copies], outcome[copies], weights[copies])
    )
    assert st.slope_resampled(score, outcome, weights, counts)[1] == pytest.approx(
        st.fit_line(score[copies], outcome[copies], weights[copies], slope=True).slope
    )
    assert st.ratio_resampled(p, outcome, weights, counts)[1] == pytest.approx(
        (weights * outcome)[copies].sum() / weights[copies].sum() / p[copies].mean()
    )


def test_resamples_are_the_same_again() -> None:
    assert np.array_equal(st.resamples(50, 4, seed=9), st.resamples(50, 4, seed=9))
    assert not np.array_equal(st.resamples(50, 4, seed=9), st.resamples(50, 4, seed=10))


def test_net_benefit_is_the_one_worked_by_hand() -> None:
    p = np.array([0.1, 0.3, 0.6, 0.8])
    # at 0.5: hits {4}, misses {3}: 1/4 - 1/4 x 1; at 0.2: hits {2, 4}, misses {3}: 2/4 - 1/4 x 1/4
    assert st.net_benefit(p, OUTCOME, ONES, [0.5, 0.2]) == pytest.approx([0.0, 0.5 - 0.0625])
    assert st.treat_all(OUTCOME, ONES, [0.5, 0.2]) == pytest.approx([0.0, 0.5 - 0.125])


def test_the_half_width_is_a_stated_rank_and_covers_as_stated() -> None:
    moves = np.array([-0.9, 0.1, 0.2, -0.3, 0.4, 0.5, 0.6, -0.7, 0.8])
    assert st.half_width(moves) == 0.9  # ceil(10 x 0.9) = 9th of 9
    assert st.half_width(moves, level=0.5) == 0.5
    assert st.coverage(moves, 0.5) == 5 / 9
    with pytest.raises(ValueError, match="too few"):
        st.half_width(moves[:5])


def test_risk_groups_read_off_what_was_observed() -> None:
    p = np.array([0.1] * 10 + [0.6] * 10)
    time = np.full(20, 70.0)
    time[[0, 10, 11, 12, 13, 14, 15]] = 12.0
    groups = st.risk_groups(p, time, time < 60, 60.0, groups=2)
    assert [(n, round(stated, 9), round(seen, 9)) for n, stated, seen, _ in groups] == [(10, 0.1, 0.1), (10, 0.6, 0.6)]
    low, high = groups[1][3]
    assert 0.0 < low < 0.6 < high < 1.0
