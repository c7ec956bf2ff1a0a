"""Made series with regions: a bright ball in a body in air, a segmentation of it by highdicom, a structure set.
And the IBSI digital phantom."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationFractionalTypeValues,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian, RTStructureSetStorage

from adapters.dicom.headers import Header, header_of
from tests.dicom_made import ct_series, part10, uid

Objects = dict[str, bytes]
"""SOP Instance UID -> Part 10 file."""

SIZE, SLICES, STEP, PIXEL = 48, 16, 2.0, 0.75


def ball(slices: int = SLICES, size: int = SIZE, radius: float = 8.0) -> np.ndarray:
    """A ball of `radius` mm about the middle, as a mask."""
    z, y, x = np.mgrid[:slices, :size, :size].astype(float)
    middle = np.array([(slices - 1) / 2, (size - 1) / 2, (size - 1) / 2])
    where = ((z - middle[0]) * STEP) ** 2 + (((y - middle[1]) ** 2) + (x - middle[2]) ** 2) * PIXEL**2
    return where <= radius**2


def body(size: int = SIZE) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return (y - size / 2 + 0.5) ** 2 + (x - size / 2 + 0.5) ** 2 <= (size * 0.42) ** 2


def series(
    *, modality: str = "CT", slices: int = SLICES, size: int = SIZE, name: str = "im", number: int = 1
) -> list[Dataset]:
    """Air, a body of about 40 HU, a ball of about 200 HU in it; slices 2 mm apart, given in another order."""
    rng = np.random.default_rng(5)
    values = np.where(body(size), 40, -1000)[None] + rng.integers(-20, 20, (slices, size, size))
    values[ball(slices, size)] += 160
    rows = list(ct_series(name=name, slices=slices, size=size, modality=modality, series=number))
    for at, each in enumerate(rows):
        each.ImagePositionPatient = [-20.0, -30.0, STEP * at]
        each.SliceThickness, each.PixelSpacing = STEP, [PIXEL, PIXEL]
        each.SeriesTime, each.AcquisitionDate, each.AcquisitionTime = "101500", each.StudyDate, "101501"
        each.StudyID, each.PositionReferenceIndicator = "1", ""
        stored = values[at] + 1024 if modality == "CT" else np.maximum(values[at] + 1024, 0)
        each.PixelData = stored.astype("<u2").tobytes()
    return [rows[at] for at in np.random.default_rng(2).permutation(slices)]


def in_order(rows: Sequence[Dataset]) -> list[Dataset]:
    return sorted(rows, key=lambda each: float(each.ImagePositionPatient[2]))


def segmentation(
    rows: Sequence[Dataset],
    masks: Sequence[np.ndarray],
    *,
    kind: SegmentationTypeValues = SegmentationTypeValues.BINARY,
) -> Dataset:
    """By another program: highdicom. `masks`: one a segment, booleans or fractions."""
    fractional = kind is SegmentationTypeValues.FRACTIONAL
    ordered = in_order(rows)
    for each in ordered:
        each.file_meta = getattr(each, "file_meta", None) or Dataset()
        each.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    algorithm = AlgorithmIdentificationSequence("made", codes.cid7162.ArtificialIntelligence, "2.1")
    described = [
        SegmentDescription(
            segment_number=at,
            segment_label=f"lesion {at}",
            segmented_property_category=codes.cid7150.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.cid7159.Lesion,
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for at in range(1, len(masks) + 1)
    ]
    stacked = np.stack(masks, axis=-1)
    return Segmentation(
        source_images=ordered,
        pixel_array=stacked.astype(np.float32) if fractional else stacked.astype(np.uint8),
        segmentation_type=kind,
        fractional_type=SegmentationFractionalTypeValues.PROBABILITY if fractional else None,
        segment_descriptions=described,
        series_instance_uid=uid("seg", ordered[0].StudyInstanceUID),
        series_number=90,
        sop_instance_uid=uid("seg", 1, kind.value, ordered[0].StudyInstanceUID),
        instance_number=1,
        manufacturer="Made",
        manufacturer_model_name="M",
        software_versions="1",
        device_serial_number="1",
    )


def structure_set(rows: Sequence[Dataset], contours: Sequence[np.ndarray], name: str = "GTV") -> Dataset:
    """One region; `contours`: (n, 3) mm each."""
    first = rows[0]
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, uid("rt", name, first.StudyInstanceUID)
    made.StudyInstanceUID, made.SeriesInstanceUID = first.StudyInstanceUID, uid("rts", first.StudyInstanceUID)
    made.PatientID, made.IssuerOfPatientID, made.PatientName = first.PatientID, first.IssuerOfPatientID, "Made^Person"
    made.StudyDate, made.StudyTime, made.Modality = first.StudyDate, first.StudyTime, "RTSTRUCT"
    series_item, study_item, frame = Dataset(), Dataset(), Dataset()
    series_item.SeriesInstanceUID = first.SeriesInstanceUID
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = first.SOPClassUID, first.SOPInstanceUID
    series_item.ContourImageSequence = Items([image])
    study_item.RTReferencedSeriesSequence = Items([series_item])
    study_item.ReferencedSOPInstanceUID = first.StudyInstanceUID
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = first.FrameOfReferenceUID, Items([study_item])
    made.ReferencedFrameOfReferenceSequence = Items([frame])
    region, drawn = Dataset(), Dataset()
    region.ROINumber, region.ROIName, region.ROIGenerationAlgorithm = 7, name, "MANUAL"
    made.StructureSetROISequence = Items([region])
    drawn.ReferencedROINumber = 7
    items = []
    for points in contours:
        each = Dataset()
        each.ContourGeometricType, each.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
        each.ContourData = [f"{value:.6g}" for value in np.asarray(points).ravel()]
        items.append(each)
    drawn.ContourSequence = Items(items)
    made.ROIContourSequence = Items([drawn])
    return made


def objects(*rows: Dataset) -> Objects:
    return {str(each.SOPInstanceUID): written(each) for each in rows}


def written(dataset: Dataset) -> bytes:
    if "PixelData" in dataset and "SegmentSequence" in dataset:
        out = BytesIO()
        dataset.file_meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
        dataset.save_as(out, enforce_file_format=True)
        return out.getvalue()
    return part10(dataset)


def held(given: Objects) -> tuple[list[Header], Callable[[Header], BinaryIO]]:
    """The headers, and how their objects are opened."""
    return [header_of(each) for each in given.values()], lambda header: BytesIO(given[header.sop_uid])


# ---- NRRD, and the phantom -------------------------------------------------------------------------------------------


def nrrd(path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Array (slice, row, column) and spacing in mm of a gzip NRRD file."""
    head, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode("ascii").splitlines() if ": " in line)
    sizes = [int(each) for each in fields["sizes"].split()]
    kind: Any = {"short": "<i2", "int": "<i4"}[fields["type"]]
    vectors = [each.strip("()").split(",") for each in fields["space directions"].split(" ")]
    spacing = [float(np.linalg.norm([float(part) for part in vector])) for vector in vectors]
    array = np.frombuffer(gzip.decompress(data), kind).reshape(sizes[::-1])
    return array, (spacing[2], spacing[1], spacing[0])


PHANTOM = np.array([
    [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
    [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [1, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
    [[1, 4, 4, 1, 1], [1, 1, 1, 1, 1], [1, 1, 9, 1, 1], [1, 1, 6, 1, 1]],
    [[1, 4, 4, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
], np.float32)  # fmt: skip
"""The IBSI digital phantom (reference manual, chapter 5; github.com/theibsi/data_sets): 2 mm voxels."""
PHANTOM_MASK = np.ones(PHANTOM.shape, bool)
for _at in ((1, 2, 0), (2, 0, 3), (2, 0, 4), (2, 2, 2), (3, 0, 3), (3, 0, 4)):
    PHANTOM_MASK[_at] = False
