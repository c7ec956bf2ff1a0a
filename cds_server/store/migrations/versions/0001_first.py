"""The first schema: every governed table, and the triggers that keep it insert-only."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _id() -> sa.Column[Any]:
    return sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False)


def _entry() -> sa.Column[Any]:
    return sa.Column("entry", sa.BigInteger, nullable=False)


def _text(name: str, *, nullable: bool = False, index: bool = False, unique: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.String, nullable=nullable, index=index or None, unique=unique or None)


def _big(name: str, *, nullable: bool = False, index: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=nullable, index=index)


def _int(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer, nullable=nullable)


def _bytes(name: str, *, nullable: bool = False, unique: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary, nullable=nullable, unique=unique)


def _flag(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean, nullable=False)


def upgrade() -> None:
    op.create_table("instance", sa.Column("id", sa.String, primary_key=True), _text("created_at"))
    op.create_table(
        "ledger_entry",
        sa.Column("seq", _ROW_ID, primary_key=True, autoincrement=False),
        _bytes("body"),
        _bytes("leaf"),
        _bytes("chain"),
        _bytes("row_leaves"),
    )
    op.create_table(
        "landing",
        _id(),
        _entry(),
        _text("ref", unique=True),
        _text("source"),
        _text("namespace"),
        _text("media_type"),
        _text("received_at"),
        _bytes("dedup", unique=True),
        _bytes("content"),
        _int("parts"),
        _big("size"),
        _bytes("pack", nullable=True),
        _text("pack_file", nullable=True),
        _bytes("pack_digest"),
        _bytes("manifest", nullable=True),
    )
    op.create_table(
        "digestion",
        _id(),
        _entry(),
        _big("landing_id"),
        _text("reader"),
        _int("part_from"),
        _int("part_to"),
        _int("statements"),
        _int("quarantined"),
        sa.Index("ix_digestion_landing", "landing_id", "part_to"),
    )
    op.create_table(
        "patient_record",
        _id(),
        _entry(),
        _text("ref", unique=True),
        _text("namespace"),
        _bytes("local_digest"),
        _bytes("sealed"),
        _text("at"),
        sa.UniqueConstraint("namespace", "local_digest"),
    )
    op.create_table(
        "record_identifier",
        _id(),
        _entry(),
        _big("record_id", index=True),
        _big("resource_id"),
        _text("system"),
        _bytes("value_digest"),
        _flag("joining"),
        sa.Index("ix_record_identifier_value", "system", "value_digest"),
    )
    op.create_table(
        "link",
        _id(),
        _entry(),
        _text("verb"),
        _big("record_id", index=True),
        _big("other_id", index=True),
        _text("basis"),
        _text("at"),
    )
    op.create_table(
        "resource",
        _id(),
        _entry(),
        _big("record_id", nullable=True),
        _text("namespace"),
        _text("type"),
        _bytes("local_digest"),
        _big("landing_id"),
        _int("part"),
        _text("pointer"),
        _text("reader"),
        _text("known_from"),
        _bytes("content"),
        _flag("test"),
        _text("labels"),
        _text("code", nullable=True),
        _bytes("facts", nullable=True),
        sa.Index("ix_resource_identity", "local_digest"),
        sa.Index("ix_resource_place", "landing_id", "part"),
        sa.Index("ix_resource_record_code", "record_id", "code"),
    )
    op.create_table(
        "resource_closing",
        _id(),
        _entry(),
        sa.Column("resource_id", sa.BigInteger, nullable=False, unique=True),
        _text("known_to"),
        _text("cause"),
    )
    op.create_table(
        "validation",
        _id(),
        _entry(),
        _big("landing_id"),
        _int("part"),
        _int("checked"),
        _int("invalid"),
        _text("validator"),
        _text("problems", nullable=True),
        sa.UniqueConstraint("landing_id", "part"),
    )
    op.create_table(
        "flag",
        _id(),
        _entry(),
        _text("kind", index=True),
        _text("reason"),
        _big("landing_id", nullable=True),
        _int("part", nullable=True),
        _text("pointer", nullable=True),
        _big("record_id", nullable=True),
        _big("inference_id", nullable=True),
        _text("detail", nullable=True),
        _text("at"),
    )
    op.create_table("flag_closing", _id(), _entry(), _big("flag_id", index=True), _text("resolution"), _text("at"))
    op.create_table(
        "call",
        _id(),
        _entry(),
        _text("ref"),
        _text("service"),
        _text("hook", nullable=True),
        _text("hook_instance", nullable=True),
        _text("ehr"),
        _text("outcome"),
        _int("status"),
        _text("reason", nullable=True),
        _big("landing_id", nullable=True, index=True),
        _bytes("sealed", nullable=True),
        _text("received_at"),
    )
    op.create_table(
        "snapshot",
        _id(),
        _entry(),
        _text("ref"),
        _text("model"),
        _text("as_of"),
        _bytes("sealed"),
        _bytes("commitment"),
    )
    op.create_table(
        "inference",
        _id(),
        _entry(),
        _text("ref", unique=True),
        _big("call_id", index=True),
        _big("snapshot_id"),
        _big("record_id", index=True),
        _text("service"),
        _text("model"),
        _text("model_digest"),
        _text("runtime"),
        _flag("abstained"),
        _bytes("sealed"),
        _bytes("commitment"),
        _text("at"),
    )
    op.create_table(
        "card",
        _id(),
        _entry(),
        _text("uuid", unique=True),
        _big("inference_id", index=True),
        _text("service"),
        _text("ehr"),
        _bytes("sealed"),
        _bytes("commitment"),
    )
    op.create_table(
        "action",
        _id(),
        _entry(),
        _text("ref"),
        _big("card_id", nullable=True, index=True),
        _big("inference_id", nullable=True),
        _text("outcome"),
        _text("door"),
        _bytes("dedup", unique=True),
        _bytes("sealed"),
        _bytes("commitment"),
        _text("at"),
    )
    op.create_table(
        "pin",
        _id(),
        _entry(),
        _text("service"),
        _text("model"),
        _text("version"),
        _text("digest"),
        _text("at"),
    )
    op.create_table(
        "service_state",
        _id(),
        _entry(),
        _text("service"),
        _text("state"),
        _text("reason", nullable=True),
        _text("at"),
    )
    op.create_table("lease", sa.Column("name", sa.String, primary_key=True), _text("holder"), _text("until"))
    for table in INSERT_ONLY:
        _forbid_changes(table)


INSERT_ONLY = (
    "instance",
    "ledger_entry",
    "landing",
    "digestion",
    "patient_record",
    "record_identifier",
    "link",
    "resource",
    "resource_closing",
    "validation",
    "flag",
    "flag_closing",
    "call",
    "snapshot",
    "inference",
    "card",
    "action",
    "pin",
    "service_state",
)


def _forbid_changes(table: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is insert-only'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_insert_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} is insert-only'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_insert_only()"
    )
    op.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM PUBLIC, CURRENT_USER")
