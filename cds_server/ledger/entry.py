"""What one ledger entry is: a canonical body, its leaf hash, its place in the chain, and a leaf for each row it wrote.

The body (RFC 8785) names the act and carries the root over its rows; it holds commitments, counts and digests of things
that are not PHI, never a payload. `leaf` is the RFC 6962 leaf hash of the body, so that a tree over all entries can be
built at any time without touching them. `chain` binds each entry to all before it.

A row's leaf is the leaf hash of `[table, {column: cell}]` without empty cells: a later migration that adds a nullable
column leaves the meaning of every old row as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from cds_server.ledger.tree import leaf_hash, root
from models.canonical import Noun, spell, spelled
from models.errors import TooLarge

GENESIS = hashlib.sha256(b"cds-server ledger v1").digest()
"""What the first entry is chained to."""

MOST_BYTES = 65_535
"""Of a body: what an entry bundle can carry (c2sp.org/tlog-tiles, two bytes of length)."""

Cell = str | int | bool | bytes | None
Row = Mapping[str, Cell]


class Entry(Noun, frozen=True):
    seq: int
    """1 for the first, no gap ever."""
    body: bytes
    leaf: bytes
    chain: bytes
    row_leaves: bytes
    """32 bytes a row, in the order that `rows` in the body names the tables, each table by id."""


def row_leaf(table: str, row: Row) -> bytes:
    """Leaf hash of one row, 32 bytes. Cells are text, whole numbers, booleans or bytes (hex in the leaf).

    With such cells and ASCII column names, orjson with sorted keys writes RFC 8785 (held against it in the tests).
    """
    cells = row if None not in row.values() else {column: cell for column, cell in row.items() if cell is not None}
    return leaf_hash(orjson.dumps([table, cells], default=bytes.hex, option=orjson.OPT_SORT_KEYS))


def chain_hash(previous: bytes, leaf: bytes) -> bytes:
    return hashlib.sha256(previous + leaf).digest()


def seal_entry(
    seq: int,
    previous: bytes,
    *,
    kind: str,
    at: str,
    actor: str,
    boot: str,
    mono_ns: int,
    rows: Mapping[str, Sequence[Row]],
    detail: Mapping[str, Any],
) -> Entry:
    """Build entry `seq` over the rows of one act.

    `rows` by table, in the order that the entry lists the tables in, each in order of id. `mono_ns` and `boot` tell a
    clock that jumped from time that passed; order is `seq`, never time. Errors: TooLarge.
    """
    leaves = [row_leaf(table, row) for table, members in rows.items() for row in members]
    body = spell(
        {
            "v": 1,
            "seq": seq,
            "kind": kind,
            "at": at,
            "boot": boot,
            "mono_ns": str(mono_ns),
            "actor": actor,
            "rows": {
                "count": len(leaves),
                "root": root(leaves).hex(),
                "tables": [(table, len(members)) for table, members in rows.items()],
            },
            "detail": spelled(dict(detail)),
        }
    )
    if len(body) > MOST_BYTES:
        raise TooLarge(f"a ledger entry has at most {MOST_BYTES} bytes")
    leaf = leaf_hash(body)
    return Entry(seq, body, leaf, chain_hash(previous, leaf), b"".join(leaves))
