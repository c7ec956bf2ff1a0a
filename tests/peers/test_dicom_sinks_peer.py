"""Results on their way into other people's archives: dcmtk and Orthanc take them, keep them, and give them back."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client.api import DICOMwebClient

from adapters.dicom.headers import header_of
from adapters.dicom.peers import DicomPeer, Timeouts
from adapters.dicom.report import compose
from adapters.hl7v2.composed import Status
from adapters.sink import Sink, Taken, Told
from adapters.sinks.dicom_store import Committing, DicomStore
from adapters.sinks.dicomweb import Stow
from cds_server.http import vendor_door
from cds_server.vendor_door import HostRules
from models.errors import PeerFailed
from tests.adapters.test_dicom_report import REPORT, RESULT, again, headers
from tests.dicom_made import ct_series, part10
from tests.peers import require
from tests.peers.pacs import AE_TITLE, Pacs, free_ports

US = "SINKSCU"
TIMES = Timeouts(connect=5, accept=5, answer=20)


def result(name: str, **changes: Any) -> bytes:
    """One that rests on a study called `name`."""
    return again(replace(REPORT, sources=headers(name=name)), number=name, **changes)


def delivered(sink: Sink, *objects: bytes) -> list[Told]:
    async def all_of_them() -> list[Told]:
        try:
            return [await sink.deliver(each) for each in objects]
        finally:
            await sink.close()

    return asyncio.run(all_of_them())


@pytest.fixture(scope="module")
def word() -> int:
    """Where Orthanc's words of commitment come in."""
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def archive(pacs: Pacs, word: int) -> Pacs:
    pacs.introduce(US, word)
    return pacs


def peer_of(port: int, ae_title: str = AE_TITLE, ours: str = US) -> DicomPeer:
    return DicomPeer("archive", "127.0.0.1", port, ae_title, ours, destination=ours, timeouts=TIMES)


@pytest.fixture(scope="module")
def dcmtk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Its storage: port, and the folder where it puts the data sets as they come (+B)."""
    require("dcmtk")
    place, (port,) = tmp_path_factory.mktemp("storescp"), free_ports(1)
    command = ["storescp", "+B", "-od", str(place), "-aet", "DCMTK", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port, place
    finally:
        process.terminate()
        process.wait()


def held(pacs: Pacs, file: bytes) -> bytes | None:
    """What Orthanc holds under an object's UID."""
    import json

    query = {"Level": "Instance", "Query": {"SOPInstanceUID": header_of(file).sop_uid}}
    found = json.loads(pacs.ask("POST", "/tools/find", json.dumps(query).encode())[1])
    return pacs.ask("GET", f"/instances/{found[0]}/file")[1] if found else None


# ---- what the object is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.FINAL, Status.CORRECTED])
def test_dcmtk_reads_the_tree_and_finds_nothing_wrong(tmp_path: Path, status: Status) -> None:
    require("dcmtk")
    # in a zone: dcmtk 3.6.7 takes +0000 for wrong, which PS3.5, 6.2 is not of the opinion of
    report = replace(REPORT, sources=tuple(each.but(offset="+0100") for each in REPORT.sources))
    first = compose(report)
    place = tmp_path / "report.dcm"
    place.write_bytes(first if status is Status.FINAL else again(report, first, status=status))
    done = subprocess.run(["dsrdump", "+Pl", "+Pc", str(place)], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["W: The VR checker does not support this Specific Character Set: ISO_IR 192"]
    for said in ("(126000,DCM", "(126010,DCM", "111001,DCM", "Recurrence of breast cancer", "81.5", "UNVERIFIED"):
        assert said in done.stdout


@pytest.mark.parametrize("kind", ["final", "corrected", "withdrawn"])
def test_a_checker_of_information_objects_finds_no_error(tmp_path: Path, kind: str) -> None:
    """It warns of one thing: our private coding scheme is none that it knows."""
    checker, first = require("dicom3tools"), compose(REPORT)
    made = first if kind == "final" else again(REPORT, first, status=Status[kind.upper()])
    place = tmp_path / "object.dcm"
    place.write_bytes(made)
    done = subprocess.run([str(checker), "-new", str(place)], capture_output=True, text=True, check=False)
    lines = [each for each in (done.stdout + done.stderr).splitlines() if "defined term = <99CDS>" not in each]
    assert [each for each in lines if "Error" in each or "Warning" in each] == []
    assert done.returncode == 0


# ---- C-STORE ---------------------------------------------------------------------------------------------------------


def test_dcmtk_stores_the_very_data_set(dcmtk: tuple[int, Path]) -> None:
    port, place = dcmtk
    give_up = time.monotonic() + 20
    file = result("sink-dcmtk")
    while True:
        try:
            told = delivered(DicomStore(lambda: peer_of(port, "DCMTK")), file, file)
            break
        except PeerFailed:  # it is still being started
            assert time.monotonic() < give_up
            time.sleep(0.1)
    assert told == [Told(Taken.YES, "0000")] * 2
    (stored,) = place.iterdir()
    body = file[file.index(b"\x08\x00\x05\x00") :]
    assert stored.read_bytes().endswith(body)


def test_orthanc_commits_itself_on_an_association_of_its_own(archive: Pacs, word: int) -> None:
    file = result("sink-commit")
    sink = DicomStore(lambda: peer_of(archive.port), Committing(20, "127.0.0.1", word))
    assert delivered(sink, file, file) == [Told(Taken.YES, "0000")] * 2
    assert held(archive, file) is not None


def test_where_no_word_of_commitment_comes_nobody_knows(archive: Pacs) -> None:
    """It sends its word elsewhere than we wait for it."""
    sink = DicomStore(lambda: peer_of(archive.port), Committing(0.5, "127.0.0.1", free_ports(1)[0]))
    with pytest.raises(PeerFailed, match="does not say that it will keep it"):
        delivered(sink, result("sink-silent"))


def test_an_archive_without_commitment_is_none_where_it_is_asked_for(dcmtk: tuple[int, Path]) -> None:
    sink = DicomStore(lambda: peer_of(dcmtk[0], "DCMTK"), Committing(1))
    with pytest.raises(PeerFailed, match="storage commitment"):
        delivered(sink, result("sink-uncommitted"))


def test_a_stranger_is_rejected_and_a_dead_archive_is_waited_for(archive: Pacs) -> None:
    with pytest.raises(PeerFailed, match="rejects"):
        delivered(DicomStore(lambda: peer_of(archive.port, ours="STRANGER")), result("sink-stranger"))
    with pytest.raises(PeerFailed, match="refused"):
        delivered(DicomStore(lambda: peer_of(free_ports(1)[0])), result("sink-dead"))


# ---- STOW-RS ---------------------------------------------------------------------------------------------------------


def stow(url: str) -> Stow:
    rules = HostRules(url)
    return Stow(url, lambda: vendor_door(rules), dict)


def test_orthanc_takes_it_into_the_study_and_gives_it_back(archive: Pacs) -> None:
    assert set(archive.load(part10(each) for each in ct_series(name="sink-stow", slices=3, size=16))) == {200}
    file = result("sink-stow")
    assert delivered(stow(archive.dicomweb), file, file) == [Told(Taken.YES, "200")] * 2
    header = header_of(file)
    client = DICOMwebClient(archive.dicomweb)
    series = client.search_for_series(header.study_uid)
    assert {each["00080060"]["Value"][0] for each in series} == {"CT", "SR"}
    found = client.retrieve_instance(header.study_uid, header.series_uid, header.sop_uid)
    assert found.SeriesDescription == "CDS research: breast-cancer-prognosis"
    assert found.ContentSequence[-1].ContentSequence[0].ContentSequence[0].TextValue == "breast-cancer-prognosis result"


def test_a_correction_and_a_withdrawal_stand_beside_the_first(archive: Pacs) -> None:
    report = replace(REPORT, sources=headers(name="sink-chain"), result=replace(RESULT, number="chain"))
    first = compose(report)
    second = again(report, first, values=RESULT.values[:1], status=Status.CORRECTED)
    last = again(report, first, second, status=Status.WITHDRAWN)
    assert {each.taken for each in delivered(stow(archive.dicomweb), first, second, last)} == {Taken.YES}
    assert all(held(archive, each) is not None for each in (first, second, last))


def test_what_orthanc_cannot_read_is_refused_for_good(archive: Pacs) -> None:
    file = result("sink-broken")
    spoilt = file.replace(header_of(file).study_uid.encode(), b"")
    try:
        (told,) = delivered(stow(archive.dicomweb), spoilt)
    except Exception as error:  # noqa: BLE001 (our own reader refuses it before it is sent)
        assert type(error).__name__ in ("Malformed", "Unreadable")  # noqa: PT017
    else:
        assert told.taken is Taken.NO
