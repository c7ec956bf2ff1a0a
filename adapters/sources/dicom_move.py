"""Studies from an archive, from the wish until everything that it has of them is stored, or what is not is named (D9).

    asked -> found                the studies that are meant, by C-FIND
    found -> reconciling          the next of them: what the archive has, less what is stored
    reconciling -> moving         what is missing is asked for: the study, then series, then images
    moving -> reconciling         whatever it answered; what came is known by what is stored
    reconciling -> found          nothing is missing, or enough was asked
    found -> complete | partial   the last study is done

It can be stopped anywhere: what is stored is not asked for again, and nothing else has happened. An archive that does
not answer leaves the job where it is, to be taken up later (`PeerFailed`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from adapters.dicom.association import Cause, NoAssociation
from adapters.dicom.finding import Ended, Found, find, listed
from adapters.dicom.peers import DicomPeer, Level, Moves, Retrieve, Root
from adapters.dicom.query import Match, Query, study_query
from adapters.dicom.receiving import Storing
from adapters.dicom.reconcile import Expected, Gap, Limits, Progress, Round, begun, gap, next_round, pause, result
from adapters.dicom.retrieving import Said, retrieve
from adapters.dicom.states import State
from adapters.peer import Clock
from adapters.source import Intake
from adapters.states import Memory
from models.errors import BadInput, Misconfigured

NAME = "dicom"
STUDIES = 10_000
"""Of one job."""
_TRANSIENT = frozenset({Cause.REFUSED, Cause.TIMEOUT, Cause.ABORTED, Cause.SILENT, Cause.REJECTED, Cause.UNREACHABLE})
_T = TypeVar("_T")

Tell = Callable[[str, int, int | None], None]
"""(what is going on, how far, of how much), for a person who watches. Without values."""


class Received(Protocol):
    """What is stored, whoever received it and however."""

    async def holds(self, study: str, uids: Collection[str]) -> set[str]:
        """Those of the SOP Instance UIDs that are durable."""


class Speaking(Protocol):
    """How an archive is spoken to, where it is not by C-FIND, C-MOVE and C-GET: DICOMweb."""

    async def studies(self, query: Query, most: int) -> Found: ...

    async def listed(self, study: str) -> Expected: ...

    async def retrieve(self, request: Query, expected: Expected, intake: Intake) -> Said: ...


@dataclass(frozen=True, slots=True)
class Ask:
    """What a job is about: one study, those of an accession number or of a patient, or all since a day."""

    study: str | None = None
    accession: str | None = None
    patient: str | None = None
    since: str | None = None
    """YYYYMMDD: studies of that day or later."""
    modalities: tuple[str, ...] = ()
    """Studies with an image of one of these; none: all."""

    def plain(self) -> dict[str, Any]:
        named = {"study": self.study, "accession": self.accession, "patient": self.patient, "since": self.since}
        given: dict[str, Any] = {name: value for name, value in named.items() if value}
        return {**given, "modalities": list(self.modalities)} if self.modalities else given

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Ask:
        named = {name: str(plain[name]) for name in ("study", "accession", "patient", "since") if plain.get(name)}
        return cls(**named, modalities=tuple(str(each) for each in plain.get("modalities", ())))

    def queries(self, root: Root) -> list[Query]:
        """One a modality: only UIDs can be asked for as a list. Raises: Malformed, Misconfigured; nothing was asked."""
        if not (self.study or self.accession or self.patient or self.since):
            raise Misconfigured("a pull names a study, an accession number, a patient or a first day")
        named = {"study": self.study, "accession": self.accession, "patient": self.patient, "since": self.since}
        return [study_query(**named, modality=each).checked(root) for each in self.modalities or (None,)]

    def means(self, match: Match) -> bool:
        """Whether an answer is one to this question. An archive that does not know a key answers as if it were not
        asked: with everybody's studies (PS3.4, C.2.2.1.2). One that does not say a study's modalities is believed."""
        asked = {"StudyInstanceUID": self.study, "AccessionNumber": self.accession, "PatientID": self.patient}
        if not match.text("StudyInstanceUID"):
            return False
        if self.since and match.text("StudyDate") and match.text("StudyDate") < self.since:
            return False
        said = {each.strip() for each in match.values.get("ModalitiesInStudy", ())} - {""}
        if self.modalities and said and said.isdisjoint(self.modalities):
            return False
        return all(match.text(key).strip() == value.strip() for key, value in asked.items() if value)


@dataclass(slots=True)
class DicomPull:
    """A Source (`adapters.source`): one job."""

    peer: DicomPeer
    memory: Memory
    asked: Ask
    received: Received
    clock: Clock
    storing: Storing | None = None
    """Where the objects of a C-GET go; a C-MOVE goes to a storage that listens elsewhere."""
    limits: Limits = field(default_factory=Limits)
    attempts: int = 4
    """To get an association, before the job is left for a later run."""
    tick: float = 1.0
    """Seconds between two looks at what has come."""
    tell: Tell = lambda *_: None
    over: Speaking | None = None
    """None: DIMSE, as the peer's profile says."""
    _planned: tuple[Expected, Gap, Round] | None = field(default=None, init=False)
    """What this process is about to ask for: after a restart it is made anew."""

    async def run(self, intake: Intake) -> None:
        """Until the job has ended. Errors: PeerFailed: the job stays as it is."""
        while await self.step(intake):
            pass

    async def step(self, intake: Intake) -> bool:
        """From the job's state to the next, durable when this returns; False at an end. Errors: PeerFailed and its
        kinds: the job stays as it is."""
        match self.memory.state:
            case State.ASKED:
                await self._find()
            case State.FOUND:
                await self._next()
            case State.RECONCILING:
                await self._reconcile()
            case State.MOVING:
                await self._move(intake)
            case _:
                return False
        return True

    # ---- asked -------------------------------------------------------------------------------------------------------

    async def _find(self) -> None:
        try:
            queries = self.asked.queries(self.peer.root)
        except (BadInput, Misconfigured) as error:
            await self.memory.move(State.FAILED, cause=str(error))
            return
        self.tell("asking for studies", 0, None)
        matches: list[Match] = []
        for query in queries:
            found = await self._studies(query)
            if found.ended is Ended.CUT:
                await self.memory.move(State.FAILED, cause="the archive has more studies of these than one pull takes")
                return
            matches += found.whole(self.peer.name)
        meant = {each.text("StudyInstanceUID"): each for each in matches if self.asked.means(each)}
        studies = [{"study": uid, "patient": each.text("PatientID")} for uid, each in sorted(meant.items())]
        strange = len(matches) - sum(self.asked.means(each) for each in matches)
        if not studies:
            if self.asked.since and not strange:
                await self.memory.move(State.COMPLETE, cause="the archive has no such study", results=[])
                return
            others = f"; {strange} others were answered" if strange else ""
            await self.memory.move(State.FAILED, cause=f"the archive has no such study{others}")
            return
        await self.memory.move(State.FOUND, studies=studies, at=0, results=[], strange=strange)

    # ---- found -------------------------------------------------------------------------------------------------------

    async def _next(self) -> None:
        remembers = self.memory.remembers
        studies, at, results = remembers["studies"], int(remembers["at"]), remembers["results"]
        self.tell("studies", at, len(studies))
        if at < len(studies):
            await self.memory.move(State.RECONCILING, progress=None)
            return
        partial = [each for each in results if not each["complete"]]
        if partial:
            missing = sum(each["expected"] - each["stored"] for each in partial)
            cause = f"{missing} instances of {len(partial)} studies did not come"
            if unaskable := sum(each["unaskable"] for each in partial):
                cause += f", {unaskable} cannot be asked for"
            await self.memory.move(State.PARTIAL, cause=cause)
            return
        await self.memory.move(State.COMPLETE)

    # ---- reconciling -------------------------------------------------------------------------------------------------

    async def _reconcile(self) -> None:
        remembers = self.memory.remembers
        study = remembers["studies"][int(remembers["at"])]
        expected = await self._listed(study["study"], study["patient"])
        held = await self.received.holds(expected.study, expected.uids())
        lacking = gap(expected, held)
        known = remembers.get("progress")
        progress = Progress.of(known) if known else begun(expected, held)
        self.tell("instances", expected.count - lacking.count, expected.count)
        quirks = self.peer.quirks
        planned = next_round(
            expected, lacking, progress, self.limits, start_at=quirks.start_at, uid_lists=quirks.uid_lists
        )
        if planned is None:
            results = [*remembers["results"], result(expected, lacking, progress, self.limits)]
            await self.memory.move(State.FOUND, at=int(remembers["at"]) + 1, results=results, progress=None)
            return
        await self.clock.sleep(pause(progress, lacking, self.limits))
        while wait := self.peer.opens_in(self.clock.now().astimezone()):
            self.tell("waiting for the archive's hours", 0, None)
            await self.clock.sleep(min(wait, 300.0))
        self._planned = (expected, lacking, planned)
        after = Progress(progress.round + 1, progress.held_first, lacking.count, progress.late_series)
        await self.memory.move(State.MOVING, progress=after.plain())

    # ---- moving ------------------------------------------------------------------------------------------------------

    async def _move(self, intake: Intake) -> None:
        if self._planned is None:  # another process began this, and is gone
            await self.memory.move(State.RECONCILING)
            return
        expected, lacking, planned = self._planned
        self._planned = None
        skip = int(self.memory.remembers.get("barren", 0)) if planned.level is Level.IMAGE else 0
        requests = list(planned.requests(expected, lacking, self.limits, skip=skip))
        try:
            barren, told = await self._requests(intake, expected, lacking, requests)
        except NoAssociation:  # this was no round: nobody was asked
            now = Progress.of(self.memory.remembers["progress"])
            before = Progress(now.round - 1, now.held_first, -1, now.late_series)
            await self.memory.move(State.RECONCILING, progress=before.plain())
            raise
        await self._settle(expected, lacking)
        await self.memory.move(State.RECONCILING, barren=skip + barren, said=told)

    async def _requests(
        self, intake: Intake, expected: Expected, lacking: Gap, requests: list[Query]
    ) -> tuple[int, list[str]]:
        """As many at a time as the archive bears; how many in a row brought nothing, if that ended it; its words."""
        waiting, told = list(reversed(requests)), dict[str, None]()
        barren = 0

        async def worker() -> None:
            nonlocal barren
            while waiting and barren < self.limits.barren:
                request = waiting.pop()
                wanted = _wanted(request, lacking)
                said = await self._one(intake, expected, request, wanted)
                told[said.told] = None
                if self.peer.moves is Moves.SYNC or self.peer.retrieve is Retrieve.GET:
                    came = await self.received.holds(expected.study, wanted)
                    barren = 0 if came else barren + 1

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.peer.concurrency, len(requests))):
                    group.create_task(worker())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return (barren if barren >= self.limits.barren else 0), list(told)[:8]

    async def _one(self, intake: Intake, expected: Expected, request: Query, wanted: Collection[str]) -> Said:
        if self.over is not None:
            return await self.over.retrieve(request, expected, intake)

        async def arrivals() -> int:
            return len(await self.received.holds(expected.study, wanted))

        for attempt in range(1, self.attempts + 1):
            try:
                return await retrieve(
                    self.peer,
                    request,
                    arrivals=arrivals,
                    storing=self.storing,
                    intake=intake,
                    classes=sorted(expected.classes),
                    tick=self.tick,
                )
            except NoAssociation as error:
                await self._wait_after(error, attempt)
        raise AssertionError  # the last attempt raises

    async def _settle(self, expected: Expected, lacking: Gap) -> None:
        """Until everything is here, or nothing has come for a while: what an archive calls its end may come first."""
        if self.peer.retrieve is Retrieve.GET:
            return
        wanted = [uid for uids in lacking.missing.values() for uid in uids]
        limits = self.peer.timeouts
        quiet = limits.settle_async if self.peer.moves is Moves.ASYNC else limits.settle
        came, still = -1, 0.0
        while still < quiet:
            now = len(await self.received.holds(expected.study, wanted))
            if now == len(wanted):
                return
            still = 0.0 if now != came else still + self.tick
            came = now
            await self.clock.sleep(self.tick)

    # ---- the archive -------------------------------------------------------------------------------------------------

    async def _studies(self, query: Query) -> Found:
        if self.over is not None:
            return await self.over.studies(query, STUDIES)
        return await self._tried(lambda: find(self.peer, query, most=STUDIES))

    async def _listed(self, study: str, patient: str) -> Expected:
        if self.over is not None:
            return await self.over.listed(study)
        return await self._tried(lambda: listed(self.peer, study, patient))

    async def _tried(self, ask: Callable[[], _T]) -> _T:
        for attempt in range(1, self.attempts + 1):
            try:
                return await asyncio.to_thread(ask)
            except NoAssociation as error:
                await self._wait_after(error, attempt)
        raise AssertionError  # the last attempt raises

    async def _wait_after(self, error: NoAssociation, attempt: int) -> None:
        """Raises it where waiting does not help, or was done enough."""
        if error.cause not in _TRANSIENT or attempt >= self.attempts:
            raise error
        await self.clock.sleep(min(self.limits.first_pause * 2 ** (attempt - 1), self.limits.longest_pause))


def _wanted(request: Query, lacking: Gap) -> list[str]:
    """The missing instances that a request is about."""
    if request.level is Level.STUDY:
        return [uid for uids in lacking.missing.values() for uid in uids]
    if request.level is Level.SERIES:
        return list(lacking.missing.get(str(request.keys["SeriesInstanceUID"]), ()))
    uids = request.keys["SOPInstanceUID"]
    return [uids] if isinstance(uids, str) else list(uids)
