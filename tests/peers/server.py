"""Our own server as its users meet it: `cds serve` as a process on a free port, `cds` commands on the same instance.

`servers(...)` starts as many as a test wants; `server` is one with the defaults. Both end as every test that opens a
store ends: the server is stopped, and the log is walked, deeply (here: a process for it costs a second each time).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from cds_server.__main__ import main
from cds_server.audit import audit
from tests.peers import ROOT

FIXTURES = ROOT / "fixtures"
PATIENT_VIEW, ORDER_SIGN = "breast-cancer-prognosis", "breast-cancer-prognosis-order-sign"
INFERENCES = "org.cds-server.inferences"
NAMESPACE = "sandbox"
SIZE = "33728-7"
"""LOINC: greatest dimension of the tumour, a component of 21889-1."""
START_SECONDS = 60
UNHURRIED = "30000"
"""Milliseconds: a test about something else than the deadline must not fail on a machine that is busy."""
CDS = (sys.executable, "-m", "cds_server")


@dataclass(slots=True)
class Server:
    """One instance in `data_dir`, and the `cds serve` on it while it runs."""

    home: Path
    """Folder of the test's own, for what the processes print."""
    data_dir: Path
    database_url: str | None = None
    workers: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    """Words before the command: another account, another limit."""
    sound: bool = True
    """The log must verify at the end. False where a test broke the instance on purpose."""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    _client: httpx.Client | None = None

    # -- the process ---------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def http(self) -> httpx.Client:
        if self._client is None:
            self._client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        return self._client

    @property
    def errors(self) -> Path:
        """What `cds serve` wrote to its standard error, over all its lives."""
        return self.home / "serve.err"

    def env(self, **changes: str) -> dict[str, str]:
        """The environment of every process of this instance."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("CDS_")}
        plain |= {"CDS_DATA_DIR": str(self.data_dir), "CDS_TRUST": "open", "PYTHONPATH": str(ROOT)}
        plain["CDS_DEADLINE_MS"] = UNHURRIED
        if self.database_url:
            plain["CDS_DATABASE_URL"] = self.database_url
        return {**plain, **self.environment, **changes}

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process; says nothing about whether it gets ready."""
        assert self.process is None, "it is running"
        self.port = self.port or free_port()
        command = [*self.prefix, *CDS, "serve", "--port", str(self.port), "--workers", str(self.workers)]
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                command, env=self.env(), cwd=self.home, stdout=errors, stderr=errors, start_new_session=True
            )
        return self.process

    def start(self) -> Server:
        """Start, and wait until `/readyz` answers 200."""
        process = self.launch()
        give_up = time.monotonic() + START_SECONDS
        while self.readiness() != 200:
            assert process.poll() is None, f"cds serve ended with {process.returncode}: {self.told()[-2000:]}"
            assert time.monotonic() < give_up, f"cds serve did not get ready: {self.told()[-2000:]}"
            time.sleep(0.03)
        return self

    def readiness(self) -> int:
        """The status of `/readyz`; 0 where nothing listens."""
        try:
            return self.http.get("/readyz").status_code
        except httpx.TransportError:
            return 0

    def stop(self) -> int:
        """SIGTERM, then wait; gives the exit code."""
        if self.process is None:
            return 0
        self.process.terminate()
        code = self.process.wait(timeout=30)
        self._gone()
        return code

    def kill(self) -> None:
        """kill -9, all processes of it at once: a power cut as far as a process can feel one."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=30)
            self._gone()

    def _gone(self) -> None:
        self.process = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def told(self) -> str:
        return self.errors.read_text(errors="replace") if self.errors.exists() else ""

    # -- commands ------------------------------------------------------------------------------------------------------

    def apart(
        self, *arguments: str | Path, code: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this instance as a process of its own; `code` is the exit code it must have (None: any)."""
        done = subprocess.run(
            [*self.prefix, *CDS, *map(str, arguments)],
            env=self.env(**environment),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return _as_expected(done, code)

    def cds(self, *arguments: str | Path, code: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """The same in this process, with the environment and the folder that its own would have: loading it anew costs
        a second of CPU each time. Where a process is the point there is `apart`; what serves has one always, and so has
        what is asked beside a browser, whose driver keeps an event loop running here."""
        beside_a_loop = asyncio._get_running_loop() is not None
        if self.prefix or beside_a_loop or arguments[0] in ("serve", "listen", "sandbox"):
            return self.apart(*arguments, code=code, **environment)
        told, complained = io.StringIO(), io.StringIO()
        with (
            _in_place_of(self, environment),
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(complained),
        ):
            words = [*map(str, arguments)]
            try:
                given = main(words)
            except SystemExit as end:
                given = end.code if isinstance(end.code, int) else int(end.code is not None)
        return _as_expected(subprocess.CompletedProcess(words, given, told.getvalue(), complained.getvalue()), code)

    def ask(self, *arguments: str | Path, code: int = 0) -> Any:
        """The JSON that a command prints; `code` is the exit code it must have."""
        return json.loads(self.cds(*arguments, "--json", code=code).stdout)

    def land_fixtures(self) -> None:
        """Land and digest the six fixture patients, as the demo does."""
        self.cds("land", FIXTURES / "patients", "--namespace", NAMESPACE)
        self.cds("digest")

    def verify(self) -> dict[str, Any]:
        """`cds ledger verify --deep`; fails the test where the log does not verify."""
        report: dict[str, Any] = self.ask("ledger", "verify", "--deep")
        assert report["ok"], report["findings"]
        return report

    # -- calls ---------------------------------------------------------------------------------------------------------

    def call(self, body: Any, service: str = PATIENT_VIEW) -> httpx.Response:
        return self.http.post(f"/cds-services/{service}", json=body)

    def feedback(self, item: Mapping[str, Any], service: str = PATIENT_VIEW) -> httpx.Response:
        return self.http.post(f"/cds-services/{service}/feedback", json={"feedback": [item]})


def _as_expected(done: subprocess.CompletedProcess[str], code: int | None) -> subprocess.CompletedProcess[str]:
    assert code is None or done.returncode == code, f"{done.args} gave {done.returncode}: {done.stderr}"
    return done


_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def _in_place_of(server: Server, changes: Mapping[str, str]) -> Iterator[None]:
    """What a process of its own would have of its own: environment, folder, umask, signals, logging."""
    with _one_at_a_time, contextlib.chdir(server.home):
        environment, umask = dict(os.environ), os.umask(0o077)
        heard = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
        plain = server.env(**changes)
        os.environ.clear()
        os.environ.update(plain)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(environment)
            os.umask(umask)
            structlog.reset_defaults()
            logging.getLogger().handlers[:] = handlers
            logging.getLogger().setLevel(level)
            if threading.current_thread() is threading.main_thread():
                for each, handler in heard.items():
                    signal.signal(each, handler)


def size_of(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tumour size in a hook's prefetch, to be changed in place: the Observation and its component."""
    for entry in body["prefetch"]["observations"]["entry"]:
        for component in entry["resource"].get("component", []):
            if any(coding.get("code") == SIZE for coding in component["code"]["coding"]):
                return entry["resource"], component
    raise LookupError(SIZE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def hook(name: str, **members: Any) -> dict[str, Any]:
    """A fixture's hook request with an instance id of its own; `members` stand over what the file has."""
    body = json.loads((FIXTURES / "hooks" / f"{name}.json").read_bytes())
    return {**body, "hookInstance": str(uuid.uuid4()), **members}


def of_inference(answer: httpx.Response) -> dict[str, Any]:
    """`{service, id, seq, leaf}` of the inference that an answer's cards belong to: the first that it names."""
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["extension"][INFERENCES]["items"][0])


def override(card: Mapping[str, Any], comment: str | None = None, at: str | None = None) -> dict[str, Any]:
    """A feedback item that overrides a card for the first reason it offers."""
    reason = {name: card["overrideReasons"][0][name] for name in ("code", "system")}
    given = {"reason": reason} | ({"userComment": comment} if comment else {})
    moment = at or datetime.now(UTC).isoformat()
    return {"card": card["uuid"], "outcome": "overridden", "outcomeTimestamp": moment, "overrideReason": given}


def outcome_of(answer: httpx.Response, status: int) -> str:
    """What an OperationOutcome says; fails where the answer is something else."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/fhir+json"
    body = answer.json()
    assert body["resourceType"] == "OperationOutcome"
    (issue,) = body["issue"]
    assert issue["severity"] == "error"
    return str(issue["diagnostics"])


def finish(server: Server) -> None:
    """Stop it, and walk the log of what it left."""
    if not server.sound:
        server.kill()
        return
    server.stop()
    url = server.database_url or f"sqlite:///{server.data_dir / 'cds.db'}"
    assert audit(server.data_dir, url, deep=True).findings == ()


@contextlib.contextmanager
def instances(folder: Path, migrated: Path) -> Iterator[Callable[..., Server]]:
    """Gives `make(start=True, **members of Server)`: instances, each with a data directory of its own below `folder`;
    at the end each is stopped and its log is walked. One that starts at once finds the schema of this version in its
    SQLite file, and no instance: migrating takes it 0.3 s of CPU."""
    made: list[Server] = []

    def make(*, start: bool = True, **members: Any) -> Server:
        home = folder / f"instance{len(made)}"
        home.mkdir()
        server = Server(home=home, **{"data_dir": home / "var", **members})
        made.append(server)
        if not start:
            return server
        if server.database_url is None and "data_dir" not in members:
            server.data_dir.mkdir(mode=0o700)
            shutil.copyfile(migrated, server.data_dir / "cds.db")
            (server.data_dir / "cds.db").chmod(0o600)
        return server.start()

    yield make
    for server in made:
        finish(server)


@pytest.fixture
def servers(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Callable[..., Server]]:
    """`instances` of one test."""
    with instances(tmp_path, migrated_sqlite) as make:
        yield make


@pytest.fixture(scope="module")
def shared_servers(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Callable[..., Server]]:
    """The same of a module, whose tests leave a server as they found it: a start takes two seconds of CPU, with two
    workers five."""
    with instances(tmp_path_factory.mktemp("shared"), migrated_sqlite) as make:
        yield make


@pytest.fixture
def server(servers: Callable[..., Server]) -> Server:
    """One running server on SQLite that knows nobody yet."""
    return servers()
