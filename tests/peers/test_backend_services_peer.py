"""Tokens of somebody else's authorization server (sekmet-fhir), signed with keys that our own door publishes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import pytest

from adapters.backend_services import (
    ASSERTION_TYPE,
    BackendServices,
    TokenRefused,
    discover,
    missing,
    scopes_for,
)
from adapters.peer import Door, Reply, Signer
from cds_server import keys as keys_module
from cds_server.audit import audit
from cds_server.http import vendor_door
from cds_server.keys import Keys, KeySigner
from cds_server.store.store import Store
from cds_server.vendor_door import HostRules
from models import strict
from tests.cds_server.stores import ACTOR, patient, weight
from tests.peers.bulk_peer import NARROW, BulkPeer
from tests.peers.server import Server

T = TypeVar("T")
PATIENTS = scopes_for(["Patient"], v2=True)


class Now:
    """The real clock (`adapters.peer.Clock`)."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Recording:
    """A door that keeps the bodies that went through it."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.sent: list[bytes] = []

    @asynccontextmanager
    async def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> AsyncIterator[Reply]:
        self.sent.append(content or b"")
        async with self._door.ask(method, url, headers=headers, content=content) as reply:
            yield reply

    def refuses(self, url: str) -> str | None:
        return self._door.refuses(url)


def through(peer: BulkPeer, run: Callable[[Recording], Awaitable[T]]) -> T:
    """What `run` gives, with a door that asks this peer only."""

    async def whole() -> T:
        door = vendor_door(HostRules(peer.base))
        try:
            return await run(Recording(door))
        finally:
            await door.aclose()

    return asyncio.run(whole())


def client_of(door: Door, peer: BulkPeer, signer: Signer, client_id: str, *scopes: str) -> BackendServices:
    return BackendServices(
        door, signer, Now(), token_url=peer.token_url, client_id=client_id, scopes=scopes or PATIENTS
    )


async def status_of(door: Door, peer: BulkPeer, token: str, path: str = "Patient") -> int:
    async with door.ask("GET", f"{peer.base}/{path}", headers={"Authorization": f"Bearer {token}"}) as reply:
        return reply.status


@pytest.fixture
def sqlite_store(data_dir: Path) -> Iterator[Store]:
    url = f"sqlite:///{data_dir / 'cds.db'}"
    store = Store.open(data_dir, url)
    yield store
    store.close()
    assert audit(data_dir, url, deep=True).findings == ()


@pytest.fixture
def keys(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> Keys:
    monkeypatch.setattr(keys_module, "FRESH", 0.0)
    return Keys(sqlite_store)


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
def test_a_token_by_either_algorithm_opens_the_server(
    bulk_peer: BulkPeer, sqlite_store: Store, keys: Keys, alg: str
) -> None:
    client = bulk_peer.client(keys.published)
    keys.new(client.registration, ACTOR, alg)

    async def run(door: Recording) -> tuple[int, int, int]:
        services = client_of(door, bulk_peer, KeySigner(sqlite_store, client.registration), client.client_id)
        token = await services.token()
        assert services.granted == PATIENTS
        assert await services.token() == token
        return (
            await status_of(door, bulk_peer, token),
            await status_of(door, bulk_peer, "made-up"),
            await status_of(door, bulk_peer, token, "Observation"),
        )

    assert through(bulk_peer, run) == (200, 401, 403)
    assert bulk_peer.asked(client) == 1


def test_the_server_says_where_its_token_endpoint_is(bulk_peer: BulkPeer) -> None:
    found = through(bulk_peer, lambda door: discover(door, bulk_peer.base))
    assert found["token_endpoint"] == bulk_peer.token_url
    assert {"RS384", "ES384"} <= set(found["token_endpoint_auth_signing_alg_values_supported"])


def test_a_token_that_ended_is_renewed(hasty_bulk_peer: BulkPeer, sqlite_store: Store, keys: Keys) -> None:
    client = hasty_bulk_peer.client(keys.published)
    keys.new(client.registration, ACTOR, "ES384")

    async def run(door: Recording) -> None:
        services = client_of(door, hasty_bulk_peer, KeySigner(sqlite_store, client.registration), client.client_id)
        first = await services.token()
        assert await status_of(door, hasty_bulk_peer, first) == 200
        give_up = time.monotonic() + 30
        while await status_of(door, hasty_bulk_peer, first) != 401:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.2)
        second = await services.renewed(first)  # as after a 401
        assert second != first
        assert await status_of(door, hasty_bulk_peer, second) == 200
        while await services.token() == second:  # and ahead of its end
            assert time.monotonic() < give_up
            await asyncio.sleep(0.2)
        assert await status_of(door, hasty_bulk_peer, await services.token()) == 200

    through(hasty_bulk_peer, run)


def test_scopes_that_are_not_granted_are_noticed(bulk_peer: BulkPeer, sqlite_store: Store, keys: Keys) -> None:
    client = bulk_peer.client(keys.published, NARROW)
    keys.new(client.registration, ACTOR, "ES384")
    signer = KeySigner(sqlite_store, client.registration)

    async def run(door: Recording) -> tuple[str, ...]:
        wanted = scopes_for(["Patient", "Observation"], v2=True)
        some = client_of(door, bulk_peer, signer, client.client_id, *wanted)
        await some.token()
        with pytest.raises(TokenRefused) as refused:
            await client_of(door, bulk_peer, signer, client.client_id, wanted[1]).token()
        assert refused.value.said == "invalid_scope"
        return missing(wanted, some.granted)

    assert through(bulk_peer, run) == ("system/Observation.rs",)


def test_an_assertion_is_good_for_one_request(bulk_peer: BulkPeer, sqlite_store: Store, keys: Keys) -> None:
    client = bulk_peer.client(keys.published)
    keys.new(client.registration, ACTOR, "ES384")

    async def run(door: Recording) -> int:
        services = client_of(door, bulk_peer, KeySigner(sqlite_store, client.registration), client.client_id)
        first = await services.token()
        await services.renewed(first)  # a fresh one is taken
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        async with door.ask("POST", bulk_peer.token_url, headers=headers, content=door.sent[0]) as reply:
            assert b"jti" in await reply.body(10_000)
            return reply.status

    assert through(bulk_peer, run) == 401


def test_a_retired_key_is_refused(bulk_peer: BulkPeer, sqlite_store: Store, keys: Keys) -> None:
    """Signed while it was ours, presented after it was retired; the peer asks for the set then."""
    client = bulk_peer.client(keys.published)
    retired = keys.new(client.registration, ACTOR, "ES384")
    now = int(time.time())
    named = {"iss": client.client_id, "sub": client.client_id, "aud": bulk_peer.token_url, "jti": "once"}
    signer = KeySigner(sqlite_store, client.registration)
    assertion = signer.sign({**named, "iat": now, "exp": now + 240}, "ES384")
    keys.retire(retired.kid, ACTOR)
    keys.new(client.registration, ACTOR, "ES384")

    async def run(door: Recording) -> tuple[int, int]:
        form = {"grant_type": "client_credentials", "scope": PATIENTS[0], "client_assertion": assertion}
        body = urlencode({**form, "client_assertion_type": ASSERTION_TYPE}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        async with door.ask("POST", bulk_peer.token_url, headers=headers, content=body) as reply:
            refused = reply.status
        token = await client_of(door, bulk_peer, signer, client.client_id).token()
        return refused, await status_of(door, bulk_peer, token)

    assert through(bulk_peer, run) == (401, 200)


def test_an_export_with_such_a_token(bulk_peer: BulkPeer, sqlite_store: Store, keys: Keys) -> None:
    """Kick-off, status, manifest, file: what the peer is there for."""
    client = bulk_peer.client(keys.published)
    keys.new(client.registration, ACTOR, "ES384")
    bulk_peer.load([patient("1"), patient("2"), patient("gone"), *(weight(f"w{n}", "1", 60) for n in range(250))])
    bulk_peer.delete(("Patient", "gone"))
    scopes = scopes_for((), v2=True)

    async def run(door: Recording) -> dict[str, int]:
        services = client_of(door, bulk_peer, KeySigner(sqlite_store, client.registration), client.client_id, *scopes)
        bearer = {"Authorization": f"Bearer {await services.token()}"}
        asked = {**bearer, "Accept": "application/fhir+json", "Prefer": "respond-async"}
        async with door.ask("GET", f"{bulk_peer.base}/$export", headers=asked) as reply:
            assert reply.status == 202
            status = reply.headers["content-location"]
        while True:
            async with door.ask("GET", status, headers=bearer) as reply:
                if reply.status == 200:
                    manifest = strict.loads(await reply.body(100_000))
                    break
                assert reply.status == 202
            await asyncio.sleep(0.1)
        assert manifest["requiresAccessToken"] is True
        lines = {}
        for each in manifest["output"]:
            async with door.ask("GET", each["url"], headers=bearer) as reply:
                lines[each["type"]] = (await reply.body(1_000_000)).count(b"\n")
            async with door.ask("GET", each["url"]) as reply:
                assert reply.status == 401
        return lines

    assert through(bulk_peer, run) == {"Observation": 250, "Patient": 2}
    bulk_peer.clear()
    assert bulk_peer.search("Observation?_summary=count")["total"] == 0


def test_the_set_of_a_running_server_is_what_the_peer_believes(bulk_peer: BulkPeer, server: Server) -> None:
    """Keys by `cds keys`, published by `cds serve`, in processes of their own."""
    client = bulk_peer.client(lambda name: dict(server.http.get(f"/.well-known/jwks/{name}.json").json()))
    made = server.ask("keys", "new", "--alg", "RS384", "--for", client.registration)
    assert made["jwks"].endswith(f"/.well-known/jwks/{client.registration}.json")
    store = Store.open(server.data_dir, f"sqlite:///{server.data_dir / 'cds.db'}")
    try:

        async def run(door: Recording) -> int:
            services = client_of(door, bulk_peer, KeySigner(store, client.registration), client.client_id)
            return await status_of(door, bulk_peer, await services.token())

        assert through(bulk_peer, run) == 200
    finally:
        store.close()
