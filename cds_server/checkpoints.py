"""Signed heads of the log: made where the log only grew since the last one, refused where it did not.

The last checkpoint stands in the database and, beside it, in the file `checkpoint` of the data directory: whoever puts
an older database back, or another one, changes the first and not the second. Before a head is signed, the entries that
came since are checked one by one (body, leaf, chain, number), some of the older ones are held against the tree in turn,
and the tree must begin with what was signed before. A log that fails is not signed; after a restore that was meant, an
operator says so (`give_up`), which is an entry, and the log goes on under another origin, which every witness and
auditor has to be told of.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from cds_server.clock_steps import Clock
from cds_server.ledger.entry import Entry
from cds_server.ledger.note import Signer, checkpoint_text, note
from cds_server.ledger.tree import TILE, root_at
from cds_server.ledger.verifier import LOG, Checkpoint, Key, Wrong, open_note, parse_checkpoint, rotation
from cds_server.ledger.verify import verify
from cds_server.store.entropy import random_bytes
from cds_server.store.store import Store
from cds_server.store.tiles import Tiles, keep
from cds_server.store.writer import Tx
from models.errors import CdsError, Conflict, KeysUnavailable, LedgerBroken, Misconfigured

FILE = "checkpoint"
SCRUBBED = 8
"""Older tiles that are held against their entries each time, in turn: a million entries a day at one look in 20 s."""
BITE, RESTED = 32, 0.004
"""Entries that are looked at in one go, half a millisecond's work, and the seconds of rest after them."""
_KEYS = "SELECT origin, key FROM ledger_key ORDER BY id"
HOW = (
    "if an older copy was put back on purpose, put the last published checkpoint into the data directory (a witness or "
    "the old machine has it), or go on with: cds ledger break --reason TEXT"
)


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint and the note that carries it."""

    checkpoint: Checkpoint
    note: bytes


class Checkpoints:
    """Of one instance. Several processes may make them: each takes the lock of the data directory first."""

    def __init__(self, store: Store, public_url: str = "", *, gentle: bool = False) -> None:
        """`gentle`: calls are answered beside it, and they come first."""
        self._store = store
        self._gentle = gentle
        self._host = urlsplit(public_url).netloc or "localhost"
        self._scrub = 0
        self.tiles = Tiles(store.reads)

    # -- keys ----------------------------------------------------------------------------------------------------------

    def signing_keys(self, upto: int | None = None) -> list[Key]:
        """Every key that ever signed, oldest first; the name of each is the origin that it signed for. `upto`: those
        that entries up to this one made."""
        asked = "SELECT origin, key, entry FROM ledger_key ORDER BY id"
        rows = self._store.reads.query(asked)
        return [Key(origin, LOG, bytes(raw)) for origin, raw, entry in rows if upto is None or entry <= upto]

    def attest(self, text: str, size: int) -> bytes:
        """A text as a note, signed by the key that signed the log at that size; its first line is no origin, so that it
        is taken for no checkpoint. Errors: KeysUnavailable."""
        return note(text, [self._signer(self.signing_keys(size)[-1]).line(text)])

    @property
    def origin(self) -> str | None:
        """Of the log as it is signed now; None before the first key."""
        keys = self.signing_keys()
        return keys[-1].name if keys else None

    def rotate(self, actor: str) -> Key:
        """A new key, handed over to by the one before, which signs beside it until the next rotation."""
        with self._alone():
            return self._new_key(actor)

    def _new_key(self, actor: str) -> Key:
        seed = random_bytes(32)

        def act(tx: Tx) -> Key:
            rows = tx.read(_KEYS)
            origin = rows[-1][0] if rows else f"{self._host}/cds/{self._store.instance}"
            key = Signer(origin, seed).key
            handover = None
            if rows:
                text = rotation(origin, key)
                handover = note(text, [self._signer(Key(origin, LOG, bytes(rows[-1][1]))).line(text)])
            tx.fresh_keys[_ref(key)] = seed
            tx.add("ledger_key", origin=origin, key=key.raw, handover=handover, at=tx.now)
            tx.entry("ledger-key", actor, {"key": str(key), "handed_over": handover is not None})
            return key

        return self._store.writer.submit(act).result()

    def _signer(self, key: Key) -> Signer:
        seed = self._store.vault.key(_ref(key))
        if seed is None:
            raise KeysUnavailable("the private half of the ledger's key is gone: was the key store lost?")
        return Signer(key.name, seed)

    # -- what was signed -----------------------------------------------------------------------------------------------

    def last(self) -> Signed | None:
        """The newest checkpoint in the database, with what witnesses signed under it."""
        row = self._store.reads.one("SELECT size, origin, root, note FROM ledger_checkpoint ORDER BY size DESC LIMIT 1")
        return self._signed(row) if row else None

    def at(self, size: int) -> Signed | None:
        row = self._store.reads.one("SELECT size, origin, root, note FROM ledger_checkpoint WHERE size = ?", (size,))
        return self._signed(row) if row else None

    def _signed(self, row: Any) -> Signed:
        lines = self._store.reads.query(
            "SELECT line FROM ledger_cosignature WHERE size = ? ORDER BY witness", (int(row[0]),)
        )
        signed = bytes(row[3]) + "".join(line for (line,) in lines).encode()
        return Signed(Checkpoint(row[1], int(row[0]), bytes(row[2])), signed)

    def outside(self) -> Signed | None:
        """The one that is kept outside the database. Errors: LedgerBroken (it is not signed by a key of this log)."""
        try:
            raw = (self._store.data_dir / FILE).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return Signed(parse_checkpoint(open_note(raw, self.signing_keys()).text), raw)
        except Wrong:
            raise LedgerBroken(
                "the file `checkpoint` in the data directory was not signed by a key of this log: it is of another log"
            ) from None

    # -- signing -------------------------------------------------------------------------------------------------------

    def make(self, actor: str = "system") -> Signed | None:
        """Sign the head, where entries came since the last checkpoint; None where none did.

        Errors: LedgerBroken with the first entry that is wrong, KeysUnavailable, RecordUnavailable and its kinds.
        """
        with self._alone():
            self.tiles.forget_edge()
            if not self._store.reads.head()[0]:
                return None
            if not self.signing_keys():
                self._new_key(actor)
            last = self.check()
            size = self._store.reads.head()[0]
            if last is not None and last.size == size:
                return None
            self._read(last, size, actor)
            return self._sign(last, size)

    def check(self) -> Checkpoint | None:
        """The checkpoint that the next one must extend, if there is any. Errors: LedgerBroken, where it cannot be."""
        origin, kept, outside = self.origin, self.last(), self.outside()
        last = kept.checkpoint if kept is not None and kept.checkpoint.origin == origin else None
        if outside is not None and not self._given_up(outside.checkpoint):
            if outside.checkpoint.origin != origin:
                raise LedgerBroken(f"the file `checkpoint` is of another origin than the log; {HOW}")
            self._extends(outside.checkpoint)
            if last is None or outside.checkpoint.size > last.size:
                last = outside.checkpoint
        elif outside is None and last is not None:
            raise LedgerBroken(
                f"entries up to {last.size} were signed, and the file `checkpoint` is missing: this is a copy, "
                f"which may lack what came after; {HOW}"
            )
        if last is not None:
            self._extends(last)
        return last

    def _extends(self, signed: Checkpoint) -> None:
        head = self._store.reads.head()[0]
        if signed.size > head:
            raise LedgerBroken(
                f"entry {head + 1}: {signed.size} entries were signed, and the log has {head}: an older copy of the "
                f"database, or its end was cut off; {HOW}"
            )
        self._grow(signed.size)
        if root_at(self.tiles.node, signed.size) != signed.root:
            first = self._agreed(signed.size) + 1
            raise LedgerBroken(
                f"entries {first} to {signed.size}: one of them is not the one that was signed: another copy of the "
                f"database, or the log was written anew; {HOW}"
            )

    def _agreed(self, below: int) -> int:
        """Up to which entry the log is the one that checkpoints in the database signed."""
        keys, agreed = self.signing_keys(), 0
        asked = "SELECT size, note FROM ledger_checkpoint WHERE size < ? ORDER BY size"
        rows = self._store.reads.query(asked, (below,))
        low, high = 0, len(rows)
        while low < high:  # a tree that differs at one size differs at every larger one
            middle = (low + high) // 2
            try:
                signed = parse_checkpoint(open_note(bytes(rows[middle][1]), keys).text)
                same = signed.size == rows[middle][0] and root_at(self.tiles.node, signed.size) == signed.root
            except Wrong:
                same = False
            if same:
                agreed, low = signed.size, middle + 1
            else:
                high = middle
        return agreed

    def _read(self, last: Checkpoint | None, size: int, actor: str) -> None:
        """Check the entries that came since, note where the clock jumped, hold older ones against the tree in turn."""
        reads = self._store.reads
        before = reads.entry(last.size) if last is not None else None
        clock = Clock(before)
        entries = reads.entries(last.size + 1 if last else 1, 256, upto=size)
        for finding in verify(clock.watched(_rested(entries) if self._gentle else entries), after=before):
            raise LedgerBroken(f"{finding}; the log is not signed")
        self._grow(size)
        whole = size // TILE
        turn = [self._scrub + n for n in range(SCRUBBED)] if last is not None else range(whole)
        for number in {n % whole for n in turn} if whole else ():
            if (entry := self.tiles.differs(number)) is not None:
                raise LedgerBroken(f"entry {entry}: it is not the one that stands in the tree: it was replaced")
        self._scrub = (self._scrub + SCRUBBED) % max(whole, 1)
        for step in clock.steps:
            self._store.writer.submit(partial(_entry, actor=actor, step=step)).result()

    def _grow(self, size: int) -> None:
        for rows in self.tiles.missing(size):
            self._store.writer.submit(partial(keep, rows=rows)).result()

    def _sign(self, last: Checkpoint | None, size: int) -> Signed:
        keys = self.signing_keys()
        origin = keys[-1].name
        checkpoint = Checkpoint(origin, size, root_at(self.tiles.node, size))
        text = checkpoint_text(checkpoint)
        of_origin = [key for key in keys if key.name == origin]
        signed = note(text, [self._signer(key).line(text) for key in reversed(of_origin[-2:])])
        least = last.size if last is not None else 0

        def act(tx: Tx) -> None:
            rows = tx.read("SELECT MAX(size) FROM ledger_checkpoint WHERE origin = ?", (origin,))
            if rows[0][0] is not None and rows[0][0] > least:
                raise Conflict("another process signed a checkpoint meanwhile")
            tx.execute(
                "INSERT INTO ledger_checkpoint (size, origin, root, note, at) VALUES (?, ?, ?, ?, ?)",
                (size, origin, checkpoint.root, signed, tx.now),
            )

        self._store.writer.submit(act).result()  # its sync makes every entry before it durable, too
        self._put_outside(signed)
        return Signed(checkpoint, signed)

    def _put_outside(self, signed: bytes) -> None:
        replace(self._store.data_dir / FILE, signed)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with open(self._store.data_dir / f"{FILE}.lock", "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # -- breaks --------------------------------------------------------------------------------------------------------

    def _given_up(self, checkpoint: Checkpoint) -> bool:
        return bool(
            self._store.reads.one(
                "SELECT 1 FROM ledger_break WHERE origin = ? AND size = ? AND root = ?",
                (checkpoint.origin, checkpoint.size, checkpoint.root),
            )
        )

    def give_up(self, reason: str, actor: str) -> Key:
        """Go on with this log, although it does not extend what was signed: an entry, and another origin from here.

        The key stays, under the name of the new origin. Errors: Conflict (nothing is wrong), Misconfigured (no reason).
        """
        if not reason.strip():
            raise Misconfigured("a break is recorded with its reason", where="--reason")
        with self._alone():
            try:
                self.check()
            except LedgerBroken as wrong:
                said = wrong.what
            else:
                raise Conflict("the log extends what was signed: there is nothing to break with")
            signed = self._outside_or_none() or self.last()
            if signed is None:
                raise LedgerBroken("nothing was signed yet; take the file `checkpoint`, which is not ours, away")
            lost, keys = signed.checkpoint, self.signing_keys()
            base, _, generation = keys[-1].name.partition("#")
            key = Key(f"{base}#{int(generation or 1) + 1}", LOG, keys[-1].raw)

            def act(tx: Tx) -> None:
                tx.add(
                    "ledger_break", origin=lost.origin, size=lost.size, root=lost.root, reason=reason.strip(), at=tx.now
                )
                tx.add("ledger_key", origin=key.name, key=key.raw, handover=None, at=tx.now)
                given_up = {"origin": lost.origin, "size": lost.size, "root": lost.root.hex()}
                tx.entry("ledger-break", actor, {"given_up": given_up, "key": str(key), "said": said})

            self._store.writer.submit(act).result()
            place = self._store.data_dir / FILE
            if place.exists():
                place.rename(self._store.data_dir / f"{FILE}.given-up-{lost.size}")
            return key

    def _outside_or_none(self) -> Signed | None:
        with contextlib.suppress(LedgerBroken):
            return self.outside()
        return None

    # -- how it goes ---------------------------------------------------------------------------------------------------

    def lag(self) -> tuple[int, float]:
        """(entries that no checkpoint covers, age of the oldest of them in seconds)."""
        row = self._store.reads.one("SELECT MAX(size) FROM ledger_checkpoint")
        size = int(row[0]) if row and row[0] is not None else 0
        head = self._store.reads.head()[0]
        oldest = self._store.reads.entry(size + 1) if head > size else None
        if oldest is None:
            return 0, 0.0
        at = datetime.fromisoformat(orjson.loads(oldest.body)["at"])
        return head - size, max(0.0, (datetime.now(UTC) - at).total_seconds())


def _rested(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The same, a few at a time: a tenth of a second of this in one piece is a tenth of a second that each call beside
    it takes longer."""
    for number, entry in enumerate(entries, 1):
        yield entry
        if number % BITE == 0:
            time.sleep(RESTED)


def replace(path: Path, content: bytes) -> None:
    """Put a file in place: whole and on disk, or the old one stays."""
    staged = path.with_name(f"{path.name}.new")
    with open(staged, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def say(store: Store, name: str, said: str) -> None:
    """Note how it goes with signing or with a witness, where that changed; '' is well."""
    known = store.reads.one("SELECT said FROM ledger_state WHERE name = ?", (name,))
    if known is not None and known[0] == said:
        return

    def act(tx: Tx) -> None:
        changed = tx.execute("UPDATE ledger_state SET said = ?, at = ? WHERE name = ?", (said, tx.now, name))
        if not changed:
            tx.execute("INSERT INTO ledger_state (name, said, at) VALUES (?, ?, ?)", (name, said, tx.now))

    with contextlib.suppress(CdsError):
        store.writer.submit(act).result()


def states(store: Store) -> dict[str, tuple[str, str]]:
    """Name -> (what is wrong, since when)."""
    return {name: (said, at) for name, said, at in store.reads.query("SELECT name, said, at FROM ledger_state")}


def _entry(tx: Tx, actor: str, step: dict[str, Any]) -> None:
    tx.entry("clock_step", actor, step)


def _ref(key: Key) -> bytes:
    """Where the private half stands in the key store: one key, whatever origin it signs for."""
    return b"c" + key.raw
