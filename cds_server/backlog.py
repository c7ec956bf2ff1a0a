"""Digesting what has landed: in arrival order, in small acts, so that a hook call never waits long for the write lock.

`digest_backlog` reads what no reader has seen. `redo` runs the present readers over everything again: where reader and
bytes are the same the result is the same; where a newer reader sees something else, its facts are known from the redo's
time on, and what was known before stays what was known then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from adapters.dicom.part10 import MEDIA_TYPE as IMAGE
from adapters.readers import cds_hooks, validation
from adapters.terminology import units
from cds_server.digest import Reducer, Tally, close_digest, where_of
from cds_server.feed_counts import count_oddities
from cds_server.logs import log
from cds_server.reading import NO_RULES, PartRead, Read, SourceRules, read_part
from cds_server.redo import Redo
from cds_server.store.reads import LandingRow
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import CdsError, Erased
from models.nouns import Part

HOLD = 0.003
"""Seconds that one act may hold the write lock; the number of parts in the next act follows from the last one."""
_FIRST, _MOST = 16, 256

Progress = Callable[[int, int], None]
"""(parts done, parts in all)"""


@dataclass(frozen=True, slots=True)
class Batch:
    landing: LandingRow
    start: int
    parts: tuple[PartRead, ...]


def digest_backlog(
    store: Store,
    joining: frozenset[str],
    actor: str,
    *,
    validate: bool = True,
    progress: Progress | None = None,
    up_to: int | None = None,
    rules: SourceRules = NO_RULES,
    only: frozenset[str] | None = None,
    after: int = 0,
) -> Tally:
    """Digest every part that no reader has seen, `up_to` a landing's id, in the order of arrival; gives the counts.
    `only`: landings of these media types; `after`: beyond this one.

    Where another process digests the same long landing, one of the two goes on and the other stops, so that arrival
    order is kept; a hook call's landing that it was first with is done.
    """
    waiting = [each for each in store.reads.undigested(only, after) if up_to is None or each[0] <= up_to]
    total = sum(parts - start for _, start, parts in waiting)
    done, tally = 0, Tally()
    pace = _Pace()
    if waiting:
        units.prepare()  # half a second that the first act would hold the write lock for
    for landing_id, start, _ in waiting:  # its row may hold its bytes: one at a time
        landing = store.reads.landing(landing_id)
        for batch in _batches(store, landing, start, pace, validate, rules) if landing is not None else ():
            made = _digest(store, batch, joining, actor, pace, rules)
            if made is None:
                if batch.landing.media_type == cds_hooks.REQUEST:
                    break
                return tally
            tally.add(made)
            done += len(batch.parts)
            if progress:
                progress(done, total)
    return tally


class _Pace:
    """How many parts the next act may take."""

    def __init__(self) -> None:
        self.size = _FIRST

    def took(self, seconds: float, parts: int) -> None:
        fitting = parts * HOLD / max(seconds, 1e-6)
        self.size = max(1, min(_MOST, round(0.5 * self.size + 0.5 * fitting)))


def _batches(
    store: Store, landing: LandingRow, start: int, pace: _Pace, validate: bool, rules: SourceRules
) -> Iterator[Batch]:
    batch: list[PartRead] = []
    first = start
    for read in _readings(store, landing, start, rules):
        batch.append(_validated(read) if validate else read)
        ordinal = read.ordinal
        if len(batch) >= pace.size and landing.media_type != cds_hooks.REQUEST:  # a call's parts are one digest
            yield Batch(landing, first, tuple(batch))
            first, batch = ordinal + 1, []
    if batch:
        yield Batch(landing, first, tuple(batch))


def _readings(store: Store, landing: LandingRow, start: int, rules: SourceRules) -> Iterator[PartRead]:
    """What the reader makes of the parts from `start` on, one by one."""
    of = rules.get(landing.source)
    if landing.media_type == IMAGE:
        from cds_server.imaging.index import read_object  # loaded where images come

        for ordinal in range(start, landing.parts):
            try:
                yield read_object(store, landing, ordinal, of)
            except Erased:
                yield PartRead(ordinal)
        return
    for ordinal, body in store.left(landing, start):
        if body is None:  # its key was destroyed: it says nothing any more
            yield PartRead(ordinal)
            continue
        part = Part(landing.ref, ordinal, landing.namespace, landing.media_type, landing.received_at, body)
        yield read_part(part, of)


def _validated(part: PartRead) -> PartRead:
    return part.but(reads=tuple(map(validated, part.reads)))


def validated(read: Read) -> Read:
    """The same reading with the verdict of fhir.resources on it."""
    if read.statement.body is None:
        return read
    return read.but(invalid=tuple(validation.validate(read.statement.body)))


def _digest(
    store: Store, batch: Batch, joining: frozenset[str], actor: str, pace: _Pace, rules: SourceRules
) -> Tally | None:
    """One act; None where another process has already digested some of these parts."""
    done = _queue(store, batch, joining, actor, rules).result()
    if done is None:
        return None
    tally, seconds = done
    pace.took(seconds, len(batch.parts))
    return tally


def _queue(
    store: Store, batch: Batch, joining: frozenset[str], actor: str, rules: SourceRules, *, repeatable: bool = False
) -> Future[tuple[Tally, float] | None]:
    """The act, queued: its counts and the seconds that it held the lock."""
    landing = batch.landing
    where = where_of(landing, rules.get(landing.source))
    span = (batch.start, batch.start + len(batch.parts))

    def act(tx: Tx) -> tuple[Tally, float] | None:
        began = time.perf_counter()
        if tx.read("SELECT 1 FROM digestion WHERE landing_id = ? AND part_to > ?", (landing.id, span[0])):
            return None
        reducer = Reducer(tx, where, joining)
        reducer.run(batch.parts)
        close_digest(tx, reducer, span, sum(len(part.reads) for part in batch.parts), actor)
        count_oddities(tx, landing.source, batch.parts)
        return reducer.tally, time.perf_counter() - began

    return store.writer.submit(act, repeatable=repeatable)


Queued = list[tuple[LandingRow, Future[tuple[Tally, float] | None]]]


class Landings:
    """Digests landings of few parts, one act each; the writer takes as many of them into a transaction as it may.

    Their landings are durable: a digest that a power cut undoes waits again.
    """

    def __init__(self, store: Store, joining: frozenset[str], actor: str, rules: SourceRules = NO_RULES) -> None:
        self._store, self._by = store, (joining, actor, rules)

    def queue(self, landings: Iterable[tuple[LandingRow, tuple[PartRead, ...]]]) -> Queued:
        """Have them digested in their order."""
        return [
            (landing, _queue(self._store, Batch(landing, 0, parts), *self._by, repeatable=True))
            for landing, parts in landings
        ]

    def done(self, queued: Queued) -> Iterator[LandingRow]:
        """Those that were digested, here or by somebody else. What fails is told and left."""
        for landing, future in queued:
            try:
                future.result()
            except CdsError as error:  # it stays waiting: the next start, or `cds digest`, tries again
                log().error("a delivery was not digested", landing=landing.ref, what=error.what)
                continue
            yield landing


def redo(
    store: Store,
    joining: frozenset[str],
    actor: str,
    *,
    progress: Progress | None = None,
    rules: SourceRules = NO_RULES,
) -> Tally:
    """Read everything again with the present readers. `unchanged` counts what came out the same."""
    return retry(store, joining, actor, store.reads.landing_ids(), progress=progress, rules=rules)


def retry(
    store: Store,
    joining: frozenset[str],
    actor: str,
    landing_ids: Sequence[int],
    *,
    progress: Progress | None = None,
    rules: SourceRules = NO_RULES,
) -> Tally:
    """The same for some landings."""
    tally, done = Tally(), 0
    landings = [landing for landing in map(store.reads.landing, landing_ids) if landing is not None]
    total = sum(landing.parts for landing in landings)
    pace = _Pace()
    for landing in landings:
        for batch in _batches(store, landing, 0, pace, True, rules):
            tally.add(_redo(store, batch, joining, actor, rules))
            done += len(batch.parts)
            if progress:
                progress(done, total)
    return tally


def _redo(store: Store, batch: Batch, joining: frozenset[str], actor: str, rules: SourceRules) -> Tally:
    landing = batch.landing
    where = where_of(landing, rules.get(landing.source)).but(known_from=None)

    def act(tx: Tx) -> Tally:
        reducer = Redo(tx, where, joining)
        reducer.rerun(batch.parts)
        if reducer.changed:
            span = (batch.start, batch.start + len(batch.parts))
            close_digest(tx, reducer, span, sum(len(part.reads) for part in batch.parts), actor, kind="redo")
        return reducer.tally

    return store.writer.submit(act).result()
