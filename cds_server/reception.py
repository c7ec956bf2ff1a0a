"""A hook call's own data: durable first, then read, then set beside what was known.

    read      what the request's prefetch states, and what was read for it from the EHR's FHIR server
    land      the request's bytes, and the patient record that they are about: durable before anything is scored
    arrived   what its resources state, as facts; where they restate a stored resource, they take its place. Of a
              patient whom this process meets for the first time they are read while they are at hand, before `land`
    digest    what was landed becomes resource versions a moment later, off the path (`background.Digester`)

A call never misses what an earlier one brought: where a delivery about the same person still waits for its digest, it
is digested before this call is answered. A call whose data could join two records, or whose subject must be looked up,
is digested at once, in the same act: whose facts they are must be settled before they are scored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from adapters.readers import cds_hooks
from adapters.readers.subjects import identifiers_of
from cds_server.brought import Brought, Refused
from cds_server.digest import Reducer, Where, add_record, close_digest, where_of
from cds_server.hooks.context import HookRequest
from cds_server.hooks.routes import Caller
from cds_server.intake import add_landing
from cds_server.projected import SOMEBODY
from cds_server.reading import PartRead, read_sealed, reader_id
from cds_server.settings import Settings
from cds_server.store.pack import INLINE, PackWriter
from cds_server.store.reads import ActReads, Reads, RecordRow
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from cds_server.trust.replay import spend
from models.canonical import Noun
from models.errors import BadInput, WrongPatient
from models.nouns import Fact, LandingMeta, Snapshot, Statement

EHR_SOURCE = "cds-hooks"
_MET = 8192
"""Patients of whom this process remembers, by a keyed digest, that it served a call about them."""


class Known(Noun, frozen=True):
    """What is known about the person behind a record at one instant, as far as a caller may see it."""

    person: str
    records: tuple[RecordRow, ...]
    facts: tuple[Fact, ...]
    at: str


class Landed(Noun, frozen=True):
    """The request is durable, and what it states is known."""

    landing_id: int
    record: RecordRow
    known: Known
    unread: tuple[str, ...]
    """Pointers of what the request brought and nobody could read: in quarantine, and told on the card."""
    landing: str = ""
    """Reference of the landing."""
    brought: Brought | None = None
    received: str = ""


class _Packed(Noun, frozen=True):
    """A request's sealed bytes: in memory, or in a blob file."""

    pack: PackWriter
    inline: bytes | None
    file: str | None


class _Kept(Noun, frozen=True):
    """What the act of a landing leaves for afterwards."""

    landing_id: int
    where: Where
    record: RecordRow
    at: str
    records: tuple[RecordRow, ...]
    """Of the person, as joined now."""
    stored: tuple[Fact, ...]
    """What the person's visible records say to the models' questions."""
    same: frozenset[tuple[int, str]] = frozenset()
    """Part and pointer of what the request only repeats."""
    unread: tuple[str, ...] | None = None
    """None: the digest follows later."""


class _Stated(Noun, frozen=True):
    """What a request's resources state."""

    record: str
    """Of whom; `SOMEBODY`, where it was read before the record was known."""
    facts: dict[tuple[str, str], tuple[Fact, ...]]
    """By type and local id of the resource."""
    unread: tuple[str, ...]


class Reception:
    """Takes a call's data in."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._blobs = store.data_dir / "blobs"
        self._met: set[bytes] = set()

    async def land(
        self,
        wanted: frozenset[str],
        request: HookRequest,
        brought: Brought,
        caller: Caller,
        received: str,
    ) -> Landed:
        """Land the request, and look up what is known then of the codes (`system|code`) that are wanted."""
        pack = self._store.pack_writer()
        claims = self._claims(brought.parts)
        local = self._store.vault.index.local(caller.namespace, "Patient", request.patient_id)
        where = Where(0, pack.landing, caller.namespace, reader_id(cds_hooks.REQUEST), received)
        ahead = None
        if brought.settled and not claims and self._meets(local):
            with contextlib.suppress(Exception):  # a fault of ours is met again once the bytes are kept
                ahead = _stated(where, brought.parts, SOMEBODY, received)
        packed = await self._pack(pack, request, brought.fetched)

        def act(tx: Tx) -> _Kept:
            spend(tx, caller.token)
            record, made_here = self._record(tx, caller.namespace, request.patient_id, local)
            if not made_here:
                self._catch_up(tx, record, caller)
            landing_id, where = self._add_landing(tx, packed, caller, received, record)
            reducer = Reducer(tx, where, self._settings.joining_systems)
            same = _unchanged(reducer, brought.parts, made_here)
            if not brought.settled or not claims <= same:
                return self._at_once(reducer, wanted, landing_id, record, brought.parts, caller)
            found = ActReads(tx)
            records = (record,) if made_here else self._person(found, record, tx.now)
            stored = () if made_here else self._stored(found, wanted, record, records, tx.now)
            return _Kept(landing_id, where, record, tx.now, records, tuple(stored), same)

        kept = await self._store.writer.write(act, keys=packed.pack.keys)
        facts, unread = _beside(kept, brought.parts, ahead) if kept.unread is None else (kept.stored, kept.unread)
        seen = self._seen(wanted, kept, facts)
        return Landed(kept.landing_id, kept.record, seen, unread, kept.where.landing, brought, received)

    async def refuse(
        self,
        request: HookRequest,
        caller: Caller,
        received: str,
        refused: Refused,
        *,
        record: Callable[[Tx, int, str], None],
    ) -> None:
        """Keep the bytes of what was refused, with a Flag that somebody must look at; `record` adds the Call."""
        error = refused.error
        packed = await self._pack(self._store.pack_writer(), request, refused.fetched)
        safety = isinstance(error, WrongPatient)

        def act(tx: Tx) -> None:
            spend(tx, caller.token)
            landing_id, where = self._add_landing(tx, packed, caller, received, None)
            tx.add(
                "digestion",
                landing_id=landing_id,
                reader=where.reader,
                part_from=0,
                part_to=packed.pack.parts,
                statements=0,
                quarantined=1,
            )
            tx.add(
                "flag",
                kind="flag" if safety else "quarantine",
                reason="wrong-patient" if safety else "unreadable",
                landing_id=landing_id,
                part=packed.pack.parts - 1,
                pointer=error.where,
                detail=error.what,
                at=tx.now,
            )
            record(tx, landing_id, where.landing)

        await self._store.writer.write(act, keys=packed.pack.keys)

    async def _pack(self, pack: PackWriter, request: HookRequest, fetched: bytes | None) -> _Packed:
        """The request's bytes and what was read for it, each a part, sealed; what is large is on disk already, written
        where nobody waits for it."""
        body = request.without_token()

        def seal() -> _Packed:
            pack.write(body)
            pack.end_part()
            if fetched is not None:
                pack.write(fetched)
                pack.end_part()
            return _Packed(pack, *pack.settle(self._blobs))

        small = len(body) + len(fetched or b"") < INLINE // 2
        return seal() if small else await asyncio.to_thread(seal)

    def _meets(self, patient: bytes) -> bool:
        """Whether this is the first call about a patient that this process serves, as far as it remembers.

        Then what the resources state is most likely new, and is read while they are at hand: after the wait for the
        disk it would cost twice as much. What a later call only repeats is not read again.
        """
        if patient in self._met:
            return False
        if len(self._met) >= _MET:
            self._met.clear()
        self._met.add(patient)
        return True

    # -- inside the act ------------------------------------------------------------------------------------------------

    def _record(self, tx: Tx, namespace: str, local_id: str, digest: bytes) -> tuple[RecordRow, bool]:
        """The patient record that a call is about, and whether it was made here."""
        known = tx.read(
            "SELECT id, ref FROM patient_record WHERE namespace = ? AND local_digest = ?", (namespace, digest)
        )
        if known:
            return RecordRow(known[0][0], known[0][1], namespace), False
        return RecordRow(*add_record(tx, namespace, local_id, digest), namespace), True

    def _catch_up(self, tx: Tx, record: RecordRow, caller: Caller) -> None:
        """Digest what calls about this person brought and no reader has seen, in the order in which it came."""
        found = ActReads(tx)
        for landing_id in found.undigested_of(found.person(record.id)):
            landing = found.landing(landing_id)
            if landing is not None:
                parts = read_sealed(landing, self._store.opened(landing))
                reducer = Reducer(tx, where_of(landing), self._settings.joining_systems)
                reducer.run(parts)
                close_digest(tx, reducer, (0, len(parts)), sum(len(part.reads) for part in parts), actor(caller))

    def _add_landing(
        self, tx: Tx, packed: _Packed, caller: Caller, received: str, record: RecordRow | None
    ) -> tuple[int, Where]:
        pack, ref = packed.pack, packed.pack.landing
        meta = LandingMeta(EHR_SOURCE, caller.namespace, cds_hooks.REQUEST, received)
        dedup = tx.vault.index("landing", ref)
        landing_id = add_landing(tx, meta, pack, packed.inline, packed.file, dedup, record.id if record else None)
        tx.entry(
            "land",
            actor(caller),
            {
                "landing": ref,
                "source": EHR_SOURCE,
                "namespace": caller.namespace,
                "parts": pack.parts,
                "pack": pack.digest.hex(),
            },
        )
        return landing_id, Where(landing_id, ref, caller.namespace, reader_id(cds_hooks.REQUEST), received)

    def _claims(self, parts: Sequence[PartRead]) -> set[tuple[int, str]]:
        """Part and pointer of each Patient with an identifier of a joining system: it may join two records."""
        joining = self._settings.joining_systems
        patients = (
            (part.ordinal, read.statement)
            for part in parts
            for read in part.reads
            if read.statement.resource_type == "Patient"
        )
        return {(part, stated.pointer) for part, stated in patients if _names(stated, joining)} if joining else set()

    def _at_once(
        self,
        reducer: Reducer,
        wanted: frozenset[str],
        landing_id: int,
        record: RecordRow,
        parts: tuple[PartRead, ...],
        caller: Caller,
    ) -> _Kept:
        """Digest in the act of the landing: whose facts these are, only the record can tell."""
        tx = reducer.tx
        reducer.run(parts)
        close_digest(tx, reducer, (0, len(parts)), sum(len(part.reads) for part in parts), actor(caller))
        found = ActReads(tx)
        records = self._person(found, record, tx.now)
        stored = self._stored(found, wanted, record, records, tx.now)
        return _Kept(
            landing_id, reducer.where, record, tx.now, records, tuple(stored), frozenset(), tuple(reducer.unread)
        )

    async def catch_up(self, record: RecordRow) -> None:
        """Digest what calls about the person behind a record brought, where nobody did so yet."""
        reads = self._store.reads
        if reads.undigested_of(reads.person(record.id)):
            await self._store.writer.write(lambda tx: self._catch_up(tx, record, Caller(record.namespace)))

    # -- what is known -------------------------------------------------------------------------------------------------

    def known(self, wanted: frozenset[str], record: RecordRow, at: str) -> Known:
        """What is, or was, known about the person behind a record, as far as it was digested."""
        reads = self._store.reads
        records = self._person(reads, record, at)
        stored = self._stored(reads, wanted, record, records, at)
        return self._seen(wanted, _Kept(0, Where(0, "", "", ""), record, at, records, tuple(stored)), stored)

    def _person(self, reads: Reads, record: RecordRow, at: str) -> tuple[RecordRow, ...]:
        ids = reads.person(record.id, at)
        return (record,) if ids == (record.id,) else tuple(reads.records(ids))

    def _stored(
        self, reads: Reads, wanted: frozenset[str], record: RecordRow, records: Iterable[RecordRow], at: str
    ) -> list[Fact]:
        visible = self._visible(record, records)
        return reads.facts([each.id for each in visible], wanted, at)

    def _visible(self, record: RecordRow, records: Iterable[RecordRow]) -> tuple[RecordRow, ...]:
        """Only records of namespaces that the caller's EHR may see."""
        may = (record.namespace, *self._settings.ehr(record.namespace).sees)
        return tuple([each for each in records if each.namespace in may])

    def _seen(self, wanted: frozenset[str], kept: _Kept, facts: Iterable[Fact]) -> Known:
        """What of these facts the caller's EHR may see and the models ask for; facts that are marked as test data only
        where that EHR is one for tests."""
        records = self._visible(kept.record, kept.records)
        refs = {each.ref for each in records}
        ehr, here = self._settings.ehr(kept.record.namespace), kept.where.landing
        seen = []
        for fact in facts:
            if fact.record not in refs or fact.token not in wanted or (fact.test and not ehr.test):
                continue
            if not fact.labels or fact.source.landing == here or ehr.withhold.isdisjoint(fact.labels):
                seen.append(fact)
        return Known(person=kept.records[0].ref, records=records, facts=Snapshot.ordered(seen), at=kept.at)


def actor(caller: Caller) -> str:
    return f"ehr:{caller.namespace}"


def _unchanged(reducer: Reducer, parts: Sequence[PartRead], made_here: bool) -> frozenset[tuple[int, str]]:
    """Part and pointer of the resources that the digest will not take: the version before them says the same already,
    or is the one to believe. That version may be one of this very call, as where two prefetch keys overlap."""
    said = [(read.statement.resource_type, read.statement.local_id) for part in parts for read in part.reads]
    if not made_here:
        reducer.look_up(parts)
    elif len(set(said)) == len(said):  # nothing is known, and nothing is said twice
        return frozenset()
    stated = Counter(said)
    stored = dict(reducer.versions)
    same = set()
    for part in parts:
        for read in part.reads:
            if reducer.repeats(read) or reducer.outranked(read):
                same.add((part.ordinal, read.statement.pointer))
            elif stated[read.statement.resource_type, read.statement.local_id] > 1:
                reducer.expect(read)
    reducer.versions = stored
    return frozenset(same)


def _names(patient: Statement, systems: frozenset[str]) -> bool:
    """Whether a Patient has an identifier of one of these systems."""
    try:
        return any(system in systems for system, _, _ in identifiers_of(patient.body or {}))
    except BadInput:  # it goes to quarantine, and joins nothing
        return False


def _stated(
    where: Where,
    parts: Sequence[PartRead],
    record: str,
    known_from: str,
    same: frozenset[tuple[int, str]] = frozenset(),
) -> _Stated:
    """What the resources of a request state, but for what they only repeat."""
    stated: dict[tuple[str, str], tuple[Fact, ...]] = {}
    unread: list[str] = []
    for part in parts:
        for read in part.reads:
            statement = read.statement
            if read.subject is None or (same and (part.ordinal, statement.pointer) in same):
                continue
            try:
                facts = where.project(part.ordinal, statement, record, known_from)
            except BadInput:
                facts = ()
                unread.append(statement.pointer)
            stated[statement.resource_type, statement.local_id] = facts
    return _Stated(record, stated, tuple(unread))


def _beside(kept: _Kept, parts: Sequence[PartRead], ahead: _Stated | None) -> tuple[Iterable[Fact], tuple[str, ...]]:
    """Stored facts with those of the request beside them, and the pointers of what could not be read.

    A resource that the request states anew replaces what its stored version said, also where it cannot be read: the
    same that the digest will do. `ahead`: what was read of somebody before the record was known.
    """
    ref, where = kept.record.ref, kept.where
    stated = ahead
    if stated is None or kept.same:
        stated = _stated(where, parts, ref, where.known_from or kept.at, kept.same)
    known: list[Fact] = []
    if kept.stored:
        anew = {f"{resource_type}/{local_id}" for resource_type, local_id in stated.facts}
        known += [fact for fact in kept.stored if fact.record != ref or fact.source.resource not in anew]
    for facts in stated.facts.values():
        known += facts if stated.record == ref else [fact.but(record=ref) for fact in facts]
    return known, stated.unread
