"""Run events of a pull are valid against the schema that OpenLineage publishes, and name no patient."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema_rs
import pytest

from adapters.bulk import lineage
from adapters.bulk.lineage import Event, Pull, Written, emit, event, line
from models.errors import PeerFailed

SCHEMAS = Path(__file__).with_name("openlineage")
CORE = json.loads((SCHEMAS / "OpenLineage-2-0-2.json").read_text())
AT = datetime(2026, 11, 21, 10, tzinfo=UTC)
KEY = "of-the-collector"
RUN = UUID("0193500d-8a5c-7cc3-9d4e-2f1a5b6c7d8e")
PULL = Pull(
    run=RUN,
    namespace="cds.hospital.example",
    name="north-bulk",
    base="https://user@ehr.example:8443/fhir/r4",
    operation="Group/oncology/$export",
    store="north",
    version="0.1.0",
    request={
        "level": "group",
        "group": "oncology",
        "types": ["Condition", "Patient"],
        "since": "2026-11-01T00:00:00.000000Z",
        "until": None,
        "type_filters": ["Patient?name=Smith", "Condition?patient=4711"],
        "patients": ["4711", "4712"],
        "partial_manifests": True,
    },
)
WRITTEN = {"Patient": Written(rows=615, bytes=1_000_000, files=1), "Condition": Written(rows=0, bytes=0, files=2)}


def validator(schema: Mapping[str, Any]) -> Any:
    """With formats (date-time, uri, uuid) checked, and never a look outside: the core answers for its versions."""
    versions = ("1-0-1", "1-0-2", "1-0-3", "2-0-2")
    cores = [
        (url, {**CORE, "$id": url})
        for url in (f"https://openlineage.io/spec/{version}/OpenLineage.json" for version in versions)
    ]
    registry = jsonschema_rs.Registry(cores)
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True, registry=registry, offline=True)


def all_events() -> list[dict[str, Any]]:
    return [
        event(PULL, Event.START, AT),
        event(PULL, Event.COMPLETE, AT, written=WRITTEN),
        event(PULL, Event.COMPLETE, AT, written=WRITTEN, fault="2 lines were put aside"),
        event(PULL, Event.FAIL, AT, fault="the server gave the job up"),
        event(PULL, Event.ABORT, AT),
    ]


def test_the_schema_is_the_published_one() -> None:
    digest = hashlib.sha256((SCHEMAS / "OpenLineage-2-0-2.json").read_bytes()).hexdigest()
    assert digest == "69f68bee00b9beac88a87059c0102410e7bb05f3f43c46d02a0409831eceb0d2"
    assert digest in (SCHEMAS / "NOTICE").read_text()


@pytest.mark.parametrize("made", all_events(), ids=lambda made: made["eventType"])
def test_each_event_is_valid(made: dict[str, Any]) -> None:
    validator({**CORE, "oneOf": [{"$ref": "#/$defs/RunEvent"}]}).validate(made)
    validator(CORE).validate(json.loads(line(made)))


def test_the_check_finds_what_is_wrong() -> None:
    checked = validator(CORE)
    good = event(PULL, Event.COMPLETE, AT, written=WRITTEN)
    for member, wrong in (("eventType", "DONE"), ("eventTime", "today"), ("producer", "us"), ("run", {"runId": "1"})):
        assert not checked.is_valid({**good, member: wrong})
    bare = {name: value for name, value in good["job"]["facets"]["jobType"].items() if name != "_schemaURL"}
    assert not checked.is_valid({**good, "job": {**good["job"], "facets": {"jobType": bare}}})


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("OutputStatisticsOutputDatasetFacet-1-0-1.json", ("outputs", 0, "outputFacets")),
        ("ErrorMessageRunFacet-1-0-0.json", ("run", "facets")),
        ("ProcessingEngineRunFacet-1-1-0.json", ("run", "facets")),
        ("JobTypeJobFacet-2-0-4.json", ("job", "facets")),
    ],
)
def test_each_facet_is_valid_and_names_the_schema_that_it_follows(file: str, place: tuple[str | int, ...]) -> None:
    schema = json.loads((SCHEMAS / file).read_text())
    facets: Any = event(PULL, Event.FAIL, AT, written=WRITTEN, fault="cut off")
    for step in place:
        facets = facets[step]
    [name] = schema["properties"]
    validator(schema).validate({name: facets[name]})
    kind = file.partition("-")[0]
    assert facets[name]["_schemaURL"].endswith(f"/{kind}.json#/$defs/{kind}")
    assert not validator(schema).is_valid({name: {"_producer": lineage.PRODUCER}})


def test_a_run_is_the_job_and_reads_the_server_and_writes_each_type() -> None:
    made = event(PULL, Event.COMPLETE, AT, written=WRITTEN)
    assert made["run"]["runId"] == str(RUN)
    assert (made["job"]["namespace"], made["job"]["name"]) == ("cds.hospital.example", "north-bulk")
    assert made["inputs"] == [
        {"namespace": "https://ehr.example:8443", "name": "fhir/r4/Group/oncology/$export"},
    ]
    assert [(one["name"], one["outputFacets"]["outputStatistics"]["rowCount"]) for one in made["outputs"]] == [
        ("north/Condition", 0),
        ("north/Patient", 615),
    ]
    assert event(PULL, Event.START, AT)["outputs"] == []


def test_the_request_is_told_without_patients_and_without_what_filters_ask_for() -> None:
    parameters = event(PULL, Event.START, AT)["run"]["facets"]["executionParameters"]["parameters"]
    assert {one["key"]: one["value"] for one in parameters} == {
        "level": "group",
        "types": "Condition,Patient",
        "since": "2026-11-01T00:00:00.000000Z",
        "partial_manifests": "true",
        "type_filters": "Condition,Patient",
    }
    for made in all_events():
        assert not any(one in line(made) for one in (b"4711", b"4712", b"Smith", b"user@"))


def test_only_a_fault_has_an_error_message() -> None:
    told = [made["run"]["facets"].get("errorMessage", {}).get("message") for made in all_events()]
    assert told == [None, None, "2 lines were put aside", "the server gave the job up", None]


# ---- handing it over -------------------------------------------------------------------------------------------------


class Collector:
    """A door to a collector that answers with a status, or not at all."""

    def __init__(self, answer: int | PeerFailed) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, Mapping[str, str], bytes]] = []

    @asynccontextmanager
    async def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> AsyncIterator[Collector]:
        self.asked.append((method, url, headers or {}, content or b""))
        if isinstance(self.answer, PeerFailed):
            raise self.answer
        yield self

    def refuses(self, url: str) -> str | None:
        return None

    @property
    def status(self) -> int:
        assert isinstance(self.answer, int)
        return self.answer

    url = "https://lineage.example/api/v1/lineage"
    headers: Mapping[str, str] = {}

    async def body(self, limit: int) -> bytes:
        return b""

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b""


def test_events_go_to_a_file_and_to_a_collector() -> None:
    made, raw, door = event(PULL, Event.START, AT), bytearray(), Collector(201)
    assert asyncio.run(emit(made, write=raw.extend, door=door, url=Collector.url, token=KEY)) == ()
    assert raw == line(made)
    [(method, url, headers, content)] = door.asked
    assert (method, url, json.loads(content)) == ("POST", Collector.url, made)
    assert headers == {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (503, "the collector of lineage events answered 503"),
        (PeerFailed("no answer: ConnectError"), "the lineage event could not be sent: no answer: ConnectError"),
    ],
)
def test_a_collector_that_fails_is_told_and_fails_nothing(answer: int | PeerFailed, told: str) -> None:
    raw = bytearray()
    made = event(PULL, Event.START, AT)
    assert asyncio.run(emit(made, write=raw.extend, door=Collector(answer), url=Collector.url)) == (told,)
    assert raw == line(made)


def test_a_file_that_cannot_be_written_is_told_and_the_collector_is_asked_all_the_same() -> None:
    def full(chunk: bytes) -> None:
        raise OSError(28, "No space left on device")

    door = Collector(200)
    told = asyncio.run(emit(event(PULL, Event.START, AT), write=full, door=door, url=Collector.url))
    assert told == ("the lineage event could not be written: OSError",)
    assert len(door.asked) == 1


def test_nothing_configured_is_nothing_sent() -> None:
    assert asyncio.run(emit(event(PULL, Event.START, AT))) == ()
