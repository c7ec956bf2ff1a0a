"""The case page's port over the record: implements `smart_app.cases.CaseDesk`.

Each door begins by `_look`: who may, what is allowed now, and the access entry. What follows runs in a thread, so that
a patient with thousands of facts keeps no hook call waiting.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cds_server import what_if
from cds_server.access.allowed import check
from cds_server.access.log import TREAT, Access, Look, Seen, actor_of
from cds_server.access.roles import Act, check_may
from cds_server.checkpoints import Checkpoints
from cds_server.decisions import Decisions, now
from cds_server.desk import acts, events, findings, imaging, shown, titles
from cds_server.desk.changes import score_changes, since
from cds_server.desk.judged import Judged, Then
from cds_server.desk.sources import Sources
from cds_server.desk.whose import Whose
from cds_server.imaging.pictures import png
from cds_server.proving import prove
from cds_server.registry import Registry
from cds_server.reproduce import cards_of, held_of, load_id
from cds_server.settings import Settings
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from models.errors import CdsError, NotFound
from models.nouns import ClinicianAction, Fact
from smart_app.banners import Banner
from smart_app.cases import (
    Acted,
    Answer,
    Asked,
    CaseView,
    Change,
    Done,
    Finding,
    Line,
    ModelLine,
    Picture,
    Receipt,
    ShownCard,
)
from smart_app.desk import Case
from smart_app.overrides import Given
from smart_app.texts import t
from smart_app.timeline import Timeline, Wanted

LATEST = 8
"""Facts on the case page; the timeline has them all."""
LINES = 12
ASKED = 5
"""What-ifs that stand beside what they were asked about."""
CARD_FILE = "MODEL_CARD.md"


class Desk:
    def __init__(
        self,
        store: Store,
        settings: Settings,
        registry: Registry,
        decisions: Decisions,
        access: Access,
        checkpoints: Checkpoints,
        acted: Callable[[str, ClinicianAction], None] = lambda service, action: None,
    ) -> None:
        """`acted` counts an action the first time that it is said (`ops.Metrics.acted`)."""
        self._store = store
        self._settings = settings
        self._registry = registry
        self._decisions = decisions
        self._access = access
        self._checkpoints = checkpoints
        self._acted = acted
        self._judged = Judged(registry)
        self._whose = Whose(store, settings)
        self._services = {spec.id: spec for spec in registry.specs}

    # -- the page ------------------------------------------------------------------------------------------------------

    async def view(self, case: Case, inference: str | None) -> CaseView:
        seen, record = await self._look(case, Act.CASE)
        await self._decisions.catch_up(record)
        return await asyncio.to_thread(self._view, case, seen, record, inference or case.inference)

    def _view(self, case: Case, seen: Seen, record: RecordRow, inference: str | None) -> CaseView:
        store, ids = self._store, [each.id for each in seen.records]
        rows = shown.rows_of(store, ids)
        chosen = (
            shown.row_of(store, inference, ids) if inference else next((r for r in rows if not r.hypothetical), None)
        )
        sources = Sources(store)
        facts, withheld = self._facts(case, seen)
        kept, hidden = imaging.pictures_of(store, seen.records, self._withholds(case, seen))
        ordered = events.newest_first(fact for fact in facts if fact.kind != "demographic")
        return CaseView(
            banner=self._whose.banner_of(record),
            answer=self._answer(case, chosen, rows, ids, sources, record.namespace, facts) if chosen else None,
            lines=tuple(self._lines(rows)),
            latest=tuple(events.event_of(fact, sources, record.namespace) for fact in ordered[:LATEST]),
            counts=events.counts_of(ordered) or None,
            pictures=tuple(Picture(each.media, each.title, each.note, each.digest) for each in kept),
            viewer_url=imaging.viewer_url(store, self._settings, record, kept),
            withheld=withheld + hidden,
            glass=seen.glass,
        )

    def _answer(
        self,
        case: Case,
        row: shown.Row,
        rows: Sequence[shown.Row],
        ids: Sequence[int],
        sources: Sources,
        namespace: str,
        facts: Sequence[Fact],
    ) -> Answer:
        store, own = self._store, shown.of_call(self._store, row)[0]
        cards = cards_of(store, own.id)
        card = cards[0]["card"] if cards else None
        origin = functools.partial(sources.of, namespace=namespace)
        told = [
            self._finding(case, each, ids, rows, origin, card["summary"] if card and each.id == own.id else None)
            for each in shown.of_call(store, row)
        ]
        spec = self._services.get(own.service.removeprefix(what_if.WHAT_IF))
        title = spec.title if spec is not None else own.service
        return Answer(
            service=own.service,
            title=t("case.what_if_of", title=title) if own.hypothetical else title,
            at=own.at,
            findings=tuple(told),
            card=_card(card) if card else None,
            held=next((str(each["rule"]) for each in held_of(store, own.id)), None),
            done=acts.done_with(store, card["uuid"], ids, case.viewer) if card else (),
            base=self._then(own).judgement.snapshot.context.get(what_if.OF) if own.hypothetical else None,
            newer=0 if own.hypothetical else self._newer(own, facts),
            recalled=any(shown.recalled(store, each) for each in shown.of_call(store, row)),
        )

    def _newer(self, row: shown.Row, facts: Sequence[Fact]) -> int:
        """How many facts that its model asks for came after it was scored."""
        recorded = load_id(self._store, row.id)
        name, _, version = recorded.model.partition("@")
        try:
            wanted = self._registry.scorer_then(name, version, recorded.model_digest).facts_wanted()
        except CdsError:  # the model of then is gone, and the page says so
            return 0
        had, at = {fact.id for fact in recorded.snapshot.facts}, recorded.snapshot.as_of
        return sum(fact.known_from > at and fact.code.token in wanted and fact.id not in had for fact in facts)

    def _finding(
        self,
        case: Case,
        row: shown.Row,
        ids: Sequence[int],
        rows: Sequence[shown.Row],
        origin: findings.OriginOf,
        said: str | None,
    ) -> Finding:
        then = self._then(row)
        seen = {fact.id for fact in self._sees(case, then.judgement.snapshot.facts)}
        earlier = None if row.hypothetical else shown.before(self._store, row, ids)
        return findings.finding(
            then,
            self._judged.explained(then),
            origin,
            self._receipt(then.recorded.seq),
            since=since(self._then(earlier), then, lambda facts: self._sees(case, facts)) if earlier else None,
            asked=self._asked(case, row, then, rows),
            said=said,
            hidden=frozenset(fact.id for fact in then.judgement.snapshot.facts if fact.id not in seen),
        )

    def _asked(self, case: Case, row: shown.Row, base: Then, rows: Sequence[shown.Row]) -> list[Asked]:
        """The last what-ifs about this inference."""
        found: list[Asked] = []
        for each in rows:
            if not each.hypothetical or each.name != row.name or len(found) == ASKED:
                continue
            then = self._then(each)
            if then.judgement.snapshot.context.get(what_if.OF) != row.ref:
                continue
            user = then.recorded.call["user"]
            was = {f.name: f.label for vector in base.judgement.vectors for f in vector.features}
            named = titles.INPUTS.get(row.name, {})
            course = findings.curves(then.judgement)
            found.append(
                Asked(
                    inference=each.ref,
                    seq=then.recorded.seq,
                    at=each.at,
                    by=case.viewer.name if user == case.viewer.subject else user,
                    inputs=tuple(
                        Change(named.get(name) or t("case.tumour"), was.get(name, ""), label)
                        for name, label in findings.asked_inputs(then.judgement).items()
                    ),
                    score=tuple(score_changes(base.judgement, then.judgement, inputs=False)),
                    curve=course[-1] if course else None,
                    abstained=then.judgement.score.abstained,
                )
            )
        return found

    def _lines(self, rows: Sequence[shown.Row]) -> list[Line]:
        found: list[Line] = []
        newest: set[tuple[str, str]] = set()
        for row in rows:
            if row.hypothetical or len(found) == LINES:
                continue
            said = self._sentence(row)
            found.append(
                Line(
                    row.ref, self._title(row), said, row.at, bool(row.abstained), (row.service, row.name) not in newest
                )
            )
            newest.add((row.service, row.name))
        return found

    def _sentence(self, row: shown.Row) -> str:
        try:
            return findings.sentence_of(self._then(row).judgement)
        except CdsError:  # erased since
            return t("case.erased")

    def _title(self, row: shown.Row) -> str:
        spec = self._services.get(row.service)
        return spec.title if spec is not None and spec.model == row.name else row.name

    # -- the other doors -----------------------------------------------------------------------------------------------

    async def timeline(self, case: Case, wanted: Wanted) -> tuple[Banner, Timeline]:
        seen, record = await self._look(case, Act.TIMELINE)
        await self._decisions.catch_up(record)

        def read() -> tuple[Banner, Timeline]:
            facts, withheld = self._facts(case, seen)
            found = events.timeline_of(facts, wanted, Sources(self._store), record.namespace, withheld)
            return self._whose.banner_of(record), found

        return await asyncio.to_thread(read)

    async def done(self, case: Case, card: str) -> tuple[Done, ...]:
        check_may(case.viewer, Act.CASE)
        allowed, record = self._access.allowed, self._record(case)
        person = allowed.of_person(record)
        check(allowed.refusal(case.viewer, record, person, TREAT))
        records = allowed.visible(case.viewer, person)
        return acts.done_with(self._store, card, [each.id for each in records], case.viewer)

    async def act(self, case: Case, given: Given) -> Acted:
        seen, _ = await self._look(case, Act.ACT)
        ids = [each.id for each in seen.records]
        acted, service, action = await acts.record(self._store, given, now(), ids, case.viewer)
        if acted.fresh:
            self._acted(service, action)
        return acted

    async def what_if(self, case: Case, inference: str, inputs: Mapping[str, str]) -> str:
        seen, record = await self._look(case, Act.WHAT_IF)
        row = shown.row_of(self._store, inference, [each.id for each in seen.records])
        allowed = titles.SWITCHES.get(row.name, ())

        def judge() -> tuple[Any, Any]:
            base = load_id(self._store, row.id)
            return base, what_if.judge(self._registry, base, inputs, allowed)

        base, judgement = await asyncio.to_thread(judge)
        viewer = case.viewer
        return await what_if.ask(
            self._store,
            self._decisions,
            base,
            judgement,
            subject=viewer.subject,
            ehr=viewer.ehr or record.namespace,
            actor=actor_of(viewer),
        )

    async def model_card(self, case: Case, inference: str) -> tuple[Banner, ModelLine, str]:
        seen, record = await self._look(case, Act.INFERENCE, page="model-card")
        then = self._then(shown.row_of(self._store, inference, [each.id for each in seen.records]))
        if then.directory is None:
            raise NotFound("the model version of then is not there any more")
        try:
            text = (then.directory / CARD_FILE).read_text("utf-8")
        except OSError:
            raise NotFound("this model version has no card") from None
        return self._whose.banner_of(record), findings.model_line(then), text

    async def proof(self, case: Case, inference: str) -> bytes:
        seen, _ = await self._look(case, Act.PROOF)
        row = shown.row_of(self._store, inference, [each.id for each in seen.records])
        return await asyncio.to_thread(prove, self._store, self._checkpoints, row.id >> 20)

    async def picture(self, case: Case, media: str) -> bytes:
        seen, _ = await self._look(case, Act.PICTURE)

        def read() -> bytes:
            kept, _ = imaging.pictures_of(self._store, seen.records, self._withholds(case, seen))
            found = next((each for each in kept if each.media == media), None)
            if found is None:
                raise NotFound("there is no such picture of this patient")
            return png(self._store, found)

        return await asyncio.to_thread(read)

    async def break_glass(self, case: Case, reason: str) -> None:
        await self._access.break_glass(case.viewer, case.record, reason)

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _look(self, case: Case, act: Act, **detail: str) -> tuple[Seen, RecordRow]:
        """The one place where a case's page asks whether it may be shown, and says on record that it is."""
        seen = await self._access.look(Look(case.viewer, act, case.record, detail=detail))
        return seen, self._record(case)

    def _record(self, case: Case) -> RecordRow:
        return self._whose.record(case.record)

    def _then(self, row: shown.Row) -> Then:
        return self._judged.of(load_id(self._store, row.id))

    def _facts(self, case: Case, seen: Seen) -> tuple[list[Fact], int]:
        """All that is known of the person and may be shown, and how many facts a label withholds."""
        found = self._store.reads.all_facts([each.id for each in seen.records])
        return self._access.sees(case.viewer, found)

    def _sees(self, case: Case, facts: Sequence[Fact]) -> Sequence[Fact]:
        return self._access.sees(case.viewer, facts)[0]

    def _withholds(self, case: Case, seen: Seen) -> frozenset[str]:
        return frozenset() if seen.glass else self._access.allowed.withheld_labels(case.viewer)

    def _receipt(self, seq: int) -> Receipt:
        entry, signed = self._store.reads.entry(seq), self._checkpoints.last()
        if entry is None:
            raise NotFound("there is no such ledger entry")
        covered = signed is not None and signed.checkpoint.size >= seq
        return Receipt(
            seq=seq,
            leaf=entry.leaf.hex(),
            at=str(json.loads(entry.body)["at"]),
            signed=signed.checkpoint.size if covered and signed is not None else None,
            origin=signed.checkpoint.origin if covered and signed is not None else "",
        )


def _card(card: Mapping[str, Any]) -> ShownCard:
    source = card.get("source", {})
    return ShownCard(card["uuid"], card["summary"], card["indicator"], source.get("label", ""), source.get("url"))
