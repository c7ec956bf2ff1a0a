"""What a model version did, found without reading every inference (`cds ask model`)."""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_index("ix_inference_model", "inference", ["model", "at"])
