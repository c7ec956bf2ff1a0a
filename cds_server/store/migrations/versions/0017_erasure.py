"""Erasure, legal hold, anchors. The projection's tables let rows go that an act of erasure condition, and no others."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from cds_server.store.migrations.insert_only import forbid_changes

revision = "0017"
down_revision = "0016"

_ERASABLE = ("patient_record", "record_identifier", "link", "resource", "resource_closing", "dicom_object")


def upgrade() -> None:
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

    def governed(name: str, *columns: sa.Column[Any]) -> None:
        op.create_table(
            name,
            sa.Column("id", row_id, primary_key=True, autoincrement=False),
            sa.Column("entry", sa.BigInteger, nullable=False),
            *columns,
        )
        forbid_changes(name)

    def text(name: str, *, unique: bool = False) -> sa.Column[Any]:
        return sa.Column(name, sa.String, nullable=False, unique=unique or None)

    def big(name: str, *, index: bool = False) -> sa.Column[Any]:
        return sa.Column(name, sa.BigInteger, nullable=False, index=index)

    counts = (sa.Column("key_count", sa.Integer, nullable=False), sa.Column("row_count", sa.Integer, nullable=False))
    governed("erasure", text("ref", unique=True), text("basis"), *counts, text("at"))
    governed(
        "erased", big("erasure_id", index=True), text("what"), sa.Column("members", sa.LargeBinary, nullable=False)
    )
    governed("legal_hold", text("ref", unique=True), big("record_id", index=True), text("reason"), text("at"))
    governed("legal_hold_lift", big("hold_id", index=True), text("reason"), text("at"))
    op.create_table(
        "erasing",
        sa.Column("of_table", sa.String, primary_key=True),
        sa.Column("row_id", sa.BigInteger, primary_key=True, autoincrement=False),
    )
    op.create_table(
        "ledger_anchor",
        sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("anchor", sa.String, primary_key=True),
        text("kind"),
        sa.Column("receipt", sa.LargeBinary, nullable=False),
        text("at"),
    )
    forbid_changes("ledger_anchor")
    for table in _ERASABLE:
        _let_go(table)


def _let_go(table: str) -> None:
    """DELETE of a row that `erasing` names; UPDATE, TRUNCATE and any other DELETE are refused as before."""
    condition = f"EXISTS (SELECT 1 FROM erasing WHERE of_table = '{table}' AND row_id = OLD.id)"
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"DROP TRIGGER {table}_no_delete")
        op.execute(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} WHEN NOT {condition} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is insert-only'); END"
        )
        return
    op.execute(
        f"CREATE OR REPLACE FUNCTION {table}_insert_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF TG_OP = 'DELETE' AND EXISTS (SELECT 1 FROM erasing WHERE of_table = '{table}') "
        f"THEN RETURN NULL; END IF; RAISE EXCEPTION '{table} is insert-only'; END $$"
    )
    op.execute(
        f"CREATE FUNCTION {table}_let_go() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF NOT {condition} THEN RAISE EXCEPTION '{table} is insert-only'; END IF; RETURN OLD; END $$"
    )
    op.execute(f"CREATE TRIGGER {table}_let_go BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_let_go()")
