"""Our signing keys: their public halves, and when they were retired. The private halves stand in the key store."""

import sqlalchemy as sa
from alembic import op

from cds_server.store.migrations.insert_only import forbid_changes

revision = "0006"
down_revision = "0005"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "signing_key",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("kid", sa.String, nullable=False, unique=True),
        sa.Column("alg", sa.String, nullable=False),
        sa.Column("registration", sa.String, nullable=True),
        sa.Column("jwk", sa.String, nullable=False),
        sa.Column("at", sa.String, nullable=False),
    )
    op.create_table(
        "signing_key_state",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("kid", sa.String, nullable=False, unique=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("at", sa.String, nullable=False),
    )
    for table in ("signing_key", "signing_key_state"):
        forbid_changes(table)
