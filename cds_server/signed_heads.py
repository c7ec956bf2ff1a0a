"""The heads that were signed, held against the entries as a check walks over them.

The chain in a database can be computed anew by whoever owns it; a signed head that is kept elsewhere cannot. Heads come
from the database, from the file `checkpoint` beside it, and from whoever checks and brings one along.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cds_server.checkpoints import FILE
from cds_server.ledger.entry import Entry
from cds_server.ledger.tree import TILE
from cds_server.ledger.verifier import LOG, Checkpoint, Growing, Key, Wrong, open_note, parse_checkpoint
from cds_server.ledger.verify import Finding
from cds_server.store.reads import Reads


class SignedHeads:
    """`leaf` for each entry in order, then `finish`; `findings` say what differs, each with the first bad entry."""

    def __init__(self, reads: Reads, data_dir: Path, keys: Sequence[Key] = (), notes: Sequence[bytes] = ()) -> None:
        """`keys`: pinned by whoever checks, else those in the database. `notes`: checkpoints that they bring along.

        Raises Wrong where one of those notes is not signed by a key.
        """
        self._reads = reads
        self._keys = list(keys) or [
            Key(origin, LOG, bytes(raw))
            for origin, raw in reads.query("SELECT origin, key FROM ledger_key ORDER BY id")
        ]
        self.findings: list[Finding] = []
        self._tree = Growing()
        self._agreed = 0
        self._tile = b""
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
            self.gone = self.gone or entry.seq != self._tree.size + 1
            self.leaf(entry.leaf)
            yield entry

    def leaf(self, leaf: bytes) -> None:
        """The next entry's leaf."""
        if self.gone:  # one that is missing moves every later one: the walk names it
            return
        offset = self._tree.size % TILE
        if offset == 0:
            row = self._reads.one(
                "SELECT hashes FROM ledger_tile WHERE level = 0 AND number = ?", (self._tree.size // TILE,)
            )
            self._tile = bytes(row[0]) if row else b""
        self._tree.add(leaf)
        size = self._tree.size
        if self._tile and self._tile[offset * 32 : offset * 32 + 32] != leaf:
            self.findings.append(Finding(size, "it is not the one that stands in the tree: it was replaced"))
            self._tile = b""
        if size in self._heads:
            self._compare(size)

    def _compare(self, size: int) -> None:
        root = self._tree.root()
        if all(head.root == root for head in self._heads[size]):
            self._agreed = self.size = size
            return
        first = self._agreed + 1
        place = "it is" if first == size else f"this or one up to entry {size} is"
        self.findings.append(Finding(first, f"{place} not the one that was signed: the log was written anew"))
        self._heads.clear()  # once it differs, it differs at every later head

    def finish(self) -> list[Finding]:
        """What was found, and heads beyond the last entry."""
        beyond = max(self._heads, default=0)
        if beyond > self._tree.size and not self.gone:
            self.findings.append(
                Finding(self._tree.size + 1, f"it is missing: {beyond} entries were signed, the end was cut off")
            )
        return self.findings
