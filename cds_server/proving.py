"""What the log gives away for others to check: the proof of an entry, growth between two heads, an export."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from cds_server.anchors import receipts
from cds_server.checkpoints import Checkpoints, Signed
from cds_server.ledger import verifier
from cds_server.ledger.note import growth_text, proof_text
from cds_server.ledger.tree import TILE, consistency, inclusion
from cds_server.ledger.verifier import tile_path
from cds_server.store.store import Store
from models.errors import Misconfigured, NotFound

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
APART = b"--------\n"
"""Between two notes of a file."""


def entry_of(store: Store, named: str) -> int:
    """The entry that a number, a card's uuid or an inference's names. Errors: NotFound."""
    if named.isascii() and named.isdecimal() and len(named) < 19:
        return int(named)
    row = None
    if _UUID.fullmatch(named.lower()):
        asked = "SELECT entry FROM card WHERE uuid = ? UNION SELECT entry FROM inference WHERE ref = ?"
        row = store.reads.one(asked, (named.lower(), named.lower()))
    if row is None:
        raise NotFound("no entry, card or inference of that name is on record")
    return int(row[0])


def prove(
    store: Store, checkpoints: Checkpoints, seq: int, *, body: bool = True, signed: Signed | None = None
) -> bytes:
    """The `.tlog-proof` of an entry under a checkpoint, or the newest, with the entry in it.

    Errors: NotFound (no such entry, or none that a checkpoint covers yet), LedgerBroken.
    """
    signed, entry = signed or checkpoints.last(), store.reads.entry(seq)
    if entry is None:
        raise NotFound("there is no such ledger entry")
    if signed is None or signed.checkpoint.size < seq:
        raise NotFound("no checkpoint covers this entry yet")
    hashes = inclusion(checkpoints.tiles.node, seq - 1, signed.checkpoint.size)
    return proof_text(seq - 1, hashes, signed.note, entry.body if body else None)


def growth(checkpoints: Checkpoints, signed: Signed, old: int) -> bytes:
    """That the log under this head begins with the first `old` entries of it. Errors: NotFound, LedgerBroken."""
    if not 0 < old <= signed.checkpoint.size:
        raise NotFound(f"the log was signed at {signed.checkpoint.size} entries: there is no proof from that size")
    return growth_text(old, consistency(checkpoints.tiles.node, old, signed.checkpoint.size), signed.note)


def export(store: Store, checkpoints: Checkpoints, to: Path, signed: Signed | None = None) -> Signed:
    """Everything that an auditor needs and no payload: entries, tiles, chain, checkpoints, keys, and the verifier.

    As of a checkpoint, or the newest. Errors: Misconfigured (the folder is not empty), NotFound (nothing was signed).
    """
    if to.exists() and any(to.iterdir()):
        raise Misconfigured("the folder for an export must be empty", where="--out")
    signed = signed or checkpoints.last()
    if signed is None:
        raise NotFound("the log was not signed yet: cds ledger checkpoint")
    size, origin = signed.checkpoint.size, signed.checkpoint.origin
    to.mkdir(parents=True, exist_ok=True)
    _tiles(checkpoints, to, size)
    _entries(store, to, size)
    asked = "SELECT size FROM ledger_checkpoint WHERE origin = ? AND size <= ? ORDER BY size"
    notes = [found.note for (at,) in store.reads.query(asked, (origin, size)) if (found := checkpoints.at(int(at)))]
    (to / "checkpoints").write_bytes(APART.join(notes))
    (to / "checkpoint").write_bytes(signed.note)
    asked = "SELECT handover FROM ledger_key WHERE origin = ? AND handover IS NOT NULL AND entry <= ? ORDER BY id"
    (to / "rotations").write_bytes(APART.join(bytes(row[0]) for row in store.reads.query(asked, (origin, size))))
    (to / "keys").write_text(
        "".join(f"{key}\n" for key in checkpoints.signing_keys(size) if key.name == origin), encoding="ascii"
    )
    _receipts(store, to, size)
    shutil.copyfile(str(verifier.__file__), to / "verifier.py")
    return signed


def _receipts(store: Store, to: Path, size: int) -> None:
    """What anchors gave, beside the note that each is for: `openssl ts -verify -in N.NAME.tsr -data N.note`."""
    for kept in receipts(store.reads, size):
        if kept.note is not None:
            (to / "anchors").mkdir(exist_ok=True)
            (to / "anchors" / kept.file).write_bytes(kept.receipt)
            (to / "anchors" / f"{kept.size}.note").write_bytes(kept.note)


def _tiles(checkpoints: Checkpoints, to: Path, size: int) -> None:
    level = 0
    while size >> 8 * level:
        full, rest = divmod(size >> 8 * level, TILE)
        for number in range(full + bool(rest)):
            width = TILE if number < full else rest
            path = to / tile_path(str(level), number, width)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(checkpoints.tiles.hashes(level, number, width))
        level += 1


def _entries(store: Store, to: Path, size: int) -> None:
    with open(to / "chain", "wb") as chain:
        for first in range(0, size, TILE):
            last = min(first + TILE, size)
            bundle = bytearray()
            for entry in store.reads.entries(first + 1, TILE, upto=last):
                bundle += len(entry.body).to_bytes(2) + entry.body
                chain.write(entry.chain)
            path = to / tile_path("entries", first // TILE, last - first)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bundle)
