"""`cds pull` and `cds dicom` against Orthanc: a C-MOVE into our storage process, a C-GET, and the record of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.sources.dicom_move import NAME
from cds_server import dicom_sources
from cds_server.__main__ import main
from cds_server.settings import from_environment
from cds_server.store.store import Store
from models.errors import Misconfigured
from tests.dicom_made import ct_series, many, part10, uid
from tests.peers import ROOT
from tests.peers.pacs import Pacs, free_ports

STORAGE = """
[[source]]
name = "images"
kind = "dicom-storage"
namespace = "hospital"
listen = "127.0.0.1:{listen}"
ae_title = "PULLSTORE"
peers = [{{ae_title = "ORTHANC", address = "127.0.0.1"}}]
"""
ARCHIVE = """
[[source]]
name = "archive"
kind = "dicom"
namespace = "hospital"
host = "127.0.0.1"
port = {port}
ae_title = "ORTHANC"
our_ae_title = "PULLER"
storage = "images"
settle_seconds = 1
"""
Cds = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def instance(pacs: Pacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An instance whose storage listens, in a process as `cds listen` makes it."""
    home = tmp_path_factory.mktemp("pull")
    (listen,) = free_ports(1)
    by_get = ARCHIVE.replace('"archive"', '"by-get"') + 'retrieve = "get"\n'
    tables = f'data_dir = "{home / "var"}"\n' + STORAGE + ARCHIVE + by_get
    config = home / "cds.toml"
    config.write_text(tables.format(listen=listen, port=pacs.port))
    pacs.introduce("PULLER", free_ports(1)[0])
    pacs.introduce("PULLSTORE", listen)
    pacs.load(part10(each) for each in many(name="pull", count=12, per_series=6))
    pacs.load(part10(each) for each in ct_series(name="pull-get", slices=3, size=16, accession="A-get"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CDS_")}
    command = [sys.executable, "-m", "cds_server", "listen", "images"]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**environment, "CDS_CONFIG": str(config)}, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        assert process.stderr.readline()  # it listens
        yield config
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture
def cds(instance: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cds:
    monkeypatch.setenv("CDS_CONFIG", str(instance))

    def run(*words: str) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = main([*words, "--json"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else None, printed.err

    return run


def landings() -> list[Any]:
    settings = from_environment()
    store = Store.open(settings.data_dir, settings.database_url)
    try:
        return [tuple(each) for each in store.reads.query("SELECT source, namespace, parts FROM landing ORDER BY id")]
    finally:
        store.close()


def test_a_study_is_moved_once_into_our_storage(cds: Cds) -> None:
    code, (job,), errors = cds("pull", "archive", "--study", str(uid("pull")))
    assert (code, job["state"], job["expected"], job["stored"]) == (0, "complete", 12, 12)
    assert landings().count(("images", "hospital", 1)) == 12
    assert str(uid("pull")) not in errors
    code, (again,), _ = cds("pull", "archive", "--patient", "made-pull", "--since", "2026-01-01")
    assert (code, again["state"], again["held_first"]) == (0, "complete", 12)
    code, (by_get,), _ = cds("pull", "by-get", "--accession", "A-pull")  # the other way in: the same objects
    assert (code, by_get["state"], by_get["held_first"]) == (0, "complete", 12)
    assert len(landings()) == 12


def test_a_get_lands_under_the_storage_too(cds: Cds) -> None:
    before = len(landings())
    code, (job,), _ = cds("pull", "by-get", "--accession", "A-get")
    assert (code, job["state"], job["stored"]) == (0, "complete", 3)
    assert landings()[before:] == [("images", "hospital", 1)] * 3


def test_what_is_not_there_is_an_error(cds: Cds) -> None:
    code, (job,), _ = cds("pull", "archive", "--accession", "A-none")
    assert (code, job["state"], job["cause"]) == (3, "failed", "the archive has no such study")
    assert cds("pull", "archive")[0] == 2
    assert cds("pull", "archive", "--accession", "A*")[0] != 0
    assert cds("pull", "archive", "--full", "--study", "1.2")[0] == 2


def test_a_dry_run_makes_no_job(cds: Cds) -> None:
    _, before, _ = cds("pull", "by-get", "--status")
    assert cds("pull", "by-get", "--accession", "A-get", "--dry-run")[:2] == (
        0,
        {"source": "by-get", "studies": 1, "instances": 3},
    )
    assert cds("pull", "by-get", "--status")[1] == before


def test_archives_are_asked_by_hand(cds: Cds) -> None:
    code, answers, _ = cds("dicom", "echo", "archive")
    assert (code, answers[0]["fine"]) == (0, True)
    code, peers, _ = cds("dicom", "peers")
    assert [(each["name"], each["retrieve"], each["destination"]) for each in peers] == [
        ("archive", "move", "PULLSTORE"),
        ("by-get", "get", None),
    ]
    code, found, _ = cds("dicom", "find", "archive", "--patient", "made-pull")
    assert (code, found[0]["PatientName"], found[0]["StudyInstanceUID"]) == (0, "***", str(uid("pull")))
    code, found, _ = cds("dicom", "find", "archive", "--patient", "made-pull", "--unmask")
    assert found[0]["PatientName"] == "Made^Person"
    code, found, _ = cds("dicom", "find", "archive", "--level", "series", "--study", str(uid("pull")))
    assert (code, len(found)) == (0, 2)
    assert cds("dicom", "find", "archive", "--level", "series")[0] != 0
    code, found, errors = cds("dicom", "find", "archive", "--limit", "1")
    assert (len(found), "there are more than 1" in errors) == (1, True)


def test_the_log_verifies_after_it_all(cds: Cds) -> None:
    assert cds("ledger", "verify")[0] == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('storage = "other"', "names no"),
        ('ae_title = "AE TITLE THAT IS TOO LONG"', "ae_title"),
        ('root = "series"', "root"),
        ('host = "10.1.2.3"', "without_tls"),
        ('windows = ["22-6"]', "windows"),
        ("max_pdu = 100", "max_pdu"),
        ('profile = "nobody"', "profile"),
        ("quirks = {most = 1}", "quirks"),
        ('tls_ca_file = "nowhere.pem"', "tls_ca_file"),
        ("colour = 1", "colour"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, told: str) -> None:
    key = line.partition(" =")[0]
    table = "\n".join(each for each in ARCHIVE.format(port=104).splitlines() if not each.startswith(f"{key} ="))
    config = tmp_path / "cds.toml"
    config.write_text(f'data_dir = "{tmp_path}"\n' + STORAGE.format(listen=104) + table + f"\n{line}\n")
    monkeypatch.setenv("CDS_CONFIG", str(config))
    with pytest.raises(Misconfigured, match=told):
        dicom_sources.dicom_sources(from_environment())


def test_the_kind_is_the_name_of_the_source() -> None:
    assert dicom_sources.KIND == NAME
