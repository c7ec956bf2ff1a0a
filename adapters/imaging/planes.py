"""The planes of a series: each frame's place in the patient, its size, and how its stored values are calibrated.

An image object is one plane, or as many as it has frames: then the functional groups (PS3.3 C.7.6.16) say each one's
place. Positions are those of the centre of the first pixel, in mm (C.7.6.2.1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from adapters.dicom.elements import parse
from adapters.dicom.frames import PER_FRAME, SHARED
from adapters.dicom.headers import Header
from adapters.dicom.values import Dataset
from models.errors import Unreadable

Opener = Callable[[Header], BinaryIO]
"""The object behind a header, as a Part 10 file that can be read and sought in; the caller of it closes it."""
Array = NDArray[np.float64]
MAX_FRAMES = 20_000


@dataclass(frozen=True, slots=True)
class Plane:
    """One frame."""

    header: Header
    frame: int
    """From 0."""
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    """mm between rows, mm between columns."""
    slope: float
    intercept: float
    calibrated: bool
    """Whether slope and intercept are stated."""

    @property
    def placed(self) -> bool:
        return len(self.position) == 3 and len(self.orientation) == 6 and len(self.spacing) == 2

    @property
    def normal(self) -> Array:
        return np.cross(np.array(self.orientation[:3]), np.array(self.orientation[3:]))

    @property
    def depth(self) -> float:
        """mm along the normal of its own plane."""
        return float(np.dot(self.normal, np.array(self.position)))


def planes_of(headers: Sequence[Header], open_object: Opener) -> list[Plane]:
    """Every frame of a series' images. Raises: Unreadable (an object's frames are not described), and what its parsing
    raises (Malformed, TooLarge)."""
    found: list[Plane] = []
    for header in headers:
        image = header.image
        if image is None:
            continue
        if header.frames is not None:
            found.extend(_enhanced(header, open_object))
        elif image.frames > 1:
            raise Unreadable("several frames without the groups that say where each lies", where="(5200,9230)")
        else:
            stated = image.slope is not None
            slope, intercept = image.slope if image.slope is not None else 1.0, image.intercept or 0.0
            found.append(Plane(header, 0, image.position, image.orientation, image.spacing, slope, intercept, stated))
        if len(found) > MAX_FRAMES:
            raise Unreadable(f"more than {MAX_FRAMES} frames in one series", where="(0028,0008)")
    return found


def _enhanced(header: Header, open_object: Opener) -> Iterator[Plane]:
    image = header.image
    with open_object(header) as stream:
        data = parse(stream, keep=frozenset((SHARED, PER_FRAME))).data
    shared, groups = data.item(SHARED), data.items(PER_FRAME)
    if image is None or len(groups) != image.frames:
        raise Unreadable("another number of frames than of their functional groups", where="(5200,9230)")
    for at, group in enumerate(groups):
        position, orientation, spacing = geometry_of(group, shared)
        transform = _either(group, shared, 0x00289145)
        slope, intercept = transform.number(0x00281053), transform.number(0x00281052)
        yield Plane(
            header,
            at,
            position,
            orientation,
            spacing,
            slope if slope is not None else 1.0,
            intercept or 0.0,
            slope is not None,
        )


def geometry_of(group: Dataset, shared: Dataset) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Position, orientation and pixel spacing of a frame, by its own group or the shared one."""
    return (
        _either(group, shared, 0x00209113).numbers(0x00200032),
        _either(group, shared, 0x00209116).numbers(0x00200037),
        _either(group, shared, 0x00289110).numbers(0x00280030),
    )


def _either(group: Dataset, shared: Dataset, tag: int) -> Dataset:
    return group.item(tag) if tag in group else shared.item(tag)
