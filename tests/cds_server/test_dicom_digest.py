"""DICOM objects in a store: landed by `cds land`, digested to facts of the record that HL7 v2 knows, taken back."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import pytest

from adapters.dicom.archive import Archive
from adapters.dicom.headers import header_of
from adapters.dicom.study import bundle_of, imaging_study
from adapters.hl7v2.feed import Feed
from adapters.readers.dicom import OBJECT
from adapters.readers.fhir import RESOURCE
from adapters.readers.hl7v2 import MESSAGE
from adapters.source import Arrival, Receipt
from adapters.sources.files import land_file
from cds_server.backlog import digest_backlog
from cds_server.decisions import now
from cds_server.intake import StoreIntake
from cds_server.reading import Rules
from cds_server.store.store import Store
from models.errors import Malformed
from models.nouns import Fact
from tests.adapters.dicom_reports import evidence, group, report
from tests.adapters.dicom_samples import file
from tests.cds_server.stores import ACTOR, JOINING, flags, land_parts

PACS = Archive("a", zone="Europe/Berlin", issuer="HOSP")
DIAMETER = "http://snomed.info/sct|103339001"
BORN = "http://hl7.org/fhir/Patient|birthDate"


@pytest.fixture
def url(data_dir: Path) -> str:
    """One engine is enough: what is asked here is the reader's."""
    return f"sqlite:///{data_dir / 'cds.db'}"


def digest(store: Store) -> None:
    digest_backlog(store, JOINING, ACTOR, rules={"test": Rules(PACS, "archive")})


def facts(store: Store, *tokens: str) -> tuple[Fact, ...]:
    record = store.reads.record("a", "HOSP-4711")
    assert record is not None
    return tuple(store.reads.facts([record.id], frozenset(tokens)))


def land(store: Store, path: Path, raw: bytes) -> Receipt:
    path.write_bytes(raw)
    return asyncio.run(land_file(path, StoreIntake(store, ACTOR), source="test", namespace="a", received_at=now()))


def test_a_file_is_landed_as_it_is_and_becomes_facts(store: Store, tmp_path: Path) -> None:
    raw = report(group())
    assert land(store, tmp_path / "sr", raw).arrival is Arrival.STORED
    assert land(store, tmp_path / "again", raw).arrival is Arrival.DUPLICATE
    assert land(store, tmp_path / "sr.gz", gzip.compress(raw)).arrival is Arrival.DUPLICATE
    digest(store)
    (fact,) = facts(store, DIAMETER)
    assert (fact.number, fact.unit, fact.laterality, fact.status) == ("21.5", "mm", "left", "final")
    assert fact.source.reader.startswith("dicom@")
    assert flags(store) == []


@pytest.mark.parametrize("bare", [file()[132 + 12 :], b"\x08\0\5\0CS\x0a\0ISO_IR 100" + file()[132:]])
def test_a_bare_data_set_is_refused(store: Store, tmp_path: Path, bare: bytes) -> None:
    with pytest.raises(Malformed, match="without preamble"):
        land(store, tmp_path / "bare", bare)


def test_an_images_patient_does_not_replace_what_the_registration_said(store: Store) -> None:
    message = b"MSH|^~\\&|A|B|C|D|20260301||ADT^A08|1|P|2.5\rPID|1||4711^^^HOSP^MR||Doe^Jane||19600102|F\r"
    land_parts(store, [message], media_type=MESSAGE)
    digest_backlog(store, JOINING, ACTOR, rules={"test": Rules(Feed("a"), "feed")})
    land_parts(store, [report(group(), PatientBirthDate="19990909")], media_type=OBJECT)
    digest(store)
    assert [fact.text for fact in facts(store, BORN)] == ["1960-01-02"]
    assert [fact.number for fact in facts(store, DIAMETER)] == ["21.5"]


def test_a_later_version_of_a_report_takes_its_numbers_back(store: Store) -> None:
    land_parts(store, [report(group())], media_type=OBJECT)
    digest(store)
    later = report(SOPInstanceUID="1.2.3.89", PredecessorDocumentsSequence=[evidence("1.2.3", "1.2.3.0", "1.2.3.88")])
    land_parts(store, [later], media_type=OBJECT)
    digest(store)
    assert facts(store, DIAMETER) == ()


def test_a_study_is_landed_as_a_bundle(store: Store) -> None:
    headers = [header_of(file(SOPInstanceUID=f"1.2.3.0.{number}")) for number in range(3)]
    bundle = bundle_of(imaging_study(headers, PACS))
    land_parts(store, [json.dumps(bundle).encode()], media_type=RESOURCE)
    digest_backlog(store, JOINING, ACTOR)
    kinds = store.reads.query("SELECT type FROM resource ORDER BY id")
    assert [kind for (kind,) in kinds] == ["Patient", "ImagingStudy"]
    assert flags(store) == []


def test_images_state_nothing_and_what_is_damaged_is_quarantined(store: Store) -> None:
    land_parts(store, [file(), file()[:-3]], media_type=OBJECT)
    digest(store)
    assert store.reads.query("SELECT type FROM resource") == []
    assert flags(store) == [("quarantine", "unreadable")]
