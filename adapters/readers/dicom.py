"""DICOM objects: reports, segmentations, structure sets and documents -> statements of FHIR R4 resources.

An image states nothing by itself: what a study is, its instances say together (adapters/dicom/study.py), and a thousand
of them must not give a thousand versions of one ImagingStudy.
"""

from __future__ import annotations

from adapters.dicom.archive import DEFAULT, Archive
from adapters.dicom.part10 import MEDIA_TYPE
from models.nouns import Part, Statement

NAME = "dicom"
VERSION = "1"
OBJECT = MEDIA_TYPE
"""A Part 10 file (RFC 3240), byte for byte."""
MEDIA_TYPES = (OBJECT,)
RULES = Archive
"""What a source's configuration says of how its parts are read."""


def read(part: Part, archive: Archive = DEFAULT) -> list[Statement]:
    """What one object states: nothing for an image, a waveform, a presentation state or a key object selection; else
    the Patient first, then Observations, then the report or document. `pointer` is the place in the content tree
    (`/1/8/1/4`) or of the item (`/00620002/0`). Pure.

    Raises: Malformed (no Part 10 file, damaged), Unreadable (no UIDs, no patient's number), TooLarge.
    """
    from adapters.dicom.objects import read_object  # most of a second, for whoever reads an object: no hook call does

    return read_object(part, archive)
