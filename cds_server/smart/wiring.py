"""The launches, sessions and doors of the app, put together for one process."""

from __future__ import annotations

from starlette.routing import Route

from cds_server.access.log import Access
from cds_server.settings import Settings
from cds_server.smart.launches import EhrLaunches
from cds_server.smart.sessions import StoreSessions
from cds_server.smart.tokens import EhrReads
from cds_server.store.store import Store
from smart_app.launch_doors import LaunchDoors


class SmartApp:
    """What the pages of a case stand on: `sessions` proves it, `reads` asks its EHR."""

    def __init__(self, settings: Settings, store: Store, access: Access) -> None:
        apps = {ehr.namespace: ehr.app for ehr in settings.ehrs if ehr.app is not None}
        self.sessions = StoreSessions(store, access, apps, secure=settings.public_url.startswith("https:"))
        self._launches = EhrLaunches(settings, apps, store, access, self.sessions)
        self._doors = LaunchDoors(self._launches, self.sessions, settings.public_url)

    @property
    def reads(self) -> EhrReads:
        return self._launches.reads

    def routes(self) -> list[Route]:
        """To be matched before those of a case."""
        return self._doors.routes()

    async def aclose(self) -> None:
        await self._launches.aclose()
