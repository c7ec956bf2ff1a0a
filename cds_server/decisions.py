"""The verbs of a decision: `snapshot`, `infer`, `act`. What a hook call goes through, and what its record is.

    land            the request's own bytes, durable before anything is scored; what they state (`reception`)
    snapshot        the facts that this model version asks for, as known now, with the request's context
    judge, cards    pure: models and a service file, which never see the store
    infer           Call, Snapshot, Inference, Cards and their entry in ONE transaction; then, and only then, the answer
    act             what the clinician did, with its entry

An error is never an empty success. If the record cannot be written there is no card at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cds_server.digest import Read
from cds_server.hooks.cards import render
from cds_server.hooks.context import HookRequest
from cds_server.hooks.routes import Answer, Caller
from cds_server.hooks.service import CardGuide, ServiceSpec
from cds_server.ledger.entry import Entry
from cds_server.reception import Known, Landed, Reception, actor
from cds_server.registry import Registry, runtime_id
from cds_server.settings import Settings
from cds_server.store.entropy import new_ref, new_uuid
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.errors import BadInput, CdsError, WrongPatient
from models.nouns import JSON, ClinicianAction, Judgement, Snapshot, instant
from models.scoring import Scorer

CALL, SNAPSHOT, INFERENCE, CARD, ACTION = b"k", b"s", b"i", b"c", b"a"
"""Kinds of sealed payloads: the first letter of a key reference."""


class Decisions:
    """What stands behind the CDS Hooks doors; implements `hooks.routes.HookDesk` but for `admit`."""

    def __init__(self, store: Store, settings: Settings, registry: Registry) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry
        self._reception = Reception(store, settings)

    async def call(self, spec: ServiceSpec, request: HookRequest, caller: Caller) -> Answer:
        """One hook call, from a checked request to an answer whose record is durable."""
        received = now()
        if self._registry.stopped(spec.id):
            await self._record_call(spec.id, request, caller, received, "stopped", 200, None)
            return Answer(cards=())
        panel = self.panel(spec)
        reads = await self._read(spec, request, caller, received)
        landed = await self._reception.land(panel.wanted, request, reads, caller, received)
        context = spec.context(request.context)
        if landed.unread:
            context["unread"] = list(landed.unread)
        return await self.infer(spec, request, caller, received, landed, panel.judge(landed.known, context))

    def panel(self, spec: ServiceSpec) -> Panel:
        """The models that a service speaks by, as pinned now."""
        beside = tuple((self._registry.scorer(spec.id, model), codes) for model, codes in spec.beside.items())
        return Panel(self._registry.scorer(spec.id), beside)

    async def refuse(self, service: str, request: HookRequest | None, caller: Caller, error: CdsError) -> None:
        """Record a call that is answered with an error."""
        outcome = "failed" if error.status >= 500 else "refused"
        await self._record_call(service, request, caller, now(), outcome, error.status, str(error))

    def known(self, wanted: frozenset[str], record: RecordRow, at: str | None = None) -> Known:
        """What is, or was, known about the person behind a record (for commands)."""
        return self._reception.known(wanted, record, at or now())

    async def _read(self, spec: ServiceSpec, request: HookRequest, caller: Caller, received: str) -> tuple[Read, ...]:
        """What the prefetch states. A resource of another patient refuses the whole call, as a safety event."""
        try:
            return await self._reception.read(spec, request)
        except BadInput as error:
            outcome = "safety" if isinstance(error, WrongPatient) else "refused"
            what, status = error.what, error.status

            def record(tx: Tx, landing_id: int, landing: str) -> None:
                self._add_call(tx, spec.id, request, caller, received, outcome, status, what, landing_id)
                tx.entry(outcome, actor(caller), {"service": spec.id, "status": status, "landing": landing})

            await self._reception.refuse(request, caller, received, error, record=record)
            raise Recorded(error) from None

    # -- infer ---------------------------------------------------------------------------------------------------------

    async def infer(
        self,
        spec: ServiceSpec,
        request: HookRequest,
        caller: Caller,
        received: str,
        landed: Landed,
        judgements: Sequence[Judgement],
    ) -> Answer:
        """Render the cards, then write everything in one transaction, with an entry for each inference.

        The first judgement is the service's own: its inference owns the cards.
        """
        refs = [new_uuid() for _ in judgements]
        guide = CardGuide(
            inference=refs[0],
            data_as_of=landed.known.at,
            public_url=self._settings.public_url,
            new_uuid=new_uuid,
            beside=tuple(zip(refs[1:], judgements[1:], strict=True)),
        )
        cards = [render(card) for card in spec.cards(judgements[0], guide)]
        outcome = "abstained" if judgements[0].score.abstained is not None else "answered"

        def act(tx: Tx) -> list[Entry]:
            call_id = self._add_call(tx, spec.id, request, caller, received, outcome, 200, None, landed.landing_id)
            entries = []
            for ref, judgement in zip(refs, judgements, strict=True):
                shown = cards if ref == refs[0] else []
                commitments = self._add_inference(tx, spec.id, caller, landed.record.id, call_id, ref, judgement, shown)
                entry = tx.entry(
                    "infer",
                    actor(caller),
                    {
                        "service": spec.id,
                        "inference": ref,
                        "model": judgement.model.id,
                        "model_digest": judgement.model.manifest_digest,
                        "abstained": judgement.score.abstained is not None,
                        **commitments,
                    },
                )
                entries.append(entry)
            return entries

        entries = await self._store.writer.write(act)
        items = tuple(
            {"service": spec.id, "id": ref, "seq": entry.seq, "leaf": entry.leaf.hex()}
            for ref, entry in zip(refs, entries, strict=True)
        )
        return Answer(cards=cards, inferences=items)

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


@dataclass(frozen=True, slots=True)
class Panel:
    """The models that a service speaks by: its own, and those that are judged where the record answers their codes."""

    own: Scorer
    beside: tuple[tuple[Scorer, frozenset[str]], ...]

    @property
    def wanted(self) -> frozenset[str]:
        return self.own.facts_wanted().union(*(scorer.facts_wanted() for scorer, _ in self.beside))

    def judge(self, known: Known, context: JSON) -> tuple[Judgement, ...]:
        """The own judgement, then those of the others that have something to say."""
        answered = {fact.code.token for fact in known.facts} if self.beside else set()
        scorers = (self.own, *(scorer for scorer, codes in self.beside if not codes.isdisjoint(answered)))
        return tuple(scorer.judge(snapshot(scorer, known, context)) for scorer in scorers)


def snapshot(scorer: Scorer, known: Known, context: JSON) -> Snapshot:
    """Freeze what is known of what a model asks for, with the request's own context."""
    wanted = scorer.facts_wanted()
    return Snapshot(
        person=known.person,
        records=tuple(record.ref for record in known.records),
        as_of=known.at,
        clinical_time=known.at,
        model=scorer.model.id,
        facts=tuple(fact for fact in known.facts if fact.code.token in wanted),
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


def now() -> str:
    return instant(datetime.now(UTC))
