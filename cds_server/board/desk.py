"""Implements the port of the tumor board, `smart_app.boards.Boards`, over the store, the access rules and the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import time
from typing import TypeVar

from starlette.requests import Request

from adapters.fhir_out.assessment import Resource
from cds_server.access.log import Access, Look, Seen
from cds_server.access.roles import Act, check_may, may
from cds_server.board import agreed, meetings
from cds_server.board.drafts import Minuted, bundle
from cds_server.board.known import Known
from cds_server.board.meetings import CaseRow, MeetingRow
from cds_server.board.seats import Seats
from cds_server.board.written import checked, day, titled, words
from cds_server.checkpoints import Checkpoints
from cds_server.desk.whose import Whose
from cds_server.ehrs import RESTRICTED
from cds_server.guidance import Guidance
from cds_server.registry import Registry
from cds_server.settings import Settings
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.canonical import canonical
from models.errors import Conflict, KeysUnavailable, NotFound
from smart_app.board_sorting import sorted_facts
from smart_app.board_summary import Summary, open_questions
from smart_app.boards import (
    Draft,
    Found,
    Listed,
    Meeting,
    MeetingLine,
    OpenCase,
    Seat,
    Signature,
    Stage,
)
from smart_app.desk import Case, Role, Viewer
from smart_app.minutes_pdf import Minutes, pdf
from smart_app.staffed import Staffed

T = TypeVar("T")


class Board:
    def __init__(
        self,
        store: Store,
        settings: Settings,
        registry: Registry,
        access: Access,
        checkpoints: Checkpoints,
        staffed: Staffed,
        clock: Callable[[], float] = time,
    ) -> None:
        self._store = store
        self._access = access
        self._seats = Seats(store, staffed, clock)
        self._whose = Whose(store, settings)
        self._known = Known(store, registry)
        self._guidance = Guidance(store, registry, settings, checkpoints)

    async def seat(self, request: Request) -> Seat:
        seat = await self._seats.seat(request)
        await self._check(seat.viewer, Act.BOARD_WORKLIST)
        return seat

    # -- meetings ------------------------------------------------------------------------------------------------------

    async def meetings(self, seat: Seat) -> tuple[MeetingLine, ...]:
        return self._lines()

    async def upcoming(self, viewer: Viewer) -> tuple[MeetingLine, ...]:
        await self._check(viewer, Act.BOARD_CASE)
        return tuple(sorted((line for line in self._lines() if not line.closed), key=lambda line: line.held_on))

    async def call(self, seat: Seat, title: str, held_on: str, place: str) -> str:
        await self._check(seat.viewer, Act.BOARD_LEAD)
        told = titled(title), day(held_on), words(place)[:200]
        return await self._write(lambda tx: meetings.call(tx, seat.viewer, *told))

    async def close(self, seat: Seat, ref: str, *, closed: bool) -> None:
        await self._check(seat.viewer, Act.BOARD_LEAD)
        row = meetings.meeting(self._store.reads, ref)
        await self._write(lambda tx: meetings.close(tx, seat.viewer, row, closed=closed))

    async def meeting(self, seat: Seat, ref: str) -> Meeting:
        row = meetings.meeting(self._store.reads, ref)
        cases = meetings.cases(self._store.reads, row.id)
        seen = await self._look_at_all(seat.viewer, Act.BOARD_WORKLIST, cases)
        states = agreed.states(self._store.reads, row.id)
        listed = tuple(
            self._listed(seat.viewer, number, case, seen, states.get(case.id, agreed.State(0, 0)))
            for number, case in enumerate(cases, 1)
        )
        signed = sum(each.stage is Stage.SIGNED for each in listed)
        return Meeting(_line(row, len(listed), signed), listed)

    def _lines(self) -> tuple[MeetingLine, ...]:
        counts = meetings.counts(self._store.reads)
        return tuple(_line(row, *counts.get(row.id, (0, 0))) for row in meetings.meetings(self._store.reads))

    def _listed(self, viewer: Viewer, number: int, case: CaseRow, seen: Seen, state: agreed.State) -> Listed:
        stage = Stage.SIGNED if state.signatures else Stage.DRAFTED if state.version else Stage.WAITING
        row = self._whose.record(case.record)
        told = partial(Listed, case.ref, number, stage=stage, version=state.version, signatures=state.signatures)
        if case.record in seen.refused:
            refusal = self._access.allowed.refusal(viewer, row, self._access.allowed.of_person(row), "TREAT")
            why = refusal.why if refusal else ""
            return told(None, why, "", "", "", 0, False, "", "")
        records = self._records(viewer, row)
        facts, _ = self._access.sees(viewer, self._known.few(records))
        sections, _ = sorted_facts(facts)
        scores = self._known.scores(records)
        stated = [line for line in sections["stage"].lines if line.label.startswith(("Stage", "pT", "pN", "cT", "cN"))]
        return told(
            self._whose.banner_of(row),
            None,
            "; ".join(line.value for line in sections["diagnosis"].lines[:2]),
            ", ".join(list(dict.fromkeys(line.value for line in stated))[:4]),
            scores[0].said if scores else "",
            sum(voice.z is None for voice in scores[0].voices) if scores and scores[0].abstained is None else 0,
            any(score.apart for score in scores),
            case.question,
            case.asked_by,
        )

    # -- the worklist --------------------------------------------------------------------------------------------------

    async def find(self, seat: Seat, ref: str, identifier: str) -> Found:
        row = meetings.meeting(self._store.reads, ref)
        if row.closed:
            raise Conflict("the meeting is closed: nothing about its cases changes any more")
        record = self._named(identifier.strip())
        await self._look(seat.viewer, Act.BOARD_CASE, record.ref, what="find")
        on = {case.record_id for case in meetings.cases(self._store.reads, row.id)}
        twice = not on.isdisjoint(self._store.reads.person(record.id))
        return Found(record.ref, self._whose.banner_of(record), twice)

    async def add(self, viewer: Viewer, ref: str, record: str, question: str) -> None:
        row = meetings.meeting(self._store.reads, ref)
        seen = await self._look(viewer, Act.BOARD_CASE, record, what="add")
        told, of = words(question), self._whose.record(record)
        person = [each.id for each in seen.records]
        await self._write(lambda tx: meetings.add_case(tx, viewer, row, of.id, person, told))

    async def reorder(self, seat: Seat, ref: str, case: str, by: int) -> None:
        await self._check(seat.viewer, Act.BOARD_LEAD)
        row = meetings.meeting(self._store.reads, ref)
        refs = [each.ref for each in meetings.cases(self._store.reads, row.id)]
        if case not in refs:
            raise NotFound("there is no such case on this worklist")
        at = refs.index(case)
        to = min(max(at + by, 0), len(refs) - 1)
        refs.insert(to, refs.pop(at))
        if to != at:
            await self._write(lambda tx: meetings.reorder(tx, seat.viewer, row, refs))

    async def withdraw(self, seat: Seat, ref: str, case: str) -> None:
        await self._check(seat.viewer, Act.BOARD_LEAD)
        row, of = meetings.meeting(self._store.reads, ref), meetings.case(self._store.reads, case)
        if of.meeting_id != row.id:
            raise NotFound("there is no such case on this worklist")
        await self._write(lambda tx: meetings.withdraw(tx, seat.viewer, row, of))

    def _named(self, identifier: str) -> RecordRow:
        """Errors: NotFound, alike for nobody and for several."""
        nobody = NotFound("this identifier names no patient, or more than one")
        reads = self._store.reads
        if "|" in identifier:
            system, value = identifier.rsplit("|", 1)
            ids = reads.records_by_identifier(system.strip(), value.strip())
            if len({reads.person(each) for each in ids}) != 1:
                raise nobody
            return reads.records([min(ids)])[0]
        namespace, slash, local_id = identifier.partition("/")
        record = reads.record(namespace, local_id) if slash else None
        if record is None:
            raise nobody
        return record

    # -- one case ------------------------------------------------------------------------------------------------------

    async def open(self, seat: Seat, case: str) -> str:
        of = meetings.case(self._store.reads, case)
        await self._look(seat.viewer, Act.BOARD_CASE, of.record, what="open")
        return await self._seats.open(seat, of.id)

    async def break_glass(self, seat: Seat, case: str, reason: str) -> None:
        of = meetings.case(self._store.reads, case)
        await self._access.break_glass(seat.viewer, of.record, reason)

    async def opened(self, request: Request) -> OpenCase:
        seat = await self.seat(request)
        name = str(request.path_params["case_id"])
        of = meetings.case_by_id(self._store.reads, self._seats.case_of(seat, name))
        row = meetings.meeting_by_id(self._store.reads, of.meeting_id)
        refs = [each.ref for each in meetings.cases(self._store.reads, row.id)]
        at = refs.index(of.ref) if of.ref in refs else -1
        return OpenCase(
            case=Case(name, seat.viewer, of.record, self._seats.csrf(seat, name)),
            ref=of.ref,
            meeting=_line(row, len(refs), 0),
            number=at + 1,
            of=len(refs),
            banner=self._whose.banner_of(self._whose.record(of.record)),
            question=of.question,
            asked_by=of.asked_by,
            versions=agreed.versions(self._store.reads, of.id, self._store.vault, seat.viewer),
            previous=refs[at - 1] if at > 0 else None,
            next=refs[at + 1] if 0 <= at < len(refs) - 1 else None,
            chair=may(seat.viewer, Act.BOARD_LEAD),
        )

    async def summary(self, opened: OpenCase) -> Summary:
        seen = await self._look(opened.case.viewer, Act.BOARD_CASE, opened.case.record, what="summary")
        return self._summary(opened.case.viewer, seen.records)

    def _summary(self, viewer: Viewer, records: tuple[RecordRow, ...], *, minuted: bool = False) -> Summary:
        """`minuted`: for paper, which others read, too. What has a restricting label is left out, whoever asks."""
        facts, withheld = self._access.sees(viewer, self._known.facts(records))
        if minuted:
            quoted = [fact for fact in facts if RESTRICTED.isdisjoint(fact.labels)]
            facts, withheld = quoted, withheld + len(facts) - len(quoted)
        sections, sides = sorted_facts(facts)
        scores = self._known.scores(records, (fact.known_from for fact in facts))
        questions = open_questions(sections, scores, withheld=withheld, minuted=minuted)
        notes, pictures = self._known.notes(facts), self._known.pictures(records)
        return Summary(sections, notes, scores, questions, pictures, withheld, sides)

    async def picture(self, opened: OpenCase, number: int) -> bytes:
        seen = await self._look(opened.case.viewer, Act.PICTURE, opened.case.record, what="board")
        return self._known.picture(seen.records, number)

    # -- what the board says -------------------------------------------------------------------------------------------

    async def recommend(self, opened: OpenCase, draft: Draft, after: int) -> None:
        viewer = opened.case.viewer
        fit = checked(draft)
        seen = await self._look(viewer, Act.BOARD_LEAD, opened.case.record, what="recommend")
        row, of = self._rows(opened)
        shown = [score.inference for score in self._known.scores(seen.records)]
        await self._write(lambda tx: agreed.recommend(tx, viewer, row, of, fit, after, shown))

    async def sign(self, opened: OpenCase, version: int, note: str) -> Signature:
        viewer = opened.case.viewer
        told = words(note)
        await self._look(viewer, Act.SIGN, opened.case.record, what="sign")
        row, of = self._rows(opened)
        return await self._write(lambda tx: agreed.sign(tx, viewer, row, of, version, told))

    async def minutes(self, opened: OpenCase) -> bytes:
        seen = await self._look(opened.case.viewer, Act.MINUTES, opened.case.record, format="pdf")
        return await self._pdf(opened, seen)

    async def give_out(self, opened: OpenCase) -> bytes:
        viewer, newest = opened.case.viewer, opened.newest
        await self._check(viewer, Act.BOARD_LEAD)
        if newest is None or not any(each.role == Role.BOARD_CHAIR for each in newest.signatures):
            raise Conflict("minutes are given out of a version that a chair of the board signed")
        seen = await self._look(viewer, Act.MINUTES, opened.case.record, what="give out", format="pdf")
        made = await self._pdf(opened, seen)
        row, of = self._rows(opened)
        return await self._write(lambda tx: agreed.give_out(tx, viewer, row, of, newest.ref, made))

    async def fhir(self, opened: OpenCase) -> bytes:
        newest = opened.newest
        if newest is None:
            raise NotFound("there is no recommendation yet")
        seen = await self._look(opened.case.viewer, Act.MINUTES, opened.case.record, format="fhir")
        minuted = Minuted(
            meeting=opened.meeting,
            recommendation=newest,
            patient=self._store.reads.local_id(self._whose.record(opened.case.record)),
            assessed=[each for ref in newest.inferences for each in self._guided(ref)],
            pdf=await self._pdf(opened, seen),
            given_out=agreed.given_out(self._store.reads, newest.ref) is not None,
        )
        return canonical(bundle(minuted))

    def _guided(self, inference: str) -> list[Resource]:
        """Of one that was erased, nothing."""
        try:
            return self._guidance.of(inference)
        except KeysUnavailable:
            return []

    async def given_out(self, opened: OpenCase) -> bool:
        newest = opened.newest
        return newest is not None and agreed.given_out(self._store.reads, newest.ref) is not None

    async def meeting_minutes(self, seat: Seat, ref: str) -> bytes:
        row = meetings.meeting(self._store.reads, ref)
        cases = meetings.cases(self._store.reads, row.id)
        seen = await self._look_at_all(seat.viewer, Act.MINUTES, cases, format="pdf")
        line = _line(row, len(cases), 0)
        shown = []
        for number, case in enumerate(cases, 1):
            if case.record in seen.refused:
                continue
            of = self._whose.record(case.record)
            versions = agreed.versions(self._store.reads, case.id, self._store.vault, seat.viewer)
            summary = self._summary(seat.viewer, self._records(seat.viewer, of), minuted=True)
            newest = versions[0] if versions else None
            banner = self._whose.banner_of(of)
            shown.append(Minutes(line, number, banner, case.question, case.asked_by, summary, newest))
        if not shown:
            raise NotFound("there is no case to minute")
        return await asyncio.to_thread(pdf, shown)

    async def _pdf(self, opened: OpenCase, seen: Seen) -> bytes:
        newest = opened.newest
        kept = agreed.given_out(self._store.reads, newest.ref) if newest else None
        if kept is not None:
            return kept
        summary = self._summary(opened.case.viewer, seen.records, minuted=True)
        told = (opened.meeting, opened.number, opened.banner, opened.question, opened.asked_by, summary, newest)
        return await asyncio.to_thread(pdf, [Minutes(*told)])

    # -- inside --------------------------------------------------------------------------------------------------------

    def _records(self, viewer: Viewer, row: RecordRow) -> tuple[RecordRow, ...]:
        """The person's records that a viewer may see."""
        return self._access.allowed.visible(viewer, self._access.allowed.of_person(row))

    def _rows(self, opened: OpenCase) -> tuple[MeetingRow, CaseRow]:
        of = meetings.case(self._store.reads, opened.ref)
        return meetings.meeting_by_id(self._store.reads, of.meeting_id), of

    async def _check(self, viewer: Viewer, act: Act) -> None:
        """Errors: NotAllowed, on record; what is allowed to a role and shows no patient is no entry."""
        if not may(viewer, act):
            await self._access.look(Look(viewer, act, None))
        check_may(viewer, act)

    async def _look(self, viewer: Viewer, act: Act, record: str, **detail: str) -> Seen:
        return await self._access.look(Look(viewer, act, record, detail=detail))

    async def _look_at_all(self, viewer: Viewer, act: Act, cases: list[CaseRow], **detail: str) -> Seen:
        others = tuple(dict.fromkeys(case.record for case in cases))
        return await self._access.look(Look(viewer, act, None, others=others, detail={"cases": len(cases), **detail}))

    async def _write(self, act: Callable[[Tx], T]) -> T:
        return await self._store.writer.write(act)


def _line(row: MeetingRow, cases: int, signed: int) -> MeetingLine:
    return MeetingLine(row.ref, row.title, row.place, row.held_on, row.closed, cases, signed)
