"""`cds dicom deid`: exit codes, the entry in the log, keys by project."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.dicom.headers import header_of
from cds_server.__main__ import main
from cds_server.audit import audit
from cds_server.backlog import digest_backlog
from cds_server.settings import Settings
from cds_server.store.store import Store
from tests.adapters.dicom_deidentified import ct, ultrasound
from tests.adapters.dicom_planted import FAMILY, NAME, NUMBER, found_in
from tests.cds_server.stores import land_parts
from tests.dicom_made import ct_series, part10


@pytest.fixture
def deid(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    monkeypatch.setenv("CDS_CONFIG", str(settings.data_dir / "cds.toml"))
    monkeypatch.setenv("CDS_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("CDS_DATABASE_URL", settings.database_url)

    def run(*arguments: object, code: int = 0) -> str:
        capsys.readouterr()
        found = main(["dicom", "deid", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert found == code, err
        assert found_in((out + err).encode()) == []
        return str(out or err)

    yield run
    if (settings.data_dir / "keys.db").exists():
        assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / FAMILY / "in"
    made.mkdir(parents=True)
    for number, each in enumerate(ct_series(slices=3, size=16)):
        each.PatientName, each.PatientID = NAME, NUMBER
        (made / f"{FAMILY}-{number}.dcm").write_bytes(part10(each))
    return made


def test_an_export_is_told_and_recorded(deid: Any, folder: Path, tmp_path: Path, settings: Settings) -> None:
    (folder / "us.dcm").write_bytes(part10(ultrasound()))
    out = tmp_path / "out"
    said = json.loads(deid(folder, out, "--profile", "research", "--project", "trial-1", "--json", code=1))
    assert said["counts"] == {"written": 3, "refused": 1, "unreadable": 0, "skipped": 0}
    store = Store.open(settings.data_dir, settings.database_url)
    try:
        (body,) = store.reads.query("SELECT body FROM ledger_entry WHERE seq = ?", (said["entry"],))[0]
    finally:
        store.close()
    entry = json.loads(body)
    assert entry["kind"] == "deidentify"
    detail = entry["detail"]
    assert (detail["project"], detail["profile"]) == ("trial-1", "research")
    assert detail["counts"] == said["counts"]
    assert detail["outputs"] == said["outputs_digest"]
    assert detail["report"] == hashlib.sha256((out / "deidentification.json").read_bytes()).hexdigest()
    assert found_in(bytes(body)) == []
    for path in out.rglob("*"):
        assert found_in(str(path.relative_to(out)).encode()) == []
        assert not path.is_file() or found_in(path.read_bytes()) == []


def test_one_project_maps_alike_and_another_does_not(deid: Any, folder: Path, tmp_path: Path) -> None:
    for name, project in (("a", "one"), ("b", "one"), ("c", "two")):
        deid(folder, tmp_path / name, "--profile", "basic", "--project", project)
    kept = {
        name: {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.dcm")}
        for name in "abc"
    }
    assert kept["a"] == kept["b"]
    assert not set(kept["a"]) & set(kept["c"])
    ids = {name: {header_of(raw).patient.id for raw in files.values()} for name, files in kept.items()}
    assert len(ids["a"]) == len(ids["c"]) == 1
    assert ids["a"] != ids["c"]


def test_a_refusal_of_all_is_4_and_an_inspection_is_recorded(deid: Any, tmp_path: Path) -> None:
    path = tmp_path / "us.dcm"
    path.write_bytes(part10(ultrasound()))
    deid(path, tmp_path / "out", "--profile", "basic", code=4)
    assert "no rule says" in deid(path, tmp_path / "2", "--profile", "basic", "--pixels", "blank", code=4)
    said = json.loads(deid(path, tmp_path / "3", "--profile", "basic", "--inspected", "ultrasound", "--json"))
    assert said["inspected"] == ["ultrasound"]
    assert said["risk"]["level"] == "high"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--profile", "none"),
        ("--profile", "basic", "--option", "everything"),
        ("--profile", "research", "--option", "full-dates"),
        ("--profile", "basic", "--project", "no such/name"),
        ("--profile", "basic", "--inspected", "document"),
    ],
)
def test_what_is_asked_wrongly_is_2(arguments: tuple[str, ...], deid: Any, tmp_path: Path) -> None:
    path = tmp_path / "ct.dcm"
    path.write_bytes(ct())
    deid(path, tmp_path / "out", *arguments, code=2)
    assert not (tmp_path / "out").exists()


def test_the_folders_are_apart_and_the_output_is_new(deid: Any, folder: Path, tmp_path: Path) -> None:
    deid(folder, folder / "out", "--profile", "basic", code=2)
    deid(folder, folder, "--profile", "basic", code=2)
    deid(folder, folder.parent, "--profile", "basic", code=2)
    deid(folder, tmp_path / "out", "--profile", "basic")
    assert "not empty" in deid(folder, tmp_path / "out", "--profile", "basic", code=2)
    deid(tmp_path / "none", tmp_path / "out", "--profile", "basic", code=2)


def test_a_study_that_is_held_is_exported_by_its_uid(
    deid: Any, folder: Path, tmp_path: Path, settings: Settings
) -> None:
    store = Store.open(settings.data_dir, settings.database_url)
    try:
        for path in sorted(folder.iterdir()):
            receipt = land_parts(store, [path.read_bytes()], namespace="hosp", media_type="application/dicom")
            assert receipt.parts == 1
        digest_backlog(store, frozenset(), "user:test")
        header = header_of(next(folder.iterdir()).read_bytes())
    finally:
        store.close()
    said = json.loads(deid("--study", header.study_uid, tmp_path / "held", "--profile", "basic", "--json"))
    assert said["counts"] == {"written": 3, "refused": 0, "unreadable": 0, "skipped": 0}
    deid(folder, tmp_path / "files", "--profile", "basic")
    written = [
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.dcm")} for name in ("held", "files")
    ]
    assert written[0] == written[1]
    store = Store.open(settings.data_dir, settings.database_url)
    try:
        assert [tuple(row) for row in store.reads.query("SELECT act, outcome FROM access")] == [("export", "seen")]
        patient = store.reads.local_id(
            store.reads.records([store.reads.query("SELECT id FROM patient_record")[0][0]])[0]
        )
        land_parts(
            store, [json.dumps(OPTED_OUT | {"patient": {"reference": f"Patient/{patient}"}}).encode()], namespace="hosp"
        )
        digest_backlog(store, frozenset(), "user:test")
    finally:
        store.close()
    assert "opted out" in deid("--study", header.study_uid, tmp_path / "no", "--profile", "basic", code=4)
    assert not (tmp_path / "no").exists()
    deid("--study", "1.2.3", tmp_path / "no", "--profile", "basic", code=NOT_FOUND)
    deid(folder, tmp_path / "no", "--study", header.study_uid, "--profile", "basic", code=2)
    deid(folder, tmp_path / "no", "--namespace", "hosp", "--profile", "basic", code=2)


OPTED_OUT: dict[str, Any] = {
    "resourceType": "Consent",
    "id": "no",
    "status": "active",
    "scope": {"coding": [{"code": "patient-privacy"}]},
    "category": [{"coding": [{"code": "INFA"}]}],
    "policyRule": {"coding": [{"code": "OPTOUT"}]},
}
NOT_FOUND = 1
