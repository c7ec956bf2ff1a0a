"""Tables that are swept and changed: who works, who was here. No part of the record, so no entry is over them."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import BigInteger, Column, LargeBinary
from sqlmodel import Field, SQLModel


def _number(*, index: bool = False) -> int:
    return Field(sa_column=Column(BigInteger, nullable=False, index=index))  # type: ignore[no-any-return]


class Lease(SQLModel, table=True):
    """Who does which background work until when. Operational, not part of the record."""

    __tablename__: ClassVar[str] = "lease"
    name: str = Field(primary_key=True)
    holder: str
    until: str


class Cursor(SQLModel, table=True):
    """How far a background reader came. (Migration 0007.)"""

    __tablename__: ClassVar[str] = "cursor"
    name: str = Field(primary_key=True)
    at: int = _number()


class FeedCount(SQLModel, table=True):
    """How often something happened on a feed: what its listener counts, and what is odd about its messages. Numbers
    only. (Migration 0010.)"""

    __tablename__: ClassVar[str] = "feed_count"
    source: str = Field(primary_key=True)
    what: str = Field(primary_key=True)
    count: int = _number()


class TokenSeen(SQLModel, table=True):
    """A client's JWT that was used, kept until it would be refused as expired. Operational: swept. (Migration 0003.)"""

    __tablename__: ClassVar[str] = "token_seen"
    digest: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    """Keyed digest of issuer and jti."""
    until: int = _number(index=True)
    """Seconds since 1970."""
    call: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """Random name of the request that brought it: its second act is not a replay."""


class StaffSession(SQLModel, table=True):
    """Somebody of the staff who signed in. Operational: swept, and removed at sign-out. (Migration 0003.)"""

    __tablename__: ClassVar[str] = "staff_session"
    digest: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    """Keyed digest of the cookie: who reads the database cannot use the session."""
    subject: str
    """Empty since migration 0014: who they are stands in `sealed`."""
    until: int = _number()
    ref: str | None = None
    """Random: the key of `sealed` stands under it, and goes with the session. (Migration 0014.)"""
    sealed: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    """Subject, name and what the provider's claims say of them. (Migration 0014.)"""
    used: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    """When they last looked at something, to the minute: seconds since 1970. (Migration 0014.)"""


class Hl7Sample(SQLModel, table=True):
    """How many messages of a source were seen and held against their version (`hl7_conformance`). (Migration 0009.)"""

    __tablename__: ClassVar[str] = "hl7_sample"
    source: str = Field(primary_key=True)
    seen: int = _number()
    checked: int = _number()
    unreadable: int = _number()
    passed_over: int = _number()
    failed: int = _number()
    ms: int = _number()
    """Milliseconds of processor time, in all."""
    hour: int = _number()
    """The last hour in which something was checked: hours since 1970."""
    hour_ms: int = _number()
    spent: int = _number()
    """1: the time of that hour did not suffice."""
    first: str
    last: str


class Hl7Finding(SQLModel, table=True):
    """What checked messages of a source do against their version: places and rules, no values. (Migration 0009.)"""

    __tablename__: ClassVar[str] = "hl7_finding"
    source: str = Field(primary_key=True)
    event: str = Field(primary_key=True)
    version: str = Field(primary_key=True)
    place: str = Field(primary_key=True)
    rule: str = Field(primary_key=True)
    code: str
    messages: int = _number()
    times: int = _number()
    first: str
    last: str
