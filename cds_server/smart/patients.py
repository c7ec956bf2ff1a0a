"""The patient record that a launch is about: found, or made of what the EHR's FHIR server says of the patient.

What is read is landed byte for byte and digested at once, as a hook call's own data are, unless it says what is known.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from adapters.fhir_read import Reading
from adapters.readers.fhir import RESOURCE
from cds_server.digest import Reducer, add_record, close_digest, where_of
from cds_server.intake import StoreIntake
from cds_server.reading import PartRead, read_part, read_sealed
from cds_server.store.reads import ActReads, RecordRow
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import RecordUnavailable, WrongPatient
from models.nouns import LandingMeta, Part

SOURCE = "smart-launch"
"""Of the landings."""


def check(reading: Reading, patient: str) -> bytes:
    """The body of a Patient read. Errors: WrongPatient, where it is another's."""
    body, resource = reading.pages[0]
    if resource.get("resourceType") != "Patient" or resource.get("id") != patient:
        raise WrongPatient("the EHR answered with another patient than it launched with", where="Patient.id")
    return body


async def land(
    store: Store, namespace: str, patient: str, body: bytes | None, received: str, joining: frozenset[str]
) -> RecordRow:
    """The record of a patient, with what was read of them digested; None: nothing could be read.

    Durable when it returns. Errors: RecordUnavailable.
    """
    who = f"ehr:{namespace}"
    found = None
    if body is not None and not _known(store, namespace, patient, body, received):
        staged = StoreIntake(store, who).stage(LandingMeta(SOURCE, namespace, RESOURCE, received))
        await staged.write(body)
        receipt = await staged.commit(dedup_key=secrets.token_bytes(16))  # it may say again what it took back since
        found = store.reads.landing_by_ref(receipt.landing)
    parts: Sequence[PartRead] = read_sealed(found, store.opened(found)) if found is not None else ()

    def act(tx: Tx) -> RecordRow:
        if found is not None and not ActReads(tx).query("SELECT 1 FROM digestion WHERE landing_id = ?", (found.id,)):
            reducer = Reducer(tx, where_of(found), joining)
            reducer.run(parts)
            close_digest(tx, reducer, (0, len(parts)), sum(len(part.reads) for part in parts), who)
        digest = tx.vault.index("local", namespace, "Patient", patient)
        known = tx.read(
            "SELECT id, ref FROM patient_record WHERE namespace = ? AND local_digest = ?", (namespace, digest)
        )
        if known:
            return RecordRow(known[0][0], known[0][1], namespace)
        record = RecordRow(*add_record(tx, namespace, patient, digest), namespace)
        tx.entry("record", who, {"record": record.ref, "from": SOURCE})
        return record

    record = await store.writer.write(act)
    if store.reads.local_id(record) != patient:
        raise RecordUnavailable("the record of this launch is another patient's", where=f"record {record.ref}")
    return record


def _known(store: Store, namespace: str, patient: str, body: bytes, received: str) -> bool:
    """Whether the open version of this Patient says the same."""
    (read, *more) = read_part(Part("", 0, namespace, RESOURCE, received, body)).reads or (None,)
    if read is None or more:
        return False
    row = store.reads.one(
        "SELECT r.content FROM resource r LEFT JOIN resource_closing c ON c.resource_id = r.id "
        "WHERE r.local_digest = ? AND c.id IS NULL",
        (store.vault.index.local(namespace, "Patient", patient),),
    )
    return row is not None and bytes(row[0]) == store.vault.index.content(read.content)
