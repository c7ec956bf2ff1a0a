"""Leave one site out: each of METABRIC's five sites judged by a model that never saw it; and subgroups."""

from __future__ import annotations

from typing import Any

import numpy as np

from models import outcomes, recalibration
from models.training import recurrence
from models.training.metabric import HORIZON, SITES, Cohort, Floats, Rows
from models.training.recurrence import CLINICAL, FULL
from models.training.report.performance import difference, discrimination, performance, rounded, sample
from models.training.statistics import Flags, Interval

FEWEST_EVENTS = 10
"""Subgroups with fewer are listed without figures."""


def leave_one_out(cohort: Cohort) -> list[dict[str, Any]]:
    """By site: all modalities, the clinical one alone, and the difference, on whoever has all of them."""
    site = np.array(cohort.site)
    found = []
    for name in SITES:
        train, test = np.flatnonzero(site != name), np.flatnonzero(site == name)
        fitted = recurrence.fit(cohort, train)
        z = fitted.z(cohort, test)
        fused, alone = fitted.logit(z, FULL), fitted.logit(z, frozenset({CLINICAL}))
        known = np.isfinite(fused)
        among = sample(cohort.months[test][known], cohort.recurred[test][known], HORIZON)
        found.append(
            {
                "site": name,
                "fused": performance(fused[known], among),
                "clinical": discrimination(alone[known], among),
                "gain": difference(fused[known], alone[known], among),
                "recalibrated": _recalibrated(cohort, test[known], fused[known]),
            }
        )
    return found


def _recalibrated(cohort: Cohort, rows: Rows, logit: Floats) -> dict[str, Any]:
    """What `cds models recalibrate` would do for that site, from the site's own outcomes file; *after* is held out."""
    lines = [
        f"{cohort.ids[row]},{stated!r},{float(cohort.months[row])!r},{int(cohort.recurred[row])}"
        for row, stated in zip(rows.tolist(), logit.tolist(), strict=True)
    ]
    file = "\n".join(["id,logit,time,event", *lines]).encode()
    found = recalibration.recalibrate(outcomes.read(file, ""), HORIZON)
    return {
        "fitted": found.fitted,
        "intercept": rounded(found.intercept),
        "slope": rounded(found.slope),
        "after": {
            "ratio": _figure(found.after.ratio, found.after.ratio_interval),
            "slope": _figure(found.after.slope, found.after.slope_interval),
        },
    }


def _figure(value: float | None, interval: Interval | None) -> dict[str, float] | None:
    if value is None or interval is None:
        return None
    return {"value": rounded(value), "low": rounded(interval[0]), "high": rounded(interval[1])}


def subgroups(cohort: Cohort, logit: Floats) -> list[dict[str, Any]]:
    """The fused score, held out, in groups of patients; weights and resamples are the group's own."""
    found = []
    for title, groups in _groups(cohort).items():
        for name, members in groups.items():
            chosen = members & np.isfinite(logit)
            if not chosen.any():
                continue
            seen = int((chosen & cohort.recurred & (cohort.months <= HORIZON)).sum())
            row: dict[str, Any] = {"by": title, "group": name, "n": int(chosen.sum()), "events": seen}
            if seen >= FEWEST_EVENTS:
                row |= performance(logit[chosen], sample(cohort.months[chosen], cohort.recurred[chosen], HORIZON))
            found.append(row)
    return found


def _groups(c: Cohort) -> dict[str, dict[str, Flags]]:
    def equal(values: Floats, names: dict[float, str]) -> dict[str, Flags]:
        return {name: values == value for value, name in names.items()} | {"unknown": np.isnan(values)}

    return {
        "oestrogen receptor": equal(c.er, {1.0: "positive", 0.0: "negative"}),
        "HER2": equal(c.her2, {1.0: "positive", 0.0: "negative"}),
        "age": {"under 50": c.age < 50, "50 to 69": (c.age >= 50) & (c.age < 70), "70 and older": c.age >= 70},
        "menopause (inferred from age)": equal(c.postmenopausal, {0.0: "before", 1.0: "after"}),
        "grade": equal(c.grade, {1.0: "1", 2.0: "2", 3.0: "3"}),
        "nodes": {"0": c.nodes == 0, "1 to 3": (c.nodes >= 1) & (c.nodes <= 3), "4 and more": c.nodes >= 4},
        "chemotherapy": equal(c.chemotherapy, {1.0: "given", 0.0: "not given"}),
    }
