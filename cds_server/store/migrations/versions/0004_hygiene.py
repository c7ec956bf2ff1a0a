"""Alert hygiene remembers which advice was shown or held back; system actions are on record; overrides say whether they
gave a reason."""

import sqlalchemy as sa
from alembic import op

from cds_server.store.migrations.insert_only import forbid_changes

revision = "0004"
down_revision = "0003"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("action", sa.Column("reason", sa.String, nullable=True))
    op.create_table(
        "advice",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("inference_id", sa.BigInteger, nullable=False, index=True),
        sa.Column("record_id", sa.BigInteger, nullable=False),
        sa.Column("service", sa.String, nullable=False),
        sa.Column("ehr", sa.String, nullable=False),
        sa.Column("who", sa.LargeBinary, nullable=True),
        sa.Column("advice", sa.LargeBinary, nullable=False),
        sa.Column("indicator", sa.String, nullable=False),
        sa.Column("card", sa.String, nullable=False),
        sa.Column("rule", sa.String, nullable=True),
        sa.Column("sealed", sa.LargeBinary, nullable=True),
        sa.Column("commitment", sa.LargeBinary, nullable=True),
        sa.Column("at", sa.String, nullable=False),
        sa.Index("ix_advice_who", "record_id", "who"),
    )
    op.create_table(
        "system_action",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("ref", sa.String, nullable=False),
        sa.Column("inference_id", sa.BigInteger, nullable=False, index=True),
        sa.Column("service", sa.String, nullable=False),
        sa.Column("ehr", sa.String, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("commitment", sa.LargeBinary, nullable=False),
    )
    for table in ("advice", "system_action"):
        forbid_changes(table)
