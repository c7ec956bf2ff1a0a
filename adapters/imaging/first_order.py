"""Intensity statistics of a region (IBSI reference manual 3.3, UHIW), without discretisation.

Population moments, as the manual has them; percentiles by linear interpolation between ranks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Measures = dict[str, float]


def first_order(values: NDArray[np.floating]) -> Measures:
    """IBSI code -> value, of the intensities of a region's voxels (one at least). Units are those of the intensities;
    a quotient whose divisor is zero is left out."""
    x = np.asarray(values, np.float64).ravel()
    mean = float(x.mean())
    d = x - mean
    variance = float(np.mean(d * d))
    p10, p25, median, p75, p90 = (float(each) for each in np.percentile(x, (10, 25, 50, 75, 90)))
    inner = x[(x >= p10) & (x <= p90)]
    energy = float(np.dot(x, x))
    found = {
        "Q4LE": mean,
        "ECT3": variance,
        "Y12H": median,
        "1GSF": float(x.min()),
        "QG58": p10,
        "8DWT": p90,
        "84IY": float(x.max()),
        "SALO": p75 - p25,
        "2OJQ": float(x.max() - x.min()),
        "4FUA": float(np.mean(np.abs(d))),
        "1128": float(np.mean(np.abs(inner - inner.mean()))),
        "N72L": float(np.mean(np.abs(x - median))),
        "N8CA": energy,
        "5ZWQ": float(np.sqrt(energy / x.size)),
    }
    if variance > 0:
        found["KE2A"] = float(np.mean(d**3)) / variance**1.5
        found["IPH6"] = float(np.mean(d**4)) / variance**2 - 3.0
    else:  # the manual: both are 0 where all intensities are the same
        found["KE2A"] = found["IPH6"] = 0.0
    if mean:
        found["7TET"] = variance**0.5 / mean
    if p75 + p25:
        found["9S40"] = (p75 - p25) / (p75 + p25)
    return found
