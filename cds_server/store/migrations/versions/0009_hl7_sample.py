"""What a sample of each feed's messages was found to do against its version. Operational: counted on."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "hl7_sample",
        sa.Column("source", sa.String, primary_key=True),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in (
                *("seen", "checked", "unreadable", "passed_over", "failed", "ms"),
                *("hour", "hour_ms", "spent"),
            )
        ),
        sa.Column("first", sa.String, nullable=False),
        sa.Column("last", sa.String, nullable=False),
    )
    op.create_table(
        "hl7_finding",
        *(sa.Column(name, sa.String, primary_key=True) for name in ("source", "event", "version", "place", "rule")),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("messages", sa.BigInteger, nullable=False),
        sa.Column("times", sa.BigInteger, nullable=False),
        sa.Column("first", sa.String, nullable=False),
        sa.Column("last", sa.String, nullable=False),
    )
