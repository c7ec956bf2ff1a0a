"""Columns that tables share."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary
from sqlmodel import Field

ROW_ID = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits on both; spelt so that SQLite makes it the rowid itself instead of a second index over it."""


def row_id() -> int:
    return Field(sa_column=Column(ROW_ID, primary_key=True, autoincrement=False))  # type: ignore[no-any-return]


def big(*, index: bool = False, nullable: bool = False) -> int:
    return Field(sa_column=Column(BigInteger, nullable=nullable, index=index))  # type: ignore[no-any-return]


def raw(*, nullable: bool = False, unique: bool = False) -> bytes:
    return Field(sa_column=Column(LargeBinary, nullable=nullable, unique=unique))  # type: ignore[no-any-return]
