"""What was erased and why, what may not be, and what outside time stamps say of the log. (Migration 0017.)"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import BigInteger, Column
from sqlmodel import Field, SQLModel

from cds_server.store.columns import big, raw, row_id


class Erasure(SQLModel, table=True):
    """A person was erased: the keys of everything sealed about them are destroyed, the projection's rows removed."""

    __tablename__: ClassVar[str] = "erasure"
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    """Random: the receipt carries it."""
    basis: str
    """Why, in the operator's words, which name nobody."""
    key_count: int
    row_count: int
    at: str


class Erased(SQLModel, table=True):
    """Some of what an erasure took: keys by reference, or rows of one table by id. All of it random or ours."""

    __tablename__: ClassVar[str] = "erased"
    id: int = row_id()
    entry: int = big()
    erasure_id: int = big(index=True)
    what: str
    """`key`, or the table."""
    members: bytes = raw()
    """Keys: a byte of length and the reference, one after another. Rows: eight bytes each, big-endian."""


class LegalHold(SQLModel, table=True):
    """Nothing of this record may be erased or purged until the hold is lifted."""

    __tablename__: ClassVar[str] = "legal_hold"
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    """Random: names the hold."""
    record_id: int = big(index=True)
    reason: str
    at: str


class LegalHoldLift(SQLModel, table=True):
    __tablename__: ClassVar[str] = "legal_hold_lift"
    id: int = row_id()
    entry: int = big()
    hold_id: int = big(index=True)
    reason: str
    at: str


class Erasing(SQLModel, table=True):
    """Rows that the act that is under way removes: the triggers let these go, and no others. Empty after it."""

    __tablename__: ClassVar[str] = "erasing"
    of_table: str = Field(primary_key=True)
    row_id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))


class LedgerAnchor(SQLModel, table=True):
    """What somebody outside gave for a checkpoint: a time stamp (RFC 3161), or that it was handed over."""

    __tablename__: ClassVar[str] = "ledger_anchor"
    size: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    anchor: str = Field(primary_key=True)
    kind: str
    receipt: bytes = raw()
    at: str


ERASABLE = ("patient_record", "record_identifier", "link", "resource", "resource_closing", "dicom_object")
"""The projection: what can be made again from the parts, and goes with them."""
