"""The page of similar patients over the record, put together for one process."""

from __future__ import annotations

from starlette.routing import Route

from cds_server.access.log import Access
from cds_server.decisions import Decisions
from cds_server.registry import Registry
from cds_server.settings import Settings
from cds_server.similar.desk import Similar
from cds_server.store.store import Store
from smart_app.sessions import Sessions
from smart_app.similar_pages import SimilarPages


class SimilarPatients:
    """Its routes; nothing is read before somebody asks. `close` before the store is."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        registry: Registry,
        decisions: Decisions,
        access: Access,
        sessions: Sessions,
    ) -> None:
        self.desk = Similar(store, settings, registry, decisions, access)
        self._sessions = sessions

    def routes(self) -> list[Route]:
        """To be matched before other pages of a case."""
        return SimilarPages(self._sessions, self.desk).routes()

    def close(self) -> None:
        self.desk.gathering.close()
