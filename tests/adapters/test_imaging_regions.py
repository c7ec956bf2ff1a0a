"""Regions: segmentations that another program wrote, structure sets, rules."""

from __future__ import annotations

import contextlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.seg import SegmentationTypeValues
from pydicom.dataset import Dataset

from adapters.imaging.planes import planes_of
from adapters.imaging.quality import looked_at
from adapters.imaging.regions import Region, by_rule, filled, is_region, otsu, refers_to, regions_of
from adapters.imaging.volume import Volume, volume_of
from models.errors import BadInput, Unreadable
from tests.adapters.imaging_made import (
    PIXEL,
    SIZE,
    SLICES,
    STEP,
    ball,
    body,
    held,
    in_order,
    objects,
    segmentation,
    series,
    structure_set,
)
from tests.dicom_made import uid


@pytest.fixture(scope="module")
def rows() -> list[Dataset]:
    return series()


@pytest.fixture(scope="module")
def volume(rows: list[Dataset]) -> Volume:
    headers, opened = held(objects(*rows))
    found = looked_at(headers, lambda: planes_of(headers, opened), 1 << 24)
    return volume_of(found.planes, found.step, opened)


def regions(volume: Volume, made: Dataset) -> list[Region]:
    headers, opened = held(objects(made))
    assert is_region(headers[0])
    return list(regions_of(headers[0], volume, opened))


def whole(region: Region, volume: Volume) -> np.ndarray:
    mask = np.zeros(volume.grid.shape, bool)
    mask[region.box] = region.mask
    return mask


def test_segments_lie_where_they_were_drawn(rows: list[Dataset], volume: Volume) -> None:
    small = np.zeros((SLICES, SIZE, SIZE), bool)
    small[3:6, 10:14, 20:27] = True
    first, second = regions(volume, segmentation(rows, [ball(), small]))
    assert np.array_equal(whole(first, volume), ball())
    assert np.array_equal(whole(second, volume), small)
    assert second.mask.shape == (3, 4, 7)
    assert second.begin == (3, 10, 20)
    assert (first.label, first.algorithm, first.status, first.rule) == ("lesion 1", "made", "preliminary", "")
    assert not first.findings


def test_a_fraction_of_half_is_inside(rows: list[Dataset], volume: Volume) -> None:
    fractions = np.where(ball(), 0.9, 0.0)
    fractions[2, 5, 5], fractions[2, 5, 6] = 0.6, 0.4
    (region,) = regions(volume, segmentation(rows, [fractions], kind=SegmentationTypeValues.FRACTIONAL))
    expected = ball()
    expected[2, 5, 5] = True
    assert np.array_equal(whole(region, volume), expected)


def test_a_label_map_names_its_segments_by_value(rows: list[Dataset], volume: Volume) -> None:
    small = np.zeros((SLICES, SIZE, SIZE), bool)
    small[3:6, 10:14, 20:27] = True
    made = segmentation(rows, [ball() & ~small, small], kind=SegmentationTypeValues.LABELMAP)
    first, second = regions(volume, made)
    assert np.array_equal(whole(first, volume), ball() & ~small)
    assert np.array_equal(whole(second, volume), small)


def test_what_lies_on_another_grid_is_refused_not_resampled(rows: list[Dataset], volume: Volume) -> None:
    made = segmentation(rows, [ball()])
    for item in made.PerFrameFunctionalGroupsSequence:
        place = item.PlanePositionSequence[0].ImagePositionPatient
        item.PlanePositionSequence[0].ImagePositionPatient = [place[0], place[1], float(place[2]) + 1.0]
    (region,) = regions(volume, made)
    assert region.empty
    assert [finding.code for finding in region.findings] == ["other-grid"]


def test_frames_without_a_place_lie_on_the_image_they_were_derived_from(rows: list[Dataset], volume: Volume) -> None:
    made = segmentation(rows, [ball()])
    for item in made.PerFrameFunctionalGroupsSequence:
        del item.PlanePositionSequence
    (region,) = regions(volume, made)
    assert np.array_equal(whole(region, volume), ball())


def test_what_somebody_rejected_is_not_measured(rows: list[Dataset], volume: Volume) -> None:
    made = segmentation(rows, [ball()])
    made.ApprovalStatus = "REJECTED"
    (region,) = regions(volume, made)
    assert (region.empty, region.status) == (True, "cancelled")
    made.ApprovalStatus = "APPROVED"
    (region,) = regions(volume, made)
    assert (region.empty, region.status) == (False, "final")


def test_a_segmentation_of_another_series_is_not_of_this_one(rows: list[Dataset]) -> None:
    (header,), _ = held(objects(segmentation(rows, [ball()])))
    assert refers_to(header, rows[0].SeriesInstanceUID, "")
    assert not refers_to(header, uid("another"), rows[0].FrameOfReferenceUID)


def test_a_real_segmentation_of_one_slice(peer_data: Path) -> None:
    """One CT slice and its segmentation, as the archive of highdicom's tests has them: too few slices for a volume, and
    the mask is what highdicom's own reader says."""
    folder = peer_data / "dicom" / "highdicom"
    image, made = folder / "ct_image.dcm", folder / "seg_image_ct_binary.dcm"
    given = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path.read_bytes() for path in (image,)}
    headers, opened = held(given)
    planes = planes_of(headers, opened)
    one = volume_of(planes, 1.25, opened)
    seg_headers, seg_opened = held({str(pydicom.dcmread(made).SOPInstanceUID): made.read_bytes()})
    found = list(regions_of(seg_headers[0], one, seg_opened))
    assert found
    frames = pydicom.dcmread(made).pixel_array
    assert {int(region.mask.sum()) for region in found if not region.empty} <= {int(each.sum()) for each in frames}


# ---- structure sets --------------------------------------------------------------------------------------------------


def circle(z: float, radius: float, points: int = 200) -> np.ndarray:
    """About the middle of the image, in mm."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    middle = np.array([-20, -30]) + (SIZE - 1) / 2 * PIXEL
    return np.column_stack([middle[0] + radius * np.cos(turn), middle[1] + radius * np.sin(turn), np.full(points, z)])


def test_contours_are_filled_at_the_centres_of_voxels(rows: list[Dataset], volume: Volume) -> None:
    made = structure_set(rows, [circle(STEP * at, 7.3) for at in (4, 5, 6)])
    (region,) = regions(volume, made)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    expected = np.zeros(volume.grid.shape, bool)
    expected[4:7] = (y**2 + x**2) * PIXEL**2 < 7.3**2
    assert np.array_equal(whole(region, volume), expected)
    assert (region.label, region.status, region.algorithm) == ("GTV", "preliminary", "manual")


def test_a_contour_inside_another_is_a_hole(rows: list[Dataset], volume: Volume) -> None:
    made = structure_set(rows, [circle(STEP * 4, 9), circle(STEP * 4, 4)])
    (region,) = regions(volume, made)
    area = region.mask.sum() * PIXEL**2
    assert area == pytest.approx(np.pi * (81 - 16), rel=0.03)


def test_a_contour_between_slices_is_refused(rows: list[Dataset], volume: Volume) -> None:
    (region,) = regions(volume, structure_set(rows, [circle(STEP * 4.4, 9)]))
    assert [finding.code for finding in region.findings] == ["other-grid"]
    (outside,) = regions(volume, structure_set(rows, [circle(STEP * 400, 9)]))
    assert outside.empty


def test_a_contour_of_words_is_unreadable(rows: list[Dataset], volume: Volume) -> None:
    made = structure_set(rows, [circle(0, 9)])
    raw = next(iter(objects(made).values()))
    at = raw.index(b"\x06\x30\x50\x00")
    broken = raw[: at + 8] + b"words" + raw[at + 13 :]
    headers, opened = held({str(made.SOPInstanceUID): broken})
    with pytest.raises(Unreadable) as error:
        list(regions_of(headers[0], volume, opened))
    assert error.value.where == "(3006,0050)"


def test_polygons_are_filled_as_by_the_winding_of_a_ray() -> None:
    rng = np.random.default_rng(4)
    for _ in range(10):
        polygon = rng.uniform(-3, 15, (7, 2))
        found = filled(polygon, 12, 12)
        for row in range(12):
            for column in range(12):
                assert found[row, column] == by_ray(polygon, row, column)


def by_ray(polygon: np.ndarray, row: float, column: float) -> bool:
    inside = False
    for (y0, x0), (y1, x1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y0 > row) != (y1 > row) and column >= x0 + (row - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
    return inside


# ---- rules and bad input ---------------------------------------------------------------------------------------------


def test_the_body_in_ct_and_the_foreground_in_mr(volume: Volume) -> None:
    region = by_rule(volume, "CT")
    assert region is not None
    assert np.array_equal(whole(region, volume), np.broadcast_to(body(), volume.grid.shape))
    assert (region.rule, region.status, region.observation) == ("ct-body", "preliminary", "")
    threshold = otsu(volume)
    assert -900 < threshold < 0
    bright = by_rule(volume, "MR")
    assert bright is not None
    assert bright.mask.sum() == body().sum() * SLICES
    assert by_rule(volume, "PT") is None


def test_a_damaged_segmentation_never_ends_in_anything_but_our_errors(rows: list[Dataset], volume: Volume) -> None:
    made = segmentation(in_order(rows), [ball()])
    (name, raw), *_ = objects(made).items()
    headers, _ = held({name: raw})
    rng = np.random.default_rng(6)
    refused = 0
    for at in range(60):
        broken = bytearray(raw[: int(rng.integers(200, len(raw)))] if at % 3 == 0 else raw)
        for place in rng.integers(132, len(broken), 12):
            broken[place] = int(rng.integers(256))
        body_of = bytes(broken)
        with contextlib.suppress(BadInput):
            refused += 1
            assert all(region.mask.size >= 0 for region in regions_of(headers[0], volume, lambda _: BytesIO(body_of)))  # noqa: B023
            refused -= 1
    assert refused > 10
