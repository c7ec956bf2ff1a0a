"""The verbs of a decision: `snapshot`, `infer`, `act`. What a hook call goes through, and what its record is.

    land + digest   the request's own bytes and what they state: durable before anything is scored
    snapshot        the facts that this model version asks for, as known now, with the request's context
    judge, cards    pure: models and a service file, which never see the store
    infer           Call, Snapshot, Inference, Cards and their entry in ONE transaction; then, and only then, the answer
    act             what the clinician did, with its entry

An error is never an empty success. If the record cannot be written there is no card at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adapters.readers import cds_hooks
from adapters.readers.subjects import subject_of
from cds_server.digest import PartRead, Read, Reducer, Where, as_read, close_digest, reader_id
from cds_server.hooks import prefetch
from cds_server.hooks.cards import render
from cds_server.hooks.context import HookRequest
from cds_server.hooks.routes import Answer, Caller
from cds_server.hooks.service import CardGuide, ServiceSpec
from cds_server.intake import add_landing
from cds_server.registry import Registry, runtime_id
from cds_server.settings import Settings
from cds_server.store.entropy import new_ref, new_uuid
from cds_server.store.pack import INLINE, PackWriter
from cds_server.store.reads import ActReads, Reads, RecordRow
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.errors import BadInput, CdsError, WrongPatient
from models.nouns import JSON, ClinicianAction, Fact, Judgement, LandingMeta, Snapshot, instant
from models.scoring import Scorer

CALL, SNAPSHOT, INFERENCE, CARD, ACTION = b"k", b"s", b"i", b"c", b"a"
"""Kinds of sealed payloads: the first letter of a key reference."""

_EHR_SOURCE = "cds-hooks"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about the person behind a record at one instant, as far as a caller may see it."""

    person: str
    records: tuple[RecordRow, ...]
    facts: tuple[Fact, ...]
    at: str


@dataclass(frozen=True, slots=True)
class Landed:
    """The request is durable, and what it states is known."""

    landing_id: int
    record: RecordRow
    known: Known
    unread: tuple[str, ...]
    """Pointers of what the request brought and nobody could read: in quarantine, and told on the card."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A request's sealed bytes: in memory, or in a blob file."""

    pack: PackWriter
    inline: bytes | None
    file: str | None


class Decisions:
    """What stands behind the CDS Hooks doors; implements `hooks.routes.HookDesk` but for `admit`."""

    def __init__(self, store: Store, settings: Settings, registry: Registry) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry
        self._blobs = store.data_dir / "blobs"

    async def call(self, spec: ServiceSpec, request: HookRequest, caller: Caller) -> Answer:
        """One hook call, from a checked request to an answer whose record is durable."""
        received = now()
        if self._registry.stopped(spec.id):
            await self._record_call(spec.id, request, caller, received, "stopped", 200, None)
            return Answer(cards=())
        scorer = self._registry.scorer(spec.id)
        reads = await self._read(spec, request, caller, received)
        landed = await self._land(scorer, request, reads, caller, received)
        context = spec.context(request.context)
        if landed.unread:
            context["unread"] = list(landed.unread)
        judgement = scorer.judge(snapshot(scorer, landed.known, context))
        return await self.infer(spec, request, caller, received, landed, judgement)

    async def refuse(self, service: str, request: HookRequest | None, caller: Caller, error: CdsError) -> None:
        """Record a call that is answered with an error."""
        outcome = "failed" if error.status >= 500 else "refused"
        await self._record_call(service, request, caller, now(), outcome, error.status, str(error))

    # -- land and digest -----------------------------------------------------------------------------------------------

    async def _read(self, spec: ServiceSpec, request: HookRequest, caller: Caller, received: str) -> tuple[Read, ...]:
        """What the prefetch states. A resource of another patient refuses the whole call, as a safety event."""
        try:
            prefetch.check_patient(request, subject_of)
            reads = tuple(
                map(as_read, cds_hooks.read_request({"prefetch": request.prefetch, "fhirServer": request.fhir_server}))
            )
            await prefetch.complete(spec.prefetch, spec.required, request)
        except BadInput as error:
            safety = isinstance(error, WrongPatient)
            await self._refused_landing(spec.id, request, caller, received, error, "safety" if safety else "refused")
            raise Recorded(error) from None
        return reads

    async def _land(
        self, scorer: Scorer, request: HookRequest, reads: tuple[Read, ...], caller: Caller, received: str
    ) -> Landed:
        """Land and digest in one act, and look up what is known then: the facts just read need no second reading."""

        packed = await self._pack(request)

        def act(tx: Tx) -> Landed:
            landing_id, where = self._add_landing(tx, packed, caller, received)
            reducer = Reducer(tx, where, self._settings.joining_systems)
            reducer.run([PartRead(0, reads)])
            record = RecordRow(*reducer.record(request.patient_id), caller.namespace)
            opened = tx.seq
            close_digest(tx, reducer, (0, 1), len(reads), actor(caller))
            made_here = record.id >> 20 == opened and not reducer.linked
            if made_here:  # nothing else can be known of it
                known = self._seen(scorer, record, (record,), tx.now, reducer.opened)
            else:
                known = self._known(ActReads(tx), scorer, record, tx.now, opened, reducer.opened)
            return Landed(landing_id, record, known, tuple(reducer.unread))

        return await self._store.writer.write(act)

    async def _pack(self, request: HookRequest) -> Packed:
        """The request's bytes, sealed; a large one is on disk already, written where nobody waits for it."""
        body = request.without_token()
        pack = self._store.pack_writer(new_ref())

        def seal() -> Packed:
            pack.write(body)
            pack.end_part()
            return Packed(pack, *pack.settle(self._blobs))

        return seal() if len(body) < INLINE // 2 else await asyncio.to_thread(seal)

    def _add_landing(self, tx: Tx, packed: Packed, caller: Caller, received: str) -> tuple[int, Where]:
        pack, ref = packed.pack, packed.pack.landing
        meta = LandingMeta(_EHR_SOURCE, caller.namespace, cds_hooks.REQUEST, received)
        dedup = tx.vault.index("landing", ref)
        landing_id = add_landing(tx, meta, ref, pack, packed.inline, packed.file, pack.content, dedup)
        tx.entry(
            "land",
            actor(caller),
            {
                "landing": ref,
                "source": _EHR_SOURCE,
                "namespace": caller.namespace,
                "parts": 1,
                "pack": pack.digest.hex(),
            },
        )
        return landing_id, Where(landing_id, ref, caller.namespace, reader_id(cds_hooks.REQUEST))

    async def _refused_landing(
        self, service: str, request: HookRequest, caller: Caller, received: str, error: CdsError, outcome: str
    ) -> None:
        """Keep what was refused, and say so: the bytes, a Call, and a Flag that somebody must look at."""

        packed = await self._pack(request)

        def act(tx: Tx) -> None:
            landing_id, where = self._add_landing(tx, packed, caller, received)
            tx.add(
                "digestion",
                landing_id=landing_id,
                reader=where.reader,
                part_from=0,
                part_to=1,
                statements=0,
                quarantined=1,
            )
            tx.add(
                "flag",
                kind="flag" if outcome == "safety" else "quarantine",
                reason="wrong-patient" if outcome == "safety" else "unreadable",
                landing_id=landing_id,
                part=0,
                pointer=error.where,
                detail=error.what,
                at=tx.now,
            )
            self._add_call(tx, service, request, caller, received, outcome, error.status, error.what, landing_id)
            tx.entry(outcome, actor(caller), {"service": service, "status": error.status, "landing": where.landing})

        await self._store.writer.write(act)

    # -- what is known -------------------------------------------------------------------------------------------------

    def known(self, scorer: Scorer, record: RecordRow, at: str | None = None) -> Known:
        """What is, or was, known about the person behind a record (for commands: a hook call asks inside its act)."""
        return self._known(self._store.reads, scorer, record, at or now(), None, ())

    def _known(
        self, reads: Reads, scorer: Scorer, record: RecordRow, at: str, entry: int | None, opened: Sequence[Fact]
    ) -> Known:
        """Only records of namespaces that the caller's EHR may see are in it; facts marked as test data only where that
        EHR is one for tests.

        `opened` are the facts that entry `entry` wrote, at hand already; all others are read.
        """
        ids = reads.person(record.id, at)
        records = (record,) if ids == (record.id,) else tuple(reads.records(ids))
        known = self._seen(scorer, record, records, at, opened)
        before = reads.facts(
            [r.id for r in known.records], scorer.facts_wanted(), at, **({} if entry is None else {"before": entry})
        )
        return self._seen(scorer, record, records, at, [*before, *opened])

    def _seen(
        self, scorer: Scorer, record: RecordRow, records: Sequence[RecordRow], at: str, facts: Sequence[Fact]
    ) -> Known:
        """What of these facts the caller's EHR may see and the model asks for."""
        ehr = self._settings.ehr(record.namespace)
        seen = tuple(r for r in records if r.namespace == record.namespace or r.namespace in ehr.sees)
        refs, wanted = {r.ref for r in seen}, scorer.facts_wanted()
        kept = [
            fact for fact in facts if fact.record in refs and fact.code.token in wanted and (ehr.test or not fact.test)
        ]
        return Known(person=records[0].ref, records=seen, facts=Snapshot.ordered(kept), at=at)

    # -- infer ---------------------------------------------------------------------------------------------------------

    async def infer(
        self,
        spec: ServiceSpec,
        request: HookRequest,
        caller: Caller,
        received: str,
        landed: Landed,
        judgement: Judgement,
    ) -> Answer:
        """Render the cards, then write everything in one transaction with its entry."""
        inference = new_uuid()
        guide = CardGuide(
            inference=inference,
            data_as_of=landed.known.at,
            public_url=self._settings.public_url,
            new_uuid=new_uuid,
        )
        cards = [render(card) for card in spec.cards(judgement, guide)]
        abstained = judgement.score.abstained is not None

        def act(tx: Tx) -> tuple[int, bytes]:
            call_id = self._add_call(
                tx,
                spec.id,
                request,
                caller,
                received,
                "abstained" if abstained else "answered",
                200,
                None,
                landed.landing_id,
            )
            commitments = self._add_inference(
                tx, spec.id, caller, landed.record.id, call_id, inference, judgement, cards
            )
            entry = tx.entry(
                "infer",
                actor(caller),
                {
                    "service": spec.id,
                    "inference": inference,
                    "model": judgement.model.id,
                    "model_digest": judgement.model.manifest_digest,
                    "abstained": abstained,
                    **commitments,
                },
            )
            return entry.seq, entry.leaf

        seq, leaf = await self._store.writer.write(act)
        item = {"service": spec.id, "id": inference, "seq": seq, "leaf": leaf.hex()}
        return Answer(cards=cards, inferences=(item,))

    def _add_inference(
        self,
        tx: Tx,
        service: str,
        caller: Caller,
        record_id: int,
        call_id: int,
        inference: str,
        judgement: Judgement,
        cards: Sequence[JSON],
    ) -> dict[str, Any]:
        snapshot_ref = new_ref()
        sealed = tx.vault.seal(object_ref(SNAPSHOT, snapshot_ref), judgement.snapshot.bytes, tx.fresh_keys)
        snapshot_id = tx.add(
            "snapshot",
            ref=snapshot_ref,
            model=judgement.model.id,
            as_of=judgement.snapshot.as_of,
            sealed=sealed.cipher,
            commitment=sealed.commitment,
        )
        judged = tx.vault.seal(object_ref(INFERENCE, inference), judged_bytes(judgement), tx.fresh_keys)
        inference_id = tx.add(
            "inference",
            ref=inference,
            call_id=call_id,
            snapshot_id=snapshot_id,
            record_id=record_id,
            service=service,
            model=judgement.model.id,
            model_digest=judgement.model.manifest_digest,
            runtime=runtime_id(),
            abstained=judgement.score.abstained is not None,
            sealed=judged.cipher,
            commitment=judged.commitment,
            at=tx.now,
        )
        shown = {}
        for card in cards:
            of_card = tx.vault.seal(object_ref(CARD, card["uuid"]), canonical(card), tx.fresh_keys)
            tx.add(
                "card",
                uuid=card["uuid"],
                inference_id=inference_id,
                service=service,
                ehr=caller.namespace,
                sealed=of_card.cipher,
                commitment=of_card.commitment,
            )
            shown[card["uuid"]] = of_card.commitment.hex()
        return {"snapshot": sealed.commitment.hex(), "judged": judged.commitment.hex(), "cards": shown}

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def _record_call(
        self,
        service: str,
        request: HookRequest | None,
        caller: Caller,
        received: str,
        outcome: str,
        status: int,
        reason: str | None,
    ) -> None:
        def act(tx: Tx) -> None:
            self._add_call(tx, service, request, caller, received, outcome, status, reason, None)
            tx.entry("call", actor(caller), {"service": service, "outcome": outcome, "status": status})

        await self._store.writer.write(act)

    def _add_call(
        self,
        tx: Tx,
        service: str,
        request: HookRequest | None,
        caller: Caller,
        received: str,
        outcome: str,
        status: int,
        reason: str | None,
        landing_id: int | None,
    ) -> int:
        ref = new_ref()
        user = None
        if request is not None and request.user_id is not None:
            user = tx.vault.seal(object_ref(CALL, ref), request.user_id.encode(), tx.fresh_keys).cipher
        return tx.add(
            "call",
            ref=ref,
            service=service,
            hook=request.hook if request else None,
            hook_instance=request.hook_instance if request else None,
            ehr=caller.namespace,
            outcome=outcome,
            status=status,
            reason=reason,
            landing_id=landing_id,
            sealed=user,
            received_at=received,
        )

    # -- act -----------------------------------------------------------------------------------------------------------

    async def feedback(self, service: str, actions: Sequence[ClinicianAction], caller: Caller) -> Sequence[int]:
        """Record what clinicians did, all or none; the entry's number for each action, in order.

        Idempotent: the same action again gives the number of the first. A card that this EHR was never shown is kept as
        unmatched, and answered like any other.
        """

        def act(tx: Tx) -> list[int]:
            return record_actions(tx, service, actions, caller)

        return await self._store.writer.write(act)


def snapshot(scorer: Scorer, known: Known, context: JSON) -> Snapshot:
    """Freeze what is known, with the request's own context."""
    return Snapshot(
        person=known.person,
        records=tuple(record.ref for record in known.records),
        as_of=known.at,
        clinical_time=known.at,
        model=scorer.model.id,
        facts=known.facts,
        context=context,
    )


class Recorded(CdsError):
    """An error whose Call already stands in the record; the door answers with the error inside."""

    def __init__(self, error: CdsError) -> None:
        super().__init__(error.what, where=error.where)
        self.error = error


def record_actions(tx: Tx, service: str, actions: Sequence[ClinicianAction], caller: Caller) -> list[int]:
    numbers: list[int | None] = []
    fresh: dict[bytes, None] = {}
    for action in actions:
        dedup = _action_digest(tx, action, caller)
        known = tx.read("SELECT entry FROM action WHERE dedup = ?", (dedup,))
        if known:
            numbers.append(known[0][0])
            continue
        numbers.append(None)
        if dedup in fresh:
            continue
        fresh[dedup] = None
        _add_action(tx, service, action, caller, dedup)
    if fresh:
        entry = tx.entry("act", actor(caller), {"service": service, "actions": len(fresh), "door": actions[0].door})
        return [entry.seq if number is None else number for number in numbers]
    return [number for number in numbers if number is not None]


def _add_action(tx: Tx, service: str, action: ClinicianAction, caller: Caller, dedup: bytes) -> None:
    cards = tx.read(
        "SELECT id, inference_id FROM card WHERE uuid = ? AND service = ? AND ehr = ?",
        (action.card, service, caller.namespace),
    )
    card_id, inference_id = (cards[0][0], cards[0][1]) if cards else (None, None)
    ref = new_ref()
    sealed = tx.vault.seal(object_ref(ACTION, ref), canonical(action.plain()), tx.fresh_keys)
    tx.add(
        "action",
        ref=ref,
        card_id=card_id,
        inference_id=inference_id,
        outcome=action.outcome.value,
        door=action.door,
        dedup=dedup,
        sealed=sealed.cipher,
        commitment=sealed.commitment,
        at=action.at,
    )
    if card_id is None:
        tx.add(
            "flag",
            kind="unmatched",
            reason="feedback",
            at=tx.now,
            detail="feedback on a card that was not shown to this EHR",
        )


def _action_digest(tx: Tx, action: ClinicianAction, caller: Caller) -> bytes:
    return tx.vault.index("action", caller.namespace, canonical(action.plain()))


def judged_bytes(judgement: Judgement) -> bytes:
    """What an Inference seals besides its snapshot: the feature vectors and the score."""
    return canonical({"vectors": [vector.plain() for vector in judgement.vectors], "score": judgement.score.plain()})


def actor(caller: Caller) -> str:
    return f"ehr:{caller.namespace}"


def now() -> str:
    return instant(datetime.now(UTC))
