"""Who looked at whose data, and who handles what waits. Insert-only. (Migrations 0014, 0018.)

An `access` row names its viewer by a keyed digest, so that a reviewer can count, and seals who that is; it names
patients by rows of `access_record`, so that a list of thirty persons is one look with thirty patients. Nothing in it
was said about a patient, but for the reason of whoever broke the glass, and that is sealed.
"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import BigInteger, Column
from sqlmodel import Field, SQLModel

from cds_server.store.columns import big, raw, row_id


class AccessRow(SQLModel, table=True):
    """One look: seen, refused, or the glass was broken."""

    __tablename__: ClassVar[str] = "access"
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    """Random: the key of `sealed` stands under it."""
    act: str = Field(index=True)
    outcome: str
    """seen, refused, broken."""
    purpose: str
    """v3-PurposeOfUse: TREAT, ETREAT, HOPERAT, HRESCH, ..."""
    door: str
    ehr: str | None
    """Namespace of the EHR that vouches for the viewer; empty: staff, or a command."""
    roles: str
    """Space separated, as they were then."""
    who: bytes = raw()
    """Keyed digest of the viewer."""
    sealed: bytes = raw()
    """The viewer: subject and name; of broken glass, the reason."""
    commitment: bytes = raw()
    detail: str | None
    """JSON: counts and words of ours."""
    until: str | None = Field(index=True)
    """Of broken glass: until when it stays so."""
    at: str = Field(index=True)


class AccessRecord(SQLModel, table=True):
    """A patient record that a look was at."""

    __tablename__: ClassVar[str] = "access_record"
    id: int = row_id()
    entry: int = big()
    access_id: int = Field(sa_column=Column(BigInteger, nullable=False, index=True))
    record_id: int = Field(sa_column=Column(BigInteger, nullable=False, index=True))
    outcome: str
    """seen or refused; of one list, some may be refused."""


class FlagClaim(SQLModel, table=True):
    """Somebody took a flag to handle it, was given it, or laid it down. The last row counts. (Migration 0018.)"""

    __tablename__: ClassVar[str] = "flag_claim"
    id: int = row_id()
    entry: int = big()
    flag_id: int = Field(sa_column=Column(BigInteger, nullable=False, index=True))
    verb: str
    """claim or release."""
    ref: str = Field(unique=True)
    who: bytes | None = raw(nullable=True)
    """Keyed digest of whoever handles it; empty: nobody any more."""
    sealed: bytes | None = raw(nullable=True)
    """Their subject and name."""
    at: str
