"""Which objects an object refers to: a report's evidence, a segmentation's or structure set's images."""

from __future__ import annotations

from adapters.dicom.values import Dataset
from models.canonical import Noun

EVIDENCE, OTHER_EVIDENCE, SERIES, FRAMES_OF_REFERENCE, INSTANCES = (
    0x0040A375,
    0x0040A385,
    0x00081115,
    0x30060010,
    0x00081199,
)
REFERENCES = (EVIDENCE, OTHER_EVIDENCE, SERIES, FRAMES_OF_REFERENCE)
MAX_REFERENCES = 20_000
"""Instances in all; what refers to more is cut."""


class Reference(Noun, frozen=True):
    """Instances of one series that are referred to; none: the series as such."""

    study: str
    """Empty: the object's own."""
    series: str
    instances: tuple[str, ...] = ()


def references_of(data: Dataset) -> tuple[Reference, ...]:
    """In the order in which they stand: (0040,A375) and (0040,A385), (0008,1115), (3006,0010)."""
    found: list[Reference] = []
    left = MAX_REFERENCES
    for study, series, items, tag in _lists(data):
        if left <= 0:
            break
        uids = tuple(uid for item in items[:left] if (uid := item.uid(tag)))
        left -= max(len(uids), 1)
        if series:
            found.append(Reference(study, series, uids))
    return tuple(found)


def _lists(data: Dataset) -> list[tuple[str, str, tuple[Dataset, ...], int]]:
    rows = []
    for evidence in (EVIDENCE, OTHER_EVIDENCE):
        for study in data.items(evidence):
            uid = study.uid(0x0020000D)
            for series in study.items(SERIES):
                rows.append((uid, series.uid(0x0020000E), series.items(INSTANCES), 0x00081155))
    for series in data.items(SERIES):
        listed = series.items(0x0008114A) or series.items(INSTANCES)
        rows.append(("", series.uid(0x0020000E), listed, 0x00081155))
    for frame in data.items(FRAMES_OF_REFERENCE):
        for study in frame.items(0x30060012):
            uid = study.uid(0x00081155)
            for series in study.items(0x30060014):
                rows.append((uid, series.uid(0x0020000E), series.items(0x30060016), 0x00081155))
    return rows
