"""Features of regions: the IBSI digital phantom's values, and shapes whose numbers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adapters.imaging.catalogue import FEATURES
from adapters.imaging.components import largest_component, zone_sizes
from adapters.imaging.first_order import first_order
from adapters.imaging.mesh import volume_and_area
from adapters.imaging.shape import shape
from adapters.imaging.texture import Discretisation, discretised, texture
from tests.adapters.imaging_made import PHANTOM, PHANTOM_MASK

SPACING = (2.0, 2.0, 2.0)

REFERENCE = {
    "Q4LE": (2.15, None), "ECT3": (3.05, None), "KE2A": (1.08, None), "IPH6": (-0.355, None), "Y12H": (1, None),
    "1GSF": (1, None), "QG58": (1, None), "8DWT": (4, None), "84IY": (6, None), "SALO": (3, None), "2OJQ": (5, None),
    "4FUA": (1.55, None), "1128": (1.11, None), "N72L": (1.15, None), "7TET": (0.812, None), "9S40": (0.6, None),
    "N8CA": (567, None), "5ZWQ": (2.77, None),
    "RNU0": (556, 4), "YEKZ": (592, 4), "C0JK": (388, 3), "2PR5": (0.698, 0.004), "SKGS": (0.0411, 0.0003),
    "BQWJ": (0.599, 0.004), "KRCK": (1.19, 0.01), "QCFX": (0.843, 0.005), "25C7": (0.186, 0.001),
    "KLMA": (0.672, 0.004), "L0JK": (13.1, 0.1), "TDIC": (11.4, 0.1), "P9VJ": (9.31, 0.06), "7J51": (8.54, 0.05),
    "Q3CK": (0.816, 0.005), "N17B": (0.749, 0.005), "PBX1": (0.869, 0.005), "R59B": (0.866, 0.005),
    "UR99": (3.13, None), "TU9B": (2.57, None), "TF7R": (1.38, None), "D3YU": (3.21, None), "NTRS": (1.64, None),
    "ZGXS": (4.3, None), "OEEB": (7.41, None), "P6QZ": (2.11, None), "8ZQL": (0.291, None), "ACUI": (5.12, None),
    "IB1Z": (0.688, None), "NDRX": (0.856, None), "WF0Z": (0.631, None), "1QCO": (0.902, None), "E8JP": (0.0574, None),
    "NI2N": (0.183, None), "QWB0": (5.19, None), "DG8W": (7.41, None), "7NFM": (17.4, None), "AE86": (147, None),
    "HTZT": (0.372, None), "GD3A": (8.67, None), "IVPO": (2.16, None), "3KUM": (15.6, None), "R5YN": (281, None),
    "OVBL": (0.43, None), "W92Y": (328, None),
    "5QRC": (0.255, None), "48P8": (550, None), "XMSY": (0.253, None), "5GN9": (15.6, None), "5RAI": (0.0256, None),
    "HW1V": (2.76, None), "YH51": (503, None), "J17V": (1490, None), "JNSA": (1.4, None), "Y1RO": (0.28, None),
    "4JP3": (1, None), "VB3A": (0.2, None), "P30P": (0.0676, None), "BYLV": (2.64, None), "3NSA": (331, None),
    "GU8N": (2.32, None),
}  # fmt: skip
"""Value and tolerance of the reference manual's benchmark tables (theibsi/ibsi-doc, docs/03_Image_features.rst), rows
`dig. phantom`; texture `3D, merged`, zones `3D`. None: the manual gives three digits and no tolerance."""


@pytest.fixture(scope="module")
def phantom() -> dict[str, float]:
    levels = discretised(PHANTOM, PHANTOM_MASK, Discretisation(width=1, lowest=1))
    assert levels is not None
    return first_order(PHANTOM[PHANTOM_MASK]) | shape(PHANTOM_MASK, PHANTOM, SPACING) | texture(levels)


@pytest.mark.parametrize("code", REFERENCE)
def test_the_phantom_has_the_manuals_value(phantom: dict[str, float], code: str) -> None:
    value, tolerance = REFERENCE[code]
    if tolerance is None:
        assert float(f"{phantom[code]:.3g}") == pytest.approx(value, rel=1e-9), FEATURES[code].name
    else:
        assert phantom[code] == pytest.approx(value, abs=tolerance), FEATURES[code].name


def test_every_feature_is_in_the_catalogue(phantom: dict[str, float]) -> None:
    assert set(phantom) == set(FEATURES)
    assert len(REFERENCE) == 79


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.5, 0.7)])
def test_a_box_is_measured_along_its_axes(spacing: tuple[float, float, float]) -> None:
    """The mesh goes through the middles between voxels: a box loses its edges and corners only."""
    mask = np.ones((10, 20, 30), bool)
    volume, area = volume_and_area(mask, spacing)
    sides = np.array(mask.shape) * spacing
    edges = sum(
        4 * (sides[k] - spacing[k]) * spacing[i] * spacing[j] / 8 for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 2, 0))
    )
    corners = 8 * np.prod(spacing) * (1 / 8 - 1 / 48)
    assert volume == pytest.approx(float(sides.prod() - edges - corners))
    assert area < 2 * float(sides[0] * sides[1] + sides[1] * sides[2] + sides[0] * sides[2])


def test_a_mask_and_what_is_around_it_have_one_surface_between_them() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        mask = rng.random((6, 7, 8)) < 0.15
        volume, area = volume_and_area(mask, (1.5, 1.0, 0.8))
        moved = np.roll(np.pad(mask, 3), 2, axis=(0, 1, 2))
        assert volume_and_area(moved, (1.5, 1.0, 0.8)) == pytest.approx((volume, area))
        turned = volume_and_area(np.flip(mask, 0), (1.5, 1.0, 0.8))
        assert turned == pytest.approx((volume, area), rel=0.02)


def test_a_ball_is_round() -> None:
    z, y, x = np.mgrid[:41, :41, :41] - 20
    mask = z**2 + y**2 + x**2 <= 18**2
    found = shape(mask, np.ones(mask.shape), (1, 1, 1))
    assert found["RNU0"] == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.01)
    assert found["L0JK"] == pytest.approx(37, abs=0.1)
    assert found["Q3CK"] == found["N17B"] == pytest.approx(1)
    assert 0.9 < found["QCFX"] < 1
    assert found["KLMA"] == pytest.approx(0, abs=1e-9)


def test_the_largest_diameter_is_that_of_all_vertices() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = rng.random(tuple(rng.integers(2, 9, 3))) < 0.3
        mask[0, 0, 0] = True
        padded = np.pad(mask, 1)
        every = []
        for axis in range(3):
            edge = np.argwhere(np.diff(padded, axis=axis)).astype(float)
            edge[:, axis] += 0.5
            every.append(edge)
        points = np.concatenate(every) * (3, 1, 2)
        longest = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1)).max()
        assert shape(mask, np.ones(mask.shape), (3, 1, 2))["L0JK"] == pytest.approx(longest)


def test_one_voxel_and_one_intensity_have_what_can_be_said_of_them() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = True
    values = np.full(mask.shape, 7.0)
    levels = discretised(values, mask, Discretisation(bins=32))
    assert levels is not None
    found = first_order(values[mask]) | shape(mask, values, (1, 1, 1)) | texture(levels)
    assert found["Q4LE"] == 7
    assert found["KE2A"] == found["IPH6"] == 0
    assert "TDIC" not in found
    assert "ACUI" not in found, "there is no pair"
    assert found["22OV"] == 1
    assert all(np.isfinite(value) for value in found.values())


def test_grey_levels_of_a_fixed_size_count_from_a_fixed_start() -> None:
    values = np.array([[[-1000.0, -976.0, -975.0, 24.9, 25.0]]])
    mask = np.ones(values.shape, bool)
    levels = discretised(values, mask, Discretisation(width=25, lowest=-1000))
    assert levels is not None
    assert levels.ravel().tolist() == [1, 1, 2, 41, 42]
    by_number = discretised(values, mask, Discretisation(bins=4))
    assert by_number is not None
    assert (by_number.min(), by_number.max()) == (1, 4)
    assert discretised(values * 1000, mask, Discretisation(width=1)) is None, "a million levels"


def test_the_largest_part_that_hangs_together() -> None:
    mask = np.zeros((4, 6, 9), bool)
    mask[0, :3, :3] = True
    mask[1:3, 2, 2:8] = True  # joined to it by one face
    mask[3, 5, :6] = True  # another
    mask[2, 3, 8] = True  # touches by a corner only
    found = largest_component(mask)
    expected = mask.copy()
    expected[3, 5] = False
    expected[2, 3, 8] = False
    assert np.array_equal(found, expected)
    assert not largest_component(np.zeros((2, 2, 2), bool)).any()


def test_parts_are_those_of_a_flood() -> None:
    rng = np.random.default_rng(8)
    for _ in range(10):
        mask = rng.random((5, 6, 7)) < 0.5
        found, best = largest_component(mask), flooded(mask)
        assert found.sum() == best
        assert not (found & ~mask).any()


def flooded(mask: np.ndarray) -> int:
    """Voxels of the largest part, by filling."""
    left, best = {tuple(each) for each in np.argwhere(mask).tolist()}, 0
    while left:
        front, size = [left.pop()], 0
        while front:
            z, y, x = front.pop()
            size += 1
            for step in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
                near = (z + step[0], y + step[1], x + step[2])
                if near in left:
                    left.remove(near)
                    front.append(near)
        best = max(best, size)
    return best


def test_the_page_lists_every_feature() -> None:
    page = (Path(__file__).parents[2] / "docs" / "imaging-features.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    listed = {row[0]: row for row in rows if len(row) == 7 and row[0] in FEATURES}
    assert list(listed) == list(FEATURES)
    for code, feature in FEATURES.items():
        assert listed[code][1] == feature.name
        assert listed[code][4] == (str(REFERENCE[code][0]) if code in REFERENCE else "not compared")


def test_zones_hang_together_by_corners_and_end_where_the_level_does() -> None:
    """Beside a plain flood from voxel to voxel."""
    rng = np.random.default_rng(7)
    for _ in range(15):
        levels = rng.integers(0, 4, tuple(rng.integers(1, 8, 3))).astype(np.int32)
        left, expected = {tuple(at) for at in np.argwhere(levels > 0).tolist()}, []
        while left:
            flood, size = [left.pop()], 0
            level = int(levels[flood[0]])
            while flood:
                z, y, x = flood.pop()
                size += 1
                around = {(z + a, y + b, x + c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)} & left
                same = {at for at in around if levels[at] == level}
                left -= same
                flood.extend(same)
            expected.append((level, size))
        found = zone_sizes(levels)
        assert sorted(zip(*(each.tolist() for each in found), strict=True)) == sorted(expected)
