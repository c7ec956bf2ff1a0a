"""The transaction. Every act writes its rows and its ledger entry together, or nothing.

Acts queue up; whatever queued while the last group was being synced is the next group, in one durable transaction with
one savepoint per act: an act that fails takes nothing else with it, and nobody waits for a timer. An act's future
resolves only after COMMIT returned: returning means durable.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from cds_server.ledger.entry import GENESIS, Cell, Entry, seal_entry
from cds_server.store.engine import Database, translated
from cds_server.store.tables import COLUMNS
from cds_server.store.vault import Vault
from models.errors import RecordUnavailable
from models.nouns import instant

T = TypeVar("T")

_GROUP = 64
_BOOT = uuid.uuid4().hex


class Tx:
    """What one act sees: the connection for look-ups, and the rows and keys it wants to leave behind.

    Rows are written in bulk when the entry closes: until then an act reads what was there before it, unless it asks
    for `flush`. `entry` closes the current ledger entry and opens the next one, for an act that is two verbs (a hook's
    landing, then its digest).
    """

    def __init__(self, connection: Connection, database: Database, vault: Vault, seq: int, previous: bytes) -> None:
        self._connection = connection
        self._database = database
        self.vault = vault
        self.seq = seq
        self._previous = previous
        self._rows: dict[str, list[dict[str, Cell]]] = {}
        self._written: dict[str, int] = {}
        self._count = 0
        self.fresh_keys: dict[bytes, bytes] = {}
        self.entries: list[Entry] = []
        self.now = instant(datetime.now(UTC))

    def add(self, table: str, /, **cells: Cell) -> int:
        """A new row of `table`; gives its id. Columns left out are empty."""
        self._count += 1
        row_id = self.seq << 20 | self._count
        row: dict[str, Cell] = dict.fromkeys(COLUMNS[table])
        row.update(cells)
        row["id"], row["entry"] = row_id, self.seq
        self._rows.setdefault(table, []).append(row)
        return row_id

    def flush(self) -> None:
        """Write the rows added so far, so that this act reads them; they stay part of the entry that is open."""
        for table, members in self._rows.items():
            columns, done = COLUMNS[table], self._written.get(table, 0)
            if len(members) > done:
                self._insert(table, columns, [tuple(row[column] for column in columns) for row in members[done:]])
                self._written[table] = len(members)

    def read(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """Rows of a query written with `?`."""
        return list(self._connection.exec_driver_sql(self._database.sql(statement), parameters).fetchall())

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> int:
        """For the one table that is not governed (`lease`): rows changed."""
        return self._connection.exec_driver_sql(self._database.sql(statement), parameters).rowcount

    def entry(self, kind: str, actor: str, detail: Mapping[str, Any]) -> Entry:
        """Write the rows added so far, and the ledger entry over them."""
        rows = [(table, row) for table in COLUMNS if table in self._rows for row in self._rows[table]]
        entry = seal_entry(
            self.seq,
            self._previous,
            kind=kind,
            at=self.now,
            actor=actor,
            boot=_BOOT,
            mono_ns=time.monotonic_ns(),
            rows=rows,
            detail=detail,
        )
        self.flush()
        self._insert(
            "ledger_entry",
            ("seq", "body", "leaf", "chain", "row_leaves"),
            [(entry.seq, entry.body, entry.leaf, entry.chain, entry.row_leaves)],
        )
        self.entries.append(entry)
        self.seq, self._previous = self.seq + 1, entry.chain
        self._rows, self._written, self._count = {}, {}, 0
        return entry

    def _insert(self, table: str, columns: tuple[str, ...], rows: list[tuple[Cell, ...]]) -> None:
        statement = f'INSERT INTO "{table}" ({", ".join(columns)}) VALUES ({", ".join("?" * len(columns))})'
        if len(rows) == 1:
            self._connection.exec_driver_sql(self._database.sql(statement), rows[0])
        else:
            self._connection.exec_driver_sql(self._database.sql(statement), rows)

    def finish(self) -> None:
        if self._rows:
            raise AssertionError("an act added rows without a ledger entry over them")

    @property
    def head(self) -> tuple[int, bytes]:
        return self.seq - 1, self._previous


@dataclass(slots=True)
class _Act(Generic[T]):
    run: Callable[[Tx], T]
    future: Future[T] = field(default_factory=Future)


class Writer:
    """The only thread that writes."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._queue: queue.SimpleQueue[_Act[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="cds-writer", daemon=True)
        self._thread.start()
        self.groups = 0
        self.acts = 0

    def submit(self, run: Callable[[Tx], T]) -> Future[T]:
        """Queue an act. Its future holds the result once it is durable, or the error that refused it."""
        act = _Act(run)
        self._queue.put(act)
        return act.future

    async def write(self, run: Callable[[Tx], T]) -> T:
        """`submit`, awaited."""
        return await asyncio.wrap_future(self.submit(run))

    def close(self) -> None:
        """Finish what is queued, then stop."""
        self._queue.put(None)
        self._thread.join(timeout=30)

    def _loop(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            group, last = [first], False
            while len(group) < _GROUP:
                try:
                    act = self._queue.get_nowait()
                except queue.Empty:
                    break
                if act is None:
                    last = True
                    break
                group.append(act)
            self._commit(group)
            if last:
                return

    def _commit(self, queued: list[_Act[Any]]) -> None:
        # From here on an act cannot be cancelled: a caller that goes away (a client that hangs up) must not find the
        # writer setting a result on a future that is gone, which would end this thread and with it every later act.
        group = [act for act in queued if act.future.set_running_or_notify_cancel()]
        if not group:
            return
        done: list[tuple[_Act[Any], Any]] = []
        failed: list[tuple[_Act[Any], BaseException]] = []
        keys: dict[bytes, bytes] = {}
        try:
            with self._database.writing() as connection:
                seq, chain = head(connection)
                for act in group:
                    tx = Tx(connection, self._database, self._vault, seq + 1, chain)
                    savepoint = connection.begin_nested() if len(group) > 1 else None
                    try:
                        result = act.run(tx)
                        tx.finish()
                    except Exception as error:
                        failed.append((act, error))
                        if savepoint is None:
                            raise
                        savepoint.rollback()
                        continue
                    if savepoint is not None:
                        savepoint.commit()
                    keys.update(tx.fresh_keys)
                    seq, chain = tx.head
                    done.append((act, result))
                if keys:
                    self._vault.keys.put(keys.items())  # durable before the rows that need them
        except Exception as cause:  # noqa: BLE001 (whatever it is, each waiting caller gets it)
            refused = _translated(cause)
            for act in group:
                own = next((problem for failed_act, problem in failed if failed_act is act), None)
                act.future.set_exception(refused if own is None else _translated(own))
            return
        self.groups += 1
        self.acts += len(done)
        for act, problem in failed:
            act.future.set_exception(_translated(problem))
        for act, result in done:
            act.future.set_result(result)


def _translated(error: BaseException) -> BaseException:
    if isinstance(error, DBAPIError):
        return translated(error)
    if isinstance(error, OSError):
        return RecordUnavailable(f"the record cannot be written ({error.strerror})")
    return error


def head(connection: Connection) -> tuple[int, bytes]:
    """(sequence number, chain hash) of the last entry; (0, genesis) for an empty log."""
    row = connection.exec_driver_sql("SELECT seq, chain FROM ledger_entry ORDER BY seq DESC LIMIT 1").fetchone()
    return (int(row[0]), bytes(row[1])) if row else (0, GENESIS)
