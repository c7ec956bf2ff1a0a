"""What happens on feeds, counted where it happens, and asked for in another process: numbers by source and by words of
ours. They only grow, over restarts too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cds_server.reading import PartRead
from cds_server.store.store import Store
from cds_server.store.writer import Tx

ODD = "odd: "
"""Before the code of what was odd about a message that was read."""


class Counted(NamedTuple):
    source: str
    what: str
    times: int


def add(tx: Tx, source: str, more: Mapping[str, int]) -> None:
    """Count so many more of each."""
    for what, count in more.items():
        tx.execute(
            "INSERT INTO feed_count (source, what, count) VALUES (?, ?, ?) "
            "ON CONFLICT (source, what) DO UPDATE SET count = feed_count.count + excluded.count",
            (source, what, count),
        )


def count_oddities(tx: Tx, source: str, parts: Iterable[PartRead]) -> None:
    """Count the messages of these parts with each oddity."""
    found = Counter(ODD + note for part in parts for read in part.reads for note in read.statement.notes)
    if found:
        add(tx, source, found)


def counts(store: Store) -> list[Counted]:
    """All of them, by source and word."""
    rows = store.reads.query("SELECT source, what, count FROM feed_count ORDER BY source, what")
    return [Counted(source, what, int(count)) for source, what, count in rows]
