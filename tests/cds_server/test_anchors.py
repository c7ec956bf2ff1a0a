"""Heads of the log in others' hands: a time-stamping authority of our own (OpenSSL), a folder, a command; and lies."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cds_server.__main__ import main
from cds_server.anchors import Anchoring, receipts, state_of, wrong_receipts
from cds_server.checkpoints import Checkpoints, states
from cds_server.keeper import Keeper
from cds_server.ledger.verifier import Wrong
from cds_server.ledger_doors import LedgerWatch
from cds_server.ledger_settings import AnchorSetting, read_anchors
from cds_server.proving import export
from cds_server.settings import Settings
from cds_server.store.store import Store
from cds_server.timestamps import REPLY, query, stamped
from models.errors import Misconfigured
from tests.cds_server.stores import learn, patient, stop_row

CONFIG = """
[ req ]
distinguished_name = dn
prompt = no
[ dn ]
CN = {name}
[ ca ]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[ tsa_cert ]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[ tsa ]
default_tsa = tsa_1
[ tsa_1 ]
dir = {folder}
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
"""


@dataclass
class Authority:
    folder: Path
    url: str = ""
    answers: str = "rightly"
    """rightly; or how it lies."""
    asked: int = 0

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def reply(self, query_: bytes) -> bytes:
        (self.folder / "q").write_bytes(query_)
        self._openssl("ts", "-reply", "-queryfile", "q", "-config", "tsa.cnf", "-out", "r")
        return (self.folder / "r").read_bytes()

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def made(self, name: str) -> Authority:
        config = CONFIG.format(folder=self.folder, name=name)
        (self.folder / "tsa.cnf").write_text(config)
        (self.folder / "ca.cnf").write_text(config.replace(f"CN = {name}", f"CN = {name} CA"))
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        self._openssl(
            "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-config", "ca.cnf",
            "-extensions", "ca",
        )  # fmt: skip
        self._openssl("req", *new, "-keyout", "tsa.key", "-out", "tsa.csr", "-config", "tsa.cnf")
        self._openssl(
            "x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "7", "-days", "20",
            "-extfile", "tsa.cnf", "-extensions", "tsa_cert", "-out", "tsa.pem",
        )  # fmt: skip
        return self


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """OpenSSL's time-stamping authority behind a small HTTP server, and another one that nobody believes."""
    if shutil.which("openssl") is None:
        pytest.fail("openssl is needed: it is the time-stamping authority of these tests")
    made = Authority(tmp_path_factory.mktemp("tsa")).made("Clock")
    stranger = Authority(tmp_path_factory.mktemp("stranger")).made("Stranger")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.asked += 1
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/timestamp-query"
            status, kind, body = 200, REPLY, b""
            if made.answers == "rightly":
                body = made.reply(sent)
            elif made.answers == "of another":
                body = stranger.reply(sent)
            elif made.answers == "other bytes":
                body = made.reply(query(b"something else")[0])
            elif made.answers == "refuses":
                body = bytes.fromhex("30053003020102")
            elif made.answers == "no stamp":
                body = b"<html>"
            elif made.answers == "html":
                kind, body = "text/html", b"<html>"
            else:
                status = 503
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}/tsr"
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def honest(authority: Authority) -> None:
    authority.answers, authority.asked = "rightly", 0


def stamping(authority: Authority, **more: Any) -> AnchorSetting:
    return AnchorSetting("clock", "rfc3161", url=authority.url, ca_file=authority.ca, **more)


def filled(store: Store) -> Checkpoints:
    learn(store, patient("1"))
    checkpoints = Checkpoints(store)
    checkpoints.make()
    return checkpoints


def test_an_authority_stamps_a_head_and_anybody_can_check_it(
    store: Store, settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    checkpoints = filled(store)
    anchoring = Anchoring(store, checkpoints, stamping(authority))
    assert anchoring.due()
    assert anchoring.submit(), states(store)
    assert anchoring.submit()  # nothing new: nobody is asked
    assert authority.asked == 1
    assert not anchoring.due()
    (kept,) = receipts(store.reads)
    assert kept.note is not None
    assert wrong_receipts(store.reads, [stamping(authority)]) == []
    export(store, checkpoints, tmp_path / "out")
    folder = tmp_path / "out" / "anchors"
    done = subprocess.run(
        [
            "openssl",
            "ts",
            "-verify",
            "-in",
            f"{kept.size}.clock.tsr",
            "-data",
            f"{kept.size}.note",
            "-CAfile",
            authority.ca,
        ],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert "Verification: OK" in done.stdout + done.stderr
    with pytest.raises(Wrong, match="not over this checkpoint"):
        stamped(kept.receipt, kept.note + b"x", authority.ca)


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("of another", "signature of a time stamp does not hold"),
        ("other bytes", "not over this checkpoint"),
        ("refuses", "refused"),
        ("no stamp", "no time stamp"),
        ("html", "no time stamp"),
        ("503", "answered 503"),
    ],
)
def test_an_authority_that_lies_stops_nothing_and_is_named(
    sqlite_settings: Settings, authority: Authority, lie: str, said: str
) -> None:
    store = Store.open(sqlite_settings.data_dir, sqlite_settings.database_url)
    setting = stamping(authority)
    checkpoints = filled(store)
    authority.answers = lie
    assert not Anchoring(store, checkpoints, setting).submit()
    assert said in states(store)[state_of(setting)][0]
    assert receipts(store.reads) == []
    watch = LedgerWatch(store, replace(sqlite_settings, anchors=(setting,)))
    assert said in watch.warnings()["anchor clock"]
    assert watch.anchored()["clock"][0] == store.reads.head()[0]
    assert watch.anchored()["clock"][2]
    authority.answers = "rightly"
    assert Anchoring(store, checkpoints, setting).submit()
    assert watch.anchored()["clock"][0] == 0
    store.close()


def test_a_folder_and_a_command_take_heads(sqlite_settings: Settings, tmp_path: Path) -> None:
    store = Store.open(sqlite_settings.data_dir, sqlite_settings.database_url)
    checkpoints = filled(store)
    folder = tmp_path / "share"
    folder.mkdir()
    into = tmp_path / "mailed"
    program = f"import sys; open({str(into)!r}, 'wb').write(sys.stdin.buffer.read()); print('queued as 1')"
    share = AnchorSetting("share", "file", folder=folder)
    mail = AnchorSetting("mail", "command", command=(sys.executable, "-c", program))
    for each in (share, mail):
        assert Anchoring(store, checkpoints, each).submit()
    size = store.reads.head()[0]
    written = folder / f"checkpoint-{size:012}"
    assert written.read_bytes() == into.read_bytes()
    assert {each.anchor: each.receipt for each in receipts(store.reads)}["mail"] == b"queued as 1\n"
    assert wrong_receipts(store.reads, [share, mail]) == []
    written.write_bytes(written.read_bytes().replace(b"\n", b"\n\n", 1))
    ((at, what),) = wrong_receipts(store.reads, [share, mail])
    assert at == size
    assert "says something else" in what
    failing = AnchorSetting("mail2", "command", command=(sys.executable, "-c", "import sys; sys.exit(4)"))
    assert not Anchoring(store, checkpoints, failing).submit()
    assert "code 4" in states(store)["anchor mail2"][0]
    gone = AnchorSetting("gone", "file", folder=tmp_path / "none")
    assert not Anchoring(store, checkpoints, gone).submit()
    store.close()


def test_the_keeper_anchors_and_the_commands_say_so(
    sqlite_settings: Settings, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(
        f'data_dir = "{sqlite_settings.data_dir}"\ntrust = "open"\n[[anchor]]\nname = "clock"\nkind = "rfc3161"\n'
        f'url = "{authority.url}"\nca_file = "{authority.ca}"\n'
    )
    monkeypatch.setenv("CDS_CONFIG", str(config))
    store = Store.open(sqlite_settings.data_dir, sqlite_settings.database_url)
    learn(store, patient("1"))
    keeper = Keeper(store, replace(sqlite_settings, checkpoint_seconds=1, anchors=(stamping(authority),)))
    keeper.start()
    waiting = threading.Event()
    for _ in range(200):
        if receipts(store.reads):
            break
        waiting.wait(0.05)
    keeper.stop()
    assert receipts(store.reads)
    store.writer.submit(stop_row).result()
    store.close()
    assert main(["ledger", "anchor", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["receipts"]) == 2
    assert main(["ledger", "verify"]) == 0
    store = Store.open(sqlite_settings.data_dir, sqlite_settings.database_url)
    kept = receipts(store.reads)[0]
    with store.database.engine.connect() as connection:
        connection.exec_driver_sql("DROP TRIGGER ledger_anchor_no_update")
        connection.exec_driver_sql(
            "UPDATE ledger_anchor SET receipt = ? WHERE size = ?",
            (kept.receipt[:-9] + bytes(1) + kept.receipt[-8:], kept.size),
        )
    store.close()
    capsys.readouterr()
    assert main(["ledger", "verify"]) == 1
    assert f"entry {kept.size}: the receipt of anchor clock" in capsys.readouterr().out


def test_an_anchor_that_is_behind_is_a_warning(sqlite_settings: Settings) -> None:
    store = Store.open(sqlite_settings.data_dir, sqlite_settings.database_url)
    checkpoints = filled(store)
    setting = AnchorSetting("slow", "command", command=("true",), every=30)
    watch = LedgerWatch(store, replace(sqlite_settings, anchors=(setting,)))
    assert "anchor slow" not in watch.warnings()  # its first turn has not come yet
    size = store.reads.head()[0]
    row = (size, "slow", "command", b"", "2026-01-01T00:00:00.000000Z")
    asked = "INSERT INTO ledger_anchor (size, anchor, kind, receipt, at) VALUES (?, ?, ?, ?, ?)"
    store.writer.submit(lambda tx: tx.execute(asked, row)).result()
    anchoring = Anchoring(store, checkpoints, setting)
    assert anchoring.late() is None  # old, and nothing came since
    store.writer.submit(stop_row).result()
    assert str(anchoring.late()).startswith("1 entries are not anchored")
    watch = LedgerWatch(store, replace(sqlite_settings, anchors=(setting,)))
    assert "not anchored" in watch.warnings()["anchor slow"]
    store.close()


def test_what_the_configuration_may_say(tmp_path: Path) -> None:
    good = read_anchors(
        [
            {"name": "a", "kind": "rfc3161", "url": "https://tsa.example.org/tsr", "every_seconds": 60},
            {"name": "b", "kind": "file", "folder": str(tmp_path)},
            {"name": "c", "kind": "command", "command": ["mail", "-s", "checkpoint", "auditor@example.org"]},
        ],
        "cds.toml",
    )
    assert [each.kind for each in good] == ["rfc3161", "file", "command"]
    for entry in (
        {"name": "a", "kind": "carrier-pigeon"},
        {"name": "A b", "kind": "file", "folder": str(tmp_path)},
        {"name": "a", "kind": "file", "folder": str(tmp_path / "none")},
        {"name": "a", "kind": "file", "folder": str(tmp_path), "url": "https://x.example.org"},
        {"name": "a", "kind": "rfc3161"},
        {"name": "a", "kind": "rfc3161", "url": "ftp://x"},
        {"name": "a", "kind": "rfc3161", "url": "https://x.example.org", "ca_file": "/no/such"},
        {"name": "a", "kind": "command", "command": []},
        {"kind": "command", "command": ["x"]},
    ):
        with pytest.raises(Misconfigured):
            read_anchors([entry], "cds.toml")
    with pytest.raises(Misconfigured, match="same name"):
        read_anchors([{"name": "a", "kind": "command", "command": ["x"]}] * 2, "cds.toml")
