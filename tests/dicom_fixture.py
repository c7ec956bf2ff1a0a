"""Makes `fixtures/dicom`: a chest CT of an invented man, a nodule drawn in it. `python -m tests.dicom_fixture`"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from tests.adapters.imaging_made import PIXEL, SLICES, STEP, segmentation, series
from tests.dicom_made import part10, uid

FOLDER = Path(__file__).parents[1] / "fixtures" / "dicom"
SIZE = 56
NODULE = (8.0, 30.0, 17.0)
"""Slice, row, column of its middle."""
RADIUS = 6.0
"""mm"""


def nodule() -> np.ndarray:
    z, y, x = np.mgrid[:SLICES, :SIZE, :SIZE].astype(float)
    near = ((z - NODULE[0]) * STEP) ** 2 + ((y - NODULE[1]) ** 2 + (x - NODULE[2]) ** 2) * PIXEL**2
    return near <= RADIUS**2


def chest() -> np.ndarray:
    """HU: a body with two lungs and a spine, and a nodule in the right lung."""
    _, y, x = np.mgrid[:SLICES, :SIZE, :SIZE].astype(float)

    def ellipse(row: float, column: float, high: float, wide: float) -> np.ndarray:
        return ((y - row) / high) ** 2 + ((x - column) / wide) ** 2 <= 1

    values = np.where(ellipse(28, 28, 21, 26), 40, -1000).astype(float)
    for column in (17, 39):
        values[ellipse(26, column, 13, 8)] = -850
    values[ellipse(42, 28, 4, 4)] = 400
    values[nodule()] = 60
    return values + np.random.default_rng(11).integers(-15, 16, values.shape)


def objects() -> Iterator[tuple[str, Dataset]]:
    """(file name, object); the same bytes each time."""
    rows = sorted(series(size=SIZE, name="tomas-v"), key=lambda each: float(each.ImagePositionPatient[2]))
    for values, each in zip(chest(), rows, strict=True):
        each.PatientID, each.PatientName = "MRN2007", "V^Tomas"
        each.PatientBirthDate, each.PatientSex = "19580211", "M"
        del each.IssuerOfPatientID
        each.AccessionNumber, each.StudyDescription, each.BodyPartExamined = "CT-2041", "CT chest", "CHEST"
        each.PixelData = (np.clip(values, -1024, 3071) + 1024).astype("<u2").tobytes()
        yield f"tomas-v.ct-{each.InstanceNumber:02}.dcm", each
    drawn = segmentation(rows, [nodule()])
    drawn.ContentDate, drawn.ContentTime = rows[0].StudyDate, "110000"
    drawn.InstanceCreationDate, drawn.InstanceCreationTime = rows[0].StudyDate, "110000"
    drawn.SeriesDate, drawn.SeriesTime = rows[0].StudyDate, "110000"
    for each in drawn.ContributingEquipmentSequence:
        each.ContributionDateTime = f"{rows[0].StudyDate}110000"
    organization = uid("tomas-v", "dimensions")
    drawn.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for each in drawn.DimensionIndexSequence:
        each.DimensionOrganizationUID = organization
    yield "tomas-v.seg.dcm", drawn


def files() -> dict[str, bytes]:
    return {name: part10(each) for name, each in objects()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, body in files().items():
        (FOLDER / name).write_bytes(body)
    sys.stdout.write(f"{len(files())} files in {FOLDER.name}\n")
