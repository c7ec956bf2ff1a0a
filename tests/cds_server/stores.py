"""Builders for tests that open a store: resources as EHRs send them, landings, what processes of their own append."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapters.readers.fhir import LINE
from adapters.source import Receipt
from cds_server.backlog import digest_backlog
from cds_server.decisions import now
from cds_server.digest import Tally
from cds_server.intake import StoreIntake
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.nouns import LandingMeta

ACTOR = "user:test"
SSN = "http://hl7.org/fhir/sid/us-ssn"
MRN = "http://hospital.example.org/mrn"
JOINING = frozenset({SSN})


def patient(local_id: str, *identifiers: tuple[str, str], born: str | None = None, **more: Any) -> dict[str, Any]:
    named = [{"system": system, "value": value} for system, value in identifiers]
    resource = {"resourceType": "Patient", "id": local_id, "identifier": named, "birthDate": born, **more}
    return {key: value for key, value in resource.items() if value}


def weight(local_id: str, subject: str | Mapping[str, Any], kg: float, **more: Any) -> dict[str, Any]:
    """A body weight (LOINC 29463-7). `subject`: a Patient's id, or a whole Reference."""
    return {
        "resourceType": "Observation",
        "id": local_id,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
        "subject": {"reference": f"Patient/{subject}"} if isinstance(subject, str) else dict(subject),
        "effectiveDateTime": "2024-05-01",
        "valueQuantity": {"value": kg, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"},
        **more,
    }


def land_parts(
    store: Store, parts: Iterable[bytes], *, namespace: str = "a", media_type: str = LINE, key: bytes | None = None
) -> Receipt:
    async def run() -> Receipt:
        staged = StoreIntake(store, ACTOR).stage(
            LandingMeta("test", namespace, media_type, now(), {"file": "x.ndjson"})
        )
        for part in parts:
            await staged.write(part)
            await staged.end_part()
        return await staged.commit(key)

    return asyncio.run(run())


def land(store: Store, *resources: Mapping[str, Any], namespace: str = "a", **more: Any) -> Receipt:
    return land_parts(store, [json.dumps(resource).encode() for resource in resources], namespace=namespace, **more)


def learn(store: Store, *resources: Mapping[str, Any], namespace: str = "a", **more: Any) -> Tally:
    """Land and digest."""
    land(store, *resources, namespace=namespace, **more)
    return digest_backlog(store, JOINING, ACTOR)


def person(store: Store, namespace: str, local_id: str, **more: Any) -> set[str]:
    """`namespace/id` of each record of the person."""
    record = store.reads.record(namespace, local_id)
    assert record is not None
    found = store.reads.records(store.reads.person(record.id, **more))
    return {f"{one.namespace}/{store.reads.local_id(one)}" for one in found}


def flags(store: Store) -> list[tuple[str, str]]:
    """(kind, reason) of each open flag."""
    return [
        (row[0], row[1])
        for row in store.reads.query(
            "SELECT f.kind, f.reason FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
            "WHERE c.id IS NULL ORDER BY f.id"
        )
    ]


def weights(store: Store, namespace: str, local_id: str, **more: Any) -> list[str]:
    """The weights known of one record, in the unit they are kept in."""
    record = store.reads.record(namespace, local_id)
    assert record is not None
    facts = store.reads.facts([record.id], frozenset({"http://loinc.org|29463-7"}), **more)
    return sorted(f"{fact.number} {fact.unit}" for fact in facts)


def stop_row(tx: Tx, service: str = "test") -> int:
    """The smallest act there is: one row, one entry; gives the entry's number."""
    tx.add("service_state", service=service, state="stopped", reason=None, at=tx.now)
    return tx.entry("service-stopped", ACTOR, {"service": service}).seq


def append_many(data_dir: str, url: str, name: str, count: int) -> None:
    """Run in a process of its own: append, one act after the other."""
    store = Store.open(Path(data_dir), url)
    try:
        for _ in range(count):
            store.writer.submit(lambda tx: stop_row(tx, name)).result()
    finally:
        store.close()
