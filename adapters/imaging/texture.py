"""Grey-level co-occurrence, run lengths and size zones of a region (IBSI reference manual 3.6, 3.7 and 3.8).

All are three-dimensional. The first two are merged over the 13 directions (IAZD): a feature is computed once, from the
sum of the matrices. Distance 1 (Chebyshev), symmetric. Zones hang together by 26 neighbours (KOBO). Discretisation is
the manual's 2.7: fixed bin number (K15C) or fixed bin size (Q3RU) from a stated lowest value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapters.imaging.components import zone_sizes
from adapters.imaging.first_order import Measures

Levels = NDArray[np.int32]
"""Grey level by voxel, from 1; 0 is outside the region."""
Matrix = NDArray[np.float64]
MAX_LEVELS = 1024
DIRECTIONS = tuple((z, y, x) for z in (0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) > (0, 0, 0))
"""(slice, row, column): one of each pair of opposite directions to the 26 neighbours."""


@dataclass(frozen=True, slots=True)
class Discretisation:
    """Exactly one of `bins` and `width`. Fixed bin size counts from `lowest`; from the region's minimum where that is
    None (arbitrary intensities)."""

    bins: int | None = None
    width: float | None = None
    lowest: float | None = None

    def __str__(self) -> str:
        if self.bins is not None:
            return f"fixed bin number {self.bins}"
        return f"fixed bin size {self.width:g} from {'the minimum' if self.lowest is None else f'{self.lowest:g}'}"


def discretised(values: NDArray[np.floating], mask: NDArray[np.bool_], how: Discretisation) -> Levels | None:
    """Grey levels; None where there would be more than 1,024."""
    inside = np.asarray(values[mask], np.float64)
    low, high = float(inside.min()), float(inside.max())
    if how.bins is not None:
        if high == low:
            found = np.ones(inside.shape)
        else:
            found = np.minimum(np.floor(how.bins * (inside - low) / (high - low)) + 1, how.bins)
    else:
        width = how.width or 1.0
        start = low if how.lowest is None else how.lowest
        found = np.maximum(np.floor((inside - start) / width) + 1, 1)
        if float(found.max()) > MAX_LEVELS:
            return None
    levels = np.zeros(mask.shape, np.int32)
    levels[mask] = found
    return levels


def texture(levels: Levels) -> Measures:
    """IBSI code -> value, of all three; a matrix without a single pair gives none of its features."""
    zones = size_zones(*zone_sizes(levels), int((levels > 0).sum()))
    return {**co_occurrence(glcm(levels)), **run_lengths(*glrlm(levels)), **zones}


# ---- co-occurrence ---------------------------------------------------------------------------------------------------


def _shifted(shape: tuple[int, ...], step: tuple[int, int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a voxel and its neighbour in a direction both are."""
    here = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(step, shape, strict=True))
    there = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(step, shape, strict=True))
    return here, there


def glcm(levels: Levels) -> Matrix:
    """Counts of neighbouring pairs (i, j), both ways, summed over directions: (levels, levels)."""
    top = int(levels.max()) + 1
    total = np.zeros(top * top, np.int64)
    for step in DIRECTIONS:
        here, there = _shifted(levels.shape, step)
        total += np.bincount((levels[here] * top + levels[there]).ravel(), minlength=top * top)
    counts = total.reshape(top, top)[1:, 1:].astype(np.float64)
    return counts + counts.T


def _entropy(p: Matrix) -> float:
    q = p[p > 0]
    return float(-(q * np.log2(q)).sum())


def co_occurrence(counts: Matrix) -> Measures:
    total = counts.sum()
    if total == 0:
        return {}
    p = counts / total
    n = len(p)
    i, j = np.indices(p.shape) + 1.0
    mean = float((i * p).sum())
    difference, summed = np.abs(i - j), i + j
    p_minus: Matrix = np.asarray(np.bincount(difference.astype(np.int64).ravel(), p.ravel(), minlength=n), np.float64)
    p_plus: Matrix = np.asarray(np.bincount(summed.astype(np.int64).ravel(), p.ravel(), minlength=2 * n), np.float64)
    k, s = np.arange(len(p_minus)), np.arange(len(p_plus))
    difference_mean, sum_mean = float((k * p_minus).sum()), float((s * p_plus).sum())
    variance = float(((i - mean) ** 2 * p).sum())
    around = i + j - 2 * mean
    marginal = p.sum(axis=0)
    hxy, hx = _entropy(p), _entropy(marginal)
    product = np.outer(marginal, marginal)
    some = product > 0
    log_product = np.log2(product, where=some, out=np.zeros_like(product))
    hxy1, hxy2 = float(-(p * log_product).sum()), float(-(product * log_product).sum())
    off = k > 0
    found = {
        "GYBY": float(p.max()),
        "60VM": mean,
        "UR99": variance,
        "TU9B": hxy,
        "TF7R": difference_mean,
        "D3YU": float(((k - difference_mean) ** 2 * p_minus).sum()),
        "NTRS": _entropy(p_minus),
        "ZGXS": sum_mean,
        "OEEB": float(((s - sum_mean) ** 2 * p_plus).sum()),
        "P6QZ": _entropy(p_plus),
        "8ZQL": float((p * p).sum()),
        "ACUI": float((k**2 * p_minus).sum()),
        "IB1Z": float((p_minus / (1 + k)).sum()),
        "NDRX": float((p_minus / (1 + k / n)).sum()),
        "WF0Z": float((p_minus / (1 + k**2)).sum()),
        "1QCO": float((p_minus / (1 + (k / n) ** 2)).sum()),
        "E8JP": float((p_minus[off] / k[off] ** 2).sum()),
        "QWB0": float((i * j * p).sum()),
        "DG8W": float((around**2 * p).sum()),
        "7NFM": float((around**3 * p).sum()),
        "AE86": float((around**4 * p).sum()),
        "JN9H": float(np.sqrt(max(0.0, 1 - np.exp(-2 * (hxy2 - hxy))))),
    }
    if variance > 0:
        found["NI2N"] = float(((i - mean) * (j - mean) * p).sum()) / variance
    if hx > 0:
        found["R8DG"] = (hxy - hxy1) / hx
    return found


# ---- run lengths -----------------------------------------------------------------------------------------------------


def glrlm(levels: Levels) -> tuple[Matrix, int]:
    """Counts of runs (level, length), summed over directions: (levels, longest); and the voxels in the region."""
    top, longest = int(levels.max()), max(levels.shape)
    total = np.zeros((top, longest), np.float64)
    for step in DIRECTIONS:
        for level, length in _runs(levels, step):
            total += np.bincount((level - 1) * longest + length - 1, minlength=top * longest).reshape(top, longest)
    return total, int((levels > 0).sum())


def _runs(levels: Levels, step: tuple[int, int, int]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Level and length of the runs along a direction: from where the voxel before is another, to where the next is."""
    here, there = _shifted(levels.shape, step)
    same = np.zeros(levels.shape, bool)
    same[here] = (levels[here] == levels[there]) & (levels[here] > 0)
    before = np.zeros(levels.shape, bool)
    before[there] = same[here]
    starts = np.argwhere((levels > 0) & ~before)
    at = starts.copy()
    level = levels[tuple(starts.T)].astype(np.int64)
    length = np.ones(len(starts), np.int64)
    open_runs = np.flatnonzero(same[tuple(at.T)])
    while open_runs.size:
        at[open_runs] += step
        length[open_runs] += 1
        open_runs = open_runs[same[tuple(at[open_runs].T)]]
    yield level, length


def run_lengths(counts: Matrix, voxels: int) -> Measures:
    total = counts.sum()
    if total == 0:
        return {}
    i = np.arange(1, counts.shape[0] + 1, dtype=np.float64)[:, None]
    j = np.arange(1, counts.shape[1] + 1, dtype=np.float64)[None, :]
    by_level, by_length = counts.sum(axis=1), counts.sum(axis=0)
    p = counts / total
    level_mean, length_mean = float((i * p).sum()), float((j * p).sum())
    weighed = {
        "22OV": 1 / j**2, "W4KF": j**2, "V3SW": 1 / i**2, "G3QZ": i**2, "HTZT": 1 / (i * j) ** 2,
        "GD3A": i**2 / j**2, "IVPO": j**2 / i**2, "3KUM": (i * j) ** 2,
    }  # fmt: skip
    return {
        **{code: float((counts * weight).sum() / total) for code, weight in weighed.items()},
        "R5YN": float((by_level**2).sum() / total),
        "OVBL": float((by_level**2).sum() / total**2),
        "W92Y": float((by_length**2).sum() / total),
        "IC23": float((by_length**2).sum() / total**2),
        "9ZK5": float(total / (voxels * len(DIRECTIONS))),
        "8CE5": float(((i - level_mean) ** 2 * p).sum()),
        "SXLW": float(((j - length_mean) ** 2 * p).sum()),
        "HJ9O": _entropy(p),
    }


# ---- size zones ------------------------------------------------------------------------------------------------------


def size_zones(level: NDArray[np.int64], size: NDArray[np.int64], voxels: int) -> Measures:
    """Of zones by level and number of voxels; of the matrix only what is not zero is ever made (a zone may be as large
    as the region)."""
    count = len(level)
    if not count:
        return {}
    i, j = level.astype(np.float64), size.astype(np.float64)
    by_level = np.bincount(level).astype(np.float64)
    by_size = np.unique(size, return_counts=True)[1].astype(np.float64)
    by_both = np.unique(np.stack((level, size)), axis=1, return_counts=True)[1] / count
    weighed = {
        "5QRC": 1 / j**2, "48P8": j**2, "XMSY": 1 / i**2, "5GN9": i**2, "5RAI": 1 / (i * j) ** 2, "HW1V": i**2 / j**2,
        "YH51": j**2 / i**2, "J17V": (i * j) ** 2,
    }  # fmt: skip
    return {
        **{code: float(weight.sum() / count) for code, weight in weighed.items()},
        "JNSA": float((by_level**2).sum() / count),
        "Y1RO": float((by_level**2).sum() / count**2),
        "4JP3": float((by_size**2).sum() / count),
        "VB3A": float((by_size**2).sum() / count**2),
        "P30P": count / voxels,
        "BYLV": float(((i - i.mean()) ** 2).mean()),
        "3NSA": float(((j - j.mean()) ** 2).mean()),
        "GU8N": _entropy(by_both),
    }
