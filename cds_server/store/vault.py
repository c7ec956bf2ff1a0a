"""The one door that PHI goes through on its way to disk.

Each payload (a part, a snapshot, a card, an action) is sealed by AES-256-GCM under a key of its own. Keys stand in a
separate file, never in the database or its backups: destroy a key and the payload is gone from every copy, while the
row, its digest and every proof over it stay whole. The commitment HMAC-SHA-256(key', payload) stands in the row and in
the ledger; without the key it says nothing about the payload (NIST SP 800-38D for GCM: one key seals one payload, so
the nonce may be constant; a part longer than a frame counts its frames in the nonce).

Facts are a projection, many and small: they are sealed under one key per patient record, each with a random nonce.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import sqlite3
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cds_server.store.entropy import new_key, random_bytes
from cds_server.store.ready import NO_KEYS, ReadyKeys, Taken
from models.canonical import reader_of
from models.errors import DiskFull, KeysUnavailable, ReadOnlyStore, RecordUnavailable
from models.nouns import Fact

KEY_BYTES = 32
_NONCE = bytes(12)
_RECORD = b"r"
KEYS_A_STATEMENT = 400
_CACHED_RECORDS = 8192
_facts = reader_of(list[Fact])


class KeyStore:
    """Keys by reference in a SQLite file of their own; `put` returns when they are on disk."""

    def __init__(self, path: Path, instance: str) -> None:
        if not path.exists():
            raise KeysUnavailable(
                "the key store is missing; without it nothing that was sealed can be read", where=str(path.name)
            )
        self.path = path
        try:
            self._connection = _connected(path)
            named = self._connection.execute("SELECT value FROM secret WHERE name = 'instance'").fetchone()
        except sqlite3.Error as error:
            raise KeysUnavailable(f"the key store cannot be opened ({type(error).__name__})", where=path.name) from None
        if named is None or named[0].decode() != instance:
            self._connection.close()
            raise KeysUnavailable("the key store belongs to another instance than the database", where=path.name)
        self._lock = threading.Lock()
        self._place = _place(path)

    @staticmethod
    def create(path: Path) -> str:
        """Make the key store of a new instance and name that instance; call it before the database names it.

        A key store without a key, left by a start that was cut off, is taken over. Raises KeysUnavailable when there is
        one with keys: its database was lost, and a new one must not take its place.
        """
        try:
            with contextlib.closing(_connected(path)) as connection:
                connection.executescript(
                    "BEGIN IMMEDIATE;"
                    "CREATE TABLE IF NOT EXISTS object_key (ref BLOB PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;"
                    "CREATE TABLE IF NOT EXISTS secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"
                    "COMMIT;"
                )
                if connection.execute("SELECT 1 FROM object_key LIMIT 1").fetchone():
                    raise KeysUnavailable(
                        "the key store has keys, but the database holds no instance: was the database lost?",
                        where=path.name,
                    )
                connection.execute("INSERT OR IGNORE INTO secret VALUES ('instance', ?)", (uuid.uuid4().hex.encode(),))
                (named,) = connection.execute("SELECT value FROM secret WHERE name = 'instance'").fetchone()
                return str(named.decode())
        except sqlite3.Error as error:
            raise KeysUnavailable(f"the key store cannot be made ({type(error).__name__})", where=path.name) from None

    def put(self, keys: Iterable[tuple[bytes, bytes]]) -> None:
        """Keys that are on disk when this returns.

        All or none: a second key for a reference would leave what is sealed under one of the two unreadable. One
        statement writes and syncs many: each that a thread runs makes it wait for the interpreter again.
        Raises KeysUnavailable, also when the file was taken away or replaced: keys would go with this process.
        """
        waiting = list(keys)
        with self._lock:
            try:
                self._check_place()
                with self._together() if len(waiting) > KEYS_A_STATEMENT else contextlib.nullcontext():
                    for chunk in (waiting[i : i + KEYS_A_STATEMENT] for i in range(0, len(waiting), KEYS_A_STATEMENT)):
                        rows = ", ".join(["(?, ?)"] * len(chunk))
                        self._connection.execute(
                            f"INSERT OR ABORT INTO object_key (ref, key) VALUES {rows}",
                            [cell for row in chunk for cell in row],
                        )
            except sqlite3.Error as error:
                raise _refused(error, self.path.name) from None

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

    def destroy(self, refs: Sequence[bytes]) -> None:
        """Take keys out, for good: what was sealed under them is never read again. Raises as `put` does."""
        with self._lock:
            try:
                self._check_place()
                with self._together():
                    self._connection.executemany("DELETE FROM object_key WHERE ref = ?", [(ref,) for ref in refs])
            except sqlite3.Error as error:
                raise _refused(error, self.path.name) from None

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
                row = self._connection.execute("SELECT key FROM object_key WHERE ref = ?", (ref,)).fetchone()
            except sqlite3.Error as error:
                raise KeysUnavailable(f"keys cannot be read: {type(error).__name__}", where=self.path.name) from None
        return bytes(row[0]) if row else None

    def secret(self, name: str) -> bytes:
        """A secret of this instance (index key, signing keys); made at its first use."""
        asked = "SELECT value FROM secret WHERE name = ?"
        with self._lock:
            try:
                row = self._connection.execute(asked, (name,)).fetchone()
                if row is None:
                    self._connection.execute(
                        "INSERT OR IGNORE INTO secret (name, value) VALUES (?, ?)", (name, random_bytes(KEY_BYTES))
                    )
                    row = self._connection.execute(asked, (name,)).fetchone()
            except sqlite3.Error as error:
                raise KeysUnavailable(f"keys cannot be read: {type(error).__name__}", where=self.path.name) from None
        return bytes(row[0])

    def backup(self, to: Path) -> None:
        """A consistent copy, also while others write."""
        with self._lock, sqlite3.connect(to) as copy:
            self._connection.backup(copy)
        os.chmod(to, 0o600)

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    os.chmod(path, 0o600)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


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


class ClosedKeys:
    """A key store that holds no key: for checks that must work when the real one is lost."""

    def secret(self, name: str) -> bytes:
        return bytes(KEY_BYTES)

    def get(self, ref: bytes) -> bytes | None:
        return None

    def put(self, keys: Iterable[tuple[bytes, bytes]]) -> None:
        raise KeysUnavailable("this check runs without keys")

    def destroy(self, refs: Sequence[bytes]) -> None:
        raise KeysUnavailable("this check runs without keys")

    def in_place(self) -> bool:
        return False

    def check(self) -> None:
        raise KeysUnavailable("this check runs without keys")

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class Sealed:
    cipher: bytes
    commitment: bytes


class Index:
    """Keyed digests for equality look-ups: whoever holds only the database cannot guess what they are of."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._keyed = hashlib.blake2b(key=key, digest_size=32)

    def __call__(self, *parts: str | bytes) -> bytes:
        """32 bytes; framed by length, so `("ab", "c")` is not `("a", "bc")`."""
        keyed = self._keyed.copy()
        for part in parts:
            raw = part.encode() if isinstance(part, str) else part
            keyed.update(len(raw).to_bytes(4) + raw)
        return keyed.digest()

    def local(self, namespace: str, resource_type: str, local_id: str) -> bytes:
        """Of a local id in its sender's namespace."""
        return self("local", namespace, resource_type, local_id)

    def content(self, spelled: bytes) -> bytes:
        """Of a resource in one spelling."""
        return self("content", spelled)

    def stream(self) -> hashlib.blake2b:
        """For bytes that come in pieces: `update`, `digest`."""
        return self._keyed.copy()


class Vault:
    """Seals and opens payloads; digests identifiers under the index key."""

    def __init__(self, keys: KeyStore | ClosedKeys) -> None:
        self.keys = keys
        self.index = Index(keys.secret("index"))
        self.ready = ReadyKeys(keys)
        self.unsaved: dict[bytes, bytes] = {}
        """Keys of acts whose transaction is still open: a later act of the same group may open what they sealed."""
        self._records: OrderedDict[str, AESGCM] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        self.ready.close()
        self.keys.close()

    @classmethod
    def closed(cls) -> Vault:
        """A vault that opens nothing."""
        return cls(ClosedKeys())

    # -- payloads: one key each ----------------------------------------------------------------------------------------

    def seal(self, ref: bytes, payload: bytes, fresh: dict[bytes, bytes], ready: Taken = NO_KEYS) -> Sealed:
        """Seal under the key that is `ready` for this reference, and for nothing else, or under a new one; the caller
        stores `fresh` (ref -> key) before the row that holds the cipher."""
        key = ready.get(ref)
        if key is None:
            key = fresh[ref] = new_key()
        return Sealed(AESGCM(key).encrypt(_NONCE, payload, ref), commitment(key, payload))

    def key(self, ref: bytes) -> bytes | None:
        return self.unsaved.get(ref) or self.keys.get(ref)

    def open(self, ref: bytes, cipher: bytes) -> bytes:
        """The payload. Raises KeysUnavailable when its key is gone (lost, or destroyed by an erasure)."""
        key = self.key(ref)
        if key is None:
            raise KeysUnavailable("the key of this object is gone: erased, or the key store was lost")
        try:
            return AESGCM(key).decrypt(_NONCE, cipher, ref)
        except InvalidTag:
            raise KeysUnavailable("a sealed object was changed, or its key is not the one it was sealed with") from None

    # -- facts: one key per patient record -----------------------------------------------------------------------------

    def new_record(self, fresh: dict[bytes, bytes]) -> str:
        """A reference with a key of its own, on disk already or in `fresh`."""
        name = self.ready.name(_RECORD)
        of = record_key_ref(name.ref)
        key = name.keys.get(of)
        if key is None:
            key = fresh[of] = new_key()
        self._remember(name.ref, AESGCM(key))
        return name.ref

    def open_facts(self, record: str, cipher: bytes) -> list[Fact]:
        return _facts(self.open_of_record(record, cipher))

    def seal_of_record(self, record: str, payload: bytes) -> bytes:
        nonce = random_bytes(12)
        return nonce + self._record(record).encrypt(nonce, payload, None)

    def open_of_record(self, record: str, cipher: bytes) -> bytes:
        try:
            return self._record(record).decrypt(cipher[:12], cipher[12:], None)
        except InvalidTag:
            raise KeysUnavailable("a sealed fact was changed, or its key is not the one it was sealed with") from None

    def _record(self, ref: str) -> AESGCM:
        with self._lock:
            known = self._records.get(ref)
        if known is None:
            key = self.key(record_key_ref(ref))
            if key is None:
                raise KeysUnavailable("the key of this patient record is gone: erased, or the key store was lost")
            known = AESGCM(key)
            self._remember(ref, known)
        return known

    def _remember(self, ref: str, key: AESGCM) -> None:
        with self._lock:
            self._records[ref] = key
            if len(self._records) > _CACHED_RECORDS:
                self._records.popitem(last=False)

    # -- lookups -------------------------------------------------------------------------------------------------------

    def index_stream(self) -> hashlib.blake2b:
        """The same for bytes that come in pieces: `update`, `digest`."""
        return self.index.stream()


def commitment(key: bytes, payload: bytes) -> bytes:
    """HMAC-SHA-256 under a key derived from the sealing key: binding, and hiding as long as the key is kept."""
    return hmac.digest(hashlib.sha256(b"cds commitment" + key).digest(), payload, "sha256")


def record_key_ref(record: str) -> bytes:
    return _RECORD + bytes.fromhex(record)


def object_ref(kind: bytes, ref: str) -> bytes:
    """Key reference of a payload: a letter for its kind, then its random reference (32 hex digits, dashes allowed)."""
    return kind + bytes.fromhex(ref.replace("-", ""))
