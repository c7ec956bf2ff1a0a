"""The files of one page of a manifest: each becomes one landing, a few at a time.

A file that is durable is not asked for again, whatever was interrupted. A link that expired leads to a fresh manifest,
of which only the links count: which files there are was said once, and is on record. A server that says 429 is asked
for fewer at a time from there on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from adapters.bulk.asking import Asker
from adapters.bulk.export_log import ExportLog, harmless_headers, without_query
from adapters.bulk.files import Received, receive
from adapters.bulk.manifest import FileEntry, FileKind, Manifest, identities, parse
from adapters.peer import Reply
from adapters.readers.fhir import DELETED, LINE, ORGANIZED, SUBSET, line_of_type
from adapters.source import Intake, Receipt
from adapters.states import Memory
from models.errors import BadInput, NotAllowed, PeerFailed, TooLarge
from models.nouns import LandingMeta, instant

MANIFEST_BYTES = 64 << 20
_NDJSON = {"Accept": "application/fhir+ndjson, application/x-ndjson;q=0.9, */*;q=0.1"}
_JSON = {"Accept": "application/json, application/fhir+json;q=0.9"}
_EXPIRED = (400, 401, 403, 404, 410)


class Pause(Protocol):
    async def __call__(self, attempt: int, after: Reply | PeerFailed, *, busy: bool = False) -> int: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """What the landings of a page have in common."""

    source: str
    namespace: str
    job: str
    batch: str
    page: int
    page_url: str


def file_key(batch: str, page: int, number: int) -> bytes:
    """The sender's key of a file: its place in the manifest that is on record."""
    return f"bulk/{batch}/{page}/{number}".encode()


def media_type(entry: FileEntry, manifest: Manifest, *, subset: bool = False) -> str:
    """Of the file's lines, as the manifest describes them. `subset`: elements were asked for, not whole resources."""
    if entry.kind is FileKind.DELETED:
        return DELETED
    if entry.kind is FileKind.ERROR:
        return line_of_type("OperationOutcome")
    end = SUBSET if subset else ""
    if manifest.organized_by:
        return ORGANIZED + end
    return (line_of_type(entry.type) if entry.type else LINE) + end


@dataclass(slots=True)
class Fetcher:
    asker: Asker
    memory: Memory
    origin: Origin
    manifest: Manifest
    log: ExportLog
    lanes: int
    failures: int
    pause: Pause
    check_age: Callable[[], None]
    tell: Callable[[str, int, int | None], None]
    gone: bool = False
    """The server no longer knows the job: its links cannot be had anew."""
    _urls: list[str] = field(default_factory=list)
    _refreshed: int = 0
    _refreshing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _done: int = 0

    async def run(self, intake: Intake) -> list[str]:
        """All files of the page; gives, in our words, which ones could not be had at all. Errors: PeerFailed."""
        self._urls = [entry.url for entry in self.manifest.files]
        missing: list[str] = []
        numbered = list(enumerate(self.manifest.files))
        deleted = [each for each in numbered if each[1].kind is FileKind.DELETED]
        others = [each for each in numbered if each[1].kind is not FileKind.DELETED]
        for batch in (deleted, others):  # what was deleted is durable, and so applied, before what was made anew
            left = iter(batch)
            try:
                async with asyncio.TaskGroup() as group:
                    for lane in range(min(self.lanes, len(batch))):
                        group.create_task(self._lane(lane, left, intake, missing))
            except ExceptionGroup as failed:
                raise _first(failed) from None
        return missing

    async def _lane(self, lane: int, left: Iterator[tuple[int, FileEntry]], intake: Intake, missing: list[str]) -> None:
        while lane < self.lanes and not self.gone:  # the first lane stays, however few are left
            try:
                number, entry = next(left)
            except StopIteration:
                return
            problem = await self._file(number, entry, intake)
            if problem is not None:
                missing.append(f"file {number + 1} of page {self.origin.page + 1}: {problem}")
            self._done += 1
            self.tell("files", self._done, len(self.manifest.files))

    async def _file(self, number: int, entry: FileEntry, intake: Intake) -> str | None:
        """None once it is durable, or why it cannot be had."""
        key = file_key(self.origin.batch, self.origin.page, number)
        if await self.memory.landed(key) is not None:
            return None
        attempt, renewed = 0, 0
        while True:
            self.check_age()
            url, refreshed = self._urls[number], self._refreshed
            if reason := self.asker.door.refuses(url):
                return reason
            self.log.download_request(url, item=entry.kind.value, resource_type=entry.type)
            answered: Reply | None = None
            try:
                async with self.asker.ask(
                    "GET", url, headers=_NDJSON, token=self.manifest.requires_token, elsewhere=True
                ) as reply:
                    answered = reply
                    if reply.status == 200:
                        await self._land(key, number, entry, reply, intake)
                        return None
            except (TooLarge, NotAllowed) as error:  # too long a line; a redirect, or a name, to where we do not go
                self.log.download_error(url, code=None, headers={}, why=error.what)
                return error.what
            except PeerFailed as error:
                self.log.download_error(url, code=None, headers={}, why=error.what)
                if answered is not None and attempt >= self.failures:  # it begins each time, and never comes whole
                    return error.what
                attempt = await self.pause(attempt, error)
                continue
            self.log.download_error(
                url, code=answered.status, headers=answered.headers, why=f"answered {answered.status}"
            )
            if answered.status in (408, 429) or answered.status >= 500:
                busy = answered.status in (429, 503)
                if busy:
                    self.lanes = max(1, self.lanes // 2)
                attempt = await self.pause(0 if answered.status == 429 else attempt, answered, busy=busy)
                continue
            if answered.status in _EXPIRED and renewed <= self.lanes:  # each other lane may use a fresh link up first
                renewed += 1
                await self._refresh(refreshed)
                if self.gone:
                    return None
                continue
            return f"the server answered {answered.status}"

    async def _land(self, key: bytes, number: int, entry: FileEntry, reply: Reply, intake: Intake) -> Receipt:
        meta = {
            "job": self.origin.job,
            "kind": entry.kind.value,
            "page": self.origin.page,
            "file": number,
            "name": without_query(reply.url).rsplit("/", 1)[-1],
            "url": without_query(reply.url),
            "type": entry.type,
            "stated": {"count": entry.count, "size": entry.size},
            "headers": harmless_headers(reply.headers),
        }
        now = instant(self.asker.clock.now())
        subset = bool(self.memory.remembers.get("asked", {}).get("elements"))
        media = media_type(entry, self.manifest, subset=subset)
        staged = intake.stage(LandingMeta(self.origin.source, self.origin.namespace, media, now, meta))
        organized = bool(self.manifest.organized_by) and entry.kind is FileKind.OUTPUT
        try:
            received = await receive(
                reply,
                staged,
                type=None if organized else entry.type,
                count=entry.count,
                size=entry.size,
                kind=entry.kind.value,
            )
            receipt = await staged.commit(key, learnt=learnt(received))
        except BaseException:
            await staged.abandon()
            raise
        self.log.download_complete(reply.url, resources=received.lines, size=received.bytes)
        return receipt

    async def _refresh(self, seen: int) -> None:
        """New links, from the page of the manifest as the server gives it now; once, however many links expired."""
        async with self._refreshing:
            if self._refreshed != seen:
                return
            attempt = 0
            while True:
                try:
                    async with self.asker.ask("GET", self.origin.page_url, headers=_JSON) as reply:
                        body = await reply.body(MANIFEST_BYTES)
                except PeerFailed as error:
                    attempt = await self.pause(attempt, error)
                    continue
                if reply.status == 200:
                    break
                if reply.status in (404, 410):
                    self.gone = True
                    return
                attempt = await self.pause(attempt, reply)
            try:
                fresh = parse(body, self.origin.page_url, most_files=max(1, len(self._urls)))
            except BadInput as error:
                raise PeerFailed(f"the fresh manifest cannot be used: {error}") from None
            self._urls = _matched(self.manifest.files, fresh.files)
            self._refreshed += 1


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of the lanes: the others were stopped by it, or failed of the same."""
    found = failed.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _matched(known: tuple[FileEntry, ...], fresh: tuple[FileEntry, ...]) -> list[str]:
    """The new link of each known file: by what of it survives new signatures, else by its place. Errors: PeerFailed."""
    links = dict(zip(identities(fresh), (entry.url for entry in fresh), strict=True))
    if set(links) == set(names := identities(known)):
        return [links[name] for name in names]
    if [(entry.kind, entry.type) for entry in known] != [(entry.kind, entry.type) for entry in fresh]:
        raise PeerFailed("the fresh manifest names other files than the one before")
    return [entry.url for entry in fresh]


def learnt(received: Received) -> dict[str, Any]:
    """What only the end of a file tells, for its landing's manifest."""
    return {
        "lines": received.lines,
        "bytes": received.bytes,
        "sha256": received.sha256,
        "blank_lines": list(received.blank_lines),
        "wrong_type": received.wrong_type,
        "malformed": received.malformed,
        "severities": dict(received.severities),
        "problems": list(received.problems),
        "notes": list(received.notes),
    }
