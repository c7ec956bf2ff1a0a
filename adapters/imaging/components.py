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
