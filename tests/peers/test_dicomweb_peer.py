"""Against Orthanc's DICOMweb plug-in: what it has comes, byte for byte, once; what did not come is asked for again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.dicom.association import NoAssociation
from adapters.dicom.peers import DicomPeer, Level, Quirks, Retrieve
from adapters.dicom.query import Query
from adapters.dicom.receiving import Storing
from adapters.dicom.reconcile import Limits
from adapters.sources.dicom_move import Ask, DicomPull
from adapters.sources.dicomweb import Dicomweb
from cds_server.__main__ import main
from cds_server.configured import Table
from cds_server.dicomweb_access import access
from cds_server.http import vendor_door
from cds_server.settings import from_environment, load
from cds_server.store.store import Store
from cds_server.vendor_door import HostRules
from models.errors import PeerFailed
from tests.adapters.test_hl7v2_mllp_tls import authority
from tests.dicom_made import ct_series, many, part10, uid
from tests.peers.pacs import Pacs, free_ports
from tests.peers.stored import Hurried, Remembering, Stored
from tests.peers.tls import in_front_of

COUNT = 650
"""More than a page."""


def with_web(url: str, use: Callable[[Dicomweb], Any], **settings: Any) -> Any:
    async def run() -> Any:
        door = vendor_door(HostRules(url))
        try:
            return await use(Dicomweb("web", url, door, dict, Storing("web", "made"), Hurried(), **settings))
        finally:
            await door.aclose()

    return asyncio.run(run())


def pulled(
    url: str,
    asked: Ask,
    stored: Stored,
    memory: Remembering | None = None,
    *,
    start: str = "study",
    limits: Limits | None = None,
    **settings: Any,
) -> Remembering:
    kept = memory or Remembering()
    peer = DicomPeer("web", "127.0.0.1", 1, "DICOMWEB", "CDS", retrieve=Retrieve.GET, quirks=Quirks(start_at=start))

    async def use(web: Dicomweb) -> None:
        pull = DicomPull(peer, kept, asked, stored, Hurried(), limits=limits or Limits(), tick=0.05, over=web)
        await pull.run(stored)

    with_web(url, use, **settings)
    return kept


@pytest.fixture(scope="module")
def archive(pacs: Pacs) -> Pacs:
    assert set(pacs.load(part10(each) for each in many(name="web-many", count=COUNT, per_series=325))) == {200}
    assert set(pacs.load(part10(each) for each in ct_series(name="web-late", slices=4, size=16))) == {200}
    return pacs


@pytest.mark.parametrize("wrong", ["", "no certificate of ours", "not its authority"])
def test_over_tls_both_show_who_they_are(archive: Pacs, tmp_path: Path, wrong: str) -> None:
    signer = authority(tmp_path, "signer")
    cert, key = signer.issue("us")
    with in_front_of(archive.http_port, tmp_path, clients=signer.pem) as front:
        said = {
            "url": f"{front.url}/dicom-web",
            "auth": "mtls",
            "tls_ca_file": str(front.authority),
            "tls_cert_file": str(cert),
            "tls_key_file": str(key),
        }
        if wrong == "no certificate of ours":
            said = {name: said[name] for name in ("url", "tls_ca_file")}
        if wrong == "not its authority":
            said["tls_ca_file"] = str(signer.pem)
        found = access(Table(said, "[[source]] 'web'", "cds.toml"), load({}, data_dir=tmp_path))

        async def studies() -> Any:
            door = found.door()
            try:
                web = Dicomweb("web", found.url, door, found.headers, Storing("web", "made"), Hurried())
                return await web.studies(Query(Level.STUDY, {"StudyInstanceUID": str(uid("web-late"))}), 5)
            finally:
                await door.aclose()

        if wrong:
            with pytest.raises(PeerFailed):
                asyncio.run(studies())
        else:
            assert len(asyncio.run(studies()).matches) == 1


def original(pacs: Pacs, sop: str) -> bytes:
    asked = json.dumps({"Level": "Instance", "Query": {"SOPInstanceUID": sop}}).encode()
    (found,) = json.loads(pacs.ask("POST", "/tools/find", asked)[1])
    return pacs.ask("GET", f"/instances/{found}/file")[1]


@pytest.mark.parametrize(
    "asked",
    [Ask(study=str(uid("web-many"))), Ask(accession="A-web-many"), Ask(patient="made-web-many", since="20260101")],
    ids=["study", "accession", "patient"],
)
def test_everything_that_it_has_comes_once(archive: Pacs, asked: Ask) -> None:
    stored = Stored()
    memory = pulled(archive.dicomweb, asked, stored)
    assert (memory.state, memory.cause) == ("complete", None)
    assert len(stored.uids) == len(stored.came) == COUNT
    (result,) = memory.remembers["results"]
    assert (result["expected"], result["stored"], result["stated"]) == (COUNT, COUNT, COUNT)


def test_an_object_is_stored_as_the_archive_has_it(archive: Pacs) -> None:
    stored = Stored()
    pulled(archive.dicomweb, Ask(study=str(uid("web-late"))), stored)
    for sop, file in stored.uids.items():
        assert file == original(archive, sop)


def test_what_is_stored_is_not_asked_for_again_and_a_late_series_is(archive: Pacs) -> None:
    stored = Stored()
    pulled(archive.dicomweb, Ask(study=str(uid("web-late"))), stored)
    again = pulled(archive.dicomweb, Ask(study=str(uid("web-late"))), stored)
    assert "moving" not in [state for state, _ in again.steps]
    archive.load(part10(each) for each in ct_series(name="web-late", slices=3, size=16, series=2))
    memory = pulled(archive.dicomweb, Ask(study=str(uid("web-late"))), stored)
    assert memory.state == "complete"
    assert memory.remembers["results"][0]["late_series"] == 1
    assert len(stored.came) == len(stored.uids) == 7


@pytest.mark.parametrize("start", ["series", "image"])
def test_each_level_is_retrieved(archive: Pacs, start: str) -> None:
    stored = Stored()
    memory = pulled(archive.dicomweb, Ask(study=str(uid("web-late"))), stored, start=start)
    assert memory.state == "complete"
    assert stored.uids


def test_the_metadata_say_what_the_listing_says(archive: Pacs) -> None:
    async def both(web: Dicomweb) -> Any:
        listed = await web.listed(str(uid("web-many")))
        of = f"/studies/{uid('web-many')}"
        found = []
        for series in await web._series(of):
            found += await web._asked(f"{of}/series/{series}/metadata", ("SOPInstanceUID",), 64 << 20)
        return listed, {each.text("SOPInstanceUID") for each in found}

    listed, metadata = with_web(archive.dicomweb, both)
    assert listed.uids() == metadata
    assert (listed.count, len(listed.series), listed.contradicts) == (COUNT, 2, False)
    assert listed.classes == {"1.2.840.10008.5.1.4.1.1.2"}


def test_names_come_whole_from_json(archive: Pacs) -> None:
    name = "web-name"
    archive.load(part10(each) for each in ct_series(name=name, slices=1, size=16, patient_name="Wächter^Ada"))

    async def asked(web: Dicomweb) -> Any:
        return await web.studies(Query(Level.STUDY, {"StudyInstanceUID": str(uid(name))}), 10)

    (match,) = with_web(archive.dicomweb, asked).matches
    assert match.text("PatientName") == "Wächter^Ada"
    assert match.whole("NumberOfStudyRelatedInstances") == 1


def test_no_more_studies_are_taken_than_the_limit_says(archive: Pacs) -> None:
    async def asked(web: Dicomweb) -> Any:
        return await web.studies(Query(Level.STUDY, {"StudyDate": "20200101-"}), 1)

    assert with_web(archive.dicomweb, asked).ended == "cut off at our limit"


def test_a_study_that_it_does_not_have_is_a_failure_and_no_empty_success(archive: Pacs) -> None:
    memory = pulled(archive.dicomweb, Ask(study="1.2.3.4.5.6"), Stored())
    assert (memory.state, memory.cause) == ("failed", "the archive has no such study")


def test_nobody_there_leaves_the_job_for_later() -> None:
    memory = Remembering()
    with pytest.raises(NoAssociation):
        pulled(f"http://127.0.0.1:{free_ports(1)[0]}/dicom-web", Ask(study="1.2.3"), Stored(), memory)
    assert memory.state == "asked"


def test_killed_at_any_step_another_process_takes_it_up(archive: Pacs) -> None:
    for fatal in range(6):
        stored, memory, seen = Stored(), Remembering(), 0

        def before(_to: str, fatal: int = fatal) -> None:
            nonlocal seen
            seen += 1
            if seen == fatal + 1:
                raise KeyboardInterrupt

        memory.before = before
        asked = Ask(study=str(uid("web-late")))
        with pytest.raises(KeyboardInterrupt):
            pulled(archive.dicomweb, asked, stored, memory)
        pulled(archive.dicomweb, asked, stored, memory)
        assert memory.state == "complete", fatal
        assert len(stored.came) == len(stored.uids)


# ---- by command ------------------------------------------------------------------------------------------------------

SOURCE = """
[[source]]
name = "web"
kind = "dicomweb"
namespace = "hospital"
url = "{url}"
issuer = "HOSPITAL"
"""


def test_cds_pull_brings_a_study_into_the_store(
    archive: Pacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(f'data_dir = "{tmp_path / "var"}"\n' + SOURCE.format(url=archive.dicomweb))
    monkeypatch.setenv("CDS_CONFIG", str(config))

    def cds(*words: str) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = main([*words, "--json"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else None, printed.err

    study = str(uid("web-cli"))
    archive.load(part10(each) for each in ct_series(name="web-cli", slices=4, size=16, accession="A-web-cli"))
    assert cds("pull", "web", "--study", study, "--dry-run")[:2] == (0, {"source": "web", "studies": 1, "instances": 4})
    code, (job,), errors = cds("pull", "web", "--accession", "A-web-cli")
    assert (code, job["state"], job["expected"], job["stored"]) == (0, "complete", 4, 4)
    assert study not in errors
    code, (again,), _ = cds("pull", "web", "--patient", "made-1", "--since", "2026-01-01", "--study", study)
    assert (code, again["state"], again["held_first"]) == (0, "complete", 4)
    settings = from_environment()
    store = Store.open(settings.data_dir, settings.database_url)
    try:
        rows = store.reads.query("SELECT ref, source, namespace, media_type, parts FROM landing ORDER BY id")
        assert [tuple(each[1:]) for each in rows] == [("web", "hospital", "application/dicom", 1)] * 4
        bodies = []
        for ref, *_ in rows:
            landing = store.reads.landing_by_ref(ref)
            assert landing is not None
            bodies.append(store.part(landing, 0))
    finally:
        store.close()
    assert set(bodies) == {original(archive, str(uid("web-cli", 1, number))) for number in range(1, 5)}
    (peer,) = cds("dicom", "peers")[1]
    assert (peer["address"], peer["retrieve"], peer["ae_title"]) == (archive.dicomweb, "DICOMweb", None)
    code, _, errors = cds("dicom", "find", "web")
    assert code != 0
    assert "is asked over HTTP" in errors
