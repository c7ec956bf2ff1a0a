"""A series as one array of calibrated values on a regular grid in patient coordinates.

CT and MR: stored value * slope + intercept (PS3.3 C.11.1.1.2), by slice. PET: standardised uptake value by body weight.
One slice is decoded at a time; the array itself is float32.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from adapters.dicom.headers import Header
from adapters.dicom.pixels import frames
from adapters.imaging.planes import Array, Opener, Plane
from models.errors import Unreadable

Values = NDArray[np.float32]
_CLOCK = re.compile(r"(\d\d):?(\d\d)?:?(\d\d)?(?:\.(\d{1,6}))?")


@dataclass(frozen=True)
class Grid:
    """Where voxels lie. Arrays are indexed (slice, row, column)."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    """mm between slices, between rows, between columns."""
    origin: tuple[float, ...]
    """mm, of the centre of voxel (0, 0, 0)."""
    row: tuple[float, ...]
    """Direction in which columns count."""
    column: tuple[float, ...]
    """Direction in which rows count."""
    frame_of_reference: str = ""

    @cached_property
    def affine(self) -> Array:
        """4 x 4: (slice, row, column, 1) to patient coordinates in mm (left, posterior, superior)."""
        row, column = np.array(self.row), np.array(self.column)
        made = np.eye(4)
        made[:3, 0] = np.cross(row, column) * self.spacing[0]
        made[:3, 1] = column * self.spacing[1]
        made[:3, 2] = row * self.spacing[2]
        made[:3, 3] = self.origin
        return made

    @cached_property
    def inverse(self) -> Array:
        return np.asarray(np.linalg.inv(self.affine), np.float64)

    def indices(self, points: Array) -> Array:
        """(n, 3) points in mm as (n, 3) fractional indices (slice, row, column)."""
        found: Array = points @ self.inverse[:3, :3].T + self.inverse[:3, 3]
        return found

    @property
    def voxel(self) -> float:
        """mm3"""
        return self.spacing[0] * self.spacing[1] * self.spacing[2]


@dataclass(frozen=True)
class Volume:
    grid: Grid
    values: Values
    scale: str
    """What a value is: HU, SUVbw or arbitrary."""
    planes: tuple[Plane, ...]
    """By slice."""


def grid_of(planes: Sequence[Plane], step: float) -> Grid:
    """The grid of planes that quality control found to be one stack."""
    first = planes[0]
    image = first.header.image
    if image is None:
        raise Unreadable("no image", where="(0028,0010)")
    return Grid(
        (len(planes), image.rows, image.columns),
        (step, float(first.spacing[0]), float(first.spacing[1])),
        first.position,
        first.orientation[:3],
        first.orientation[3:],
        image.frame_of_reference,
    )


def volume_of(planes: Sequence[Plane], step: float, open_object: Opener) -> Volume:
    """Decode and calibrate. Raises: Unreadable (PET without what SUV needs, a slice without pixels, ...), Malformed,
    TooLarge, as the decoding of pixels does."""
    grid = grid_of(planes, step)
    scale, factor = calibration([plane.header for plane in planes])
    if scale == "HU" and not all(plane.calibrated for plane in planes):
        scale = "arbitrary"
    values = np.empty(grid.shape, np.float32)
    place = {(plane.header.sop_uid, plane.frame): at for at, plane in enumerate(planes)}
    done = 0
    for header in {plane.header.sop_uid: plane.header for plane in planes}.values():
        with open_object(header) as stream:
            for frame, pixels in frames(stream):
                at = place.get((header.sop_uid, frame))
                if at is None:
                    continue
                if pixels.shape != grid.shape[1:]:
                    raise Unreadable("a slice of another size than its header says", where="(7FE0,0010)")
                plane = planes[at]
                with np.errstate(all="ignore"):  # what overflows is refused below
                    np.multiply(pixels, plane.slope * factor, out=values[at], casting="unsafe")
                    values[at] += plane.intercept * factor
                done += 1
    if done != grid.shape[0]:
        raise Unreadable("a slice has no pixels", where="(7FE0,0010)")
    if not all(np.isfinite(plane).all() for plane in values):
        raise Unreadable("a calibrated value is not a finite number", where="(0028,1053)")
    return Volume(grid, values, scale, tuple(planes))


def calibration(headers: Sequence[Header]) -> tuple[str, float]:
    """Scale and the factor of rescaled values. Raises: Unreadable, where a PET series lacks what SUV needs."""
    first = headers[0]
    if first.series.modality == "PT":
        return "SUVbw", suv_factor(headers)
    kinds = {header.image.rescale_type for header in headers if header.image}
    if first.series.modality == "CT" and kinds <= {"", "HU"}:
        return "HU", 1.0
    return "arbitrary", 1.0


def suv_factor(headers: Sequence[Header]) -> float:
    """SUV by body weight (g/mL) for one rescaled unit of a PET series:

        weight in g / (injected dose in Bq * 2 ** (-(scan - injection) / half-life))

    with activity concentration in Bq/mL, decay-corrected to the start of the series (QIBA's vendor-neutral rule for
    Decay Correction START: the series time is the reference, where it is not after the first acquisition). GML is SUV
    by body weight already; CNTS needs Philips' own factor (7053,1000).

    Raises: Unreadable, with the tag that is missing or contradicts.
    """
    said = {header.nuclear for header in headers}
    weights = {header.patient.weight for header in headers}
    if (
        len(
            {
                (one.units, one.decay_correction, one.dose, one.half_life, one.injected, one.factor, one.suv_type)
                for one in said
                if one
            }
        )
        != 1
    ):
        raise Unreadable("the slices do not say the same of the tracer, or nothing", where="(0054,0016)")
    nuclear = next(one for one in said if one)
    if nuclear.units == "GML":
        if nuclear.suv_type not in ("", "BW"):
            raise Unreadable("an uptake value by something else than body weight", where="(0054,1006)")
        return 1.0
    if nuclear.units == "CNTS" and nuclear.factor:
        return nuclear.factor
    if nuclear.units != "BQML":
        raise Unreadable("units of which no SUV can be computed", where="(0054,1001)")
    if not {"DECY", "ATTN"} <= set(nuclear.corrections):
        raise Unreadable("not corrected for decay and attenuation", where="(0028,0051)")
    if nuclear.decay_correction != "START":
        raise Unreadable("not decay-corrected to the start of the scan", where="(0054,1102)")
    weight = next(iter(weights))
    if len(weights) != 1 or weight is None or not 0.2 <= weight <= 700:
        raise Unreadable("no weight of the patient that can be used", where="(0010,1030)")
    if nuclear.dose is None or nuclear.dose <= 0:
        raise Unreadable("no injected dose", where="(0018,1074)")
    if nuclear.half_life is None or nuclear.half_life <= 0:
        raise Unreadable("no half-life", where="(0018,1075)")
    waited = _waited(headers, nuclear.injected)
    if not 0 <= waited <= 8 * nuclear.half_life:
        raise Unreadable("the injection is not within eight half-lives before the scan", where="(0018,1072)")
    return float(weight * 1000.0 / (nuclear.dose * 2.0 ** (-waited / nuclear.half_life)))


def _waited(headers: Sequence[Header], injected: str) -> float:
    """Seconds from the injection to the start of the scan."""
    starts = {_moment(header.series.date, header.series.time) for header in headers}
    acquired = [_moment(header.acquisition_date, header.acquisition_time) for header in headers]
    start = next(iter(starts))
    if len(starts) != 1 or start is None:
        raise Unreadable("no one date and time of the series", where="(0008,0031)")
    known = [moment for moment in acquired if moment is not None]
    if not known or start > min(known):
        raise Unreadable(
            "the series is dated after its acquisition: its time is not that of the scan", where="(0008,0031)"
        )
    if len(injected) >= 14 and injected[:14].isdigit():
        given = _moment(injected[:8], injected[8:].split("+")[0].split("-")[0])
    else:
        given = _moment(start.strftime("%Y%m%d"), injected)
        if given is not None and given > start:  # only a time of day is known: it was before midnight
            given -= timedelta(days=1)
    if given is None:
        raise Unreadable("no time of the injection", where="(0018,1072)")
    return (start - given).total_seconds()


def _moment(day: str, clock: str) -> datetime | None:
    """Local time as it stands: both ends of the interval are of one scanner's clock."""
    found = _CLOCK.fullmatch(clock.strip())
    if not found or not re.fullmatch(r"\d{8}", day):
        return None
    try:
        made = datetime.strptime(day, "%Y%m%d")  # noqa: DTZ007 (a difference of two readings of one clock)
        return made + timedelta(
            hours=int(found[1]),
            minutes=int(found[2] or 0),
            seconds=int(found[3] or 0),
            microseconds=int((found[4] or "").ljust(6, "0")),
        )
    except ValueError:
        return None
