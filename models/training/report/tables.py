"""The report's tables, from held-out logits. Each is plain JSON; the page shows them and adds nothing."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from models.training import predict_curve, recurrence
from models.training import statistics as st
from models.training.metabric import HORIZON, Cohort, Floats
from models.training.recurrence import CLINICAL, EXPRESSION, FULL, MUTATION, PATTERNS, SEED
from models.training.regression import logit
from models.training.report.folds import FOLDS, REPEATS, HeldOut, Pattern, name_of
from models.training.report.performance import (
    RESAMPLES,
    Sample,
    calibration_points,
    decision_curve,
    difference,
    discrimination,
    performance,
    rounded,
    sample,
    share,
)
from models.training.statistics import Flags

C, E, M = (frozenset({name}) for name in (CLINICAL, EXPRESSION, MUTATION))
AUROC_GOAL, SLOPE_GOAL, COVERAGE_GOAL = 0.705, (0.95, 1.05), (0.87, 0.93)


def described(cohort: Cohort) -> dict[str, Any]:
    y = cohort.at_five_years()
    free = ~cohort.recurred
    return {
        "name": "METABRIC: sequenced, stage below IV, time to recurrence known",
        "n": len(cohort),
        "events": int(np.nansum(y)),
        "censored_before_horizon": int(np.isnan(y).sum()),
        "horizon_months": HORIZON,
        "median_follow_up_months": round(float(np.median(cohort.months[free])), 1),
        "genes_sequenced": len(cohort.genes),
    }


def method() -> dict[str, Any]:
    libraries = ("numpy", "scikit-learn", "scipy")
    return {
        "repeats": REPEATS,
        "folds": FOLDS,
        "inner_folds": recurrence.FOLDS,
        "resamples": RESAMPLES,
        "seed": SEED,
        "libraries": {name: version(name) for name in libraries},
    }


def patterns(cohort: Cohort, found: HeldOut) -> list[dict[str, Any]]:
    """Each pattern on all who have its modalities; `slope_of_repeats`: mean over single repeats, not averaged ones."""
    rows = []
    for pattern in PATTERNS:
        logits = found.patterns[pattern]
        known = np.isfinite(logits)
        row = performance(logits[known], _among(cohort, known))
        mean = float(np.mean(found.slopes[pattern]))
        rows.append({"available": name_of(pattern), **row, "slope_of_repeats": rounded(mean)})
    return rows


def references(cohort: Cohort) -> list[dict[str, Any]]:
    """Scores that were fitted elsewhere, on whoever has them; the prevalence alone is the null model."""
    predict = logit(predict_curve.breast_mortality(cohort, recurrence.YEAR)[:, 4])
    rows = []
    for name, score in (("PREDICT v3.2, surgery alone", predict), ("NPI, recomputed", cohort.npi)):
        known = np.isfinite(score)
        rows.append({"score": name, **discrimination(score[known], _among(cohort, known))})
    everybody = _among(cohort, np.ones(len(cohort), dtype=bool))
    prevalence = 1.0 - float(st.kaplan_meier(cohort.months, cohort.recurred).at(HORIZON))
    null = st.brier(np.full(len(cohort), prevalence), everybody.outcome, everybody.weights)
    return [*rows, {"score": "prevalence alone", "n": len(cohort), "risk": rounded(prevalence), "brier": rounded(null)}]


def gains(cohort: Cohort, found: HeldOut) -> list[dict[str, Any]]:
    """Paired differences on whoever has all modalities."""
    among, ours = _complete(cohort, found)
    pairs = ((FULL, C), (C | E, C), (C | M, C), (FULL, C | E), (E | M, E))
    rows = [
        {"better": name_of(one), "worse": name_of(other), **difference(ours[one], ours[other], among)}
        for one, other in pairs
    ]
    known = np.isfinite(found.patterns[FULL])
    early = found.others["early fusion"][FULL][known]
    return [*rows, {"better": "C+E+M, late", "worse": "C+E+M, early", **difference(ours[FULL], early, among)}]


def heads(cohort: Cohort, found: HeldOut) -> list[dict[str, Any]]:
    """Our head and the others, by pattern, on whoever has all modalities."""
    among, ours = _complete(cohort, found)
    known = np.isfinite(found.patterns[FULL])
    rows = [{"head": "pattern stacking", "available": name_of(p), **performance(ours[p], among)} for p in PATTERNS]
    for name, logits in found.others.items():
        for pattern, held in logits.items():
            rows.append({"head": name, "available": name_of(pattern), **performance(held[known], among)})
    return rows


def calibration(cohort: Cohort, found: HeldOut) -> list[dict[str, Any]]:
    rows = []
    for pattern in (C, C | E, C | M, FULL, E | M):
        known = np.isfinite(found.patterns[pattern])
        points = calibration_points(found.patterns[pattern][known], _among(cohort, known))
        rows.append({"available": name_of(pattern), "points": points})
    return rows


def decision(cohort: Cohort, found: HeldOut) -> dict[str, list[float]]:
    among, ours = _complete(cohort, found)
    return decision_curve({name_of(pattern): ours[pattern] for pattern in (FULL, C, E | M)}, among)


def moves(cohort: Cohort, found: HeldOut) -> list[dict[str, Any]]:
    """Half width of the range if missing results arrive, and how often held-out answers stayed within it."""
    known = np.isfinite(found.patterns[FULL])
    counts = st.resamples(int(known.sum()), RESAMPLES, SEED)
    return [
        {
            "available": name_of(pattern),
            "half_width": rounded(found.widths[pattern]),
            "coverage": share(found.covered[pattern][known], counts),
        }
        for pattern in found.covered
    ]


def naturally_missing(cohort: Cohort, found: HeldOut) -> dict[str, Any]:
    """Everywhere else modalities are hidden from patients who have them; here the clinical one was never complete."""
    missing = np.isnan(found.patterns[C]) & np.isfinite(found.patterns[E | M])
    return {"available": name_of(E | M), **performance(found.patterns[E | M][missing], _among(cohort, missing))}


def goals(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures to reach, each with what was found. An interval falls short where it excludes the goal's range."""
    by_name = {row["available"]: row for row in report["patterns"]}
    fused, gain = by_name["C+E+M"]["auroc"], report["gains"][0]["auroc"]
    found = [
        _goal(f"fused AUROC at 5 years at least {AUROC_GOAL}", fused, fused["value"] >= AUROC_GOAL),
        _goal("gain of all over the clinical modality alone, whatever it is", gain, True),
    ]
    for name, row in by_name.items():
        if "C" in name.split("+"):
            low, high = SLOPE_GOAL
            found.append(_goal(f"calibration slope near 1 with {name}", row["slope"], _meets(row["slope"], low, high)))
    for row in report["moves"]:
        low, high = COVERAGE_GOAL
        met = _meets(row["coverage"], low, high)
        found.append(_goal(f"coverage near 0.9 of the range with {row['available']}", row["coverage"], met))
    worst = report["agreement"]["largest_difference"]
    return [
        *found,
        {"goal": "ONNX against training within 1e-6", "found": f"{worst:.0e} at most", "reached": worst <= 1e-6},
    ]


def _goal(text: str, figure: dict[str, float], reached: bool) -> dict[str, Any]:
    spread = f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
    return {"goal": text, "found": spread, "reached": bool(reached)}


def _meets(figure: dict[str, float], low: float, high: float) -> bool:
    return figure["low"] <= high and figure["high"] >= low


def _complete(cohort: Cohort, found: HeldOut) -> tuple[Sample, dict[Pattern, Floats]]:
    known = np.isfinite(found.patterns[FULL])
    return _among(cohort, known), {pattern: held[known] for pattern, held in found.patterns.items()}


def _among(cohort: Cohort, members: Flags) -> Sample:
    return sample(cohort.months[members], cohort.recurred[members], HORIZON)
