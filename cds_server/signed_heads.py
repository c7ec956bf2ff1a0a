"""The heads that were signed, held against the entries as a check walks over them.

The chain in a database can be computed anew by whoever owns it; a signed head that is kept elsewhere cannot. Heads come
from the database, from the file `checkpoint` beside it, and from whoever checks and brings one along.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

from cds_server.checkpoints import FILE
from cds_server.ledger.entry import Entry
from cds_server.ledger.tree import TILE, fold, node_hash, root
from cds_server.ledger.verifier import LOG, Checkpoint, Growing, Key, Wrong, follow, open_note, parse_checkpoint
from cds_server.ledger.verify import Finding
from cds_server.store.reads import Reads


class SignedHeads:
    """`leaves` of the entries in order, then `finish`; `findings` say what differs, each with the first bad entry."""

    def __init__(self, reads: Reads, data_dir: Path, keys: Sequence[Key] = (), notes: Sequence[bytes] = ()) -> None:
        """`keys`: pinned by whoever checks (and those they hand over to), else the database's. `notes`: their heads.

        Raises Wrong where one of those notes is not signed by a key.
        """
        self._reads = reads
        self._keys = list(keys) or [
            Key(origin, LOG, bytes(raw))
            for origin, raw in reads.query("SELECT origin, key FROM ledger_key ORDER BY id")
        ]
        if keys:
            for (handover,) in reads.query("SELECT handover FROM ledger_key WHERE handover IS NOT NULL ORDER BY id"):
                with contextlib.suppress(Wrong):  # from a key that is not trusted: what it signs is not, either
                    follow(bytes(handover), self._keys)
        self.findings: list[Finding] = []
        self._whole = _Whole()
        self._pending: list[bytes] = []
        self._agreed = 0
        self._differs = False
        self.gone = False
        """An entry is missing or wrong: the tree over what follows says nothing."""
        self.size = 0
        """Of the largest head that the log was held against."""
        self._heads: dict[int, list[Checkpoint]] = {}
        for note in notes:
            self._expect(parse_checkpoint(open_note(note, self._keys).text))
        for size, note in reads.query("SELECT size, note FROM ledger_checkpoint ORDER BY size"):
            self._of_database(int(size), bytes(note))
        self._outside(data_dir / FILE)
        self._sizes = sorted(self._heads)

    def _expect(self, head: Checkpoint) -> None:
        self._heads.setdefault(head.size, []).append(head)

    def _of_database(self, size: int, note: bytes) -> None:
        try:
            head = parse_checkpoint(open_note(note, self._keys).text)
        except Wrong as wrong:
            self.findings.append(Finding(size, f"the checkpoint at this entry: {wrong}"))
            return
        if head.size != size:
            self.findings.append(Finding(size, "the checkpoint at this entry is one of another entry"))
        else:
            self._expect(head)

    def _outside(self, path: Path) -> None:
        try:
            head = parse_checkpoint(open_note(path.read_bytes(), self._keys).text)
        except FileNotFoundError:
            return
        except Wrong as wrong:
            self.findings.append(Finding(0, f"the file `checkpoint` is not one of this log: {wrong}"))
            return
        given_up = "SELECT 1 FROM ledger_break WHERE origin = ? AND size = ? AND root = ?"
        if not self._reads.one(given_up, (head.origin, head.size, head.root)):
            self._expect(head)

    def watched(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """The entries, on their way to another check."""
        for entry in entries:
            self.gone = self.gone or entry.seq != self._whole.size * TILE + len(self._pending) + 1
            self.leaves((entry.leaf,))
            yield entry

    def leaves(self, more: Sequence[bytes]) -> None:
        """The leaves of the next entries."""
        if self.gone:  # one that is missing moves every later one: the walk names it
            return
        self._pending += more
        while len(self._pending) >= TILE:
            tile = self._pending[:TILE]
            del self._pending[:TILE]
            self._look(tile)
            self._whole.add(fold(tile)[-1][0])

    def _look(self, leaves: list[bytes]) -> None:
        """A tile's worth of leaves, or the last ones: against the tile that is kept, and the heads within it."""
        number = self._whole.size
        row = self._reads.one("SELECT hashes FROM ledger_tile WHERE level = 0 AND number = ?", (number,))
        kept, found = bytes(row[0]) if row else b"", b"".join(leaves)
        if kept and kept != found:
            n = next(n for n in range(TILE) if kept[n * 32 : n * 32 + 32] != found[n * 32 : n * 32 + 32])
            if n < len(leaves):
                self._find(number * TILE + n + 1, "it is not the one that stands in the tree: it was replaced")
        first = number * TILE
        for size in self._sizes[bisect_right(self._sizes, first) : bisect_right(self._sizes, first + len(leaves))]:
            self._compare(size, self._whole.root_with(root(leaves[: size - first])))

    def _compare(self, size: int, found: bytes) -> None:
        if not self._differs and all(head.root == found for head in self._heads[size]):
            self._agreed = self.size = size
        elif not self._differs:
            self._differs = True  # and so it does at every later head
            first = self._agreed + 1
            place = "it is" if first == size else f"this or one up to entry {size} is"
            self._find(first, f"{place} not the one that was signed: the log was written anew")

    def _find(self, entry: int, what: str) -> None:
        self.findings.append(Finding(entry, what))

    def finish(self) -> list[Finding]:
        """What was found, and heads beyond the last entry."""
        end = self._whole.size * TILE + len(self._pending)
        if self._pending:
            self._look(self._pending)
        beyond = max(self._heads, default=0)
        if beyond > end and not self.gone:
            self._find(end + 1, f"it is missing: {beyond} entries were signed, the end was cut off")
        return self.findings


class _Whole(Growing):
    """The tree over roots of full tiles."""

    def root_with(self, edge: bytes) -> bytes:
        """Root of the log's tree, with the root over what comes after the full tiles."""
        for left in reversed(self.whole):
            edge = node_hash(left, edge)
        return edge
