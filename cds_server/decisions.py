"""The verbs of a decision: `snapshot`, `infer`, `act`. What a hook call goes through, and what its record is.

    read            what the request brings, and from the EHR's FHIR server what it lacks, within a share of time
    land            the request's own bytes and what was read for it, durable before anything is scored (`reception`)
    snapshot        the facts that this model version asks for, as known now, with the request's context
    judge, cards    pure: models and a service file, which never see the store
    infer           Call, Snapshot, Inference, Cards and their entry in ONE transaction; then, and only then, the answer
    act             what the clinician did, with its entry

An error is never an empty success. If the record cannot be written there is no card at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn

from adapters.fhir_read import Door
from cds_server.actions import Kept, digests_of, record_actions
from cds_server.brought import Bringing, Brought, Refused
from cds_server.deadline import ANSWERED, Clock
from cds_server.hooks.cards import render, render_action
from cds_server.hooks.context import HookRequest
from cds_server.hooks.routes import Answer, Caller
from cds_server.hooks.service import CardGuide, ServiceSpec
from cds_server.hygiene import Occasion, hygiene_of
from cds_server.ledger.entry import Entry
from cds_server.logs import log
from cds_server.origins import Origins
from cds_server.panel import Bench, Panel, told
from cds_server.reading import readers_by_media_type
from cds_server.reception import Known, Landed, Reception, actor
from cds_server.registry import Registry
from cds_server.runtimes import runtime_id
from cds_server.settings import Settings
from cds_server.shown import CARD, Shown, add_shown
from cds_server.store.entropy import new_ref, new_uuid
from cds_server.store.reads import RecordRow
from cds_server.store.ready import Names
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from cds_server.trust.replay import spend
from models.errors import CdsError, Late, WrongPatient
from models.nouns import ClinicianAction, Judgement, instant_now

CALL, SNAPSHOT, INFERENCE = b"k", b"s", b"i"
"""Kinds of sealed payloads: the first letter of a key reference."""


WARNS = ("warning", "critical")
_WARNED = "{} would warn of this patient, and nobody was shown a card"


class Decisions:
    """What stands behind the CDS Hooks doors; implements `hooks.routes.HookDesk` but for `admit`."""

    def __init__(self, store: Store, settings: Settings, registry: Registry, door: Door | None = None) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry
        self._bringing = Bringing(settings, door)
        self._reception = Reception(store, settings)
        self._origins = Origins(store)
        self._bench = Bench()
        self._panels: dict[tuple[str, str], tuple[object, Panel]] = {}
        """(service, hook) -> what was pinned and stopped then, and the panel of it."""
        self._later: set[asyncio.Task[None]] = set()
        self._hygiene = hygiene_of(settings.hygiene, registry.specs, settings.origin)

    async def call(self, spec: ServiceSpec, request: HookRequest, caller: Caller, clock: Clock | None = None) -> Answer:
        """One hook call, from a checked request to an answer whose record is durable, or Late at the deadline."""
        clock = clock or Clock.start(self._settings.deadline_ms / 1000)
        try:
            async with asyncio.timeout(clock.left(ANSWERED)):
                return await self._answer(spec, request, caller, clock)
        except TimeoutError:
            raise Late("the answer was not ready within the deadline") from None

    async def _answer(self, spec: ServiceSpec, request: HookRequest, caller: Caller, clock: Clock) -> Answer:
        received = now()
        if self._registry.stopped(spec.id):
            return await self._silent(spec, request, caller, received)
        panel = self.panel(spec)
        brought = await self._read(spec, request, caller, received, clock)
        landed = await self._reception.land(panel.wanted, request, brought, caller, received)
        if brought.short is not None:
            await self._refused(spec, request, caller, received, landed, brought.short)
        context = spec.context(request.context)
        if landed.unread:
            context["unread"] = list(landed.unread)
        if brought.lacking:
            context["lacking"] = list(brought.lacking)
        judgements, late = await self._bench.judge(panel, landed.known, context, clock)
        if self._registry.stopped(spec.id):  # meanwhile: nothing leaves after a stop
            return await self._silent(spec, request, caller, received, landed.landing_id)
        partial = told(panel.off, late)
        instead = brought.instead or (Late("a model did not answer in time") if late else None)
        return await self.infer(spec, request, caller, received, landed, judgements, partial, instead)

    async def _refused(
        self, spec: ServiceSpec, request: HookRequest, caller: Caller, received: str, landed: Landed, error: CdsError
    ) -> NoReturn:
        """Answer with an error although the request is landed, on record."""
        outcome, landing = "failed" if error.status >= 500 else "refused", landed.landing_id
        await self._record_call(spec.id, request, caller, received, outcome, error.status, str(error), landing)
        raise Recorded(error)

    async def _silent(
        self, spec: ServiceSpec, request: HookRequest, caller: Caller, received: str, landing_id: int | None = None
    ) -> Answer:
        """The answer of a service that was stopped, on record."""
        await self._record_call(spec.id, request, caller, received, "stopped", 200, None, landing_id)
        return Answer(cards=())

    def warm(self) -> None:
        """Load every reader, and every model and let it judge nobody: the first call has no more time than others."""
        readers_by_media_type()
        nobody = Known(person="0", records=(), facts=(), at=now())
        for service, model in self._registry.needed():
            try:
                self._bench.warm(self._registry.scorer(service, model), nobody)
            except CdsError as error:  # a call of this service will say so, and readiness does
                log().error("a model cannot be used", service=service, what=error.what)

    def panel(self, spec: ServiceSpec) -> Panel:
        """The models that a service speaks by, as pinned now; without those beside its own that were stopped."""
        read = self._registry.pins()  # another object whenever the record was asked again
        kept = self._panels.get((spec.id, spec.hook))
        if kept is not None and kept[0] is read:
            return kept[1]
        off = tuple(model for model in spec.beside if self._registry.model_stopped(spec.id, model))
        beside = tuple(
            (self._registry.scorer(spec.id, model), codes) for model, codes in spec.beside.items() if model not in off
        )
        panel = Panel(self._registry.scorer(spec.id, spec.model), beside, off)
        self._panels[spec.id, spec.hook] = (read, panel)
        return panel

    async def refuse(self, service: str, request: HookRequest | None, caller: Caller, error: CdsError) -> None:
        """Record a call that is answered with an error."""
        outcome = "failed" if error.status >= 500 else "refused"
        await self._record_call(service, request, caller, now(), outcome, error.status, str(error))

    async def catch_up(self, record: RecordRow) -> None:
        """Digest what calls about a person brought and no reader has seen yet: a page shows what is known now."""
        await self._reception.catch_up(record)

    def known(self, wanted: frozenset[str], record: RecordRow, at: str | None = None) -> Known:
        """What is, or was, known about the person behind a record (for commands)."""
        return self._reception.known(wanted, record, at or now())

    async def _read(
        self, spec: ServiceSpec, request: HookRequest, caller: Caller, received: str, clock: Clock
    ) -> Brought:
        """What the call brings. A resource of another patient refuses the whole call, as a safety event."""
        try:
            return await self._bringing.read(spec, request, caller, clock)
        except Refused as refused:
            error = refused.error
            outcome = "safety" if isinstance(error, WrongPatient) else "refused"
            what, status = error.what, error.status

            def record(tx: Tx, landing_id: int, landing: str) -> None:
                self._add_call(tx, spec.id, request, caller, received, outcome, status, what, landing_id)
                tx.entry(outcome, actor(caller), {"service": spec.id, "status": status, "landing": landing})

            await self._reception.refuse(request, caller, received, refused, record=record)
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
        partial: tuple[str, ...] = (),
        instead: CdsError | None = None,
    ) -> Answer:
        """Render the cards, then write everything in one transaction, with an entry for each inference.

        The first judgement is the service's own: its inference owns the cards. `instead`: the error that is answered
        where there are none, because something lacked that might have given one.
        """
        names = Names(self._store.vault.ready)
        refs = [names.uuid(INFERENCE) for _ in judgements]
        guide = CardGuide(
            inference=refs[0],
            data_as_of=landed.known.at,
            public_url=self._settings.public_url,
            new_uuid=lambda: names.uuid(CARD),
            smart_app=self._settings.ehr(caller.namespace).app is not None,
            beside=tuple(zip(refs[1:], judgements[1:], strict=True)),
            sources=self._origins.of((fact for each in judgements for fact in each.snapshot.facts), landed),
            partial=partial,
        )
        cards = [render(card) for card in spec.cards(judgements[0], guide)]
        actions = spec.system_actions(judgements[0], guide) if spec.system_actions else ()
        if instead is not None and not cards and not actions:
            await self._refused(spec, request, caller, received, landed, instead)
        drawn = Shown(cards, [render_action(action) for action in actions])
        occasion = occasion_of(spec, request, caller, landed, judgements[0]) if self._hygiene else None

        begun = False

        def act(tx: Tx) -> tuple[list[Entry], Shown]:
            nonlocal begun
            begun = True
            shown = drawn.weighed_by(self._hygiene.weigh(tx, occasion, cards)) if occasion else drawn
            outcome = shown.outcome(judgements[0])
            call_id = self._add_call(
                tx, spec.id, request, caller, received, outcome, 200, None, landed.landing_id, names
            )
            entries = []
            for ref, judgement in zip(refs, judgements, strict=True):
                inference_id, commitments = self.add_inference(
                    tx, spec.id, caller, landed.record.id, call_id, ref, judgement, names
                )
                if ref == refs[0]:
                    commitments |= add_shown(tx, spec.id, caller.namespace, inference_id, shown, names)
                    if occasion:
                        commitments |= self._hygiene.remember(tx, occasion, inference_id, shown.weighed)
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
            return entries, shown

        try:
            entries, shown = await self._store.writer.write(act)
        except asyncio.CancelledError:
            if begun:
                self.later(self._undelivered(spec.id, caller, refs))
            raise
        names.done()
        items = tuple(
            {"service": spec.id, "id": ref, "seq": entry.seq, "leaf": entry.leaf.hex()}
            for ref, entry in zip(refs, entries, strict=True)
        )
        return Answer(
            cards=shown.cards,
            inferences=items,
            system_actions=shown.system_actions,
            suppressed=shown.suppressed,
            degraded=bool(landed.unread or partial or (landed.brought and landed.brought.lacking)),
        )

    def score_unasked(self, spec: ServiceSpec, record: RecordRow) -> str | None:
        """Judge a patient because facts came that the service subscribes to: on record, shown to nobody. Gives the
        inference's id; None where the service has nothing to say."""
        panel = self.panel(spec)
        known = self.known(panel.wanted, record)
        judgement, *_ = panel.judge(known, {})
        names = Names(self._store.vault.ready)
        ref = names.uuid(INFERENCE)
        guide = CardGuide(inference=ref, data_as_of=known.at, public_url=self._settings.public_url, new_uuid=new_uuid)
        cards = [render(card) for card in spec.cards(judgement, guide)]
        if not cards:
            return None
        warns = any(card["indicator"] in WARNS for card in cards)
        outcome = "abstained" if judgement.score.abstained is not None else "unasked"

        def act(tx: Tx) -> None:
            call_id = tx.add(
                "call",
                ref=new_ref(),
                service=spec.id,
                ehr=record.namespace,
                outcome=outcome,
                status=200,
                reason="new facts",
                received_at=known.at,
            )
            caller = Caller(record.namespace)
            inference_id, commitments = self.add_inference(
                tx, spec.id, caller, record.id, call_id, ref, judgement, names
            )
            if warns and not tx.read(
                "SELECT 1 FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
                "WHERE f.reason = 'warned' AND f.record_id = ? AND f.detail = ? AND c.id IS NULL",
                (record.id, _WARNED.format(spec.id)),
            ):
                tx.add(
                    "flag",
                    kind="flag",
                    reason="warned",
                    record_id=record.id,
                    inference_id=inference_id,
                    detail=_WARNED.format(spec.id),
                    at=tx.now,
                )
            tx.entry(
                "infer",
                "system",
                {
                    "service": spec.id,
                    "inference": ref,
                    "model": judgement.model.id,
                    "model_digest": judgement.model.manifest_digest,
                    "abstained": judgement.score.abstained is not None,
                    **commitments,
                },
            )

        self._store.writer.submit(act).result()
        return ref

    async def _undelivered(self, service: str, caller: Caller, refs: Sequence[str]) -> None:
        """An entry that takes back what the deadline overtook: recorded as answered, and never sent."""

        def act(tx: Tx) -> None:
            if self._hygiene:
                self._hygiene.take_back(tx, refs)
            tx.entry("undelivered", actor(caller), {"service": service, "inferences": list(refs)})

        await self._store.writer.write(act)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something for the record that an answer must not wait for; `settle` waits for it."""

        async def kept() -> None:
            try:
                await work
            except CdsError as error:
                log().error("record not completed", what=error.what)

        task = asyncio.get_running_loop().create_task(kept())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def settle(self) -> None:
        """Wait for what was put off; the end of the server."""
        await asyncio.gather(*self._later)
        self._bench.close()

    def add_inference(
        self,
        tx: Tx,
        service: str,
        caller: Caller,
        record_id: int,
        call_id: int,
        inference: str,
        judgement: Judgement,
        names: Names,
    ) -> tuple[int, dict[str, Any]]:
        """Inside an act: a judgement as rows; gives the inference's and what its entry says of it."""
        snapshot_ref = names.ref(SNAPSHOT)
        sealed = tx.vault.seal(object_ref(SNAPSHOT, snapshot_ref), judgement.snapshot.bytes, tx.fresh_keys, names)
        snapshot_id = tx.add(
            "snapshot",
            ref=snapshot_ref,
            model=judgement.model.id,
            as_of=judgement.snapshot.as_of,
            sealed=sealed.cipher,
            commitment=sealed.commitment,
        )
        judged = tx.vault.seal(object_ref(INFERENCE, inference), judged_bytes(judgement), tx.fresh_keys, names)
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
        return inference_id, {"snapshot": sealed.commitment.hex(), "judged": judged.commitment.hex(), "cards": {}}

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
        landing_id: int | None = None,
    ) -> None:
        def act(tx: Tx) -> None:
            spend(tx, caller.token)
            self._add_call(tx, service, request, caller, received, outcome, status, reason, landing_id)
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
        names: Names | None = None,
    ) -> int:
        names = names or Names(tx.vault.ready)
        ref, user = names.ref(CALL), None
        if request is not None and request.user_id is not None:
            user = tx.vault.seal(object_ref(CALL, ref), request.user_id.encode(), tx.fresh_keys, names).cipher
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

    async def feedback(self, service: str, actions: Sequence[ClinicianAction], caller: Caller) -> list[Kept]:
        """Record what clinicians did, all or none; what became of each, in order (`actions.record`)."""
        digests = digests_of(self._store.vault, service, caller.namespace, actions)

        def act(tx: Tx) -> list[Kept]:
            spend(tx, caller.token)
            return record_actions(tx, service, caller.namespace, actor(caller), actions, digests)

        return await self._store.writer.write(act)


class Recorded(CdsError):
    """An error whose Call already stands in the record; the door answers with the error inside."""

    def __init__(self, error: CdsError) -> None:
        super().__init__(error.what, where=error.where)
        self.error = error


def occasion_of(
    spec: ServiceSpec, request: HookRequest, caller: Caller, landed: Landed, judgement: Judgement
) -> Occasion:
    others = (each.id for each in landed.known.records if each.id != landed.record.id)
    return Occasion(spec, judgement, caller.namespace, request.user_id, (landed.record.id, *others))


def judged_bytes(judgement: Judgement) -> bytes:
    """What an Inference seals besides its snapshot: the feature vectors and the score."""
    return judgement.bytes


def now() -> str:
    return instant_now()
