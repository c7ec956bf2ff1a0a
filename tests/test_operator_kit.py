"""docs/operations: each file is read by what it is for, or held against what the server itself says."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from cds_server.commands import serve as serve_command
from cds_server.settings import load
from tests.peers import ROOT

KIT = ROOT / "docs" / "operations"


def text(name: str) -> str:
    return (KIT / name).read_text(encoding="utf-8")


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text("cds.service"))
    return parser


def test_the_manual_names_each_file_and_only_those() -> None:
    manual = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(operations/([\w.-]+)\)", manual)) == {path.name for path in KIT.iterdir()}


def test_the_example_configuration_is_one(tmp_path: Path) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(text("cds.toml"))
    settings = load({"CDS_CONFIG": str(config)})
    assert (settings.trust, settings.public_url) == ("jwt", "https://cds.hospital.example")
    assert [ehr.signs for ehr in settings.ehrs] == [True]


def test_the_unit_gives_the_server_its_folder_and_nothing_else() -> None:
    service = unit()["Service"]
    assert tomllib.loads(text("cds.toml"))["data_dir"] == f"/var/lib/{service['StateDirectory']}"
    assert service["ProtectSystem"] == "strict"
    assert (service["CapabilityBoundingSet"], service["NoNewPrivileges"]) == ("", "true")
    command, verb, *options = service["ExecStart"].split()
    assert (command, verb) == ("/opt/cds/bin/cds", serve_command.NAME)
    assert options == ["--workers", "2"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here: nobody reads the unit")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    here = tmp_path / "cds.service"
    here.write_text(text("cds.service").replace("/opt/cds/bin/cds", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_proxy_lets_through_what_an_ehr_calls_and_no_more() -> None:
    conf = text("nginx.conf")
    assert re.findall(r"location (?:= )?(\S+) +{ proxy_pass", conf) == [
        "/healthz",
        "/openapi.json",
        "/cds-services",
        "/cds-services/",
    ]
    assert re.search(r"location / +{ return 404; }", conf)
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in conf
    assert "proxy_next_upstream off;" in conf
    settings = load({})
    assert int(re.findall(r"client_max_body_size (\d+)m", conf)[0]) << 20 > settings.max_body
    assert int(re.findall(r"proxy_read_timeout (\d+)s", conf)[0]) * 1000 > settings.deadline_ms
    assert f"server 127.0.0.1:{settings.port};" in conf


def test_the_containers_run_what_the_image_has() -> None:
    compose, image = text("compose.yaml"), (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (data_dir,) = re.findall(r"CDS_DATA_DIR=(\S+)", image)
    assert f"CDS_DATA_DIR: {data_dir}\n" in compose
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"image: cds-server:{version}" in compose
    for guard in ("read_only: true", "cap_drop: [ALL]", "no-new-privileges:true", "condition: service_healthy"):
        assert guard in compose
    assert "8000:" not in compose, "the server itself is not published"


def test_the_log_shipper_takes_the_units_events() -> None:
    named = unit()["Service"]["SyslogIdentifier"]
    assert f'$programname == "{named}"' in text("rsyslog.conf")
    assert f"tag: {named}" in text("compose.yaml")
