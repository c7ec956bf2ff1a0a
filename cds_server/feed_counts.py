"""What happens on feeds, counted where it happens, and asked for in another process: numbers by source and by words of
ours. They only grow, over restarts too; but for what is `NOW`, which is what it is at present."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from cds_server.logs import log
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import CdsError

if TYPE_CHECKING:
    from cds_server.reading import PartRead

COUNT = 5.0
"""Seconds between two times that counts are kept."""
ODD = "odd: "
"""Before the code of what was odd about a message that was read."""
NOW = "now: "
"""Before what comes and goes, such as open associations. Who was killed leaves its last word until it is back."""


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


def say(tx: Tx, source: str, what: str, count: int) -> None:
    """How many there are of what comes and goes."""
    tx.execute(
        "INSERT INTO feed_count (source, what, count) VALUES (?, ?, ?) "
        "ON CONFLICT (source, what) DO UPDATE SET count = excluded.count",
        (source, NOW + what, count),
    )


async def keep(
    store: Store,
    source: str,
    counted: Counter[str],
    told: frozenset[str] = frozenset(),
    present: Mapping[str, Callable[[], int]] | None = None,
) -> None:
    """Keep what a listener counts where others can ask for it, every `COUNT` seconds and at the end, until cancelled.

    told: what is logged as a warning, too. present: what comes and goes, and how many of it there are; none at the end.
    """
    kept: Counter[str] = Counter()
    said: dict[str, int] = {}
    ending = False
    while True:
        over = ending
        try:
            await asyncio.sleep(0 if ending else COUNT)
        except asyncio.CancelledError:
            over = True
        more = counted - kept
        for what in told & more.keys():
            log().warning("feed", source=source, what=what, count=more[what])
        now = {what: 0 if over else count() for what, count in (present or {}).items()}
        changed = {what: count for what, count in now.items() if said.get(what) != count}
        if more or changed:
            act = functools.partial(_kept, source=source, more=more, changed=changed)
            writing = asyncio.ensure_future(store.writer.write(act))
            ending = await _to_its_end(writing)  # then there is a last round to come
            try:
                writing.result()
                kept += more
                said |= changed
            except CdsError as error:
                log().error("a count of a feed was not kept", source=source, what=error.what)
        if over:
            return


async def _to_its_end(work: asyncio.Future[None]) -> bool:
    """Wait for what cannot be left half done; whether somebody wanted an end of it all meanwhile."""
    ending = False
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            ending = True
    return ending


def _kept(tx: Tx, source: str, more: Mapping[str, int], changed: Mapping[str, int]) -> None:
    add(tx, source, more)
    for what, count in changed.items():
        say(tx, source, what, count)


def count_oddities(tx: Tx, source: str, parts: Iterable[PartRead]) -> None:
    """Count the messages of these parts with each oddity."""
    found = Counter(ODD + note for part in parts for read in part.reads for note in read.statement.notes)
    if found:
        add(tx, source, found)


def counts(store: Store) -> list[Counted]:
    """All of them, by source and word."""
    rows = store.reads.query("SELECT source, what, count FROM feed_count ORDER BY source, what")
    return [Counted(source, what, int(count)) for source, what, count in rows]
