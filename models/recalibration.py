"""Fits a model to a site: intercept, then slope, on the site's own outcomes; makes a new version, never changes one.

    logit p' = intercept + slope * logit p

is applied by `models.fusion` to the base, to each contribution and to the ends of each range, so contributions still
add up exactly and everything else of the version (graphs, encoders, head) stays byte for byte that of its parent.
How much may be fitted depends on how much was seen (decision 0014):

- fewer than 20 events, or fewer than 20 patients known to be free of it at the horizon: nothing. A rule of ours: with
  20 events the 95 % interval of observed/expected spans about a factor of 1.5 either way, with fewer more;
- fewer than 100 of either: the intercept alone (calibration in the large);
- else intercept and slope: 100 events and 100 non-events are what a validation needs (Vergouwe 2005, J Clin Epidemiol
  58:475; Collins 2016, Stat Med 35:214), and logistic recalibration is the update that small samples bear
  (Steyerberg 2004, Stat Med 23:2567).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.calibration import Array, Calibration, Flags, Line, NoFit, calibration, fit_line, ipc_weights
from models.errors import BadInput, Refused
from models.nouns import ModelVersion
from models.outcomes import Outcomes
from models.runtime import read_verified

FEWEST = 20
FEWEST_FOR_SLOPE = 100
FOLDS = 5
DIGITS = 8
CARD = "MODEL_CARD.md"


class CannotSay(BadInput):
    """These outcomes do not bear a recalibration: too few events, too little follow-up, or no rising line."""

    def __init__(self, what: str, before: Calibration) -> None:
        super().__init__(what)
        self.before = before


@dataclass(frozen=True, slots=True)
class Recalibration:
    """What was fitted, and how the model stood before and stands after."""

    intercept: float
    slope: float
    fitted: str
    """intercept, or intercept and slope."""
    horizon_months: float
    before: Calibration
    after: Calibration
    """Each patient by a line that was fitted without the patient's own fold of five."""
    outcomes: str
    """SHA-256 of the outcomes file."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def recalibrate(outcomes: Outcomes, horizon: float) -> Recalibration:
    """Fit the line that the outcomes bear. Raises: CannotSay."""
    before = calibration(outcomes.logit, outcomes.time, outcomes.event, horizon)
    slope = _bears_slope(before)
    try:
        line = _line(outcomes, np.ones(len(outcomes), dtype=bool), horizon, slope=slope)
        after = calibration(_held_out(outcomes, horizon, slope=slope), outcomes.time, outcomes.event, horizon)
    except NoFit as error:
        raise CannotSay(f"no line can be fitted: {error}", before) from None
    return Recalibration(
        intercept=_rounded(line.intercept),
        slope=_rounded(line.slope),
        fitted="intercept and slope" if slope else "intercept",
        horizon_months=horizon,
        before=before,
        after=after,
        outcomes=outcomes.digest,
    )


def _bears_slope(before: Calibration) -> bool:
    free = before.n - before.events - before.censored
    for count, what in ((before.events, "events"), (free, "patients known to be free of the event at the horizon")):
        if count < FEWEST:
            raise CannotSay(f"{count} {what}: below {FEWEST} nothing is fitted", before)
    return min(before.events, free) >= FEWEST_FOR_SLOPE


def _line(outcomes: Outcomes, rows: Flags, horizon: float, *, slope: bool) -> Line:
    outcome, weights = ipc_weights(outcomes.time[rows], outcomes.event[rows], horizon)
    line = fit_line(outcomes.logit[rows], outcome, weights, slope=slope)
    if line.slope <= 0.0:
        raise NoFit("a higher stated risk goes with a lower observed one, which no recalibration mends")
    return line


def _held_out(outcomes: Outcomes, horizon: float, *, slope: bool) -> Array:
    """Each patient's logit after a line that was fitted on the other folds; events are spread evenly over the folds."""
    logit = np.empty(len(outcomes))
    fold = np.empty(len(outcomes), dtype=np.intp)
    for seen in (outcomes.event, ~outcomes.event):
        members = np.flatnonzero(seen)
        fold[members[np.argsort(outcomes.fold[members], kind="stable")]] = np.arange(len(members)) % FOLDS
    for number in range(FOLDS):
        line = _line(outcomes, fold != number, horizon, slope=slope)
        logit[fold == number] = line.intercept + line.slope * outcomes.logit[fold == number]
    return logit


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


# ---- the new version -------------------------------------------------------------------------------------------------


def horizon_of(model: ModelVersion, stated: float | None) -> float:
    """Months. Raises: BadInput where neither the manifest nor the caller says, or where they differ."""
    known = model.manifest.get("horizon_months")
    if known is None and stated is None:
        raise BadInput("the manifest of this model states no horizon_months: say it")
    if known is not None and stated is not None and float(known) != stated:
        raise BadInput(f"the horizon of this model is {known:g} months, not another one")
    horizon = float(known if known is not None else stated or 0.0)
    if not 0.0 < horizon <= 1200.0:
        raise BadInput("the horizon is not between 0 and 1200 months")
    return horizon


def check_may(model: ModelVersion) -> None:
    """Raises: Refused where what people see of this model does not pass through its head."""
    if "fixed" in model.manifest["head"]:
        raise Refused(f"{model.name} is not recalibrated: {model.manifest['head']['fixed']}")
    parts = model.manifest["modalities"]
    kept = [name for part in parts for names in part.get("curves", {}).values() for name in names if name is not None]
    if len(parts) == 1 and kept:
        raise Refused(
            f"{model.name} shows numbers that come straight from its equation: a new risk would contradict them"
        )


def next_version(model: ModelVersion, taken: frozenset[str]) -> str:
    """`1.0.0-site.1`, or the next number that is free."""
    base = model.version.partition("-site.")[0]
    return next(name for number in range(1, 10_000) if (name := f"{base}-site.{number}") not in taken)


def derive(model: ModelVersion, version: str, fitted: Recalibration) -> dict[str, Any]:
    """The manifest of the new version, without the digests of its files. A line over a line is one line."""
    old = model.manifest["head"].get("recalibration", {"intercept": 0.0, "slope": 1.0})
    line = {
        "intercept": _rounded(fitted.intercept + fitted.slope * old["intercept"]),
        "slope": _rounded(fitted.slope * old["slope"]),
    }
    record = {"of": model.id, "of_manifest": model.manifest_digest, **fitted.plain()}
    return {
        **model.manifest,
        "version": version,
        "head": {**model.manifest["head"], "recalibration": line},
        "recalibration": record,
        "limits": [*model.manifest["limits"], "Recalibrated to one site: it says nothing about another one."],
    }


def files(model: ModelVersion, directory: Path, card: str) -> dict[str, bytes]:
    """The parent's files, the card with its addition. Raises: ModelFault where the parent is not sound."""
    bodies = {name: read_verified(directory / name, digest) for name, digest in model.files.items()}
    old = bodies.get(CARD, b"").rstrip(b"\n")
    return {**bodies, CARD: old + b"\n\n" + card.encode()}


# ---- for people ------------------------------------------------------------------------------------------------------


def rows(fitted: Recalibration) -> list[list[str]]:
    """Measure, before, after: the table that the command prints and the card carries."""
    before, after = asdict(fitted.before), asdict(fitted.after)
    lines = [
        ["observed risk", _percent(before["observed"]), _percent(after["observed"])],
        ["expected risk", _percent(before["expected"]), _percent(after["expected"])],
    ]
    for name, measure in (
        ("observed/expected", "ratio"),
        ("intercept (0 is right)", "intercept"),
        ("slope (1 is right)", "slope"),
    ):
        lines.append([name, _with_interval(before, measure), _with_interval(after, measure)])
    return lines


def card_section(model: ModelVersion, fitted: Recalibration) -> str:
    """The section that the new version's card gets."""
    seen = fitted.before
    lines = [
        "## Local recalibration",
        "",
        f"Made from `{model.id}` on {seen.n} patients of one site: {seen.events} events by {fitted.horizon_months:g} "
        f"months, {seen.censored} lost before. Fitted: {fitted.fitted}; logit p' = {fitted.intercept:.4f} + "
        f"{fitted.slope:.4f} x logit p. *After* is held out: five folds, each judged by a line fitted on the others.",
        "",
        "| measure (95 % interval) | before | after |",
        "| --- | --- | --- |",
        *("| " + " | ".join(row) + " |" for row in rows(fitted)),
    ]
    return "\n".join(lines) + "\n"


def _percent(value: float) -> str:
    return f"{100.0 * value:.1f} %"


def _with_interval(found: Mapping[str, Any], measure: str) -> str:
    value, interval = found[measure], found[f"{measure}_interval"]
    if value is None:
        return "cannot be said"
    return f"{value:z.2f}" if interval is None else f"{value:z.2f} ({interval[0]:z.2f} to {interval[1]:z.2f})"
