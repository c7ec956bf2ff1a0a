"""The sandbox EHR and the server whose app it launches, each as its users start it, for one test module."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import httpx

from cds_server.demo import configuration
from cds_server.sandbox.app import CLIENT
from tests.peers import ROOT
from tests.peers.server import CDS, START_SECONDS, Server, finish, free_port


class Sandbox:
    """`cds sandbox` on a server of its own that knows the fixture patients, configured as the demo does it, but for
    its trust: here it believes the sandbox by its signature only.

    It answers at `127.0.0.1` and, as another site would, at `localhost`.
    """

    def __init__(self, home: Path, secret: str | None = None) -> None:
        """`secret`: the app proves itself by it, else by a key."""
        port = free_port()
        self.url, self.elsewhere = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        config = home / "cds.toml"
        client = f"{CLIENT}-symmetric" if secret else CLIENT
        written = configuration(self.url, client)
        config.write_text(written.replace(f'["{self.url}"]\n', f'["{self.url}", "{self.elsewhere}"]\n', 1))
        environment = {"CDS_CONFIG": str(config), "CDS_TRUST": "jwt"}
        if secret:
            environment |= {"CDS_EHR_SANDBOX_CLIENT_SECRET": secret, "CDS_SANDBOX_CLIENT_SECRET": secret}
        self.server = Server(home=home, data_dir=home / "var", environment=environment)
        self.server.land_fixtures()
        if not secret:
            self.server.cds("keys", "new", "--alg", "ES384")
        self.server.start()
        with (home / "sandbox.err").open("ab") as errors:
            self._process = subprocess.Popen(
                [*CDS, "sandbox", "--port", str(port), "--to", self.server.url],
                env=self.server.env(),
                cwd=ROOT,
                stderr=errors,
            )
        give_up = time.monotonic() + START_SECONDS
        while not self._answers():
            assert time.monotonic() < give_up, (home / "sandbox.err").read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        finish(self.server)
