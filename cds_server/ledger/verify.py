"""Does the log still say what it said? Each finding names the first thing that is wrong, and where.

What this can and cannot prove: an edited, deleted or reordered row or entry is found and named. Whoever owns the
database can still recompute the whole chain; that is what checkpoints and witnesses outside of it are for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from cds_server.ledger.entry import GENESIS, MOST_BYTES, Entry, Row, chain_hash, row_leaf
from cds_server.ledger.tree import leaf_hash, root
from models.canonical import canonical

RowsOf = Callable[[str, int], Sequence[Row]]
"""(table, seq) -> the rows that entry `seq` wrote into `table`, by id."""

ErasedOf = Callable[[str, int], frozenset[int]]
"""(table, seq) -> ids of rows of entry `seq` that a later entry says were erased."""


def nothing_erased(_table: str, _seq: int) -> frozenset[int]:
    return frozenset()


ROW_BITS = 20
"""A row's id is `seq << ROW_BITS | n`, n counting the entry's rows from 1."""
_LEAVES = "its list of row leaves was edited"
_LEAVES = "its list of row leaves was edited"
_NAMED = 10
"""At most so many rows of one entry are named."""


@dataclass(frozen=True, slots=True)
class Finding:
    seq: int
    what: str

    def __str__(self) -> str:
        return f"entry {self.seq}: {self.what}"


def verify(
    entries: Iterable[Entry],
    rows_of: RowsOf | None = None,
    *,
    deep: bool = False,
    after: Entry | None = None,
    erased: ErasedOf = nothing_erased,
) -> Iterator[Finding]:
    """Walk the entries in order; with `rows_of`, hold each governed row against its leaf; `deep` checks canonical form.

    A row that was `erased` may be missing, and nothing else may: its leaf stays, and what is left must fit the others.

    Entries must come ordered by `seq`, from the first, or from the one after `after`. Goes on after a finding, so that
    one edit does not hide another; a broken chain is reported once, where it breaks.
    """
    previous, expected = (GENESIS, 1) if after is None else (after.chain, after.seq + 1)
    for entry in entries:
        if entry.seq != expected:
            missing = (
                f"entry {expected} is missing"
                if entry.seq == expected + 1
                else (f"entries {expected} to {entry.seq - 1} are missing" if entry.seq > expected else "out of order")
            )
            yield Finding(entry.seq, missing)
        expected = entry.seq + 1
        if leaf_hash(entry.body) != entry.leaf:
            yield Finding(entry.seq, "its body was edited (the leaf hash differs)")
        elif chain_hash(previous, entry.leaf) != entry.chain:
            yield Finding(
                entry.seq, "the chain breaks here: this entry or the one before was replaced, moved or removed"
            )
        previous = entry.chain
        yield from _body(entry, deep)
        if rows_of is not None:
            yield from _rows(entry, rows_of, erased)


Stored = tuple[int, bytes, bytes, bytes]
"""(seq, body, leaf, chain) as they stand in the database."""


def walk(
    batches: Iterable[Sequence[Stored]],
    grown: Callable[[Sequence[bytes]], object],
    after: tuple[int, bytes] = (0, GENESIS),
) -> Iterator[Finding]:
    """The same of stored bytes, without rows and their leaves, some times as fast: number, body, leaf, chain.

    `grown` gets the leaves in order, some at a time, as the bodies say that they are; before a finding, those before
    it. `after`: number and chain hash of the entry before the first one.
    """
    expected, previous = after[0] + 1, after[1]
    sha256 = hashlib.sha256
    for batch in batches:
        leaves: list[bytes] = []
        for seq, body, leaf, chain in batch:
            found = sha256(b"\0" + body).digest()
            if (
                found != leaf
                or seq != expected
                or sha256(previous + leaf).digest() != chain
                or not body.endswith(b',"seq":%d,"v":1}' % seq)
                or len(body) > MOST_BYTES
            ):
                grown(leaves)
                leaves = []
                yield from _found_wrong(Entry(seq, body, leaf, chain, b""), expected, previous)
            leaves.append(found)
            expected, previous = seq + 1, chain
        grown(leaves)


def _found_wrong(entry: Entry, expected: int, previous: bytes) -> Iterator[Finding]:
    before = Entry(expected - 1, b"", b"", previous, b"")
    yield from (each for each in verify([entry], after=before) if each.what != _LEAVES)


def _body(entry: Entry, deep: bool) -> Iterator[Finding]:
    try:
        body = orjson.loads(entry.body)
        named = body["seq"], body["rows"]["root"], body["rows"]["count"]
    except (ValueError, KeyError, TypeError):
        yield Finding(entry.seq, "its body cannot be read")
        return
    if len(entry.body) > MOST_BYTES:
        yield Finding(entry.seq, f"its body has more than {MOST_BYTES} bytes")
    if named[0] != entry.seq:
        yield Finding(entry.seq, f"its body says that it is entry {named[0]}: reordered")
    leaves = split(entry.row_leaves)
    if len(leaves) != named[2] or root(leaves).hex() != named[1]:
        yield Finding(entry.seq, _LEAVES)
    if deep and canonical(body) != entry.body:
        yield Finding(entry.seq, "its body is not in canonical form")


def _rows(entry: Entry, rows_of: RowsOf, erased: ErasedOf) -> Iterator[Finding]:
    """Hold the rows of one entry against its leaves, and name each that was edited, added, deleted or moved.

    Ids of an entry's rows count from 1 without a gap, over all its tables: what is missing can be named.
    """
    try:
        tables: list[list[Any]] = orjson.loads(entry.body)["rows"]["tables"]
    except (ValueError, KeyError, TypeError):
        return
    leaves = split(entry.row_leaves)
    start, lost, present = 0, dict[str, int](), set[Any]()
    for table, count in tables:
        wanted = leaves[start : start + count]
        start += count
        rows = rows_of(table, entry.seq)
        found = [row_leaf(table, row) for row in rows]
        here = {row["id"] for row in rows}
        present.update(here)
        if taken := erased(table, entry.seq):
            back = sorted(taken & here)
            yield from (Finding(entry.seq, f"row {row} of table {table} was erased, and is there") for row in back)
            left = _without(wanted, sorted(here | taken), taken - here)
            if left is not None:
                wanted, count = left, len(left)
                present.update(taken)
        if found == wanted:
            continue
        known = set(wanted)
        wrong = [str(row["id"]) for row, leaf in zip(rows, found, strict=True) if leaf not in known]
        yield from (Finding(entry.seq, f"row {row} of table {table} was edited or added") for row in wrong[:_NAMED])
        if len(rows) < count:
            lost[table] = count - len(rows)
        elif not wrong:
            yield Finding(entry.seq, f"the rows of table {table} were reordered")
    ids = (entry.seq << ROW_BITS | n for n in range(1, len(leaves) + 1))
    missing = [str(row_id) for row_id in ids if row_id not in present][:_NAMED]
    if len(lost) == 1:
        for table in lost:
            yield from (Finding(entry.seq, f"row {row} of table {table} was deleted") for row in missing)
    elif lost:
        yield Finding(entry.seq, f"rows of the tables {', '.join(lost)} were deleted (ids {', '.join(missing)})")


def _without(leaves: list[bytes], ids: list[Any], taken: frozenset[int]) -> list[bytes] | None:
    """The leaves of those rows of a table that were not taken; None where ids and leaves do not fit each other."""
    if len(ids) != len(leaves):
        return None
    return [leaf for leaf, row_id in zip(leaves, ids, strict=True) if row_id not in taken]


def split(row_leaves: bytes) -> list[bytes]:
    return [row_leaves[i : i + 32] for i in range(0, len(row_leaves), 32)]
