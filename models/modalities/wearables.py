"""Wearables modality: summary metrics of continuous glucose monitoring, from the sensor's readings of fourteen days.

International consensus on time in range (Battelino 2019, Diabetes Care 42:1593): 14 days, at least 70 % of the readings
that the sensor could have given; ranges 70 to 180 mg/dL (in), 54 to 69 and below 54 (below), 181 to 250 and above 250
(above); the glucose management indicator 3.31 + 0.02392 x mean mg/dL (Bergenstal 2018, Diabetes Care 41:2275). The days
end at the clinical time. Readings in mmol/L are held against the consensus's own bounds (3.0, 3.9, 10.0, 13.9).

It describes, it predicts nothing: no outcome stands behind it, so there is no probability, and it is not fused into the
validated risk. In the United States patterns of glucose readings are named as device territory (FDA, 6 January 2026).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from models.codes import LOINC, CodeSet, keys
from models.current import NEVER, Chart, Reading, began, code_sets
from models.features import Definition, read
from models.nouns import JSON, Fact, Feature, FeatureVector, Snapshot

NAME = "wearables"

DAYS = 14
ENOUGH = 70.0
"""Per cent of the readings that fourteen days could hold."""
MG_PER_MMOL = 18.0182
"""Glucose, 180.156 g/mol: for the mean only."""
_BOUNDS = {"mg/dL": (54.0, 70.0, 180.0, 250.0), "mmol/L": (3.0, 3.9, 10.0, 13.9)}
"""Below the first is very low, below the second low; up to the third is in range, up to the fourth high."""
_IG = "HL7 Continuous Glucose Monitoring 1.0.0, sensor readings"
_SETS = code_sets(__file__)
MASS = Definition(
    "glucose", "Interstitial glucose",
    CodeSet("interstitial glucose, mass", "Sensor readings; blood and plasma glucose are out.", f"{_IG}: LOINC 99504-3",
            keys((LOINC, "99504-3"))),
    units=frozenset({"mg/dL"}), plausible=(20.0, 600.0), suffix=" mg/dL",
)  # fmt: skip
MOLES = Definition(
    "glucose", "Interstitial glucose",
    CodeSet("interstitial glucose, moles", "As before, in mmol/L.", f"{_IG}: LOINC 105272-9",
            keys((LOINC, "105272-9"))),
    units=frozenset({"mmol/L"}), plausible=(1.1, 33.4), suffix=" mmol/L",
)  # fmt: skip
COLUMNS = ("mean", "sd", "in_range", "below_54", "below_70", "above_180", "above_250", "active")
"""mean and sd in mg/dL, the others in per cent; `below_70` holds `below_54`, `above_180` holds `above_250`."""
_TITLES = {
    "mean": ("Mean glucose", " mg/dL"), "sd": ("Standard deviation", " mg/dL"), "in_range": ("70 to 180 mg/dL", " %"),
    "below_54": ("Below 54 mg/dL", " %"), "below_70": ("Below 70 mg/dL", " %"), "above_180": ("Above 180 mg/dL", " %"),
    "above_250": ("Above 250 mg/dL", " %"), "active": ("Sensor active", " %"),
}  # fmt: skip
_READING = Reading.of(NAME, __file__, (MASS, MOLES), _SETS.values())
ENCODER = _READING.encoder


def facts_wanted(manifest: JSON) -> frozenset[str]:
    """Code tokens that a snapshot for this modality asks for."""
    return _READING.wanted


def encode(snapshot: Snapshot, manifest: JSON) -> FeatureVector:
    """The eight summaries of the last fourteen days, in the manifest's column order."""
    chart = _READING.chart(snapshot)
    readings, cautions = _readings(chart)
    if outside := _outside(chart, manifest):
        return FeatureVector(NAME, ENCODER, (), outside)
    if len(readings) < 2:
        return FeatureVector(NAME, ENCODER, (), f"no glucose readings of a sensor within {DAYS} days", cautions)
    values = _summaries(readings)
    ids = tuple(each.fact.id for each in readings)
    first, last = readings[0].fact.effective, readings[-1].fact.effective
    note = f"{len(readings)} readings from {str(first)[:16]} to {str(last)[:16]}"
    features = tuple(_feature(name, values[name], ids, last, note) for name in manifest["columns"])
    absent = None
    if values["active"] < ENOUGH:
        absent = (
            f"the sensor was active {values['active']:.0f} % of {DAYS} days; below {ENOUGH:g} % nothing is concluded"
        )
    return FeatureVector(NAME, ENCODER, features, absent, cautions)


def _feature(name: str, value: float, facts: tuple[str, ...], effective: str | None, note: str) -> Feature:
    suffix = _TITLES[name][1]
    return Feature(name, value, math.isnan(value), facts, f"{value:.1f}{suffix}", effective, note)


def _outside(chart: Chart, manifest: JSON) -> str | None:
    low, high = manifest["population"]["age"]
    age = chart.age()
    if age.missing or not low <= age.value <= high:
        return f"the targets are for persons of {low:g} to {high:g} years"
    if chart.diagnoses(_SETS["pregnant"], past=False):
        return "pregnancy is recorded; the consensus has other ranges for it"
    return None


@dataclass(frozen=True, slots=True)
class Sensed:
    when: datetime
    mg: float
    """mg/dL."""
    band: int
    """0 very low, 1 low, 2 in range, 3 high, 4 very high."""
    fact: Fact


def _readings(chart: Chart) -> tuple[list[Sensed], tuple[str, ...]]:
    """The readings of the last fourteen days by time, one a moment; and what was left out."""
    since = chart.now - timedelta(days=DAYS)
    by_time: dict[datetime, list[Sensed]] = {}
    refused = 0
    for definition, factor in ((MASS, 1.0), (MOLES, MG_PER_MMOL)):
        for fact in chart.facts(definition.codes):
            when = began(fact.effective)
            if when == NEVER or not since < when <= chart.now or "T" not in (fact.effective or ""):
                continue
            value, _ = read(definition, fact)
            if value is None or fact.unit is None:
                refused += 1
            else:
                sensed = Sensed(when, value * factor, _band(value, _BOUNDS[fact.unit]), fact)
                by_time.setdefault(when, []).append(sensed)
    agreed = {when: found[0] for when, found in by_time.items() if len({each.mg for each in found}) == 1}
    cautions = []
    if refused:
        cautions.append(f"{refused} readings could not be used (unit, range, only a bound, not final)")
    if len(agreed) < len(by_time):
        cautions.append(f"at {len(by_time) - len(agreed)} moments two readings disagree; neither is used")
    return [agreed[when] for when in sorted(agreed)], tuple(cautions)


def _band(value: float, bounds: tuple[float, float, float, float]) -> int:
    very_low, low, high, very_high = bounds
    if value < low:
        return 0 if value < very_low else 1
    if value > high:
        return 4 if value > very_high else 3
    return 2


def _summaries(readings: Sequence[Sensed]) -> dict[str, float]:
    values, n = [each.mg for each in readings], len(readings)
    shares = [100.0 * sum(each.band == band for each in readings) / n for band in range(5)]
    step = _step([each.when for each in readings])
    return {
        "mean": math.fsum(values) / n,
        "sd": statistics.stdev(values),
        "in_range": shares[2],
        "below_54": shares[0],
        "below_70": shares[0] + shares[1],
        "above_180": shares[3] + shares[4],
        "above_250": shares[4],
        "active": min(100.0, 100.0 * n * step / (DAYS * 24 * 60)),
    }


def _step(times: Sequence[datetime]) -> float:
    """Minutes between readings: the commonest gap, to the minute (5 or 15 for the sensors of today)."""
    gaps = Counter(round((after - before).total_seconds() / 60) for before, after in pairwise(times))
    most = max(gaps.values())
    return float(max(1, min(gap for gap, count in gaps.items() if count == most)))
