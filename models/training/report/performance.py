"""One score on some patients: figures with patient-bootstrap intervals, and differences on the same patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.training import statistics as st
from models.training.statistics import Array, Flags

RESAMPLES, SEED = 1000, 20261121
THRESHOLDS = np.arange(0.05, 0.605, 0.01)
Figure = dict[str, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """Patients who are judged together, with their weights at the horizon and their resamples."""

    time: Array
    event: Flags
    horizon: float
    outcome: Flags
    weights: Array
    counts: Array

    def __len__(self) -> int:
        return len(self.time)


def sample(time: Array, event: Flags, horizon: float, times: int = RESAMPLES) -> Sample:
    outcome, weights = st.ipc_weights(time, event, horizon)
    return Sample(time, event, horizon, outcome, weights, st.resamples(len(time), times, SEED))


def performance(logit: Array, among: Sample) -> dict[str, Any]:
    """Discrimination, Brier score and calibration of one score."""
    s, p = among, st.sigmoid(logit)
    line = st.calibration(logit, s.time, s.event, s.horizon)
    return {
        "n": len(s),
        "events": int(s.outcome.sum()),
        "auroc": _figure(st.auroc(logit, s.outcome, s.weights), _aurocs(logit, s)),
        "c": _figure(st.harrell(logit, s.time, s.event), _cs(logit, s)),
        "brier": _figure(st.brier(p, s.outcome, s.weights), st.brier_resampled(p, s.outcome, s.weights, s.counts)),
        "slope": _figure(line.slope, st.slope_resampled(logit, s.outcome, s.weights, s.counts)),
        "ratio": _figure(line.ratio, st.ratio_resampled(p, s.outcome, s.weights, s.counts)),
    }


def discrimination(score: Array, among: Sample) -> dict[str, Any]:
    """For a score that is no risk (an index): no calibration."""
    return {
        "n": len(among),
        "events": int(among.outcome.sum()),
        "auroc": _figure(st.auroc(score, among.outcome, among.weights), _aurocs(score, among)),
        "c": _figure(st.harrell(score, among.time, among.event), _cs(score, among)),
    }


def difference(better: Array, worse: Array, among: Sample) -> dict[str, Any]:
    """Paired: the same patients, the same resamples."""
    s = among
    return {
        "n": len(s),
        "auroc": _figure(
            st.auroc(better, s.outcome, s.weights) - st.auroc(worse, s.outcome, s.weights),
            _aurocs(better, s) - _aurocs(worse, s),
        ),
        "c": _figure(
            st.harrell(better, s.time, s.event) - st.harrell(worse, s.time, s.event), _cs(better, s) - _cs(worse, s)
        ),
    }


def calibration_points(logit: Array, among: Sample) -> list[dict[str, float]]:
    """Ten groups of like risk: stated against observed."""
    groups = st.risk_groups(st.sigmoid(logit), among.time, among.event, among.horizon)
    return [
        {"n": n, "stated": rounded(stated), "observed": rounded(seen), "low": rounded(low), "high": rounded(high)}
        for n, stated, seen, (low, high) in groups
    ]


def decision_curve(logits: dict[str, Array], among: Sample) -> dict[str, list[float]]:
    """Net benefit by threshold for each score, and for treating everybody (nobody: 0)."""
    curves = {
        name: st.net_benefit(st.sigmoid(logit), among.outcome, among.weights, THRESHOLDS)
        for name, logit in logits.items()
    }
    curves["all"] = st.treat_all(among.outcome, among.weights, THRESHOLDS)
    found = {name: [rounded(value) for value in curve] for name, curve in curves.items()}
    return {"threshold": [rounded(value) for value in THRESHOLDS], **found}


def share(inside: Array, counts: Array) -> Figure | None:
    """A proportion of patients."""
    return _figure(float(inside.mean()), counts @ inside / counts.sum(axis=1))


def _aurocs(score: Array, s: Sample) -> Array:
    return st.auroc_resampled(score, s.outcome, s.weights, s.counts)


def _cs(score: Array, s: Sample) -> Array:
    return st.harrell_resampled(score, s.time, s.event, s.counts)


def _figure(value: float | None, resampled: Array) -> Figure | None:
    """None where the patients cannot say (a slope where the score separates them completely)."""
    told = resampled[np.isfinite(resampled)]
    if value is None or not len(told):
        return None
    low, high = st.interval(told)
    return {"value": rounded(value), "low": rounded(low), "high": rounded(high)}


def rounded(value: float) -> float:
    """Four decimals: more than any interval here bears."""
    return round(float(value), 4) + 0.0
