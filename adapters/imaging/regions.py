"""Regions on a volume's grid: segments of a segmentation, contours of a structure set, or a stated rule.

Nothing is resampled: a region that was drawn on another grid is refused. A region is kept as the box around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from adapters.dicom import values
from adapters.dicom.content import ANATOMY, key_of
from adapters.dicom.elements import parse
from adapters.dicom.frames import PER_FRAME, SHARED
from adapters.dicom.headers import Code, Header
from adapters.dicom.pixels import frames
from adapters.dicom.stated import algorithm_of
from adapters.dicom.values import Dataset
from adapters.hl7v2.local_ids import local_id
from adapters.imaging.components import largest_component
from adapters.imaging.findings import Finding, refused
from adapters.imaging.planes import Array, Opener, geometry_of
from adapters.imaging.quality import FARTHEST
from adapters.imaging.volume import Grid, Volume
from models.errors import TooLarge, Unreadable

Mask = NDArray[np.bool_]
SEGMENTATION, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
FRACTION = 0.5
"""Of Maximum Fractional Value (0062,000E): from there on a voxel of a fractional segment is inside."""
OFF_GRID = 0.05
"""Of a voxel: how far a segmentation's plane may lie beside the image's."""
OFF_PLANE = 0.25
"""Of the distance between slices: how far a contour may lie above or below its slice."""
MAX_REGIONS = 256
_SEGMENT_TAGS = frozenset({SHARED, PER_FRAME, 0x00620001, 0x00620002, 0x0062000E, 0x300E0002})
_ROI_TAGS = frozenset({0x30060020, 0x30060039, 0x30060080, 0x300E0002})
MAX_POINTS = 2_000_000
"""Of all contours of a structure set."""
BODY_ABOVE = -500.0
"""HU"""


@dataclass(frozen=True)
class Region:
    """Voxels of a volume, as the box around them."""

    key: str
    """What it is of: the id of its Observation (`segment-...`), or the name of the rule."""
    label: str
    mask: Mask
    begin: tuple[int, int, int]
    """Index of the box's first voxel."""
    rule: str = ""
    """How it was made, where nobody drew it."""
    site: Code | None = None
    """The part of the body that it is of, where that is stated."""
    algorithm: str = ""
    observation: str = ""
    """Local id of the Observation that states the segment or region; empty for a rule."""
    status: str = "preliminary"
    """As that Observation's: final where a person drew or approved it; a rule's is never more than preliminary, so that
    no model takes the body for a lesion."""
    findings: tuple[Finding, ...] = field(default=())

    @property
    def box(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(at, at + size) for at, size in zip(self.begin, self.mask.shape, strict=True))
        return z, y, x

    @property
    def empty(self) -> bool:
        return self.mask.size == 0


def boxed(mask: Mask) -> tuple[Mask, tuple[int, int, int]]:
    """The box around a mask, and where it begins; an empty mask gives an empty box."""
    spans = []
    for axis in range(3):
        inside = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not inside.size:
            return np.zeros((0, 0, 0), bool), (0, 0, 0)
        spans.append((int(inside[0]), int(inside[-1]) + 1))
    cut = np.ascontiguousarray(mask[tuple(slice(*span) for span in spans)])
    return cut, (spans[0][0], spans[1][0], spans[2][0])


def is_region(header: Header) -> bool:
    return header.sop_class in (SEGMENTATION, LABEL_MAP, STRUCTURE_SET)


def refers_to(header: Header, series: str, frame_of_reference: str) -> bool:
    """Whether an object's regions are drawn on a series: it names it, or names none and shares its coordinates."""
    if header.references:
        return any(row.series == series for row in header.references)
    own = header.image.frame_of_reference if header.image else ""
    return bool(own) and own == frame_of_reference


def regions_of(header: Header, volume: Volume, open_object: Opener) -> Iterator[Region]:
    """The regions of one object, in the order of their numbers. What does not fit the grid is a region without voxels,
    with the finding. Raises: Malformed, Unreadable, TooLarge (the object cannot be read)."""
    if header.sop_class == STRUCTURE_SET:
        yield from _contoured(header, volume.grid, open_object)
    else:
        yield from _segmented(header, volume, open_object)


# ---- segmentations (PS3.3 A.51, C.8.20) ------------------------------------------------------------------------------


def _segmented(header: Header, volume: Volume, open_object: Opener) -> Iterator[Region]:
    with open_object(header) as stream:
        data = parse(stream, keep=_SEGMENT_TAGS).data
    segments = {segment.whole(0x00620004) or at + 1: segment for at, segment in enumerate(data.items(0x00620002))}
    if len(segments) > MAX_REGIONS:
        raise TooLarge(f"more than {MAX_REGIONS} segments", where="(0062,0002)")
    threshold = 1.0
    if data.text(0x00620001) == "FRACTIONAL":
        threshold = FRACTION * (data.number(0x0062000E) or 255)
    shared, groups = data.item(SHARED), data.items(PER_FRAME)
    places = [_slice_of(group, shared, volume) for group in groups]
    numbers = [(_group(group, shared, 0x0062000A).whole(0x0062000B) or 0) for group in groups]
    stacks: dict[int, dict[int, NDArray[np.uint8]]] = {number: {} for number in segments}
    misfits: set[int] = set()
    label_map = header.sop_class == LABEL_MAP or data.text(0x00620001) == "LABELMAP"
    with open_object(header) as stream:
        for frame, pixels in frames(stream):
            if frame >= len(places):
                raise Unreadable("more frames than functional groups", where="(5200,9230)")
            present = np.unique(pixels).tolist() if label_map else [numbers[frame]]
            for number in present:
                if number not in stacks:
                    continue
                inside = pixels == number if label_map else pixels >= threshold
                at = places[frame]
                if at is None or inside.shape != volume.grid.shape[1:]:
                    if inside.any():
                        misfits.add(number)
                    continue
                before = stacks[number].get(at)
                packed = np.packbits(inside)
                stacks[number][at] = packed if before is None else packed | before
    for number, segment in sorted(segments.items()):
        region = _segment(header, number, segment, stacks[number], number in misfits, volume.grid)
        yield _judged(region, data.text(0x300E0002), segment.text(0x00620008) == "AUTOMATIC")


def _judged(region: Region, approval: str, unseen: bool) -> Region:
    """With its status: what somebody rejected is not measured; what nobody saw is preliminary."""
    if approval == "REJECTED":
        words = "somebody rejected this region"
        nothing: Mask = np.zeros((0, 0, 0), bool)
        finding = refused("rejected", words, "(300E,0002)")
        return replace(region, mask=nothing, status="cancelled", findings=(finding,))
    return replace(region, status="preliminary" if unseen and approval != "APPROVED" else "final")


def _group(group: Dataset, shared: Dataset, tag: int) -> Dataset:
    return group.item(tag) if tag in group else shared.item(tag)


def _segment(
    header: Header, number: int, segment: Dataset, stack: dict[int, NDArray[np.uint8]], misfit: bool, grid: Grid
) -> Region:
    code = segment.code(0x0062000F)
    stated = local_id("segment", header.sop_uid, str(number))
    label = segment.text(0x00620005) or (code.meaning if code else "") or f"segment {number}"
    algorithm = segment.text(0x00620009) or algorithm_of(segment.item(0x00620007)) or segment.text(0x00620008).lower()
    findings: tuple[Finding, ...] = ()
    mask: Mask = np.zeros((0, 0, 0), bool)
    begin = (0, 0, 0)
    if misfit:
        words = "a segment lies on another grid than its images, and nothing is resampled"
        findings = (refused("other-grid", words, "(0020,0032)"),)
    elif stack:
        low, high = min(stack), max(stack)
        full: Mask = np.zeros((high - low + 1, *grid.shape[1:]), bool)
        size = grid.shape[1] * grid.shape[2]
        for at, packed in stack.items():
            full[at - low] = np.unpackbits(packed, count=size).reshape(grid.shape[1:])
        mask, begin = boxed(full)
        begin = (begin[0] + low, begin[1], begin[2])
    if not mask.size and not findings:
        findings = (refused("empty-region", "a segment without a voxel inside", "(0062,0002)"),)
    site = segment.code(0x00082218)
    if site is None and key_of(segment.code(0x00620003)) in ANATOMY:
        site = code
    return Region(stated, label, mask, begin, "", _code(site), algorithm, stated, findings=findings)


def _code(code: values.Code | None) -> Code | None:
    return Code(code.value, code.scheme, code.meaning, code.scheme_uid) if code is not None else None


def _slice_of(group: Dataset, shared: Dataset, volume: Volume) -> int | None:
    """The slice that a frame lies on, by its position; by the image it was derived from, where it has none."""
    grid = volume.grid
    position, orientation, spacing = geometry_of(group, shared)
    if len(position) == 3:
        if len(orientation) == 6 and np.abs(np.array(orientation) - np.array((*grid.row, *grid.column))).max() > 1e-3:
            return None
        if len(spacing) == 2 and np.abs(np.array(spacing) / np.array(grid.spacing[1:]) - 1).max() > 1e-3:
            return None
        if max(map(abs, position)) > FARTHEST:
            return None
        index = grid.indices(np.array([position]))[0]
        nearest = round(float(index[0]))
        off = np.abs(index - (nearest, 0, 0))
        return nearest if 0 <= nearest < grid.shape[0] and float(off.max()) <= OFF_GRID else None
    source = _group(group, shared, 0x00089124).item(0x00082112)
    uid, frame = source.uid(0x00081155), (source.whole(0x00081160) or 1) - 1
    for at, plane in enumerate(volume.planes):
        if plane.header.sop_uid == uid and plane.frame == frame:
            return at
    return None


# ---- structure sets (PS3.3 A.19, C.8.8.6) ----------------------------------------------------------------------------


def _contoured(header: Header, grid: Grid, open_object: Opener) -> Iterator[Region]:
    with open_object(header) as stream:
        data = parse(stream, keep=_ROI_TAGS).data
    said = {item.whole(0x30060084): item for item in reversed(data.items(0x30060080))}
    drawn = {item.whole(0x30060084): item for item in reversed(data.items(0x30060039))}
    if len(data.items(0x30060020)) > MAX_REGIONS:
        raise TooLarge(f"more than {MAX_REGIONS} regions", where="(3006,0020)")
    points = 0
    for at, item in enumerate(data.items(0x30060020)):
        number = item.whole(0x30060022)
        number = at + 1 if number is None else number
        contours = [_points(each) for each in drawn.get(number, Dataset()).items(0x30060040)]
        points += sum(map(len, contours))
        if points > MAX_POINTS:
            raise TooLarge(f"more than {MAX_POINTS} points", where="(3006,0050)")
        about = said.get(number, Dataset())
        code = about.code(0x30060086)
        label = item.text(0x30060026) or (code.meaning if code else "") or f"region {number}"
        algorithm = item.text(0x30060038) or item.text(0x30060036).lower()
        stated = local_id("roi", header.sop_uid, str(number))
        mask, begin, findings = _rasterised([each for each in contours if len(each)], grid)
        site = _code(about.code(0x00082218))
        region = Region(stated, label, mask, begin, "", site, algorithm, stated, findings=findings)
        yield _judged(region, data.text(0x300E0002), True)


def _points(contour: Dataset) -> Array:
    """(n, 3) mm of a closed planar contour; none for points, lines and what is no list of numbers."""
    element = contour.elements.get(0x30060050)
    if element is None or not contour.text(0x30060042).startswith("CLOSED"):
        return np.zeros((0, 3))
    try:
        found = np.array([float(each) for each in element.raw.rstrip(b"\0 ").split(b"\\")], np.float64)
    except ValueError:
        raise Unreadable("a contour that is no list of numbers", where="(3006,0050)") from None
    if found.size % 3 or not (np.abs(found) <= FARTHEST).all():
        raise Unreadable("a contour that is no list of points", where="(3006,0050)")
    return found.reshape(-1, 3)


def _rasterised(contours: Sequence[Array], grid: Grid) -> tuple[Mask, tuple[int, int, int], tuple[Finding, ...]]:
    """A voxel is inside where its centre is, by the even-odd rule over all contours of its slice: a contour inside
    another is a hole, and so is a keyhole."""
    nothing: Mask = np.zeros((0, 0, 0), bool)
    if not contours:
        return nothing, (0, 0, 0), (refused("empty-region", "a region without a closed contour", "(3006,0040)"),)
    slices: dict[int, Mask] = {}
    for points in contours:
        indices = grid.indices(points)
        at = round(float(indices[:, 0].mean()))
        if not 0 <= at < grid.shape[0] or float(np.abs(indices[:, 0] - at).max()) > OFF_PLANE:
            words = "a contour does not lie on a slice of the images"
            return nothing, (0, 0, 0), (refused("other-grid", words, "(3006,0050)"),)
        inside = filled(indices[:, 1:], grid.shape[1], grid.shape[2])
        slices[at] = slices[at] ^ inside if at in slices else inside
    low, high = min(slices), max(slices)
    full: Mask = np.zeros((high - low + 1, *grid.shape[1:]), bool)
    for at, inside in slices.items():
        full[at - low] = inside
    mask, begin = boxed(full)
    if not mask.size:
        words = "a region too small to hold the centre of a voxel"
        return nothing, (0, 0, 0), (refused("empty-region", words, "(3006,0040)"),)
    return mask, (begin[0] + low, begin[1], begin[2]), ()


def filled(polygon: Array, rows: int, columns: int) -> Mask:
    """Pixels whose centres lie inside a polygon of (row, column), even-odd; one on the left or upper edge is in."""
    y0, x0 = polygon[:, 0], polygon[:, 1]
    y1, x1 = np.roll(y0, -1), np.roll(x0, -1)
    toggles = np.zeros((rows, columns + 1), np.int32)
    for row in range(max(0, int(np.ceil(y0.min()))), min(rows - 1, int(np.floor(y0.max()))) + 1):
        crosses = (y0 <= row) != (y1 <= row)
        x = x0[crosses] + (row - y0[crosses]) * (x1[crosses] - x0[crosses]) / (y1[crosses] - y0[crosses])
        first = np.clip(np.ceil(x), 0, columns).astype(np.int64)
        np.add.at(toggles[row], first, 1)
    found: Mask = (np.cumsum(toggles[:, :-1], axis=1) % 2).astype(bool)
    return found


# ---- rules -----------------------------------------------------------------------------------------------------------


def by_rule(volume: Volume, modality: str) -> Region | None:
    """What is measured where nobody drew anything; never a lesion. CT: the body, voxels over -500 HU. MR: what is
    brighter than Otsu's threshold (256 bins between the extremes). Of both the largest part that hangs together. Other
    modalities have no rule: what is bright in PET is an organ as often as not."""
    if modality == "CT" and volume.scale == "HU":
        name, label, threshold = "ct-body", "body (rule: over -500 HU, largest part)", BODY_ABOVE
    elif modality == "MR":
        name, label, threshold = "mr-bright", "foreground (rule: over Otsu's threshold, largest part)", otsu(volume)
    else:
        return None
    mask, begin = boxed(largest_component(volume.values > threshold))
    return Region(name, label, mask, begin, name) if mask.size else None


def otsu(volume: Volume) -> float:
    """The threshold with the greatest variance between the two classes (Otsu 1979), over all voxels."""
    low, high = float(volume.values.min()), float(volume.values.max())
    if high <= low:
        return high
    counts = np.zeros(256, np.int64)
    for plane in volume.values:
        counts += np.histogram(plane, bins=256, range=(low, high))[0]
    centres = low + (np.arange(256) + 0.5) * (high - low) / 256
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    gap = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * gap**2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))  # as good anywhere in a gap: its middle
    return float(low + (best.mean() + 1) * (high - low) / 256)
