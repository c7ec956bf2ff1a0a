"""The `cds` command as a person or a script uses it: exit codes, JSON, sentences without patient data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cds_server.__main__ import ORDER, main
from cds_server.app import build
from cds_server.audit import audit
from cds_server.decisions import now
from cds_server.settings import Settings
from cds_server.store.store import Store
from models.shelf import SHIPPED
from tests.cds_server.stores import SSN, patient, weight
from tests.cds_server.test_registry import called
from tests.peers import ROOT

FIXTURES = ROOT / "fixtures/patients"


class Cds:
    """Runs commands in this process, on one instance."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        self._capsys.readouterr()
        found = main([str(argument) for argument in arguments])
        self.out, self.err = self._capsys.readouterr()
        assert found == code, (arguments, found, self.err)
        return self.out

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))


@pytest.fixture
def cds(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("CDS_CONFIG", str(settings.data_dir / "cds.toml"))
    monkeypatch.setenv("CDS_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("CDS_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("CDS_TRUST", "open")
    yield Cds(capsys)
    if (settings.data_dir / "keys.db").exists():
        assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def ndjson(path: Path, *resources: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, resources)) + "\n")
    return path


def test_help_loads_neither_the_server_nor_the_models() -> None:
    script = (
        "import sys\nfrom cds_server.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'onnxruntime', 'fastapi', 'numpy', 'sqlalchemy', 'httpx', 'fhir', 'pydantic'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert all(name in done.stdout for name in ORDER)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("arguments", [["no-such-command"], ["land"], ["work", "ponder"], ["serve", "--port", "x"], []])
def test_wrong_usage_is_exit_code_2(cds: Cds, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_configuration_policy_and_absence_have_their_codes(
    cds: Cds, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings.data_dir / "cds.db").unlink(missing_ok=True)
    cds("patient", "a/1", code=2)
    assert cds.err == "cds patient: there is no instance in the data directory (data_dir of cds.toml)\n"
    cds("land", FIXTURES / "ingrid-s.ndjson", "--as", "stranger", code=4)
    assert "does not list that name" in cds.err
    cds("land", settings.data_dir / "none.ndjson", code=2)
    assert "No such file" in cds.err
    cds("land", FIXTURES / "ingrid-s.ndjson", "--as", "auditor")
    cds("patient", "files/nobody", code=1)
    assert cds.err == "cds patient: no such patient is known\n"
    cds("patient", "files/ingrid-s", "--as-of", "yesterday", code=2)
    monkeypatch.setenv("CDS_PORT", "x")
    cds("ledger", "verify", code=2)
    assert cds.err == "cds ledger: CDS_PORT in the environment is not a whole number\n"


def test_the_main_job_by_hand(cds: Cds, settings: Settings, tmp_path: Path) -> None:
    landed = cds.json("land", FIXTURES / "ingrid-s.ndjson", FIXTURES / "jenny-m.bundle.json", "--namespace", "sandbox")
    assert [one["arrival"] for one in landed] == ["stored", "stored"]
    assert "duplicate" in cds("land", FIXTURES / "ingrid-s.ndjson", "--namespace", "sandbox")
    assert cds.json("digest")["asserted"] > 60
    assert cds.json("digest", "--redo")["asserted"] == 0
    shown = cds.json("patient", "sandbox/jenny-m")
    assert shown["records"] == ["sandbox/jenny-m"]
    assert {fact["source"]["landing"] for fact in shown["facts"]} == {landed[1]["landing"]}
    assert cds.json("patient", shown["person"])["facts"] == shown["facts"]
    assert "jenny-m" in cds("patient", "sandbox/jenny-m")
    assert cds.json("patient", "sandbox/jenny-m", "--as-of", "2020-01-01")["facts"] == []
    scored = cds.json("score", "breast-cancer-prognosis", "--patient", "sandbox/jenny-m")
    assert scored["cards"]
    assert cds.json("score", "breast-cancer-prognosis", "--patient", "sandbox/ingrid-s")["score"]["abstained"]
    cds("score", "no-such-service", "--patient", "sandbox/jenny-m", code=1)
    assert "the log verifies" in cds("ledger", "verify", "--deep")
    verdict = cds.json("ledger", "verify")
    assert (verdict["ok"], verdict["findings"]) == (True, [])


def test_work_is_listed_shown_retried_and_resolved(cds: Cds, tmp_path: Path) -> None:
    path = ndjson(tmp_path / "a.ndjson", patient("1"), {"resourceType": "Observation"}, weight("w", {}, 60))
    cds("land", path, "--namespace", "a")
    cds("digest")
    work = cds.json("work", "list")
    assert [(one["kind"], one["part"]) for one in work] == [("quarantine", 1), ("unmatched", 2)]
    assert cds.json("work", "list", "--kind", "unmatched") == work[1:]
    quarantined = str(work[0]["id"])
    shown = cds.json("work", "show", quarantined)
    assert (shown["namespace"], shown["pointer"], "payload" in shown) == ("a", "/id", False)
    assert json.loads(cds.json("work", "show", quarantined, "--raw")["payload"]) == {"resourceType": "Observation"}
    assert cds.json("work", "retry")["left"] == 1
    assert cds.json("work", "retry", quarantined)["asserted"] == 0
    cds("work", "resolve", quarantined, code=2)
    resolved = cds.json("work", "resolve", quarantined, "--resolution", "sender told", "--as", "auditor")
    assert resolved["seq"] > 0
    cds("work", "resolve", quarantined, "--resolution", "again", code=1)
    cds("work", "show", "7", code=1)
    assert [one["kind"] for one in cds.json("work", "list")] == ["unmatched"]
    assert "unmatched" in cds("work", "list")


def test_a_person_by_identifier(cds: Cds, tmp_path: Path) -> None:
    for namespace in ("a", "b"):
        path = ndjson(tmp_path / f"{namespace}.ndjson", patient("1", (SSN, "111-22-3333"), born="1960-01-01"))
        cds("land", path, "--namespace", namespace)
    cds("digest")
    assert cds.json("patient", f"{SSN}|111-22-3333")["records"] == ["a/1", "b/1"]
    cds("patient", f"{SSN}|000-00-0000", code=1)
    assert "000-00-0000" not in cds.err


def test_a_broken_file_is_refused_whole_and_named(cds: Cds, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"resourceType": "Patient", "name": [{"family": "Qwertzenberg"')
    good = ndjson(tmp_path / "good.ndjson", patient("1"))
    results = cds.json("land", bad, good, code=1)
    assert [one["arrival"] for one in results] == ["refused", "stored"]
    assert "bad.json" in cds.err
    assert "Qwertzenberg" not in cds.err + cds.out


def test_a_tampered_log_is_exit_code_1(
    cds: Cds, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "tampered"
    monkeypatch.setenv("CDS_DATA_DIR", str(other))
    monkeypatch.setenv("CDS_DATABASE_URL", f"sqlite:///{other}/cds.db")
    cds("land", FIXTURES / "ingrid-s.ndjson")
    store = Store.open(other, f"sqlite:///{other}/cds.db")
    with store.database.engine.connect() as connection:
        connection.exec_driver_sql("DROP TRIGGER landing_no_update")
        connection.exec_driver_sql("UPDATE landing SET namespace = 'other'")
    store.close()
    verdict = cds.json("ledger", "verify", code=1)
    assert verdict["findings"] == [f"entry 1: row {1 << 20 | 1} of table landing was edited or added"]
    assert "THE LOG DOES NOT VERIFY" in cds("ledger", "verify", code=1)
    assert any(check["state"] == "FAILS" for check in cds.json("doctor", code=1))


def test_models_and_services(cds: Cds, tmp_path: Path) -> None:
    cds("land", FIXTURES / "ingrid-s.ndjson")
    shipped = {f"{path.parent.name}@{path.name}" for path in SHIPPED.glob("*/*")}
    assert {f"{one['name']}@{one['version']}" for one in cds.json("models", "list")} == shipped
    assert cds.json("models", "show", "predict-breast")["name"] == "predict-breast"
    assert cds.json("models", "verify") == {name: [] for name in shipped}
    assert cds.json("models", "use", "breast-cancer-prognosis", "predict-breast@3.2.0")["seq"] > 0
    cds("models", "use", "breast-cancer-prognosis", "predict-breast@0.0.1", code=1)
    seq = cds.json("service", "stop", "breast-cancer-prognosis", "--reason", "drill")["seq"]
    states = {one["service"]: one["state"] for one in cds.json("service", "list")}
    assert states["breast-cancer-prognosis"] == "stopped"
    assert cds.json("service", "start", "breast-cancer-prognosis")["seq"] == seq + 1
    cds("service", "stop", code=2)
    cds("service", "stop", "no-such", code=1)


def test_an_inference_is_shown_and_reproduced(cds: Cds, settings: Settings) -> None:
    called(build(settings))
    everything = cds.json("inference", "all")
    assert len(everything) > 5
    ref = everything[0]["inference"]
    assert cds.json("inference", ref)["inference"] == ref
    again = cds.json("inference", ref, "--reproduce")[ref]
    assert (again["equal"], again["why"], again["changed"]) == (True, "equal, bit for bit", [])
    count = len(everything)
    assert f"{count} inferences, {count} equal bit for bit" in cds("inference", "all", "--reproduce")
    assert ref in cds("inference", ref)
    cds("inference", "nothing", code=1)


def test_a_score_is_taken_apart_down_to_its_landings(cds: Cds, settings: Settings) -> None:
    called(build(settings))
    ref = next(one["inference"] for one in cds.json("inference", "all") if one["model"].startswith("predict-breast@"))
    ((found,),) = cds.json("inference", ref, "--explain").values()
    assert (found["modality"], found["kind"]) == ("clinical", "what-if")
    size = next(part for part in found["parts"] if part["feature"] == "size")
    assert [source["resource"].split("/")[0] for source in size["sources"]] == ["Observation"]
    assert len(size["sources"][0]["landing"]) == 32
    assert f"({size['sources'][0]['landing'][:8]}:" in cds("inference", ref, "--explain")


def test_backup_restore_and_doctor(
    cds: Cds, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cds("land", FIXTURES / "ingrid-s.ndjson")
    assert "Keep" in cds("backup", tmp_path / "copy")
    cds("backup", tmp_path / "copy", code=2)
    checks = {check["check"]: check["state"] for check in cds.json("doctor")}
    assert checks["store"] == checks["log"] == checks["model predict-breast@3.2.0"] == "ok"
    assert "key file" not in checks
    os.chmod(settings.data_dir / "keys.db", 0o644)
    cds("doctor")
    assert (settings.data_dir / "keys.db").stat().st_mode & 0o077 == 0  # opening the store closes the file again
    if settings.database_url.startswith("sqlite"):
        monkeypatch.setenv("CDS_DATA_DIR", str(tmp_path / "new"))
        monkeypatch.setenv("CDS_DATABASE_URL", f"sqlite:///{tmp_path / 'new/cds.db'}")
        assert cds.json("restore", tmp_path / "copy")["entries"] > 0
        cds("restore", tmp_path / "copy", code=2)


def test_as_of_takes_a_date_or_an_instant() -> None:
    from cds_server.commands.patient import as_of
    from models.errors import Misconfigured

    assert as_of("2026-01-02") == "2026-01-02T23:59:59.999999Z"
    assert as_of("2026-01-02T03:04:05+02:00") == "2026-01-02T01:04:05.000000Z"
    assert as_of(now()) <= now()
    with pytest.raises(Misconfigured, match="neither an RFC 3339 instant nor a date"):
        as_of("soon")
