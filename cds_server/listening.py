"""The feeds that listen: one process for all of an instance's, or of `cds listen NAME...`.

A process of their own, so that a feed's storm and a hook call do not share an interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import uvloop

from adapters.sources.hl7v2_mllp import Mllp
from adapters.sources.room import Room
from cds_server import feed_counts, logs
from cds_server.backlog import digest_backlog
from cds_server.feeds import FeedSource, feed_sources
from cds_server.intake import StoreIntake
from cds_server.lifetime import end_with_parent
from cds_server.logs import log
from cds_server.settings import Settings
from cds_server.source_rules import rules_of
from cds_server.store.store import Store
from models.errors import CdsError, Misconfigured

HANDOVER = 0.0005
"""As in `serve`: the thread that synced the disk must not wait for the interpreter."""
APPLIED_WITHIN = 20.0
"""Seconds that a sender waits at most where it shall hear what became of its message."""
AGAIN = 5.0
"""Seconds after which `cds serve` tries a feed again that could not listen."""
HELD_BY_ALL = 512 << 20
"""Bytes that all connections of all sources hold at most (F9), or four messages where they may be that long."""
TOLD = frozenset({"numbers used again", "oversize", "strangers", "too many connections", "refused", "mistakes"})
"""What is counted and logged, too."""
OTHER_FILES = 256
"""Besides connections: databases, packs, logs."""
Ready = Callable[[str, int], None]
"""(source, port), once connections are taken."""


def listeners(settings: Settings, names: Sequence[str] = ()) -> list[FeedSource]:
    """The sources that listen, all of them or those that are named. Raises Misconfigured."""
    found = {name: each for name, each in feed_sources(settings).items() if each.listening is not None}
    for name in names:
        if name not in found:
            known = ", ".join(found) or "none"
            raise Misconfigured(f"there is no [[source]] that listens by that name in {settings.origin}: {known}")
    return [found[name] for name in names] if names else list(found.values())


def listen(
    settings: Settings, names: Sequence[str] = (), ready: Ready | None = None, *, again: float | None = None
) -> None:
    """Until SIGTERM or SIGINT; frames in progress are finished and answered.

    `again`: seconds after which a feed that cannot listen (an address that is taken, a certificate that cannot be used)
    tries again, while the others go on. Raises: Misconfigured; without `again`, for such a feed too.
    """
    sources = listeners(settings, names)
    if not sources:
        raise Misconfigured(f"no [[source]] of {settings.origin} listens")
    sys.setswitchinterval(HANDOVER)
    _enough_files(sum(each.listening.max_connections for each in sources if each.listening is not None))
    store = Store.open(settings.data_dir, settings.database_url, settings.master)
    try:
        uvloop.run(_listen(settings, store, sources, ready, again))
    finally:
        log().info("listened", count=store.writer.acts, what=f"acts in {store.writer.groups} commits")
        store.close()


def _enough_files(connections: int) -> None:
    """Each connection is an open file, and the usual limit is 1024: raise it as far as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    may = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, may), hard))
    if may < wanted:
        log().warning("fewer open files than connections are allowed", count=may, what=f"wanted {wanted}")


def beside(settings: Settings) -> None:
    """What `cds serve` runs in a process of its own."""
    end_with_parent(signal.SIGTERM)
    logs.configure(settings.log_level)
    try:
        listen(settings, again=AGAIN)
    except CdsError as error:
        log().error("feeds stopped", what=error.what, where=error.where)
        raise SystemExit(error.exit_code) from None


async def _listen(
    settings: Settings, store: Store, sources: Sequence[FeedSource], ready: Ready | None, again: float | None
) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    largest = max((each.listening.max_message for each in sources if each.listening is not None), default=0)
    room: Room[Any] = Room(max(HELD_BY_ALL, 4 * largest))
    tasks = [loop.create_task(_one(settings, store, source, ready, again, room)) for source in sources]
    waiting = loop.create_task(stopping.wait())
    done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in (waiting, *tasks):
        task.cancel()
    await asyncio.gather(waiting, *tasks, return_exceptions=True)
    for task in done:
        if task is not waiting and not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _one(
    settings: Settings, store: Store, source: FeedSource, ready: Ready | None, again: float | None, room: Room[Any]
) -> None:
    def told(port: int) -> None:
        log().info("listening", source=source.name, port=port, pid=os.getpid())
        if ready is not None:
            ready(source.name, port)

    if source.listening is None:
        return
    mllp = Mllp(
        source.listening,
        source.name,
        source.namespace,
        charset=source.feed.charset,
        applied=_Applying(settings, store).applied,
        ready=told,
        room=room,
    )
    counting = asyncio.create_task(feed_counts.keep(store, source.name, mllp.counts.of, TOLD))
    try:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                try:
                    await mllp.run(StoreIntake(store, f"feed:{source.name}"))
                except Misconfigured as error:
                    if again is None:
                        raise
                    log().error("a feed does not listen", source=source.name, what=error.what)
                    await asyncio.sleep(again)
    finally:
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)


class _Applying:
    """Digests a message before its sender is answered (`ack_after = "applied"`), with all that came before it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store
        self._rules = rules_of(settings)
        self._one_at_a_time = asyncio.Lock()

    async def applied(self, landing: str) -> str | None:
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._apply, landing)

    def _apply(self, landing: str) -> str | None:
        found = self._store.reads.landing_by_ref(landing)
        if found is None:
            return "the message is not in the store"
        give_up = time.monotonic() + APPLIED_WITHIN
        while (outcome := self._outcome(found.id)) is None:
            if time.monotonic() > give_up:
                return "the message is stored and not applied yet"
            try:  # ends early where another process digests the same ones
                digest_backlog(
                    self._store,
                    self._settings.joining_systems,
                    "system",
                    validate=False,
                    up_to=found.id,
                    rules=self._rules,
                )
            except CdsError as error:
                return error.what
            time.sleep(0.002)
        return "the message was stored and could not be understood" if outcome else None

    def _outcome(self, landing_id: int) -> int | None:
        """How many parts could not be read; None where it is not digested."""
        found = self._store.reads.one(
            "SELECT SUM(quarantined), COUNT(*) FROM digestion WHERE landing_id = ?", (landing_id,)
        )
        return int(found[0]) if found is not None and found[1] else None
