"""Intensity statistics of a region (IBSI reference manual 3.3, UHIW), without discretisation.

Population moments, as the manual has them; percentiles by linear interpolation between ranks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Measures = dict[str, float]
Array = NDArray[np.float64]
_CHUNK = 1 << 20
_WIDE = 1 << 22
"""Voxels up to which percentiles are taken in float64; of more, in the precision of the volume: a body is not copied
at twice its size."""


def first_order(values: NDArray[np.floating]) -> Measures:
    """IBSI code -> value, of the intensities of a region's voxels (one at least). Units are those of the intensities;
    a quotient whose divisor is zero is left out."""
    x = values.ravel()
    if x.size <= _WIDE:
        x = x.astype(np.float64)
    mean = _mean(x, lambda part: part)
    variance = _mean(x, lambda part: (part - mean) ** 2)
    p10, p25, median, p75, p90 = (float(each) for each in np.percentile(x, (10, 25, 50, 75, 90)))
    inner = x[(x >= p10) & (x <= p90)]
    inner_mean = _mean(inner, lambda part: part)
    energy = _mean(x, lambda part: part**2)
    low, high = float(x.min()), float(x.max())
    found = {
        "Q4LE": mean,
        "ECT3": variance,
        "Y12H": median,
        "1GSF": low,
        "QG58": p10,
        "8DWT": p90,
        "84IY": high,
        "SALO": p75 - p25,
        "2OJQ": high - low,
        "4FUA": _mean(x, lambda part: np.abs(part - mean)),
        "1128": _mean(inner, lambda part: np.abs(part - inner_mean)),
        "N72L": _mean(x, lambda part: np.abs(part - median)),
        "N8CA": energy * x.size,
        "5ZWQ": energy**0.5,
    }
    if variance > 0:
        found["KE2A"] = _mean(x, lambda part: (part - mean) ** 3) / variance**1.5
        found["IPH6"] = _mean(x, lambda part: (part - mean) ** 4) / variance**2 - 3.0
    else:  # the manual: both are 0 where all intensities are the same
        found["KE2A"] = found["IPH6"] = 0.0
    if mean:
        found["7TET"] = variance**0.5 / mean
    if p75 + p25:
        found["9S40"] = (p75 - p25) / (p75 + p25)
    return found


def _mean(x: NDArray[np.floating], of: Callable[[Array], Array]) -> float:
    """In float64, a part at a time."""
    parts = (of(x[at : at + _CHUNK].astype(np.float64)) for at in range(0, x.size, _CHUNK))
    return float(sum(float(part.sum()) for part in parts) / x.size)
