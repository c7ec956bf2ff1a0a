"""Series as volumes: quality before features, calibrated values, SUV, patient coordinates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from adapters.imaging.findings import Verdict, Weight
from adapters.imaging.planes import planes_of
from adapters.imaging.quality import Quality, looked_at
from adapters.imaging.volume import Volume, calibration, volume_of
from models.errors import Unreadable
from tests.adapters.imaging_made import PIXEL, SIZE, SLICES, STEP, ball, held, objects, series
from tests.dicom_made import enhanced_ct

MANY = 1 << 24


def quality(rows: list[Dataset], most: int = MANY) -> Quality:
    headers, opened = held(objects(*rows))
    return looked_at(headers, lambda: planes_of(headers, opened), most)


def volume(rows: list[Dataset]) -> Volume:
    headers, opened = held(objects(*rows))
    found = looked_at(headers, lambda: planes_of(headers, opened), MANY)
    assert found.verdict is not Verdict.REFUSED, found.findings
    return volume_of(found.planes, found.step, opened)


def test_slices_in_any_order_are_one_calibrated_volume() -> None:
    made = volume(series())
    assert made.scale == "HU"
    assert made.grid.shape == (SLICES, SIZE, SIZE)
    assert made.grid.spacing == (STEP, PIXEL, PIXEL)
    assert made.values[0, 0, 0] == pytest.approx(-1000, abs=21)
    assert float(made.values[ball()].mean()) == pytest.approx(200, abs=1)
    corner = made.grid.affine @ (3, 5, 7, 1)
    assert corner[:3] == pytest.approx((-20 + 7 * PIXEL, -30 + 5 * PIXEL, 3 * STEP))
    assert made.grid.indices(corner[None, :3])[0] == pytest.approx((3, 5, 7))


def test_each_slice_has_its_own_rescaling() -> None:
    rows = series()
    for at, each in enumerate(rows):
        slope = 1 + at / 8
        stored = np.frombuffer(each.PixelData, "<u2")
        each.PixelData = np.round(stored / slope).astype("<u2").tobytes()
        each.RescaleSlope = slope
    made = volume(rows)
    assert float(made.values[ball()].mean()) == pytest.approx(200, abs=2)


def test_an_oblique_stack_is_ordered_along_its_normal() -> None:
    rows = series()
    turn = np.deg2rad(30)
    row, column = np.array([np.cos(turn), np.sin(turn), 0]), np.array([0, 0, -1.0])
    normal = np.cross(row, column)
    for each in rows:
        at = float(each.ImagePositionPatient[2])
        each.ImageOrientationPatient = [f"{value:.8f}" for value in (*row, *column)]
        each.ImagePositionPatient = [f"{value:.8f}" for value in normal * at]
    made = volume(rows)
    assert made.grid.spacing == pytest.approx((STEP, PIXEL, PIXEL), abs=1e-6)
    assert made.grid.affine[:3, 0] == pytest.approx(normal * STEP, abs=1e-6)
    assert float(made.values[ball()].mean()) == pytest.approx(200, abs=1)


def test_an_enhanced_object_is_a_volume_of_its_frames() -> None:
    made = enhanced_ct(frames=6, size=16)
    turned = list(made.PerFrameFunctionalGroupsSequence)[::-1]
    made.PerFrameFunctionalGroupsSequence = Items(turned)
    pixels = np.frombuffer(made.PixelData, "<u2").reshape(6, 16, 16)
    found = volume([made])
    assert found.grid.spacing == pytest.approx((1, 0.75, 0.75))
    assert np.array_equal(found.values, pixels[::-1].astype(np.float32) - 1024)


# ---- quality ---------------------------------------------------------------------------------------------------------


def _drop(rows: list[Dataset]) -> None:
    rows.sort(key=lambda each: float(each.ImagePositionPatient[2]))
    del rows[4:6]


def _shift(rows: list[Dataset]) -> None:
    rows[5].ImagePositionPatient[2] = float(rows[5].ImagePositionPatient[2]) + 0.3


def _twice(rows: list[Dataset]) -> None:
    rows[5].ImagePositionPatient = list(rows[6].ImagePositionPatient)


def _tilt(rows: list[Dataset]) -> None:
    for each in rows:
        each.ImagePositionPatient[1] = float(each.ImagePositionPatient[2]) * 0.2


def _all(name: str, value: Any) -> Callable[[list[Dataset]], None]:
    def change(rows: list[Dataset]) -> None:
        for each in rows:
            setattr(each, name, value)

    return change


def _one(name: str, value: Any) -> Callable[[list[Dataset]], None]:
    return lambda rows: setattr(rows[3], name, value)


def _gone(name: str) -> Callable[[list[Dataset]], None]:
    return lambda rows: delattr(rows[3], name)


REFUSED = [
    ("missing-slices", _drop),
    ("uneven-spacing", _shift),
    ("duplicate-position", _twice),
    ("tilted", _tilt),
    ("orientation", _one("ImageOrientationPatient", [1, 0, 0, 0, 0.9, 0.4359])),
    ("orientation", _all("ImageOrientationPatient", [1, 0, 0, 1, 0, 0])),
    ("no-geometry", _gone("ImagePositionPatient")),
    ("no-geometry", _all("PixelSpacing", [0, 0])),
    ("mixed-size", _one("PixelSpacing", [0.8, 0.8])),
    ("mixed-size", _one("Rows", SIZE * 2)),
    ("mixed-kernel", _one("ConvolutionKernel", "B70f")),
    ("mixed-frame", _one("FrameOfReferenceUID", "1.2.3")),
    ("too-few", lambda rows: rows.__delitem__(slice(2, None))),
    ("burned-in-text", _all("BurnedInAnnotation", "YES")),
    ("text-at-risk", _all("Modality", "US")),
    ("not-a-volume", _all("Modality", "MG")),
    ("colour", _one("PhotometricInterpretation", "RGB")),
]


@pytest.mark.parametrize(("code", "change"), REFUSED, ids=[f"{at}-{code}" for at, (code, _) in enumerate(REFUSED)])
def test_what_is_no_regular_stack_is_refused_with_its_reason(
    code: str, change: Callable[[list[Dataset]], None]
) -> None:
    rows = series()
    change(rows)
    found = quality(rows)
    assert found.verdict is Verdict.REFUSED
    (finding,) = [each for each in found.findings if each.weight is Weight.REFUSAL and each.code == code]
    assert finding.where.startswith("(")
    assert "made" not in finding.words


def test_missing_slices_are_counted() -> None:
    rows = series()
    _drop(rows)
    (finding,) = quality(rows).findings
    assert finding.words == "2 slices are missing between the others (0020,0032)"


def test_what_a_reader_should_know_is_a_caution() -> None:
    rows = series()
    _all("LossyImageCompression", "01")(rows)
    _one("SoftwareVersions", "2.0")(rows)
    found = quality(rows)
    assert found.verdict is Verdict.CAUTIONS
    assert {each.code for each in found.findings} == {"lossy", "mixed-scanner"}
    assert {(one.manufacturer, one.model, one.software) for one in found.scanners} == {
        ("Made", "M-1", ("1.0",)),
        ("Made", "M-1", ("2.0",)),
    }


def test_jitter_of_decimal_strings_is_no_gap() -> None:
    rows = series()
    for at, each in enumerate(rows):
        each.ImagePositionPatient[2] = float(each.ImagePositionPatient[2]) + (at % 3 - 1) * 0.004
    assert quality(rows).verdict is Verdict.USABLE


def test_a_series_over_the_limit_is_not_read() -> None:
    (finding,) = quality(series(), most=1000).findings
    assert finding.code == "too-large"


def test_frames_without_their_places_are_refused() -> None:
    made = enhanced_ct(frames=6, size=16)
    del made.PerFrameFunctionalGroupsSequence, made.SharedFunctionalGroupsSequence
    (finding,) = quality([made]).findings
    assert finding.code == "no-geometry"


# ---- PET -------------------------------------------------------------------------------------------------------------


def pet(**changes: Any) -> list[Dataset]:
    """70 kg, 370 MBq of F-18 an hour before: what SUV needs (C.8.9)."""
    rows = series(modality="MR")
    for each in rows:
        each.SOPClassUID, each.Modality = "1.2.840.10008.5.1.4.1.1.128", "PT"
        each.RescaleSlope, each.RescaleIntercept = 2.0, 0
        each.Units, each.DecayCorrection, each.CorrectedImage = "BQML", "START", ["DECY", "ATTN", "SCAT"]
        each.PatientWeight = 70
        tracer = Dataset()
        tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = 370e6, 6586.2
        tracer.RadiopharmaceuticalStartTime = "091500"
        each.RadiopharmaceuticalInformationSequence = Items([tracer])
        for name, value in changes.items():
            setattr(tracer if name.startswith("Radio") else each, name, value)
    return rows


def factor(**changes: Any) -> float:
    scale, found = calibration(held(objects(*pet(**changes)))[0])
    assert scale == "SUVbw"
    return found


def test_suv_is_activity_by_dose_left_and_weight() -> None:
    expected = 70_000 / (370e6 * 2 ** (-3600 / 6586.2))
    assert factor() == pytest.approx(expected)
    made = volume(pet())
    assert made.scale == "SUVbw"
    stored = np.frombuffer(pet()[0].PixelData, "<u2").astype(float)
    assert float(made.values.max()) == pytest.approx((200 + 1024 + 20) * 2 * expected, rel=0.02)
    assert stored.max() > 0


def test_an_injection_before_midnight_is_of_the_day_before() -> None:
    late = factor(RadiopharmaceuticalStartTime="234500", SeriesTime="004500", AcquisitionTime="004501")
    assert late == pytest.approx(factor())
    dated = factor(RadiopharmaceuticalStartDateTime="20260102091500.00")
    assert dated == pytest.approx(factor())


def test_values_that_are_suv_already_stay() -> None:
    assert factor(Units="GML") == 1.0


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"Units": "CNTS"}, "(0054,1001)"),
        ({"Units": "GML", "SUVType": "LBMJAMES128"}, "(0054,1006)"),
        ({"DecayCorrection": "ADMIN"}, "(0054,1102)"),
        ({"CorrectedImage": ["DECY"]}, "(0028,0051)"),
        ({"PatientWeight": None}, "(0010,1030)"),
        ({"PatientWeight": 0}, "(0010,1030)"),
        ({"RadionuclideTotalDose": 0}, "(0018,1074)"),
        ({"RadionuclideHalfLife": None}, "(0018,1075)"),
        ({"RadiopharmaceuticalStartTime": None}, "(0018,1072)"),
        ({"RadiopharmaceuticalStartDateTime": "20251201091500"}, "(0018,1072)"),
        ({"SeriesTime": "120000"}, "(0008,0031)"),
        ({"RadiopharmaceuticalInformationSequence": Items([]), "Units": None}, "(0054,1001)"),
    ],
)
def test_pet_without_what_suv_needs_is_refused_with_its_tag(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(Unreadable) as error:
        factor(**changes)
    assert error.value.where == where
