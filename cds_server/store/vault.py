"""The one door that PHI goes through on its way to disk.

Each payload (a part, a snapshot, a card, an action) is sealed by AES-256-GCM under a key of its own. Keys stand in a
separate file, never in the database or its backups: destroy a key and the payload is gone from every copy, while the
row, its digest and every proof over it stay whole. The commitment HMAC-SHA-256(key', payload) stands in the row and in
the ledger; without the key it says nothing about the payload (NIST SP 800-38D for GCM: one key seals one payload, so
the nonce may be constant; a part longer than a frame counts its frames in the nonce).

Facts are a projection, many and small: they are sealed under one key per patient record, each with a random nonce.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cds_server.store.entropy import new_key, random_bytes
from cds_server.store.key_store import KEY_BYTES as KEY_BYTES
from cds_server.store.key_store import KEYS_A_STATEMENT as KEYS_A_STATEMENT
from cds_server.store.key_store import ClosedKeys
from cds_server.store.key_store import KeyStore as KeyStore
from cds_server.store.ready import NO_KEYS, ReadyKeys, Taken
from models.canonical import Noun, reader_of
from models.errors import Erased, KeysUnavailable
from models.nouns import Fact

_NONCE = bytes(12)
_RECORD = b"r"
_CACHED_RECORDS = 8192
_LOOK = 5.0
"""Seconds after which a process that holds keys of records asks whether some were destroyed by another."""
_facts = reader_of(list[Fact])


class Sealed(Noun, frozen=True):
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
        self._destroyed, self._looked = keys.destructions(), time.monotonic()
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
        """The payload. Raises: Erased when its key was destroyed, KeysUnavailable when it was lost."""
        key = self.key(ref)
        if key is None:
            raise self.without("the key of this object", ref)
        try:
            return AESGCM(key).decrypt(_NONCE, cipher, ref)
        except InvalidTag:
            raise KeysUnavailable("a sealed object was changed, or its key is not the one it was sealed with") from None

    def without(self, what: str, ref: bytes, where: str | None = None) -> KeysUnavailable:
        """The error for a key that is not there."""
        if self.keys.destroyed(ref):
            return Erased(f"{what} was destroyed: it was erased, or its time was over", where=where)
        return KeysUnavailable(f"{what} is gone: erased, or the key store was lost", where=where)

    def destroy(self, refs: Sequence[bytes]) -> None:
        """Destroy keys for good, with a mark that says so; what this process holds of them goes, too."""
        self.keys.destroy(refs, marked=True)
        self.forget()

    def forget(self) -> None:
        """Let go of the keys of records that were destroyed. Others stay: one of a record that is being made stands
        nowhere else yet."""
        gone = self.keys.all_destroyed(_RECORD)
        with self._lock:
            for ref in gone:
                self._records.pop(ref[1:].hex(), None)

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
        if time.monotonic() - self._looked > _LOOK:
            self._look()
        with self._lock:
            known = self._records.get(ref)
        if known is None:
            key = self.key(record_key_ref(ref))
            if key is None:
                raise self.without("the key of this patient record", record_key_ref(ref))
            known = AESGCM(key)
            self._remember(ref, known)
        return known

    def _look(self) -> None:
        self._looked, told = time.monotonic(), self.keys.destructions()
        if told != self._destroyed:
            self._destroyed = told
            self.forget()

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
    return hmac.digest(commitment_key(key), payload, "sha256")


def commitment_key(key: bytes) -> bytes:
    """What a commitment is made under: whoever is given it can check one payload against it, and open nothing."""
    return hashlib.sha256(b"cds commitment" + key).digest()


def record_key_ref(record: str) -> bytes:
    return _RECORD + bytes.fromhex(record)


def object_ref(kind: bytes, ref: str) -> bytes:
    """Key reference of a payload: a letter for its kind, then its random reference (32 hex digits, dashes allowed)."""
    return kind + bytes.fromhex(ref.replace("-", ""))
