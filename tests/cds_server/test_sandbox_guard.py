"""The sandbox refuses to stand beside what looks real."""

from __future__ import annotations

from pathlib import Path

import pytest

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
