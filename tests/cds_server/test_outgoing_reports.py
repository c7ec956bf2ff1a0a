"""A score that rests on a study becomes a report for the archive that keeps the study; and why others do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.dicom.headers import Header, header_of
from adapters.dicom.part10 import MEDIA_TYPE as OBJECT
from adapters.hl7v2.composed import Status
from adapters.sink import Taken, Told
from adapters.sinks.dicom_store import DicomStore
from adapters.sinks.dicomweb import Stow
from cds_server.app import Parts
from cds_server.configured import Table
from cds_server.continuous import Subscriber
from cds_server.destinations import check, destinations
from cds_server.dicomweb_access import access
from cds_server.imaging.work import Imaging
from cds_server.jobs import Job
from cds_server.outbox import Line, again, message_of, parked
from cds_server.outgoing import Composed, Composer
from cds_server.outgoing_reports import _objects, _opened
from cds_server.recalls import Recaller
from cds_server.reproduce import load as recorded
from cds_server.sending import Sender
from cds_server.settings import Settings, load
from cds_server.source_rules import rules_of
from cds_server.store.store import Store
from models.errors import Misconfigured
from tests.adapters.dicom_reports import GROUP, coded, evidence, item, number, report
from tests.cds_server.stores import JOINING, land_parts
from tests.cds_server.test_continuous import ILL, UNITS, WELL, adt, feed, oru
from tests.cds_server.test_results_due import opened, queued
from tests.dicom_made import ct_series, part10, uid

SERVICE = "deterioration-news2"
NOW = datetime.now(UTC)
ARCHIVE = f"""
[[source]]
name = "test"
kind = "dicom-storage"
namespace = "ward"
listen = "127.0.0.1:11112"
ae_title = "CDS"

[[destination]]
name = "archive"
kind = "dicom"
namespace = "ward"
host = "127.0.0.1"
port = 104
ae_title = "PACS"
services = ["{SERVICE}"]

[[destination]]
name = "web"
kind = "dicomweb"
namespace = "ward"
url = "http://127.0.0.1:8042/dicom-web"
services = ["{SERVICE}"]
outputs = ["points"]

[[destination]]
name = "elsewhere"
kind = "dicomweb"
namespace = "another-hospital"
url = "http://127.0.0.1:8042/dicom-web"
services = ["{SERVICE}"]
"""


@pytest.fixture
def configured(data_dir: Path) -> Callable[[str], Settings]:
    def made(text: str = ARCHIVE) -> Settings:
        config = data_dir / "cds.toml"
        config.write_text(text)
        url = f"sqlite:///{data_dir / 'cds.db'}"
        return load({"CDS_CONFIG": str(config)}, data_dir=data_dir, database_url=url, trust="open")

    return made


@pytest.fixture
def parts(configured: Callable[[], Settings]) -> Iterator[Parts]:
    yield from opened(configured())


def vital_signs(place: int, values: dict[str, str], *, replaces: int | None = None) -> bytes:
    """What was measured during the examination (TID 1500)."""
    study, series = uid("out"), uid("out", "reports")
    measured = [number((code, "LN", "x"), value, (UNITS[code], "UCUM", "x")) for code, value in values.items()]
    alert = coded(("67775-7", "LN", "ACVPU"), ("LA9340-6", "LN", "Alert"), "CONTAINS")
    earlier = [evidence(study, series, uid("out", "report", replaces))] if replaces is not None else None
    return report(
        item("CONTAINER", GROUP, "CONTAINS", *measured, alert),
        StudyInstanceUID=study,
        SeriesInstanceUID=series,
        SOPInstanceUID=uid("out", "report", place),
        PatientID="out",
        IssuerOfPatientID="MADE",
        PatientBirthDate="19600102",
        AccessionNumber="A-out",
        StudyDate=f"{NOW:%Y%m%d}",
        StudyTime=f"{NOW:%H%M%S}",
        ContentDate=f"{NOW:%Y%m%d}",
        ContentTime=f"{NOW:%H%M%S}",
        TimezoneOffsetFromUTC="+0000",
        PredecessorDocumentsSequence=earlier,
    )


def arrive(parts: Parts, *objects: bytes) -> None:
    for each in objects:
        land_parts(parts.store, [each], namespace="ward", media_type=OBJECT)
    Imaging(parts.store, JOINING, rules_of(parts.settings), quiet=0.0).some()
    for worker in (
        Recaller(parts.store, parts.registry),
        Subscriber(parts.store, parts.registry, parts.decisions),
    ):
        while worker.some():
            pass


def images() -> list[bytes]:
    return [part10(each) for each in ct_series(name="out", slices=3, size=16, patient_id="out")]


def header(job: Job) -> Header:
    return header_of(message_of(job))


def test_a_score_that_rests_on_a_study_becomes_a_report_of_that_study(parts: Parts) -> None:
    arrive(parts, *images(), vital_signs(1, ILL))
    (job,) = queued(parts, "archive")
    made = header(job)
    assert (made.study_uid, made.patient.id and made.patient.id.value) == (str(uid("out")), "out")
    assert made.series.description == f"CDS research: {SERVICE}"
    assert made.study.accession == "A-1"
    assert {each for reference in made.references for each in reference.instances} == {
        header_of(each).sop_uid for each in images()
    }
    (other,) = queued(parts, "web")
    assert header(other).sop_uid != made.sop_uid  # what one archive was sent tells nothing about another
    assert len(message_of(other)) < len(message_of(job))  # the points alone
    assert message_of(job) == message_of(queued(parts, "archive")[0])


def test_a_study_of_another_namespace_goes_nowhere_and_a_person_is_told(parts: Parts) -> None:
    arrive(parts, *images(), vital_signs(1, ILL))
    assert queued(parts, "elsewhere") == []
    details = [row[0] for row in parts.store.reads.query("SELECT detail FROM flag WHERE reason = 'not-sent'")]
    assert details == ["not sent to elsewhere: the study that it rests on is not of the namespace another-hospital"]


def test_a_score_that_rests_on_no_study_is_not_for_an_archive(parts: Parts) -> None:
    feed(parts, adt("A01"), oru(ILL))
    assert [queued(parts, each) for each in ("archive", "web", "elsewhere")] == [[], [], []]
    assert list(parts.store.reads.query("SELECT 1 FROM flag WHERE reason = 'not-sent'")) == []


def test_a_correction_replaces_the_report_in_its_own_series(parts: Parts) -> None:
    arrive(parts, *images(), vital_signs(1, ILL))
    (first,) = queued(parts, "archive")
    arrive(parts, vital_signs(2, WELL, replaces=1))
    jobs = queued(parts, "archive")
    assert jobs[0].ref == first.ref
    corrected = [each for each in jobs if each.asked["status"] == "C"]
    assert len(jobs) >= 2
    for each in corrected:
        assert header(each).series_uid == header(first).series_uid
        assert header(each).sop_uid != header(first).sop_uid


def test_a_withdrawal_rejects_what_was_sent(parts: Parts) -> None:
    arrive(parts, *images(), vital_signs(1, ILL))
    (job,) = queued(parts, "archive")
    composer, ref = Composer(parts.store, parts.settings, parts.registry), str(job.asked["inference"])
    made = composer.compose(
        composer.destinations["archive"],
        recorded(parts.store, ref),
        number=str(job.asked["number"]),
        status=Status.WITHDRAWN,
        earlier=[message_of(job)],
    )
    assert isinstance(made, Composed)
    last = header_of(made.message)
    assert last.rejects
    assert [uid for each in last.references for uid in each.instances] == [header(job).sop_uid]
    assert last.study_uid == header(job).study_uid


def test_what_an_archive_refuses_is_sent_again_as_a_person_says(parts: Parts) -> None:
    arrive(parts, *images(), vital_signs(1, ILL))
    (job,) = queued(parts, "archive")
    parked(parts.store, job, "A900", "system")
    ((flag,),) = parts.store.reads.query("SELECT id FROM flag WHERE kind = 'dead-letter'")
    composer = Composer(parts.store, parts.settings, parts.registry)
    again(parts.store, composer, job.ref, flag, "somebody")
    (after,) = queued(parts, "archive")
    assert after.state == "waiting"
    assert message_of(after) == message_of(job)  # the same result is the same bytes


def test_a_sender_gives_the_very_bytes_and_says_that_it_is_done(parts: Parts) -> None:
    arrive(parts, *images(), vital_signs(1, ILL))
    (job,) = queued(parts, "web")
    composer = Composer(parts.store, parts.settings, parts.registry)
    given: list[bytes] = []
    answers = iter([Told(Taken.LATER, "A700"), Told(Taken.YES, "200")])
    stopping: list[asyncio.Event] = []

    class Archive:
        async def deliver(self, message: bytes) -> Told:
            given.append(message)
            told = next(answers)
            if told.taken is Taken.YES:
                stopping[0].set()
            return told

        async def close(self) -> None:
            pass

    async def send() -> None:
        stopping.append(asyncio.Event())
        sender = Sender(parts.store, composer.destinations["web"], stopping[0])
        sender._sink = Archive()
        sender._destination = replace(sender._destination, retry_from=0.01)
        await asyncio.wait_for(sender.run(), 30)

    asyncio.run(send())
    assert given == [message_of(job)] * 2
    assert queued(parts, "web")[0].state == "acknowledged"
    assert Line(parts.store, "web").next() is None


def test_of_a_long_series_some_headers_are_opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In either database."""
    monkeypatch.setattr("cds_server.outgoing_reports.LISTED", 4)
    for each in (*images(), *(part10(one) for one in ct_series(name="out", slices=11, size=16, series=2))):
        land_parts(store, [each], namespace="ward", media_type=OBJECT)
    Imaging(store, JOINING, {}, quiet=0.0).index()
    (study,) = {bytes(row[0]) for row in store.reads.query("SELECT study FROM dicom_object")}
    found = [_opened(store, row) for row in _objects(store, study)]
    numbers: dict[str, list[int | None]] = {}
    for one in found:
        numbers.setdefault(one.series_uid, []).append(one.number)
    assert list(numbers.values()) == [[1, 2, 3], [1, 4, 7, 10, 11]]


# ---- what a configuration says ---------------------------------------------------------------------------------------


def test_each_kind_has_its_way(configured: Callable[..., Settings]) -> None:
    settings = configured()
    assert check(settings)
    ways = {name: type(each.sink()) for name, each in destinations(settings).items()}
    assert ways == {"archive": DicomStore, "web": Stow, "elsewhere": Stow}


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ('host = "127.0.0.1"\nport = 104', 'host = "10.0.0.1"', "tls of .* is off beyond this machine"),
        ('ae_title = "PACS"', "", "has no ae_title"),
        ('ae_title = "PACS"', 'ae_title = "A\\\\B"', "ae_title of .* is no AE title"),
        ('ae_title = "PACS"', 'ae_title = "PACS"\ncommitment_listen = "0.0.0.0:1"', "commitment of .* is off"),
        ('ae_title = "PACS"', 'ae_title = "P"\ncommitment = true\ncommitment_listen = "x"', "is not address:port"),
        ('ae_title = "PACS"', 'ae_title = "PACS"\nsending_facility = "H"', "unknown key 'sending_facility'"),
        ('url = "http://127.0.0.1:8042/dicom-web"', "", "has no url"),
        ("http://127.0.0.1:8042/dicom-web", "https://pacs.example/dicom-web", "auth of .* is 'none'"),
        ("http://127.0.0.1:8042/dicom-web", "http://pacs.example/dicom-web", "url of .* cannot be asked"),
        ("http://127.0.0.1:8042/dicom-web", "http://127.0.0.1:8042/?a=b", "url of .* has a query"),
        ('outputs = ["points"]', 'auth = "magic"', "auth of .* is none of"),
        ('outputs = ["points"]', 'auth = "bearer"', "token_file of .* is missing"),
        ('outputs = ["points"]', 'auth = "mtls"', "without tls_cert_file"),
        ('kind = "dicomweb"', 'kind = "xds"', "kind of .* is none of hl7v2-mllp, dicom, dicomweb"),
    ],
)
def test_what_is_wrong_stops_the_start(configured: Callable[..., Settings], before: str, after: str, why: str) -> None:
    assert before in ARCHIVE
    with pytest.raises(Misconfigured, match=why):
        check(configured(ARCHIVE.replace(before, after, 1)))


def test_a_token_is_read_anew_for_each_request(configured: Callable[..., Settings], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    token.chmod(0o600)
    entries = {"url": "https://pacs.example/dicom-web", "auth": "bearer", "token_file": str(token)}
    web = access(Table(entries, "[[source]] 'x'", "cds.toml"), configured())
    assert web.headers() == {"Authorization": "Bearer first"}
    token.write_text("second")
    assert web.headers() == {"Authorization": "Bearer second"}
    basic = {"url": "https://pacs.example/d", "auth": "basic", "user": "cds", "password_file": str(token)}
    assert access(Table(basic, "[[source]] 'x'", "cds.toml"), configured()).headers() == {
        "Authorization": "Basic Y2RzOnNlY29uZA=="
    }
