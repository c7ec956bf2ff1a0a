"""A bulk server of somebody else that the tests start: sekmet-fhir with SMART Backend Services and `$export`.

It fetches each client's key set from a URL and keeps it for five minutes (seen in its source), and its clients stand in
its settings. So a few dozen clients are registered before it starts, each with a set of its own at a loopback address;
a test takes a new one and says where its keys come from.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.peers import require
from tests.peers.fhir_server import TOKEN, FhirPeer

READ = "system/*.cruds"
"""Reading, and `c`: a POST of `$export` counts as creating there."""
NARROW = "system/Patient.rs"
CLIENTS = {READ: 48, NARROW: 8}
"""How many clients may be had with each scope."""
TOGETHER = 200
"""Resources of one transaction."""

Published = Callable[[str], Mapping[str, Any]]
"""Name of a registration -> its key set; as `Keys(store).published`."""


@dataclass(frozen=True, slots=True)
class Client:
    client_id: str
    registration: str
    """Whose key set the peer asks for."""


@dataclass(slots=True)
class BulkPeer(FhirPeer):
    """Open for `TOKEN` too, which the tests themselves use; a manifest always says that a token is required."""

    token_lifetime: int = 20
    _sources: dict[str, Published] = field(default_factory=dict)
    _asked: list[str] = field(default_factory=list)
    _given: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLIENTS, 0))
    _sets: ThreadingHTTPServer | None = None
    _holds: set[tuple[str, str]] = field(default_factory=set)

    @property
    def token_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/auth/token"

    def client(self, published: Published, scopes: str = READ) -> Client:
        """A client that nobody used yet; `published` gives its keys when the peer asks for them."""
        number = self._given[scopes]
        assert number < CLIENTS[scopes], "every client of the peer was used: raise CLIENTS"
        self._given[scopes] += 1
        name = _name(scopes, number)
        self._sources[name] = published
        return Client(name, name)

    def asked(self, client: Client) -> int:
        """How often the peer asked for the client's keys."""
        return self._asked.count(client.registration)

    # -- what it holds -------------------------------------------------------------------------------------------------

    def load(self, resources: Iterable[Mapping[str, Any]]) -> None:
        """Create or replace; its `meta.lastUpdated` is the peer's own."""
        waiting = list(resources)
        for first in range(0, len(waiting), TOGETHER):
            chunk = waiting[first : first + TOGETHER]
            named = [(str(each["resourceType"]), str(each["id"])) for each in chunk]
            self._transact(
                [
                    {"resource": dict(each), "request": {"method": "PUT", "url": f"{kind}/{name}"}}
                    for each, (kind, name) in zip(chunk, named, strict=True)
                ]
            )
            self._holds.update(named)

    def put(self, resource: Mapping[str, Any]) -> None:
        self.load([resource])

    def delete(self, *named: tuple[str, str]) -> None:
        """(type, id). Its exports leave out what is deleted, and have no deleted files."""
        for first in range(0, len(named), TOGETHER):
            chunk = named[first : first + TOGETHER]
            self._transact([{"request": {"method": "DELETE", "url": f"{kind}/{name}"}} for kind, name in chunk])
        self._holds.difference_update(named)

    def clear(self) -> None:
        """Delete whatever was loaded."""
        self.delete(*sorted(self._holds))

    def _transact(self, entries: list[dict[str, Any]]) -> None:
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/fhir+json"}
        answer = self.http.post(self.base, content=json.dumps(bundle), headers=headers)
        assert answer.status_code == 200, answer.text

    # -- the processes -------------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        sets = self._serve_sets()
        clients = [
            {"client_id": name, "jwks_url": f"{sets}/{name}.json", "scopes": scopes}
            for scopes, count in CLIENTS.items()
            for name in (_name(scopes, number) for number in range(count))
        ]
        return {
            **FhirPeer.settings(self),
            "server_auth": {
                "types": ["smart", "bearer"],
                "tokens": [TOKEN],
                "token_lifetime": self.token_lifetime,
                "smart_clients": clients,
            },
            "simulator": {"enabled": False, "delay_seconds": 0.2},  # so long an export is still in progress
        }

    def stop(self) -> None:
        FhirPeer.stop(self)
        if self._sets is not None:
            self._sets.shutdown()
            self._sets.server_close()

    def _serve_sets(self) -> str:
        """The key sets at a loopback address; 404 for a client that no test took."""
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.removeprefix("/").removesuffix(".json")
                peer._asked.append(name)
                source = peer._sources.get(name)
                body = json.dumps(dict(source(name))).encode() if source else b"{}"
                self.send_response(200 if source else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._sets = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._sets.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._sets.server_address[1]}"


def _name(scopes: str, number: int) -> str:
    return f"{'narrow' if scopes == NARROW else 'client'}-{number}"


@pytest.fixture(scope="session")
def running_bulk_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BulkPeer]:
    peer = BulkPeer(require("sekmet"), tmp_path_factory.mktemp("bulk-peer"))
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture
def bulk_peer(running_bulk_peer: BulkPeer) -> Iterator[BulkPeer]:
    """The running server, empty at the beginning of each test."""
    yield running_bulk_peer
    running_bulk_peer.clear()


@pytest.fixture(scope="module")
def fhir_peer(running_bulk_peer: BulkPeer) -> Iterator[FhirPeer]:
    """The same server for a module that reads from it; it lets in whoever shows `TOKEN`."""
    yield running_bulk_peer
    running_bulk_peer.clear()


@pytest.fixture(scope="module")
def hasty_bulk_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BulkPeer]:
    """One whose tokens end after two seconds."""
    peer = BulkPeer(require("sekmet"), tmp_path_factory.mktemp("hasty-peer"), token_lifetime=2)
    peer.start()
    yield peer
    peer.stop()
