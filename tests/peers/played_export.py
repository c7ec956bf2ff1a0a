"""One export played against a server of the tests: the real flow and the real door; clock and store are pretended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from adapters.backend_services import BackendServices
from adapters.bulk.asking import Asker, origin
from adapters.bulk.export_log import ExportLog
from adapters.bulk.profiles import PROFILES
from adapters.bulk.request import ExportRequest, Level
from adapters.bulk.states import EXPORT
from adapters.source import Arrival, Receipt
from adapters.sources.fhir_bulk import Export, Limits
from cds_server.http import vendor_door
from cds_server.vendor_door import HostRules
from models.errors import CdsError
from models.nouns import JSON, LandingMeta
from tests.adapters.test_bulk_files import Parts
from tests.peers.hostile_bulk import HostileBulk

SECRET = "Alma Weiss"  # noqa: S105 (a name, which the hostile server puts into every refusal)


@dataclass(slots=True)
class Clock:
    """Waits for nothing, and counts it as time that went by."""

    waits: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=sum(self.waits))

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)


class Signed:
    def algorithms(self) -> Sequence[str]:
        return ("ES384",)

    def sign(self, claims: Mapping[str, Any], algorithm: str) -> str:
        return "signed"


class Killed(Exception):
    """The process is gone."""


@dataclass(slots=True)
class Landed:
    meta: LandingMeta
    parts: list[bytes]
    learnt: JSON


class Delivery(Parts):
    def __init__(self, shelf: Shelf, meta: LandingMeta) -> None:
        super().__init__()
        self._shelf, self._meta = shelf, meta

    async def commit(self, dedup_key: bytes | None = None, *, learnt: JSON | None = None) -> Receipt:
        await self.end_part()
        assert dedup_key is not None
        assert dedup_key not in self._shelf.landed, "what is durable was brought again"
        self._shelf.live()
        self._shelf.landed[dedup_key] = Landed(self._meta, self.parts, learnt or {})
        self._shelf.live()
        return Receipt(Arrival.STORED, "", len(self.parts))

    async def abandon(self) -> None:
        self._shelf.abandoned += 1


@dataclass(slots=True)
class Shelf:
    """`Intake` and `Memory` in one: what is durable, as long as the test lasts."""

    landed: dict[bytes, Landed] = field(default_factory=dict)
    abandoned: int = 0
    state: str = EXPORT.first
    remembers: dict[str, Any] = field(default_factory=dict)
    cause: str | None = None
    states: list[str] = field(default_factory=list)
    lives: int | None = None
    """Killed at the so-manieth turn: before or after something becomes durable."""

    def live(self) -> None:
        if self.lives is not None:
            self.lives -= 1
            if self.lives == 0:
                raise Killed

    def stage(self, meta: LandingMeta) -> Delivery:
        return Delivery(self, meta)

    @property
    def files(self) -> list[Landed]:
        return [each for key, each in self.landed.items() if not key.endswith(b"manifest")]

    @property
    def ids(self) -> list[str]:
        return sorted(json.loads(part)["id"] for each in self.files for part in each.parts)


class Kept:
    job = "0" * 32

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    @property
    def state(self) -> str:
        return self._shelf.state

    @property
    def remembers(self) -> Mapping[str, Any]:
        return self._shelf.remembers

    async def move(self, to: str, *, cause: str | None = None, **remember: Any) -> None:
        assert to == self._shelf.state or to in EXPORT.moves[self._shelf.state]
        self._shelf.live()
        self._shelf.state, self._shelf.cause = to, cause
        self._shelf.states.append(to)
        self._shelf.remembers.update(json.loads(json.dumps(remember)))
        self._shelf.live()

    async def landed(self, key: bytes) -> bytes | None:
        found = self._shelf.landed.get(key)
        return None if found is None else found.parts[0] if found.parts else b""


@dataclass(slots=True)
class Told:
    shelf: Shelf
    waits: list[float]
    log: list[dict[str, Any]]
    raised: CdsError | None

    @property
    def state(self) -> str:
        return self.shelf.state

    @property
    def problems(self) -> list[str]:
        return [problem for each in self.shelf.files for problem in each.learnt["problems"]]

    @property
    def missing(self) -> list[str]:
        return list(self.shelf.remembers["missing"])


def export(
    peer: HostileBulk,
    *others: HostileBulk,
    request: ExportRequest | None = None,
    shelf: Shelf | None = None,
    may_drop: frozenset[str] = frozenset(),
    trusted: Sequence[HostileBulk] = (),
    forget: bool = True,
) -> Told:
    """Run it to where it stops, and have the server forget it. Nothing of ours repeats what the server says in its own
    words, a signature or a token.
    """
    shelf, clock, log = shelf or Shelf(), Clock(), []
    names = frozenset(urlsplit(each.origin).netloc for each in others)

    async def run() -> CdsError | None:
        door = vendor_door(HostRules(peer.base, hosts=tuple(sorted(names))))
        scopes = ("system/*.rs",)
        tokens = BackendServices(
            door, Signed(), clock, token_url=f"{peer.origin}/token", client_id="cds", scopes=scopes
        )
        asker = Asker(door, tokens, peer.base, frozenset(origin(each.origin) for each in trusted), clock)
        asked = request or ExportRequest(Level.SYSTEM)
        writing = ExportLog(lambda line: log.append(json.loads(line)), Kept.job, clock.now)
        job = Export(asker, Kept(shelf), asked, PROFILES["generic"], "hostile", "ns", writing, Limits(), may_drop)
        try:
            await job.run(shelf)
            if forget:
                await job.forget()
        except CdsError as error:
            return error
        finally:
            await door.aclose()
        return None

    raised = asyncio.run(run())
    said = repr((shelf.cause, shelf.remembers, raised, log, [(each.meta, each.learnt) for each in shelf.files]))
    assert SECRET not in said
    assert "signature" not in said
    assert not any(token in said for token in peer._tokens)
    return Told(shelf, clock.waits, log, raised)
