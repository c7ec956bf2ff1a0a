"""Jobs and their steps; what a resource says of its own age, and whether its sender left elements out."""

import sqlalchemy as sa
from alembic import op

from cds_server.store.migrations.insert_only import forbid_changes

revision = "0005"
down_revision = "0004"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("resource", sa.Column("updated", sa.String, nullable=True))
    op.add_column("resource", sa.Column("subsetted", sa.Boolean, nullable=True))
    op.create_table(
        "job",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("ref", sa.String, nullable=False, unique=True),
        sa.Column("run", sa.String, nullable=False, index=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False, index=True),
        sa.Column("mode", sa.String, nullable=False),
        sa.Column("scope", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("commitment", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.String, nullable=False),
    )
    op.create_table(
        "job_step",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("job_id", sa.BigInteger, nullable=False, index=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("cause", sa.String, nullable=True),
        sa.Column("cursor", sa.String, nullable=True),
        sa.Column("ref", sa.String, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=True),
        sa.Column("at", sa.String, nullable=False),
    )
    for table in ("job", "job_step"):
        forbid_changes(table)
