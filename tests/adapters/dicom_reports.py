"""Structured reports, segmentations, structure sets and documents that the tests make, element by element."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from tests.adapters.dicom_samples import code, dataset, written

SR = "1.2.840.10008.5.1.4.1.1.88.34"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
IMAGE = ("1.2.9", "1.2.9.1", "1.2.9.1.1")
"""Study, series and instance that everything here was made from."""
_NOT_IMAGE: dict[str, Any] = dict.fromkeys(
    [
        *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
        *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    ]
)


def item(kind: str, name: tuple[str, str, str], relation: str = "CONTAINS", *below: Dataset, **values: Any) -> Dataset:
    """A content item."""
    made = Dataset()
    made.RelationshipType, made.ValueType = relation, kind
    made.ConceptNameCodeSequence = [code(*name)]
    for key, value in values.items():
        setattr(made, key, value)
    if below:
        made.ContentSequence = list(below)
    return made


def coded(
    name: tuple[str, str, str], value: tuple[str, str, str], relation: str = "CONTAINS", *below: Dataset
) -> Dataset:
    return item("CODE", name, relation, *below, ConceptCodeSequence=[code(*value)])


def said(name: tuple[str, str, str], words: str, relation: str = "CONTAINS") -> Dataset:
    return item("TEXT", name, relation, TextValue=words)


def number(
    name: tuple[str, str, str], value: str | None, unit: tuple[str, str, str], *below: Dataset, why: Any = None
) -> Dataset:
    made = item("NUM", name, "CONTAINS", *below)
    measured = Dataset()
    if value is not None:
        measured.NumericValue = value
        measured.MeasurementUnitsCodeSequence = [code(*unit)]
    made.MeasuredValueSequence = [measured] if value is not None else []
    if why is not None:
        made.NumericValueQualifierCodeSequence = [code(*why)]
    return made


def image(uid: str = IMAGE[2], name: tuple[str, str, str] = ("121112", "DCM", "Source of Measurement")) -> Dataset:
    made = item("IMAGE", name, "CONTAINS")
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    made.ReferencedSOPSequence = [reference]
    return made


def evidence(study: str = IMAGE[0], series: str = IMAGE[1], *instances: str) -> Dataset:
    of_study, of_series = Dataset(), Dataset()
    of_study.StudyInstanceUID, of_series.SeriesInstanceUID = study, series
    of_series.ReferencedSOPSequence = [image(uid).ReferencedSOPSequence[0] for uid in instances or (IMAGE[2],)]
    of_study.ReferencedSeriesSequence = [of_series]
    return of_study


TRACKING_ID, TRACKING_UID = ("112039", "DCM", "Tracking Identifier"), ("112040", "DCM", "Tracking Unique Identifier")
FINDING, SITE = ("121071", "DCM", "Finding"), ("363698007", "SCT", "Finding Site")
SIDE, LEFT = ("272741003", "SCT", "Laterality"), ("7771000", "SCT", "Left")
BREAST, MASS = ("76752008", "SCT", "Breast"), ("4147007", "SCT", "Mass")
DIAMETER, MM = ("103339001", "SCT", "Long Axis"), ("mm", "UCUM", "millimeter")
GROUP = ("125007", "DCM", "Measurement Group")


def group(*more: Dataset, relation: str = "CONTAINS") -> Dataset:
    """A measurement group of one mass in the left breast, 21.5 mm long, measured by an algorithm."""
    uid = item("UIDREF", TRACKING_UID, "HAS OBS CONTEXT", UID="1.2.77.1")
    return item(
        "CONTAINER",
        GROUP,
        relation,
        said(TRACKING_ID, "Lesion 1", "HAS OBS CONTEXT"),
        uid,
        coded(FINDING, MASS),
        coded(SITE, BREAST, "HAS CONCEPT MOD", coded(SIDE, LEFT, "HAS CONCEPT MOD")),
        said(("111001", "DCM", "Algorithm Name"), "Ruler", "HAS CONCEPT MOD"),
        said(("111003", "DCM", "Algorithm Version"), "2.0", "HAS CONCEPT MOD"),
        number(
            DIAMETER,
            "21.50",
            MM,
            coded(("121401", "DCM", "Derivation"), ("56851009", "SCT", "Maximum"), "HAS CONCEPT MOD"),
        ),
        coded(("111011", "DCM", "Mass Margin"), ("129736006", "SCT", "Irregular"), "CONTAINS"),
        image(),
        *more,
    )


def report(*groups: Dataset, root: tuple[Dataset, ...] = (), **elements: Any) -> bytes:
    """A TID 1500 report with these groups, verified and complete."""
    made = dataset(
        **{
            **_NOT_IMAGE,
            "SOPClassUID": SR,
            "SOPInstanceUID": "1.2.3.88",
            "Modality": "SR",
            "AccessionNumber": "A1",
            "ContentDate": "20260302",
            "ContentTime": "101500",
            "TimezoneOffsetFromUTC": "+0100",
            "ValueType": "CONTAINER",
            "CompletionFlag": "COMPLETE",
            "VerificationFlag": "VERIFIED",
            "ConceptNameCodeSequence": [code("126000", "DCM", "Imaging Measurement Report")],
            "CurrentRequestedProcedureEvidenceSequence": [evidence()],
            "ContentSequence": [
                item("PNAME", ("121008", "DCM", "Person Observer Name"), "HAS OBS CONTEXT", PersonName="Roe^Ann"),
                *root,
                item("CONTAINER", ("126010", "DCM", "Imaging Measurements"), "CONTAINS", *groups),
            ],
            **elements,
        }
    )
    return written(made)


def segmentation(**elements: Any) -> bytes:
    segment, series = Dataset(), Dataset()
    segment.SegmentNumber, segment.SegmentLabel = 1, "tumour"
    segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = "SEMIAUTOMATIC", "Brush 1.1"
    segment.SegmentedPropertyCategoryCodeSequence = [code("49755003", "SCT", "Morphologically Altered Structure")]
    segment.SegmentedPropertyTypeCodeSequence = [code("M-80003", "SRT", "Neoplasm, Primary")]
    segment.AnatomicRegionSequence = [code("T-04000", "SRT", "Breast")]
    segment.TrackingID, segment.TrackingUID = "Lesion 1", "1.2.77.1"
    series.SeriesInstanceUID = IMAGE[1]
    series.ReferencedInstanceSequence = [image().ReferencedSOPSequence[0]]
    base = {"SOPClassUID": SEG, "SOPInstanceUID": "1.2.3.66", "Modality": "SEG", "SegmentSequence": [segment]}
    return written(dataset(**{**base, "ReferencedSeriesSequence": [series], **elements}))


def structure_set(**elements: Any) -> bytes:
    region, observed, frame, study, series = (Dataset() for _ in range(5))
    region.ROINumber, region.ROIName, region.ROIGenerationAlgorithm = 3, "GTV", "MANUAL"
    observed.ReferencedROINumber, observed.RTROIInterpretedType, observed.ROIInterpreter = 3, "GTV", "Roe^Ann"
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", IMAGE[0]
    series.SeriesInstanceUID, series.ContourImageSequence = IMAGE[1], [image().ReferencedSOPSequence[0]]
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [series], [study]
    base: dict[str, Any] = {
        **_NOT_IMAGE,
        "SOPClassUID": RTSTRUCT,
        "SOPInstanceUID": "1.2.3.48",
        "Modality": "RTSTRUCT",
        "ApprovalStatus": "APPROVED",
        "StructureSetROISequence": [region],
        "RTROIObservationsSequence": [observed],
        "ReferencedFrameOfReferenceSequence": [frame],
    }
    return written(dataset(**{**base, **elements}))


def document(body: bytes = b"%PDF-1.7 one page", **elements: Any) -> bytes:
    base: dict[str, Any] = {
        **_NOT_IMAGE,
        "SOPClassUID": PDF,
        "SOPInstanceUID": "1.2.3.104",
        "Modality": "DOC",
        "DocumentTitle": "Mammography report",
        "MIMETypeOfEncapsulatedDocument": "application/pdf",
        "EncapsulatedDocument": body + b"\0" * (len(body) % 2),
        "EncapsulatedDocumentLength": len(body),
        "ContentDate": "20260302",
        "ContentTime": "101500",
        "TimezoneOffsetFromUTC": "+0100",
        "VerificationFlag": "VERIFIED",
    }
    return written(dataset(**{**base, **elements}))


def rejection(
    *instances: str, reason: tuple[str, str, str] = ("113001", "DCM", "Rejected for Quality Reasons")
) -> bytes:
    """A Key Object Selection that takes instances of the study 1.2.3 back (IHE IOCM)."""
    return written(
        dataset(
            **{
                **_NOT_IMAGE,
                "SOPClassUID": KEY_OBJECTS,
                "SOPInstanceUID": "1.2.3.59",
                "SeriesInstanceUID": "1.2.3.59.0",
                "Modality": "KO",
                "ConceptNameCodeSequence": [code(*reason)],
                "CurrentRequestedProcedureEvidenceSequence": [evidence("1.2.3", "1.2.3.0", *instances)],
            }
        )
    )


def objects() -> list[bytes]:
    """One of each."""
    return [report(group()), segmentation(), structure_set(), document(), rejection("1.2.3.1")]
