"""A feed that says nothing is a fault that nobody sends: it is noticed here, and told once until it speaks again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cds_server.feeds import FeedSource
from cds_server.store.store import Store
from cds_server.store.writer import Tx

LOOK = 15.0
"""Seconds between two looks."""
REASON = "silent-feed"


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of one feed's messages."""

    source: str
    seconds: float | None
    """Since the last message; None: there was none ever."""
    waiting: int
    """Messages that are durable and not digested."""


def heard(store: Store, sources: Sequence[FeedSource]) -> list[Heard]:
    now = datetime.now(UTC)
    found = []
    for source in sources:
        last = store.reads.one(
            "SELECT received_at FROM landing WHERE source = ? ORDER BY id DESC LIMIT 1", (source.name,)
        )
        waiting = store.reads.one(
            "SELECT COUNT(*) FROM landing l LEFT JOIN digestion d ON d.landing_id = l.id "
            "WHERE l.source = ? AND d.id IS NULL",
            (source.name,),
        )
        seconds = (now - datetime.fromisoformat(last[0])).total_seconds() if last else None
        found.append(Heard(source.name, seconds, int(waiting[0]) if waiting else 0))
    return found


class Silence:
    """Watches the feeds that shall not be silent for long (`silence_minutes`)."""

    def __init__(self, store: Store, sources: Sequence[FeedSource]) -> None:
        self._store = store
        self._watched = {
            each.name: (each, 60.0 * each.listening.silence_minutes)
            for each in sources
            if each.listening is not None and each.listening.silence_minutes
        }
        self._looked = float("-inf")
        self._began = time.monotonic()

    def look(self) -> int:
        """Flag what is silent, close what speaks again; gives how many changed. Cheap within `LOOK` seconds."""
        now = time.monotonic()
        if not self._watched or now - self._looked < LOOK:
            return 0
        self._looked = now
        changed = 0
        for each in heard(self._store, [source for source, _ in self._watched.values()]):
            _, most = self._watched[each.source]
            silent = now - self._began if each.seconds is None else each.seconds
            changed += self._tell(each.source, int(most / 60), silent > most)
        return changed

    def _tell(self, source: str, minutes: int, silent: bool) -> int:
        detail = f"no message from {source} for {minutes} minutes"
        rows = self._store.reads.query(
            "SELECT f.id FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
            "WHERE f.reason = ? AND f.detail = ? AND c.id IS NULL",
            (REASON, detail),
        )
        if bool(rows) == silent:
            return 0

        def act(tx: Tx) -> None:
            if silent:
                tx.add("flag", kind="flag", reason=REASON, detail=detail, at=tx.now)
            for (flag_id,) in rows:
                tx.add("flag_closing", flag_id=flag_id, resolution="the feed speaks again", at=tx.now)
            tx.entry("silence" if silent else "resolve", "system", {"source": source})

        self._store.writer.submit(act).result()
        return 1
