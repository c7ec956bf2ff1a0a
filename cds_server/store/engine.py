"""Opening the database: SQLite by default, PostgreSQL by URL; what differs between the two stands in this file."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection

from models.errors import CdsError, DatabaseGone, DiskFull, ReadOnlyStore, RecordUnavailable

_LEDGER_LOCK = 0x6364_735F_6C6F_67
"""Key of the PostgreSQL advisory lock under which the next sequence number is taken (`cds_log`)."""
WAL_PAGES = 10_000
"""Pages (40 MB) of write-ahead log at which a commit copies them into the database and makes others wait; a server
has it done beside its commits, often and little (`checkpoint`)."""
_PATIENCE = 20.0
"""Seconds to wait for the write lock before saying that the record is unavailable."""


class _Gate:
    """A file lock that is also one between threads: flock does not tell two of one process apart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._threads = threading.Lock()

    def take(self, *, wait: bool) -> None:
        """Raises: BlockingIOError where somebody else has it and we shall not `wait`; OSError."""
        if not self._threads.acquire(blocking=wait):
            raise BlockingIOError
        try:
            if self._file is None:
                self._file = self._opened()
            fcntl.flock(self._file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self._threads.release()
            raise

    def give_back(self) -> None:
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._threads.release()

    def _opened(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return os.open(self._path, os.O_RDONLY)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Turn:
    """The gate, had; given back once, by whichever thread."""

    _gate: _Gate | None = None

    def __init__(self, gate: _Gate | None, *, wait: bool) -> None:
        if gate is not None:
            gate.take(wait=wait)
        self._gate = gate

    def end(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.give_back()

    __del__ = end  # of an event loop that ended while a thread was still waiting for it


class _Kept:
    """A connection of the driver with a cursor, and whether its commits are synced."""

    __slots__ = ("connection", "cursor", "synced")

    def __init__(self, connection: PoolProxiedConnection | DBAPIConnection) -> None:
        self.connection, self.synced = connection, True
        self.cursor = connection.cursor()


class Transaction:
    """A write transaction that began; ended once, by whichever thread is first."""

    __slots__ = ("_connection", "_done", "_last", "_turn", "cursor")

    def __init__(self, turn: Turn, kept: _Kept, done: Callable[[_Kept], None]) -> None:
        self._turn, self._connection, self._last, self._done = turn, kept.connection, [kept], done
        self.cursor = kept.cursor
        """The driver's own."""

    def commit(self) -> None:
        """What was written is durable when this returns, and the lock is free. Raises: the driver's errors; the
        transaction is open then."""
        self._connection.commit()
        self._end(self._done)

    def roll_back(self) -> None:
        """As if it had never been; nothing where it was committed already. The connection is not used again: one that
        was opened while the store was read-only stays so."""
        with contextlib.suppress(Exception):
            self._connection.rollback()
        self._end(_closed)

    def _end(self, done: Callable[[_Kept], None]) -> None:
        with contextlib.suppress(IndexError):
            done(self._last.pop())
            self._turn.end()


def _closed(kept: _Kept) -> None:
    with contextlib.suppress(Exception):
        kept.connection.close()


class Database:
    """An engine, and the two things that the rest of the store does with it: read, and write alone."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self.url = url
        self.sqlite = url.startswith("sqlite")
        if self.sqlite:
            self.engine: Engine = create_engine(
                url, connect_args={"check_same_thread": False, "timeout": 0.05}, pool_size=8
            )
            event.listen(self.engine, "connect", _sqlite_connect)
            event.listen(self.engine, "begin", _sqlite_begin)
        else:
            self.engine = create_engine(url, pool_size=8, pool_pre_ping=True)
        self._gate = _Gate(data_dir / "write.lock") if self.sqlite else None
        self._idle: list[_Kept] = []
        """Connections that groups of acts were written on, for the next ones."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for reads; errors of the driver come out as ours."""
        try:
            with self.engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise translated(error.orig) from None

    def turn(self, *, wait: bool = True) -> Turn:
        """The right to write, of one caller at a time across threads and processes. Waits for nothing else.

        Without `wait`: BlockingIOError at once where somebody else has it. On PostgreSQL everybody gets one, and
        `writing` waits for the server's own lock. Raises: RecordUnavailable and its kinds.
        """
        try:
            return Turn(self._gate, wait=wait)
        except BlockingIOError:
            raise
        except OSError as error:
            raise translated_os(error) from None

    def begin(self, turn: Turn, *, synced: bool = True) -> Transaction:
        """A write transaction on the driver's own connection, for what every hook call runs: `commit` or `roll_back`
        ends it. `turn`: the file lock, had; it is the transaction's from here on, also where this raises.

        Not `synced`: a commit waits for no disk; a power cut may undo it, whole, and nothing of what came before it.
        The next synced commit, here or in another process, syncs it as well (sqlite.org/pragma.html#pragma_synchronous,
        NORMAL with a write-ahead log; PostgreSQL, asynchronous commit).

        Raises: the driver's errors (`translated` makes them ours).
        """
        try:
            kept = self._idle.pop() if self._idle else self._connected()
            try:
                if self.sqlite:
                    if kept.synced is not synced:
                        kept.cursor.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
                        kept.synced = synced
                    self._begin_alone(kept.cursor.execute)
                else:
                    self._begin_alone(kept.cursor.execute)
                    if not synced:
                        kept.cursor.execute("SET LOCAL synchronous_commit = off")
            except BaseException:
                _closed(kept)
                raise
        except BaseException:
            turn.end()
            raise
        return Transaction(turn, kept, self._idle.append if self.sqlite else _closed)

    def _connected(self) -> _Kept:
        """SQLite: a connection of our own, that stays. PostgreSQL: the pool's, which goes back to it each time: the
        pool asks it whether it still lives."""
        connection = self.engine.raw_connection()
        own = connection.dbapi_connection
        if not self.sqlite or own is None:
            return _Kept(connection)
        connection.detach()
        return _Kept(own)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """The one write transaction of this instance at a time, across threads and processes; commits at the end."""
        turn = self.turn()
        try:
            with self.engine.connect() as connection, connection.begin():
                self._begin_alone(connection.exec_driver_sql)
                yield connection
        except DBAPIError as error:
            raise translated(error.orig) from None
        except OSError as error:
            raise translated_os(error) from None
        finally:
            turn.end()

    def try_writing(self) -> None:
        """Change nothing, on the very connection that acts are written on. Raises RecordUnavailable and its kinds."""
        turn = self.turn()
        try:
            transaction = self.begin(turn)
            try:
                transaction.cursor.execute(
                    "UPDATE lease SET until = until WHERE name = ''"
                )  # one that is read-only refuses
                transaction.commit()
            except BaseException:
                transaction.roll_back()
                raise
        except (DBAPIError, self.engine.dialect.loaded_dbapi.Error, OSError) as error:
            raise self.translated(error) from None

    def _begin_alone(self, execute: Callable[[str], object]) -> None:
        """SQLite: the file lock is had (waiters are woken at once and in turn, unlike SQLite's own polling), so BEGIN
        IMMEDIATE. PostgreSQL: an advisory lock held to the end of the transaction."""
        if not self.sqlite:
            execute(f"SELECT pg_advisory_xact_lock({_LEDGER_LOCK})")
            return
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                execute("BEGIN IMMEDIATE")
                return
            except (DBAPIError, sqlite3.OperationalError) as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.001)

    def checkpoint(self) -> None:
        """SQLite: copy the write-ahead log into the database, as far as nobody has to wait for it."""
        if self.sqlite:
            with self.reading() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def cursor(self, connection: Connection) -> DBAPICursor:
        """The driver's own cursor of a connection: for the statements that every hook call runs."""
        return connection.connection.cursor()

    def translated(self, error: BaseException) -> BaseException:
        """Errors of the driver and of the disk as ours; any other as it is."""
        if isinstance(error, DBAPIError):
            return translated(error.orig)
        if isinstance(error, self.engine.dialect.loaded_dbapi.Error):
            return translated(error)
        return translated_os(error) if isinstance(error, OSError) else error

    @functools.lru_cache(maxsize=512)  # noqa: B019 (one database lives as long as its process)
    def sql(self, statement: str) -> str:
        """A statement written with `?` in the driver's own parameter style."""
        return statement if self.sqlite else statement.replace("%", "%%").replace("?", "%s")

    def close(self) -> None:
        while self._idle:
            _closed(self._idle.pop())
        self.engine.dispose()
        if self._gate is not None:
            self._gate.close()


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are ours: the driver's own BEGIN is deferred and loses appends
    cursor = connection.cursor()
    for pragma in (
        "busy_timeout=20000",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "cache_size=-65536",
        f"wal_autocheckpoint={WAL_PAGES}",
        "mmap_size=1073741824",
        "secure_delete=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.execute("PRAGMA busy_timeout=50")
    cursor.close()


def _sqlite_begin(_connection: Connection) -> None:
    """Nothing: `writing` says BEGIN IMMEDIATE itself, and reads need no transaction."""


def copy_sqlite(source: Path, to: Path) -> None:
    """A consistent copy through SQLite's own backup, which also takes what is still in the write-ahead log."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as original,
            contextlib.closing(sqlite3.connect(to)) as copy,
        ):
            original.backup(copy)
    except sqlite3.Error as error:
        raise RecordUnavailable(
            f"a database file cannot be copied ({type(error).__name__})", where=source.name
        ) from None
    os.chmod(to, 0o600)


def translated(error: BaseException | None) -> CdsError:
    """The driver's error as one of ours: the kind and the place, never the statement or its values."""
    text = str(error).lower()
    if "full" in text or "no space" in text or "disk i/o" in text:
        return DiskFull("the record cannot be written: the disk is full or failing", where="database")
    if "readonly" in text or "read-only" in text or "read only" in text:
        return ReadOnlyStore("the record cannot be written: the store is read-only", where="database")
    if "locked" in text or "busy" in text:
        return RecordUnavailable("the record is busy: another process holds the write lock", where="database")
    if any(
        sign in text
        for sign in ("connection refused", "connection failed", "could not connect", "server closed", "timeout")
    ):
        return DatabaseGone("the database server does not answer", where="database_url")
    return RecordUnavailable(f"the database refused ({type(error).__name__})", where="database")


def translated_os(error: OSError) -> CdsError:
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        return DiskFull("the record cannot be written: the disk is full", where="data directory")
    if error.errno in (1, 13, 30):  # EPERM, EACCES, EROFS
        return ReadOnlyStore("the record cannot be written: the data directory is read-only", where="data directory")
    return RecordUnavailable(f"the data directory failed ({error.strerror})", where="data directory")
