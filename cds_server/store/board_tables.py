"""Meetings of a tumor board: worklists, what was recommended, who signed, which minutes were given out.

All of it is on record and never changed: another order, another wording, a case taken off are rows after the first one.
What names a patient or quotes a person is sealed under a key of its own (`BOARD` and the row's `ref`); `record_id` of
the case says whose it is, so that an erasure finds it.
"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import BigInteger, Column, Index, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

from cds_server.store.columns import big, raw, row_id


class BoardMeeting(SQLModel, table=True):
    """A meeting of the board. (Migration 0015, as all of these.)"""

    __tablename__: ClassVar[str] = "board_meeting"
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    held_on: str
    """The day, as the hospital counts days: YYYY-MM-DD."""
    sealed: bytes = raw()
    """Title, place, and who called it."""
    commitment: bytes = raw()
    at: str


class BoardMeetingState(SQLModel, table=True):
    """From this entry on, a meeting is `closed`: nothing about its cases changes; or it is `open` again."""

    __tablename__: ClassVar[str] = "board_meeting_state"
    id: int = row_id()
    entry: int = big()
    meeting_id: int = big(index=True)
    state: str
    at: str


class BoardCase(SQLModel, table=True):
    """A patient on the worklist of a meeting."""

    __tablename__: ClassVar[str] = "board_case"
    __table_args__ = (Index("ix_board_case_meeting", "meeting_id"), Index("ix_board_case_record", "record_id"))
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    meeting_id: int = big()
    record_id: int = big()
    sealed: bytes = raw()
    """The question to the board, and who asks it."""
    commitment: bytes = raw()
    at: str


class BoardCaseState(SQLModel, table=True):
    """From this entry on, a case is `withdrawn` from its worklist."""

    __tablename__: ClassVar[str] = "board_case_state"
    id: int = row_id()
    entry: int = big()
    case_id: int = big(index=True)
    state: str
    at: str


class BoardOrder(SQLModel, table=True):
    """From this entry on, the worklist of a meeting goes in this order; cases that it does not name come after."""

    __tablename__: ClassVar[str] = "board_order"
    id: int = row_id()
    entry: int = big()
    meeting_id: int = big(index=True)
    cases: str
    """References, space separated."""
    at: str


class BoardRecommendation(SQLModel, table=True):
    """One version of what the board recommends for a case. A change is a new version, and nobody has signed that."""

    __tablename__: ClassVar[str] = "board_recommendation"
    __table_args__ = (UniqueConstraint("case_id", "version"),)
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    case_id: int = big()
    version: int
    inferences: str
    """References of those that were on the screen, space separated."""
    sealed: bytes = raw()
    """Recommendation, rationale, dissent, follow-up, participants, and who wrote it down."""
    commitment: bytes = raw()
    at: str


class BoardSignOff(SQLModel, table=True):
    """Somebody signed a version of a recommendation."""

    __tablename__: ClassVar[str] = "board_sign_off"
    __table_args__ = (UniqueConstraint("recommendation_id", "who"),)
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    recommendation_id: int = big()
    role: str
    who: bytes = raw()
    """Keyed digest of the person, as their door knows them: each signs a version once."""
    sealed: bytes = raw()
    """The same in words: subject and name, and what they add."""
    commitment: bytes = raw()
    at: str


class BoardMinutes(SQLModel, table=True):
    """Minutes of one case as they were given out: the PDF itself."""

    __tablename__: ClassVar[str] = "board_minutes"
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    case_id: int = big(index=True)
    recommendation_id: int = big()
    sealed: bytes = raw()
    commitment: bytes = raw()
    at: str


class BoardContext(SQLModel, table=True):
    """A case that somebody of the board has open, for a while. Operational: swept, no part of the record."""

    __tablename__: ClassVar[str] = "board_context"
    digest: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    """Keyed digest of its id in the path."""
    session: bytes = raw()
    """Keyed digest of the staff session that opened it: nobody else's, and gone with it."""
    case_id: int = big()
    until: int = Field(sa_column=Column(BigInteger, nullable=False))
    """Seconds since 1970."""


BOARD = b"b"
"""Kind of the board's sealed payloads: the first letter of a key reference."""
