"""The sandbox refuses to stand beside what looks real."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from cds_server.__main__ import main
from cds_server.sandbox.guard import check_configuration, check_loopback
from cds_server.settings import load
from models.errors import NotAllowed

EHR = '[[ehr]]\nnamespace = "ward"\ntest = {test}\n'
OPEN = 'trust = "open"\n'


def check(tmp_path: Path, text: str) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(text)
    check_configuration(load({"CDS_CONFIG": str(config)}))


@pytest.mark.parametrize("text", ["", OPEN, OPEN + EHR.format(test="true")])
def test_a_place_for_trying_out(tmp_path: Path, text: str) -> None:
    check(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (EHR.format(test="false"), r"\[\[ehr\]\] in cds.toml"),
        (EHR.format(test="true") + EHR.format(test="false").replace("ward", "other"), "ehr"),
        ('public_url = "https://cds.hospital.example"\n', "cds.toml"),
        ('host = "0.0.0.0"\npublic_url = "http://127.0.0.1:8000"\n', "host in cds.toml"),
        ('[[source]]\nname = "adt"\nkind = "hl7v2_mllp"\nnamespace = "ward"\n', "source"),
        ('[[destination]]\nname = "pacs"\nkind = "dicomweb"\nnamespace = "ward"\n', "destination"),
    ],
)
def test_what_looks_real_is_refused(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(NotAllowed, match=where):
        check(tmp_path, text)


@pytest.mark.parametrize("url", ["http://cds.example.org", "https://10.0.0.7", "ftp://127.0.0.1", "127.0.0.1:8000"])
def test_only_a_server_on_this_machine_is_called(url: str) -> None:
    with pytest.raises(NotAllowed):
        check_loopback(url, "--to")


@pytest.mark.parametrize("command", ["sandbox", "demo"])
def test_the_commands_start_nothing_beside_what_looks_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(EHR.format(test="false"))
    monkeypatch.setenv("CDS_CONFIG", str(config))
    monkeypatch.setenv("CDS_DATA_DIR", str(tmp_path / "var"))
    heard = signal.getsignal(signal.SIGTERM)
    try:
        assert main([command]) == 4
    finally:
        signal.signal(signal.SIGTERM, heard)
    assert "not marked `test`" in capsys.readouterr().err
    assert not (tmp_path / "var").exists()
