"""The nouns as tables. Rows are written once: triggers refuse every update and delete (migration 0001).

`id` is `entry << 20 | n`: the ledger entry that wrote the row and the row's number in it, so that ids never need a
counter of their own, and each row names its entry. Digests marked *keyed* are BLAKE2b (RFC 7693) under the instance's
index key: equality can be looked up, the value cannot be guessed by whoever holds only the database. Columns named
`sealed` are AES-256-GCM under a key that stands in the key store, not here.
"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import BigInteger, Column, Index, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

from cds_server.store import app_tables as app_tables
from cds_server.store import operational as operational  # a schema is all of its tables
from cds_server.store.access_tables import AccessRecord, AccessRow, FlagClaim
from cds_server.store.board_tables import (
    BoardCase,
    BoardCaseState,
    BoardMeeting,
    BoardMeetingState,
    BoardMinutes,
    BoardOrder,
    BoardRecommendation,
    BoardSignOff,
)
from cds_server.store.columns import big, raw, row_id
from cds_server.store.erasure_tables import Erased, Erasure, LegalHold, LegalHoldLift
from cds_server.store.imaging_tables import DicomObject, ExaminedStudy
from cds_server.store.ledger_tables import LedgerBreak, LedgerKey


class Instance(SQLModel, table=True):
    """One row: which instance this database belongs to. The key store carries the same id."""

    __tablename__: ClassVar[str] = "instance"
    id: str = Field(primary_key=True)
    created_at: str


class LedgerEntry(SQLModel, table=True):
    __tablename__: ClassVar[str] = "ledger_entry"
    seq: int = row_id()
    body: bytes = raw()
    leaf: bytes = raw()
    chain: bytes = raw()
    row_leaves: bytes = raw()


class Landing(SQLModel, table=True):
    """A delivery. Its parts stand in `pack` (small) or in the blob file `pack_file` (large), sealed one by one."""

    __tablename__: ClassVar[str] = "landing"
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    source: str
    namespace: str
    media_type: str
    received_at: str
    dedup: bytes = raw(unique=True)
    """Keyed digest of the sender's key."""
    content: bytes = raw()
    """Keyed digest of all parts."""
    parts: int
    size: int = big()
    pack: bytes | None = raw(nullable=True)
    pack_file: str | None
    pack_digest: bytes = raw()
    """SHA-256 of the sealed pack: it can be checked without any key."""
    manifest: bytes | None = raw(nullable=True)
    """Sealed."""
    record_id: int | None = big(index=True, nullable=True)
    """Whom a hook call is about: what it brought is looked for before it is digested. (Migration 0002.)"""


class Digestion(SQLModel, table=True):
    """Parts `[part_from, part_to)` of a landing were read by this reader."""

    __tablename__: ClassVar[str] = "digestion"
    __table_args__ = (Index("ix_digestion_landing", "landing_id", "part_to"),)
    id: int = row_id()
    entry: int = big()
    landing_id: int = big()
    reader: str
    part_from: int
    part_to: int
    statements: int
    quarantined: int


class PatientRecord(SQLModel, table=True):
    __tablename__: ClassVar[str] = "patient_record"
    __table_args__ = (UniqueConstraint("namespace", "local_digest"),)
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    """Random. The key of this record's facts stands under it in the key store."""
    namespace: str
    local_digest: bytes = raw()
    """Keyed."""
    sealed: bytes = raw()
    """The local id."""
    at: str


class RecordIdentifier(SQLModel, table=True):
    """An identifier that a version of a Patient resource carries; valid as long as that version is open."""

    __tablename__: ClassVar[str] = "record_identifier"
    __table_args__ = (Index("ix_record_identifier_value", "system", "value_digest"),)
    id: int = row_id()
    entry: int = big()
    record_id: int = big(index=True)
    resource_id: int = big()
    system: str
    value_digest: bytes = raw()
    """Keyed."""
    joining: bool


class Link(SQLModel, table=True):
    """Two records are one person from here on, or (verb `unlink`) no longer."""

    __tablename__: ClassVar[str] = "link"
    id: int = row_id()
    entry: int = big()
    verb: str
    record_id: int = big(index=True)
    other_id: int = big(index=True)
    basis: str
    """The rule, and the joining system that it used; `manual` with the actor in the entry."""
    at: str


class Resource(SQLModel, table=True):
    """One version of one resource, and the facts that were read from it: they are known as long as it is."""

    __tablename__: ClassVar[str] = "resource"
    __table_args__ = (
        Index("ix_resource_identity", "local_digest"),
        Index("ix_resource_place", "landing_id", "part"),
        Index("ix_resource_record_code", "record_id", "code"),
    )
    id: int = row_id()
    entry: int = big()
    record_id: int | None = big(nullable=True)
    namespace: str
    type: str
    local_digest: bytes = raw()
    """Keyed digest of namespace, type and local id."""
    landing_id: int = big()
    part: int
    pointer: str
    reader: str
    known_from: str
    content: bytes = raw()
    """Keyed digest of the resource as read."""
    test: bool
    labels: str
    """Confidentiality labels, space separated; empty for none."""
    code: str | None
    """`system|code` of its facts; `MANY` where they have several; empty for none."""
    facts: bytes | None = raw(nullable=True)
    """nonce || AES-256-GCM under the record's key of the facts' canonical form, a JSON list."""
    updated: str | None = None
    """meta.lastUpdated as an instant, where it is stated: older never replaces newer. (Migration 0005.)"""
    subsetted: bool | None = None
    """The sender left elements out (tag SUBSETTED): it never replaces a whole one. Empty for a whole one."""
    member_of: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True, index=True))
    """Keyed digest of the repeating group that it is a member of, where groups are replaced whole. (Migration 0010.)"""


MANY = "*"


class ResourceClosing(SQLModel, table=True):
    """This version, and the facts from it, stopped being what we know."""

    __tablename__: ClassVar[str] = "resource_closing"
    id: int = row_id()
    entry: int = big()
    resource_id: int = Field(sa_column=Column(BigInteger, nullable=False, unique=True))
    known_to: str
    cause: str


class Validation(SQLModel, table=True):
    """What fhir.resources said of the readable resources of one part."""

    __tablename__: ClassVar[str] = "validation"
    __table_args__ = (UniqueConstraint("landing_id", "part"),)
    id: int = row_id()
    entry: int = big()
    landing_id: int = big()
    part: int
    checked: int
    """Resources asked about."""
    invalid: int
    validator: str
    problems: str | None
    """JSON: pointer of an invalid resource -> its problems, as paths and rules, never values."""


class Flag(SQLModel, table=True):
    __tablename__: ClassVar[str] = "flag"
    id: int = row_id()
    entry: int = big()
    kind: str = Field(index=True)
    """quarantine, unmatched, dead-letter, flag."""
    reason: str
    landing_id: int | None = big(nullable=True)
    part: int | None
    pointer: str | None
    record_id: int | None = big(nullable=True)
    inference_id: int | None = big(nullable=True)
    detail: str | None
    """What and where, in our words, without any value from outside."""
    at: str


class FlagClosing(SQLModel, table=True):
    __tablename__: ClassVar[str] = "flag_closing"
    id: int = row_id()
    entry: int = big()
    flag_id: int = big(index=True)
    resolution: str
    at: str


class Call(SQLModel, table=True):
    __tablename__: ClassVar[str] = "call"
    id: int = row_id()
    entry: int = big()
    ref: str
    service: str
    hook: str | None
    hook_instance: str | None
    ehr: str
    outcome: str
    """answered, abstained, refused, safety, failed, stopped; unasked: new facts came, and nobody was shown a card."""
    status: int
    reason: str | None
    landing_id: int | None = big(index=True, nullable=True)
    sealed: bytes | None = raw(nullable=True)
    """The user, as the EHR named them."""
    received_at: str


class Snapshot(SQLModel, table=True):
    __tablename__: ClassVar[str] = "snapshot"
    id: int = row_id()
    entry: int = big()
    ref: str
    model: str
    as_of: str
    sealed: bytes = raw()
    commitment: bytes = raw()


class Inference(SQLModel, table=True):
    __tablename__: ClassVar[str] = "inference"
    __table_args__ = (Index("ix_inference_model", "model", "at"),)
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    call_id: int = big(index=True)
    snapshot_id: int = big()
    record_id: int = big(index=True)
    service: str
    model: str
    model_digest: str
    runtime: str
    abstained: bool
    sealed: bytes = raw()
    """Feature vectors and score."""
    commitment: bytes = raw()
    at: str


class Card(SQLModel, table=True):
    __tablename__: ClassVar[str] = "card"
    id: int = row_id()
    entry: int = big()
    uuid: str = Field(unique=True)
    inference_id: int = big(index=True)
    service: str
    ehr: str
    sealed: bytes = raw()
    commitment: bytes = raw()


class Action(SQLModel, table=True):
    __tablename__: ClassVar[str] = "action"
    id: int = row_id()
    entry: int = big()
    ref: str
    card_id: int | None = big(index=True, nullable=True)
    inference_id: int | None = big(nullable=True)
    outcome: str
    reason: str | None
    """Of an override: `coded` from a list, or `comment` for words alone. (Migration 0004.)"""
    door: str
    dedup: bytes = raw(unique=True)
    """Keyed digest of card, outcome, time and reason: the same feedback twice is one action."""
    sealed: bytes = raw()
    commitment: bytes = raw()
    at: str


class Advice(SQLModel, table=True):
    """A card that alert hygiene weighed: shown, or held back by a rule. Only written where hygiene is on."""

    __tablename__: ClassVar[str] = "advice"
    __table_args__ = (Index("ix_advice_who", "record_id", "who"),)
    id: int = row_id()
    entry: int = big()
    inference_id: int = big(index=True)
    record_id: int = big()
    service: str
    ehr: str
    who: bytes | None = raw(nullable=True)
    """Keyed digest of the user, as the EHR named them."""
    advice: bytes = raw()
    """Keyed digest of topic, urgency and summary: what makes two cards the same advice."""
    indicator: str
    card: str
    """The card's uuid; one that was held back was never sent."""
    rule: str | None
    """threshold, quiet, cap, duplicate; empty for a card that was shown; `undelivered` for one that never left."""
    sealed: bytes | None = raw(nullable=True)
    """The card, where it was held back."""
    commitment: bytes | None = raw(nullable=True)
    at: str


class SystemAction(SQLModel, table=True):
    """What an answer told the EHR to do without asking anybody (CDS Hooks, System Actions)."""

    __tablename__: ClassVar[str] = "system_action"
    id: int = row_id()
    entry: int = big()
    ref: str
    inference_id: int = big(index=True)
    service: str
    ehr: str
    sealed: bytes = raw()
    commitment: bytes = raw()


class Pin(SQLModel, table=True):
    """From this entry on, the service uses this ModelVersion."""

    __tablename__: ClassVar[str] = "pin"
    id: int = row_id()
    entry: int = big()
    service: str
    model: str
    version: str
    digest: str
    at: str


class ServiceState(SQLModel, table=True):
    """From this entry on, the service is `started` or `stopped`."""

    __tablename__: ClassVar[str] = "service_state"
    id: int = row_id()
    entry: int = big()
    service: str
    state: str
    reason: str | None
    at: str


class Job(SQLModel, table=True):
    """A unit of background work that must survive its process: one export of a run. (Migration 0005.)"""

    __tablename__: ClassVar[str] = "job"
    id: int = row_id()
    entry: int = big()
    ref: str = Field(unique=True)
    run: str = Field(index=True)
    """Reference that the jobs of one run share; they are done in order of id."""
    kind: str
    source: str = Field(index=True)
    mode: str
    scope: bytes = raw()
    """Keyed digest of what its cursor is for: server, group, types, filters."""
    sealed: bytes = raw()
    """What is asked."""
    commitment: bytes = raw()
    at: str


class JobStep(SQLModel, table=True):
    """A job is in this state from here on. (Migration 0005.)"""

    __tablename__: ClassVar[str] = "job_step"
    id: int = row_id()
    entry: int = big()
    job_id: int = big(index=True)
    state: str
    cause: str | None
    """Why, in our words."""
    cursor: str | None
    """Of a job that is done: the next export of its scope asks since this instant."""
    ref: str
    """Random: the key of `sealed` stands under it."""
    sealed: bytes | None = raw(nullable=True)
    """What the job must remember from here on: the status URL, the server's time, what it learnt."""
    at: str


class SigningKey(SQLModel, table=True):
    """A key pair of ours, by RFC 7638 thumbprint; the private half stands in the key store. (Migration 0006.)"""

    __tablename__: ClassVar[str] = "signing_key"
    id: int = row_id()
    entry: int = big()
    kid: str = Field(unique=True)
    alg: str
    registration: str | None
    """Whose set `jwk`, the public half, stands in; empty: the general one."""
    jwk: str
    at: str


class SigningKeyState(SQLModel, table=True):
    """From this entry on, a key is `retired`: it neither signs nor is published. (Migration 0006.)"""

    __tablename__: ClassVar[str] = "signing_key_state"
    id: int = row_id()
    entry: int = big()
    kid: str = Field(unique=True)
    state: str
    at: str


GOVERNED: dict[str, type[SQLModel]] = {
    model.__tablename__: model
    for model in (
        Landing,
        Digestion,
        PatientRecord,
        RecordIdentifier,
        Link,
        Resource,
        ResourceClosing,
        Validation,
        Flag,
        FlagClosing,
        Call,
        Snapshot,
        Inference,
        Card,
        Action,
        Pin,
        ServiceState,
        Advice,
        SystemAction,
        Job,
        JobStep,
        SigningKey,
        SigningKeyState,
        DicomObject,
        ExaminedStudy,
        LedgerKey,
        LedgerBreak,
        Erasure,
        Erased,
        LegalHold,
        LegalHoldLift,
        AccessRow,
        AccessRecord,
        FlagClaim,
        BoardMeeting,
        BoardMeetingState,
        BoardCase,
        BoardCaseState,
        BoardOrder,
        BoardRecommendation,
        BoardSignOff,
        BoardMinutes,
    )
}
"""Tables whose rows stand in the ledger, in the order that an entry lists them."""

DERIVED = ("ledger_tile", "ledger_checkpoint", "ledger_cosignature", "ledger_anchor")
"""Insert-only too, but above the entries: no entry is over them."""

COLUMNS: dict[str, tuple[str, ...]] = {
    name: tuple(str(column.name) for column in SQLModel.metadata.tables[name].columns) for name in GOVERNED
}
