"""Above the entries: keys that sign, breaks, tiles of the tree, checkpoints, cosignatures."""

import sqlalchemy as sa
from alembic import op

from cds_server.store.migrations.insert_only import forbid_changes

revision = "0012"
down_revision = "0011"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "ledger_key",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("origin", sa.String, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("handover", sa.LargeBinary, nullable=True),
        sa.Column("at", sa.String, nullable=False),
    )
    op.create_table(
        "ledger_break",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("origin", sa.String, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("at", sa.String, nullable=False),
    )
    op.create_table(
        "ledger_tile",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "ledger_checkpoint",
        sa.Column("size", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("origin", sa.String, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("note", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.String, nullable=False),
    )
    op.create_table(
        "ledger_cosignature",
        sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("witness", sa.String, primary_key=True),
        sa.Column("line", sa.String, nullable=False),
        sa.Column("at", sa.String, nullable=False),
    )
    op.create_table(
        "ledger_state",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("said", sa.String, nullable=False),
        sa.Column("at", sa.String, nullable=False),
    )
    for table in ("ledger_key", "ledger_break", "ledger_tile", "ledger_checkpoint", "ledger_cosignature"):
        forbid_changes(table)
