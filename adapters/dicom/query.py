"""What is asked of an archive by C-FIND, C-MOVE and C-GET: keys at a level, checked before anything is sent.

An archive refuses what breaks the hierarchy (PS3.4, C.4.1.2.1: the unique key of each upper level) or, worse,
answers with everything that it has. So the rules are kept here, not tried out there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from adapters.dicom.peers import Level, Root
from models.errors import Malformed, Misconfigured

UNIQUE = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}
RETURNED: Mapping[Level, tuple[str, ...]] = {
    Level.PATIENT: ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    Level.STUDY: (
        *("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"),
        *("AccessionNumber", "StudyDate", "StudyTime", "StudyDescription", "StudyID", "ModalitiesInStudy"),
        *("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
    ),
    Level.SERIES: (
        *("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined"),
        "NumberOfSeriesRelatedInstances",
    ),
    Level.IMAGE: ("SOPInstanceUID", "SOPClassUID", "InstanceNumber", "SeriesInstanceUID"),
}
"""What is asked for at a level where the caller names nothing: keys that are not there are tolerated."""

_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._\-]{0,63}")
"""Wider than PS3.5, 9.1 (digits and dots): archives hold others, and they must be had by what they are
called. Never a wildcard, a separator or a control character: a list of UIDs is ours to make."""
_DATES = re.compile(r"(\d{8})|(\d{8})?-(\d{8})?")
_TEXT = re.compile(r"[^\x00-\x1f\x7f\\]{0,128}")
_DATE_KEYS = frozenset({"StudyDate", "SeriesDate", "PatientBirthDate", "AcquisitionDate", "ContentDate"})
_KEYS = frozenset(
    {key for keys in RETURNED.values() for key in keys}
    | {*UNIQUE.values(), "SeriesDate", "ReferringPhysicianName", "StudyTime", "SOPClassesInStudy", "StationName"}
    | {"InstitutionName", "OtherPatientIDs", "InstanceAvailability", "RetrieveAETitle", "ContentDate"}
    | {"NumberOfPatientRelatedStudies", "NumberOfFrames", "Rows", "Columns", "AcquisitionDate"}
)


def sound_uid(text: str) -> bool:
    """Whether it can be asked for as a UID, and nothing but that."""
    return _UID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Query:
    """`keys`: keyword -> what is matched: text (with `*` and `?`, but for UIDs), a date or a range of dates
    (`20260101-20260131`, `20260101-`), for UIDs also a list. `returned`: keywords to be told, besides."""

    level: Level
    keys: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    returned: tuple[str, ...] = ()

    def checked(self, root: Root, *, uid_lists: bool = True) -> Query:
        """Itself. Raises: Misconfigured (a level that the root does not have), Malformed (a key that is none, a value
        that cannot be one, an upper level without its unique key). Messages name keywords, never values."""
        if self.level is Level.PATIENT and root is Root.STUDY:
            raise Misconfigured("the level PATIENT is asked at the patient root only", where="QueryRetrieveLevel")
        for keyword, value in self.keys.items():
            _check(keyword, value, uid_lists)
        if unknown := [each for each in self.returned if each not in _KEYS]:
            raise Malformed("is no key that is asked for", where=unknown[0][:64])
        for level in Level:
            if level.depth >= self.level.depth:
                break
            if level is Level.PATIENT and root is Root.STUDY:
                continue
            above = self.keys.get(UNIQUE[level])
            if not isinstance(above, str) or not above or "*" in above or "?" in above:
                raise Malformed(
                    f"a question at the level {self.level} needs one value, no wildcard, of the level above",
                    where=UNIQUE[level],
                )
        return self

    def asked(self) -> dict[str, str | list[str]]:
        """Keyword -> value of the identifier (empty: to be told), in no particular order."""
        asked: dict[str, str | list[str]] = dict.fromkeys(self.returned or RETURNED[self.level], "")
        for keyword, value in self.keys.items():
            asked[keyword] = value if isinstance(value, str) else list(value)
        return asked


def _check(keyword: str, value: str | tuple[str, ...], uid_lists: bool) -> None:
    if keyword not in _KEYS:
        raise Malformed("is no key that is asked for", where=keyword[:64])
    if keyword.endswith("UID") or keyword == "SOPClassesInStudy":
        values = (value,) if isinstance(value, str) else value
        if not values or not all(sound_uid(each) for each in values if each) or ("" in values and len(values) > 1):
            raise Malformed("is no UID", where=keyword)
        if len(values) > 1 and not uid_lists:
            raise Malformed("is a list of UIDs, which this archive does not take", where=keyword)
        return
    if not isinstance(value, str):
        raise Malformed("is a list, which only UIDs can be", where=keyword)
    if keyword in _DATE_KEYS:
        if value and (value == "-" or not _DATES.fullmatch(value) or not _in_order(value)):
            raise Malformed("is no date, nor a range of dates", where=keyword)
    elif not _TEXT.fullmatch(value):
        raise Malformed("carries a control character or a backslash, or is too long", where=keyword)


def _in_order(value: str) -> bool:
    try:
        days = [day_of(each) for each in value.split("-") if each]
    except ValueError:
        return False
    return days == sorted(days)


def day_of(text: str) -> date:
    """From YYYYMMDD. Raises ValueError."""
    return date(int(text[:4]), int(text[4:6]), int(text[6:8]))


def halves(dates: str, today: date) -> tuple[str, str] | None:
    """A range of dates as two that follow each other; None where it is one day, or has no first day. The second half of
    an open range stays open: what is done tomorrow belongs to it."""
    first, dash, last = dates.partition("-")
    if not dash or not first:
        return None
    begin, end = day_of(first), day_of(last) if last else max(today, day_of(first))
    if begin >= end:
        return None
    middle = begin + (end - begin) // 2
    return f"{first}-{middle:%Y%m%d}", f"{middle + timedelta(days=1):%Y%m%d}-{last}"


@dataclass(frozen=True, slots=True)
class Match:
    """One answer: keyword -> its values. An absent key and an empty one are the same."""

    values: Mapping[str, tuple[str, ...]]
    flaws: tuple[str, ...] = ()
    """What was wrong with it, by keyword, without values."""

    def text(self, keyword: str) -> str:
        """The first value, "" where there is none."""
        found = self.values.get(keyword, ())
        return found[0] if found else ""

    def whole(self, keyword: str) -> int | None:
        """A number, from 0 (counts)."""
        found = self.text(keyword)
        return int(found) if found.isdecimal() and len(found) <= 9 and found.isascii() else None

    def plain(self) -> dict[str, Any]:
        return {
            key: list(found) if len(found) > 1 else (found[0] if found else "") for key, found in self.values.items()
        }


def study_query(
    *,
    study: str | None = None,
    accession: str | None = None,
    patient: str | None = None,
    since: str | None = None,
    modality: str | None = None,
) -> Query:
    """The studies that a pull is about, at the study root. `since`: YYYYMMDD, of the study. Raises Malformed."""
    keys: dict[str, str | tuple[str, ...]] = {}
    if study:
        keys["StudyInstanceUID"] = study
    if accession:
        keys["AccessionNumber"] = exactly(accession, "AccessionNumber")
    if patient:
        keys["PatientID"] = exactly(patient, "PatientID")
    if since:
        keys["StudyDate"] = f"{since}-"
    if modality:
        keys["ModalitiesInStudy"] = exactly(modality, "ModalitiesInStudy")
    return Query(Level.STUDY, keys)


def exactly(value: str, keyword: str) -> str:
    """A value without wildcards: `*` would be every patient. Raises Malformed."""
    if "*" in value or "?" in value or not value.strip():
        raise Malformed("is empty, or has a wildcard, where one value is meant", where=keyword)
    return value


def batches(uids: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(uids[at : at + size]) for at in range(0, len(uids), size)]
