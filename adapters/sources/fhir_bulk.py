"""One export of a FHIR server's population, from its kick-off until its last file is durable (Bulk Data Access).

    queued -> kicked off      the export is asked for; the status URL is durable before it is asked for the first time
    kicked off -> polling     the server says when it is done; each page of its manifest is landed as it came
    polling -> downloading    each file of a page becomes one landing (`adapters.bulk.fetching`)
    downloading -> applying   everything is durable: what is stated in it is somebody else's work

It can be stopped anywhere: what is durable is not asked for again, and nothing else has happened. An export whose
server does not answer stays where it is, to be taken up later (`PeerFailed`); one that can come to nothing is `failed`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

from adapters.bulk.asking import Asker
from adapters.bulk.capabilities import Stated, choose
from adapters.bulk.capabilities import read as read_statement
from adapters.bulk.export_log import ExportLog, harmless_headers, without_query
from adapters.bulk.fetching import Fetcher, Origin
from adapters.bulk.manifest import FileKind, Manifest, parse
from adapters.bulk.profiles import EhrProfile
from adapters.bulk.request import ExportRequest, KickOff, Shape
from adapters.bulk.states import State
from adapters.bulk.waiting import Outcome, backoff, failure_backoff, http_date, outcome_of, retry_after
from adapters.peer import Reply
from adapters.readers.fhir import BULK_MANIFEST
from adapters.source import Intake
from adapters.states import Memory
from models import strict
from models.errors import BadInput, CdsError, PeerFailed
from models.nouns import LandingMeta, instant

NAME = "fhir-bulk"
MANIFEST_BYTES = 64 << 20
_SMALL = 1 << 20
_JSON = {"Accept": "application/json, application/fhir+json;q=0.9"}
ONE_MORE = "the server no longer knows the job"

Tell = Callable[[str, int, int | None], None]
"""(what is going on, how far, of how much), for a person who watches."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is waited for, and how long."""

    days: int = 30
    """From the kick-off to the last file; servers have taken weeks."""
    shortest: float = 1.0
    longest: float = 300.0
    """Seconds between two polls, whatever the server says."""
    failures: int = 4
    """In a row, of one request, before the export is left for a later run."""
    failure_unit: float = 60.0
    """Seconds of the first pause after a failure; each further one is twice as long."""
    files: int = 100_000
    in_parallel: int = 3


class Hopeless(CdsError):
    """The export cannot come to anything: asking again will not help."""

    exit_code = 3


@dataclass(slots=True)
class Export:
    """A Source (`adapters.source`): one job."""

    asker: Asker
    memory: Memory
    request: ExportRequest
    profile: EhrProfile
    source: str
    namespace: str
    log: ExportLog
    limits: Limits = field(default_factory=Limits)
    may_drop: frozenset[str] = frozenset()
    """Parameters that the operator lets us leave out where the server refuses them by name."""
    tell: Tell = lambda *_: None

    async def run(self, intake: Intake) -> None:
        """Until the job is `applying`, or has ended. Errors: PeerFailed, NotAllowed: the job stays as it is."""
        try:
            while True:
                match self.memory.state:
                    case State.QUEUED:
                        await self._kick_off()
                    case State.KICKED_OFF:
                        await self.memory.move(State.POLLING)
                    case State.POLLING:
                        await self._poll(intake)
                    case State.DOWNLOADING:
                        await self._download(intake)
                    case _:
                        return
        except Hopeless as error:
            await self.memory.move(State.FAILED, cause=error.what)

    async def forget(self) -> None:
        """Tell the server that its job may go. Errors: PeerFailed, NotAllowed; a server that knows no such job, or no
        DELETE, is fine."""
        url = self.memory.remembers.get("status_url")
        if url is None:
            return
        async with self.asker.ask("DELETE", url, headers=_JSON) as reply:
            if reply.status not in (200, 202, 204, 404, 405, 410, 501):
                raise PeerFailed(f"answered {reply.status} to the removal of its job")

    # ---- kick-off ----------------------------------------------------------------------------------------------------

    async def _kick_off(self) -> None:
        stated = await self.stated()
        shape, method = choose(stated, self.profile, self.request)
        request, attempt, began = self.request, 0, self.asker.clock.now()
        while True:
            self.tell("asking for the export", 0, None)
            asked = request.kick_off(self.asker.base, self.profile, shape, method)
            try:
                reply, body = await self._send(asked)
            except PeerFailed as error:
                attempt = await self._pause(attempt, error)
                continue
            told = outcome_of(body)
            self._told_kick_off(asked, reply, stated)
            if reply.status == 202:
                await self._taken(reply, request)
                return
            if reply.status in (429, 503) or (reply.status >= 500 and (told.transient or not told.codes)):
                self.tell("the server is busy with another export", 0, None)
                if self.asker.clock.now() - began > timedelta(days=self.limits.days):
                    raise Hopeless(f"the server was busy with other exports for {self.limits.days} days")
                busy = reply.status == 429
                attempt = await self._pause(0 if busy else attempt, reply, busy=busy)
                continue
            if reply.status == 405 and method == "GET":  # STU4 has no other way, and not every server states it
                shape, method = Shape.STU4, "POST"
                continue
            refused = next((name for name in told.parameters if name in request.asked()), None)
            if refused is not None and refused in self.may_drop:
                request = request.without(refused)
                continue
            raise Hopeless(_refusal(reply.status, refused))

    async def stated(self) -> Stated:
        """What the server's CapabilityStatement says of exports; nothing where it gives none."""
        try:
            url = f"{self.asker.base.rstrip('/')}/metadata"
            async with self.asker.ask("GET", url, headers={"Accept": "application/fhir+json"}) as reply:
                found = strict.loads(await reply.body(MANIFEST_BYTES)) if reply.status == 200 else {}
        except (BadInput, PeerFailed):
            found = {}
        return read_statement(found if isinstance(found, Mapping) else {})

    async def _send(self, asked: KickOff) -> tuple[Reply, bytes]:
        async with self.asker.ask(asked.method, asked.url, headers=asked.headers, content=asked.body) as reply:
            return reply, await reply.body(_SMALL)

    async def _taken(self, reply: Reply, request: ExportRequest) -> None:
        location = reply.headers.get("content-location")
        if not location:
            raise Hopeless("the server took the export without saying where its status is (Content-Location)")
        try:
            status_url = urljoin(self.asker.base.rstrip("/") + "/", location)
        except ValueError:
            raise Hopeless("the server says that its status is at what is no URL (Content-Location)") from None
        if not self.asker.trusted(status_url):
            raise Hopeless("the server keeps the status of exports at an origin that the configuration does not name")
        at = server_time(reply) or self.asker.clock.now()
        await self.memory.move(
            State.KICKED_OFF,
            status_url=status_url,
            kicked_off_at=instant(at),
            asked=request.plain(),
            kick_offs=int(self.memory.remembers.get("kick_offs", 0)) + 1,
            page=-1,
            next_url=None,
            transaction_time=None,
            missing=[],
        )

    def _told_kick_off(self, asked: KickOff, reply: Reply, stated: Stated) -> None:
        query = parse_qsl(urlsplit(asked.url).query) if asked.body is None else _parameters(asked.body)
        self.log.kickoff(
            asked.url,
            query,
            headers=reply.headers,
            software={"name": stated.software} if stated.software else None,
            fhir_version=stated.fhir_version,
            refused=None if reply.status == 202 else reply.status,
            why=None if reply.status == 202 else f"answered {reply.status}",
        )

    # ---- polling -----------------------------------------------------------------------------------------------------

    async def _poll(self, intake: Intake) -> None:
        remembers = self.memory.remembers
        url = remembers.get("next_url") or remembers["status_url"]
        polls = attempt = 0
        while True:
            self._check_age()
            try:
                async with self.asker.ask("GET", url, headers=_JSON) as reply:
                    body = await reply.body(MANIFEST_BYTES)
            except PeerFailed as error:
                self.log.status_error(code=None, headers={}, why=error.what)
                attempt = await self._pause(attempt, error)
                continue
            paged = reply.status == 200 or (reply.status == 202 and _is_partial(body))
            if paged and await self._page(intake, reply, url, body):
                return
            if reply.status in (200, 202):
                attempt, progress = 0, reply.headers.get("x-progress")
                self.log.status_progress(progress=progress, retry_after=reply.headers.get("retry-after"))
                self.tell(f"the server prepares the files: {(progress or '')[:100]}".rstrip(": "), polls, None)
                await self.asker.clock.sleep(self._asked_wait(reply) or self._between(polls))
                polls += 1
                continue
            told = outcome_of(body)
            self.log.status_error(code=reply.status, headers=reply.headers, why=f"answered {reply.status}")
            if reply.status == 429:
                await self._pause(0, reply, busy=True)
                continue
            if reply.status in (404, 410):
                await self._gone()
                return
            if reply.status in (401, 408) or (reply.status >= 500 and (told.transient or not told.codes)):
                attempt = await self._pause(attempt, reply)
                continue
            raise Hopeless(f"the export failed on the server: its status answered {reply.status}{_codes(told)}")

    async def _page(self, intake: Intake, reply: Reply, url: str, body: bytes) -> bool:
        """Land a page of the manifest; False for one that only says that there will be more."""
        try:
            manifest = parse(body, url, most_files=self.limits.files)
        except BadInput as error:
            raise Hopeless(f"the manifest cannot be used: {error}") from None
        if reply.status == 202 and manifest.next is None:
            return False  # it will be sent again, with more: its files would be taken twice
        page = int(self.memory.remembers.get("page", -1)) + 1
        key = manifest_key(batch_of(self.memory), page)
        if await self.memory.landed(key) is None:
            meta = self._meta({"kind": "manifest", "page": page, "request": self.request.plain()}, url, reply)
            staged = intake.stage(LandingMeta(self.source, self.namespace, BULK_MANIFEST, self._now(), meta))
            try:
                await staged.write(body)
                await staged.commit(key)
            except BaseException:
                await staged.abandon()
                raise
        self._told_page(manifest)
        known = self.memory.remembers.get("transaction_time")
        times = [time for time in (known, manifest.transaction_time) if time]
        await self.memory.move(
            State.DOWNLOADING,
            page=page,
            page_url=url,
            next_url=manifest.next,
            transaction_time=min(times) if times else None,
        )
        return True

    def _told_page(self, manifest: Manifest) -> None:
        kinds = [entry.kind for entry in manifest.files]
        self.log.status_page_complete(
            transaction_time=manifest.transaction_time,
            output=kinds.count(FileKind.OUTPUT),
            deleted=kinds.count(FileKind.DELETED),
            error=kinds.count(FileKind.ERROR),
        )
        if manifest.next is None:
            self.log.status_complete(transaction_time=manifest.transaction_time)
            self.log.manifest_complete(transaction_time=manifest.transaction_time)

    async def _gone(self) -> None:
        if int(self.memory.remembers.get("kick_offs", 1)) > 1:
            raise Hopeless(f"{ONE_MORE}, for the second time")
        await self.memory.move(State.QUEUED, cause=ONE_MORE)

    # ---- files -------------------------------------------------------------------------------------------------------

    async def _download(self, intake: Intake) -> None:
        remembers = self.memory.remembers
        page = int(remembers["page"])
        body = await self.memory.landed(manifest_key(batch_of(self.memory), page))
        if body is None:
            raise PeerFailed("the manifest of a page is not in the store")  # it was, when this state was written
        manifest = parse(body, remembers["page_url"], most_files=self.limits.files)
        fetcher = Fetcher(
            asker=self.asker,
            memory=self.memory,
            origin=Origin(
                self.source, self.namespace, self.memory.job, batch_of(self.memory), page, remembers["page_url"]
            ),
            manifest=manifest,
            log=self.log,
            lanes=min(self.limits.in_parallel, self.profile.files_in_parallel),
            failures=self.limits.failures,
            pause=self._pause,
            check_age=self._check_age,
            tell=self.tell,
        )
        missing = await fetcher.run(intake)
        known = list(remembers.get("missing", []))
        if fetcher.gone:
            await self._gone()
            return
        to = State.APPLYING if manifest.next is None else State.POLLING
        await self.memory.move(to, missing=known + missing)

    # ---- waiting -----------------------------------------------------------------------------------------------------

    def _asked_wait(self, reply: Reply) -> float | None:
        return retry_after(
            reply.headers.get("retry-after"),
            self.asker.clock.now(),
            low=self.limits.shortest,
            high=self.limits.longest,
        )

    def _between(self, polls: int) -> float:
        return backoff(polls + 1, first=self.limits.shortest, high=self.limits.longest)

    async def _pause(self, attempt: int, after: Reply | PeerFailed, *, busy: bool = False) -> int:
        """Wait after a failure; gives the number of the next attempt. A server that is busy is waited for as long as
        the whole export may take. Errors: PeerFailed, where it failed too often in a row."""
        self._check_age()
        if attempt >= self.limits.failures:
            said = str(after) if isinstance(after, PeerFailed) else f"it answered {after.status}"
            raise PeerFailed(f"{said}: again and again, so the export is left as it is, to be taken up later")
        wait = None if isinstance(after, PeerFailed) else self._asked_wait(after)
        if wait is None:
            wait = (
                self.limits.longest / 5 if busy else failure_backoff(attempt + 1, factor=self.limits.failure_unit / 60)
            )
        await self.asker.clock.sleep(max(wait, self.limits.shortest))
        return attempt + 1

    def _check_age(self) -> None:
        began = self.memory.remembers.get("kicked_off_at")
        if began and self.asker.clock.now() - datetime.fromisoformat(began) > timedelta(days=self.limits.days):
            raise Hopeless(f"the export took longer than {self.limits.days} days")

    def _now(self) -> str:
        return instant(self.asker.clock.now())

    def _meta(self, more: Mapping[str, Any], url: str, reply: Reply) -> dict[str, Any]:
        at = server_time(reply)
        return {
            **more,
            "job": self.memory.job,
            "url": without_query(url),
            "headers": harmless_headers(reply.headers),
            "server_time": instant(at) if at else None,
        }


def batch_of(memory: Memory) -> str:
    """What one kick-off of a job brings: a second one may come to other files."""
    return f"{memory.job}/{memory.remembers.get('kick_offs', 1)}"


def manifest_key(batch: str, page: int) -> bytes:
    """The sender's key of a page of the manifest."""
    return f"bulk/{batch}/{page}/manifest".encode()


def server_time(reply: Reply) -> datetime | None:
    """What the server's own clock says (RFC 9110, Date)."""
    return http_date(reply.headers.get("date"))


def _is_partial(body: bytes) -> bool:
    """Whether a 202 carries a page of the manifest (STU3, allowPartialManifests), not words or an OperationOutcome."""
    try:
        found = strict.loads(body) if body.strip() else None
    except BadInput:
        return False
    return isinstance(found, Mapping) and "output" in found


def _parameters(body: bytes) -> list[tuple[str, str]]:
    found = strict.loads(body)
    members = found.get("parameter", []) if isinstance(found, Mapping) else []
    return [(each["name"], str(each.get("valueString", ""))) for each in members if each["name"] != "patient"]


def _refusal(status: int, parameter: str | None) -> str:
    if parameter is not None:
        return f"the server refuses {parameter} (it answered {status}); it can be left out by drop_refused"
    return f"the server refuses the export (it answered {status})"


def _codes(told: Outcome) -> str:
    return f" ({', '.join(told.codes)})" if told.codes else ""
