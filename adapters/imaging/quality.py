"""Quality control of a series before anything is measured on it.

Features of a stack with a missing slice are numbers like any others; nobody sees it afterwards. So what a volume needs
is looked at first (PS3.3 C.7.6.2: position, orientation, spacing), and what a reader of the numbers should know is
kept with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from adapters.dicom.headers import Header, ScannerOf
from adapters.imaging.findings import Finding, Verdict, Weight, refused, verdict
from adapters.imaging.planes import Array, Plane
from models.errors import BadInput

VOLUMETRIC = frozenset({"CT", "MR", "PT"})
"""Modalities whose series are stacks of calibrated or at least comparable slices."""
TEXT_AT_RISK = frozenset({"US", "IVUS", "ES", "GM", "XC", "SC", "OT", "XA", "RF"})
"""Modalities whose pixels often hold names and dates, whatever (0028,0301) says."""
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MIN_SLICES = 3
SPACING_TOLERANCE = 0.01
"""Of the median distance between slices: what a distance may differ and count as the same; never less than 0.01 mm,
because positions are decimal strings."""
PARALLEL = 1e-4
"""How far the cosines of two orientations may differ."""
SMALLEST, LARGEST, FARTHEST = 1e-3, 1e3, 1e5
"""mm: pixel spacings and positions beyond these are typing errors, or an attack on arithmetic."""
TILT = 0.01
"""Of the distance between slices: how far a slice may lie beside the one before it, along rows or columns."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What was found, the planes in their order along the normal, and the distance between them."""

    findings: tuple[Finding, ...]
    planes: tuple[Plane, ...]
    step: float
    """mm; 0 where no volume can be made."""
    scanners: tuple[ScannerOf, ...]

    @property
    def verdict(self) -> Verdict:
        return verdict(self.findings)


def looked_at(headers: Sequence[Header], planes: Callable[[], Sequence[Plane]], max_voxels: int) -> Quality:
    """The findings about one series; `planes` is asked only where the headers alone do not refuse it. Never raises for
    what is wrong with the series: that is a finding."""
    findings = [*_objects(headers), *_mixed(headers)]
    ordered: tuple[Plane, ...] = ()
    step = 0.0
    if verdict(findings) is not Verdict.REFUSED:
        try:
            found, ordered, step = _geometry(planes())
        except BadInput as error:
            found = [refused("no-geometry", error.what, error.where or "")]
        findings += found
        image = headers[0].image
        if image is not None and image.rows * image.columns * len(ordered) > max_voxels:
            findings.append(refused("too-large", f"more than {max_voxels} voxels", "(0028,0010)"))
    return Quality(tuple(findings), ordered, step, _scanners(headers))


def _scanners(headers: Sequence[Header]) -> tuple[ScannerOf, ...]:
    return tuple(dict.fromkeys(header.scanner for header in headers))


def _objects(headers: Sequence[Header]) -> list[Finding]:
    """What the objects say of themselves."""
    findings: list[Finding] = []
    modalities = {header.series.modality for header in headers}
    images = [header.image for header in headers if header.image is not None]
    if len(images) < len(headers):
        findings.append(refused("no-image", "an object of the series has no image", "(0028,0010)"))
    if any(image.burned_in == "YES" for image in images):
        findings.append(refused("burned-in-text", "text is burned into the pixels", "(0028,0301)"))
    elif modalities & TEXT_AT_RISK or any(header.sop_class.startswith(SECONDARY_CAPTURE) for header in headers):
        findings.append(refused("text-at-risk", "a class of images that often holds text in its pixels", "(0008,0060)"))
    if not modalities <= VOLUMETRIC:
        findings.append(refused("not-a-volume", "a modality whose images are no stack of slices", "(0008,0060)"))
    if any(image.samples != 1 or not image.photometric.startswith("MONOCHROME") for image in images):
        findings.append(refused("colour", "colour images have no calibrated values", "(0028,0004)"))
    if any(image.lossy == "01" for image in images):
        findings.append(
            Finding("lossy", "the images were compressed with loss: texture is not the scanner's", "(0028,2110)")
        )
    if any("DERIVED" in header.image_type[:1] for header in headers):
        findings.append(Finding("derived", "the images are derived, not original", "(0008,0008)", Weight.NOTE))
    if any(header.problems for header in headers):
        findings.append(Finding("bad-elements", "elements of the header are not of their kind", "", Weight.NOTE))
    return findings


def _mixed(headers: Sequence[Header]) -> list[Finding]:
    """What must be the same in all objects of one stack."""
    rows: tuple[tuple[str, str, str, Callable[[Header], object], Weight], ...] = (
        ("mixed-size", "rows or columns differ", "(0028,0010)", _size, Weight.REFUSAL),
        ("mixed-frame", "the frame of reference differs", "(0020,0052)", _frame, Weight.REFUSAL),
        ("mixed-modality", "the modality differs", "(0008,0060)", lambda one: one.series.modality, Weight.REFUSAL),
        (
            "mixed-kernel",
            "the reconstruction kernel differs",
            "(0018,1210)",
            lambda one: one.scanner.kernel,
            Weight.REFUSAL,
        ),
        ("mixed-scanner", "the scanner or its software differs", "(0018,1020)", _scanner, Weight.CAUTION),
        ("mixed-kvp", "the tube voltage differs", "(0018,0060)", lambda one: one.scanner.kvp, Weight.CAUTION),
    )
    return [
        Finding(code, f"{words} within the series", where, weight)
        for code, words, where, of, weight in rows
        if len({of(header) for header in headers}) > 1
    ]


def _size(header: Header) -> object:
    image = header.image
    return (image.rows, image.columns) if image else None


def _frame(header: Header) -> object:
    return header.image.frame_of_reference if header.image else None


def _scanner(header: Header) -> object:
    scanner = header.scanner
    return scanner.manufacturer, scanner.model, scanner.software


def _geometry(planes: Sequence[Plane]) -> tuple[list[Finding], tuple[Plane, ...], float]:
    """Whether the planes are one regular stack. The order is that along their normal."""
    if not planes or not all(plane.placed for plane in planes):
        where = "(0020,0032)"
        return [refused("no-geometry", "position, orientation or pixel spacing is missing", where)], (), 0.0
    if not all(SMALLEST <= each <= LARGEST for plane in planes for each in plane.spacing):
        return [refused("no-geometry", "a pixel spacing that no image has", "(0028,0030)")], (), 0.0
    if not all(abs(each) <= FARTHEST for plane in planes for each in plane.position):
        return [refused("no-geometry", "a position that no image has", "(0020,0032)")], (), 0.0
    if not all(abs(each) <= 2 for plane in planes for each in plane.orientation):
        return [refused("orientation", "direction cosines that are none", "(0020,0037)")], (), 0.0
    orientations: Array = np.array([plane.orientation for plane in planes])
    first = orientations[0]
    square = abs(float(np.dot(first[:3], first[3:])))
    unit = max(abs(float(np.linalg.norm(first[:3])) - 1), abs(float(np.linalg.norm(first[3:])) - 1))
    if square > PARALLEL * 10 or unit > PARALLEL * 10:
        return [refused("orientation", "the row and column directions are no right angle", "(0020,0037)")], (), 0.0
    if float(np.abs(orientations - first).max()) > PARALLEL:
        return [refused("orientation", "the orientation differs within the series", "(0020,0037)")], (), 0.0
    spacings: Array = np.array([plane.spacing for plane in planes])
    if float(np.abs(spacings - spacings[0]).max()) > 1e-4 * float(spacings[0].max()):
        return [refused("mixed-size", "the pixel spacing differs within the series", "(0028,0030)")], (), 0.0
    ordered = tuple(sorted(planes, key=lambda plane: (plane.depth, plane.header.sop_uid, plane.frame)))
    if len(ordered) < MIN_SLICES:
        return [refused("too-few", f"fewer than {MIN_SLICES} slices", "(0020,0032)")], ordered, 0.0
    positions: Array = np.array([plane.position for plane in ordered])
    moves = np.diff(positions, axis=0)
    gaps: Array = moves @ ordered[0].normal
    return _gaps(gaps, moves, ordered)


def _gaps(gaps: Array, moves: Array, ordered: tuple[Plane, ...]) -> tuple[list[Finding], tuple[Plane, ...], float]:
    if float(gaps.min()) < 0.001:
        several = int((gaps < 0.001).sum())
        words = f"{several} slices lie where another one does (several times, echoes or stacks in one series)"
        return [refused("duplicate-position", words, "(0020,0032)")], ordered, 0.0
    step = float(np.median(gaps))
    tolerance = max(SPACING_TOLERANCE * step, 0.01)
    off = np.abs(gaps - step) > tolerance
    if off.any():
        times = gaps / step
        whole = np.abs(times - np.round(times)) * step <= tolerance * np.maximum(np.round(times), 1)
        if whole.all() and times.min() > 0.5:
            missing = int(np.round(times - 1).sum())
            return (
                [refused("missing-slices", f"{missing} slices are missing between the others", "(0020,0032)")],
                ordered,
                0.0,
            )
        words = f"{int(off.sum())} distances between slices differ from the others by more than 1 %"
        return [refused("uneven-spacing", words, "(0020,0032)")], ordered, 0.0
    sideways = np.abs(moves @ np.array([ordered[0].orientation[:3], ordered[0].orientation[3:]]).T)
    if float(sideways.max()) > max(TILT * step, 0.01):
        return (
            [refused("tilted", "the slices do not lie above each other (a tilted gantry)", "(0020,0032)")],
            ordered,
            0.0,
        )
    # the mean, so that the last slice lies where it says
    return [], ordered, float(gaps.mean())
