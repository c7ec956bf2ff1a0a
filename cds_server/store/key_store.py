"""Keys by reference, in a SQLite file of their own: never in the database, never in its backup.

    object_key   one key a sealed object (a part, a card, a record's facts)
    secret       the index key, the instance's name, and the store key under the master key's seal
    destroyed    references of keys that were destroyed on purpose: what is gone was erased, not lost

With a master key (`cds_server.master_key`) each key here is sealed under the *store key* by AES-256-GCM-SIV (RFC 8452),
and the store key under the master key: it is unwrapped once, when a process opens the store. Another master key seals
the store key anew and touches no object.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV

from cds_server.store.entropy import random_bytes
from models.errors import DiskFull, KeysUnavailable, Misconfigured, ReadOnlyStore, RecordUnavailable

KEY_BYTES = 32
KEYS_A_STATEMENT = 400
STORE_KEY = "store key"
_LABEL = b"cds store key"
_INSTANCE, _DESTRUCTIONS = "instance", "destructions"
_PATIENCE = 10.0
"""Seconds that readers in the way of a truncated write-ahead log are waited for."""
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS object_key (ref BLOB PRIMARY KEY, key BLOB NOT NULL, "
    "sealed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS secret (name TEXT PRIMARY KEY, value BLOB NOT NULL, "
    "sealed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS destroyed (ref BLOB PRIMARY KEY) WITHOUT ROWID;"
)


class Master(Protocol):
    """The key above all keys, wherever it is kept."""

    @property
    def name(self) -> str:
        """For people: where it comes from, never what it is."""

    def wrap(self, key: bytes) -> bytes: ...

    def unwrap(self, wrapped: bytes) -> bytes:
        """Raises: KeysUnavailable (it was not this one's seal), PeerFailed (who keeps it does not answer)."""


@dataclass(frozen=True, slots=True)
class LocalMaster:
    """A key that this process holds."""

    name: str
    key: bytes = field(repr=False)

    def wrap(self, key: bytes) -> bytes:
        nonce = random_bytes(12)
        return nonce + AESGCM(self.key).encrypt(nonce, key, _LABEL)

    def unwrap(self, wrapped: bytes) -> bytes:
        try:
            return AESGCM(self.key).decrypt(wrapped[:12], wrapped[12:], _LABEL)
        except (InvalidTag, ValueError):
            raise KeysUnavailable(
                "the keys were sealed under another master key than the one that is configured", where=self.name
            ) from None


class KeyStore:
    """Keys by reference; `put` returns when they are on disk."""

    def __init__(self, path: Path, instance: str, master: Master | None = None) -> None:
        if not path.exists():
            raise KeysUnavailable(
                "the key store is missing; without it nothing that was sealed can be read", where=str(path.name)
            )
        self.path = path
        self._lock = threading.Lock()
        try:
            self._connection = _connected(path)
            _bring_up(self._connection)
            named = self._plain(_INSTANCE)
            wrapped = self._plain(STORE_KEY)
        except sqlite3.Error as error:
            raise KeysUnavailable(f"the key store cannot be opened ({type(error).__name__})", where=path.name) from None
        if named is None or named.decode() != instance:
            self._connection.close()
            raise KeysUnavailable("the key store belongs to another instance than the database", where=path.name)
        self._place = _place(path)
        self._seal: AESGCMSIV | None = None
        try:
            if wrapped is not None:
                self._open(wrapped, master)
            elif master is not None and not self.count():  # of a new instance: sealed from the first key
                self.seal_under(master)
        except BaseException:
            self._connection.close()
            raise

    @staticmethod
    def create(path: Path) -> str:
        """Make the key store of a new instance and name that instance; call it before the database names it.

        A key store without a key, left by a start that was cut off, is taken over. Raises KeysUnavailable when there is
        one with keys: its database was lost, and a new one must not take its place.
        """
        try:
            with contextlib.closing(_connected(path)) as connection:
                connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
                if connection.execute("SELECT 1 FROM object_key LIMIT 1").fetchone():
                    raise KeysUnavailable(
                        "the key store has keys, but the database holds no instance: was the database lost?",
                        where=path.name,
                    )
                connection.execute(
                    "INSERT OR IGNORE INTO secret (name, value) VALUES (?, ?)", (_INSTANCE, uuid.uuid4().hex.encode())
                )
                asked = "SELECT value FROM secret WHERE name = ?"
                return str(connection.execute(asked, (_INSTANCE,)).fetchone()[0].decode())
        except sqlite3.Error as error:
            raise KeysUnavailable(f"the key store cannot be made ({type(error).__name__})", where=path.name) from None

    # -- the master key ------------------------------------------------------------------------------------------------

    @property
    def under_master(self) -> bool:
        """Whether keys are sealed under a master key."""
        return self._seal is not None

    def _open(self, wrapped: bytes, master: Master | None) -> None:
        if master is None:
            raise Misconfigured(
                "the keys of this instance are sealed under a master key, and none is configured", where="[master_key]"
            )
        self._seal = AESGCMSIV(_checked(master.unwrap(wrapped)))

    def seal_under(self, master: Master) -> int:
        """Seal every key under a new store key, and that under the master key; gives how many.

        Nobody else may have this store open: another process would not know the store key. What stood in the file
        before is overwritten. Raises as `put` does, and what the master key raises.
        """
        key = random_bytes(KEY_BYTES)
        seal, wrapped = AESGCMSIV(key), master.wrap(key)
        with self._lock, self._translated():
            with self._together():
                keys = self._connection.execute("SELECT ref, key FROM object_key WHERE sealed = 0").fetchall()
                self._connection.executemany(
                    "UPDATE object_key SET key = ?, sealed = 1 WHERE ref = ?",
                    [(_sealed(seal, bytes(ref), bytes(plain)), ref) for ref, plain in keys],
                )
                secrets = self._connection.execute(
                    "SELECT name, value FROM secret WHERE sealed = 0 AND name NOT IN (?, ?, ?)",
                    (_INSTANCE, STORE_KEY, _DESTRUCTIONS),
                ).fetchall()
                self._connection.executemany(
                    "UPDATE secret SET value = ?, sealed = 1 WHERE name = ?",
                    [(_sealed(seal, name.encode(), bytes(value)), name) for name, value in secrets],
                )
                self._connection.execute(
                    "INSERT INTO secret (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = "
                    "excluded.value",
                    (STORE_KEY, wrapped),
                )
            self._connection.execute("VACUUM")
        self._seal = seal
        self.wipe()
        return len(keys) + len(secrets)

    def rewrap(self, old: Master, new: Master) -> None:
        """Seal the store key under another master key; no other key is touched. Raises as `put`, `unwrap`, `wrap`."""
        with self._lock, self._translated():
            wrapped = self._plain(STORE_KEY)
        if wrapped is None:
            raise Misconfigured("the keys of this instance are not sealed under a master key yet", where="keys.db")
        anew = new.wrap(_checked(old.unwrap(wrapped)))
        with self._lock, self._translated():
            self._connection.execute("UPDATE secret SET value = ? WHERE name = ?", (anew, STORE_KEY))
        self.wipe()

    # -- keys ----------------------------------------------------------------------------------------------------------

    def put(self, keys: Iterable[tuple[bytes, bytes]]) -> None:
        """Keys that are on disk when this returns.

        All or none: a second key for a reference would leave what is sealed under one of the two unreadable. One
        statement writes and syncs many: each that a thread runs makes it wait for the interpreter again.
        Raises KeysUnavailable, also when the file was taken away or replaced: keys would go with this process.
        """
        seal = self._seal
        waiting = (
            [(ref, key, 0) for ref, key in keys]
            if seal is None
            else [(ref, _sealed(seal, ref, key), 1) for ref, key in keys]
        )
        with self._lock, self._translated():
            self._check_place()
            with self._together() if len(waiting) > KEYS_A_STATEMENT else contextlib.nullcontext():
                for chunk in (waiting[i : i + KEYS_A_STATEMENT] for i in range(0, len(waiting), KEYS_A_STATEMENT)):
                    rows = ", ".join(["(?, ?, ?)"] * len(chunk))
                    self._connection.execute(
                        f"INSERT OR ABORT INTO object_key (ref, key, sealed) VALUES {rows}",
                        [cell for row in chunk for cell in row],
                    )

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """One sync for several statements."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _refused(error, self.path.name) from None

    def destroy(self, refs: Sequence[bytes], *, marked: bool = False) -> None:
        """Take keys out, for good: what was sealed under them is never read again. Raises as `put` does.

        `marked`: with a mark that they were destroyed on purpose, and other processes hear that some were.
        """
        with self._lock, self._translated():
            self._check_place()
            with self._together():
                self._connection.executemany("DELETE FROM object_key WHERE ref = ?", [(ref,) for ref in refs])
                if marked:
                    self._connection.executemany(
                        "INSERT OR IGNORE INTO destroyed (ref) VALUES (?)", [(ref,) for ref in refs]
                    )
                    self._connection.execute(
                        "INSERT INTO secret (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = "
                        "excluded.value",
                        (_DESTRUCTIONS, uuid.uuid4().bytes),
                    )

    def destroyed(self, ref: bytes) -> bool:
        """Whether the key of this reference was destroyed on purpose."""
        with self._lock, self._translated():
            return self._connection.execute("SELECT 1 FROM destroyed WHERE ref = ?", (ref,)).fetchone() is not None

    def all_destroyed(self, kind: bytes) -> list[bytes]:
        """References of this kind (their first letter) whose keys were destroyed on purpose."""
        asked = "SELECT ref FROM destroyed WHERE ref >= ? AND ref < ?"
        with self._lock, self._translated():
            return [bytes(row[0]) for row in self._connection.execute(asked, (kind, bytes([kind[0] + 1])))]

    def destructions(self) -> bytes | None:
        """Another value whenever keys were destroyed on purpose, in whichever process."""
        with self._lock, self._translated():
            return self._plain(_DESTRUCTIONS)

    def beginning(self, prefix: bytes) -> list[bytes]:
        """References that begin so and have a key."""
        asked = "SELECT ref FROM object_key WHERE ref >= ? AND ref < ?"
        with self._lock, self._translated():
            rows = self._connection.execute(asked, (prefix, prefix + b"\xff" * 64)).fetchall()
        return [bytes(row[0]) for row in rows]

    def count(self) -> int:
        """How many objects have a key."""
        with self._lock, self._translated():
            return int(self._connection.execute("SELECT COUNT(*) FROM object_key").fetchone()[0])

    def wipe(self) -> bool:
        """Empty the write-ahead log, which holds keys that were destroyed since; whether nobody was in the way."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            with self._lock, self._translated():
                busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if not busy or time.monotonic() > deadline:
                return not busy
            time.sleep(0.05)

    def in_place(self) -> bool:
        """Whether the file is still where it was opened."""
        return _place(self.path) == self._place

    def check(self) -> None:
        """Raises KeysUnavailable when the store is not where it was, or cannot be read."""
        self._check_place()
        self.get(b"\0")

    def _check_place(self) -> None:
        if not self.in_place():
            raise KeysUnavailable("the key store was taken away or replaced while in use", where=self.path.name)

    def get(self, ref: bytes) -> bytes | None:
        with self._lock:
            try:
                row = self._connection.execute("SELECT key, sealed FROM object_key WHERE ref = ?", (ref,)).fetchone()
            except sqlite3.Error as error:
                raise KeysUnavailable(f"keys cannot be read: {type(error).__name__}", where=self.path.name) from None
        return self._opened(ref, row) if row else None

    def secret(self, name: str) -> bytes:
        """A secret of this instance (index key); made at its first use."""
        asked = "SELECT value, sealed FROM secret WHERE name = ?"
        with self._lock:
            try:
                row = self._connection.execute(asked, (name,)).fetchone()
                if row is None:
                    made = random_bytes(KEY_BYTES)
                    kept = (made, 0) if self._seal is None else (_sealed(self._seal, name.encode(), made), 1)
                    self._connection.execute(
                        "INSERT OR IGNORE INTO secret (name, value, sealed) VALUES (?, ?, ?)", (name, *kept)
                    )
                    row = self._connection.execute(asked, (name,)).fetchone()
            except sqlite3.Error as error:
                raise KeysUnavailable(f"keys cannot be read: {type(error).__name__}", where=self.path.name) from None
        return self._opened(name.encode(), row)

    def _plain(self, name: str) -> bytes | None:
        row = self._connection.execute("SELECT value FROM secret WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def _opened(self, ref: bytes, row: tuple[bytes, int]) -> bytes:
        value, sealed = bytes(row[0]), row[1]
        if not sealed:
            return value
        if self._seal is None:
            raise KeysUnavailable("the keys were sealed under a master key since this process began: start it anew")
        try:
            return self._seal.decrypt(value[:12], value[12:], ref)
        except InvalidTag:
            raise KeysUnavailable("a key was changed, or was sealed under another store key") from None

    def backup(self, to: Path) -> None:
        """A consistent copy, also while others write."""
        with self._lock, sqlite3.connect(to) as copy:
            self._connection.backup(copy)
        os.chmod(to, 0o600)

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class ClosedKeys:
    """A key store that holds no key: for checks that must work when the real one is lost."""

    under_master = False

    def secret(self, name: str) -> bytes:
        return bytes(KEY_BYTES)

    def get(self, ref: bytes) -> bytes | None:
        return None

    def put(self, keys: Iterable[tuple[bytes, bytes]]) -> None:
        raise KeysUnavailable("this check runs without keys")

    def destroy(self, refs: Sequence[bytes], *, marked: bool = False) -> None:
        raise KeysUnavailable("this check runs without keys")

    def destroyed(self, ref: bytes) -> bool:
        return False

    def all_destroyed(self, kind: bytes) -> list[bytes]:
        return []

    def destructions(self) -> bytes | None:
        return None

    def beginning(self, prefix: bytes) -> list[bytes]:
        return []

    def count(self) -> int:
        return 0

    def wipe(self) -> bool:
        return True

    def in_place(self) -> bool:
        return False

    def check(self) -> None:
        raise KeysUnavailable("this check runs without keys")

    def close(self) -> None:
        """Nothing is open."""


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    os.chmod(path, 0o600)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _bring_up(connection: sqlite3.Connection) -> None:
    """A key store of an earlier version: the columns and the table that it lacks."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'destroyed'").fetchone():
        return
    connection.execute("BEGIN IMMEDIATE")
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'destroyed'").fetchone():
        for table in ("object_key", "secret"):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN sealed INTEGER NOT NULL DEFAULT 0")
        connection.execute("CREATE TABLE destroyed (ref BLOB PRIMARY KEY) WITHOUT ROWID")
    connection.execute("COMMIT")


def _sealed(seal: AESGCMSIV, ref: bytes, key: bytes) -> bytes:
    nonce = random_bytes(12)
    return nonce + seal.encrypt(nonce, key, ref)


def _checked(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise KeysUnavailable("what the master key gave back is no key: another one sealed this store")
    return key


def _place(path: Path) -> tuple[int, int] | None:
    """Which file it is: device and inode."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refused(error: sqlite3.Error, where: str) -> RecordUnavailable:
    """SQLite's refusal of a write, by its primary result code (sqlite.org/rescode.html)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return DiskFull("keys cannot be written: the disk is full or failing", where=where)
    if code == sqlite3.SQLITE_READONLY:
        return ReadOnlyStore("keys cannot be written: the store is read-only", where=where)
    return KeysUnavailable(f"keys cannot be written: {type(error).__name__}", where=where)
