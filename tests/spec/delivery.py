"""What becomes of a delivery: landed, digested, and what somebody must look at afterwards."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from adapters.sources.files import land_file
from cds_server.audit import audit
from cds_server.backlog import digest_backlog
from cds_server.decisions import now
from cds_server.intake import StoreIntake
from cds_server.store.store import Store
from models.errors import BadInput
from tests.cds_server.stores import flags, land_parts

NAME = "delivery"
TITLE = "What becomes of a delivery"
HEADER = ("When", "it is", "and then")

PATIENT = {"resourceType": "Patient", "id": "p1", "birthDate": "1970-01-01"}
WEIGHT = {
    "resourceType": "Observation",
    "id": "w1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
    "subject": {"reference": "Patient/p1"},
    "valueQuantity": {"value": 70, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"},
}
HEAVIER = {**WEIGHT, "valueQuantity": {**WEIGHT["valueQuantity"], "value": 71}}  # type: ignore[dict-item]
NOBODYS = {key: value for key, value in WEIGHT.items() if key != "subject"}
INVALID = {**WEIGHT, "id": "w2", "status": "as good as final"}


def lines(*resources: Any) -> bytes:
    return b"".join(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in resources)


def bundle(kind: str, *resources: Any) -> bytes:
    entries = [{"fullUrl": f"https://ehr.example/{r['resourceType']}/{r['id']}", "resource": r} for r in resources]
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": entries}).encode()


FILES: tuple[tuple[str, tuple[bytes, ...]], ...] = (
    ("NDJSON arrives", (lines(PATIENT, WEIGHT),)),
    ("the same bytes arrive again", (lines(PATIENT, WEIGHT), lines(PATIENT, WEIGHT))),
    ("NDJSON arrives compressed (gzip)", (gzip.compress(lines(PATIENT, WEIGHT), mtime=0),)),
    ("a searchset Bundle arrives", (bundle("searchset", PATIENT, WEIGHT),)),
    ("a single resource arrives", (json.dumps(PATIENT).encode(),)),
    ("a resource comes again with another value", (lines(PATIENT, WEIGHT), lines(HEAVIER))),
    ("one line of NDJSON is cut off", (lines(PATIENT, b'{"resourceType": "Obs\n', WEIGHT),)),
    ("a resource breaks a rule of R4 (its status is no code of the value set)", (lines(PATIENT, INVALID),)),
    ("an observation names no patient", (lines(PATIENT, NOBODYS),)),
    ("a file is no FHIR at all", (b"MZ\x90\x00 not a clinical file",)),
    ("a file is empty", (b"",)),
)


def told(folder: Path) -> Iterator[tuple[str, str, str]]:
    for number, (when, deliveries) in enumerate(FILES):
        with_store = _Store(folder / f"story-{number}")
        place = folder / "delivery.json"
        arrivals = [with_store(partial(_landed, path=place, body=delivery)) for delivery in deliveries]
        yield when, arrivals[-1], with_store(_after)
    with_store = _Store(folder / "conflict")
    with_store(lambda store: land_parts(store, [json.dumps(PATIENT).encode()], key=b"message 1"))
    again = with_store(lambda store: land_parts(store, [json.dumps(HEAVIER).encode()], key=b"message 1").arrival.value)
    yield "a sender uses the key of an earlier message for other bytes", again, with_store(_after)


class _Store:
    """Runs something on an instance of its own, and verifies its log after each time."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._url = folder, f"sqlite:///{folder / 'cds.db'}"

    def __call__(self, run: Callable[[Store], Any]) -> Any:
        store = Store.open(self._folder, self._url)
        try:
            return run(store)
        finally:
            store.close()
            assert not audit(self._folder, self._url, deep=True).findings


def _landed(store: Store, path: Path, body: bytes) -> str:
    path.write_bytes(body)
    intake = StoreIntake(store, "user:story")
    try:
        receipt = asyncio.run(land_file(path, intake, source="files", namespace="a", received_at=now()))
    except BadInput as error:
        return f"refused: {error}"
    digest_backlog(store, frozenset(), "user:story")
    parts = f"{receipt.parts} part{'s' if receipt.parts != 1 else ''}"
    return f"{receipt.arrival.value} ({parts})"


def _after(store: Store) -> str:
    known = store.reads.query(
        "SELECT COUNT(*), COUNT(c.id) FROM resource r LEFT JOIN resource_closing c ON c.resource_id = r.id"
    )
    ((made, closed),) = known
    waiting = [f"{kind} ({reason})" for kind, reason in flags(store)]
    said = f"{made} resource version{'s' if made != 1 else ''} known"
    said += f", {closed} of them superseded" if closed else ""
    return said + (f"; to be looked at: {', '.join(waiting)}" if waiting else "")
