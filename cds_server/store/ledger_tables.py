"""What stands above the entries: keys that sign, breaks, the tree's tiles, checkpoints, witnesses' signatures.

Keys and breaks are acts, with an entry over them. Tiles, checkpoints and cosignatures follow from entries that are
there already: no entry is over them, or each checkpoint would ask for the next one.
"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import BigInteger, Column, Integer
from sqlmodel import Field, SQLModel

from cds_server.store.columns import big, raw, row_id


class LedgerKey(SQLModel, table=True):
    """A key that signs checkpoints, by its public half, and the origin it signs for. The last row is the one in use."""

    __tablename__: ClassVar[str] = "ledger_key"
    id: int = row_id()
    entry: int = big()
    origin: str
    key: bytes = raw()
    handover: bytes | None = raw(nullable=True)
    """Note by which the key before it hands over; none for the first key of an origin."""
    at: str


class LedgerBreak(SQLModel, table=True):
    """A checkpoint that was published and that this log does not extend: given up by an operator, who says why."""

    __tablename__: ClassVar[str] = "ledger_break"
    id: int = row_id()
    entry: int = big()
    origin: str
    size: int = big()
    root: bytes = raw()
    reason: str
    at: str


class LedgerTile(SQLModel, table=True):
    """A full tile of the tree: 256 hashes, and the root over them (c2sp.org/tlog-tiles)."""

    __tablename__: ClassVar[str] = "ledger_tile"
    level: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    hashes: bytes = raw()
    root: bytes = raw()


class LedgerCheckpoint(SQLModel, table=True):
    """A signed head of the log."""

    __tablename__: ClassVar[str] = "ledger_checkpoint"
    size: int = row_id()
    origin: str
    root: bytes = raw()
    note: bytes = raw()
    at: str


class LedgerCosignature(SQLModel, table=True):
    """What a witness signed: the line that goes under the note of that size."""

    __tablename__: ClassVar[str] = "ledger_cosignature"
    size: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    witness: str = Field(primary_key=True)
    line: str
    at: str


class LedgerState(SQLModel, table=True):
    """How it goes with signing and with each witness: what is wrong, or nothing. Operational, no part of the record."""

    __tablename__: ClassVar[str] = "ledger_state"
    name: str = Field(primary_key=True)
    said: str
    at: str
