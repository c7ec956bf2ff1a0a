"""Scores that nobody asked for: a service that subscribes is judged again when a feed brings facts that it asks for.

Each is on record like any inference. Nothing is shown to anybody: no channel asked for it. Where the service would
warn, a Flag says so, once until somebody has dealt with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adapters.dicom.part10 import MEDIA_TYPE as OBJECT
from adapters.readers.examination import MEDIA_TYPE as EXAMINATION
from adapters.readers.hl7v2 import MESSAGE
from cds_server.decisions import Decisions
from cds_server.hooks.service import ServiceSpec
from cds_server.logs import log
from cds_server.registry import Registry
from cds_server.store.reads import RecordRow, marks
from cds_server.store.store import Store
from cds_server.store.tables import MANY
from cds_server.store.writer import Tx
from models.errors import CdsError

CURSOR = "continuous"
BATCH = 2048
FED = (MESSAGE, OBJECT, EXAMINATION)
"""What feeds bring: messages, reports that a modality or an archive sends, and what was found in images."""
KEPT = 5.0
"""Seconds after which it is kept how far it came where nothing was due: to be read again, that costs nothing."""


@dataclass(frozen=True, slots=True)
class _Due:
    spec: ServiceSpec
    record: RecordRow


class Subscriber:
    """Reads new resources in their order, some at a time."""

    def __init__(self, store: Store, registry: Registry, decisions: Decisions) -> None:
        self._store = store
        self._registry = registry
        self._decisions = decisions
        self._subscribed = [spec for spec in registry.specs if spec.subscribes]
        self._at = self._stored()
        self._kept = time.monotonic()

    def some(self) -> int:
        """Look at up to a batch of resources; gives how many, whether or not they led to a score."""
        rows = self._store.reads.query(
            "SELECT r.id, r.code, p.id, p.ref, p.namespace FROM resource r "
            "JOIN landing l ON l.id = r.landing_id JOIN patient_record p ON p.id = r.record_id "
            f"WHERE r.id > ? AND l.media_type IN ({marks(FED)}) AND r.type = 'Observation' AND r.code IS NOT NULL "
            "ORDER BY r.id LIMIT ?",
            (self._at, *FED, BATCH),
        )
        if not rows:
            return 0
        due_now = list(self._due([(row[1], RecordRow(row[2], row[3], row[4])) for row in rows]))
        for due in due_now:
            if self._registry.stopped(due.spec.id):
                continue
            try:
                self._decisions.score_unasked(due.spec, due.record)
            except CdsError as error:
                log().error("a patient was not scored again", service=due.spec.id, what=error.what)
        self._at = rows[-1][0]
        if due_now or time.monotonic() - self._kept > KEPT:
            self._keep(self._at)
            self._kept = time.monotonic()
        return len(rows)

    def _due(self, found: Sequence[tuple[str, RecordRow]]) -> Iterator[_Due]:
        """Each patient once for each service that asks for one of the codes."""
        for spec in self._subscribed:
            wanted = self._decisions.panel(spec).wanted | {MANY}
            records = {record.id: record for code, record in found if code in wanted}
            yield from (_Due(spec, record) for record in records.values())

    def _stored(self) -> int:
        row = self._store.reads.one("SELECT at FROM cursor WHERE name = ?", (CURSOR,))
        return int(row[0]) if row else 0

    def _keep(self, at: int) -> None:
        def act(tx: Tx) -> None:
            if tx.execute("UPDATE cursor SET at = ? WHERE name = ?", (at, CURSOR)) == 0:
                tx.execute("INSERT INTO cursor (name, at) VALUES (?, ?)", (CURSOR, at))

        self._store.writer.submit(act).result()
