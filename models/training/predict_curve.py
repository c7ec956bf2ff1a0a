"""PREDICT Breast v3.2 after surgery alone, in numpy, over a cohort: what the recalibration is fitted on.

The same equation as `predict_breast.build`, written a second time without a graph; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models.training.metabric import Cohort, Floats
from models.training.predict_breast import (
    GRADE_UNKNOWN,
    HER2_BY_YEAR,
    OFFSET,
    OFFSET_OTHER,
    PR,
    SCREEN_UNKNOWN,
    YEARS,
    baselines,
    coefficients,
)

AGES = (25.0, 85.0)
"""Completed years at diagnosis that the equation holds for."""


def breast_mortality(cohort: Cohort, year: float) -> Floats:
    """[n, 15], as a share: dead of breast cancer by year 1 to 15, surgery alone, other causes competing.

    NaN where age, size, nodes or ER is not there or the age is outside `AGES`: the encoder is silent there, too.
    Unknown grade, HER2, PR take what the equation prescribes; smoking, Ki-67 and screening are unknown in the cohort.
    """
    k, hazards = coefficients(), baselines(coefficients())
    years = np.floor(cohort.age)
    usable = (years >= AGES[0]) & (years <= AGES[1]) & ~np.isnan(cohort.size + cohort.nodes + cohort.er)
    a = (np.where(usable, years, 50.0) - 24.0) / 100.0
    size = np.where(usable, cohort.size, 20.0)
    grade = np.where(np.isnan(cohort.grade), GRADE_UNKNOWN, cohort.grade)
    nodes = np.log(np.where(usable, cohort.nodes, 0.0) + 1.0)

    def index(er: int, own: list[tuple[str, Floats]]) -> Floats:
        total = OFFSET[er] + k[f"nd1_er{er}"] * nodes + k[f"gr1_er{er}"] * grade
        total = total + k[f"sc1_er{er}"] * SCREEN_UNKNOWN + k[f"yr1_er{er}"] * (year - 2000.0)
        for name, value in own:
            total = total + k[f"{name}_er{er}"] * value
        return np.asarray(total)

    positive = index(1, [("ag1", a**-0.5), ("ag2", a * a), ("sz1", 1.0 - np.exp(-size / 20.0))])
    negative = index(0, [("ag1", a), ("ag2", a * np.log(a)), ("sz1", np.log(size))])
    er = cohort.er == 1.0
    breast = np.where(er, positive, negative)[:, None]
    breast = breast + _receptor(cohort, cohort.her2, HER2_BY_YEAR)
    breast = breast + _receptor(cohort, cohort.pr, {key: (value,) * YEARS for key, value in PR.items()})
    yearly = np.where(er[:, None], np.diff([0.0, *hazards["er1"]]), np.diff([0.0, *hazards["er0"]]))
    alive_breast = np.exp(-np.cumsum(yearly * np.exp(breast), axis=1))

    cubed = a**3
    other = k["ag_ot_ea.beta.1"] * cubed + k["ag_ot_ea.beta.2"] * cubed * np.log(a)
    other = other + k["yr_ot_ea.beta"] * (year - 2000.0) + OFFSET_OTHER
    alive_other = np.exp(-np.exp(other)[:, None] * np.array(hazards["other"])[None, :])
    die_breast, die_other, die = map(_deaths, (alive_breast, alive_other, alive_breast * alive_other))
    cumulative = np.cumsum(die * die_breast / (die_breast + die_other), axis=1)
    return np.where(usable[:, None], cumulative, np.nan)


def _receptor(cohort: Cohort, marker: Floats, table: Mapping[tuple[int, int], tuple[float, ...]]) -> Floats:
    effect = np.zeros((len(cohort), YEARS))
    for (er, answer), by_year in table.items():
        effect[(cohort.er == er) & (marker == answer)] = by_year
    return effect


def _deaths(alive: Floats) -> Floats:
    return np.asarray(-np.diff(np.concatenate([np.ones((len(alive), 1)), alive], axis=1), axis=1))
