"""What one DICOM object states by itself: its header says which reader it is for."""

from __future__ import annotations

from collections.abc import Callable

from adapters.dicom.archive import Archive
from adapters.dicom.documents import read_document
from adapters.dicom.elements import parse
from adapters.dicom.headers import header_from, header_of
from adapters.dicom.reports import read_report
from adapters.dicom.segments import read_segmentation, read_structure_set
from adapters.dicom.stated import Stating
from adapters.dicom.values import Dataset
from models.nouns import Part, Statement

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_REPORTS = f"{_STORAGE}88."
_KEY_OBJECTS = f"{_STORAGE}88.59"
"""States nothing: what it takes back, the study leaves out; what it picks, is a reader's bookmark."""
_DOCUMENTS = f"{_STORAGE}104."
_SEGMENTATIONS = (f"{_STORAGE}66.4", f"{_STORAGE}66.5", f"{_STORAGE}66.7")
"""Segmentation, surface segmentation, label map segmentation."""
_STRUCTURE_SET = f"{_STORAGE}481.3"

Read = Callable[[Dataset, Stating], None]


def read_object(part: Part, archive: Archive) -> list[Statement]:
    """See `adapters.readers.dicom.read`."""
    header = header_of(part.body)
    reading = reading_of(header.sop_class)
    if reading is None:
        return []
    file = parse(part.body)
    stating = Stating(header_from(file), archive)
    reading(file.data, stating)
    return stating.statements


def reading_of(sop_class: str) -> Read | None:
    """Who reads objects of this class; None where they state nothing by themselves."""
    if sop_class.startswith(_REPORTS) and sop_class != _KEY_OBJECTS:
        return read_report
    if sop_class.startswith(_DOCUMENTS):
        return read_document
    if sop_class in _SEGMENTATIONS:
        return read_segmentation
    return read_structure_set if sop_class == _STRUCTURE_SET else None
