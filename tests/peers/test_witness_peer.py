"""A server, a witness and an auditor as processes of their own: heads are signed, witnessed, and checked elsewhere."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cds_server.ledger import verifier
from cds_server.ledger.verifier import open_checkpoint, open_cosignature, parse_key, parse_note
from tests.peers.server import CDS, Server, free_port

NAME = "witness.example.org/1"
PATIENCE = 60.0


class WitnessProcess:
    """`cds witness` on a folder and a port, as often as it is started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.key = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self, server: Server, *more: str) -> None:
        listen = ("--listen", f"127.0.0.1:{self.port}", "--data", str(self.folder))
        self._process = subprocess.Popen(
            [*CDS, "witness", *listen, *more], env=server.env(), stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        self.key = self._process.stderr.readline().rpartition(": ")[2].strip()

    def stop(self) -> None:
        if self._process is not None:
            assert self._process.stderr is not None
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process.stderr.close()
            self._process = None


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[WitnessProcess]:
    found = WitnessProcess(tmp_path / "witness")
    yield found
    found.stop()


def until(asked: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not asked():
        assert time.monotonic() < give_up, what
        time.sleep(0.1)


def cds(server: Server, *arguments: str, code: int = 0) -> str:
    done = server.cds(*arguments, code=code)
    return done.stdout + done.stderr


def test_heads_are_witnessed_and_an_auditor_needs_nobody(
    servers: Callable[..., Server], witness: WitnessProcess, tmp_path: Path
) -> None:
    server = servers(start=False)
    witness.start(server, "--name", NAME)
    config = tmp_path / "cds.toml"
    config.write_text(
        f"[ledger]\ncheckpoint_seconds = 1\n[[witness]]\nurl = 'http://127.0.0.1:{witness.port}'\n"
        f"key = '{witness.key}'\n"
    )
    server.environment = {"CDS_CONFIG": str(config)}
    server.start()

    def ready() -> dict[str, str]:
        found: dict[str, dict[str, str]] = server.http.get("/readyz").json()
        return found.get("warnings", {})

    def signed() -> bytes:
        answer = server.http.get("/ledger/checkpoint")
        return answer.content if answer.status_code == 200 else b""

    # the witness does not know this log yet: that is shown, and the server serves
    until(lambda: bool(signed()), "no checkpoint was made")
    until(lambda: "does not know this log" in str(ready().get(f"witness {NAME}")), "no warning")
    assert f'cds_witness_trouble{{witness="{NAME}"}} 1.0' in server.http.get("/metrics").text
    key = cds(server, "ledger", "keys").strip()

    # it is told of the log, and signs
    witness.stop()
    witness.start(server, "--log", key)

    def witnessed() -> bool:
        with contextlib.suppress(verifier.Wrong):
            return open_cosignature(parse_note(signed()), parse_key(witness.key)) is not None
        return False

    cds(server, "ledger", "checkpoint")
    until(witnessed, "the witness did not sign")
    head = open_checkpoint(signed(), [parse_key(key)])
    assert f'cds_witness_unsigned_entries{{witness="{NAME}"}} 0.0' in server.http.get("/metrics").text
    until(lambda: f"witness {NAME}" not in ready(), "the warning stays")  # the command had it signed, not the server

    # over HTTP, an entry leads to the head
    entry = server.http.get(f"/ledger/proof/{head.size}").json()
    assert entry["checkpoint"].startswith(f"{head.origin}\n{head.size}\n")
    assert server.http.get("/ledger/checkpoint").headers["cache-control"] == "no-store"

    # an auditor, elsewhere
    away = tmp_path / "away"
    away.mkdir()
    cds(server, "ledger", "prove", "1", "--out", str(away / "1.tlog-proof"))
    cds(server, "ledger", "export", "--out", str(away / "export"))
    (away / "before").write_bytes(signed())
    cds(server, "ledger", "keys", "--rotate")
    cds(server, "ledger", "checkpoint", "--since", str(head.size), "--out", str(away / "growth"))
    shutil.copy(verifier.__file__, away / "verifier.py")
    files = ("1.tlog-proof", "export", "before", "growth")
    checked = subprocess.run(
        [sys.executable, "-I", "verifier.py", *files, "--key", key, "--witness", witness.key],
        cwd=away,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "only grew" in checked.stdout

    # the witness goes away: nothing stops, and it is shown
    witness.stop()
    cds(server, "ledger", "keys", "--rotate")
    assert "no answer" in cds(server, "ledger", "checkpoint", code=3)
    until(lambda: "no answer" in ready().get(f"witness {NAME}", ""), "a witness that is down is not shown")
    assert server.readiness() == 200
    said = json.loads(cds(server, "ledger", "verify", "--key", key, "--checkpoint", str(away / "before"), "--json"))
    assert said["ok"]
    assert said["signed"] >= head.size


def test_a_restored_backup_is_not_signed_until_somebody_says_how(
    servers: Callable[..., Server], tmp_path: Path
) -> None:
    server = servers()
    server.stop()
    cds(server, "ledger", "checkpoint")
    cds(server, "backup", str(tmp_path / "backup"))
    cds(server, "ledger", "keys", "--rotate")
    cds(server, "ledger", "checkpoint")
    kept = (server.data_dir / "checkpoint").read_bytes()
    again = servers(start=False)
    told = cds(again, "restore", str(tmp_path / "backup"))
    assert "the log was signed up to entry" in told.lower()
    assert "cds ledger break --reason TEXT" in told
    assert "the file `checkpoint` is missing" in cds(again, "ledger", "checkpoint", code=1)
    again.start()
    assert "`checkpoint` is missing" in again.http.get("/readyz").json()["warnings"]["checkpoint"]
    assert "cds_ledger_signing_refused 1.0" in again.http.get("/metrics").text
    (again.data_dir / "checkpoint").write_bytes(kept)  # what was published since says that entries are lost
    assert "an older copy of the database" in cds(again, "ledger", "checkpoint", code=1)
    key = cds(again, "ledger", "break", "--reason", "the disk was lost").strip().rpartition(": ")[2]
    assert parse_key(key).name.endswith("#2")
    assert "signed up to" in cds(again, "ledger", "verify")
    assert "cds_ledger_signing_refused 0.0" in again.http.get("/metrics").text or cds(again, "ledger", "checkpoint")
