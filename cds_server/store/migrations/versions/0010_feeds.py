"""What a resource is a member of, where groups are replaced whole; what happened on feeds, counted."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("resource", sa.Column("member_of", sa.LargeBinary, nullable=True))
    op.create_index("ix_resource_member_of", "resource", ["member_of"])
    op.create_table(
        "feed_count",
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("what", sa.String, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
    )
