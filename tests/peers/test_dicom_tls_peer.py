"""An archive that speaks TLS (D15): Orthanc with a certificate, which asks for ours, too."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.dicom.association import Cause, echo
from adapters.dicom.finding import listed
from adapters.dicom.peers import DicomPeer, PeerTls, Retrieve, Timeouts
from adapters.sources.dicom_move import Ask
from tests.adapters.test_hl7v2_mllp_tls import Authority, authority
from tests.dicom_made import ct_series, part10, uid
from tests.peers import require
from tests.peers.pacs import Pacs, free_ports
from tests.peers.stored import Stored, storage
from tests.peers.test_dicom_move_peer import pulled

US, THEM = "TLSSCU", "TLSDST"
TIMES = Timeouts(connect=5, accept=5, answer=20, stall=20, settle=0.5, cancel=3)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("signer"), "signer")


@pytest.fixture(scope="module")
def archive(signer: Authority) -> Iterator[Pacs]:
    cert, key = signer.issue("archive", "localhost", "archive.hospital.example")
    home = Path(tempfile.mkdtemp(prefix="cds-orthanc-tls-"))
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(cert),
        "DicomTlsPrivateKey": str(key),
        "DicomTlsTrustedCertificates": str(signer.pem),
        "DicomTlsRemoteCertificateRequired": True,
    }
    pacs = Pacs(require("orthanc"), home, settings=settings)
    try:
        pacs.start()
        pacs.introduce(US, free_ports(1)[0])
        pacs.load(part10(each) for each in ct_series(name="tls", slices=5, size=16))
        yield pacs
    finally:
        pacs.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def peer(archive: Pacs, signer: Authority) -> DicomPeer:
    tls = PeerTls(signer.pem, *signer.issue("us"), server_name="archive.hospital.example")
    return DicomPeer("archive", "127.0.0.1", archive.port, "ORTHANC", US, destination=THEM, tls=tls, timeouts=TIMES)


def test_both_show_who_they_are(archive: Pacs, peer: DicomPeer) -> None:
    assert echo(peer).fine
    assert listed(peer, str(uid("tls"))).count == 5
    by_get = Stored()
    assert pulled(replace(peer, retrieve=Retrieve.GET, destination=""), Ask(study=str(uid("tls"))), by_get).state == (
        "complete"
    )
    assert len(by_get.uids) == 5


def test_a_move_comes_to_a_storage_of_ours(archive: Pacs, peer: DicomPeer) -> None:
    (port,) = free_ports(1)
    archive.introduce(THEM, port)
    stored = Stored()
    with storage(stored, THEM, port):
        assert pulled(peer, Ask(study=str(uid("tls"))), stored).state == "complete"
    assert len(stored.uids) == 5


@pytest.mark.parametrize("wrong", ["no certificate of ours", "a stranger's", "another name", "not our authority"])
def test_whoever_is_not_believed_is_told_so(peer: DicomPeer, tmp_path: Path, wrong: str) -> None:
    assert peer.tls is not None
    stranger = authority(tmp_path, "stranger")
    changes: dict[str, dict[str, Any]] = {
        "no certificate of ours": {"cert_file": None, "key_file": None},
        "a stranger's": dict(zip(("cert_file", "key_file"), stranger.issue("us"), strict=True)),
        "another name": {"server_name": "elsewhere.example"},
        "not our authority": {"ca_file": stranger.pem},
    }
    found = echo(replace(peer, tls=replace(peer.tls, **changes[wrong])))
    assert found.cause is Cause.TLS


def test_plain_words_to_it_are_not_taken_for_an_answer(peer: DicomPeer) -> None:
    assert not echo(replace(peer, tls=None)).fine
