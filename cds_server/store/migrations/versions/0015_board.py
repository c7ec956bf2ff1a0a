"""Meetings of a tumor board."""

import sqlalchemy as sa
from alembic import op

from cds_server.store.migrations.insert_only import forbid_changes

revision = "0015"
down_revision = "0014"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _governed(table: str, *columns: sa.Column[object] | sa.UniqueConstraint) -> None:
    op.create_table(
        table,
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        *columns,
        sa.Column("at", sa.String, nullable=False),
    )
    forbid_changes(table)


def _sealed() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("commitment", sa.LargeBinary, nullable=False),
    )


def upgrade() -> None:
    _governed(
        "board_meeting",
        sa.Column("ref", sa.String, nullable=False, unique=True),
        sa.Column("held_on", sa.String, nullable=False),
        *_sealed(),
    )
    _governed(
        "board_meeting_state",
        sa.Column("meeting_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String, nullable=False),
    )
    _governed(
        "board_case",
        sa.Column("ref", sa.String, nullable=False, unique=True),
        sa.Column("meeting_id", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.BigInteger, nullable=False),
        *_sealed(),
    )
    _governed(
        "board_case_state",
        sa.Column("case_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String, nullable=False),
    )
    _governed(
        "board_order",
        sa.Column("meeting_id", sa.BigInteger, nullable=False),
        sa.Column("cases", sa.String, nullable=False),
    )
    _governed(
        "board_recommendation",
        sa.Column("ref", sa.String, nullable=False, unique=True),
        sa.Column("case_id", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("inferences", sa.String, nullable=False),
        *_sealed(),
        sa.UniqueConstraint("case_id", "version"),
    )
    _governed(
        "board_sign_off",
        sa.Column("ref", sa.String, nullable=False, unique=True),
        sa.Column("recommendation_id", sa.BigInteger, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("who", sa.LargeBinary, nullable=False),
        *_sealed(),
        sa.UniqueConstraint("recommendation_id", "who"),
    )
    _governed(
        "board_minutes",
        sa.Column("ref", sa.String, nullable=False, unique=True),
        sa.Column("case_id", sa.BigInteger, nullable=False),
        sa.Column("recommendation_id", sa.BigInteger, nullable=False),
        *_sealed(),
    )
    op.create_table(
        "board_context",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("session", sa.LargeBinary, nullable=False),
        sa.Column("case_id", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_board_meeting_state_meeting_id", "board_meeting_state", ["meeting_id"])
    op.create_index("ix_board_case_meeting", "board_case", ["meeting_id"])
    op.create_index("ix_board_case_record", "board_case", ["record_id"])
    op.create_index("ix_board_case_state_case_id", "board_case_state", ["case_id"])
    op.create_index("ix_board_order_meeting_id", "board_order", ["meeting_id"])
    op.create_index("ix_board_minutes_case_id", "board_minutes", ["case_id"])
