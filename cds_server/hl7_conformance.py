"""Holds a sample of each feed's messages against their version, in the background (`hl7_sampling` says which).

The check runs in a process of its own (`hl7_checking`), so that neither the digest nor a hook call waits for it: this
one hands it a few messages, goes on with its work, and asks later. What was counted and how far it came are one
transaction: a restart goes on there, and counts nothing twice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from adapters.readers.hl7v2 import MESSAGE
from cds_server.hl7_checking import Asked, Checker, Kind, Told
from cds_server.hl7_sampling import HOUR, Sampling, chosen
from cds_server.logs import log
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import CdsError

LOOK = 5.0
"""Seconds between two looks for new messages: they are counted together, in one transaction."""
LANDINGS, PARTS = 1000, 5000
"""Deliveries and messages of one look."""
FEW = 8
"""Messages that are handed over at a time."""
MOST_KINDS = 5000
"""Findings of one source that are told apart: a sender decides what stands in MSH-9 and MSH-12, and how often."""
OTHER = ("other", "", "", "findings", "further kinds of findings are counted together")
LANDING, PART = "hl7-conformance", "hl7-conformance-part"
"""The cursor: the delivery that is looked at, and how many of its messages were."""


@dataclass(slots=True)
class _Look:
    """What one look brought: how far it came, what it saw, what is to be checked."""

    landing: int
    part: int
    looked: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    asked: list[Asked] = field(default_factory=list)
    times: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Source -> when its first and its last message came."""
    full: bool = False
    """There may be more."""


class Conformer:
    """Goes through the messages of the feeds in the order of their arrival; `some` never waits."""

    def __init__(self, store: Store, sources: Mapping[str, Sampling], checker: Checker | None = None) -> None:
        self._store = store
        self._sources = {name: each for name, each in sources.items() if each.share > 0}
        self._checker = checker or Checker()
        self._pending: tuple[_Look, Future[list[Told]]] | None = None
        self._next = float("-inf")

    def some(self) -> int:
        """Go on, where there is something to go on with; gives how many messages were counted.

        Raises: RecordUnavailable and its kinds; then the same is done again.
        """
        if self._pending is not None:
            look, future = self._pending
            if not future.done():
                return 0
            self._pending = None
            return self._keep(look, self._told(look, future))
        now = time.monotonic()
        if not self._sources or now < self._next:
            return 0
        look = self._look()
        if not look.full:
            self._next = now + LOOK
        if not look.looked:
            return 0
        if look.asked:
            self._pending = look, self._checker.submit(look.asked)
            return 0
        return self._keep(look, [])

    def stop(self) -> None:
        self._checker.stop()

    def _told(self, look: _Look, future: Future[list[Told]]) -> list[Told] | None:
        """None: the check failed, and would fail again."""
        try:
            return future.result()
        except Exception as error:  # noqa: BLE001 (a message that ends the process is passed by, not tried for ever)
            log().error("messages were not held against their version", error=type(error).__name__)
            return None

    def _look(self) -> _Look:
        look = _Look(self._at(LANDING), self._at(PART))
        left = self._left()
        rows = self._store.reads.query(
            "SELECT id, source, media_type, received_at, parts, content FROM landing WHERE id >= ? ORDER BY id LIMIT ?",
            (look.landing, LANDINGS),
        )
        look.full = len(rows) == LANDINGS
        seen = 0
        for landing_id, source, media_type, received, parts, content in rows:
            begin = look.part if landing_id == look.landing else 0
            look.looked += landing_id != look.landing
            look.landing, look.part = landing_id, max(begin, parts)
            sampling = self._sources.get(source)
            if sampling is None or media_type.partition(";")[0] != MESSAGE:
                continue
            for part in range(begin, parts):
                if len(look.asked) == FEW or seen == PARTS:
                    look.part, look.full = part, True
                    return look
                seen += 1
                look.looked += 1
                look.seen[source] += 1
                look.times[source] = (look.times.get(source, (received,))[0], received)
                if not chosen(content, part, sampling.share):
                    continue
                if left[source] <= 0:
                    look.passed_over[source] += 1
                else:
                    raw = self._opened(landing_id, part)
                    look.asked.append(Asked(source, received, raw, sampling.charset, left[source]))
        return look

    def _opened(self, landing_id: int, part: int) -> bytes:
        """The message; nothing where its bytes cannot be opened any more: it is counted as one that is not readable."""
        try:
            landing = self._store.reads.landing(landing_id)
            return self._store.part(landing, part) if landing is not None else b""
        except CdsError:
            return b""

    def _at(self, name: str) -> int:
        row = self._store.reads.one("SELECT at FROM cursor WHERE name = ?", (name,))
        return int(row[0]) if row else 0

    def _left(self) -> dict[str, int]:
        """Source -> milliseconds of processor time that it has in this hour."""
        spent = {
            source: ms
            for source, hour, ms in self._store.reads.query("SELECT source, hour, hour_ms FROM hl7_sample")
            if hour == _hour()
        }
        return {name: each.seconds * 1000 - spent.get(name, 0) for name, each in self._sources.items()}

    def _keep(self, look: _Look, told: Sequence[Told] | None) -> int:
        """Count, and move the cursor. `told` in the order of `look.asked`; None: none of it could be checked."""
        hour = _hour()
        kinds: dict[tuple[str, Kind], _Kinds] = {}
        counts = {source: _Counts(look.seen[source], passed_over=look.passed_over[source]) for source in look.seen}
        for each, one in zip(look.asked, told if told is not None else [None] * len(look.asked), strict=True):
            counts[each.source].add(one)
            for kind, times in one.kinds.items() if one is not None else ():
                kinds.setdefault((each.source, kind), _Kinds(each.at)).add(times, each.at)

        def act(tx: Tx) -> None:
            for source, count in counts.items():
                count.write(tx, source, look.times[source], hour)
            for (source, kind), added in kinds.items():
                added.write(tx, source, kind)
            for name, at in ((LANDING, look.landing), (PART, look.part)):
                if tx.execute("UPDATE cursor SET at = ? WHERE name = ?", (at, name)) == 0:
                    tx.execute("INSERT INTO cursor (name, at) VALUES (?, ?)", (name, at))

        self._store.writer.submit(act).result()
        return look.looked


@dataclass(slots=True)
class _Counts:
    """What one look adds to the row of a source."""

    seen: int = 0
    checked: int = 0
    unreadable: int = 0
    passed_over: int = 0
    failed: int = 0
    ms: int = 0

    def add(self, one: Told | None) -> None:
        if one is None:
            self.failed += 1
        elif not one.checked:
            self.passed_over += 1
        else:
            self.checked += 1
            self.unreadable += not one.readable
            self.ms += one.ms

    def write(self, tx: Tx, source: str, at: tuple[str, str], hour: int) -> None:
        added: tuple[Any, ...] = (self.seen, self.checked, self.unreadable, self.passed_over, self.failed, self.ms)
        short = int(self.passed_over > 0)
        if not tx.execute(
            "UPDATE hl7_sample SET seen = seen + ?, checked = checked + ?, unreadable = unreadable + ?, "
            "passed_over = passed_over + ?, failed = failed + ?, ms = ms + ?, "
            "hour_ms = CASE WHEN hour = ? THEN hour_ms ELSE 0 END + ?, "
            "spent = CASE WHEN hour = ? AND spent = 1 THEN 1 ELSE ? END, hour = ?, last = ? WHERE source = ?",
            (*added, hour, self.ms, hour, short, hour, at[1], source),
        ):
            tx.execute(
                "INSERT INTO hl7_sample (source, seen, checked, unreadable, passed_over, failed, ms, hour, hour_ms, "
                "spent, first, last) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (source, *added, hour, self.ms, short, *at),
            )


@dataclass(slots=True)
class _Kinds:
    """What one look adds to the row of a finding."""

    first: str
    last: str = ""
    messages: int = 0
    times: int = 0

    def add(self, times: int, at: str) -> None:
        self.messages, self.times, self.last = self.messages + 1, self.times + times, at

    def write(self, tx: Tx, source: str, kind: Kind) -> None:
        event, version, place, code, rule = kind
        if tx.execute(
            "UPDATE hl7_finding SET messages = messages + ?, times = times + ?, last = ? "
            "WHERE source = ? AND event = ? AND version = ? AND place = ? AND rule = ?",
            (self.messages, self.times, self.last, source, event, version, place, rule),
        ):
            return
        ((kinds,),) = tx.read("SELECT COUNT(*) FROM hl7_finding WHERE source = ?", (source,))
        if kinds >= MOST_KINDS and kind != OTHER:
            self.write(tx, source, OTHER)
            return
        tx.execute(
            "INSERT INTO hl7_finding (source, event, version, place, code, rule, messages, times, first, last) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (source, event, version, place, code, rule, self.messages, self.times, self.first, self.last),
        )


def _hour() -> int:
    return int(time.time() // HOUR)
