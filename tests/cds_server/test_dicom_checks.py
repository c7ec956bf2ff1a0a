"""`cds doctor` on archives and storages: each state by its cause, in words that lead somewhere."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from adapters.sources.certificates import Tls
from cds_server import dicom_checks
from cds_server.settings import Settings, load
from cds_server.trust.checks import Check
from tests.adapters.dicom_senders import OURS, listening, opened
from tests.adapters.test_hl7v2_mllp_tls import authority
from tests.peers.pacs import free_ports

STORAGE = """
[[source]]
name = "images"
kind = "dicom-storage"
namespace = "hosp"
listen = "127.0.0.1:{port}"
ae_title = "{title}"
min_free_mb = {least}
{more}
"""
ARCHIVE = """
[[source]]
name = "pacs"
kind = "dicom"
namespace = "hosp"
host = "127.0.0.1"
port = {port}
ae_title = "{title}"
retrieve = "get"
"""


def settings(folder: Path, text: str) -> Settings:
    config = folder / "cds.toml"
    config.write_text(text)
    return load({"CDS_CONFIG": str(config)}, data_dir=folder / "var")


def storage(
    folder: Path, port: int, *, title: str = OURS, least: int = 0, more: str = ""
) -> dict[str, tuple[str, str]]:
    text = STORAGE.format(port=port, title=title, least=least, more=more)
    return told(dicom_checks.dicom(settings(folder, text)))


def told(checks: list[Check]) -> dict[str, tuple[str, str]]:
    return {name: (state, what) for name, state, what in checks}


def test_an_archive_answers_or_what_is_in_the_way_is_said(tmp_path: Path) -> None:
    with opened(tmp_path / "store", listening()) as door:
        found = told(dicom_checks.dicom(settings(tmp_path, ARCHIVE.format(port=door.port, title=OURS))))
        assert found["archive pacs"][0] == "ok"
        assert found["archive pacs"][1].startswith("answers to CDS after ")
        found = told(dicom_checks.dicom(settings(tmp_path, ARCHIVE.format(port=door.port, title="OTHER"))))
        assert found["archive pacs"][0] == "FAILS"
        assert found["archive pacs"][1].endswith(": ae_title is not what it calls itself")
    (port,) = free_ports(1)
    found = told(dicom_checks.dicom(settings(tmp_path, ARCHIVE.format(port=port, title=OURS))))
    assert found["archive pacs"] == ("FAILS", "the connection is refused: nothing listens there")


def test_a_storage_that_listens(tmp_path: Path) -> None:
    with opened(tmp_path / "store", listening()) as door:
        state, what = storage(tmp_path, door.port)["storage images"]
        assert (state, what) == ("ok", f"answers on 127.0.0.1:{door.port} as {OURS}")
        state, what = storage(tmp_path, door.port, title="SOMEBODY")["storage images"]
        assert state == "FAILS"
        assert "something else has" in what


def test_a_port_that_is_free_or_belongs_to_something_else(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    state, what = storage(tmp_path, port)["storage images"]
    assert (state, "cds listen images" in what) == ("LOOK", True)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.MonkeyPatch.context() as patched:
        patched.setattr(dicom_checks, "ANSWER", 0.3)
        state, what = storage(tmp_path, silent.getsockname()[1])["storage images"]
    assert (state, "does not answer as DICOM" in what) == ("LOOK", True)


def test_the_watermark_of_the_disk(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    assert storage(tmp_path, port)["storage images disk"][0] == "ok"
    assert storage(tmp_path, port, least=1 << 29)["storage images disk"][0] == "FAILS"


def test_certificates_of_a_storage(tmp_path: Path) -> None:
    cert, key = authority(tmp_path, "signer").issue("storage")
    more = f'tls_cert_file = "{cert}"\ntls_key_file = "{key}"'
    (port,) = free_ports(1)
    assert storage(tmp_path, port, more=more)["storage images certificate"] == ("FAILS", "ends in 0 days: renew it")
    assert dicom_checks._ends(Tls(cert, cert)) == ("FAILS", "the certificate or its key cannot be used")


def test_a_configuration_that_cannot_be_used_is_one_finding(tmp_path: Path) -> None:
    ((name, state, _),) = dicom_checks.dicom(settings(tmp_path, ARCHIVE.format(port=0, title=OURS)))
    assert (name, state) == ("DICOM sources", "FAILS")
