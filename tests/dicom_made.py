"""Made DICOM objects: what no package of test files has (series of many slices, mammography, multi-frame, thousands).

Every identifier follows from `name`, so the same call gives the same bytes. The people in it do not exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

PREFIX = "1.2.826.0.1.3680043.10.1561."


def uid(*words: object) -> UID:
    """One that follows from the words."""
    return generate_uid(prefix=PREFIX, entropy_srcs=[str(word) for word in words])


def part10(dataset: Dataset, *, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """As a file (PS3.10): preamble, prefix, file meta information, data set."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = UID(PREFIX + "1")
    dataset.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def ct_series(
    *,
    name: str = "ct",
    slices: int = 20,
    size: int = 64,
    series: int = 1,
    modality: str = "CT",
    patient_id: str = "made-1",
    issuer: str = "MADE",
    patient_name: str = "Made^Person",
    accession: str = "A-1",
    study_date: str = "20260102",
    first: int = 1,
) -> Iterator[Dataset]:
    """The slices of one series, 12 bits in 16, 1 mm apart. `series` counts from 1 within the study called `name`;
    `first`: the instance number that it begins with (for one that grows later)."""
    pixels = np.random.default_rng(len(name) * 1000 + series).integers(0, 4096, (size, size), dtype=np.uint16)
    for number in range(first, first + slices):
        dataset = _general(
            name=name,
            sop_class=MRImageStorage if modality == "MR" else CTImageStorage,
            modality=modality,
            series=series,
            number=number,
            patient_id=patient_id,
            issuer=issuer,
            patient_name=patient_name,
            accession=accession,
            study_date=study_date,
        )
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.FrameOfReferenceUID = uid(name, "frame")
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, float(number)]
        dataset.SliceThickness = 1
        dataset.PixelSpacing = [0.75, 0.75]
        dataset.SliceLocation = float(number)
        if modality == "CT":
            dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
            dataset.KVP = 120
        dataset.WindowCenter, dataset.WindowWidth = 40, 400
        _pixels(dataset, np.roll(pixels, number, axis=0), bits=12)
        yield dataset


def mammogram(
    *, name: str = "mg", rows: int = 512, columns: int = 384, view: str = "CC", laterality: str = "L", number: int = 1
) -> Dataset:
    """One digital mammogram, 12 bits in 16."""
    dataset = _general(
        name=name,
        sop_class=DigitalMammographyXRayImageStorageForPresentation,
        modality="MG",
        series=1,
        number=number,
        patient_id="made-mg",
        accession="A-MG",
    )
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.BodyPartExamined = "BREAST"
    dataset.ViewPosition, dataset.ImageLaterality = view, laterality
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImagerPixelSpacing = [0.07, 0.07]
    dataset.BurnedInAnnotation = "NO"
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    slope = np.linspace(0, 4095, rows * columns).reshape(rows, columns).astype(np.uint16)
    _pixels(dataset, slope, bits=12)
    return dataset


def enhanced_ct(*, name: str = "enhanced", frames: int = 10, size: int = 64) -> Dataset:
    """One multi-frame object (PS3.3, A.38) with the functional groups that its geometry needs."""
    dataset = _general(
        name=name,
        sop_class=EnhancedCTImageStorage,
        modality="CT",
        series=1,
        number=1,
        patient_id="made-en",
        accession="A-EN",
    )
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.FrameOfReferenceUID = uid(name, "frame")
    shared, measures, orientation, transform = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.75, 0.75], 1
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    transform.RescaleIntercept, transform.RescaleSlope, transform.RescaleType = -1024, 1, "HU"
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelValueTransformationSequence = Sequence([transform])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    each = []
    for number in range(1, frames + 1):
        frame, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, float(number)]
        content.InStackPositionNumber, content.StackID = number, "1"
        frame.PlanePositionSequence, frame.FrameContentSequence = Sequence([position]), Sequence([content])
        each.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(each)
    dataset.NumberOfFrames = frames
    volume = np.random.default_rng(frames).integers(0, 4096, (frames, size, size), dtype=np.uint16)
    _pixels(dataset, volume, bits=12)
    return dataset


def many(*, count: int, name: str = "many", per_series: int = 500) -> Iterator[Dataset]:
    """Small instances (16 x 16) of one study, in series of `per_series`."""
    for begin in range(0, count, per_series):
        yield from ct_series(
            name=name,
            slices=min(per_series, count - begin),
            size=16,
            series=begin // per_series + 1,
            patient_id=f"made-{name}",
            accession=f"A-{name}"[:16],
        )


def _general(
    *,
    name: str,
    sop_class: UID,
    modality: str,
    series: int,
    number: int,
    patient_id: str,
    issuer: str = "MADE",
    patient_name: str = "Made^Person",
    accession: str,
    study_date: str = "20260102",
) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid(name, series, number)
    dataset.StudyDate, dataset.StudyTime = study_date, "101112"
    dataset.SeriesDate, dataset.ContentDate = study_date, study_date
    dataset.AccessionNumber = accession
    dataset.Modality = modality
    dataset.Manufacturer, dataset.ManufacturerModelName = "Made", "M-1"
    dataset.SoftwareVersions = "1.0"
    dataset.StudyDescription, dataset.SeriesDescription = f"made {name}", f"series {series}"
    dataset.PatientName, dataset.PatientID, dataset.IssuerOfPatientID = patient_name, patient_id, issuer
    dataset.PatientBirthDate, dataset.PatientSex = "19600102", "F"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(name), uid(name, series)
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", series, number
    return dataset


def _pixels(dataset: Dataset, pixels: np.ndarray, *, bits: int) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, bits, bits - 1, 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
