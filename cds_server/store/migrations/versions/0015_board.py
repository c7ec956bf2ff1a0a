"""Meetings of a tumor board."""

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    pass
