"""Morphology of a region (IBSI reference manual 3.1, HCUG): mesh, voxels and principal axes, in mm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapters.imaging.first_order import Array, Measures
from adapters.imaging.mesh import largest_distance, vertices, volume_and_area


def shape(mask: NDArray[np.bool_], values: NDArray[np.floating], spacing: tuple[float, float, float]) -> Measures:
    """IBSI code -> value. `mask` has a voxel at least; `values` are its intensities, of the same shape; `spacing` is mm
    by axis."""
    step = np.array(spacing)
    volume, area = volume_and_area(mask, spacing)
    count = int(np.count_nonzero(mask))
    middle, spread = _moments(mask, step)
    compactness = 36 * np.pi * volume**2 / area**3
    corners = vertices(mask)
    box = (corners.max(axis=0) - corners.min(axis=0)) * step / 2
    found = {
        "RNU0": volume,
        "YEKZ": float(count * step.prod()),
        "C0JK": area,
        "2PR5": area / volume,
        "SKGS": volume / (np.pi**0.5 * area**1.5),
        "BQWJ": compactness,
        "KRCK": compactness ** (-1 / 3),
        "QCFX": compactness ** (1 / 3),
        "25C7": compactness ** (-1 / 3) - 1,
        "L0JK": largest_distance(corners * (step / 2)),
        "PBX1": volume / float(box.prod()),
        "R59B": area / float(2 * (box[0] * box[1] + box[1] * box[2] + box[0] * box[2])),
    }
    total, weighed = _weighed(mask, values, step)
    if total:
        found["KLMA"] = float(np.linalg.norm(middle - weighed))
    found["99N0"] = volume * total / count
    if count > 1:
        least, minor, major = np.maximum(np.linalg.eigvalsh(spread / (count - 1)), 0.0)
        found |= {"TDIC": 4 * float(major**0.5), "P9VJ": 4 * float(minor**0.5), "7J51": 4 * float(least**0.5)}
        found |= {"Q3CK": float((minor / major) ** 0.5), "N17B": float((least / major) ** 0.5)}
    return {code: float(value) for code, value in found.items()}


def _moments(mask: NDArray[np.bool_], step: Array) -> tuple[Array, Array]:
    """The middle of the voxels (mm) and the sums of products of their distances from it, by the mask's shadows: nothing
    is written down for each voxel."""
    shadows = {axis: mask.sum(axis=axis, dtype=np.float64) for axis in range(3)}
    counts = [shadows[(axis + 1) % 3].sum(axis=0 if axis > (axis + 2) % 3 else 1) for axis in range(3)]
    places = [np.arange(size) * mm for size, mm in zip(mask.shape, step, strict=True)]
    total = counts[0].sum()
    middle = np.array([float(np.dot(each, place)) / total for each, place in zip(counts, places, strict=True)])
    off = [place - mean for place, mean in zip(places, middle, strict=True)]
    spread = np.empty((3, 3))
    for a in range(3):
        spread[a, a] = np.dot(counts[a], off[a] ** 2)
        for b in range(a):
            spread[a, b] = spread[b, a] = off[b] @ shadows[3 - a - b] @ off[a]
    return middle, spread


def _weighed(mask: NDArray[np.bool_], values: NDArray[np.floating], step: Array) -> tuple[float, Array]:
    """The sum of the intensities, and their middle (mm); slice by slice."""
    total, moment = 0.0, np.zeros(3)
    rows, columns = (np.arange(size, dtype=np.float64) for size in mask.shape[1:])
    for at, inside in enumerate(mask):
        weights = np.where(inside, values[at], 0).astype(np.float64)
        down = weights.sum(axis=1)
        here = float(down.sum())
        total += here
        moment += (here * at, float(np.dot(down, rows)), float(np.dot(weights.sum(axis=0), columns)))
    return total, (moment / total * step if total else moment)
