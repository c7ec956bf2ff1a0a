"""What is held of imaging studies: an index over the objects that landed, and what was made of each study."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import Index
from sqlmodel import SQLModel

from cds_server.store.columns import big, raw, row_id


class DicomObject(SQLModel, table=True):
    """One object that landed, as its header names it. (Migration 0011.)"""

    __tablename__: ClassVar[str] = "dicom_object"
    __table_args__ = (Index("ix_dicom_object_study", "study"), Index("ix_dicom_object_sop", "sop"))
    id: int = row_id()
    entry: int = big()
    landing_id: int = big()
    part: int
    record_id: int | None = big(nullable=True)
    """Whose it is; empty where it names no patient."""
    namespace: str
    study: bytes = raw()
    """Keyed digest of namespace and Study Instance UID."""
    series: bytes = raw()
    """Keyed."""
    sop: bytes = raw()
    """Keyed."""
    modality: str
    header: bytes | None = raw(nullable=True)
    """What its reader took from it, sealed under the record's key."""
    other: bool
    """Another object under this UID came before, with other bytes: this one is kept, and not used."""


class ExaminedStudy(SQLModel, table=True):
    """A study was put together from the objects held of it, and what came of that landed. (Migration 0011.)"""

    __tablename__: ClassVar[str] = "examined_study"
    __table_args__ = (Index("ix_examined_study", "study"),)
    id: int = row_id()
    entry: int = big()
    study: bytes = raw()
    record_id: int | None = big(nullable=True)
    up_to: int = big()
    """The last object that was there."""
    objects: int
    complete: bool | None
    """As the last query of its archive said; empty where nobody asked."""
    outcome: str
    """examined, refused."""
    landing_id: int | None = big(nullable=True)
    """What was made of it: resources, and pictures."""
    detail: str | None
    """Why it was refused, in our words."""
    at: str
