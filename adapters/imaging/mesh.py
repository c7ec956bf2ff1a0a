"""The surface of a mask as triangles: marching cubes (Lorensen and Cline 1987) for masks, at the level 0.5.

On a mask every vertex lies half-way between a voxel inside and one outside, so a cell of eight voxels has one of 256
surfaces. They are not typed in here but built: on each face of the cell the crossed edges are joined, the joints make
closed loops, and a loop becomes triangles. On a face whose corners alternate, the two inside are kept apart: neighbours
decide alike, so the mesh is closed. Volume and area of a mask are then sums over how often each surface occurs.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]
_CORNERS = [(n >> 2 & 1, n >> 1 & 1, n & 1) for n in range(8)]
"""(slice, row, column) of a cell's corner n."""
_FACES = (
    (0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3),
)  # fmt: skip
"""Corners of each face in order around it, seen from outside counterclockwise (or all clockwise: the sign is one)."""


@cache
def surfaces() -> tuple[Array, ...]:
    """By cell (bit n: corner n is inside) its triangles (n, 3, 3), in cells, all with the same side outside."""
    return tuple(_surface(case) for case in range(256))


def _surface(case: int) -> Array:
    follows: dict[tuple[int, int], tuple[int, int]] = {}
    for face in _FACES:
        inside = [bool(case >> corner & 1) for corner in face]
        for at in range(4):
            # where the way around the face enters the inside, a segment ends; it began where the way leaves it again
            if inside[at] or not inside[(at + 1) % 4]:
                continue
            last = (at + 1) % 4
            while inside[(last + 1) % 4]:
                last = (last + 1) % 4
            leaves = _edge(face[last], face[(last + 1) % 4])
            follows[leaves] = _edge(face[at], face[(at + 1) % 4])
    triangles: list[Array] = []
    while follows:
        start, nxt = follows.popitem()
        loop = [start]
        while nxt != start:
            loop.append(nxt)
            nxt = follows.pop(nxt)
        triangles += _triangles(np.array([_midpoint(edge) for edge in loop]), case.bit_count())
    return np.array(triangles).reshape(-1, 3, 3)


def _edge(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _midpoint(edge: tuple[int, int]) -> Array:
    return np.array([(a + b) / 2 for a, b in zip(_CORNERS[edge[0]], _CORNERS[edge[1]], strict=True)])


def _triangles(loop: Array, inside: int) -> list[Array]:
    """A loop as triangles. A bent one can be filled in several ways: where few of the cell's corners are inside, by the
    fan that gives them the most volume; where most are, by the same surface turned around; of four, by the one between.
    Such a mesh makes up for the corners that it cuts off, and treats inside and outside alike."""
    fans = []
    for apex in range(len(loop)):
        turned = np.roll(loop, -apex, axis=0)
        fan = [np.array([turned[0], b, c]) for b, c in pairwise(turned[1:])]
        fans.append((round(sum(float(np.linalg.det(each)) for each in fan), 9), apex, fan))
    fans.sort(key=lambda row: row[:2])
    if inside == 4:
        middle = (fans[0][0] + fans[-1][0]) / 2
        return min(fans, key=lambda row: (round(abs(row[0] - middle), 9), row[1]))[2]
    return fans[0 if inside < 4 else -1][2]


def volume_and_area(mask: Mask, spacing: tuple[float, float, float]) -> tuple[float, float]:
    """mm3 and mm2 of the mesh of a mask; `spacing` by axis of the array."""
    cells = _cells(mask)
    depth = cells.shape[0]
    step = np.array(spacing)
    occurs = np.zeros((depth, 256), np.int64)
    for at in range(depth):
        occurs[at] = np.bincount(cells[at].ravel(), minlength=256)
    below = np.arange(depth, dtype=np.float64)
    volume = area = 0.0
    for case, triangles in enumerate(surfaces()):
        if not len(triangles) or not occurs[:, case].any():
            continue
        scaled = triangles * step
        normals = np.cross(scaled[:, 1] - scaled[:, 0], scaled[:, 2] - scaled[:, 0]) / 2
        area += float(occurs[:, case].sum() * np.linalg.norm(normals, axis=1).sum())
        # divergence theorem on the field (z, 0, 0): the height of a triangle's middle times its shadow
        flat = float(normals[:, 0].sum())
        lifted = float((normals[:, 0] * scaled[:, :, 0].mean(axis=1)).sum())
        volume += float((occurs[:, case] * (below * step[0] * flat + lifted)).sum())
    return abs(volume), area


def _cells(mask: Mask) -> NDArray[np.uint8]:
    """Which surface each cell of eight voxels has; the mask with a rim of outside around it."""
    padded = np.pad(mask, 1).view(np.uint8)
    cells = np.zeros(tuple(n - 1 for n in padded.shape), np.uint8)
    for n, (z, y, x) in enumerate(_CORNERS):
        corner = padded[z : z + cells.shape[0], y : y + cells.shape[1], x : x + cells.shape[2]]
        cells |= corner << np.uint8(n)
    return cells


def vertices(mask: Mask) -> NDArray[np.int32]:
    """The mesh's vertices in half voxels (slice, row, column), those only that can be corners of its hull: half-way
    between inside and outside, and not between two others in a straight line along the columns."""
    padded = np.pad(mask, 1)
    rows = []
    for axis in range(3):
        edge = np.argwhere(np.diff(padded, axis=axis)).astype(np.int32) * 2 - 2
        edge[:, axis] += 1
        rows.append(edge)
    found = np.concatenate(rows)
    for axis in (2, 1, 0):
        found = _outermost(found, axis)
    return found


def _outermost(points: NDArray[np.int32], axis: int) -> NDArray[np.int32]:
    """Of the points on one line along an axis the first and the last, and these only where they bulge."""
    if len(points) < 3:
        return points
    others = [other for other in range(3) if other != axis]
    low = points.min(axis=0)
    size = points.max(axis=0) - low + 1
    a, b = (points[:, other] - low[other] for other in others)
    shape = (int(size[others[0]]), int(size[others[1]]))
    kept = []
    for sign in (1, -1):
        height = np.full(shape, np.iinfo(np.int32).max // 4, np.int32)
        np.minimum.at(height, (a, b), sign * points[:, axis])
        present = height < np.iinfo(np.int32).max // 4
        keep = present.copy()
        for da, db in ((0, 1), (1, 0), (1, 1), (1, -1)):
            step = 1
            while step < max(shape):
                _flatten(height, present, keep, da * step, db * step)
                step *= 2
        first, second = np.nonzero(keep)
        made = np.empty((len(first), 3), np.int32)
        made[:, others[0]], made[:, others[1]] = first + low[others[0]], second + low[others[1]]
        made[:, axis] = sign * height[first, second]
        kept.append(made)
    return np.unique(np.concatenate(kept), axis=0)


def _flatten(height: NDArray[np.int32], present: Mask, keep: Mask, da: int, db: int) -> None:
    """Drop what does not lie below the line between its neighbours on both sides: no corner of a hull does that."""
    rows, columns = height.shape
    if 2 * abs(da) >= rows or 2 * abs(db) >= columns:
        return
    top, left = slice(abs(da), rows - abs(da)), slice(abs(db), columns - abs(db))
    ahead = (slice(abs(da) + da, rows - abs(da) + da), slice(abs(db) + db, columns - abs(db) + db))
    behind = (slice(abs(da) - da, rows - abs(da) - da), slice(abs(db) - db, columns - abs(db) - db))
    between = present[ahead] & present[behind] & (2 * height[top, left] >= height[ahead] + height[behind])
    keep[top, left] &= ~between


def largest_distance(points: Array, block: int = 1024) -> float:
    """Between any two of (n, 3) points. Pairs are looked at where their distances from the middle can make it."""
    if len(points) < 2:
        return 0.0
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    radius = np.linalg.norm(points - middle, axis=1)
    order = np.argsort(-radius)
    points, radius = points[order], radius[order]
    best = 0.0
    for start in range(0, len(points), block):
        if radius[start] + radius[0] <= best:
            break
        some = points[start : start + block]
        reach = int(np.searchsorted(-radius, -(best - radius[start]), side="right"))
        rest = points[: max(reach, 1)]
        for begin in range(0, len(rest), block):
            apart = some[:, None, :] - rest[None, begin : begin + block, :]
            best = max(best, float(np.einsum("ijk,ijk->ij", apart, apart).max()) ** 0.5)
    return best
