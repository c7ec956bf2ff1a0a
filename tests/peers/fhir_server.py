"""A FHIR server of somebody else that the tests start: sekmet-fhir on a free port, in an environment of its own.

One for each test process, which `bulk_peer` starts and empties: it takes seconds to load.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.peers.server import free_port

START_SECONDS = 60
TOKEN = "tok-of-this-call-0001"  # noqa: S105 (good on this server only)


@dataclass(slots=True)
class FhirPeer:
    program: Path
    home: Path
    port: int = 0
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30, trust_env=False))
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/fhir"

    def settings(self) -> dict[str, Any]:
        """Of its server, which is about to start on `port`."""
        return {
            "base_url": self.base,
            "host": "127.0.0.1",
            "port": self.port,
            "data_dir": str(self.home / "data"),
            "server_auth": {"types": ["bearer"], "tokens": [TOKEN]},
            "validation": {"inbound": "off"},
            "simulator": {"enabled": False},
        }

    def start(self) -> None:
        self.port = free_port()
        (self.home / "settings.yaml").write_text(json.dumps(self.settings()))  # JSON is YAML
        with (self.home / "told").open("wb") as told:
            self._process = subprocess.Popen(
                [self.program, "serve", "-c", self.home / "settings.yaml"], cwd=self.home, stdout=told, stderr=told
            )
        give_up = time.monotonic() + START_SECONDS
        while True:
            assert self._process.poll() is None, self.told()[-2000:]
            assert time.monotonic() < give_up, "the FHIR server did not start"
            try:
                self.http.get(f"{self.base}/metadata")
                return
            except httpx.TransportError:
                time.sleep(0.1)

    def put(self, resource: Mapping[str, Any]) -> None:
        url = f"{self.base}/{resource['resourceType']}/{resource['id']}"
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/fhir+json"}
        answer = self.http.put(url, content=json.dumps(resource), headers=headers)
        assert answer.status_code in (200, 201), answer.text

    def search(self, query: str) -> dict[str, Any]:
        found = self.http.get(f"{self.base}/{query}", headers={"Authorization": f"Bearer {TOKEN}"})
        assert found.status_code == 200, found.text
        return dict(found.json())

    def told(self) -> str:
        return (self.home / "told").read_text(errors="replace")

    def stop(self) -> None:
        self.http.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
