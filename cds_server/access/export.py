"""The access log as FHIR, for an audit repository: one NDJSON file a resource type. It names people, and patients
unless asked not to: it is for whoever may read both, and that it was made is on record before a line is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cds_server.access.audit_event import (
    RECORD,
    AuditEvents,
    Resource,
    provenance_of_action,
    provenance_of_card,
    pseudonymous,
)
from cds_server.access.happenings import BATCH, Span, Whose, actions, happenings
from cds_server.settings import Settings
from cds_server.store.store import Store
from models.errors import CdsError, Misconfigured


def export(store: Store, settings: Settings, out: Path, span: Span, *, pseudonyms: bool = False) -> Mapping[str, int]:
    """Write AuditEvent.ndjson and Provenance.ndjson into a new or empty folder; gives how many resources of each.

    `pseudonyms`: patients by our random references only. Errors: Misconfigured (the folder has something in it).
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Misconfigured(f"{out} is no new or empty folder", where="--out")
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    return {
        "AuditEvent": _write(out / "AuditEvent.ndjson", audit_events(store, settings, span, pseudonyms=pseudonyms)),
        "Provenance": _write(out / "Provenance.ndjson", provenances(store, settings, span)),
    }


def audit_events(store: Store, settings: Settings, span: Span, *, pseudonyms: bool = False) -> Iterator[Resource]:
    hosts = {ehr.namespace: urlsplit(ehr.fhir_base).hostname or "" for ehr in settings.ehrs if ehr.fhir_base}
    events = AuditEvents(settings.public_url, pseudonymous if pseudonyms else _Patients(store, settings), hosts)
    for each in happenings(store, span):
        yield from events.of(each)


def provenances(store: Store, settings: Settings, span: Span) -> Iterator[Resource]:
    last = -1
    while rows := store.reads.query(
        "SELECT c.id, c.uuid, i.ref, i.model, i.at, i.entry, s.ref, e.leaf FROM card c "
        "JOIN inference i ON i.id = c.inference_id JOIN snapshot s ON s.id = i.snapshot_id "
        "JOIN ledger_entry e ON e.seq = i.entry WHERE c.id > ? AND i.at >= ? AND i.at < ? ORDER BY c.id LIMIT ?",
        (last, span.since, span.until, BATCH),
    ):
        for row_id, uuid, inference, model, at, seq, snapshot, leaf in rows:
            last = row_id
            named = {"card": uuid, "inference": inference, "model": model, "at": at, "seq": seq, "snapshot": snapshot}
            yield provenance_of_card({**named, "leaf": bytes(leaf).hex()}, settings.public_url)
    for action in actions(store, span):
        yield provenance_of_action(action)


class _Patients:
    """A patient as the EHR of their record knows them; by our reference alone where that was erased."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._bases = {ehr.namespace: ehr.fhir_base for ehr in settings.ehrs if ehr.fhir_base}
        self._local = cache(self._read)

    def __call__(self, whose: Whose) -> Mapping[str, Any]:
        local = self._local(whose.ref)
        if local is None:
            return pseudonymous(whose)
        base = self._bases.get(whose.namespace)
        if base is not None:
            return {"type": "Patient", "reference": f"{base}/Patient/{local}"}
        return {"type": "Patient", "identifier": {"system": f"{RECORD}:{whose.namespace}", "value": local}}

    def _read(self, ref: str) -> str | None:
        record = self._store.reads.record_by_ref(ref)
        try:
            return self._store.reads.local_id(record) if record is not None else None
        except CdsError:
            return None


def _write(path: Path, resources: Iterable[Resource]) -> int:
    """Lines that only their owner can read; gives how many."""
    number = 0
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        for resource in resources:
            number += 1
            file.write(json.dumps(resource, ensure_ascii=False, separators=(",", ":")) + "\n")
    return number
