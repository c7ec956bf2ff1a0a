"""Where statements come from: the landing, and what its place in the record says of the facts taken from it."""

from __future__ import annotations

from adapters.readers import cds_hooks
from adapters.readers import facts as projection
from adapters.readers.hl7v2 import MESSAGE
from adapters.readers.subjects import identifiers_of
from cds_server.reading import Rules, reader_id
from cds_server.store.reads import LandingRow
from models.canonical import Noun
from models.nouns import Fact, Provenance, Statement


class Where(Noun, frozen=True):
    """The landing that is being digested."""

    landing_id: int
    landing: str
    namespace: str
    reader: str
    known_from: str | None = None
    """Since when its facts are known, where they were used before they were digested; None: from the digest on."""
    unread: str = "quarantine"
    """Kind of the Flag of what cannot be read: of a message that was acknowledged, `dead-letter`."""

    def project(self, part: int, statement: Statement, record: str, known_from: str) -> tuple[Fact, ...]:
        """The facts of one resource of this landing. Raises: Unreadable."""
        if statement.body is None:
            return ()
        if statement.resource_type == "Patient":
            identifiers_of(statement.body)  # what the identity rules could not read is not read at all
        resource = f"{statement.resource_type}/{statement.local_id}"
        source = Provenance(self.landing, part, statement.pointer, resource, self.reader)
        return projection.project(statement.body, record=record, source=source, known_from=known_from)


def where_of(landing: LandingRow, rules: Rules | None = None) -> Where:
    """The facts of a hook call are known since it came: what was scored then rests on them."""
    used = landing.received_at if landing.media_type == cds_hooks.REQUEST else None
    unread = "dead-letter" if landing.media_type == MESSAGE else "quarantine"
    return Where(landing.id, landing.ref, landing.namespace, reader_id(landing.media_type, rules), used, unread)
