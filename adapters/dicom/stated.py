"""What resources out of one object share: whose, when, from which images, by which algorithm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from adapters.dicom.archive import Archive
from adapters.dicom.headers import Header
from adapters.dicom.people import TEST, Resource, is_test, patient_id, patient_of
from adapters.dicom.references import Reference
from adapters.dicom.study import accession_of, study_id
from adapters.dicom.times import date_time, instant_of
from adapters.dicom.values import Dataset
from adapters.dicom.vocabulary import uid_identifier
from models.nouns import Statement, Verb

INSTANCE = "urn:cds-server:dicom-instance"
SERIES = "urn:cds-server:dicom-series"
SEGMENT = "urn:cds-server:dicom-segment"
"""Extensions: which series and instances of the ImagingStudy are meant (R4's Reference cannot say), which segment."""
IMAGING = [
    {
        "coding": [
            {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"},
        ]
    }
]
MAX_NAMED = 256
"""Instances that one resource names; the ImagingStudy has them all."""


@dataclass
class Stating:
    """One object, and the statements so far."""

    header: Header
    archive: Archive

    def __post_init__(self) -> None:
        self.statements: list[Statement] = []

    @cached_property
    def subject(self) -> Resource:
        """Raises: Unreadable, without a Patient ID."""
        return {"reference": f"Patient/{patient_id(self.header.patient, self.archive)}"}

    def patient(self) -> None:
        """Assert the Patient: first, so that what follows has somebody to belong to."""
        made = patient_of(self.header.patient, self.archive, test=is_test(self.header))
        self.statements.append(Statement(Verb.ASSERT, "Patient", made["id"], "", made))

    def say(self, resource: Resource, pointer: str = "") -> Resource:
        """Assert it. Gives the reference to it."""
        if is_test(self.header):
            resource.setdefault("meta", {})["tag"] = [TEST]
        kind, made = resource["resourceType"], resource["id"]
        self.statements.append(Statement(Verb.ASSERT, kind, made, pointer, resource))
        return {"reference": f"{kind}/{made}"}

    def void(self, kind: str, made: str) -> None:
        self.statements.append(Statement(Verb.VOID, kind, made))

    @cached_property
    def effective(self) -> str:
        """When the patient was imaged: date and time of the study; else of the acquisition; else of the content."""
        header = self.header
        for day, clock in (
            (header.study.date, header.study.time),
            (header.acquisition_date, header.acquisition_time),
            (header.content_date, header.content_time),
        ):
            if found := date_time(day, clock, header.offset, self.archive.zone):
                return found
        return ""

    @cached_property
    def written(self) -> str:
        """When the object says its content was made."""
        header = self.header
        return date_time(header.content_date, header.content_time, header.offset, self.archive.zone)

    @cached_property
    def issued(self) -> str:
        return instant_of(self.written)

    @cached_property
    def based_on(self) -> list[Resource]:
        accession = accession_of(self.header, self.archive)
        return [{"type": "ServiceRequest", "identifier": accession}] if accession else []

    @cached_property
    def _places(self) -> Mapping[str, tuple[str, str]]:
        """SOP Instance UID -> study and series, by what the object refers to."""
        found: dict[str, tuple[str, str]] = {}
        for row in self.header.references:
            for uid in row.instances:
                found.setdefault(uid, (row.study or self.header.study_uid, row.series))
        return found

    def derived_from(self, instances: Iterable[str] = (), series: Iterable[str] = ()) -> list[Resource]:
        """ImagingStudy references of these instances and series, by study; of everything that the object refers to,
        where none of them is known."""
        rows: dict[tuple[str, str], list[str]] = {}
        for uid in dict.fromkeys(instances):
            if uid in self._places:
                rows.setdefault(self._places[uid], []).append(uid)
        known = {row.series: row for row in self.header.references}
        for uid in dict.fromkeys(series):
            if uid in known:
                rows.setdefault((known[uid].study or self.header.study_uid, uid), [])
        if not rows:
            for row in self.header.references:
                rows.setdefault((row.study or self.header.study_uid, row.series), []).extend(row.instances)
        return [self._study(study, [pair for pair in rows.items() if pair[0][0] == study]) for study in _first(rows)]

    def _study(self, uid: str, rows: list[tuple[tuple[str, str], list[str]]]) -> Resource:
        named = [Reference(study, series, tuple(instances)) for (study, series), instances in rows]
        extensions = [{"url": SERIES, "valueUri": f"urn:oid:{row.series}"} for row in named[:MAX_NAMED] if row.series]
        instances = [each for row in named for each in row.instances][:MAX_NAMED]
        extensions += [{"url": INSTANCE, "valueUri": f"urn:oid:{each}"} for each in instances]
        made: Resource = {"reference": f"ImagingStudy/{study_id(uid)}", "identifier": uid_identifier(uid)}
        return {"extension": extensions, **made} if extensions else made

    def observation(self, made: str, status: str, code: Resource) -> Resource:
        """An Observation with what all of them share."""
        found: Resource = {
            "resourceType": "Observation",
            "id": made,
            "status": status,
            "category": IMAGING,
            "code": code,
            "subject": self.subject,
        }
        if self.based_on:
            found["basedOn"] = self.based_on
        if self.effective:
            found["effectiveDateTime"] = self.effective
        if self.issued:
            found["issued"] = self.issued
        return found


def _first(rows: Iterable[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(study for study, _ in rows))


def algorithm_of(item: Dataset) -> str:
    """Name and version out of an Algorithm Identification Sequence (PS3.3 10.16)."""
    return " ".join(filter(None, (item.text(0x00660036), item.text(0x00660031))))
