"""Who handles what waits."""

import sqlalchemy as sa
from alembic import op

from cds_server.store.migrations.insert_only import forbid_changes

revision = "0018"
down_revision = "0017"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "flag_claim",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("flag_id", sa.BigInteger, nullable=False),
        sa.Column("verb", sa.String, nullable=False),
        sa.Column("ref", sa.String, nullable=False, unique=True),
        sa.Column("who", sa.LargeBinary, nullable=True),
        sa.Column("sealed", sa.LargeBinary, nullable=True),
        sa.Column("at", sa.String, nullable=False),
    )
    op.create_index("ix_flag_claim_flag_id", "flag_claim", ["flag_id"])
    forbid_changes("flag_claim")
