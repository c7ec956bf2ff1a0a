"""What was asked of the record: scores for reading, FHIR out."""

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    pass
