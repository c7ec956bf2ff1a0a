"""A pull: the jobs of one run of a bulk source, from the plan to the cursor.

    plan      no cursor yet, or a reconciliation is due: everything. Else what changed since the cursor; of a group,
              first who is in it now, then the whole history of who joined (the standard's own advice for groups)
    export    `adapters.sources.fhir_bulk`: until everything that the server gives is durable
    apply     the digest of it; of a full export also what it no longer holds
    cursor    advances when every job of the run was done without a fault, never past the kick-off

One process pulls a source at a time (a lease); what another one left unfinished is taken up first.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from adapters.backend_services import BackendServices, discover, missing, scopes_for
from adapters.bulk import lineage
from adapters.bulk.asking import Asker
from adapters.bulk.capabilities import choose, smart
from adapters.bulk.counting import Count, counts, members
from adapters.bulk.export_log import ExportLog
from adapters.bulk.profiles import EhrProfile
from adapters.bulk.request import ExportRequest, Level
from adapters.bulk.states import EXPORT, State
from adapters.sources.fhir_bulk import Export, Tell, batch_of
from cds_server import __version__
from cds_server.backlog import digest_backlog
from cds_server.bulk_sources import KIND, BulkSource
from cds_server.http import authorities, vendor_door
from cds_server.intake import StoreIntake
from cds_server.jobs import LEASE, Job, Jobs, Order, holder, is_due, lease, release
from cds_server.keys import KeySigner
from cds_server.logs import log
from cds_server.pull_results import Delivered, Result, deliveries, flag, manifests, patients, result
from cds_server.reconcile import reconcile
from cds_server.remembered import Remembered, SystemClock
from cds_server.settings import Settings
from cds_server.source_rules import rules_of
from cds_server.store.store import Store
from cds_server.vendor_door import HostRules, VendorDoor
from models.errors import CdsError, Conflict, NotAllowed, PeerFailed
from models.nouns import instant

FULL, SINCE, MEMBERS, JOINERS = "full", "since", "members", "joiners"
_GOOD = (State.DONE, State.DONE_WITH_FAULTS)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What became of a run."""

    jobs: tuple[Job, ...]

    @property
    def state(self) -> str:
        """The worst of its jobs."""
        states = [job.state for job in self.jobs]
        order = (State.FAILED, State.CANCELLED, State.DONE_WITH_FAULTS, State.DONE)
        return next((state for state in order if state in states), State.DONE)


class Pulls:
    """One source of one instance."""

    def __init__(
        self, settings: Settings, store: Store, source: BulkSource, actor: str, tell: Tell | None = None
    ) -> None:
        self._settings, self._store, self._source, self._actor = settings, store, source, actor
        self._tell: Tell = tell or (lambda *_: None)
        self._clock = SystemClock()
        self.jobs = Jobs(store, KIND, EXPORT)
        self._holder = holder()

    # ---- a run -------------------------------------------------------------------------------------------------------

    def run(self, *, full: bool = False, due_after: timedelta | None = None) -> Pulled | None:
        """Pull, or take up what was left. `due_after`: only if the last run began longer ago; None where it did not.

        Errors: Conflict (another process pulls this source), PeerFailed (the server does not answer: what was begun is
        taken up by the next run), Misconfigured, RecordUnavailable and its kinds.
        """
        with self._leased():
            if due_after is not None and not is_due(self.jobs, EXPORT, self._source.name, due_after):
                return None
            return asyncio.run(self._run(full))

    def cancel(self) -> list[Job]:
        """End what is unfinished, here and on the server. Errors: as `run`."""
        with self._leased():
            return asyncio.run(self._cancel())

    @contextlib.contextmanager
    def _leased(self) -> Any:
        name = f"pull:{self._source.name}"
        if not lease(self._store, name, self._holder):
            raise Conflict("another process pulls this source", where=self._source.name)
        try:
            yield
        finally:
            with contextlib.suppress(CdsError):
                release(self._store, name, self._holder)

    async def _run(self, full: bool) -> Pulled:
        heart = asyncio.create_task(self._keep_lease())
        try:
            begun = self.jobs.unfinished(self._source.name)
            pulled = await self._through(begun) if begun else None
            if pulled is None or (full and all(job.mode != FULL for job in pulled.jobs)):
                pulled = await self._through(self.jobs.queue(self._source.name, self._plan(full), self._actor))
            return pulled
        finally:
            heart.cancel()

    async def _through(self, planned: Sequence[Job]) -> Pulled:
        async with self._talking() as talk:
            for job in planned:
                await self._one(job, talk)
        return Pulled(tuple(self.jobs.of_run(planned[0].run)))

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 4)
            with contextlib.suppress(CdsError):  # a database that is away for a moment is no reason to stop beating
                await asyncio.to_thread(lease, self._store, f"pull:{self._source.name}", self._holder)

    def _plan(self, full: bool) -> list[Order]:
        source, scope = self._source, self._source.scope
        before = self.jobs.cursor(scope)
        if full or before is None or before.cursor is None or self._reconciliation_due():
            return [Order(FULL, scope, source.request.plain())]
        overlap = timedelta(seconds=source.profile.since_overlap)
        since = instant(datetime.fromisoformat(before.cursor) - overlap)
        changed = Order(SINCE, scope, replace(source.request, since=since).plain())
        types = source.request.types
        if source.request.level is not Level.GROUP or source.profile.sends_joiner_history:
            return [changed]
        if types and "Patient" not in types:
            return [changed]  # who is in the group is not asked for: nobody can be seen to join
        elements = ("id",) if source.profile.elements else ()
        members = ExportRequest(Level.GROUP, group=source.request.group, types=("Patient",), elements=elements)
        return [
            Order(MEMBERS, members.scope(source.url), members.plain()),
            Order(JOINERS, scope, source.request.plain()),
            changed,
        ]

    def _reconciliation_due(self) -> bool:
        if self._source.reconcile is None:
            return False
        last = self.jobs.last(self._source.scope, FULL, State.DONE)
        return last is None or datetime.now(UTC) - datetime.fromisoformat(last.queued_at) >= self._source.reconcile

    async def would_ask(self, *, full: bool = False) -> dict[str, Any]:
        """What a run would ask now, and how much the server says that it has: no job is made."""
        begun = self.jobs.unfinished(self._source.name)
        orders = [(job.mode, job.asked) for job in begun] or [(each.mode, each.asked) for each in self._plan(full)]
        asked = []
        async with self._talking() as talk:
            stated = await self._export_of(talk, self._source.request).stated()
            for mode, plain in orders:
                request = ExportRequest.from_plain(plain)
                shape, method = choose(stated, self._source.profile, request)
                kick_off = request.kick_off(self._source.url, self._source.profile, shape, method)
                asked.append({"mode": mode, "method": method, "url": kick_off.url, "since": request.since})
            types = self._source.request.types or sorted(stated.searchable)
            since = next((each["since"] for each in asked if each["mode"] == SINCE), None)
            counts = await self._counts(talk, types, since)
            advice = await self._advice(talk)
        told = {kind: count.reason if count.number is None else count.number for kind, count in counts.items()}
        known = {kind: count for kind, count in told.items() if count != 0}
        return {"jobs": asked, "counts": known, "advice": advice}

    async def _advice(self, talk: _Talk) -> str | None:
        """What the vendor would say to a group of this size."""
        most, group = self._source.profile.max_group, self._source.request.group
        if most is None or group is None:
            return None
        token = talk.tokens.token if talk.tokens else None
        found = (await members(talk.door, token, self._source.url, group)).number
        if found is None or found <= most:
            return None
        return f"the group has {found} members, and this vendor advises no more than {most}"

    async def counted(self, types: Sequence[str]) -> Mapping[str, Count]:
        """How many of each type the server has now."""
        async with self._talking() as talk:
            return await self._counts(talk, types, None)

    async def _counts(self, talk: _Talk, types: Sequence[str], since: str | None) -> Mapping[str, Count]:
        token = talk.tokens.token if talk.tokens else None
        group = self._source.request.group
        return await counts(talk.door, token, self._source.url, types, group=group, since=since)

    # ---- one job -----------------------------------------------------------------------------------------------------

    async def _one(self, job: Job, talk: _Talk) -> None:
        memory = Remembered(self.jobs, self._store, self.jobs.get(job.id), self._source.namespace, self._actor)
        if memory.state in EXPORT.ends:
            return
        earlier = [each for each in self.jobs.of_run(job.run) if each.id < job.id]
        if any(each.state not in _GOOD for each in earlier):
            await memory.move(State.CANCELLED, cause="an earlier job of the run did not come to its end")
            return
        request = ExportRequest.from_plain(memory.remembers.get("asked") or memory.row.asked)
        if job.mode == JOINERS and memory.state == State.QUEUED:
            joined = await asyncio.to_thread(self._joined, earlier)
            if not joined:
                await memory.move(State.DONE, cause="nobody joined the group")
                return
            if self._source.profile.patient_parameter:
                request = replace(request, patients=tuple(joined))
        export = self._export(memory, request, talk)
        if memory.state == State.QUEUED:
            if not memory.remembers:
                await self._lineage(talk, memory.row, lineage.Event.START)
                await memory.step(State.QUEUED, remember={"started": True})  # told once, however often it is tried
            if lacking := await talk.lacking():
                told = ", ".join(lacking[:5])
                await memory.move(State.FAILED, cause=f"the server grants fewer scopes than are needed: {told}")
        await export.run(StoreIntake(self._store, self._actor))
        if memory.state == State.APPLYING:
            await self._apply(memory, export, earlier, talk)
        if memory.state == State.FAILED:
            await self._lineage(talk, memory.row, lineage.Event.FAIL, fault=memory.row.cause)
            with contextlib.suppress(CdsError):
                await export.forget()

    def _export_of(self, talk: _Talk, request: ExportRequest) -> Export:
        """One that is not a job: for asking the server about itself."""
        nothing = Job(0, "0" * 32, "", KIND, self._source.name, "", {}, State.QUEUED, None, {}, "", "", None)
        return self._export(
            Remembered(self.jobs, self._store, nothing, self._source.namespace, self._actor), request, talk
        )

    def _export(self, memory: Remembered, request: ExportRequest, talk: _Talk) -> Export:
        source = self._source
        began = memory.remembers.get("kicked_off_at")
        return Export(
            asker=talk.asker,
            memory=memory,
            request=request,
            profile=source.profile,
            source=source.name,
            namespace=source.namespace,
            log=ExportLog(
                self._write_log, memory.job, self._clock.now, began=datetime.fromisoformat(began) if began else None
            ),
            limits=source.limits,
            may_drop=source.may_drop,
            tell=self._tell,
        )

    def _write_log(self, line: bytes) -> None:
        folder = self._store.data_dir / "pulls"
        folder.mkdir(mode=0o700, exist_ok=True)
        with open(folder / f"{self._source.name}.ndjson", "ab") as file:
            file.write(line)

    def _joined(self, earlier: Sequence[Job]) -> list[str]:
        """Who is in the group now, and was not when the cursor was set."""
        members = next(job for job in earlier if job.mode == MEMBERS)
        now = patients(self._store, self._delivered(members))
        before: set[str] = set()
        cursor = self.jobs.cursor(self._source.scope)
        for job in self.jobs.of_run(cursor.run) if cursor else ():
            if job.mode in (FULL, MEMBERS):
                before.update(patients(self._store, self._delivered(job)))
        return [each for each in now if each not in before]

    def _delivered(self, job: Job) -> list[Delivered]:
        return list(deliveries(self._store, *self._brought(job)))

    def _brought(self, job: Job) -> tuple[str, str, int]:
        """Namespace, kick-off and pages: where what a job brought is found."""
        memory = Remembered(self.jobs, self._store, job, self._source.namespace, self._actor)
        return self._source.namespace, batch_of(memory), int(job.remembers.get("page", -1)) + 1

    # ---- applying ----------------------------------------------------------------------------------------------------

    async def _apply(self, memory: Remembered, export: Export, earlier: Sequence[Job], talk: _Talk) -> None:
        job = memory.row
        delivered = await asyncio.to_thread(self._delivered, job)
        await asyncio.to_thread(self._digest, job, delivered)
        found = await asyncio.to_thread(result, self._store, delivered, job.remembers.get("missing", []))
        export.log.export_complete(files=found.files, resources=found.lines, size=found.bytes)
        await asyncio.to_thread(flag, self._store, job.ref, found, self._actor)
        if job.mode == FULL and not found.faults and export.request.until is None:
            await asyncio.to_thread(self._reconcile, job, delivered, export.request)
        with contextlib.suppress(PeerFailed, NotAllowed):  # it keeps its files a little longer: no harm to us
            await export.forget()
        whole = not found.faults and all(each.state == State.DONE for each in earlier)
        cursor = _cursor(job.remembers, self._source.profile) if whole and job.mode in (FULL, SINCE) else None
        cause = f"{len(found.faults)} faults: {found.faults[0]}" if found.faults else None
        await memory.step(
            State.DONE_WITH_FAULTS if found.faults else State.DONE,
            cause=cause,
            cursor=cursor,
            remember={"result": found.plain()},
        )
        await self._lineage(talk, memory.row, lineage.Event.COMPLETE, found, cause)

    def _digest(self, job: Job, delivered: Sequence[Delivered]) -> None:
        """Until everything that came, manifests too, is digested, by us or by somebody else."""
        pages = manifests(self._store, *self._brought(job))
        mine = {each.landing for each in delivered} | {landing.id for _, landing in pages}
        while waiting := [each for each, _, _ in self._store.reads.undigested() if each in mine]:
            digest_backlog(
                self._store,
                self._settings.joining_systems,
                self._actor,
                progress=lambda done, total: self._tell("resources", done, total),
                up_to=max(waiting),
                rules=rules_of(self._settings),
            )
            if any(each in mine for each, _, _ in self._store.reads.undigested()):
                time.sleep(0.5)  # another process is at the same landing

    def _reconcile(self, job: Job, delivered: Sequence[Delivered], asked: ExportRequest) -> None:
        ids = [each.landing for each in delivered if each.kind == "output"]
        outputs = (landing for landing in map(self._store.reads.landing, ids) if landing is not None)
        done = reconcile(
            self._store,
            self._source.name,
            outputs,
            before=job.queued_at,  # by our own clock, as what is known from when
            types=asked.types,
            filtered=frozenset(each.partition("?")[0] for each in asked.type_filters),
            members_only=asked.level is Level.GROUP,
            most=self._source.reconcile_most,
            joining=self._settings.joining_systems,
            actor=self._actor,
        )
        held = Result(
            flagged=[
                (None, f"the full export lacks {count} of type {kind}: too many to be closed unseen")
                for kind, count in done.held_back.items()
            ]
        )
        flag(self._store, job.ref, held, self._actor)

    async def _cancel(self) -> list[Job]:
        ended = []
        async with self._talking(even_alone=True) as talk:
            for job in self.jobs.unfinished(self._source.name):
                memory = Remembered(self.jobs, self._store, job, self._source.namespace, self._actor)
                with contextlib.suppress(CdsError):
                    await self._export(memory, ExportRequest.from_plain(job.asked), talk).forget()
                await memory.move(State.CANCELLED, cause="by an operator")
                if job.remembers:  # one that never began has no START either
                    await self._lineage(talk, memory.row, lineage.Event.ABORT)
                ended.append(memory.row)
        return ended

    # ---- the server, and who hears of it -----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _talking(self, *, even_alone: bool = False) -> AsyncIterator[_Talk]:
        """`even_alone`: also where the server says nothing, so that what it left behind can be ended here."""
        source = self._source
        verify = authorities(source.ca_file)
        door = vendor_door(source.rules, verify=verify, proxy=source.proxy)
        named = HostRules(source.lineage_url, private_network=True) if source.lineage_url else None
        collector = vendor_door(named, verify=verify) if named else None
        try:
            tokens = None
            if source.client_id is not None:
                try:
                    tokens = await self._tokens(door)
                except CdsError:
                    if not even_alone:
                        raise
            asker = Asker(
                door, tokens, source.url, source.token_origins, self._clock, source.profile.reauthorize_on_400
            )
            yield _Talk(door, tokens, asker, collector, tokens.granted if tokens else ())
        finally:
            await door.aclose()
            if collector is not None:
                await collector.aclose()

    async def _tokens(self, door: VendorDoor) -> BackendServices:
        source, profile = self._source, self._source.profile
        stated = smart(await discover(door, source.url), source.url) if self._must_discover() else None
        token_url = source.token_url or (stated.token_endpoint if stated else None)
        if token_url is None:
            raise PeerFailed("the server does not say where tokens are had: name token_url", where=source.name)
        issuer = stated.issuer if stated else None
        audience = source.audience or (issuer if profile.assertion_audience == "issuer" else None)
        v2 = profile.scopes == "v2" or (
            profile.scopes == "stated" and stated is not None and (stated.permission_v2 or not stated.permission_v1)
        )
        return BackendServices(
            door,
            KeySigner(self._store, source.registration),
            self._clock,
            token_url=token_url,
            client_id=source.client_id or "",
            scopes=source.scopes or scopes_for(source.request.types, v2=v2),
            audience=audience,
            algorithms=(stated.algorithms or None) if stated else None,
        )

    def _must_discover(self) -> bool:
        profile = self._source.profile
        return self._source.token_url is None or profile.scopes == "stated" or profile.assertion_audience == "issuer"

    async def _lineage(
        self, talk: _Talk, job: Job, kind: lineage.Event, found: Result | None = None, fault: str | None = None
    ) -> None:
        source = self._source
        if source.lineage_file is None and source.lineage_url is None:
            return
        path = {"system": "", "patient": "Patient/", "group": f"Group/{source.request.group}/"}
        event = lineage.event(
            lineage.Pull(
                run=UUID(job.ref),
                namespace=self._settings.public_url,
                name=f"{source.name}.{job.mode}",
                base=source.url,
                operation=f"{path[source.request.level.value]}$export",
                store=source.namespace,
                version=__version__,
                request=job.asked,
            ),
            kind,
            self._clock.now(),
            written=found.written if found else None,
            fault=fault,
        )
        write = _appending(source.lineage_file) if source.lineage_file else None
        for problem in await lineage.emit(event, write=write, door=talk.collector, url=source.lineage_url):
            log().warning("lineage not delivered", source=source.name, what=problem)


@dataclass(slots=True)
class _Talk:
    """What one run has open towards the server."""

    door: VendorDoor
    tokens: BackendServices | None
    asker: Asker
    collector: VendorDoor | None
    """Of lineage events: another peer, with rules of its own."""
    scopes: tuple[str, ...]
    """That are asked for."""

    async def lacking(self) -> tuple[str, ...]:
        """Scopes that were asked for and not granted."""
        if self.tokens is None:
            return ()
        await self.tokens.token()
        return missing(self.scopes, self.tokens.granted)


def _appending(path: Path) -> Callable[[bytes], object]:
    def write(line: bytes) -> None:
        with open(path, "ab") as file:
            file.write(line)

    return write


def _cursor(remembers: Mapping[str, Any], profile: EhrProfile) -> str:
    """The server's transaction time, but never past the kick-off: some servers say when the job ended."""
    began = str(remembers["kicked_off_at"])
    stated = remembers.get("transaction_time")
    return began if stated is None or profile.transaction_time_is_end else min(str(stated), began)
