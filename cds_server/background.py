"""Background work: what may follow off the path of a hook call. Leased, so that of several processes one does it.

digest      what hook calls brought becomes resource versions; a call that comes sooner digests it itself
recall      inferences that rest on what was corrected since are flagged, and cards that would now differ recalled
subscribe   who subscribes to what a feed brought is judged again
send        results that a [[destination]] wants are queued; a process of its own sends them
conform     a sample of what feeds brought is held against its version of HL7 v2
validate    full R4 validation of it; where a resource fails, the inferences of the call that brought it are flagged
checkpoint  the head of the log is signed, and witnesses sign it, in threads of their own
purge       once a day, what was kept for its time is destroyed (`retention`), and what an erasure left is ended
pull        each [[source]] with a schedule is pulled when its time has come, by a process of its own
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from adapters.dicom.part10 import MEDIA_TYPE as IMAGE
from adapters.readers import cds_hooks, fhir, validation
from adapters.readers.hl7v2 import MESSAGE
from adapters.terminology import units
from cds_server import jobs, logs
from cds_server.backlog import Landings, Queued
from cds_server.digest import VALIDATOR, add_validation
from cds_server.followers import Followers
from cds_server.keeper import Keeper
from cds_server.lifetime import end_with_parent
from cds_server.logs import log
from cds_server.prepare import Delivery, prepare_all, prepared_of
from cds_server.reading import NO_RULES, PartRead, Rules, SourceRules, read_part
from cds_server.retention import Purger
from cds_server.settings import Settings
from cds_server.source_rules import rules_of
from cds_server.store.reads import LandingRow
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models import strict
from models.errors import CdsError, Unreadable
from models.nouns import Part, instant

IDLE = 0.25
"""Seconds between two looks for work."""
SETTLED = 2.0
"""Seconds after which a call's inference is on record, or never will be."""
A_CALL = 0.03
"""Seconds of rest for each call that came meanwhile: even work that only takes what nobody wants slows its neighbours
on the same core, and holds the write lock."""
REST, REST_BEHIND = 39.0, 3.0
"""Times as long as it worked, at most; less where the oldest delivery waits for longer than `PATIENCE`."""
PATIENCE = 60.0
CALLED, LATE = 2.0, 2.0
"""Seconds after a call in which reading takes only the time that nobody else wants, unless the oldest delivery waits
for longer than `LATE`: on a machine that is busy otherwise, there may be none."""
NICE = 10
ENDING = 5.0
"""Seconds that the reader is given at the end."""
BATCH = 64
BY_ITSELF = (cds_hooks.REQUEST, MESSAGE)
"""Media types of what is digested without anybody asking: deliveries of one act each."""
AS_FHIR = frozenset({*cds_hooks.MEDIA_TYPES, *fhir.MEDIA_TYPES})
"""Media types of JSON whose pointers name the resources themselves."""
FEW = 64
BEHIND = 0.5
"""Seconds that deliveries may wait for their digest before validation waits for them."""
SHARE = 0.05
"""Of the time that validation takes while something is digested: a full feed brings more than one process could judge,
and what is left is judged when the feed rests."""
SAVED = 0.25
"""Seconds of it that are saved up at most."""
JUDGED_WITHIN = 0.05
"""Seconds that a batch of validation aims at: what comes meanwhile is read after it."""


def run(settings: Settings, parent: int) -> None:
    """Work until the parent process is gone.

    What computes runs in a process of the lowest priority; what holds the write lock runs in this one, at the server's:
    a holder that is not given the processor would make every hook call wait.
    """
    logs.configure(settings.log_level)
    stopping = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    units.prepare()  # half a second that the first act would hold the write lock for
    fork = multiprocessing.get_context("fork")
    idle = ProcessPoolExecutor(1, mp_context=fork, initializer=_idle, initargs=(settings,))
    idle.submit(os.getpid)  # forked now, while there is neither a thread nor an open database
    store = Store.open(settings.data_dir, settings.database_url, settings.master)
    followers = Followers(store, settings)
    keeper = Keeper(store, settings)
    keeper.start()
    code = 1
    try:
        _work(settings, store, idle, followers, lambda: os.getppid() != parent or stopping.is_set(), stopping.wait)
        code = 0
    except Exception as error:  # noqa: BLE001 (whatever it is, the server starts this process again)
        log().error("background work failed", error=type(error).__name__)
    finally:
        keeper.stop()
        followers.stop()
        with contextlib.suppress(CdsError):
            store.close()
        ending = threading.Thread(target=idle.shutdown, daemon=True)
        ending.start()
        ending.join(ENDING)
        if ending.is_alive():  # an orderly end waits for the reader, and for ever where that was killed
            os._exit(code)
    if code:
        raise SystemExit(code)


def _work(
    settings: Settings,
    store: Store,
    idle: Executor,
    followers: Followers,
    over: Callable[[], bool],
    wait: Callable[[float], object],
) -> None:
    holder = jobs.holder()
    digester = Digester(store, idle, settings.joining_systems, rules_of(settings))
    validator = Validator(store, idle)
    work: dict[str, Callable[[], int]] = {
        "digest": digester.some,
        "recall": followers.recall,
        "subscribe": followers.subscribe,
        "send": followers.send,
        "conform": followers.conform,
        "validate": validator.some,
        "purge": Purger(store, settings.retention, rules_of(settings)).some,
    }
    newest, called, spare = store.reads.newest_call(), 0.0, Spare(SHARE, SAVED)
    while not over():
        began, worked = time.monotonic(), 0
        validator.quietly = began - called < CALLED
        digester.quietly = validator.quietly and digester.lag < LATE
        for name, some in work.items():
            if name in ("validate", "conform") and digester.lag > BEHIND:
                continue
            if name == "validate" and digester.begun and not spare.is_left():
                continue
            started = time.monotonic()
            try:
                worked += jobs.lease(store, name, holder) and some()
            except CdsError as error:
                log().error("background work failed", job=name, what=error.what)
            if name == "validate" and digester.begun:
                spare.took(time.monotonic() - started)
        calls = 0
        with contextlib.suppress(CdsError):
            followers.look()
            calls, newest = store.reads.calls_since(newest)
        ended = time.monotonic()
        spare.passed(ended - began)
        if calls:
            called = ended
        if not worked:
            wait(IDLE)
        elif calls:
            wait(min(calls * A_CALL, (REST if digester.lag < PATIENCE else REST_BEHIND) * (ended - began)))


class Spare:
    """A share of the time, for what can wait: saved up to a limit, and paid back where more was taken."""

    def __init__(self, share: float, most: float) -> None:
        self._share, self._most = share, most
        self._seconds = 0.0

    def passed(self, seconds: float) -> None:
        self._seconds = min(self._most, self._seconds + self._share * seconds)

    def took(self, seconds: float) -> None:
        self._seconds -= seconds

    def is_left(self) -> bool:
        return self._seconds > 0


T = TypeVar("T")

_rules: dict[str, Rules] = {}
"""Of the process that reads: loaded once, because maps of codes are long."""


def reading(quietly: bool, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """A call in the process that reads; `quietly`: with only the time that nobody else wants."""
    return _quiet.submit(function, *arguments).result() if quietly else function(*arguments)


def read_ahead(deliveries: Sequence[Delivery], key: bytes) -> bytes:
    return prepare_all(deliveries, _rules, key)


def _idle(settings: Settings) -> None:
    """The process that reads: below the server's priority, and its collector's rounds few."""
    _rules.update(rules_of(settings))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(signal.SIGKILL)
    os.nice(NICE)
    units.prepare()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _only_spare_time() -> None:
    """Of one thread: on Linux priorities are a thread's own, and who went down may not come up again."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


_quiet = ThreadPoolExecutor(1, "cds-quiet", _only_spare_time)


class Digester:
    """Digests what calls and feeds brought, oldest first; one act a landing: none of them holds the lock for long.

    While it waits for the disk, the other process reads what comes next.
    """

    def __init__(self, store: Store, idle: Executor, joining: frozenset[str], rules: SourceRules = NO_RULES) -> None:
        self._store = store
        self._idle = idle
        self._landings = Landings(store, joining, "system", rules)
        self._ahead: deque[tuple[list[LandingRow], Future[bytes]]] = deque()
        self._acting: deque[Queued] = deque()
        self._cursor = 0
        self.lag = 0.0
        """Seconds that the oldest landing of the last look had waited."""
        self.begun = 0
        """Landings of the last look."""
        self.quietly = False
        """Calls come in."""

    def some(self) -> int:
        """Digest up to a few landings; gives how many. The next ones may be under way then."""
        while len(self._ahead) < 2 and self._look():
            pass
        self.lag, self.begun = 0.0, 0
        if self._ahead:
            landings, read = self._ahead.popleft()
            self.begun = len(landings)
            self.lag = (datetime.now(UTC) - datetime.fromisoformat(landings[0].received_at)).total_seconds()
            self._acting.append(self._landings.queue(zip(landings, prepared_of(read.result()), strict=True)))
        while self._acting and (len(self._acting) > 1 or not self._ahead):
            for _ in self._landings.done(self._acting.popleft()):
                pass
        return self.begun

    def _look(self) -> bool:
        """Have some of what waits read."""
        landings = self._store.reads.waiting(BY_ITSELF, self._cursor, FEW)
        if not landings:
            return False
        self._cursor = landings[-1].id
        opened = [Delivery(replace(each, pack=None, manifest=None), self._store.opened(each)) for each in landings]
        asked = (opened, self._store.vault.index.key)
        self._ahead.append((landings, self._idle.submit(reading, self.quietly, read_ahead, asked)))
        return True


class Validator:
    """Asks fhir.resources about the readable resources of parts, oldest first, and records what it says.

    Not about those of DICOM objects: a part of them may be gigabytes long, and an object is digested from its stream.
    """

    def __init__(self, store: Store, idle: Executor) -> None:
        self._store = store
        self._idle = idle
        self._cursor = 0
        self._batch = FEW
        self.quietly = False

    def some(self) -> int:
        """Validate up to a batch of resources; gives how many. How many the next one holds follows from the time that
        this one took."""
        began = time.monotonic()
        done = self._some()
        if done:
            fitting = done * JUDGED_WITHIN / max(time.monotonic() - began, 1e-6)
            self._batch = max(1, min(BATCH, round(0.5 * self._batch + 0.5 * fitting)))
        return done

    def _some(self) -> int:
        settled = instant(datetime.now(UTC) - timedelta(seconds=SETTLED))
        rows = self._store.reads.query(
            "SELECT r.id, r.landing_id, r.part, r.pointer FROM resource r JOIN landing l ON l.id = r.landing_id "
            "LEFT JOIN validation v ON v.landing_id = r.landing_id AND v.part = r.part "
            "WHERE r.id > ? AND v.id IS NULL AND r.known_from < ? AND l.media_type <> ? ORDER BY r.id LIMIT ?",
            (self._cursor, settled, IMAGE, self._batch),
        )
        if not rows:
            return 0
        places: dict[tuple[int, int], list[str]] = {}
        for _, landing_id, part, pointer in rows:
            places.setdefault((landing_id, part), []).append(pointer)
        if len(rows) == self._batch:  # the last one's others may stand in the next batch: one part, one verdict
            if len(places) > 1:
                places.popitem()
            else:
                rows = self._all_of(*next(iter(places)))
                places = {place: [row[3] for row in rows] for place in places}
        asking = [
            self._idle.submit(reading, self.quietly, verdict, self._asked(*place, pointers))
            for place, pointers in places.items()
        ]
        verdicts = [each.result() for each in asking]

        def act(tx: Tx) -> None:
            for (landing_id, part), asked in zip(places, verdicts, strict=True):
                if tx.read("SELECT 1 FROM validation WHERE landing_id = ? AND part = ?", (landing_id, part)):
                    continue
                add_validation(tx, landing_id, part, asked)
                for pointer in (pointer for pointer, problems in asked.items() if problems):
                    _flag(tx, landing_id, pointer)
            invalid = sum(bool(problems) for asked in verdicts for problems in asked.values())
            tx.entry("validate", "system", {"parts": len(places), "invalid": invalid, "validator": VALIDATOR})

        self._store.writer.submit(act, repeatable=True).result()  # what a power cut undoes is asked again
        last = next(reversed(places))
        self._cursor = max(row[0] for row in rows if (row[1], row[2]) == last)
        return len(rows)

    def _all_of(self, landing_id: int, part: int) -> list[tuple[int, int, int, str]]:
        """Row id, landing, part and pointer of the resources of a long part."""
        asked = "SELECT id, landing_id, part, pointer FROM resource WHERE landing_id = ? AND part = ? ORDER BY id"
        return [(row[0], row[1], row[2], row[3]) for row in self._store.reads.query(asked, (landing_id, part))]

    def _asked(self, landing_id: int, part: int, pointers: list[str]) -> tuple[str, Part | None, list[str]]:
        landing = self._store.reads.landing(landing_id)
        try:
            body = self._store.part(landing, part) if landing else None
        except CdsError:
            body = None
        if landing is None or body is None:
            return "", None, pointers
        of = (landing.namespace, landing.media_type, landing.received_at, body)
        return landing.source, Part(landing.ref, part, *of), pointers


def verdict(source: str, part: Part | None, pointers: list[str]) -> dict[str, list[str]]:
    """Pointer -> what fhir.resources says against the resource there; a part that cannot be read is invalid as such.

    What came as FHIR is asked about as it came; what a reader made of something else, as the reader makes it.
    """
    if part is None:
        return {pointer: ["the part cannot be opened"] for pointer in pointers}
    if part.media_type.partition(";")[0] not in AS_FHIR:
        return _verdict_of_made(read_part(part, _rules.get(source)), pointers)
    try:
        parsed = strict.loads(part.body)
    except CdsError as error:
        return {pointer: [error.what] for pointer in pointers}
    found: dict[str, list[str]] = {}
    for pointer in pointers:
        try:
            found[pointer] = validation.validate(resource_at(parsed, pointer))
        except CdsError as error:
            found[pointer] = [error.what]
    return found


def _verdict_of_made(part: PartRead, pointers: list[str]) -> dict[str, list[str]]:
    """Of what a reader made: several resources may come from one place."""
    found: dict[str, list[str]] = {}
    for read in part.reads:
        if read.statement.body is not None:
            found.setdefault(read.statement.pointer, []).extend(validation.validate(read.statement.body))
    return {pointer: found.get(pointer, ["the part cannot be read any more"]) for pointer in pointers}


def resource_at(body: Any, pointer: str) -> Mapping[str, Any]:
    """The object that a JSON pointer (RFC 6901) names. Raises Unreadable."""
    found = body
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(name)] if isinstance(found, list) else found[name]
        except (KeyError, IndexError, ValueError, TypeError):
            raise Unreadable("the part has nothing at this pointer", where=pointer) from None
    if not isinstance(found, Mapping):
        raise Unreadable("what stands at this pointer is not an object", where=pointer)
    return found


def _flag(tx: Tx, landing_id: int, pointer: str) -> None:
    """Flag the inferences of the call that brought an invalid resource."""
    for (inference_id,) in tx.read(
        "SELECT i.id FROM inference i JOIN call c ON c.id = i.call_id WHERE c.landing_id = ?", (landing_id,)
    ):
        tx.add(
            "flag",
            kind="flag",
            reason="invalid-resource",
            landing_id=landing_id,
            pointer=pointer or None,
            inference_id=inference_id,
            detail="a resource of the call that this inference rests on is not valid R4",
            at=tx.now,
        )
