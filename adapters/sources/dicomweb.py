"""An archive that is asked over HTTP (PS3.18): QIDO-RS for what it has, WADO-RS for the objects themselves.

The flow is that of every pull of studies (`adapters.sources.dicom_move`): what is listed less what is stored is asked
for, by study, series and instance. Nothing that is answered is trusted: pages may repeat, counts may be cached, a body
may stop; so a listing goes on until a page brings nothing new, and the metadata are asked where it contradicts itself.

dicomweb-client is not used here: it gives objects decoded, each whole in memory; what is stored has to be what came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlencode

from adapters.dicom.association import Cause, NoAssociation
from adapters.dicom.finding import Ended, Found
from adapters.dicom.multipart import boundary_of
from adapters.dicom.part10 import MEDIA_TYPE
from adapters.dicom.peers import Level
from adapters.dicom.query import RETURNED, Match, Query
from adapters.dicom.receiving import Storing
from adapters.dicom.reconcile import Expected
from adapters.dicom.retrieving import Said
from adapters.dicom.web_answers import matches_of
from adapters.dicom.web_objects import Taking
from adapters.peer import Clock, Door, Reply
from adapters.source import Intake
from models.errors import Malformed, PeerFailed

NAME = "dicomweb"
PAGE = 500
"""Results that are asked for at a time; a server may give fewer."""
PAGES = 10_000
LISTED = 32 << 20
"""Bytes of one page of results."""
METADATA = 256 << 20
"""Bytes of the metadata of one series, without bulk data."""
INSTANCES = 1_000_000
LARGEST = 16 << 30
"""Bytes of one object."""
_JSON = "application/dicom+json"
_OBJECTS = f'multipart/related; type="{MEDIA_TYPE}"; transfer-syntax=*'
_INSTANCE = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID")
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_T = TypeVar("_T")


@dataclass(slots=True)
class Dicomweb:
    """`adapters.sources.dicom_move.Speaking`: one server. `headers`: who we are, asked anew for each request."""

    name: str
    url: str
    door: Door
    headers: Callable[[], Mapping[str, str]]
    storing: Storing
    clock: Clock
    longest: float = 6 * 3600.0
    """Seconds of one retrieval."""
    attempts: int = 4
    most: int = LARGEST

    # ---- QIDO-RS -----------------------------------------------------------------------------------------------------

    async def studies(self, query: Query, most: int) -> Found:
        """Studies by keys. Raises: PeerFailed and its kinds."""
        keywords = RETURNED[Level.STUDY]
        keys = {key: value for key, value in query.keys.items() if isinstance(value, str)}
        rows = await self._rows("/studies", keywords, keys, "StudyInstanceUID", most)
        return Found(rows[:most], Ended.CUT if len(rows) > most else Ended.DONE)

    async def listed(self, study: str) -> Expected:
        """What it has of one study. Raises: PeerFailed and its kinds."""
        of = f"/studies/{quote(study, safe='')}"
        stated = await self._stated(study)
        try:
            rows = await self._rows(f"{of}/instances", _INSTANCE, {}, "SOPInstanceUID", INSTANCES)
        except _Declined:
            rows = []
        found = _expected(study, rows, stated)
        if rows and not found.contradicts:
            return found
        for series in await self._series(of):
            path = f"{of}/series/{quote(series, safe='')}/metadata"
            rows += await self._tried(lambda path=path: self._asked(path, _INSTANCE, METADATA))  # type: ignore[misc]
        if not rows:
            raise PeerFailed("it lists no instance of a study that it has", where=self.name)
        return _expected(study, rows, stated)

    async def _stated(self, study: str) -> int | None:
        counted = ("StudyInstanceUID", "NumberOfStudyRelatedInstances")
        rows = await self._rows("/studies", counted, {"StudyInstanceUID": study}, "StudyInstanceUID", 16)
        own = [each for each in rows if each.text("StudyInstanceUID") == study]
        return own[0].whole("NumberOfStudyRelatedInstances") if own else None

    async def _series(self, of: str) -> list[str]:
        rows = await self._rows(f"{of}/series", ("SeriesInstanceUID",), {}, "SeriesInstanceUID", PAGES)
        return list(dict.fromkeys(uid for each in rows if (uid := each.text("SeriesInstanceUID"))))

    async def _rows(
        self, path: str, keywords: tuple[str, ...], keys: Mapping[str, str], unique: str, most: int
    ) -> list[Match]:
        """Page by page until one brings nothing new: a server that does not know `offset` gives its first again."""
        found: list[Match] = []
        seen: set[str] = set()
        for _ in range(PAGES):
            asked = [*keys.items(), *(("includefield", each) for each in keywords)]
            asked += [("fuzzymatching", "false"), ("limit", str(PAGE)), ("offset", str(len(found)))]
            place = f"{path}?{urlencode(asked, quote_via=quote)}"
            page = await self._tried(lambda place=place: self._asked(place, keywords, LISTED))  # type: ignore[misc]
            new = [each for each in page if not (uid := each.text(unique)) or uid not in seen]
            if not page or not any(each.text(unique) for each in new):
                if not found:
                    found += new
                return found
            seen.update(each.text(unique) for each in new)
            found += new
            if len(found) > most:
                return found
        raise PeerFailed("its answer has no end", where=self.name)

    async def _asked(self, path: str, keywords: tuple[str, ...], limit: int) -> list[Match]:
        """One answer in JSON. Raises: _Declined, PeerFailed, NotAllowed."""
        async with self._ask(path, _JSON) as answer:
            if answer.status == 204:
                return []
            self._check(answer)
            media = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if media not in (_JSON, "application/json"):
                raise PeerFailed("answered with another media type than DICOM JSON", where=self.name)
            body = await answer.body(limit)
        return await asyncio.to_thread(matches_of, body, keywords) if body else []

    def _check(self, answer: Reply) -> None:
        status = answer.status
        if status in (200, 206):
            return
        if status in (401, 403, 407):
            raise _Barred(f"it does not let us in (status {status})", where=self.name)
        if 300 <= status < 400:
            raise _Barred("it redirects, which is not followed: name the place itself", where=self.name)
        if status in _LATER:
            raise _NotNow(status, self.name)
        raise _Declined(status, self.name)

    # ---- WADO-RS -----------------------------------------------------------------------------------------------------

    async def retrieve(self, request: Query, expected: Expected, intake: Intake) -> Said:
        """A study, a series or instances into the intake. What is wrong with an answer is said of it, and what was
        whole before is stored. Raises: PeerFailed (it cannot be asked at all), and what the store raises."""
        taking = Taking(self.storing, intake, expected.uids(), self.most)
        said, status = Ended.DONE, 200
        for path in _paths(request):
            try:
                async with asyncio.timeout(self.longest):
                    status = await self._tried(lambda path=path: self._taken(path, taking))  # type: ignore[misc]
            except TimeoutError:
                said = Ended.STALLED
            except (Malformed, _Broken):
                said = Ended.BROKEN
            except (_Declined, _NotNow) as error:
                said, status = Ended.REFUSED, error.answered
        counts = {"arrived": taking.arrived, **dict(sorted(taking.refused.items()))}
        return Said(said, status if said is Ended.REFUSED else None, 1, counts, (), taking.arrived)

    async def _taken(self, path: str, taking: Taking) -> int:
        async with self._ask(path, _OBJECTS) as answer:
            self._check(answer)
            media = answer.headers.get("content-type", "")
            try:
                if media.partition(";")[0].strip().lower() == MEDIA_TYPE:
                    await taking.single(answer.chunks())
                else:
                    await taking.parts(answer.chunks(), boundary_of(media))
            except PeerFailed as error:
                raise _Broken(error.what, where=self.name) from None
            return answer.status

    # ---- the door ----------------------------------------------------------------------------------------------------

    def _ask(self, path: str, accept: str) -> AbstractAsyncContextManager[Reply]:
        asked = {**self.headers(), "Accept": accept}
        if accept != _JSON:
            asked["Accept-Encoding"] = "identity"  # an empty mask packs a thousandfold: honest, and like a bomb
        return self.door.ask("GET", self.url + path, headers=asked)

    async def _tried(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Raises: NoAssociation, where it cannot be reached however often; what an answer is refused for."""
        for attempt in range(1, self.attempts + 1):
            try:
                return await ask()
            except (_Declined, _Broken, _Barred):
                raise
            except PeerFailed as error:
                if attempt < self.attempts:
                    await self.clock.sleep(2.0 ** (attempt - 1))
                elif isinstance(error, _NotNow):
                    raise
                else:
                    raise NoAssociation(Cause.UNREACHABLE, self.name, error.what) from None
        raise AssertionError  # the last attempt raises


class _Status(PeerFailed):
    def __init__(self, status: int, where: str) -> None:
        super().__init__(f"answered {status}", where=where)
        self.answered = status


class _Declined(_Status):
    """A status that the same question will have again."""


class _NotNow(_Status):
    """A status that may be another one later."""


class _Barred(PeerFailed):
    """It does not let us in, or sends us elsewhere: a matter of the configuration."""


class _Broken(PeerFailed):
    """An answer that stopped, or was damaged, on its way."""


def _expected(study: str, rows: list[Match], stated: int | None) -> Expected:
    series: dict[str, set[str]] = {}
    known: dict[str, str] = {}
    classes: set[str] = set()
    unaskable = 0
    for each in rows:
        uid, of = each.text("SOPInstanceUID"), each.text("SeriesInstanceUID")
        if not uid or not of or known.get(uid, of) != of:
            unaskable += 1
            continue
        known[uid] = of
        series.setdefault(of, set()).add(uid)
        classes.update(filter(None, (each.text("SOPClassUID"),)))
    made = {of: frozenset(uids) for of, uids in series.items()}
    return Expected(study, made, "", stated, frozenset(classes), unaskable)


def _paths(request: Query) -> list[str]:
    def one(keyword: str) -> str:
        return quote(str(request.keys[keyword]), safe="")

    path = f"/studies/{one('StudyInstanceUID')}"
    if request.level is Level.STUDY:
        return [path]
    path += f"/series/{one('SeriesInstanceUID')}"
    if request.level is Level.SERIES:
        return [path]
    uids = request.keys["SOPInstanceUID"]
    return [f"{path}/instances/{quote(uid, safe='')}" for uid in ((uids,) if isinstance(uids, str) else uids)]
