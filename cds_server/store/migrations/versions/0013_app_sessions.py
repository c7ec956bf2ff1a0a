"""Launches and sessions of the SMART app."""

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    pass
