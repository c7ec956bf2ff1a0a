"""Everything by which somebody saw or was given a person's data, read back from the record, oldest first of each kind.

    looks     pages, boards and commands: the rows of `access`
    calls     what an EHR asked by a hook, and what it was shown
    actions   what clinicians did with cards
    sends     results that a receiver outside has acknowledged

Who it was is opened only here. What was erased says so: the row stays, its key is gone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cds_server.access.log import ACCESS, REFUSED, SEEN, TREAT
from cds_server.actions import ACTION
from cds_server.decisions import CALL
from cds_server.outbox import KIND as SEND
from cds_server.outbox import jobs_of
from cds_server.store.reads import FOREVER
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from models.errors import CdsError

BATCH = 500
ERASED = "erased"
LOOK, HOOK, ACTED, SENT = "look", "hook", "action", "send"


_LOOKS = (
    "SELECT id, ref, entry, act, outcome, purpose, door, ehr, roles, sealed, detail, at FROM access "
    "WHERE id > ? AND at >= ? AND at < ? ORDER BY id LIMIT ?"
)
_LOOKS_AT = (
    "SELECT id, ref, entry, act, outcome, purpose, door, ehr, roles, sealed, detail, at FROM access "
    "WHERE id > ? AND at >= ? AND at < ? AND id IN (SELECT access_id FROM access_record WHERE record_id = ?) "
    "ORDER BY id LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Whose:
    """A patient record that something was about."""

    id: int
    ref: str
    """Random; `ERASED` where the record was erased."""
    namespace: str
    outcome: str = SEEN


@dataclass(frozen=True, slots=True)
class Happening:
    kind: str
    """`LOOK`, `HOOK`, `ACTED`, `SENT`."""
    ref: str
    """Random: names the row."""
    seq: int
    """Of the ledger entry."""
    at: str
    act: str
    outcome: str
    """seen, refused, broken."""
    door: str
    subject: str = ""
    """Who, as their door knows them; empty where nobody was named."""
    name: str = ""
    ehr: str | None = None
    roles: tuple[str, ...] = ()
    purpose: str = TREAT
    reason: str = ""
    """Of broken glass."""
    whose: tuple[Whose, ...] = ()
    what: str = ""
    """Service, outcome of an action: words of ours."""
    inference: str | None = None
    recipient: str | None = None
    """The destination that a result went to."""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """Between two instants, the second not included; of some records, or of all."""

    since: str = ""
    until: str = FOREVER
    records: Collection[int] | None = None

    def about(self, record_id: int | None) -> bool:
        return self.records is None or record_id in self.records


def happenings(store: Store, span: Span) -> Iterator[Happening]:
    for each in (looks, calls, actions, sends):
        yield from each(store, span)


def looks(store: Store, span: Span) -> Iterator[Happening]:
    last = -1
    only = sorted(span.records)[:1] if span.records is not None and len(span.records) == 1 else []
    while True:
        if only:
            rows = store.reads.query(_LOOKS_AT, (last, span.since, span.until, only[0], BATCH))
        else:
            rows = store.reads.query(_LOOKS, (last, span.since, span.until, BATCH))
        if not rows:
            return
        whose = _whose(store, rows[0][0], rows[-1][0])
        for row_id, ref, seq, act, outcome, purpose, door, ehr, roles, sealed, detail, at in rows:
            found = whose.get(row_id, ())
            if span.records is not None and not any(each.id in span.records for each in found):
                continue
            said = _opened(store, ACCESS, ref, sealed)
            yield Happening(
                LOOK,
                ref,
                seq,
                at,
                act,
                outcome,
                door,
                subject=said.get("subject", ERASED),
                name=said.get("name", ERASED),
                ehr=ehr,
                roles=tuple(roles.split()),
                purpose=purpose,
                reason=said.get("reason", ""),
                whose=tuple(found),
                detail=json.loads(detail) if detail else {},
            )
        last = rows[-1][0]


def calls(store: Store, span: Span) -> Iterator[Happening]:
    """Hook calls. What was judged unasked or as a what-if was no call of an EHR's: the first nobody saw, the second is
    a look."""
    last = -1
    while True:
        rows = store.reads.query(
            "SELECT c.id, c.ref, c.entry, c.service, c.ehr, c.outcome, c.sealed, c.received_at, i.ref, i.record_id "
            "FROM call c LEFT JOIN inference i ON i.id = (SELECT MIN(x.id) FROM inference x WHERE x.call_id = c.id) "
            "WHERE c.id > ? AND c.hook IS NOT NULL AND c.received_at >= ? AND c.received_at < ? ORDER BY c.id LIMIT ?",
            (last, span.since, span.until, BATCH),
        )
        for row_id, ref, seq, service, ehr, outcome, sealed, at, inference, record_id in rows:
            last = row_id
            if not span.about(record_id):
                continue
            yield Happening(
                HOOK,
                ref,
                seq,
                at,
                "hook",
                SEEN if outcome in ("answered", "abstained", "suppressed") else REFUSED,
                "cds-hooks",
                subject=_text(store, CALL, ref, sealed) if sealed is not None else "",
                ehr=ehr,
                whose=_record(store, record_id),
                what=service,
                inference=inference,
            )
        if len(rows) < BATCH:
            return


def actions(store: Store, span: Span) -> Iterator[Happening]:
    last = -1
    while True:
        rows = store.reads.query(
            "SELECT a.id, a.ref, a.entry, a.outcome, a.door, a.sealed, a.at, i.ref, i.record_id, c.ehr FROM action a "
            "LEFT JOIN inference i ON i.id = a.inference_id LEFT JOIN card c ON c.id = a.card_id "
            "WHERE a.id > ? AND a.at >= ? AND a.at < ? ORDER BY a.id LIMIT ?",
            (last, span.since, span.until, BATCH),
        )
        for row_id, ref, seq, outcome, door, sealed, at, inference, record_id, ehr in rows:
            last = row_id
            if not span.about(record_id):
                continue
            said = _opened(store, ACTION, ref, sealed)
            yield Happening(
                ACTED,
                ref,
                seq,
                at,
                "act",
                SEEN,
                door,
                subject=str(said.get("actor") or "") if said else ERASED,
                ehr=ehr,
                whose=_record(store, record_id),
                what=outcome,
                inference=inference,
            )
        if len(rows) < BATCH:
            return


def sends(store: Store, span: Span) -> Iterator[Happening]:
    """Results that were acknowledged, by when they were. Which inference a job is about stands under its seal."""
    jobs = jobs_of(store)
    last = -1
    while True:
        rows = store.reads.query(
            "SELECT s.id, s.entry, s.at, j.id, j.ref, j.source FROM job_step s JOIN job j ON j.id = s.job_id "
            "WHERE s.id > ? AND j.kind = ? AND s.state = 'acknowledged' AND s.at >= ? AND s.at < ? "
            "ORDER BY s.id LIMIT ?",
            (last, SEND, span.since, span.until, BATCH),
        )
        for row_id, seq, at, job_id, ref, source in rows:
            last = row_id
            try:
                inference = str(jobs.get(job_id).asked.get("inference", ""))
            except CdsError:
                inference = ""
            of = store.reads.query("SELECT record_id FROM inference WHERE ref = ?", (inference,))
            record_id = of[0][0] if of else None
            if not span.about(record_id):
                continue
            yield Happening(
                SENT,
                ref,
                seq,
                at,
                "send",
                SEEN,
                "destination",
                whose=_record(store, record_id),
                what="a result",
                inference=inference or None,
                recipient=source,
            )
        if len(rows) < BATCH:
            return


def patients_of(store: Store, inferences: Sequence[str]) -> list[str]:
    """References of the patient records that these inferences are about, each once."""
    wanted = set(inferences)
    rows = store.reads.query(
        "SELECT i.ref, p.ref FROM inference i JOIN patient_record p ON p.id = i.record_id "
        "WHERE ? = 0 OR i.ref = ? ORDER BY i.id",
        (int(len(wanted) == 1), next(iter(wanted), "")),
    )
    return list(dict.fromkeys(record for inference, record in rows if inference in wanted))


def _whose(store: Store, first: int, last: int) -> Mapping[int, Sequence[Whose]]:
    found: dict[int, list[Whose]] = {}
    for access_id, record_id, outcome, ref, namespace in store.reads.query(
        "SELECT r.access_id, r.record_id, r.outcome, p.ref, p.namespace FROM access_record r "
        "LEFT JOIN patient_record p ON p.id = r.record_id WHERE r.access_id >= ? AND r.access_id <= ? ORDER BY r.id",
        (first, last),
    ):
        found.setdefault(access_id, []).append(Whose(record_id, ref or ERASED, namespace or "", outcome))
    return found


def _record(store: Store, record_id: int | None) -> tuple[Whose, ...]:
    if record_id is None:
        return ()
    rows = store.reads.query("SELECT ref, namespace FROM patient_record WHERE id = ?", (record_id,))
    return (Whose(record_id, *(rows[0] if rows else (ERASED, ""))),)


def _opened(store: Store, kind: bytes, ref: str, sealed: bytes) -> Mapping[str, Any]:
    """What was sealed; empty where it was erased."""
    try:
        return dict(store.reads.open_payload(kind, ref, bytes(sealed)))
    except CdsError:
        return {}


def _text(store: Store, kind: bytes, ref: str, sealed: bytes) -> str:
    try:
        return store.vault.open(object_ref(kind, ref), bytes(sealed)).decode()
    except CdsError:
        return ERASED
