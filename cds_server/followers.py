"""What follows from what came in: recalls, scores that nobody asked for, pulls by the clock, silence, conformance.

Each is loaded when there is something for it to do for the first time: a server without sources, or without a record
yet, starts without any of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cds_server.settings import Settings
from cds_server.store.store import Store

if TYPE_CHECKING:
    from cds_server.continuous import Subscriber
    from cds_server.hl7_conformance import Conformer
    from cds_server.recalls import Recaller
    from cds_server.registry import Registry
    from cds_server.results_due import Due
    from cds_server.schedules import Schedules
    from cds_server.silence import Silence


class Followers:
    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self._models: Registry | None = None
        self._recaller: Recaller | None = None
        self._subscriber: Subscriber | None = None
        self._clocked: tuple[Schedules, Silence] | None = None
        self._conformer: Conformer | None = None
        self._due: Due | None = None

    def recall(self) -> int:
        """Inferences that rest on what was corrected are flagged (`recalls`); gives how many closings were read."""
        if self._recaller is None:
            if self._store.reads.one("SELECT 1 FROM resource_closing LIMIT 1") is None:
                return 0
            from cds_server.recalls import Recaller

            self._recaller = Recaller(self._store, self._registry())
        return self._recaller.some()

    def subscribe(self) -> int:
        """Who subscribes to what a feed brought is judged again (`continuous`); gives how many resources were read."""
        if not self._settings.sources:
            return 0
        if self._subscriber is None:
            from cds_server.continuous import Subscriber
            from cds_server.decisions import Decisions

            registry = self._registry()
            self._subscriber = Subscriber(self._store, registry, Decisions(self._store, self._settings, registry))
        return self._subscriber.some()

    def send(self) -> int:
        """Results that a destination wants are queued (`results_due`); gives how many inferences were looked at."""
        if not self._settings.destinations:
            return 0
        if self._due is None:
            from cds_server.decisions import Decisions
            from cds_server.outgoing import Composer
            from cds_server.results_due import Due

            registry = self._registry()
            decisions = Decisions(self._store, self._settings, registry)
            self._due = Due(self._store, Composer(self._store, self._settings, registry), registry, decisions)
        return self._due.some()

    def look(self) -> None:
        """Pulls that are due are started (`schedules`), feeds that are silent are told (`silence`)."""
        if not self._settings.sources:
            return
        if self._clocked is None:
            from cds_server.feeds import feed_sources
            from cds_server.schedules import Schedules
            from cds_server.silence import Silence

            feeds = list(feed_sources(self._settings).values())
            self._clocked = Schedules(self._settings), Silence(self._store, feeds)
        schedules, silence = self._clocked
        schedules.look(self._store)
        silence.look()

    def conform(self) -> int:
        """A sample of what feeds brought is held against its version (`hl7_conformance`); gives how many were counted.
        Waits for none of it."""
        if not self._settings.sources:
            return 0
        if self._conformer is None:
            from cds_server.feeds import feed_sources
            from cds_server.hl7_conformance import Conformer

            feeds = feed_sources(self._settings)
            self._conformer = Conformer(self._store, {name: each.sampling for name, each in feeds.items()})
        return self._conformer.some()

    def stop(self) -> None:
        if self._conformer is not None:
            self._conformer.stop()
        if self._clocked is not None:
            self._clocked[0].stop()

    def _registry(self) -> Registry:
        if self._models is None:
            from cds_server.registry import Registry
            from cds_server.services import all_services
            from models.shelf import SHIPPED, Shelf

            shelf = Shelf((SHIPPED, *self._settings.model_roots))
            self._models = Registry(self._store, shelf, all_services(conformance=self._settings.conformance))
        return self._models
