"""What a pull read and what it wrote, as OpenLineage run events (specification 2-0-2).

One run is one job of ours: START when it is kicked off, then one of COMPLETE (also with faults: what came is applied),
FAIL or ABORT (cancelled). Counts stand in facets that OpenLineage publishes, each under the URL of its schema.

What names a person stays out: ids of patients, and the values of type filters (`Patient?name=...`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from adapters.peer import Door
from models.errors import CdsError
from models.nouns import instant

PRODUCER = "urn:cds-server:fhir-bulk"
SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
MOST_ANSWER = 64 * 1024
_FACETS = "https://openlineage.io/spec/facets"
_ENGINE = f"{_FACETS}/1-1-1/ProcessingEngineRunFacet.json#/$defs/ProcessingEngineRunFacet"
_PARAMETERS = f"{_FACETS}/1-0-0/ExecutionParametersRunFacet.json#/$defs/ExecutionParametersRunFacet"
_ERROR = f"{_FACETS}/1-0-1/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet"
_JOB_TYPE = f"{_FACETS}/2-0-4/JobTypeJobFacet.json#/$defs/JobTypeJobFacet"
_STATISTICS = f"{_FACETS}/1-0-2/OutputStatisticsOutputDatasetFacet.json#/$defs/OutputStatisticsOutputDatasetFacet"

_TOLD = (
    "level",
    "types",
    "since",
    "until",
    "elements",
    "associated",
    "organize_by",
    "partial_manifests",
)
"""Members of a request that say nothing about a single patient."""


class Event(StrEnum):
    """States of a run (2-0-2, RunEvent.eventType); each run has one START and one of the others."""

    START = "START"
    COMPLETE = "COMPLETE"
    FAIL = "FAIL"
    ABORT = "ABORT"


@dataclass(frozen=True, slots=True)
class Pull:
    """One run of one configured source."""

    run: UUID
    """The id of our job."""
    namespace: str
    """Of the job: which instance of ours, from the configuration."""
    name: str
    """Of the source."""
    base: str
    """Of the FHIR server."""
    operation: str
    """`$export`, `Patient/$export` or `Group/ID/$export`."""
    store: str
    """Namespace of the local ids in our store."""
    version: str
    """Of this server."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """Of the export, by the names that `ExportRequest.plain` gives; what is not known to be harmless is left out."""


@dataclass(frozen=True, slots=True)
class Written:
    """What one resource type brought."""

    rows: int
    bytes: int
    files: int


def event(
    pull: Pull,
    kind: Event,
    at: datetime,
    *,
    written: Mapping[str, Written] | None = None,
    fault: str | None = None,
) -> dict[str, Any]:
    """A run event as JSON. `written`: by resource type. `fault`: what went wrong, in our words."""
    run_facets: dict[str, Any] = {
        "processing_engine": _facet(_ENGINE, version=pull.version, name="cds-server"),
        "executionParameters": _facet(_PARAMETERS, parameters=_parameters(pull.request)),
    }
    if fault is not None:
        run_facets["errorMessage"] = _facet(_ERROR, message=fault, programmingLanguage="PYTHON")
    job_type = _facet(_JOB_TYPE, processingType="BATCH", integration="FHIR_BULK_DATA", jobType="JOB")
    return {
        "eventType": kind.value,
        "eventTime": instant(at),
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
        "run": {"runId": str(pull.run), "facets": run_facets},
        "job": {"namespace": pull.namespace, "name": pull.name, "facets": {"jobType": job_type}},
        "inputs": [_input(pull)],
        "outputs": [_output(pull, resource_type, counts) for resource_type, counts in sorted((written or {}).items())],
    }


def line(event: Mapping[str, Any]) -> bytes:
    """An event as one line of JSON, as the file transport of OpenLineage's own clients writes it."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def emit(
    event: Mapping[str, Any],
    *,
    write: Callable[[bytes], object] | None = None,
    door: Door | None = None,
    url: str | None = None,
    token: str | None = None,
) -> tuple[str, ...]:
    """Hand an event to a file (`write`), to a collector (POST to `url` through `door`), to both or to none.

    Answers why it did not arrive, in our words; nothing where it did. A pull never fails for that, and the event is
    not sent again: who needs each event for certain has it written to a file.
    """
    problems = []
    if write is not None:
        try:
            write(line(event))
        except OSError as error:
            problems.append(f"the lineage event could not be written: {type(error).__name__}")
    if door is not None and url is not None:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            async with door.ask("POST", url, headers=headers, content=line(event).rstrip(b"\n")) as reply:
                if reply.status // 100 != 2:
                    problems.append(f"the collector of lineage events answered {reply.status}")
                await reply.body(MOST_ANSWER)
        except CdsError as error:
            problems.append(f"the lineage event could not be sent: {error.what}")
    return tuple(problems)


# ---- the parts of an event -------------------------------------------------------------------------------------------


def _facet(schema: str, **members: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": schema, **members}


def _parameters(request: Mapping[str, Any]) -> list[dict[str, str]]:
    told = [{"key": name, "value": _text(request[name])} for name in _TOLD if request.get(name) not in (None, (), [])]
    filters = request.get("type_filters") or ()
    if filters:
        types = {str(one).partition("?")[0] for one in filters}
        told.append({"key": "type_filters", "value": ",".join(sorted(one for one in types if one.isalpha()))})
    return told


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _input(pull: Pull) -> dict[str, Any]:
    """The export: its datasource is the server, its name the path (OpenLineage, Naming)."""
    parts = urlsplit(pull.base)
    server = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))
    return {"namespace": server, "name": f"{parts.path.strip('/')}/{pull.operation}".lstrip("/")}


def _output(pull: Pull, resource_type: str, written: Written) -> dict[str, Any]:
    counts = _facet(_STATISTICS, rowCount=written.rows, size=written.bytes, fileCount=written.files)
    return {
        "namespace": pull.namespace,
        "name": f"{pull.store}/{resource_type}",
        "outputFacets": {"outputStatistics": counts},
    }
