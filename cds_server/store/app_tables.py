"""Launches under way and sessions of the SMART app. Operational: swept, changed, removed, so no entry is over them.

What a launch remembers, and an EHR's tokens, are sealed by the vault under keys of their own, which are destroyed when
the launch or the session ends: what a copy of the database holds of them then is noise. (Migration 0013.)
"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import BigInteger, Column, LargeBinary
from sqlmodel import Field, SQLModel

from cds_server.store.columns import big, raw


class AppLaunch(SQLModel, table=True):
    """A launch between our redirect to an EHR and its callback. Taken once, by whoever brings its state."""

    __tablename__: ClassVar[str] = "app_launch"
    state: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    """Keyed digest of the `state` that was sent."""
    ref: str = Field(unique=True)
    """Random: names its cookie, and the key of `sealed`."""
    browser: bytes = raw()
    """Keyed digest of the cookie: the browser that began it."""
    namespace: str
    until: int = big(index=True)
    """Seconds since 1970."""
    sealed: bytes = raw()


class AppSession(SQLModel, table=True):
    """An open case: of a launch, or opened by a board."""

    __tablename__: ClassVar[str] = "app_session"
    id: str = Field(primary_key=True)
    """The launch id of the path: random, proves nothing."""
    cookie: bytes = raw()
    """Keyed digest of the cookie that proves it."""
    namespace: str | None
    """Of the EHR that launched it; empty: staff opened it."""
    record: str
    """Reference of the patient record."""
    idle: int = big()
    """Seconds without a request after which it is over."""
    seen: int = big()
    until: int = big(index=True)
    """When it is over at the latest."""
    ref: str
    """The key of `sealed` stands under it."""
    sealed: bytes = raw()
    """Who looks, at whom, how it was launched."""
    token_ref: str | None
    token: bytes | None = raw(nullable=True)
    """Sealed: the EHR's tokens."""
    turn: int = Field(sa_column=Column(BigInteger, nullable=False))
    """Grows with each change of the tokens."""
    refreshing: str | None
    """Who refreshes them now."""
    refreshing_until: int = big()
