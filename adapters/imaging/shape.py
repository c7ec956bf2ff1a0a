"""Morphology of a region (IBSI reference manual 3.1, HCUG): mesh, voxels and principal axes, in mm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapters.imaging.first_order import Measures
from adapters.imaging.mesh import largest_distance, vertices, volume_and_area


def shape(mask: NDArray[np.bool_], values: NDArray[np.floating], spacing: tuple[float, float, float]) -> Measures:
    """IBSI code -> value. `mask` has a voxel at least; `values` are its intensities, of the same shape; `spacing` is mm
    by axis."""
    step = np.array(spacing)
    volume, area = volume_and_area(mask, spacing)
    indices = np.argwhere(mask)
    points = indices * step
    compactness = 36 * np.pi * volume**2 / area**3
    corners = vertices(mask)
    box = (corners.max(axis=0) - corners.min(axis=0)) * step / 2
    found = {
        "RNU0": volume,
        "YEKZ": float(len(indices) * step.prod()),
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
    weights = np.asarray(values[mask], np.float64)
    if (total := float(weights.sum())) != 0:
        shift = points.mean(axis=0) - (points * weights[:, None]).sum(axis=0) / total
        found["KLMA"] = float(np.linalg.norm(shift))
    found["99N0"] = volume * float(weights.mean())
    if len(points) > 1:
        middle = points - points.mean(axis=0)
        least, minor, major = np.maximum(np.linalg.eigvalsh(middle.T @ middle / (len(points) - 1)), 0.0)
        found |= {"TDIC": 4 * float(major**0.5), "P9VJ": 4 * float(minor**0.5), "7J51": 4 * float(least**0.5)}
        found |= {"Q3CK": float((minor / major) ** 0.5), "N17B": float((least / major) ** 0.5)}
    return {code: float(value) for code, value in found.items()}
