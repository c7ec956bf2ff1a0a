"""The imaging process: indexes what arrived, puts studies together once they have settled.

A process of its own, of low priority: codecs are other people's native code, and an image takes longer than a hook call
may wait.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping, Sequence

from adapters.dicom.part10 import MEDIA_TYPE as OBJECT
from adapters.imaging.examine import Looking
from adapters.readers.examination import MEDIA_TYPE as EXAMINATION
from cds_server import jobs, logs
from cds_server.backlog import digest_backlog
from cds_server.dicom_archives import QUIET, quiet_of
from cds_server.imaging.choices import choices
from cds_server.imaging.pulled import Pulled
from cds_server.imaging.studies import Settling, put_together
from cds_server.logs import log
from cds_server.reading import SourceRules
from cds_server.settings import Settings
from cds_server.source_rules import rules_of
from cds_server.store.store import Store
from cds_server.tally import Tally
from models.errors import CdsError

IDLE = 0.5
LEASE = "imaging"


class Imaging:
    """Indexes and puts together, some at a time. One process of an instance holds the lease."""

    def __init__(
        self,
        store: Store,
        joining: frozenset[str],
        rules: SourceRules,
        *,
        quiet: float = QUIET,
        by_source: Mapping[str, float] | None = None,
        namespaces: Mapping[str, str] | None = None,
        looking: Mapping[str, Looking] | None = None,
        actor: str = "system",
    ) -> None:
        self._store, self._joining, self._rules, self._actor = store, joining, rules, actor
        self._settling = Settling(store, quiet, by_source or {})
        self._seen = 0
        """Landings up to this one were looked at: a look costs what is new, not what there is."""
        self._pulled = Pulled(store, namespaces or {})
        self._looking = looking or {}

    def some(self) -> int:
        """One round; gives how much was done."""
        return self.index() + self.settle()

    def index(self) -> int:
        """Objects that no reader has seen, in arrival order; gives how many landings."""
        newest = self._store.reads.one("SELECT MAX(id) FROM landing")
        if newest is None or newest[0] is None or newest[0] <= self._seen:
            return 0
        waiting = len(self._store.reads.undigested(frozenset({OBJECT}), self._seen))
        if waiting:
            self._digest(OBJECT, self._seen)
        self._seen = int(newest[0])  # what could not be digested waits for the next start, or `cds digest`
        return waiting

    def settle(self) -> int:
        """Studies for which nothing new came for a while; gives how many."""
        self._look()
        due = self._settling.due()
        self._together(due)
        return len(due)

    def everything(self) -> Tally:
        """All studies that have something new, settled or not: somebody asked. Gives what came of it."""
        self._look()
        return self._together(self._settling.due(everything=True))

    def _look(self) -> None:
        self._settling.look()
        for study in self._pulled.look():
            self._settling.settle(study)

    def _together(self, studies: Sequence[bytes]) -> Tally:
        for study in studies:
            try:
                put_together(self._store, study, self._pulled.said.get(study), self._rules, self._looking, self._actor)
            except CdsError as error:  # the disk, the keys: it is still due at the next start
                log().error("a study was not put together", what=error.what)
        return self._digest(EXAMINATION) if studies else Tally()

    def _digest(self, media_type: str, after: int = 0) -> Tally:
        return digest_backlog(
            self._store,
            self._joining,
            self._actor,
            validate=False,
            rules=self._rules,
            only=frozenset({media_type}),
            after=after,
        )


def run(settings: Settings, parent: int) -> None:
    """Work until the parent process is gone."""
    logs.configure(settings.log_level)
    stopping = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    os.nice(10)
    store = Store.open(settings.data_dir, settings.database_url, settings.master)
    holder = jobs.holder()
    try:
        imaging = Imaging(
            store,
            settings.joining_systems,
            rules_of(settings),
            by_source=quiet_of(settings),
            namespaces={each.name: each.namespace for each in settings.sources},
            looking=choices(settings),
        )
        while os.getppid() == parent and not stopping.is_set():
            try:
                done = jobs.lease(store, LEASE, holder) and imaging.some()
            except CdsError as error:
                log().error("imaging work failed", what=error.what)
                done = 0
            if not done:
                stopping.wait(IDLE)
    finally:
        store.close()
