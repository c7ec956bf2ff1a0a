"""Who looked at whose data; staff sessions know a name, claims and when they were last used."""

import sqlalchemy as sa
from alembic import op

from cds_server.store.migrations.insert_only import forbid_changes

revision = "0014"
down_revision = "0013"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "access",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("ref", sa.String, nullable=False, unique=True),
        sa.Column("act", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("door", sa.String, nullable=False),
        sa.Column("ehr", sa.String, nullable=True),
        sa.Column("roles", sa.String, nullable=False),
        sa.Column("who", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("commitment", sa.LargeBinary, nullable=False),
        sa.Column("detail", sa.String, nullable=True),
        sa.Column("until", sa.String, nullable=True),
        sa.Column("at", sa.String, nullable=False),
    )
    op.create_index("ix_access_act", "access", ["act"])
    op.create_index("ix_access_until", "access", ["until"])
    op.create_index("ix_access_at", "access", ["at"])
    op.create_table(
        "access_record",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("access_id", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
    )
    op.create_index("ix_access_record_access_id", "access_record", ["access_id"])
    op.create_index("ix_access_record_record_id", "access_record", ["record_id"])
    for table in ("access", "access_record"):
        forbid_changes(table)
    op.add_column("staff_session", sa.Column("ref", sa.String, nullable=True))
    op.add_column("staff_session", sa.Column("sealed", sa.LargeBinary, nullable=True))
    op.add_column("staff_session", sa.Column("used", sa.BigInteger, nullable=True))
