"""Debian's Orthanc as the archive: free ports, a folder of its own, peers by AE title and address, TCP_NODELAY.

It binds its DICOM port to every interface (it knows no other way); `DicomCheckModalityHost` lets in 127.0.0.1 only.
Without TCP_NODELAY each small object costs 40 ms (Nagle's algorithm meets the delayed acknowledgement).
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.peers import memory, require

AE_TITLE = "ORTHANC"
START_SECONDS = 60


@dataclass(slots=True)
class Pacs:
    """One Orthanc. `synchronous`: whether its C-MOVE answers after it has sent, or at once (`SynchronousCMove`)."""

    program: Path
    home: Path
    synchronous: bool = True
    plugins: tuple[Path, ...] = ()
    port: int = 0
    http_port: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    """More keys of its configuration."""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def dicomweb(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def start(self) -> None:
        for _ in range(5):  # between our look and its bind, somebody else may take a port
            self.port, self.http_port = free_ports(2)
            if self._serve():
                return
        raise RuntimeError(f"Orthanc did not start; it said: {self.told()[-2000:]}")

    def stop(self) -> None:
        """At once: what it holds is thrown away with its folder, and an orderly end takes it four seconds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def told(self) -> str:
        return (self.home / "told").read_text(errors="replace")

    # ---- over REST ---------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body. The connection is opened for this one exchange."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def load(self, objects: Iterable[bytes]) -> list[int]:
        """Give it objects (Part 10 files); its HTTP status for each: 200 taken (or held already), 4xx refused."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        statuses = []
        try:
            for each in objects:
                connection.request("POST", "/instances", each)
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
        finally:
            connection.close()
        return statuses

    def introduce(self, ae_title: str, port: int) -> None:
        """Let it know a peer: who may ask, and where a C-MOVE to that AE title goes."""
        known = {"AET": ae_title, "Host": "127.0.0.1", "Port": port}
        status, _ = self.ask("PUT", f"/modalities/{ae_title.lower()}", json.dumps(known).encode())
        assert status == 200

    def forget(self, study_uid: str) -> None:
        """Take a study out of it."""
        for path in self._found("Study", {"StudyInstanceUID": study_uid}):
            self.ask("DELETE", f"/studies/{path}")

    def count(self) -> int:
        """How many instances it holds."""
        return int(json.loads(self.ask("GET", "/statistics")[1])["CountInstances"])

    def _found(self, level: str, query: dict[str, str]) -> list[str]:
        asked = json.dumps({"Level": level, "Query": query}).encode()
        return [str(each) for each in json.loads(self.ask("POST", "/tools/find", asked)[1])]

    # ---- its process -------------------------------------------------------------------------------------------------

    def _serve(self) -> bool:
        store = self.home / "store"
        store.mkdir(exist_ok=True)
        configuration = {
            "Name": "tests",
            "StorageDirectory": str(store),
            "IndexDirectory": str(store),
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": AE_TITLE,
            "DicomPort": self.port,
            "DicomCheckCalledAet": True,
            "DicomCheckModalityHost": True,
            **{f"DicomAlwaysAllow{verb}": False for verb in ("Echo", "Store", "Find", "Move", "Get")},
            "DicomModalities": {},
            "SynchronousCMove": self.synchronous,
            "DicomScuTimeout": 10,
            "DicomScpTimeout": 30,
            "MaximumPduLength": 131_072,
            "DicomThreadsCount": 4,
            "OverwriteInstances": False,
            "UnknownSopClassAccepted": True,
            "SyncStorageArea": False,
            "Plugins": [str(each) for each in self.plugins],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True},
            **self.settings,
        }
        place = self.home / "orthanc.json"
        place.write_text(json.dumps(configuration))
        # setpriv: if this test process is killed, the archive goes with it.
        command = ["setpriv", "--pdeathsig", "TERM", str(self.program), str(place)]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        with (self.home / "told").open("ab") as told:
            self._process = subprocess.Popen(command, stdout=told, stderr=told, env=environment, cwd=self.home)
        give_up = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < give_up:
            try:
                if self.ask("GET", "/system")[0] == 200 and _listens(self.port):
                    return True
            except OSError:
                pass
            time.sleep(0.05)
        self.stop()
        return False


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def dicomweb_plugin() -> Path:
    """The DICOMweb plug-in of Debian's package."""
    return require("orthanc-dicomweb")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _started(*, synchronous: bool, plugins: tuple[Path, ...] = ()) -> Iterator[Pacs]:
    home = Path(tempfile.mkdtemp(prefix="cds-orthanc-", dir=memory()))
    pacs = Pacs(require("orthanc"), home, synchronous=synchronous, plugins=plugins)
    try:
        pacs.start()
        yield pacs
    finally:
        pacs.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def pacs() -> Iterator[Pacs]:
    """An empty archive whose C-MOVE answers when it has sent, with DICOMweb. One for this test process: use names
    (`dicom_made`) and AE titles that no other test uses."""
    yield from _started(synchronous=True, plugins=(dicomweb_plugin(),))


@pytest.fixture(scope="session")
def pacs_async() -> Iterator[Pacs]:
    """One whose C-MOVE answers success at once, and sends afterwards, or never."""
    yield from _started(synchronous=False)
