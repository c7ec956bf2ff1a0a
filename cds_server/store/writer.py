"""The transaction. Every act writes its rows and its ledger entry together, or nothing.

Acts queue up; whatever queued while the last group was being synced is the next group, in one durable transaction with
one savepoint per act: an act that fails takes nothing else with it, and nobody waits for a timer. An act's future
resolves only after COMMIT returned: returning means durable, unless the act is one that can be repeated.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import DBAPICursor

from cds_server.ledger.entry import GENESIS, Cell, Entry, seal_entry
from cds_server.store.copier import AFTER, AFTER_IN_A_THREAD, Copier
from cds_server.store.disk_thread import DiskThread
from cds_server.store.engine import Database, Transaction, Turn
from cds_server.store.ready import NO_KEYS
from cds_server.store.tables import COLUMNS
from cds_server.store.vault import Vault
from models.errors import CdsError
from models.nouns import instant_now

T = TypeVar("T")

_GROUP = 64
_HOLD, _HOLD_UNSYNCED = 0.005, 0.001
"""Seconds of acts after which a group in a thread is closed, full or not: others wait for the lock. One that syncs
nothing has little to gain from being large, and a call would wait for it twice."""
_TURN = 0.0003
"""Seconds between two such groups: a lock that is taken back at once is never had by whoever waits for it."""
_SOON, _LOOK = 0.003, 0.00005
"""Seconds that an act which is done at once waits for the lock, looking so often: another process's commit takes no
longer, and an event loop can do without its thread for so long."""
_BOOT = uuid.uuid4().hex
_HEAD = "SELECT seq, chain FROM ledger_entry ORDER BY seq DESC LIMIT 1"


def _insert(table: str, columns: tuple[str, ...]) -> str:
    return f'INSERT INTO "{table}" ({", ".join(columns)}) VALUES ({", ".join("?" * len(columns))})'


_INSERT = {table: _insert(table, columns) for table, columns in COLUMNS.items()}
_INSERT_ENTRY = _insert("ledger_entry", ("seq", "body", "leaf", "chain", "row_leaves"))
_PLACE = {table: place for place, table in enumerate(COLUMNS)}
"""Where an entry lists the rows of a table."""


class Tx:
    """What one act sees: the connection for look-ups, and the rows and keys it wants to leave behind.

    Rows are written in bulk when the entry closes: until then an act reads what was there before it, unless it asks
    for `flush`. `entry` closes the current ledger entry and opens the next one, for an act that is two verbs (a hook's
    landing, then its digest).
    """

    __slots__ = (
        "_count",
        "_cursor",
        "_database",
        "_previous",
        "_rows",
        "_written",
        "fresh_keys",
        "now",
        "rows",
        "seq",
        "vault",
    )

    def __init__(self, cursor: DBAPICursor, database: Database, vault: Vault, seq: int, previous: bytes) -> None:
        self._cursor = cursor
        self._database = database
        self.vault = vault
        self.seq = seq
        self._previous = previous
        self._rows: dict[str, list[dict[str, Cell]]] = {}
        self._written: dict[str, int] = {}
        self._count = 0
        self.rows = 0
        """Under the entries that were closed."""
        self.fresh_keys: dict[bytes, bytes] = {}
        self.now = instant_now()

    def add(self, table: str, /, **cells: Cell) -> int:
        """A new row of `table`; gives its id. Columns left out are empty."""
        self._count += 1
        row_id = self.seq << 20 | self._count
        cells["id"], cells["entry"] = row_id, self.seq
        if table in self._rows:
            self._rows[table].append(cells)
        else:
            self._rows[table] = [cells]
        return row_id

    def flush(self) -> None:
        """Write the rows added so far, so that this act reads them; they stay part of the entry that is open."""
        for table, members in self._rows.items():
            columns, done = COLUMNS[table], self._written.get(table, 0)
            rows = [tuple(map(row.get, columns)) for row in (members[done:] if done else members)]
            if rows:
                statement = self._database.sql(_INSERT[table])
                if len(rows) == 1:
                    self._cursor.execute(statement, rows[0])
                else:
                    self._cursor.executemany(statement, rows)
                self._written[table] = len(members)

    def read(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """Rows of a query written with `?`."""
        self._cursor.execute(self._database.sql(statement), parameters)
        return list(self._cursor.fetchall())

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> int:
        """For the one table that is not governed (`lease`): rows changed."""
        self._cursor.execute(self._database.sql(statement), parameters)
        return int(self._cursor.rowcount)

    def entry(self, kind: str, actor: str, detail: Mapping[str, Any]) -> Entry:
        """Write the rows added so far, and the ledger entry over them."""
        entry = seal_entry(
            self.seq,
            self._previous,
            kind=kind,
            at=self.now,
            actor=actor,
            boot=_BOOT,
            mono_ns=time.monotonic_ns(),
            rows={table: self._rows[table] for table in sorted(self._rows, key=_PLACE.__getitem__)},
            detail=detail,
        )
        self.flush()
        self._cursor.execute(
            self._database.sql(_INSERT_ENTRY), (entry.seq, entry.body, entry.leaf, entry.chain, entry.row_leaves)
        )
        self.seq, self._previous = self.seq + 1, entry.chain
        self.rows += self._count
        self._rows, self._written, self._count = {}, {}, 0
        return entry

    def finish(self) -> None:
        if self._rows:
            raise AssertionError("an act added rows without a ledger entry over them")

    @property
    def head(self) -> tuple[int, bytes]:
        return self.seq - 1, self._previous


@dataclass(slots=True, eq=False)
class _Act(Generic[T]):
    run: Callable[[Tx], T]
    future: Future[T] | asyncio.Future[T]
    repeatable: bool
    keys: Mapping[bytes, bytes]
    """Keys that its rows will need, as far as they are known before it runs and not on disk yet."""
    before: Callable[[], None] | None = None
    """What else must be on disk before its rows."""

    def begin(self) -> bool:
        """Whether the caller still waits.

        From here on an act cannot be cancelled: a caller that goes away (a client that hangs up) must not find the
        writer setting a result on a future that is gone, which would end it.
        """
        if isinstance(self.future, Future):
            return self.future.set_running_or_notify_cancel()
        return not self.future.cancelled()

    def answer(self, result: T | None, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)  # type: ignore[arg-type]


class _Group:
    """One durable transaction over several acts: opened, filled act by act, closed; each step on any thread."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._transaction: Transaction | None = None
        self._keys: dict[bytes, bytes] = {}
        self.outcomes: list[tuple[_Act[Any], Any, BaseException | None]] = []
        self.rows = 0

    def open(self, turn: Turn, *, synced: bool = True) -> None:
        """Begin. The turn is the transaction's from here on."""
        self._transaction = self._database.begin(turn, synced=synced)
        self._began = time.monotonic()
        self._cursor = self._transaction.cursor
        self._seq, self._chain = _head_by(self._cursor)

    @property
    def held(self) -> float:
        """Seconds since it has the lock."""
        return time.monotonic() - self._began

    def run(self, act: _Act[Any]) -> None:
        """One act under its savepoint. What it raises is its own; what breaks the transaction itself is raised here."""
        tx = Tx(self._cursor, self._database, self._vault, self._seq + 1, self._chain)
        self._cursor.execute("SAVEPOINT act")
        try:
            result = act.run(tx)
            tx.finish()
        except Exception as error:  # noqa: BLE001 (whatever it is, it belongs to this act's caller)
            self.outcomes.append((act, None, self._database.translated(error)))
            self._cursor.execute("ROLLBACK TO SAVEPOINT act")
        else:
            self.outcomes.append((act, result, None))
            if tx.fresh_keys:
                self._vault.unsaved.update(tx.fresh_keys)
                self._keys.update(tx.fresh_keys)
            self._seq, self._chain = tx.head
            self.rows += tx.rows
        self._cursor.execute("RELEASE SAVEPOINT act")

    def sync(self) -> None:
        """Make it durable: first the keys that came up in the acts, then the rows that need them. Nothing but waiting
        for disks; whoever waits for the lock has it before the thread that asked for this hears of it."""
        if self._keys:
            self._vault.keys.put(self._keys.items())
        if self._transaction is not None:
            self._transaction.commit()

    def close(self) -> None:
        """Its keys are on disk, or of nothing."""
        for ref in self._keys:
            self._vault.unsaved.pop(ref, None)

    def give_up(self) -> None:
        """Roll back; the lock is free again."""
        if self._transaction is not None:
            self._transaction.roll_back()
        self.close()


class Writer:
    """The only one that writes, for callers in threads (`submit`) and on an event loop (`write`).

    On the event loop the acts themselves run on the loop and only waiting for locks and disks happens elsewhere: two
    threads that both want the interpreter would spend more time on handing it over than on the acts.
    """

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._queue: queue.SimpleQueue[_Act[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._waiting: deque[_Act[Any]] = deque()
        self._draining: asyncio.Task[None] | None = None
        self._disk = DiskThread("cds-disk")
        self._copier = Copier(database)
        self.groups = 0
        self.acts = 0

    def submit(
        self,
        run: Callable[[Tx], T],
        *,
        repeatable: bool = False,
        keys: Mapping[bytes, bytes] = NO_KEYS,
        before: Callable[[], None] | None = None,
    ) -> Future[T]:
        """Queue an act. Its future holds the result once it is durable, or the error that refused it.

        `keys`: those that its rows will need and that are known already. They are on disk before the write lock is
        taken, with those of the other acts of its group; where it is refused they are of nothing, and do no harm.
        `before`: called where the keys are stored, for what else its rows need on disk; what it raises refuses the act.
        `repeatable`: of an act that nobody was promised, and that is done again where a power cut undoes it. It waits
        for no disk; whatever is synced after it syncs it too.
        """
        future: Future[T] = Future()
        return self._queued(_Act(run, future, repeatable, keys, before), future)

    def at_once(
        self,
        run: Callable[[Tx], T],
        *,
        keys: Mapping[bytes, bytes] = NO_KEYS,
        before: Callable[[], None] | None = None,
    ) -> Future[T]:
        """As `submit`, but in this thread, unless somebody else writes and goes on to: for whoever has nothing else to
        do but to wait, and would pay for two more threads' turns at the interpreter. PostgreSQL: as `submit`."""
        future: Future[T] = Future()
        act = _Act(run, future, False, keys, before)
        if not self._database.sqlite:
            return self._queued(act, future)
        try:
            self._store_keys([act])
        except Exception as cause:  # noqa: BLE001 (as in `_commit`)
            self._refuse([act], cause)
            return future
        try:
            turn = self._turn_soon()
        except BlockingIOError:
            return self._queued(act, future)
        except CdsError as cause:
            self._refuse([act], cause)
            return future
        self._grouped(deque([act]), turn)
        return future

    def _turn_soon(self) -> Turn:
        """The lock, if whoever has it gives it back within `_SOON`. Raises BlockingIOError, and as `Database.turn`."""
        give_up = time.monotonic() + _SOON
        while True:
            try:
                return self._database.turn(wait=False)
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise
            time.sleep(_LOOK)

    def _queued(self, act: _Act[T], future: Future[T]) -> Future[T]:
        self._queue.put(act)
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="cds-writer", daemon=True)
                self._thread.start()
        return future

    async def write(self, run: Callable[[Tx], T], *, keys: Mapping[bytes, bytes] = NO_KEYS) -> T:
        """The result of an act, once it is durable. `keys`: as in `submit`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Act(run, future, False, keys))
        if self._draining is None or self._draining.done():
            self._draining = loop.create_task(self._drain())
        return await future

    def close(self) -> None:
        """Finish what is queued, then stop."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=30)
        self._disk.close()
        self._copier.close()

    # -- on the event loop ---------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        while self._waiting:
            early = _needing_keys(self._waiting)
            if early:
                try:
                    await self._disk.run(self._store_keys, early)
                except BaseException as cause:
                    self._refuse_early(self._waiting, early, cause)
                    if not isinstance(cause, Exception):
                        raise
                    continue
            group = _Group(self._database, self._vault)
            acts: list[_Act[Any]] = []
            try:
                try:
                    turn = self._database.turn(wait=False)
                except BlockingIOError:
                    turn = await self._disk.run(self._database.turn)
                if self._database.sqlite:
                    group.open(turn)
                else:  # to ask is to wait for another machine
                    await self._disk.run(group.open, turn)
                while self._waiting and len(acts) < _GROUP and not self._waiting[0].keys:
                    acts.append(self._waiting.popleft())
                    if acts[-1].begin():
                        group.run(acts[-1])
                await self._disk.run(group.sync)
                group.close()
            except BaseException as cause:
                group.give_up()
                self._refuse(acts or [self._waiting.popleft()], cause)
                if not isinstance(cause, Exception):
                    raise
            else:
                self._answer(group)
                self._copier.wrote(group.rows, AFTER)

    # -- in a thread ---------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        waiting: deque[_Act[Any]] = deque()
        last = False
        while waiting or not last:
            if not waiting:
                last = self._take(self._queue.get(), waiting)
            while not last and len(waiting) < _GROUP:
                try:
                    last = self._take(self._queue.get_nowait(), waiting)
                except queue.Empty:
                    break
            if waiting:
                self._commit(waiting)
            if waiting:
                time.sleep(_TURN)

    @staticmethod
    def _take(act: _Act[Any] | None, waiting: deque[_Act[Any]]) -> bool:
        """Whether it was the last."""
        if act is not None:
            waiting.append(act)
        return act is None

    def _commit(self, waiting: deque[_Act[Any]]) -> None:
        """One transaction over as many of these as it may hold the lock for; takes them out."""
        early = _needing_keys(waiting)
        if early:
            try:
                self._store_keys(early)
            except Exception as cause:  # noqa: BLE001 (as below)
                self._refuse_early(waiting, early, cause)
                return
        self._grouped(waiting, None)

    def _grouped(self, waiting: deque[_Act[Any]], turn: Turn | None) -> None:
        """`turn`: had already."""
        acts: list[_Act[Any]] = []
        group = _Group(self._database, self._vault)
        try:
            repeatable = waiting[0].repeatable
            group.open(turn or self._database.turn(), synced=not repeatable)
            hold = _HOLD_UNSYNCED if repeatable else _HOLD
            while (
                waiting
                and waiting[0].repeatable is repeatable
                and len(acts) < _GROUP
                and (group.held < hold or not acts)  # one at least, however long the beginning took
            ):
                acts.append(waiting.popleft())
                if acts[-1].begin():
                    group.run(acts[-1])
            group.sync()
            group.close()
        except Exception as cause:  # noqa: BLE001 (whatever it is, each waiting caller gets it)
            group.give_up()
            self._refuse(acts or [waiting.popleft()], cause)
        else:
            self._answer(group)
            self._copier.wrote(group.rows, AFTER_IN_A_THREAD)

    # -- both ----------------------------------------------------------------------------------------------------------

    def _store_keys(self, acts: Sequence[_Act[Any]]) -> None:
        """On disk, before the lock: one sync for all of them, and nobody waits for it but their callers."""
        if keys := [key for act in acts for key in act.keys.items()]:
            self._vault.keys.put(keys)
        for act in acts:
            if act.before is not None:
                act.before()
            act.keys, act.before = NO_KEYS, None

    def _refuse_early(self, waiting: deque[_Act[Any]], acts: Sequence[_Act[Any]], cause: BaseException) -> None:
        for act in acts:
            waiting.remove(act)
        self._refuse(acts, cause)

    def _answer(self, group: _Group) -> None:
        self.groups += 1
        self.acts += len(group.outcomes)
        for act, result, error in group.outcomes:
            act.answer(result, error)

    def _refuse(self, acts: Iterable[_Act[Any]], cause: BaseException) -> None:
        """The transaction itself failed: nobody's act is durable, and each caller hears why."""
        error = self._database.translated(cause)
        for act in acts:
            act.answer(None, error)


def _needing_keys(waiting: Iterable[_Act[Any]]) -> list[_Act[Any]]:
    """Those of the next group."""
    return [act for act in itertools.islice(waiting, _GROUP) if act.keys or act.before is not None]


def _head_by(cursor: DBAPICursor) -> tuple[int, bytes]:
    cursor.execute(_HEAD)
    row = cursor.fetchone()
    return (int(row[0]), bytes(row[1])) if row else (0, GENESIS)


def head(connection: Connection) -> tuple[int, bytes]:
    """(sequence number, chain hash) of the last entry; (0, genesis) for an empty log."""
    row = connection.exec_driver_sql(_HEAD).fetchone()
    return (int(row[0]), bytes(row[1])) if row else (0, GENESIS)
