"""The tree over the entries, as it is kept: full tiles in a table, the right edge from leaves and from roots of tiles.

A tile is kept once it is full and never changes; its root is a hash of the tile above. So the tree costs 32 bytes an
entry and some more, an append nothing, and a proof reads one tile a level (c2sp.org/tlog-tiles).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

from cds_server.ledger.tree import TILE, fold
from cds_server.store.reads import Reads
from cds_server.store.writer import Tx
from models.errors import LedgerBroken

AT_ONCE = 16
"""Tiles that are made, and written in one act: some milliseconds of the write lock."""
_KEPT = 64
"""Full tiles held with all their nodes, 16 kB each."""
_HEIGHT = 8
_INSERT = "INSERT INTO ledger_tile (level, number, hashes, root) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"


class Tiles:
    """Nodes of the tree (`ledger.tree.NodeAt` is its `node`). Threads may share one."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._full: OrderedDict[tuple[int, int], list[list[bytes]]] = OrderedDict()
        self._edge: dict[tuple[int, int], list[list[bytes]]] = {}
        self._lock = threading.Lock()

    def node(self, level: int, index: int) -> bytes:
        """Hash of the complete subtree over leaves `index << level` to `(index + 1 << level) - 1`.

        Errors: LedgerBroken (an entry or a tile under it is missing).
        """
        tile_level, height = divmod(level, _HEIGHT)
        number, offset = divmod(index, 1 << _HEIGHT - height)
        return self._nodes(tile_level, number, offset + 1 << height)[height][offset]

    def forget_edge(self) -> None:
        """Read what is not full yet anew: before a head is signed, nothing remembered vouches for the database."""
        with self._lock:
            self._edge.clear()

    def hashes(self, level: int, number: int, width: int = TILE) -> bytes:
        """A tile as it is given out: its first `width` hashes. Errors: LedgerBroken."""
        return b"".join(self._nodes(level, number, width)[0][:width])

    def _nodes(self, level: int, number: int, wanted: int) -> list[list[bytes]]:
        place = level, number
        with self._lock:
            found = self._full.get(place)
            if found is not None:
                self._full.move_to_end(place)
                return found
            found = self._edge.get(place)
        if found is not None and len(found[0]) >= wanted:
            return found
        kept = self._reads.one("SELECT hashes FROM ledger_tile WHERE level = ? AND number = ?", place)
        hashes = _split(bytes(kept[0])) if kept else self._below(level, number)
        if len(hashes) < wanted:
            entry = (number * TILE + len(hashes) << _HEIGHT * level) + 1
            raise LedgerBroken(f"entry {entry}: it is missing, or the tree is not made up to it")
        found = fold(hashes)
        with self._lock:
            if len(hashes) == TILE:
                self._full[place] = found
                self._edge.pop(place, None)
                if len(self._full) > _KEPT:
                    self._full.popitem(last=False)
            else:
                self._edge[place] = found
                if len(self._edge) > _KEPT:
                    self._edge.clear()
        return found

    def _below(self, level: int, number: int) -> list[bytes]:
        """The hashes of a tile that is not kept: leaves of entries, or roots of the tiles below, without a gap."""
        first = number * TILE
        if level == 0:
            asked = "SELECT seq - 1, leaf FROM ledger_entry WHERE seq > ? AND seq <= ? ORDER BY seq"
            rows = self._reads.query(asked, (first, first + TILE))
        else:
            asked = (
                "SELECT number, root FROM ledger_tile WHERE level = ? AND number >= ? AND number < ? ORDER BY number"
            )
            rows = self._reads.query(asked, (level - 1, first, first + TILE))
        return [bytes(row[1]) for n, row in enumerate(rows, first) if row[0] == n]

    def missing(self, size: int) -> Iterator[list[tuple[int, int, bytes, bytes]]]:
        """Rows of the full tiles that a tree of `size` has and the table lacks, some at a time, lower levels first.

        Keep each (`keep`) before asking for the next. Errors: LedgerBroken.
        """
        level, full = 0, size // TILE
        while full:
            row = self._reads.one("SELECT MAX(number) FROM ledger_tile WHERE level = ?", (level,))
            first = 0 if row is None or row[0] is None else int(row[0]) + 1
            for start in range(first, full, AT_ONCE):
                yield [self._made(level, number) for number in range(start, min(full, start + AT_ONCE))]
            level, full = level + 1, full // TILE

    def _made(self, level: int, number: int) -> tuple[int, int, bytes, bytes]:
        hashes = self._below(level, number)
        if len(hashes) < TILE:
            raise LedgerBroken(f"entry {(number * TILE + len(hashes) << _HEIGHT * level) + 1} is missing")
        return level, number, b"".join(hashes), fold(hashes)[_HEIGHT][0]

    def differs(self, number: int) -> int | None:
        """The first entry under a kept tile of leaves whose leaf is not the one in the tile; None where all are."""
        kept = self._reads.one("SELECT hashes FROM ledger_tile WHERE level = 0 AND number = ?", (number,))
        found, leaves = self._below(0, number), _split(bytes(kept[0])) if kept else []
        for n, leaf in enumerate(leaves):
            if n >= len(found) or found[n] != leaf:
                return number * TILE + n + 1
        return None


def keep(tx: Tx, rows: list[tuple[int, int, bytes, bytes]]) -> None:
    """Write tiles; what another process wrote meanwhile stays."""
    for row in rows:
        tx.execute(_INSERT, row)


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[i : i + 32] for i in range(0, len(hashes), 32)]
