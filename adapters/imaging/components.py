"""Parts of a mask that hang together, by their runs: numpy only, memory by the number of runs and not of voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]


def largest_component(mask: Mask) -> Mask:
    """The part with the most voxels (of as many, the first), joined by faces; an empty mask stays empty."""
    row, start, end = _runs(mask)
    if not len(row):
        return np.zeros_like(mask)
    labels = _joined(len(row), *_touching(row, start, end, mask.shape))
    sizes = np.bincount(labels, weights=end - start)
    kept = labels == int(np.argmax(sizes))
    edges = np.zeros((mask.shape[0] * mask.shape[1], mask.shape[2] + 1), np.int8)
    edges[row[kept], start[kept]] = 1
    edges[row[kept], end[kept]] = -1
    found: Mask = np.cumsum(edges, axis=1, dtype=np.int8)[:, :-1].astype(bool).reshape(mask.shape)
    return found


def _runs(mask: Mask) -> tuple[Indices, Indices, Indices]:
    """Row (slice * rows + row), first column and the column after the last, in order."""
    flat = np.zeros((mask.shape[0] * mask.shape[1], mask.shape[2] + 2), np.int8)
    flat[:, 1:-1] = mask.reshape(-1, mask.shape[2])
    turns = np.diff(flat, axis=1)
    row, start = np.nonzero(turns == 1)
    end = np.nonzero(turns == -1)[1]
    return row, start, end


def _touching(row: Indices, start: Indices, end: Indices, shape: tuple[int, ...]) -> tuple[Indices, Indices]:
    """Pairs of runs that share a face, in neighbouring rows and slices."""
    width, rows = shape[2] + 1, shape[1]
    starts, ends = row * width + start, row * width + end
    firsts, seconds = [], []
    for step, there in ((1, row % rows < rows - 1), (rows, row < (shape[0] - 1) * rows)):
        one = np.flatnonzero(there)
        target = (row[one] + step) * width
        low = np.searchsorted(ends, target + start[one], side="right")
        count = np.maximum(np.searchsorted(starts, target + end[one], side="left") - low, 0)
        firsts.append(np.repeat(one, count))
        offset = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        seconds.append(np.repeat(low, count) + offset)
    return np.concatenate(firsts), np.concatenate(seconds)


def _joined(count: int, first: Indices, second: Indices) -> Indices:
    """A label for each run: the lowest of its part. Labels are passed on and shortened until nothing changes."""
    labels = np.arange(count)
    while True:
        a, b = labels[first], labels[second]
        apart = a != b
        if not apart.any():
            return labels
        low, high = np.minimum(a[apart], b[apart]), np.maximum(a[apart], b[apart])
        np.minimum.at(labels, high, low)
        while not np.array_equal(shorter := labels[labels], labels):
            labels = shorter
        labels = shorter


def zone_sizes(levels: NDArray[np.int32]) -> tuple[Indices, Indices]:
    """Level and number of voxels of each part of one level that hangs together by faces, edges or corners (26
    neighbours), in no stated order. 0 is outside."""
    flat = np.zeros((levels.shape[0] * levels.shape[1], levels.shape[2] + 2), np.int32)
    flat[:, 1:-1] = levels.reshape(-1, levels.shape[2])
    row, at = np.nonzero(flat[:, 1:] != flat[:, :-1])
    starts = flat[row, at + 1] > 0
    ends = flat[row, at] > 0
    row, start, level, end = row[starts], at[starts], flat[row[starts], at[starts] + 1], at[ends]
    if not len(row):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    labels = _joined(len(row), *_neighbours(row, start, end, level, levels.shape))
    _, first, zone = np.unique(labels, return_index=True, return_inverse=True)
    return level[first].astype(np.int64), np.bincount(zone, weights=end - start).astype(np.int64)


def _neighbours(
    row: Indices, start: Indices, end: Indices, level: NDArray[np.int32], shape: tuple[int, ...]
) -> tuple[Indices, Indices]:
    """Pairs of runs of one level that touch, be it by a corner, in the rows around."""
    width, rows, slices = shape[2] + 1, shape[1], shape[0]
    starts, ends = row * width + start, row * width + end
    y, z = row % rows, row // rows
    firsts, seconds = [], []
    for dz, dy in ((0, 1), (1, -1), (1, 0), (1, 1)):
        one = np.flatnonzero((y + dy >= 0) & (y + dy < rows) & (z + dz < slices))
        target = (row[one] + dz * rows + dy) * width
        low = np.searchsorted(ends, target + start[one], side="left")
        count = np.maximum(np.searchsorted(starts, target + end[one], side="right") - low, 0)
        first = np.repeat(one, count)
        second = np.repeat(low, count) + np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        same = level[first] == level[second]
        firsts.append(first[same])
        seconds.append(second[same])
    return np.concatenate(firsts), np.concatenate(seconds)
