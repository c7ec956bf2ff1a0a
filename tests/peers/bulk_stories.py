"""Stories of a pull: one instance on SQLite, one hostile server, the real flow between them, in this process.

    def test_x(hostile, bulk_story):
        peer = hostile(population(), polls=(202, 503))
        story = bulk_story(peer)                # further keys of the [[source]]: level=…, types=…, quirks={…}
        told = story.pull()
        assert (told.state, story.held().keys()) == ("done", ids(peer))

No wait is waited for: it is written down, and the clock goes on by it. Each story ends as every test that opens a store
ends, by walking its log, and by looking for secrets in everything that it wrote.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog

from adapters.bulk.states import State
from cds_server import logs
from cds_server.audit import audit
from cds_server.bulk_sources import BulkSource, bulk_sources
from cds_server.jobs import Job
from cds_server.keys import Keys
from cds_server.pulls import Pulls
from cds_server.remembered import SystemClock
from cds_server.settings import Settings, load
from cds_server.store.store import Store
from models.errors import CdsError
from tests.peers.hostile_bulk import HostileBulk, Resource
from tests.peers.server import Server

SOURCE, ACTOR = "north", "user:test"
Held = dict[tuple[str, str], Any]
MakeStory = Callable[..., "Story"]
_OWN = frozenset({"id", "record", "source", "known_from"})
"""Of an instance: what differs between two that know the same."""


# ---- whom it is about ------------------------------------------------------------------------------------------------


def population(patients: int = 3, weights: int = 2, updated: str = "2026-01-01T00:00:00Z") -> dict[str, list[Resource]]:
    """Patients p0, p1, … with body weights p0-w0, … and a condition each, p0-c."""
    people = [f"p{number}" for number in range(patients)]
    return {
        "Patient": [patient(each, updated) for each in people],
        "Observation": [
            weight(f"{each}-w{number}", each, 60 + number, updated) for each in people for number in range(weights)
        ],
        "Condition": [condition(f"{each}-c", each, updated) for each in people],
    }


def patient(local_id: str, updated: str = "2026-01-01T00:00:00Z", **members: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": local_id, "meta": {"lastUpdated": updated}, "gender": "female", **members}


def weight(local_id: str, of: str, kilograms: float, updated: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    unit = {"value": kilograms, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"}
    return _about(of, "Observation", local_id, "http://loinc.org", "29463-7", updated) | {
        "status": "final",
        "effectiveDateTime": "2025-12-01",
        "valueQuantity": unit,
    }


def condition(local_id: str, of: str, updated: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return _about(of, "Condition", local_id, "http://snomed.info/sct", "254837009", updated)


def _about(of: str, kind: str, local_id: str, system: str, code: str, updated: str) -> dict[str, Any]:
    return {
        "resourceType": kind,
        "id": local_id,
        "meta": {"lastUpdated": updated},
        "code": {"coding": [{"system": system, "code": code}]},
        "subject": {"reference": f"Patient/{of}"},
    }


def stated(peer: HostileBulk) -> Held:
    """What the server has now: (type, id) -> resource."""
    return {(kind, each["id"]): each for kind, every in peer.resources.items() for each in every}


# ---- a pull, and what is known after it ------------------------------------------------------------------------------


class Clock(SystemClock):
    """Waits for nothing, and counts it as time that went by."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=sum(self.waits))

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Told:
    """One run."""

    jobs: tuple[Job, ...]
    raised: CdsError | None
    waits: list[float]
    """Seconds that were to be waited, in order."""

    @property
    def state(self) -> str:
        """The worst of the jobs'; of an unfinished one, where it stands."""
        states = [job.state for job in self.jobs]
        good = (State.DONE_WITH_FAULTS, State.DONE)
        return next((each for each in states if each not in good), next((s for s in good if s in states), ""))

    @property
    def cause(self) -> str | None:
        return next((job.cause for job in self.jobs if job.cause and job.state == self.state), None)

    @property
    def modes(self) -> list[str]:
        return [job.mode for job in self.jobs]

    @property
    def result(self) -> Mapping[str, Any]:
        """Of the last job: files, lines, bytes, faults, types."""
        return dict(self.jobs[-1].remembers.get("result", {}))


@dataclass(slots=True)
class Story:
    peer: HostileBulk
    settings: Settings
    source: BulkSource
    store: Store
    server: Server
    """The same instance by its commands: `story.server.ask("patient", "north/p0")`."""
    printed: io.StringIO
    """What was logged."""
    peers: list[HostileBulk] = field(default_factory=list)

    def pulls(self, clock: Clock | None = None) -> Pulls:
        pulls = Pulls(self.settings, self.store, self.source, ACTOR)
        pulls._clock = clock or Clock()
        return pulls

    def pull(self, *, full: bool = False, clock: Clock | None = None) -> Told:
        clock = clock or Clock()
        pulls, raised = self.pulls(clock), None
        try:
            pulled = pulls.run(full=full)
        except CdsError as error:
            pulled, raised = None, error
        jobs = pulled.jobs if pulled else tuple(pulls.jobs.latest(SOURCE, 1))
        return Told(jobs, raised, clock.waits)

    def cancel(self) -> list[Job]:
        return self.pulls().cancel()

    @property
    def cursor(self) -> str | None:
        found = self.pulls().jobs.cursor(self.source.scope)
        return found.cursor if found else None

    def held(self) -> Held:
        """What is open in the store, as it came: (type, id) -> resource. Nothing is open twice."""
        return held(self.store)

    def facts(self) -> list[str]:
        """Every fact that is open, with what it was read from, less what is this instance's own."""
        return facts(self.store)

    def closed(self) -> list[tuple[str, str]]:
        """(type, cause) of each version that was closed, in order."""
        return [
            (row[0], row[1])
            for row in self.store.reads.query(
                "SELECT r.type, c.cause FROM resource_closing c JOIN resource r ON r.id = c.resource_id ORDER BY c.id"
            )
        ]

    def flags(self) -> list[tuple[str, str, str | None]]:
        """(kind, reason, detail), in order."""
        return [tuple(row) for row in self.store.reads.query("SELECT kind, reason, detail FROM flag ORDER BY id")]

    def landings(self) -> list[dict[str, Any]]:
        """The manifests of our landings, in order: kind, url, headers, counts."""
        found = [self.store.reads.landing(each) for each in self.store.reads.landing_ids()]
        return [json.loads(self.store.manifest(each)) for each in found if each is not None]

    def export_log(self) -> list[dict[str, Any]]:
        return _lines(self.store.data_dir / "pulls" / f"{SOURCE}.ndjson")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The details of the export log's events of that name."""
        return [each["eventDetail"] for each in self.export_log() if each["eventId"] == name]

    def lineage(self) -> list[dict[str, Any]]:
        return _lines(self.server.home / "lineage.ndjson")

    def secrets(self) -> set[bytes]:
        """What must stand nowhere: tokens, assertions, signatures of links, and the server's own words."""
        of_servers = [each for peer in self.peers for each in (*peer._tokens, *peer.assertions)]
        return {each.encode() for each in of_servers if each} | {b"signature=", b"Alma Weiss"}

    def check_secrets(self) -> None:
        secrets = self.secrets()
        files = [each for each in self.server.home.rglob("*") if each.is_file()]
        assert any(each.name == "cds.db" for each in files)
        written = {each.name: each.read_bytes() for each in files} | {"log": self.printed.getvalue().encode()}
        assert [name for name, found in written.items() if any(each in found for each in secrets)] == []


def held(store: Store) -> Held:
    rows = store.reads.query(
        "SELECT r.type, r.landing_id, r.part, r.pointer FROM resource r "
        "LEFT JOIN resource_closing c ON c.resource_id = r.id WHERE c.id IS NULL ORDER BY r.id"
    )
    found: Held = {}
    for kind, landing_id, part, pointer in rows:
        landing = store.reads.landing(landing_id)
        assert landing is not None
        resource = json.loads(store.part(landing, part))
        for step in pointer.split("/")[1:]:
            resource = resource[int(step) if isinstance(resource, list) else step]
        assert (kind, resource["id"]) not in found, "it is open twice"
        found[kind, resource["id"]] = resource
    return found


def facts(store: Store) -> list[str]:
    records = [row[0] for row in store.reads.query("SELECT id FROM patient_record")]
    known = [each.fact.plain() for each in store.reads.stored_facts(records)]
    return sorted(
        json.dumps({"of": fact["source"]["resource"]} | {name: fact[name] for name in sorted(fact.keys() - _OWN)})
        for fact in known
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


# ---- an instance -----------------------------------------------------------------------------------------------------


def configure(home: Path, peer: HostileBulk, others: Sequence[HostileBulk], **keys: Any) -> Path:
    """Write `cds.toml` with one [[source]], whose `hosts` are the other servers."""
    asked = {
        "name": SOURCE,
        "kind": "fhir-bulk",
        "namespace": SOURCE,
        "url": peer.base,
        "client_id": "cds",
        "hosts": [urlsplit(each.origin).netloc for each in others],
        "failure_wait": 0,
        "longest_wait": 1,
        "lineage_file": str(home / "lineage.ndjson"),
        **keys,
    }
    if asked.get("auth") == "none":
        del asked["client_id"]
    config = home / "cds.toml"
    config.write_text("[[source]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in asked.items()))
    return config


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


@pytest.fixture
def bulk_story(tmp_path: Path) -> Iterator[MakeStory]:
    """Gives `make(peer, *others, **keys of the [[source]]) -> Story`: an instance with a key of its own."""
    made: list[Story] = []
    printed, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("debug", printed)

    def make(peer: HostileBulk, *others: HostileBulk, **keys: Any) -> Story:
        home = tmp_path / f"story{len(made)}"
        home.mkdir()
        config = configure(home, peer, others, **keys)
        url = f"sqlite:///{home / 'var' / 'cds.db'}"
        settings = load({"CDS_CONFIG": str(config)}, data_dir=home / "var", database_url=url, trust="open")
        store = Store.open(settings.data_dir, url)
        Keys(store).new(None, ACTOR, "ES384")
        server = Server(home=home, data_dir=settings.data_dir, environment={"CDS_CONFIG": str(config)})
        source = bulk_sources(settings)[SOURCE]
        made.append(Story(peer, settings, source, store, server, printed, [peer, *others]))
        return made[-1]

    yield make
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    for story in made:
        story.store.close()
        assert audit(story.settings.data_dir, story.settings.database_url, deep=True).findings == ()
        story.check_secrets()
