"""What is over: keys of a kind of data that was kept for its time are destroyed, in an act that is on record.

    purge    one round, a chunk of keys at a time; the entry is written before the first of them goes
    Purger   the same in the background, once a day

Rows, leaves and proofs stay as they are. What belongs to somebody on legal hold stays, and what waits for a reader or a
person. Expired sessions and tokens of ours are no record, and are swept with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from adapters.bulk.states import EXPORT
from adapters.dicom.states import PULL
from adapters.sinks.states import SEND
from cds_server.actions import ACTION
from cds_server.belongings import ACCESS, belongings
from cds_server.decisions import CALL, INFERENCE, SNAPSHOT
from cds_server.erasure import finish
from cds_server.holds import held_people, holds
from cds_server.hygiene import HELD
from cds_server.jobs import JOB, STEP
from cds_server.outbox import keep, stands
from cds_server.reading import NO_RULES, SourceRules
from cds_server.retention_settings import Retention
from cds_server.shown import CARD, SYSTEM_ACTION
from cds_server.smart.sweeping import sweep
from cds_server.store import erased
from cds_server.store.pack import PART
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models.nouns import instant

CHUNK = 400
"""Keys that are destroyed at once."""
EVERY = "purged"
"""Cursor of the day of the last round, in days since 1970."""
SETTLE = 60.0
"""Seconds after which a process that begins looks whether a round is due."""
_DAY = 86_400
_ENDED = SEND.ends | EXPORT.ends | PULL.ends
_SWEPT = (
    "DELETE FROM staff_session WHERE until < ?",
    "DELETE FROM token_seen WHERE until < ?",
    "DELETE FROM board_context WHERE until < ?",
)


def due(store: Store, retention: Retention, now: datetime, rules: SourceRules = NO_RULES) -> dict[str, list[bytes]]:
    """Kind -> references of the keys that are to go. Changes nothing."""
    kept = _on_hold(store, rules)
    people = held_people(store.reads)
    found = {}
    for kind, days in retention.kinds().items():
        before = instant(now - timedelta(days=days))
        refs = {"parts": _parts, "decisions": _decisions, "results": _results, "access": _access}[kind](
            store, before, people
        )
        found[kind] = [ref for ref in refs if ref not in kept]
    return found


def purge(
    store: Store,
    retention: Retention,
    actor: str,
    *,
    now: datetime | None = None,
    rules: SourceRules = NO_RULES,
) -> Iterator[tuple[str, int]]:
    """One round: (kind, keys destroyed), a chunk at a time. Whoever stops in between goes on with the next round.

    Errors: RecordUnavailable and its kinds.
    """
    now = now or datetime.now(UTC)
    ended = finish(store, actor)
    if ended:
        yield "erasures", ended
    gone = ended
    for kind, refs in due(store, retention, now, rules).items():
        if not refs:
            continue
        before = instant(now - timedelta(days=retention.kinds()[kind]))
        detail = {"kind": kind, "before": before, "keys": len(refs)}
        store.writer.submit(lambda tx, detail=detail: tx.entry("purge", actor, detail).seq).result()  # type: ignore[misc]
        for start in range(0, len(refs), CHUNK):
            some = refs[start : start + CHUNK]
            store.vault.destroy(some)
            gone += len(some)
            yield kind, len(some)
    swept = store.writer.submit(lambda tx: _sweep(tx, int(now.timestamp()))).result()
    swept += sweep(store, int(now.timestamp()))
    if swept:
        yield "sessions and tokens", swept
    if gone:  # it makes writers wait for readers
        store.vault.keys.wipe()
        erased.wipe(store.database)


def _sweep(tx: Tx, seconds: int) -> int:
    return sum(max(0, tx.execute(statement, (seconds,))) for statement in _SWEPT)


class Purger:
    """A round a day, a chunk at each turn."""

    def __init__(self, store: Store, retention: Retention, rules: SourceRules = NO_RULES) -> None:
        self._store, self._retention, self._rules = store, retention, rules
        self._look = time.monotonic() + SETTLE
        self._round: Iterator[tuple[str, int]] | None = None

    def some(self) -> int:
        """Destroy up to a chunk of keys; gives how many."""
        if self._round is None:
            if time.monotonic() < self._look:
                return 0
            self._look = time.monotonic() + SETTLE
            today = int(time.time()) // _DAY
            if stands(self._store, EVERY) >= today:
                return 0
            self._store.writer.submit(lambda tx: keep(tx, EVERY, today)).result()
            self._round = purge(self._store, self._retention, "system", rules=self._rules)
        step = next(self._round, None)
        if step is None:
            self._round = None
            return 0
        return step[1]


# ---- what is old -----------------------------------------------------------------------------------------------------


def _on_hold(store: Store, rules: SourceRules) -> set[bytes]:
    """Keys of everybody on whom a hold stands. Reads their parts: a hold is rare, and worth it."""
    kept: set[bytes] = set()
    for each in holds(store.reads):
        for record in store.reads.records([each.record_id]):
            kept |= belongings(store, record, rules).keys
    return kept


def _parts(store: Store, before: str, _people: set[int]) -> Iterator[bytes]:
    """Of landings that every reader has seen, and of which nothing waits for a person."""
    rows = store.reads.query(
        "SELECT l.ref FROM landing l WHERE l.received_at < ? "
        "AND (SELECT COALESCE(MAX(d.part_to), 0) FROM digestion d WHERE d.landing_id = l.id) >= l.parts "
        "AND NOT EXISTS (SELECT 1 FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
        "WHERE f.landing_id = l.id AND f.kind <> 'flag' AND c.id IS NULL) ORDER BY l.id",
        (before,),
    )
    for (ref,) in rows:
        yield from store.vault.keys.beginning(PART + bytes.fromhex(ref))


def _decisions(store: Store, before: str, people: set[int]) -> Iterator[bytes]:
    alive = _Alive(store)
    asked = (
        "SELECT i.id, i.ref, s.ref, i.record_id, i.call_id FROM inference i JOIN snapshot s ON s.id = i.snapshot_id "
        "WHERE i.at < ? ORDER BY i.id"
    )
    held_calls = set()
    for inference_id, ref, snapshot, record_id, call_id in store.reads.query(asked, (before,)):
        if record_id in people:
            held_calls.add(call_id)
            continue
        yield from alive(object_ref(INFERENCE, ref), object_ref(SNAPSHOT, snapshot))
        for kind, statement in _MADE:
            yield from alive(*(object_ref(kind, row[0]) for row in store.reads.query(statement, (inference_id,))))
    asked = "SELECT id, ref FROM call WHERE received_at < ? AND sealed IS NOT NULL ORDER BY id"
    for call_id, ref in store.reads.query(asked, (before,)):
        if call_id not in held_calls:
            yield from alive(object_ref(CALL, ref))


_MADE = (
    (CARD, "SELECT uuid FROM card WHERE inference_id = ?"),
    (ACTION, "SELECT a.ref FROM action a JOIN card c ON c.id = a.card_id WHERE c.inference_id = ?"),
    (ACTION, "SELECT ref FROM action WHERE inference_id = ? AND card_id IS NULL"),
    (SYSTEM_ACTION, "SELECT ref FROM system_action WHERE inference_id = ?"),
    (HELD, "SELECT card FROM advice WHERE inference_id = ? AND sealed IS NOT NULL"),
)


def _results(store: Store, before: str, _people: set[int]) -> Iterator[bytes]:
    alive = _Alive(store)
    for job_id, ref in store.reads.query("SELECT id, ref FROM job WHERE at < ? ORDER BY id", (before,)):
        steps = store.reads.query("SELECT ref, sealed, state, at FROM job_step WHERE job_id = ? ORDER BY id", (job_id,))
        if steps and steps[-1][2] in _ENDED and steps[-1][3] < before:
            yield from alive(object_ref(JOB, ref), *(object_ref(STEP, row[0]) for row in steps if row[1] is not None))


def _access(store: Store, before: str, _people: set[int]) -> Iterator[bytes]:
    alive = _Alive(store)
    for (ref,) in store.reads.query("SELECT ref FROM access WHERE at < ? ORDER BY id", (before,)):
        yield from alive(object_ref(ACCESS, ref))


class _Alive:
    """Of references those that still have a key."""

    def __init__(self, store: Store) -> None:
        self._keys = store.vault.keys

    def __call__(self, *refs: bytes) -> Iterator[bytes]:
        return (ref for ref in refs if self._keys.get(ref) is not None)
