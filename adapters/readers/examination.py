"""What was made of an imaging study: a collection of FHIR resources, and the pictures that go with them."""

from __future__ import annotations

from adapters.readers import fhir
from models.nouns import Part, Statement

NAME = "examination"
VERSION = "1"
MEDIA_TYPE = "application/vnd.org.cds-server.examination"
MEDIA_TYPES = (MEDIA_TYPE,)


def read(part: Part) -> list[Statement]:
    """The first part is a Bundle; the others are pictures (PNG), which its Media describe. Raises: Malformed."""
    return fhir.read(part.but(media_type=fhir.RESOURCE)) if part.ordinal == 0 else []
