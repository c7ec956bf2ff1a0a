"""Landings of hook calls name the patient record that they are about."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("landing", sa.Column("record_id", sa.BigInteger, nullable=True))
    op.create_index("ix_landing_record_id", "landing", ["record_id"])
