"""Objects of imaging studies, and what was made of each study."""

import sqlalchemy as sa
from alembic import op

from cds_server.store.migrations.insert_only import forbid_changes

revision = "0011"
down_revision = "0010"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "dicom_object",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("landing_id", sa.BigInteger, nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("record_id", sa.BigInteger, nullable=True),
        sa.Column("namespace", sa.String, nullable=False),
        sa.Column("study", sa.LargeBinary, nullable=False),
        sa.Column("series", sa.LargeBinary, nullable=False),
        sa.Column("sop", sa.LargeBinary, nullable=False),
        sa.Column("modality", sa.String, nullable=False),
        sa.Column("header", sa.LargeBinary, nullable=True),
        sa.Column("other", sa.Boolean, nullable=False),
    )
    op.create_index("ix_dicom_object_study", "dicom_object", ["study"])
    op.create_index("ix_dicom_object_sop", "dicom_object", ["sop"])
    op.create_table(
        "examined_study",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("study", sa.LargeBinary, nullable=False),
        sa.Column("record_id", sa.BigInteger, nullable=True),
        sa.Column("up_to", sa.BigInteger, nullable=False),
        sa.Column("objects", sa.Integer, nullable=False),
        sa.Column("complete", sa.Boolean, nullable=True),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("landing_id", sa.BigInteger, nullable=True),
        sa.Column("detail", sa.String, nullable=True),
        sa.Column("at", sa.String, nullable=False),
    )
    op.create_index("ix_examined_study", "examined_study", ["study"])
    for table in ("dicom_object", "examined_study"):
        forbid_changes(table)
