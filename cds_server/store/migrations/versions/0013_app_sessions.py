"""Launches under way and sessions of the SMART app. Operational, like `staff_session`: swept, changed, removed."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "app_launch",
        sa.Column("state", sa.LargeBinary, primary_key=True),
        sa.Column("ref", sa.String, nullable=False, unique=True),
        sa.Column("browser", sa.LargeBinary, nullable=False),
        sa.Column("namespace", sa.String, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False, index=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "app_session",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("cookie", sa.LargeBinary, nullable=False),
        sa.Column("namespace", sa.String, nullable=True),
        sa.Column("record", sa.String, nullable=False),
        sa.Column("idle", sa.BigInteger, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False, index=True),
        sa.Column("ref", sa.String, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("token_ref", sa.String, nullable=True),
        sa.Column("token", sa.LargeBinary, nullable=True),
        sa.Column("turn", sa.BigInteger, nullable=False),
        sa.Column("refreshing", sa.String, nullable=True),
        sa.Column("refreshing_until", sa.BigInteger, nullable=False),
    )
