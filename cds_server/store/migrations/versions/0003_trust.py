"""What the doors remember: tokens that were used once, and staff who are signed in. Operational, like `lease`."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "token_seen",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("until", sa.BigInteger, nullable=False, index=True),
        sa.Column("call", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "staff_session",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
